//! Paths that the image or the container controls, resolved inside its root to a descriptor.
//!
//! A path is never looked up as a string from the host: `/etc/resolv.conf -> ../../../../etc/passwd` would name a
//! file of the host then. With `openat2(2)` RESOLVE_IN_ROOT the kernel treats the root's descriptor as `/`, as after
//! a `chroot(2)`, for `..` and for absolute links; RESOLVE_NO_MAGICLINKS refuses `/proc/PID/fd/N` and its kin.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use bocker_common::diag::Reason;
use bocker_common::userns::COUNT;
use nix::errno::Errno;
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};

/// As many links as the kernel follows, MAXSYMLINKS.
const MAX_LINKS: usize = 40;

/// A container's root directory.
#[derive(Debug)]
pub struct Root(OwnedFd);

/// rustix and nix each have their own errno.
pub(crate) fn errno(error: rustix::io::Errno) -> Errno {
    Errno::from_raw(error.raw_os_error())
}

fn kind(fd: impl AsFd) -> nix::Result<FileType> {
    Ok(FileType::from_raw_mode(rustix::fs::fstat(fd).map_err(errno)?.st_mode))
}

impl Root {
    /// Takes a descriptor of a directory as root.
    pub fn new(directory: OwnedFd) -> Self {
        Self(directory)
    }

    /// Opens `path` as a process with this root would.
    ///
    /// # Errors
    /// `openat2(2)`.
    pub fn open(&self, path: impl AsRef<Path>, flags: OFlags) -> nix::Result<OwnedFd> {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        // EAGAIN: something was renamed meanwhile and the kernel could not tell that `..` stayed inside.
        for _ in 0..16 {
            match rustix::fs::openat2(&self.0, path.as_ref(), flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
                Err(rustix::io::Errno::AGAIN) => {}
                other => return other.map_err(errno),
            }
        }
        Err(Errno::EAGAIN)
    }

    /// The content of a regular file; `None` where there is none.
    ///
    /// # Errors
    /// EINVAL for anything but a regular file, EFBIG for more than `most` bytes, and `openat2(2)`.
    pub fn read(&self, path: &str, most: u64) -> nix::Result<Option<Vec<u8>>> {
        // First only a handle: opening a device or a FIFO for real can act or wait.
        let found = match self.open(path, OFlags::PATH) {
            Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(None),
            found => found?,
        };
        if kind(&found)? != FileType::RegularFile {
            return Err(Errno::EINVAL);
        }
        // A running container may have changed it since: so NONBLOCK, and look again.
        let file = self.open(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)?;
        if kind(&file)? != FileType::RegularFile {
            return Err(Errno::EINVAL);
        }
        let mut bytes = Vec::new();
        let read = std::fs::File::from(file).take(most + 1).read_to_end(&mut bytes);
        read.map_err(|e| Errno::from_raw(e.raw_os_error().unwrap_or(libc::EIO)))?;
        if bytes.len() as u64 > most { Err(Errno::EFBIG) } else { Ok(Some(bytes)) }
    }

    /// `name` directly below the root, which must be a directory and no link; made if missing.
    ///
    /// # Errors
    /// ENOTDIR or ELOOP where the image has something else.
    pub fn own_directory(&self, name: &str) -> nix::Result<OwnedFd> {
        step(self.0.as_fd(), OsStr::new(name), true)
    }

    /// Whether [`Root::own_directory`] would refuse, without making anything.
    ///
    /// # Errors
    /// As there.
    pub fn could_be_own_directory(&self, name: &str) -> nix::Result<()> {
        match step(self.0.as_fd(), OsStr::new(name), false) {
            Ok(_) | Err(Errno::ENOENT) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// A directory anywhere below the root, links followed in-root; made if missing, with its parents. For the users from this id of
    /// the host's on: only where their root could make it.
    ///
    /// # Errors
    /// `openat2(2)`, `mkdirat(2)`.
    pub fn directory(&self, path: impl AsRef<Path>, users: Option<u32>) -> nix::Result<OwnedFd> {
        match self.open(path.as_ref(), OFlags::PATH | OFlags::DIRECTORY) {
            Err(Errno::ENOENT) => self.walk(&self.canonical(path)?, users),
            found => found,
        }
    }

    /// A regular file below the root, links followed in-root, also dangling ones; made empty if missing, with its parents.
    ///
    /// # Errors
    /// EISDIR, EINVAL where there is something else; `openat2(2)`, `mkdirat(2)`.
    pub fn file(&self, path: impl AsRef<Path>) -> nix::Result<OwnedFd> {
        let found = match self.open(path.as_ref(), OFlags::PATH) {
            Err(Errno::ENOENT) => {
                let real = self.canonical(path)?;
                let name = real.file_name().ok_or(Errno::EISDIR)?;
                let parent = self.walk(real.parent().ok_or(Errno::EISDIR)?, None)?;
                let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                rustix::fs::openat(parent, name, flags | OFlags::WRONLY, Mode::from_raw_mode(0o644)).map_err(errno)?
            }
            found => found?,
        };
        match kind(&found)? {
            FileType::RegularFile => Ok(found),
            FileType::Directory => Err(Errno::EISDIR),
            _ => Err(Errno::EINVAL),
        }
    }

    /// The path without links and dots, as far as it exists; the rest as it is. Absolute, `/` being this root.
    ///
    /// # Errors
    /// ELOOP after 40 links.
    pub fn canonical(&self, path: impl AsRef<Path>) -> nix::Result<PathBuf> {
        let mut left: VecDeque<OsString> = components(path.as_ref());
        let mut done = PathBuf::from("/");
        let mut links = 0;
        while let Some(name) = left.pop_front() {
            if name == ".." {
                done.pop();
                continue;
            }
            let next = done.join(&name);
            let target = match self.open(&next, OFlags::PATH | OFlags::NOFOLLOW) {
                Ok(found) if kind(&found)? == FileType::Symlink => {
                    rustix::fs::readlinkat(found, "", Vec::new()).map_err(errno)?
                }
                Ok(_) | Err(Errno::ENOENT) => {
                    done = next;
                    continue;
                }
                Err(error) => return Err(error),
            };
            links += 1;
            if links > MAX_LINKS {
                return Err(Errno::ELOOP);
            }
            let target = PathBuf::from(OsString::from_vec(target.into_bytes()));
            if target.is_absolute() {
                done = PathBuf::from("/");
            }
            for part in components(&target).into_iter().rev() {
                left.push_front(part);
            }
        }
        Ok(done)
    }

    /// Goes down a canonical path one name at a time, making what is missing.
    fn walk(&self, canonical: &Path, users: Option<u32>) -> nix::Result<OwnedFd> {
        let mut at = self.open("/", OFlags::PATH | OFlags::DIRECTORY)?;
        for name in components(canonical) {
            at = match step(at.as_fd(), &name, false) {
                Err(Errno::ENOENT) => {
                    users.map_or(Ok(()), |start| is_theirs(&at, start))?;
                    step(at.as_fd(), &name, true)?
                }
                found => found?,
            };
        }
        Ok(at)
    }
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Our capabilities count in every directory, theirs in those that belong to one of them, capabilities(7): not in what is mounted `noidmap`.
fn is_theirs(directory: &OwnedFd, start: u32) -> nix::Result<()> {
    let stat = rustix::fs::fstat(directory).map_err(errno)?;
    let own = stat.st_uid.checked_sub(start).is_some_and(|id| id < COUNT);
    if own || stat.st_mode & 0o002 != 0 { Ok(()) } else { Err(Errno::EACCES) }
}

/// The directory `name` in `parent`, never through a link; made with mode 755 if missing and wanted.
fn step(parent: BorrowedFd<'_>, name: &OsStr, make: bool) -> nix::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat(parent, name, flags, Mode::empty()).map_err(errno) {
        Err(Errno::ENOENT) if make => {
            match rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o755)).map_err(errno) {
                Ok(()) | Err(Errno::EEXIST) => step(parent, name, false),
                Err(error) => Err(error),
            }
        }
        found => found,
    }
}

fn components(path: &Path) -> VecDeque<OsString> {
    let name = |c| match c {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsString::from("..")),
        _ => None,
    };
    path.components().filter_map(name).collect()
}

/// Why a directory of the image cannot be mounted on, in words.
pub(crate) fn no_directory(error: Errno) -> Reason {
    match error {
        Errno::ENOTDIR | Errno::ELOOP => "the image has a link or a file there, not a directory".into(),
        other => other.into(),
    }
}

/// Why a file of the image cannot be mounted on, in words.
pub(crate) fn no_file(error: Errno) -> Reason {
    match error {
        Errno::EISDIR => "the image has a directory there, not a file".into(),
        Errno::EINVAL => "the image has no regular file there".into(),
        other => other.into(),
    }
}

/// For messages, where it need not be exact.
pub(crate) fn shown(path: &OsStr) -> String {
    String::from_utf8_lossy(path.as_bytes()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// A directory with `root` in it, removed at the end.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let dir = std::env::temp_dir().join(format!("bocker-exec-{name}-{}", std::process::id()));
            std::fs::create_dir_all(dir.join("root/etc")).unwrap();
            std::fs::write(dir.join("secret"), "outside").unwrap();
            Self(dir)
        }
        fn root(&self) -> Root {
            Root::new(std::fs::File::open(self.0.join("root")).unwrap().into())
        }
        fn link(&self, target: &str, at: &str) {
            symlink(target, self.0.join("root").join(at)).unwrap();
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn links_never_leave_the_root() {
        let scratch = Scratch::new("links");
        let outside = scratch.0.join("secret");
        scratch.link("../../../../../../../..", "up");
        scratch.link(&format!("../../../../../../../..{}", outside.display()), "etc/relative");
        scratch.link(outside.to_str().unwrap(), "etc/absolute");
        scratch.link("loop", "etc/loop");
        let root = scratch.root();
        assert_eq!(root.read("etc/relative", 100), Ok(None));
        assert_eq!(root.read("/etc/absolute", 100), Ok(None));
        assert_eq!(root.read("../secret", 100), Ok(None));
        assert_eq!(root.read("up/secret", 100), Ok(None));
        assert_eq!(root.read("etc/loop", 100), Err(Errno::ELOOP));
        // Made inside, not outside.
        for link in ["etc/relative", "etc/absolute"] {
            root.file(link).unwrap();
        }
        assert_eq!(std::fs::read_to_string(&outside).unwrap(), "outside");
        assert_eq!(root.read(outside.to_str().unwrap(), 100), Ok(Some(Vec::new())));
        root.directory("up/../../made/here", None).unwrap();
        assert!(scratch.0.join("root/made/here").is_dir());
    }

    #[test]
    fn a_dangling_link_gets_its_target() {
        let scratch = Scratch::new("dangling");
        scratch.link("../run/systemd/resolve/stub-resolv.conf", "etc/resolv.conf");
        let root = scratch.root();
        assert_eq!(root.canonical("/etc/resolv.conf"), Ok("/run/systemd/resolve/stub-resolv.conf".into()));
        root.file("/etc/resolv.conf").unwrap();
        assert!(scratch.0.join("root/run/systemd/resolve/stub-resolv.conf").is_file());
    }

    #[test]
    fn mount_points_are_real() {
        let scratch = Scratch::new("real");
        scratch.link("etc", "proc");
        std::fs::write(scratch.0.join("root/sys"), "").unwrap();
        let root = scratch.root();
        assert_eq!(root.own_directory("proc").unwrap_err(), Errno::ENOTDIR);
        assert_eq!(root.own_directory("sys").unwrap_err(), Errno::ENOTDIR);
        assert!(root.own_directory("dev").is_ok());
        assert_eq!(root.file("etc").unwrap_err(), Errno::EISDIR);
    }

    #[test]
    fn reads_are_bounded_and_regular() {
        let scratch = Scratch::new("bounded");
        let etc = scratch.0.join("root/etc");
        nix::unistd::mkfifo(&etc.join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        std::fs::File::create(etc.join("huge")).unwrap().set_len(1 << 40).unwrap();
        let root = scratch.root();
        assert_eq!(root.read("etc/fifo", 100), Err(Errno::EINVAL));
        assert_eq!(root.read("etc", 100), Err(Errno::EINVAL));
        assert_eq!(root.read("etc/huge", 1 << 20), Err(Errno::EFBIG));
        assert_eq!(root.read("etc/none", 100), Ok(None));
    }
}
