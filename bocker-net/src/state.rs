//! What is written down of running containers, where more is to be known than follows from the id: /run/bocker-net/ID.
//!
//! `network` has a line for each network that a container is on; together they say which addresses, MACs and names are
//! taken. A record counts as long as its container's namespace has a name: so none outlives its owner.

use std::fmt;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use bocker_common::say::{Said, quote};
use bocker_common::{Error, Id, Kind, Result};
use nix::fcntl::{Flock, FlockArg};

use crate::subnet::Mac;
use crate::{cable, hosts, namespace, network};

/// Where they are. It stays, as /run/netns does.
pub(crate) const DIRECTORY: &str = "/run/bocker-net";
/// The record's name in a container's directory.
const RECORD: &str = "network";

/// A container on a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Attachment {
    /// Of its cable: 0 is eth0.
    pub(crate) number: u8,
    pub(crate) network: String,
    pub(crate) address: Ipv4Addr,
    pub(crate) address6: Option<Ipv6Addr>,
    pub(crate) mac: Mac,
    /// What the others on this network call it, beside its id.
    pub(crate) names: Vec<String>,
}

/// `eth0\tback\t10.64.0.45\t-\t02:42:0a:40:00:2d\tdb sql`
impl fmt::Display for Attachment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address6 = self.address6.map_or_else(|| "-".to_owned(), |address| address.to_string());
        let (interface, names) = (cable::inside(self.number), self.names.join(" "));
        write!(f, "{interface}\t{}\t{}\t{address6}\t{}\t{names}", self.network, self.address, self.mac)
    }
}

impl FromStr for Attachment {
    type Err = ();

    fn from_str(line: &str) -> Result<Self, ()> {
        let words: Vec<&str> = line.split('\t').collect();
        let [interface, network, address, address6, mac, names] = words[..] else { return Err(()) };
        Ok(Self {
            number: interface.strip_prefix("eth").and_then(|number| number.parse().ok()).ok_or(())?,
            network: network.to_owned(),
            address: address.parse().map_err(drop)?,
            address6: if address6 == "-" { None } else { Some(address6.parse().map_err(drop)?) },
            mac: mac.parse().map_err(drop)?,
            names: names.split(' ').filter(|name| !name.is_empty()).map(str::to_owned).collect(),
        })
    }
}

/// All that is running and written down.
pub(crate) type Records = Vec<(Id, Vec<Attachment>)>;

/// A container's directory.
pub(crate) fn directory(id: Id) -> PathBuf {
    Path::new(DIRECTORY).join(id.to_string())
}

/// Whether it is there.
pub(crate) fn is_there(id: Id) -> bool {
    directory(id).symlink_metadata().is_ok()
}

/// Whether its networks are written down.
pub(crate) fn has_record(id: Id) -> bool {
    directory(id).join(RECORD).symlink_metadata().is_ok()
}

/// The containers that have a directory, running or not.
pub(crate) fn all() -> Result<Vec<Id>> {
    let entries = match std::fs::read_dir(DIRECTORY) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(|e| Error::new("read", DIRECTORY, e))?,
    };
    let id = |name: &str| name.parse().ok().filter(|id: &Id| id.kind() == Kind::Container);
    let mut ids: Vec<Id> = entries.filter_map(|entry| id(entry.ok()?.file_name().to_str()?)).collect();
    ids.sort();
    Ok(ids)
}

/// A container's networks; none where nothing is written down.
///
/// # Errors
/// The file cannot be read, or is not ours.
pub(crate) fn read(id: Id) -> Result<Vec<Attachment>> {
    let path = directory(id).join(RECORD);
    let text = match std::fs::read_to_string(&path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        text => text.map_err(|e| Error::new("read", path.display(), e))?,
    };
    let lines: Result<_, ()> = text.lines().map(str::parse).collect();
    lines.map_err(|()| Error::plain(format!("{}: not a record of ours", path.display())))
}

/// What is written down of those that run.
pub(crate) fn live() -> Result<Records> {
    let running = all()?.into_iter().filter(|id| has_record(*id) && namespace::exists(*id));
    running.map(|id| Ok((id, read(id)?))).collect()
}

/// Held while records and hosts files are looked at and written.
pub(crate) fn lock() -> Result<Flock<File>> {
    let fail = |e: io::Error| Error::new("lock", DIRECTORY, e);
    loop {
        make(Path::new(DIRECTORY))?;
        let directory = match File::open(DIRECTORY) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            other => other.map_err(fail)?,
        };
        let lock = Flock::lock(directory, FlockArg::LockExclusive).map_err(|(_, e)| fail(e.into()))?;
        let same = |now: std::fs::Metadata| {
            lock.metadata().is_ok_and(|held| (held.dev(), held.ino()) == (now.dev(), now.ino()))
        };
        // Whoever removes the directory may have done so while we waited.
        if std::fs::metadata(DIRECTORY).is_ok_and(same) {
            return Ok(lock);
        }
    }
}

/// Root's alone: whoever may open a file can lock it, and so keep us waiting.
pub(crate) fn make(directory: &Path) -> Result<()> {
    let made = DirBuilder::new().mode(0o700).recursive(true).create(directory);
    made.map_err(|e| Error::new("create", directory.display(), e))
}

pub(crate) fn say_make(id: Id) -> String {
    format!("mkdir -p -m 700 {DIRECTORY} {}", directory(id).display())
}

/// Refuses what another one has: by its record, or on the default network by its id, as long as it runs.
pub(crate) fn check(id: Id, wanted: &[Attachment], live: &Records) -> Result<()> {
    let taken = |what: String, network: &str, who: Id| {
        Error::plain(format!("{id}: {what} is {who}'s on the network {network}"))
            .hint(format!("bocker-net address {who}"))
    };
    for one in wanted {
        for (other, theirs) in live.iter().filter(|(other, _)| *other != id) {
            for their in theirs.iter().filter(|their| their.network == one.network) {
                if their.address == one.address {
                    return Err(taken(one.address.to_string(), &one.network, *other));
                }
                if let Some(address6) = one.address6.filter(|_| their.address6 == one.address6) {
                    return Err(taken(address6.to_string(), &one.network, *other));
                }
                if their.mac == one.mac {
                    return Err(taken(one.mac.to_string(), &one.network, *other));
                }
            }
        }
        if one.network == network::DEFAULT {
            by_function(id, one, live, taken)?;
        }
    }
    Ok(())
}

/// On the default network those without a record have what follows from their ids.
fn by_function(id: Id, one: &Attachment, live: &Records, taken: impl Fn(String, &str, Id) -> Error) -> Result<()> {
    let default = network::default()?;
    let has_it =
        |other: &Id| *other != id && namespace::exists(*other) && !live.iter().any(|(known, _)| known == other);
    if let Some(other) = default.subnet.id_of(one.address).filter(has_it) {
        return Err(taken(one.address.to_string(), &one.network, other));
    }
    if let Some(other) = one.address6.and_then(|address| default.subnet6?.id_of(address)).filter(has_it) {
        return Err(taken(format!("{:?}", one.address6.unwrap_or(Ipv6Addr::UNSPECIFIED)), &one.network, other));
    }
    let of_mac = one.mac.address().and_then(|address| default.subnet.id_of(address));
    match of_mac.filter(has_it) {
        Some(other) => Err(taken(one.mac.to_string(), &one.network, other)),
        None => Ok(()),
    }
}

/// For an `up` that writes nothing down: nobody may have chosen what follows from its id. Where nothing was ever written
/// down this is one question to the file system.
pub(crate) fn make_way(id: Id, own: &Attachment) -> Result<()> {
    if Path::new(DIRECTORY).symlink_metadata().is_err() {
        return Ok(());
    }
    forget_dead(id)?;
    check(id, std::slice::from_ref(own), &live()?)
}

/// What a crash left of an id that is about to be used again.
pub(crate) fn forget_dead(id: Id) -> Result<()> {
    match has_record(id) && !namespace::exists(id) {
        true => Step::Forget(id).apply(),
        false => Ok(()),
    }
}

/// A change of these files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// Takes addresses, MACs and names; then what was there before.
    Record(Id, Vec<Attachment>, Vec<Attachment>),
    /// Lines of the container's own hosts file that follow from nothing else.
    Own(Id, Vec<String>),
    /// Gives them back.
    Forget(Id),
    /// The directory, with all that is in it.
    Remove(Id),
    /// What the hosts files are to say, as far as can be told beforehand.
    Hosts(Vec<(Id, Vec<String>)>),
}

impl Step {
    pub(crate) fn undo(&self) -> Option<Self> {
        match self {
            Self::Record(id, _, before) if before.is_empty() => Some(Self::Forget(*id)),
            Self::Record(id, now, before) => Some(Self::Record(*id, before.clone(), now.clone())),
            _ => None,
        }
    }

    pub(crate) fn say(&self) -> Said {
        match self {
            Self::Record(id, all, _) => {
                let lines: Vec<String> = all.iter().map(|one| quote(one.to_string())).collect();
                let file = directory(*id).join(RECORD);
                Said::new(
                    format!("{}\nprintf '%s\\n' {} > {}", say_make(*id), lines.join(" "), file.display()),
                    "what does not follow from the id; while the namespace has a name, nobody else gets these addresses and MACs",
                )
            }
            Self::Forget(id) => Said::new(
                format!(
                    "rm -f {0}/{RECORD} {0}/{1} {0}/{2}\nrmdir {0} 2>/dev/null || :",
                    directory(*id).display(),
                    hosts::FILE,
                    hosts::OWN
                ),
                "all follows from the id again",
            ),
            Self::Own(id, lines) => {
                let lines: Vec<String> = lines.iter().map(quote).collect();
                let file = directory(*id).join(hosts::OWN);
                Said::new(
                    format!("printf '%s\\n' {} > {}", lines.join(" "), file.display()),
                    "names that it alone knows",
                )
            }
            Self::Remove(id) => {
                Said::new(format!("rm -rf {}", directory(*id).display()), "what was written down of it")
            }
            Self::Hosts(files) => {
                let files: Vec<String> = files
                    .iter()
                    .map(|(id, lines)| {
                        let lines: Vec<String> = lines.iter().map(quote).collect();
                        let file = directory(*id).join(hosts::FILE);
                        format!("printf '%-{}s\\n' {} > {}", hosts::LINE - 1, lines.join(" "), file.display())
                    })
                    .collect();
                Said::new(
                    files.join("\n"),
                    "who is on the same networks, by name; lines of one length, so that one can be replaced while others read",
                )
            }
        }
    }

    pub(crate) fn apply(&self) -> Result<()> {
        let _alone = lock()?;
        match self {
            Self::Record(id, all, _) => {
                check(*id, all, &live()?)?;
                write(*id, all)
            }
            Self::Forget(id) => {
                for name in [RECORD, hosts::FILE, hosts::OWN] {
                    gone(&directory(*id).join(name))?;
                }
                // It may hold more.
                let _ = std::fs::remove_dir(directory(*id));
                // An `up` that came to naught may have told the others its names.
                hosts::write(&live()?)
            }
            Self::Own(id, lines) => {
                let file = directory(*id).join(hosts::OWN);
                let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
                std::fs::write(&file, text).map_err(|e| Error::new("write", file.display(), e))
            }
            Self::Remove(id) => remove(*id),
            // As it is now: others may have come or gone since it was planned.
            Self::Hosts(_) => hosts::write(&live()?),
        }
    }
}

fn gone(file: &Path) -> Result<()> {
    match std::fs::remove_file(file) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::new("remove", file.display(), e)),
        _ => Ok(()),
    }
}

fn remove(id: Id) -> Result<()> {
    let directory = directory(id);
    match std::fs::remove_dir_all(&directory) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::new("remove", directory.display(), e)),
        _ => Ok(()),
    }
}

/// In one step, so that nobody reads half of it.
fn write(id: Id, all: &[Attachment]) -> Result<()> {
    let directory = directory(id);
    make(&directory)?;
    let (new, path) = (directory.join(".network"), directory.join(RECORD));
    let text: String = all.iter().map(|one| format!("{one}\n")).collect();
    let written =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o644).open(&new).and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            std::fs::rename(&new, &path)
        });
    written.map_err(|e| {
        let full = e.kind() == io::ErrorKind::StorageFull;
        let error = Error::new("write", path.display(), e);
        if full { error.hint("make room in /run: df -h /run") } else { error }
    })
}

/// What takes away what is written down of a container, and its names from the others' files.
pub(crate) fn plan_remove(id: Id) -> Result<Vec<Step>> {
    if !is_there(id) {
        return Ok(Vec::new());
    }
    let mut plan = vec![Step::Remove(id)];
    // Unreadable or not: it goes.
    if read(id).is_ok_and(|all| all.iter().any(hosts::has_names)) {
        let rest: Records = live()?.into_iter().filter(|(other, _)| *other != id).collect();
        plan.extend(hosts_of(&rest));
    }
    Ok(plan)
}

/// The hosts files as they will be, if there are any.
pub(crate) fn hosts_of(records: &Records) -> Option<Step> {
    let files = hosts::all(records);
    if files.is_empty() { None } else { Some(Step::Hosts(files)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u32) -> Id {
        Id::new(Kind::Container, number).unwrap()
    }

    fn on(network: &str, last: u8) -> Attachment {
        let address = Ipv4Addr::new(10, 64, 0, last);
        Attachment {
            number: 0,
            network: network.into(),
            address,
            address6: None,
            mac: Mac::from(address),
            names: vec!["db".into()],
        }
    }

    #[test]
    fn a_line_is_read_as_it_was_written() {
        let line = "eth0\tback\t10.64.0.45\t-\t02:42:0a:40:00:2d\tdb";
        assert_eq!(on("back", 45).to_string(), line);
        assert_eq!(line.parse(), Ok(on("back", 45)));
        let other = Attachment { address6: "fd00::2d".parse().ok(), names: Vec::new(), number: 3, ..on("b", 45) };
        assert_eq!(other.to_string().parse(), Ok(other));
        for bad in ["", "eth0\tback", "veth\tback\t10.64.0.45\t-\t02:42:0a:40:00:2d\t", &format!("{line}\tx")] {
            assert_eq!(bad.parse::<Attachment>(), Err(()), "{bad:?}");
        }
    }

    #[test]
    fn what_another_one_has_is_refused_on_that_network_only() {
        let live = vec![(id(42_045), vec![on("back", 45)])];
        let wants = |one: Attachment| check(id(42_046), &[one], &live);
        assert!(wants(on("back", 46)).is_ok() && wants(on("front", 45)).is_ok());
        assert!(wants(on("back", 45)).unwrap_err().to_string().contains("10.64.0.45 is ps_42045's"));
        let mac = Attachment { mac: on("back", 45).mac, ..on("back", 46) };
        assert!(wants(mac).unwrap_err().to_string().contains("02:42:0a:40:00:2d is ps_42045's"));
        // It may have its own again.
        assert!(check(id(42_045), &[on("back", 45)], &live).is_ok());
    }
}
