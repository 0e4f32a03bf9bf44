//! Named network namespaces, as `ip netns` keeps them: files in /run/netns with a namespace mounted on each.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use bocker_common::diag::Reason;
use bocker_common::{Error, Id, Kind, Result};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};

/// Where they are.
pub(crate) const DIRECTORY: &str = "/run/netns";
const OWN: &str = "/proc/self/ns/net";
const NOTHING: Option<&str> = None;

/// Where `ip netns` keeps a namespace of that name.
pub(crate) fn path(id: Id) -> PathBuf {
    Path::new(DIRECTORY).join(id.netns())
}

/// Whether there is a file of that name.
pub(crate) fn exists(id: Id) -> bool {
    path(id).symlink_metadata().is_ok()
}

/// Whether this kernel speaks IPv6.
pub(crate) fn has_ipv6() -> bool {
    Path::new("/proc/sys/net/ipv6").is_dir()
}

/// Makes the container's namespace and runs `inside` in it; this process is back in its own afterwards.
///
/// # Errors
/// The first thing that failed; nothing is left then.
pub(crate) fn create<T>(id: Id, inside: impl FnOnce() -> nix::Result<T>) -> Result<(File, T)> {
    let path = path(id);
    prepare_directory()?;
    // O_EXCL: whoever creates the file has the name. Mode 0, as `ip netns` has it: there is nothing to read.
    OpenOptions::new().read(true).write(true).create_new(true).mode(0o000).open(&path).map_err(|e| {
        let kind = e.kind();
        let error = Error::new("create", path.display(), e);
        match kind {
            io::ErrorKind::AlreadyExists => error.hint(format!("bocker-net down {id} removes it")),
            io::ErrorKind::StorageFull => error.hint("make room in /run: df -i /run"),
            _ => error,
        }
    })?;
    let made = enter_new(&path, inside);
    if made.is_err() {
        let _ = umount2(&path, MntFlags::MNT_DETACH);
        let _ = std::fs::remove_file(&path);
    }
    made.map_err(|(act, errno)| Error::new(act, path.display(), errno))
}

fn enter_new<T>(path: &Path, inside: impl FnOnce() -> nix::Result<T>) -> Result<(File, T), (&'static str, Errno)> {
    let own = || File::open(OWN).map_err(|e| ("open", Errno::from_raw(e.raw_os_error().unwrap_or(0))));
    let home = own()?;
    unshare(CloneFlags::CLONE_NEWNET).map_err(|e| ("unshare for", e))?;
    let work = || {
        // The mount keeps the namespace alive without a process in it.
        mount(Some(OWN), path, NOTHING, MsFlags::MS_BIND, NOTHING).map_err(|e| ("mount", e))?;
        Ok((own()?, inside().map_err(|e| ("open netlink in", e))?))
    };
    let done = work();
    setns(&home, CloneFlags::CLONE_NEWNET).map_err(|e| ("come back from", e))?;
    done
}

/// Makes /run/netns what `ip netns add` makes of it: a shared mount, so that a name that goes
/// goes in every mount namespace, instead of keeping a dead network stack in some of them.
///
/// # Errors
/// The directory or the mount cannot be made.
pub(crate) fn prepare_directory() -> Result<()> {
    make_shared_directory().map_err(|why| Error::new("prepare", DIRECTORY, why))
}

fn make_shared_directory() -> Result<(), Reason> {
    if let Err(e) = DirBuilder::new().mode(0o755).create(DIRECTORY) {
        if e.kind() != io::ErrorKind::AlreadyExists {
            return Err(e.into());
        }
    }
    let shared = || mount(NOTHING, DIRECTORY, NOTHING, MsFlags::MS_SHARED | MsFlags::MS_REC, NOTHING);
    match shared() {
        // It is no mount point yet. One at a time: bind mounts on top of each other do no good.
        Err(Errno::EINVAL) => {
            let directory = File::open(DIRECTORY)?;
            let _lock = Flock::lock(directory, FlockArg::LockExclusive).map_err(|(_, e)| e)?;
            if shared() == Err(Errno::EINVAL) {
                mount(Some(DIRECTORY), DIRECTORY, NOTHING, MsFlags::MS_BIND | MsFlags::MS_REC, NOTHING)?;
                shared()?;
            }
            Ok(())
        }
        other => Ok(other?),
    }
}

/// What /run/netns is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Directory {
    /// Not there, or no mount yet.
    Plain,
    /// As `ip netns` has it, and no name in it.
    Empty,
    /// With names, anybody's.
    InUse,
}

/// Looks at /run/netns.
pub(crate) fn directory() -> Directory {
    if !File::open(DIRECTORY).is_ok_and(|directory| is_mount_point(&directory)) {
        return Directory::Plain;
    }
    match std::fs::read_dir(DIRECTORY).map(|mut names| names.next().is_none()) {
        Ok(true) => Directory::Empty,
        _ => Directory::InUse,
    }
}

/// Whether a mount begins at the open directory itself.
///
/// By the mount's number, proc_pid_fdinfo(5), not by its place alone: a mount of the same place may lie hidden below one
/// of /run. In bytes, for the names of others need not be text.
fn is_mount_point(directory: &File) -> bool {
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", directory.as_raw_fd())).unwrap_or_default();
    let Some(number) = info.lines().find_map(|line| line.strip_prefix("mnt_id:")) else { return false };
    let mounts = std::fs::read("/proc/self/mountinfo").unwrap_or_default();
    mounts.split(|byte| *byte == b'\n').any(|line| {
        let mut words = line.split(|byte| *byte == b' ');
        words.next() == Some(number.trim().as_bytes()) && words.nth(3) == Some(DIRECTORY.as_bytes())
    })
}

/// Takes the empty directory back. Somebody who puts a name there meanwhile keeps it: rmdir(2) and umount2(2) refuse.
///
/// # Errors
/// The mount or the directory could not be removed.
pub(crate) fn remove_directory() -> Result<()> {
    let fail = |e: Reason| Error::new("remove", DIRECTORY, e);
    match umount2(DIRECTORY, MntFlags::empty()) {
        Ok(()) | Err(Errno::EINVAL | Errno::EBUSY) => {}
        Err(errno) => return Err(fail(errno.into())),
    }
    match std::fs::remove_dir(DIRECTORY) {
        Err(e)
            if !matches!(
                e.raw_os_error().map(Errno::from_raw),
                Some(Errno::ENOENT | Errno::ENOTEMPTY | Errno::EBUSY)
            ) =>
        {
            Err(fail(e.into()))
        }
        _ => Ok(()),
    }
}

/// Removes the name; the namespace ends with the last process in it. Already gone is no error.
///
/// # Errors
/// The mount or the file could not be removed.
pub(crate) fn delete(id: Id) -> Result<()> {
    let path = path(id);
    match umount2(&path, MntFlags::MNT_DETACH) {
        // EINVAL: a file without a mount on it, which a crash left.
        Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => {}
        Err(errno) => return Err(Error::new("unmount", path.display(), errno)),
    }
    match std::fs::remove_file(&path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::new("remove", path.display(), e)),
        _ => Ok(()),
    }
}

/// Moves this process into the container's namespace, `setns(2)`.
///
/// # Errors
/// There is none, or it is a file that a crash left.
pub(crate) fn join(id: Id) -> Result<()> {
    let path = path(id);
    let file = File::open(&path).map_err(|e| {
        let missing = e.kind() == io::ErrorKind::NotFound;
        let error = Error::new("open", path.display(), e);
        if missing { error.hint(format!("bocker-net up {id} makes it")) } else { error }
    })?;
    setns(&file, CloneFlags::CLONE_NEWNET).map_err(|e| Error::new("join", path.display(), e))
}

/// Runs `inside` in the container's namespace and comes back.
pub(crate) fn visit<T>(id: Id, inside: impl FnOnce() -> T) -> Result<T> {
    let home = File::open(OWN).map_err(|e| Error::new("open", OWN, e))?;
    join(id)?;
    let seen = inside();
    setns(&home, CloneFlags::CLONE_NEWNET).map_err(|e| Error::new("come back to", OWN, e))?;
    Ok(seen)
}

/// A namespace: device and inode of the file that stands for it, namespaces(7).
type Number = (u64, u64);

fn number(file: &Path) -> io::Result<Number> {
    std::fs::metadata(file).map(|found| (found.dev(), found.ino()))
}

/// The namespaces that a process is in.
///
/// # Errors
/// There is no /proc.
pub(crate) fn inhabited() -> Result<HashSet<Number>> {
    let processes = std::fs::read_dir("/proc").map_err(|e| Error::new("read", "/proc", e))?;
    // Not a number: nothing of the kind is there. Gone since: it is in none.
    Ok(processes.filter_map(|process| number(&process.ok()?.path().join("ns/net")).ok()).collect())
}

/// Whether the container's namespace is one of these.
pub(crate) fn is_among(id: Id, all: &HashSet<Number>) -> bool {
    number(&path(id)).is_ok_and(|number| all.contains(&number))
}

/// The containers that have a name in /run/netns, by number.
///
/// # Errors
/// The directory cannot be read; none at all is no error.
pub(crate) fn all() -> Result<Vec<Id>> {
    let entries = match std::fs::read_dir(DIRECTORY) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(|e| Error::new("read", DIRECTORY, e))?,
    };
    let mut ids: Vec<Id> = entries.filter_map(|entry| id_of(&entry.ok()?.file_name())).collect();
    ids.sort();
    Ok(ids)
}

fn id_of(name: &OsStr) -> Option<Id> {
    let id: Id = name.to_str()?.strip_prefix("netns_")?.parse().ok()?;
    (id.kind() == Kind::Container).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_ours_are_containers() {
        assert_eq!(id_of(OsStr::new("netns_ps_42045")).unwrap().to_string(), "ps_42045");
        for name in ["ps_42045", "netns_", "netns_img_42045", "netns_ps_42045x", "cni-1", "netns_ps_1"] {
            assert_eq!(id_of(OsStr::new(name)), None, "{name}");
        }
    }
}
