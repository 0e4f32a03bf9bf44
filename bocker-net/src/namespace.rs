//! Named network namespaces, as `ip netns` keeps them: files in /run/netns with a namespace mounted on each.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use bocker_common::diag::Reason;
use bocker_common::{Error, Id, Kind, Result, userns};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};

/// Where they are.
pub(crate) const DIRECTORY: &str = "/run/netns";
pub(crate) const OWN: &str = "/proc/self/ns/net";
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
/// `users`: the first id of the users whose namespace it is; none: the caller's.
///
/// # Errors
/// The first thing that failed; nothing is left then.
pub(crate) fn create<T>(id: Id, users: Option<u32>, inside: impl FnOnce() -> nix::Result<T>) -> Result<(File, T)> {
    prepare_directory()?;
    let path = take_name(id)?;
    let users = users.map(|start| userns::make(start, true)).transpose();
    let made = users.and_then(|users| {
        enter_new(&path, users.and_then(|made| made.net), inside)
            .map_err(|(act, errno)| Error::new(act, path.display(), errno))
    });
    if made.is_err() {
        let _ = umount2(&path, MntFlags::MNT_DETACH);
        let _ = std::fs::remove_file(&path);
    }
    made
}

/// The file that a namespace is mounted on: whoever creates it has the name.
fn take_name(id: Id) -> Result<PathBuf> {
    let path = path(id);
    // O_EXCL. Mode 0, as `ip netns` has it: there is nothing to read.
    OpenOptions::new().read(true).write(true).create_new(true).mode(0o000).open(&path).map_err(|e| {
        let kind = e.kind();
        let error = Error::new("create", path.display(), e);
        match kind {
            io::ErrorKind::AlreadyExists => error.hint(format!("bocker-net down {id} removes it")),
            io::ErrorKind::StorageFull => error.hint("make room in /run: df -i /run"),
            _ => error,
        }
    })?;
    Ok(path)
}

/// In one that is made already, or in one that is made here.
fn enter_new<T>(
    path: &Path,
    made: Option<OwnedFd>,
    inside: impl FnOnce() -> nix::Result<T>,
) -> Result<(File, T), (&'static str, Errno)> {
    let own = || File::open(OWN).map_err(|e| ("open", Errno::from_raw(e.raw_os_error().unwrap_or(0))));
    let home = own()?;
    match made {
        Some(made) => setns(made, CloneFlags::CLONE_NEWNET).map_err(|e| ("join", e))?,
        None => unshare(CloneFlags::CLONE_NEWNET).map_err(|e| ("unshare for", e))?,
    }
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

/// The container's namespace.
///
/// # Errors
/// There is none.
pub(crate) fn open(id: Id) -> Result<File> {
    let path = path(id);
    File::open(&path).map_err(|e| {
        let missing = e.kind() == io::ErrorKind::NotFound;
        let error = Error::new("open", path.display(), e);
        if missing { error.hint(format!("bocker-net up {id} makes it")) } else { error }
    })
}

/// A network namespace by anybody's path.
///
/// # Errors
/// There is nothing, or it is something else.
pub(crate) fn open_path(path: &Path) -> Result<File> {
    // Without waiting for whoever is to write into a pipe of that name.
    let opened = OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path);
    let file = opened.map_err(|e| Error::new("open", path.display(), e))?;
    match userns::is_network(&file) {
        true => Ok(file),
        false => Err(Error::plain(format!("open {}: not a network namespace", path.display()))
            .hint("as /proc/PID/ns/net, or a name in /run/netns")),
    }
}

/// Gives a container that namespace: a name of its own for it. This is all that `down` takes away again.
///
/// # Errors
/// The name is taken, or the path is no network namespace.
pub(crate) fn bind(id: Id, from: &Path) -> Result<()> {
    prepare_directory()?;
    let source = open_path(from)?;
    let path = take_name(id)?;
    let from = format!("/proc/self/fd/{}", source.as_raw_fd());
    mount(Some(from.as_str()), &path, NOTHING, MsFlags::MS_BIND, NOTHING).map_err(|e| {
        let _ = std::fs::remove_file(&path);
        Error::new("mount", path.display(), e)
    })
}

/// Whether it is the namespace that this tool was started in.
pub(crate) fn is_own(id: Id) -> bool {
    number(&path(id)).is_ok_and(|there| number(Path::new(OWN)).is_ok_and(|own| own == there))
}

/// Another container with the same namespace.
pub(crate) fn shared_with(id: Id) -> Option<Id> {
    let own = number(&path(id)).ok()?;
    all().ok()?.into_iter().find(|other| *other != id && number(&path(*other)).is_ok_and(|there| there == own))
}

/// Runs `inside` in the namespace and comes back.
pub(crate) fn visit<T>(namespace: &File, inside: impl FnOnce() -> T) -> Result<T> {
    let home = File::open(OWN).map_err(|e| Error::new("open", OWN, e))?;
    setns(namespace, CloneFlags::CLONE_NEWNET).map_err(|e| Error::new("join", "the namespace", e))?;
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
