//! What a new volume holds: what the image has at the place where it comes, copied as it is.
//!
//! Only an empty one is filled (CVE-2020-1726), and nothing is followed out of the image: the place is resolved inside its
//! root (CVE-2022-23648, CVE-2023-0778). The copy is made in `vol_NAME/.filling`, where no container that has the volume
//! can reach it, becomes `.filled` in one step when it is whole, and moves into `data` name by name: what a crash left is
//! thrown away, or moved on, by the next one that comes, or by gc.

use std::os::fd::{AsFd, OwnedFd};

use bocker_common::say::{Said, quote};
use bocker_common::{Error, Id, Result};
use rustix::fs::{FlockOperation, IFlags, Mode, OFlags, RenameFlags, ResolveFlags};
use rustix::io::Errno;

use crate::import as copier;
use crate::layer::{by_number, lstat, names, open_in_root, remove};
use crate::signal::Interrupt;
use crate::store::{Store, to_nix};
use crate::volumes::{DATA, Volume};

/// A copy under way.
const FILLING: &str = ".filling";
/// A whole one, not all of which is in its place yet.
const FILLED: &str = ".filled";
/// Directories within directories that are removed, at most: as many as are copied, and some.
const MAX_DEPTH: usize = 500;

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// The directory at an absolute path inside a root, links followed within it; None if there is none.
fn resolve(root: impl AsFd, path: &str) -> rustix::io::Result<Option<OwnedFd>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    // EAGAIN: a rename somewhere on the system made the kernel unsure about a `..`.
    for _ in 0..1000 {
        match rustix::fs::openat2(root.as_fd(), path, flags, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
            done => return done.map(Some),
        }
    }
    Err(Errno::AGAIN)
}

/// What filling says in shell.
pub(crate) fn say(store: &std::path::Path, volume: &Volume, from: &str, path: &str) -> Said {
    let data = quote(store.join(volume.subvolume()).join(DATA));
    let source = quote(store.join(from).join("rootfs").join(path));
    let shell = format!("[ -n \"$(ls -A {data})\" ] || cp -a --reflink=auto {source}/. {data}");
    Said::new(shell, "an empty volume gets what the image has there, and that directory's owner and mode")
}

/// What ending it says.
pub(crate) fn say_settle(store: &std::path::Path, volume: &Volume) -> Said {
    let at = |name: &str| quote(store.join(volume.subvolume()).join(name));
    let (filling, filled, data) = (at(FILLING), at(FILLED), at(DATA));
    let shell = format!("rm -rf {filling}\n[ ! -d {filled} ] || {{ cp -an {filled}/. {data}; rm -rf {filled}; }}");
    Said::new(shell, "a crash left half a copy, or a whole one that is not in its place yet")
}

impl Store {
    /// Where the directory at a path of an image really is: relative to its root, without links; None if there is none.
    #[expect(clippy::disallowed_methods, reason = "paths that hold a descriptor's number only")]
    pub(crate) fn real_path(&self, image: Id, path: &str) -> Result<Option<String>> {
        let fail = |e| self.fail("look into", &format!("{image}/rootfs"))(to_nix(e));
        let root = rustix::fs::openat(self.dir(), format!("{image}/rootfs"), DIRECTORY, Mode::empty()).map_err(fail)?;
        let Some(found) = resolve(&root, path).map_err(fail)? else { return Ok(None) };
        let name = |fd: &OwnedFd| rustix::fs::readlink(by_number(fd), Vec::new()).map_err(fail);
        let (root, found) = (name(&root)?, name(&found)?);
        let inner = found.as_bytes().strip_prefix(root.as_bytes()).unwrap_or_default();
        // The root directory itself is no place for a volume, whatever leads there.
        let inner = inner.strip_prefix(b"/").filter(|inner| !inner.is_empty());
        Ok(inner.and_then(|inner| String::from_utf8(inner.to_vec()).ok()))
    }

    /// Fills the volume, if it is empty, with what is at `path` in the root file system of `from`; no link is on the way.
    pub(crate) fn fill(&self, volume: &Volume, from: &str, path: &str) -> Result<()> {
        let name = volume.subvolume();
        let fail = |e| self.fail("fill", &name)(to_nix(e));
        let root = rustix::fs::openat(self.dir(), format!("{from}/rootfs"), DIRECTORY, Mode::empty()).map_err(fail)?;
        let source = match open_in_root(&root, path.as_bytes(), OFlags::RDONLY) {
            // The image is another one since we looked.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(()),
            source => source.map_err(fail)?,
        };
        let place = rustix::fs::openat(self.dir(), &name, DIRECTORY, Mode::empty()).map_err(fail)?;
        // One at a time: two containers that start have the same new volume.
        rustix::fs::flock(&place, FlockOperation::LockExclusive).map_err(fail)?;
        self.settle(&place, &name)?;
        let data = rustix::fs::openat(&place, DATA, DIRECTORY, Mode::empty()).map_err(fail)?;
        if !names(&data).map_err(fail)?.is_empty() {
            return Ok(());
        }
        rustix::fs::mkdirat(&place, FILLING, Mode::RWXU).map_err(fail)?;
        let new = rustix::fs::openat(&place, FILLING, DIRECTORY, Mode::empty()).map_err(fail)?;
        // A directory that its user has told not to copy on write, or to compress, hands that down.
        let flags = rustix::fs::ioctl_getflags(&data).map_err(fail)? & (IFlags::NOCOW | IFlags::COMPRESSED);
        if !flags.is_empty() {
            rustix::fs::ioctl_setflags(&new, flags).map_err(fail)?;
        }
        let copied = Interrupt::listen().and_then(|interrupt| copier::copy(&source, new.as_fd(), self, &interrupt));
        let done = copied.and_then(|written| {
            // Blocks that are shared are on the disk; bytes that were copied are not, and must be before the name says so.
            if written {
                rustix::fs::syncfs(self.dir()).map_err(fail)?;
            }
            rustix::fs::renameat(&place, FILLING, &place, FILLED).map_err(fail)
        });
        drop(new);
        if done.is_err() {
            let _ = self.settle(&place, &name);
            return done;
        }
        self.settle(&place, &name)
    }

    /// Ends what another began: throws half a copy away, moves a whole one on. Its lock is held.
    fn settle(&self, place: &OwnedFd, name: &str) -> Result<()> {
        let fail = |e| self.fail("fill", name)(to_nix(e));
        if let Some(stat) = lstat(place, FILLING.as_bytes()).map_err(fail)? {
            remove(place.as_fd(), FILLING.as_bytes(), &stat, MAX_DEPTH).map_err(fail)?;
        }
        let filled = match rustix::fs::openat(place, FILLED, DIRECTORY, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(()),
            filled => filled.map_err(fail)?,
        };
        let data = rustix::fs::openat(place, DATA, DIRECTORY, Mode::empty()).map_err(fail)?;
        let stat = rustix::fs::fstat(&filled).map_err(fail)?;
        for name in names(&filled).map_err(fail)? {
            match rustix::fs::renameat_with(&filled, &name, &data, &name, RenameFlags::NOREPLACE) {
                // A container that has the volume was faster.
                Ok(()) | Err(Errno::EXIST) => {}
                Err(e) => return Err(fail(e)),
            }
        }
        // Owner, mode, attributes and times of the directory itself: moving has changed the times.
        copier::describe(filled.as_fd(), data.as_fd(), &stat).map_err(fail)?;
        let now =
            lstat(place, FILLED.as_bytes()).map_err(fail)?.ok_or_else(|| Error::new("fill", name, "it is gone"))?;
        remove(place.as_fd(), FILLED.as_bytes(), &now, MAX_DEPTH).map_err(fail)
    }

    /// What a crash left of filling: paths in the store. Nobody fills these volumes just now.
    pub(crate) fn half_filled(&self) -> Result<Vec<(Volume, String)>> {
        let mut found = Vec::new();
        for volume in self.volumes()? {
            let name = volume.subvolume();
            for left in [FILLING, FILLED] {
                let path = format!("{name}/{left}");
                let place = rustix::fs::openat(self.dir(), &name, DIRECTORY, Mode::empty());
                let free =
                    place.is_ok_and(|place| rustix::fs::flock(&place, FlockOperation::NonBlockingLockShared).is_ok());
                if free && matches!(lstat(self.dir(), path.as_bytes()), Ok(Some(_))) {
                    found.push((volume.clone(), path));
                }
            }
        }
        Ok(found)
    }

    /// Ends what a crash left of filling the volume.
    pub(crate) fn settle_volume(&self, volume: &Volume) -> Result<()> {
        let name = volume.subvolume();
        let fail = |e| self.fail("fill", &name)(to_nix(e));
        let place = rustix::fs::openat(self.dir(), &name, DIRECTORY, Mode::empty()).map_err(fail)?;
        rustix::fs::flock(&place, FlockOperation::LockExclusive).map_err(fail)?;
        self.settle(&place, &name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn the_place_is_inside_the_image() {
        let host = tempfile::tempdir().unwrap();
        let root = host.path().join("rootfs");
        std::fs::create_dir_all(root.join("real/data")).unwrap();
        std::fs::create_dir(host.path().join("outside")).unwrap();
        std::fs::create_dir(root.join("etc")).unwrap();
        std::fs::write(root.join("file"), "").unwrap();
        for (link, to) in [
            ("link", "/real/data"),
            ("up", "../../../../real/data"),
            ("out", "../outside"),
            ("etcl", "/etc"),
            ("loop", "loop"),
            ("magic", "/proc/self/cwd"),
            ("far", "/../../../../../../../../../outside"),
        ] {
            symlink(to, root.join(link)).unwrap();
        }
        let fd: OwnedFd = std::fs::File::open(&root).unwrap().into();
        let is = |path: &str, want: Option<&str>| {
            let found = resolve(&fd, path).unwrap().map(|found| rustix::fs::fstat(&found).unwrap().st_ino);
            use std::os::unix::fs::MetadataExt;
            let want = want.map(|want| std::fs::metadata(root.join(want)).unwrap().ino());
            assert_eq!(found, want, "{path}");
        };
        for path in ["/real/data", "/link", "/up", "/link/../data"] {
            is(path, Some("real/data"));
        }
        is("/etcl", Some("etc"));
        for path in ["/out", "/far", "/loop", "/magic", "/file", "/none", "/file/x"] {
            is(path, None);
        }
    }
}
