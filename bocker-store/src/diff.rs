//! `diff`: what a container has changed since it was made from its image, in docker's lines.
//!
//! A container is a snapshot, and btrfs knows for each inode which transaction touched it last. So where the image is
//! still what the snapshot was taken of, only inodes touched since then are looked at, and the directories above them:
//! the time is that of the changes. Where it is not (the image was committed to, say), both trees are walked.
//! Either way it is the same walk, by descriptors in both trees, which follows no link.

use std::collections::HashSet;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;

use bocker_common::diag::printable;
use bocker_common::{Error, Id, Kind, Result};
use rustix::fs::{FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::layer::{is_dir, lstat, names, xattr_names};
use crate::store::{Store, to_nix};
use crate::sys::{self, Item};
use crate::verbs::print;
use bocker_common::tarball::shown;

/// `BTRFS_INODE_ITEM_KEY`, `BTRFS_INODE_REF_KEY`, `BTRFS_INODE_EXTREF_KEY`
const INODE: u32 = 1;
const REFERENCE: u32 = 12;
const EXTENDED_REFERENCE: u32 = 13;
/// Directories within directories, at most: each holds two descriptors.
const MAX_DEPTH: usize = 400;

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// What happened to a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Change {
    Added,
    Changed,
    Deleted,
}

impl Change {
    fn letter(self) -> char {
        match self {
            Self::Added => 'A',
            Self::Changed => 'C',
            Self::Deleted => 'D',
        }
    }
}

fn fail(path: &[u8]) -> impl Fn(Errno) -> Error {
    move |e| Error::new("look at", format_args!("'/{}'", shown(path)), std::io::Error::from(e))
}

/// The inodes of a snapshot that were touched since it was made, and all directories above them; None if that does not
/// tell what differs from `image`.
pub(crate) fn touched(image: &OwnedFd, container: &OwnedFd) -> nix::Result<Option<HashSet<u64>>> {
    let (of, snapshot) = (sys::subvolume_info(image)?, sys::subvolume_info(container)?);
    if of.uuid != snapshot.parent_uuid || of.changed > snapshot.made {
        return Ok(None);
    }
    let tree = sys::subvolume_id(container)?;
    let mut todo = Vec::new();
    sys::tree_items(container, tree, sys::INODES, snapshot.made + 1, |item| {
        // The second number of `struct btrfs_inode_item` is the transaction that changed it last.
        let last = item.data.get(8..16).and_then(|bytes| bytes.try_into().ok()).map(u64::from_le_bytes);
        if item.kind == INODE && last.is_none_or(|last| last > snapshot.made) {
            todo.push(item.object);
        }
    })?;
    let mut all = HashSet::new();
    while let Some(inode) = todo.pop() {
        if all.insert(inode) {
            sys::tree_items(container, tree, inode..=inode, 0, |item| todo.extend(parents(&item)))?;
        }
    }
    Ok(Some(all))
}

/// The directories that a reference says the inode lies in.
fn parents(item: &Item<'_>) -> Vec<u64> {
    let mut found = Vec::new();
    match item.kind {
        REFERENCE => found.push(item.offset),
        // `struct btrfs_inode_extref`, one after the other where hashes of names collide: directory, index (8 bytes
        // each), length of the name (2), the name.
        EXTENDED_REFERENCE => {
            let mut rest = item.data;
            while let Some((head, after)) = rest.split_at_checked(18) {
                found.extend(head[..8].try_into().map(u64::from_le_bytes));
                rest = after.get(usize::from(head[16]) + (usize::from(head[17]) << 8)..).unwrap_or_default();
            }
        }
        _ => {}
    }
    found
}

/// One comparison under way.
struct Differ {
    /// Inodes that may differ, where that is known.
    touched: Option<HashSet<u64>>,
    /// The container's device: what is on another one is a subvolume of its own.
    device: u64,
    found: Vec<(Vec<u8>, Change)>,
}

/// A directory's entry on both sides.
struct Pair<'a> {
    old: &'a OwnedFd,
    new: &'a OwnedFd,
    name: &'a [u8],
    /// From the root, without a slash before it.
    path: Vec<u8>,
}

impl Differ {
    fn is_untouched(&self, old: &Stat, new: &Stat) -> bool {
        let same_inode = old.st_ino == new.st_ino && new.st_dev == self.device;
        same_inode && self.touched.as_ref().is_some_and(|touched| !touched.contains(&new.st_ino))
    }

    /// What differs within a directory that both have. True if something does.
    fn directory(&mut self, old: &OwnedFd, new: &OwnedFd, path: &[u8], depth: usize) -> Result<bool> {
        if depth == 0 {
            return Err(Error::new(
                "look at",
                format_args!("'/{}'", shown(path)),
                "more than 400 directories within each other",
            ));
        }
        let before = self.found.len();
        let old_names: HashSet<Vec<u8>> = names(old).map_err(fail(path))?.into_iter().collect();
        let new_names: HashSet<Vec<u8>> = names(new).map_err(fail(path))?.into_iter().collect();
        for name in old_names.difference(&new_names) {
            self.found.push((below(path, name), Change::Deleted));
        }
        for name in &new_names {
            let pair = Pair { old, new, name, path: below(path, name) };
            // Gone meanwhile.
            let Some(stat) = lstat(new, name).map_err(fail(&pair.path))? else { continue };
            match lstat(old, name).map_err(fail(&pair.path))? {
                None => self.added(new, name, &pair.path, &stat, depth)?,
                Some(was) if self.is_untouched(&was, &stat) => {}
                Some(was) => self.both(&pair, &was, &stat, depth)?,
            }
        }
        Ok(self.found.len() > before)
    }

    fn both(&mut self, pair: &Pair<'_>, was: &Stat, stat: &Stat, depth: usize) -> Result<()> {
        let at = self.found.len();
        let mut differs = !same(pair, was, stat).map_err(fail(&pair.path))?;
        match (is_dir(was), is_dir(stat)) {
            (true, true) => {
                let os = fail(&pair.path);
                let old = rustix::fs::openat(pair.old, pair.name, DIRECTORY, Mode::empty()).map_err(&os)?;
                match rustix::fs::openat(pair.new, pair.name, DIRECTORY, Mode::empty()) {
                    Ok(new) => differs |= self.directory(&old, &new, &pair.path, depth - 1)?,
                    // Something else by now.
                    Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                    Err(e) => return Err(os(e)),
                }
            }
            (true, false) => {
                let os = fail(&pair.path);
                let old = rustix::fs::openat(pair.old, pair.name, DIRECTORY, Mode::empty()).map_err(&os)?;
                for name in names(&old).map_err(os)? {
                    self.found.push((below(&pair.path, &name), Change::Deleted));
                }
            }
            (false, true) => self.all_in(pair.new, pair.name, &pair.path, depth)?,
            (false, false) => {}
        }
        if differs {
            self.found.insert(at, (pair.path.clone(), Change::Changed));
        }
        Ok(())
    }

    fn added(&mut self, dir: &OwnedFd, name: &[u8], path: &[u8], stat: &Stat, depth: usize) -> Result<()> {
        self.found.push((path.to_vec(), Change::Added));
        if is_dir(stat) { self.all_in(dir, name, path, depth) } else { Ok(()) }
    }

    /// All that lies in a directory that only the container has.
    fn all_in(&mut self, dir: &OwnedFd, name: &[u8], path: &[u8], depth: usize) -> Result<()> {
        if depth == 0 {
            return Err(Error::new(
                "look at",
                format_args!("'/{}'", shown(path)),
                "more than 400 directories within each other",
            ));
        }
        let inner = match rustix::fs::openat(dir, name, DIRECTORY, Mode::empty()) {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(()),
            done => done.map_err(fail(path))?,
        };
        for name in names(&inner).map_err(fail(path))? {
            let path = below(path, &name);
            if let Some(stat) = lstat(&inner, &name).map_err(fail(&path))? {
                self.added(&inner, &name, &path, &stat, depth - 1)?;
            }
        }
        Ok(())
    }
}

fn below(path: &[u8], name: &[u8]) -> Vec<u8> {
    if path.is_empty() { name.to_vec() } else { [path, b"/", name].concat() }
}

/// Whether an entry is the same on both sides: what it is, whose, and its content; of a directory only the first two.
fn same(pair: &Pair<'_>, was: &Stat, stat: &Stat) -> rustix::io::Result<bool> {
    let fields = |stat: &Stat| (stat.st_mode, stat.st_uid, stat.st_gid, stat.st_rdev);
    if fields(was) != fields(stat) {
        return Ok(false);
    }
    let times = |stat: &Stat| (stat.st_mtime, stat.st_mtime_nsec, stat.st_size);
    let kind = FileType::from_raw_mode(stat.st_mode);
    if kind != FileType::Directory && times(was) != times(stat) {
        return Ok(false);
    }
    // Nobody sets this one back: nothing was changed since.
    let changed = |stat: &Stat| (stat.st_ino, stat.st_ctime, stat.st_ctime_nsec);
    if changed(was) == changed(stat) {
        return Ok(true);
    }
    match kind {
        FileType::Symlink => {
            let target = |dir| rustix::fs::readlinkat(dir, pair.name, Vec::new());
            Ok(target(pair.old)? == target(pair.new)?)
        }
        FileType::RegularFile | FileType::Directory => {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOATIME | OFlags::CLOEXEC;
            let open = |dir| rustix::fs::openat(dir, pair.name, flags, Mode::empty());
            let (old, new) = match (open(pair.old), open(pair.new)) {
                (Ok(old), Ok(new)) => (old, new),
                // Replaced just now, so it has changed.
                (Ok(_), Err(Errno::NOENT | Errno::LOOP | Errno::NXIO | Errno::ACCESS | Errno::PERM)) => {
                    return Ok(false);
                }
                (Err(e), _) | (_, Err(e)) => return Err(e),
            };
            let attributes = |fd: &OwnedFd| -> rustix::io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
                let mut all = Vec::new();
                for name in xattr_names(fd.as_fd())? {
                    let mut value = vec![0; rustix::fs::fgetxattr_query(fd, name.as_slice())?];
                    let length = rustix::fs::fgetxattr(fd, name.as_slice(), &mut value[..])?;
                    value.truncate(length);
                    all.push((name, value));
                }
                all.sort();
                Ok(all)
            };
            if attributes(&old)? != attributes(&new)? {
                return Ok(false);
            }
            Ok(kind == FileType::Directory || same_bytes(&File::from(old), &File::from(new))?)
        }
        _ => Ok(true),
    }
}

/// Whether two files hold the same; they are as long as each other.
fn same_bytes(old: &File, new: &File) -> rustix::io::Result<bool> {
    let read = |file: &File, into: &mut [u8], at| loop {
        match file.read_at(into, at) {
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            done => return done.map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO)),
        }
    };
    let (mut one, mut other, mut at) = (vec![0; 128 << 10], vec![0; 128 << 10], 0);
    loop {
        let (first, second) = (read(old, &mut one, at)?, read(new, &mut other, at)?);
        if first != second || one[..first] != other[..second] {
            return Ok(false);
        }
        if first == 0 {
            return Ok(true);
        }
        at += first as u64;
    }
}

fn open(store: &Store, id: Id) -> Result<(OwnedFd, OwnedFd)> {
    let subvolume = rustix::fs::openat(store.dir(), id.to_string(), DIRECTORY, Mode::empty());
    let subvolume = subvolume.map_err(to_nix).map_err(store.fail("open", &id.to_string()))?;
    let root = rustix::fs::openat(&subvolume, "rootfs", DIRECTORY, Mode::empty()).map_err(to_nix);
    Ok((subvolume, root.map_err(store.fail("open", &format!("{id}/rootfs")))?))
}

/// `diff`: `A /path` (added), `C /path` (changed, or something within it) or `D /path` (deleted), sorted by path.
pub(crate) fn diff(store: &Store, container: &str, json: bool) -> Result<()> {
    let id = store.find(Kind::Container, container)?;
    let from = String::from_utf8_lossy(&store.text(id, "image")).into_owned();
    let image = store
        .find(Kind::Image, &from)
        .map_err(|_| Error::new("compare", id, format!("its image {} is gone", crate::store::short(&from))))?;
    // A transaction is in an inode's item once it is written; on a full disk it may never be.
    let is_written = rustix::fs::syncfs(store.dir()).is_ok();
    let ((old, old_root), (new, new_root)) = (open(store, image)?, open(store, id)?);
    let mut touched = touched(&old, &new).map_err(store.fail("look into", &id.to_string()))?;
    touched.take_if(|_| !is_written);
    let device = rustix::fs::fstat(&new_root).map_err(fail(b""))?.st_dev;
    let mut differ = Differ { touched, device, found: Vec::new() };
    differ.directory(&old_root, &new_root, b"", MAX_DEPTH)?;
    let mut found = differ.found;
    found.sort();
    let mut out = String::new();
    for (path, change) in found {
        let path = format!("/{}", String::from_utf8_lossy(&path));
        out += &if json {
            format!("{}\n", serde_json::json!({ "change": change.letter().to_string(), "path": path }))
        } else {
            format!("{} {}\n", change.letter(), printable(&path))
        };
    }
    print(out.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compared(old: &std::path::Path, new: &std::path::Path) -> Vec<String> {
        let open = |path| OwnedFd::from(File::open(path).unwrap());
        let mut differ = Differ { touched: None, device: 0, found: Vec::new() };
        differ.directory(&open(old), &open(new), b"", MAX_DEPTH).unwrap();
        differ.found.sort();
        let line =
            |(path, change): (Vec<u8>, Change)| format!("{} /{}", change.letter(), String::from_utf8_lossy(&path));
        differ.found.into_iter().map(line).collect()
    }

    #[test]
    fn two_trees_side_by_side() {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let place = tempfile::tempdir().unwrap();
        let (old, new) = (place.path().join("old"), place.path().join("new"));
        for root in [&old, &new] {
            std::fs::create_dir_all(root.join("d/e")).unwrap();
            std::fs::create_dir_all(root.join("kept")).unwrap();
            for name in ["d/e/gone", "d/same", "kept/x", "was-file"] {
                std::fs::write(root.join(name), "x").unwrap();
                let file = File::options().write(true).open(root.join(name)).unwrap();
                file.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
            }
            symlink("a", root.join("link")).unwrap();
            std::fs::create_dir_all(root.join("was-dir/inner/deeper")).unwrap();
        }
        let link = |root: &std::path::Path| {
            let root: OwnedFd = File::open(root).unwrap().into();
            let times = crate::layer::times(bocker_common::tarball::Time { seconds: 1, nanos: 0 });
            rustix::fs::utimensat(&root, "link", &times, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).unwrap();
        };
        link(&old);
        link(&new);
        assert_eq!(compared(&old, &new), [""; 0], "the same but for when it was made");
        std::fs::remove_file(new.join("d/e/gone")).unwrap();
        std::fs::create_dir_all(new.join("d/new/deep")).unwrap();
        std::fs::remove_file(new.join("was-file")).unwrap();
        std::fs::create_dir_all(new.join("was-file/in")).unwrap();
        std::fs::remove_dir_all(new.join("was-dir")).unwrap();
        std::fs::write(new.join("was-dir"), "").unwrap();
        std::fs::remove_file(new.join("link")).unwrap();
        symlink("b", new.join("link")).unwrap();
        link(&new);
        std::fs::set_permissions(new.join("kept"), std::fs::Permissions::from_mode(0o700)).unwrap();
        // The same length and time, other bytes.
        std::fs::write(new.join("kept/x"), "y").unwrap();
        File::options()
            .write(true)
            .open(new.join("kept/x"))
            .unwrap()
            .set_modified(std::time::SystemTime::UNIX_EPOCH)
            .unwrap();
        let expected = [
            "C /d",
            "C /d/e",
            "D /d/e/gone",
            "A /d/new",
            "A /d/new/deep",
            "C /kept",
            "C /kept/x",
            "C /link",
            "C /was-dir",
            "D /was-dir/inner",
            "C /was-file",
            "A /was-file/in",
        ];
        assert_eq!(compared(&old, &new), expected);
    }

    #[test]
    fn references_lead_to_the_directories() {
        let item = |kind, data: &[u8]| parents(&Item { object: 300, kind, offset: 257, data });
        let record = |parent: u64, name: &[u8]| {
            let length = u16::try_from(name.len()).unwrap();
            [&parent.to_le_bytes()[..], &[0; 8], &length.to_le_bytes(), name].concat()
        };
        assert_eq!(item(REFERENCE, b""), [257]);
        assert_eq!(item(EXTENDED_REFERENCE, &record(258, b"name")), [258]);
        assert_eq!(item(EXTENDED_REFERENCE, &[record(258, &[b'n'; 255]), record(259, b"b")].concat()), [258, 259]);
        assert!(item(EXTENDED_REFERENCE, b"short").is_empty() && item(INODE, b"").is_empty());
    }
}
