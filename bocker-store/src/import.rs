//! Copies a directory of the host as it is: owners, modes, times, attributes, hard links, holes, special files.
//!
//! The tree may change while it is read, so each name is opened once, without following links, and what is copied is
//! what was opened.

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;

use bocker_common::{Error, Result};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, SeekFrom, Stat, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use crate::layer::{Budget, ENTRY_COST, by_number, failed, lstat, names, open_in_root, xattr_names};
use crate::signal::Interrupt;
use crate::store::Store;
use bocker_common::tarball::shown;

/// Bytes copied between two looks for a signal.
const PIECE: usize = 8 << 20;
/// Directories within directories, at most: each holds a descriptor.
const MAX_DEPTH: usize = 400;

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// One copy under way.
struct Copier<'a> {
    interrupt: &'a Interrupt,
    to: BorrowedFd<'a>,
    /// Device and inode of the store, which must not be copied into itself.
    store: (u64, u64),
    /// Where the first name of a file with several went, by device and inode.
    links: HashMap<(u64, u64), Vec<u8>>,
    budget: Budget,
    /// Whether bytes were written, not shared.
    written: bool,
}

/// Opens the directory to import.
///
/// # Errors
/// The original's line.
#[expect(clippy::disallowed_methods, reason = "the user's own word, once; all below goes by descriptor")]
pub(crate) fn open(path: &Path) -> Result<OwnedFd> {
    let missing =
        || Error::plain(format!("No directory named '{}' exists", crate::store::short(&path.to_string_lossy())));
    match rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) {
        Err(Errno::NOENT | Errno::NOTDIR | Errno::NAMETOOLONG | Errno::LOOP) => Err(missing()),
        done => done.map_err(|e| Error::new("open", path.display(), std::io::Error::from(e))),
    }
}

/// Copies all in `from` into the empty directory `to`, which lies in the store and is nobody else's yet.
///
/// Returns whether bytes were written: blocks that are shared are as safe from a power cut as what they are shared with.
///
/// # Errors
/// The first name that cannot be copied; a signal.
pub(crate) fn copy(from: &OwnedFd, to: BorrowedFd<'_>, store: &Store, interrupt: &Interrupt) -> Result<bool> {
    let stat = rustix::fs::fstat(store.dir()).map_err(|e| fail(b".", e))?;
    let (links, budget) = (HashMap::new(), store.budget()?);
    let mut copier = Copier { interrupt, to, store: (stat.st_dev, stat.st_ino), links, budget, written: false };
    copier.directory(from.as_fd(), to, b".", MAX_DEPTH)?;
    Ok(copier.written)
}

fn fail(path: &[u8], errno: Errno) -> Error {
    failed("copy", format_args!("'{}'", shown(path)), errno)
}

fn times(stat: &Stat) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: stat.st_atime, tv_nsec: stat.st_atime_nsec as i64 },
        last_modification: Timespec { tv_sec: stat.st_mtime, tv_nsec: stat.st_mtime_nsec as i64 },
    }
}

fn owner(stat: &Stat) -> (Option<Uid>, Option<Gid>) {
    (Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))
}

impl Copier<'_> {
    /// All in a directory, then the directory's own times, which all that changed.
    fn directory(&mut self, from: BorrowedFd<'_>, to: BorrowedFd<'_>, path: &[u8], depth: usize) -> Result<()> {
        let stat = rustix::fs::fstat(from).map_err(|e| fail(path, e))?;
        if (stat.st_dev, stat.st_ino) == self.store {
            return Err(Error::new("copy", format_args!("'{}'", shown(path)), "that is the store itself"));
        }
        if depth == 0 {
            return Err(Error::new(
                "copy",
                format_args!("'{}'", shown(path)),
                "more than 400 directories within each other",
            ));
        }
        for name in names(from).map_err(|e| fail(path, e))? {
            self.interrupt.check()?;
            let inner = [path, b"/", &name].concat();
            // Gone since the directory was read.
            let Some(stat) = lstat(from, &name).map_err(|e| fail(&inner, e))? else { continue };
            // As for an archive's entry.
            self.budget.spend(ENTRY_COST)?;
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => {
                    let source =
                        rustix::fs::openat(from, &name, DIRECTORY, Mode::empty()).map_err(|e| fail(&inner, e))?;
                    rustix::fs::mkdirat(to, &name, Mode::RWXU).map_err(|e| fail(&inner, e))?;
                    let target =
                        rustix::fs::openat(to, &name, DIRECTORY, Mode::empty()).map_err(|e| fail(&inner, e))?;
                    self.directory(source.as_fd(), target.as_fd(), &inner, depth - 1)?;
                }
                kind => self.other(from, to, &name, &inner, kind, &stat)?,
            }
        }
        let attributes = describe(from, to, &stat).map_err(|e| fail(path, e))?;
        self.budget.spend(2 * attributes)
    }

    fn other(
        &mut self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        name: &[u8],
        path: &[u8],
        kind: FileType,
        stat: &Stat,
    ) -> Result<()> {
        let key = (stat.st_dev, stat.st_ino);
        if stat.st_nlink > 1 {
            if let Some(first) = self.links.get(&key) {
                return self.link(first, to, name).map_err(|e| fail(path, e));
            }
            self.links.insert(key, path.to_vec());
        }
        if kind == FileType::RegularFile {
            // NONBLOCK: were it a pipe by now, opening it would wait.
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let source = rustix::fs::openat(from, name, flags, Mode::empty()).map_err(|e| fail(path, e))?;
            let now = rustix::fs::fstat(&source).map_err(|e| fail(path, e))?;
            if FileType::from_raw_mode(now.st_mode) != FileType::RegularFile {
                return Err(Error::new("copy", format_args!("'{}'", shown(path)), "it changed while it was read"));
            }
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let target = rustix::fs::openat(to, name, flags, Mode::RUSR | Mode::WUSR).map_err(|e| fail(path, e))?;
            // FICLONE: the two share blocks until one is written to.
            if rustix::fs::ioctl_ficlone(&target, &source).is_err() {
                self.data(path, &source, &target, now.st_size as u64)?;
            }
            let attributes = describe(source.as_fd(), target.as_fd(), &now).map_err(|e| fail(path, e))?;
            return self.budget.spend(2 * attributes);
        }
        if kind == FileType::Symlink {
            self.budget.spend(stat.st_size as u64)?;
        }
        let attributes = self.special(from, to, name, kind, stat).map_err(|e| fail(path, e))?;
        self.budget.spend(2 * attributes)
    }

    /// Another name for a file copied before; its path has no link in it, we made each directory of it.
    fn link(&self, first: &[u8], to: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<()> {
        let slash = first.iter().rposition(|b| *b == b'/').unwrap_or(0);
        let dir = open_in_root(self.to, &first[..slash], OFlags::PATH)?;
        rustix::fs::linkat(&dir, &first[slash + 1..], to, name, AtFlags::empty())
    }

    /// The data of a file, holes left out.
    fn data(&mut self, path: &[u8], source: &OwnedFd, target: &OwnedFd, size: u64) -> Result<()> {
        self.written = true;
        rustix::fs::ftruncate(target, size).map_err(|e| fail(path, e))?;
        let mut at = 0;
        while at < size {
            let start = match rustix::fs::seek(source, SeekFrom::Data(at)) {
                Ok(start) => start,
                // Only a hole is left.
                Err(Errno::NXIO) => break,
                // A file system that does not know holes has none.
                Err(_) => at,
            };
            let end = rustix::fs::seek(source, SeekFrom::Hole(start)).unwrap_or(size).min(size);
            self.budget.spend(end.saturating_sub(start))?;
            self.piece(path, source, target, start, end)?;
            at = end.max(start + 1);
        }
        Ok(())
    }

    fn piece(&self, path: &[u8], source: &OwnedFd, target: &OwnedFd, start: u64, end: u64) -> Result<()> {
        let (mut from, mut to) = (start, start);
        while from < end {
            self.interrupt.check()?;
            let most = usize::try_from(end - from).unwrap_or(usize::MAX).min(PIECE);
            match rustix::fs::copy_file_range(source, Some(&mut from), target, Some(&mut to), most) {
                Ok(0) => return self.plain(path, source, target, from, end),
                Ok(_) => {}
                // Between file systems that have no common way.
                Err(Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                    return self.plain(path, source, target, from, end);
                }
                Err(Errno::INTR) => {}
                Err(e) => return Err(fail(path, e)),
            }
        }
        Ok(())
    }

    fn plain(&self, path: &[u8], source: &OwnedFd, target: &OwnedFd, start: u64, end: u64) -> Result<()> {
        let failed = |e: std::io::Error| fail(path, Errno::from_io_error(&e).unwrap_or(Errno::IO));
        let source = File::from(source.try_clone().map_err(failed)?);
        let target = File::from(target.try_clone().map_err(failed)?);
        let (mut buffer, mut at) = (vec![0; 256 << 10], start);
        while at < end {
            self.interrupt.check()?;
            let most = usize::try_from(end - at).unwrap_or(usize::MAX).min(buffer.len());
            let read = source.read_at(&mut buffer[..most], at).map_err(failed)?;
            if read == 0 {
                break;
            }
            target.write_all_at(&buffer[..read], at).map_err(failed)?;
            at += read as u64;
        }
        Ok(())
    }

    /// Links, pipes, sockets and devices: they are made, not opened. Returns as [`describe`].
    fn special(
        &self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        name: &[u8],
        kind: FileType,
        stat: &Stat,
    ) -> rustix::io::Result<u64> {
        let (uid, gid) = owner(stat);
        if kind == FileType::Symlink {
            let target = rustix::fs::readlinkat(from, name, Vec::new())?;
            rustix::fs::symlinkat(target.as_c_str(), to, name)?;
        } else {
            rustix::fs::mknodat(to, name, kind, Mode::from_raw_mode(0o600), stat.st_rdev)?;
        }
        rustix::fs::chownat(to, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
        let attributes = copy_attributes(from, to, name)?;
        if kind != FileType::Symlink {
            rustix::fs::chmodat(to, name, Mode::from_raw_mode(stat.st_mode), AtFlags::empty())?;
        }
        rustix::fs::utimensat(to, name, &times(stat), AtFlags::SYMLINK_NOFOLLOW).map(|()| attributes)
    }
}

/// The attributes of what is made, not opened. Returns how many bytes they are.
#[expect(clippy::disallowed_methods, reason = "paths that hold a descriptor's number only")]
fn copy_attributes(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<u64> {
    let handle = |dir| {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(dir, name, flags, Mode::empty())
    };
    let (source, target) = (handle(from)?, handle(to)?);
    let (source, target) = (by_number(&source), by_number(&target));
    let mut list = vec![0; 64 << 10];
    let length = rustix::fs::listxattr(&source, &mut list[..]).unwrap_or(0);
    let mut bytes = 0;
    for attribute in list[..length].split(|b| *b == 0).filter(|attribute| !attribute.is_empty()) {
        let mut value = vec![0; 64 << 10];
        let length = rustix::fs::getxattr(&source, attribute, &mut value[..])?;
        rustix::fs::setxattr(&target, attribute, &value[..length], XattrFlags::empty())?;
        bytes += (attribute.len() + length) as u64;
    }
    Ok(bytes)
}

/// Owner, then attributes (a change of owner drops file capabilities), then mode (and setuid), then times. Returns how many
/// bytes the attributes are.
pub(crate) fn describe(from: BorrowedFd<'_>, to: BorrowedFd<'_>, stat: &Stat) -> rustix::io::Result<u64> {
    let mut bytes = 0;
    let (uid, gid) = owner(stat);
    rustix::fs::fchown(to, uid, gid)?;
    let theirs = xattr_names(from)?;
    for name in xattr_names(to)?.iter().filter(|name| !theirs.contains(name)) {
        // An ACL inherited from the directory.
        if name.starts_with(b"system.posix_acl_") {
            rustix::fs::fremovexattr(to, name.as_slice())?;
        }
    }
    for name in theirs {
        let mut value = vec![0; rustix::fs::fgetxattr_query(from, name.as_slice())?];
        let length = rustix::fs::fgetxattr(from, name.as_slice(), &mut value[..])?;
        rustix::fs::fsetxattr(to, name.as_slice(), &value[..length], XattrFlags::empty())?;
        bytes += (name.len() + length) as u64;
    }
    rustix::fs::fchmod(to, Mode::from_raw_mode(stat.st_mode))?;
    rustix::fs::futimens(to, &times(stat)).map(|()| bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What copying takes of so many bytes; None: they are too few.
    fn copied(from: &Path, bytes: u64) -> Option<()> {
        let place = tempfile::tempdir().unwrap();
        let (from, to) = (open(from).unwrap(), open(place.path()).unwrap());
        let interrupt = Interrupt::listen().unwrap();
        let (links, budget) = (HashMap::new(), Budget::new(bytes));
        let mut copier = Copier { interrupt: &interrupt, to: to.as_fd(), store: (0, 0), links, budget, written: false };
        copier.directory(from.as_fd(), to.as_fd(), b".", MAX_DEPTH).ok()
    }

    #[test]
    fn every_name_and_attribute_takes_room() {
        let tree = tempfile::tempdir().unwrap();
        std::fs::create_dir(tree.path().join("d")).unwrap();
        for n in 0..10 {
            std::fs::write(tree.path().join(format!("d/{n}")), "").unwrap();
        }
        std::fs::hard_link(tree.path().join("d/0"), tree.path().join("d/again")).unwrap();
        let needed = 12 * ENTRY_COST;
        assert_eq!((copied(tree.path(), needed), copied(tree.path(), needed - 1)), (Some(()), None));
        std::os::unix::fs::symlink("x".repeat(4000), tree.path().join("link")).unwrap();
        let needed = needed + ENTRY_COST + 4000;
        assert_eq!((copied(tree.path(), needed), copied(tree.path(), needed - 1)), (Some(()), None));
        // Where the file system of temporary files has attributes.
        if rustix::fs::setxattr(tree.path().join("d/1"), "user.a", &[7; 1000], XattrFlags::empty()).is_ok() {
            let needed = needed + 2 * 1006;
            assert_eq!((copied(tree.path(), needed), copied(tree.path(), needed - 1)), (Some(()), None));
        }
    }
}
