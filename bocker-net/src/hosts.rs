//! Names on a network: for each container on one a file as hosts(5) has it, which is the container's /etc/hosts.
//!
//! A container has that file itself mounted, so it cannot be replaced, only written to; and programs read it meanwhile. So every
//! line has the same length, a power of two: it lies in one page, and in one of the blocks that libraries read. One that is
//! to go becomes a comment by its first byte, and one that is to come is written behind a `#`, which goes last.

use std::fs::{File, OpenOptions};
use std::net::IpAddr;
use std::os::unix::fs::{FileExt, OpenOptionsExt};

use bocker_common::{Error, Id, Result};

use crate::network;
use crate::state::{Attachment, Records, directory};

/// The file's name in a container's directory.
pub(crate) const FILE: &str = "hosts";
/// Beside it: its lines that nobody else is told.
pub(crate) const OWN: &str = "own";
/// Bytes of a line with its end: the longest address, a tab, and the longest name (128) fit.
pub(crate) const LINE: usize = 256;

/// What is in every file.
const BASE: [&str; 2] = ["127.0.0.1\tlocalhost", "::1\tlocalhost ip6-localhost ip6-loopback"];

/// Whether the others of this network are told its names. Those of the default one are not, as with docker.
pub(crate) fn has_names(one: &Attachment) -> bool {
    one.network != network::DEFAULT
}

/// The files of all, by container.
pub(crate) fn all(records: &Records) -> Vec<(Id, Vec<String>)> {
    // One that was on a named network still has the file.
    let has_file = |id: Id| directory(id).join(FILE).symlink_metadata().is_ok();
    let named = records.iter().filter(|(id, on)| on.iter().any(has_names) || has_file(*id));
    let all = |id: Id, on| with(lines(id, on, records), own(id));
    named.map(|(id, on)| (*id, all(*id, on))).collect()
}

/// With what is not there yet.
pub(crate) fn with(mut lines: Vec<String>, more: Vec<String>) -> Vec<String> {
    for line in more {
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
    lines
}

/// What a container was told for itself alone.
fn own(id: Id) -> Vec<String> {
    let text = std::fs::read_to_string(directory(id).join(OWN)).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// What one container's file says: itself first, so that its own address gives its own name.
fn lines(id: Id, on: &[Attachment], records: &Records) -> Vec<String> {
    let mut lines: Vec<String> = BASE.map(str::to_owned).into();
    for one in on.iter().filter(|one| has_names(one)) {
        add(&mut lines, id, one);
    }
    for (other, theirs) in records.iter().filter(|(other, _)| *other != id) {
        for their in theirs.iter().filter(|their| has_names(their) && on.iter().any(|one| one.network == their.network))
        {
            add(&mut lines, *other, their);
        }
    }
    lines
}

/// A line for each address and name.
fn add(lines: &mut Vec<String>, id: Id, one: &Attachment) {
    let id = id.to_string();
    for address in [Some(IpAddr::V4(one.address)), one.address6.map(IpAddr::V6)].into_iter().flatten() {
        for name in std::iter::once(&id).chain(&one.names) {
            let line = format!("{address}\t{name}");
            if !lines.contains(&line) {
                lines.push(line);
            }
        }
    }
}

/// Brings all files to what these records say.
///
/// # Errors
/// The first that could not be written; the others are.
pub(crate) fn write(records: &Records) -> Result<()> {
    let mut done = Ok(());
    for (id, lines) in all(records) {
        let path = directory(id).join(FILE);
        let open = || OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o644).open(&path);
        let written = open().and_then(|file| update(&file, &lines));
        done = done.and(written.map_err(|e| Error::new("write", path.display(), e)));
    }
    done
}

/// Changes the lines that differ. At no time does the file have half a line, or lack one that stays.
fn update(file: &File, lines: &[String]) -> std::io::Result<()> {
    let length = file.metadata()?.len();
    let mut old = vec![0; usize::try_from(length).unwrap_or(0)];
    file.read_exact_at(&mut old, 0)?;
    // A disk that was full, or somebody's hand.
    if old.len() % LINE != 0 || old.chunks(LINE).any(|slot| slot.last() != Some(&b'\n')) {
        file.set_len(0)?;
        old.clear();
    }
    let slots: Vec<&[u8]> = old.chunks(LINE).collect();
    let new: Vec<Vec<u8>> = lines.iter().map(|line| slot(line)).collect();
    let offset = |number: usize| (number * LINE) as u64;
    let stays = |slot: &&[u8]| new.iter().any(|line| line == slot);
    let mut free: Vec<usize> = (0..slots.len()).filter(|at| !stays(&slots[*at])).collect();
    for at in free.iter().filter(|at| slots[**at].first() != Some(&b'#')) {
        file.write_all_at(b"#", offset(*at))?;
    }
    free.reverse();
    let mut end = slots.len();
    for line in new.iter().filter(|line| !slots.contains(&line.as_slice())) {
        let at = free.pop().unwrap_or_else(|| {
            end += 1;
            end - 1
        });
        if at < slots.len() {
            file.write_all_at(&line[1..], offset(at) + 1)?;
            file.write_all_at(&line[..1], offset(at))?;
        } else {
            // The file's length grows when the bytes are there; LINE divides a page's size.
            file.write_all_at(line, offset(at))?;
        }
    }
    Ok(())
}

fn slot(line: &str) -> Vec<u8> {
    let mut bytes = line.as_bytes().to_vec();
    bytes.resize(LINE - 1, b' ');
    bytes.push(b'\n');
    bytes
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    fn temporary(name: &str) -> (std::path::PathBuf, File) {
        let path = std::env::temp_dir().join(format!("bocker-net-{name}-{}", std::process::id()));
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
        (path, file)
    }

    fn said(text: &str) -> Vec<&str> {
        text.lines().map(str::trim_end).filter(|line| !line.starts_with('#')).collect()
    }

    #[test]
    fn lines_come_go_and_use_the_same_room() {
        let (path, file) = temporary("hosts");
        let lines = |words: &[&str]| words.iter().map(|word| format!("10.0.0.2\t{word}")).collect::<Vec<_>>();
        for (words, slots) in
            [(&["a", "b", "c"][..], 3), (&["a", "c"], 3), (&["a", "d", "c"], 3), (&["e"], 3), (&[], 3)]
        {
            update(&file, &lines(words)).unwrap();
            let text = std::fs::read_to_string(&path).unwrap();
            let mut now = said(&text);
            now.sort_unstable();
            let mut expected = lines(words);
            expected.sort();
            assert_eq!(now, expected);
            assert_eq!(text.len(), slots * LINE);
        }
        // Somebody's own text in it is given up.
        std::fs::write(&path, "1.2.3.4 x\n5.6").unwrap();
        update(&file, &lines(&["a"])).unwrap();
        assert_eq!(said(&std::fs::read_to_string(&path).unwrap()), ["10.0.0.2\ta"]);
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn nobody_reads_half_a_line() {
        let (path, file) = temporary("hosts-read");
        let stop = AtomicBool::new(false);
        let line = |n: usize| format!("10.0.{}.{}\tname-{n}-{}", n % 200, n % 250, "x".repeat(n % 90));
        let whole: Vec<String> = (0..600).map(line).collect();
        update(&file, &whole[..1]).unwrap();
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let mut read = 0;
                while !stop.load(Ordering::Relaxed) {
                    let text = std::fs::read_to_string(&path).unwrap();
                    let now = said(&text);
                    assert!(now.contains(&whole[0].as_str()), "one that stays is always there");
                    for line in now {
                        assert!(whole.iter().any(|one| one == line), "{line:?}");
                    }
                    read += 1;
                }
                read
            });
            for n in 1..600_usize {
                let some: Vec<String> =
                    std::iter::once(0).chain(n.saturating_sub(n % 7)..n).map(|n| whole[n].clone()).collect();
                update(&file, &some).unwrap();
            }
            stop.store(true, Ordering::Relaxed);
            assert!(reader.join().unwrap() > 10);
        });
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_file_names_who_is_on_the_same_networks() {
        let on = |network: &str, address: &str, names: &[&str]| Attachment {
            number: 0,
            network: network.into(),
            address: address.parse().unwrap(),
            address6: None,
            mac: "02:42:0a:40:00:2d".parse().unwrap(),
            names: names.iter().map(|name| (*name).to_owned()).collect(),
        };
        let id = |text: &str| text.parse::<Id>().unwrap();
        let records = vec![
            (id("ps_42045"), vec![on("back", "10.64.0.45", &["db"]), on("front", "10.64.1.45", &["db"])]),
            (id("ps_42046"), vec![on("front", "10.64.1.46", &["web"])]),
            (id("ps_42047"), vec![on("bridge", "10.0.0.99", &["alone"])]),
        ];
        let files = all(&records);
        assert_eq!(files.len(), 2, "none for the default network");
        let expected = ["10.64.1.46\tps_42046", "10.64.1.46\tweb", "10.64.1.45\tps_42045", "10.64.1.45\tdb"];
        assert_eq!(files[1].1[2..], expected);
        assert_eq!(files[0].1.len(), 2 + 4 + 2);
    }
}
