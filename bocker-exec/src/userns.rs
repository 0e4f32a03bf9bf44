//! The container's users: a user namespace, and the root file system as it looks from there.
//!
//! Its root is nobody on the host. On the disk all stays as it is: an idmapped mount, mount_setattr(2), shows what belongs to user
//! N there as user N inside, and what is made inside as N's there. The mounts themselves are made before the namespace is entered,
//! so they are the host's: no capability inside undoes one.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use bocker_common::userns::{self, COUNT, Ranges, Userns};
use bocker_common::{Error, Result};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};

use crate::inroot::{Root, errno};
use crate::sys;

/// Locks on its bytes say which ids of the spare ranges are taken, each id's byte being the one of its number, whatever line of
/// /etc/subuid they were once taken by: the kernel drops them with their holder.
const TAKEN: &str = "/run/bocker-exec/uids";

/// A container's users.
#[derive(Debug)]
pub struct Users {
    /// The user namespace.
    pub namespace: OwnedFd,
    /// The host's id of its root. The others follow, 65536 in all.
    pub start: u32,
}

impl Users {
    /// Those of a process in another user namespace; `None` in our own.
    ///
    /// # Errors
    /// `open(2)` in its /proc, a map that is not one of ours.
    #[expect(clippy::disallowed_methods, reason = "/proc of a process that a lock vouches for")]
    pub fn of(pid: i32) -> nix::Result<Option<Self>> {
        let io = |e: std::io::Error| Errno::from_raw(e.raw_os_error().unwrap_or(libc::EIO));
        let namespace = File::open(format!("/proc/{pid}/ns/user")).map_err(io)?;
        let place = |meta: std::fs::Metadata| (meta.dev(), meta.ino());
        let own = std::fs::metadata("/proc/self/ns/user").map_err(io)?;
        if place(namespace.metadata().map_err(io)?) == place(own) {
            return Ok(None);
        }
        let map = std::fs::read_to_string(format!("/proc/{pid}/uid_map")).map_err(io)?;
        let mut words = map.split_whitespace();
        match (words.next(), words.next().and_then(|start| start.parse().ok())) {
            (Some("0"), Some(start)) => Ok(Some(Self { namespace: namespace.into(), start })),
            _ => Err(Errno::EINVAL),
        }
    }
}

/// The users that a container on `root` gets, and the mount `root` as they see it. What holds their range is for who outlives them.
///
/// The user namespace is the one that our network namespace belongs to (`bocker-net up` made it so) if we made it, else a new one: from
/// `start` on, or on a range that no container of this host has.
///
/// # Errors
/// One line: no user namespace, no range, a file system that cannot be mapped.
pub fn find(asked: Userns, start: Option<u32>, root: &Root, dir: &Path) -> Result<(Option<Users>, Option<Held>)> {
    if asked == Userns::Host {
        return Ok((None, None));
    }
    let owner = network_owner().map_err(|e| Error::new("look at", "the owner of the network namespace", e))?;
    let (namespace, held) = match (start, owner) {
        (None, Some(owner)) => (owner, None),
        (Some(start), _) => (userns::make(start, false)?.user, None),
        (None, None) => {
            let held = Held::spare()?;
            (userns::make(held.start, false)?.user, Some(held))
        }
    };
    let start = map(root, &namespace, dir)?;
    Ok((Some(Users { namespace, start }), held))
}

/// `None` for our own user namespace, and for one that another user has made: its maker is root there, user_namespaces(7), and would be
/// of the container.
#[expect(clippy::disallowed_methods, reason = "/proc of the host")]
fn network_owner() -> nix::Result<Option<OwnedFd>> {
    let namespace =
        File::open("/proc/self/ns/net").map_err(|e| Errno::from_raw(e.raw_os_error().unwrap_or(libc::EIO)))?;
    let Some(owner) = userns::owner(namespace)? else { return Ok(None) };
    Ok((userns::maker(&owner)? == nix::unistd::geteuid().as_raw()).then_some(owner))
}

/// Maps the mount; the host's id of the namespace's root, which shows in whom the directory belongs to now.
fn map(root: &Root, namespace: &OwnedFd, dir: &Path) -> Result<u32> {
    let fail = |e: Errno| Error::new("map the owners of", dir.display(), e);
    let owner = || rustix::fs::fstat(root).map(|stat| stat.st_uid).map_err(|e| fail(errno(e)));
    let before = owner()?;
    sys::idmap(root.as_fd(), namespace.as_fd()).map_err(|e| match e {
        Errno::EINVAL => Error::new("map the owners of", dir.display(), "its file system cannot, mount_setattr(2)")
            .hint("--userns=host does without"),
        _ => fail(e),
    })?;
    match owner()?.checked_sub(before) {
        Some(start) if before < COUNT && start > 0 => Ok(start),
        _ => Err(Error::new("map the owners of", dir.display(), format!("it belongs to user {before}"))
            .hint("at most 65535, or --userns=host")),
    }
}

/// A range of ids for who has no container's id.
#[derive(Debug)]
pub struct Held {
    start: u32,
    file: File,
}

impl Held {
    #[expect(clippy::disallowed_methods, reason = "/run and /etc of the host")]
    fn spare() -> Result<Self> {
        let path = Path::new(TAKEN);
        let fail = |e: Errno| Error::new("hold a range of user ids in", TAKEN, e);
        let io = |e: std::io::Error| fail(Errno::from_raw(e.raw_os_error().unwrap_or(libc::EIO)));
        let ranges = Ranges::read(Path::new("/etc"))?;
        let mut again = true;
        loop {
            if let Some(parent) = path.parent() {
                std::fs::DirBuilder::new().recursive(true).mode(0o700).create(parent).map_err(io)?;
            }
            let open = std::fs::OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path);
            let file = match open {
                // Whoever was the last has just removed it.
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
                open => open.map_err(io)?,
            };
            for start in ranges.spare() {
                match lock(&file, libc::F_WRLCK, start.into(), COUNT.into()) {
                    Ok(()) if is_named(&file, path) => return Ok(Self { start, file }),
                    // Locked, but the file is no longer the one that others open.
                    Ok(()) => break,
                    Err(Errno::EAGAIN | Errno::EACCES) => {}
                    Err(errno) => return Err(fail(errno)),
                }
            }
            // Who goes, and looks whether it is the last one, has all of them for a moment.
            if is_named(&file, path) && std::mem::take(&mut again) {
                std::thread::sleep(std::time::Duration::from_millis(10));
            } else if is_named(&file, path) {
                return Err(
                    Error::plain("all spare ranges of user ids are taken").hint("--uids START, or --userns=host")
                );
            }
        }
    }
}

impl Drop for Held {
    /// The last one removes the file: it can only lock all of it when nobody else holds a byte.
    #[expect(clippy::disallowed_methods, reason = "/run of the host")]
    fn drop(&mut self) {
        let path = Path::new(TAKEN);
        if lock(&self.file, libc::F_WRLCK, 0, 0).is_ok() && is_named(&self.file, path) {
            let _ = std::fs::remove_file(path);
            let _ = path.parent().map(std::fs::remove_dir);
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "/run of the host")]
fn is_named(file: &File, path: &Path) -> bool {
    let place = |meta: std::fs::Metadata| (meta.dev(), meta.ino());
    file.metadata().map(place).ok() == std::fs::symlink_metadata(path).map(place).ok()
}

/// An open file description's lock, fcntl(2): it ends with the descriptor, and a fork shares it.
fn lock(file: &File, kind: i32, from: i64, length: i64) -> nix::Result<()> {
    let what =
        libc::flock { l_type: kind as i16, l_whence: libc::SEEK_SET as i16, l_start: from, l_len: length, l_pid: 0 };
    fcntl(file, FcntlArg::F_OFD_SETLK(&what)).map(drop)
}
