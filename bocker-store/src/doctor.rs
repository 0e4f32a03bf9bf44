//! `doctor`: in what state the store is, and what this host has for it. It changes nothing.

#![expect(clippy::disallowed_methods, reason = "/proc, /lib, /run and the pool file beside the store: the host's own")]

use std::os::fd::OwnedFd;
use std::path::Path;

use bocker_common::Result;
use bocker_common::doctor::{Findings, State};
use rustix::fs::{Mode, OFlags, StatVfsMountFlags};

use crate::claims;
use crate::layer::names;
use crate::room::Room;
use crate::store::{Store, is_btrfs};
use crate::{fsck, pool, sys, verbs};

/// Prints the lines.
///
/// # Errors
/// Something is bad.
pub(crate) fn doctor(root: &Path) -> Result<()> {
    let mut all = Findings::default();
    let kernel = has_btrfs(&text("/proc/filesystems"), &text("/proc/sys/kernel/osrelease"), Path::new("/lib/modules"));
    match kernel {
        Some(detail) => all.ok("btrfs", detail),
        None => all.bad("btrfs", "this kernel has none: a kernel with CONFIG_BTRFS_FS, or its module"),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match rustix::fs::open(root, flags, Mode::empty()) {
        Ok(dir) if is_btrfs(&dir) => store(root, &dir, &mut all),
        Ok(dir) => {
            let is_empty = names(&dir).is_ok_and(|names| names.is_empty());
            none(root, is_empty, &mut all);
        }
        Err(rustix::io::Errno::NOENT) => none(root, true, &mut all),
        Err(e) => all.bad("store", format!("{}: {}", root.display(), std::io::Error::from(e))),
    }
    ids(&mut all);
    all.print()
}

fn text(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// Whether the kernel has btrfs, or a module of it.
fn has_btrfs(filesystems: &str, release: &str, modules: &Path) -> Option<String> {
    if filesystems.lines().any(|line| line.trim_start_matches("nodev").trim() == "btrfs") {
        return Some("the kernel has it".to_owned());
    }
    let dir = modules.join(release.trim());
    let listed = ["modules.dep", "modules.builtin"].iter().any(|list| {
        let list = std::fs::read_to_string(dir.join(list)).unwrap_or_default();
        list.lines().any(|line| line.split(':').next().unwrap_or_default().contains("/btrfs.ko"))
    });
    listed.then(|| "a module, which a mount loads".to_owned())
}

/// There is no store.
fn none(root: &Path, is_empty: bool, all: &mut Findings) {
    let file = pool::file_of(root);
    if !is_empty {
        all.bad("store", format!("{} is no btrfs, and there are files in it: another BOCKER_ROOT", root.display()));
    } else if file.exists() {
        all.warn("store", format!("{} is not mounted: bocker setup mounts it on {}", file.display(), root.display()));
    } else {
        all.warn("store", format!("{} is not there yet: bocker setup makes it", root.display()));
    }
    let above = root.parent().unwrap_or(root);
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    if rustix::fs::open(above, flags, Mode::empty()).is_ok_and(is_btrfs) {
        return;
    }
    loops(all);
    if !file.exists() && pool::mkfs().is_none() {
        all.bad("mkfs.btrfs", format!("not there, and {} is no btrfs: apt install btrfs-progs", above.display()));
    }
}

fn loops(all: &mut Findings) {
    if Path::new("/dev/loop-control").exists() {
        all.ok("loop devices", "/dev/loop-control");
    } else {
        all.bad("loop devices", "no /dev/loop-control, and the store is a file: modprobe loop");
    }
}

fn store(root: &Path, dir: &OwnedFd, all: &mut Findings) {
    let file = pool::file_of(root);
    let is_pool = pool::is_mounted(root);
    let kind = if is_pool { format!("btrfs in the file {}", file.display()) } else { "the host's btrfs".to_owned() };
    match pool::complete(root) {
        Ok(true) => all.ok("store", format!("{}, {kind}", root.display())),
        Ok(false) => all.bad("store", format!("{}: others may enter it: chmod 700 {0}", root.display())),
        Err(error) => all.bad("store", error),
    }
    let stat = match rustix::fs::fstatvfs(dir) {
        Ok(stat) => stat,
        Err(e) => return all.bad("store", format!("{}: {}", root.display(), std::io::Error::from(e))),
    };
    if stat.f_flag.contains(StatVfsMountFlags::RDONLY) {
        let way = "where an error made it so dmesg says which; else mount -o remount,rw";
        all.bad("writing", format!("{} is read-only: {way} {0}", root.display()));
    } else {
        all.ok("writing", "the store can be written to");
    }
    if is_pool {
        loops(all);
    }
    room(root, dir, is_pool, all);
    let opened = Store::open(root);
    match opened.as_ref().map_err(Clone::clone).and_then(verbs::leftovers) {
        Ok(0) => all.ok("leftovers", "none in the store"),
        Ok(count) => all.warn("leftovers", format!("{count} that a crash left: bocker gc")),
        Err(error) => all.bad("leftovers", error),
    }
    match opened.as_ref().map_err(Clone::clone).and_then(fsck::findings) {
        Ok(found) => match found.first() {
            None => all.ok("content", "names, files and subvolumes say the same"),
            Some((name, what)) => {
                all.warn(
                    "content",
                    format!("{} findings, as {name}: {what}; bocker-store fsck lists them", found.len()),
                );
            }
        },
        Err(error) => all.bad("content", error),
    }
}

fn mebibytes(bytes: u64) -> String {
    if bytes >= 10 << 30 { format!("{} GiB", bytes >> 30) } else { format!("{} MiB", bytes >> 20) }
}

fn room(root: &Path, dir: &OwnedFd, is_pool: bool, all: &mut Findings) {
    let way = if is_pool {
        "bocker prune lists what can go; the disk below counts, too"
    } else {
        "bocker prune lists what can go"
    };
    match Room::of(dir, root.to_owned()).and_then(|room| Ok((room.bytes()?, room.is_short()))) {
        Ok((0, _)) => all.bad("room", format!("full: no image can be pulled: {way}")),
        Ok((bytes, true)) => all.warn("room", format!("{} can be filled: {way}", mebibytes(bytes))),
        Ok((bytes, false)) => all.ok("room", format!("{} can be filled", mebibytes(bytes))),
        Err(error) => all.bad("room", error),
    }
    match sys::spaces(dir) {
        Ok(spaces) => {
            let unallocated = sys::unallocated(dir).unwrap_or(0);
            let (state, detail) = metadata(&spaces, unallocated, root);
            all.add(state, "metadata", detail);
        }
        Err(e) => all.warn("metadata", format!("how much there is cannot be told: {}", e.desc())),
    }
}

/// Names and layers take metadata, which data that fills the disk leaves no room for.
fn metadata(spaces: &[sys::Space], unallocated: u64, root: &Path) -> (State, String) {
    /// Less than deleting something large may need.
    const LITTLE: u64 = 64 << 20;
    let of = |flag: u64| spaces.iter().filter(move |space| space.flags & flag != 0 && space.flags & sys::RESERVED == 0);
    let sum = |of: &mut dyn Iterator<Item = u64>| of.fold(0, u64::saturating_add);
    let total = sum(&mut of(sys::METADATA).map(|space| space.total));
    let used = sum(&mut of(sys::METADATA).map(|space| space.used));
    // The reserve is metadata that is used already, in part.
    let reserve = sum(&mut spaces
        .iter()
        .filter(|space| space.flags & sys::RESERVED != 0)
        .map(|space| space.total.saturating_sub(space.used)));
    let free = total.saturating_sub(used).saturating_sub(reserve).saturating_add(unallocated);
    let detail = format!("{} of {} used, {} not set apart", mebibytes(used), mebibytes(total), mebibytes(unallocated));
    if free >= LITTLE {
        return (State::Ok, detail);
    }
    let way = format!("bocker rm what is not needed, then btrfs balance start -dusage=10 {}", root.display());
    (State::Warn, format!("{detail}: little is left for names and layers: {way}"))
}

/// Which ids are whose: links in /run.
fn ids(all: &mut Findings) {
    match rustix::fs::statvfs("/run") {
        Ok(stat) if stat.f_files > 0 && stat.f_favail == 0 || stat.f_bavail == 0 => {
            all.bad("/run", "full: no container can be made: df -h /run; df -i /run");
        }
        Ok(_) => all.ok("/run", format!("has room for {}", claims::DIRECTORY)),
        Err(e) => all.bad("/run", std::io::Error::from(e)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::{METADATA, RESERVED, Space};

    #[test]
    fn a_kernel_with_btrfs_or_its_module() {
        let dir = tempfile::tempdir().unwrap();
        let has = |filesystems: &str| has_btrfs(filesystems, "6.1.0\n", dir.path());
        assert!(has("nodev\tsysfs\n\text4\n\tbtrfs\n").is_some());
        assert!(has("nodev\tsysfs\n\text4\n").is_none() && has("nodev\tbtrfs2\n").is_none());
        std::fs::create_dir(dir.path().join("6.1.0")).unwrap();
        let list = |text: &str| std::fs::write(dir.path().join("6.1.0/modules.dep"), text).unwrap();
        list("kernel/fs/ext4/ext4.ko: kernel/fs/btrfs/btrfs.ko\n");
        assert!(has("\text4\n").is_none(), "only what another needs");
        list("kernel/fs/btrfs/btrfs.ko.xz: kernel/lib/raid6.ko.xz\n");
        assert_eq!(has("\text4\n").unwrap(), "a module, which a mount loads");
    }

    #[test]
    fn metadata_may_be_short_where_data_is_not() {
        let space = |flags: u64, total: u64, used: u64| Space { flags, total: total << 20, used: used << 20 };
        let spaces = [space(1, 4000, 10), space(METADATA, 256, 100), space(RESERVED | METADATA, 16, 0)];
        let state = |unallocated: u64| metadata(&spaces, unallocated << 20, Path::new("/x"));
        assert_eq!(state(0), (State::Ok, "100 MiB of 256 MiB used, 0 MiB not set apart".to_owned()));
        let spaces = [space(METADATA, 256, 190), space(RESERVED, 16, 0)];
        let state = |unallocated: u64| metadata(&spaces, unallocated << 20, Path::new("/x"));
        assert_eq!(state(100).0, State::Ok);
        let (short, detail) = state(0);
        assert!(short == State::Warn && detail.ends_with("btrfs balance start -dusage=10 /x"), "{detail}");
    }
}
