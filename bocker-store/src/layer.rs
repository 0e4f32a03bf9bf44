//! Applies one layer to a directory, by the rules of the OCI image specification (layer.md).
//!
//! A layer is hostile: its names, links and order are chosen to reach out of the directory. So no path of it is ever
//! given to the kernel to walk freely. The parent of an entry is resolved inside the root to a descriptor: at once where no
//! link is on the way (`openat2(2)`, `RESOLVE_IN_ROOT`, `RESOLVE_NO_SYMLINKS`), else step by step, as in a chroot, `/` and `..`
//! staying inside, and each step counted: forty links of four kilobytes each cost the kernel milliseconds, for every entry
//! anew. The last component is only ever used with that descriptor, never followed. An entry over an existing name replaces
//! it, except a directory over a directory. Nobody else may write to the directory meanwhile.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::fs::File;
use std::io::{BufRead, ErrorKind, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::rc::Rc;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bocker_common::{Error, Result};
use rustix::fs::{
    AtFlags, Dir, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags,
};
use rustix::io::Errno;

use crate::room::{LITTLE, Room};
use crate::writeback::Writeback;
use bocker_common::tarball::{Entry, Kind, Reader, Time, shown};

use crate::cp::{Cover, Covers, key};

/// Entries of one layer, at most. Real images have a tenth of it.
const MAX_ENTRIES: u64 = 1_000_000;
/// Components of a path, at most.
const MAX_DEPTH: usize = 512;
/// Bytes of a path, at most, as for any path on Linux.
const MAX_PATH: usize = 4095;
/// Symbolic links followed for one path, at most, as the kernel does.
const MAX_LINKS: usize = 40;
/// Bytes of names and paths that are remembered for one layer, at most; real images have a tenth of it.
const MAX_REMEMBERED: usize = 128 << 20;
/// Looks for one layer, at most: steps along paths with links in them, and names that a whiteout looked at and did not hide. Else
/// an entry could cost a walk over all before it.
const MAX_LOOKS: u64 = 4_000_000;
/// Names of attributes left out that are told, and one more to say that there are others.
const MAX_TOLD: usize = 9;
/// What an entry costs beside its data: inode, names, back references, checksums.
pub(crate) const ENTRY_COST: u64 = 2048;

/// What a piece of a sparse file costs beside its blocks.
const PIECE_COST: u64 = 256;
/// The file system gives room in no smaller blocks.
const BLOCK: u64 = 4096;

/// Room that a file's data takes. Of a sparse one each piece takes whole blocks: 512 bytes here and there are eight times as much.
fn room_for(entry: &Entry) -> u64 {
    let blocks = |(offset, length): &(u64, u64)| match length {
        0 => 0,
        _ => (offset + length).div_ceil(BLOCK).saturating_sub(offset / BLOCK) * BLOCK + PIECE_COST,
    };
    entry.sparse.as_ref().map_or(entry.stored, |map| map.iter().map(blocks).fold(0, u64::saturating_add))
}

/// Room that may still be filled: by an [`Applier`], and by somebody aside.
#[derive(Debug)]
pub struct Budget {
    left: Mutex<Left>,
    /// Where it is.
    room: Option<Room>,
}

#[derive(Debug)]
struct Left {
    bytes: u64,
    /// What each of the two took last: it may not be used yet.
    last: [u64; 2],
    /// What was deleted counts by now. Once, for that was before: a layer that replaces its own entries for ever is a bomb, too.
    freed: bool,
}

impl Budget {
    /// So many bytes.
    pub fn new(bytes: u64) -> Self {
        Self { left: Mutex::new(Left { bytes, last: [0; 2], freed: false }), room: None }
    }

    /// All that there is.
    pub(crate) fn of(room: Room) -> Result<Self> {
        let bytes = room.bytes()?;
        Ok(Self { room: Some(room), ..Self::new(bytes) })
    }

    /// Takes room before it is used, so that a bomb is stopped by its announcement. What was taken before is used by now.
    pub(crate) fn spend(&self, bytes: u64) -> Result<()> {
        self.take(0, bytes)
    }

    /// The same for what another does meanwhile.
    pub(crate) fn spend_aside(&self, bytes: u64) -> Result<()> {
        self.take(1, bytes)
    }

    /// Whether more than a little is left.
    fn is_ample(&self) -> bool {
        self.left().bytes >= LITTLE
    }

    fn left(&self) -> MutexGuard<'_, Left> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, who: usize, bytes: u64) -> Result<()> {
        let mut left = self.left();
        if left.bytes < bytes && !left.freed {
            left.freed = true;
            let freed = self.room.as_ref().and_then(Room::freed);
            left.bytes = left.bytes.max(freed.unwrap_or(0).saturating_sub(left.last[1 - who]));
        }
        let rest = left.bytes.checked_sub(bytes);
        left.bytes = rest.ok_or_else(|| match &self.room {
            Some(room) => room.refusal(bytes),
            None => Error::plain(format!("no room: {bytes} bytes more are too many")),
        })?;
        left.last[who] = bytes;
        Ok(())
    }
}

/// A directory whose times are set at the end, when nothing changes them any more.
struct Late {
    path: Vec<u8>,
    mtime: Time,
}

/// A directory of the layer, resolved.
#[derive(Clone)]
struct Parent {
    fd: Rc<OwnedFd>,
    ino: u64,
    /// What is made in it inherits nothing from it: neither group (setgid) nor access list.
    plain: bool,
}

/// Applies one layer; make a new one for the next.
pub struct Applier<'a> {
    root: OwnedFd,
    budget: &'a Budget,
    /// Owners are kept. Only tests run without the right to.
    owners: bool,
    /// Whom files belong to that are made and then let be.
    own: (u32, u32),
    /// Names that this layer made: directory's inode and name. Whiteouts spare them.
    made: HashSet<(u64, Vec<u8>)>,
    /// Entries that may still come.
    entries: u64,
    /// Bytes that `made` and `late` may still take.
    memory: usize,
    /// Looks that may still be taken.
    looks: u64,
    /// Directories that this layer made or changed, by inode.
    late: HashMap<u64, Late>,
    /// The last parent: entries come directory by directory.
    last: Option<(Vec<u8>, Parent)>,
    /// It is no layer, but a copy into a container with these mounts, which may run.
    covers: Option<Covers>,
    /// Takes the files that are complete.
    writeback: Option<&'a Writeback>,
    dropped: BTreeSet<String>,
}

/// The error for a path in a layer.
fn refuse(path: &[u8], reason: impl Into<bocker_common::diag::Reason>) -> Error {
    Error::new("unpack", format_args!("'{}'", shown(path)), reason)
}

fn covered(path: &[u8], cover: &Cover) -> Error {
    let read_only = if cover.volume.is_some() && cover.read_only { ", read only" } else { "" };
    refuse(path, format!("{}{read_only}", cover.what)).hint(&cover.way_out)
}

fn os(path: &[u8]) -> impl Fn(Errno) -> Error {
    move |errno| failed("unpack", format_args!("'{}'", shown(path)), errno)
}

/// The error, with the way out where the store has no room.
pub(crate) fn failed(act: &str, object: impl std::fmt::Display, reason: impl Into<std::io::Error>) -> Error {
    let reason = reason.into();
    let error = Error::new(act, object, &reason);
    if reason.kind() == ErrorKind::StorageFull {
        error.hint("the store is full; bocker rm what is not needed")
    } else {
        error
    }
}

/// The components of a path relative to the root; `.` and empty ones are left out.
fn components(path: &[u8]) -> Result<Vec<&[u8]>> {
    if path.len() > MAX_PATH {
        return Err(refuse(path, "the path is longer than 4095 bytes"));
    }
    let parts: Vec<_> = path.split(|b| *b == b'/').filter(|part| !matches!(*part, b"" | b".")).collect();
    if parts.len() > MAX_DEPTH {
        return Err(refuse(path, "the path is deeper than 512 directories"));
    }
    if parts.contains(&&b".."[..]) {
        return Err(refuse(path, "a path with '..'"));
    }
    Ok(parts)
}

/// Opens a directory inside the root by a path without links; ELOOP: there is one.
pub(crate) fn open_in_root(root: impl AsFd, path: &[u8], flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let path = if path.is_empty() { b"." } else { path };
    let flags = flags | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS;
    // EAGAIN: a rename somewhere on the system made the kernel unsure about a `..`.
    for _ in 0..1000 {
        match rustix::fs::openat2(root.as_fd(), path, flags, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            done => return done,
        }
    }
    Err(Errno::AGAIN)
}

pub(crate) fn lstat(dir: impl AsFd, name: &[u8]) -> rustix::io::Result<Option<Stat>> {
    match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

pub(crate) fn is_dir(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode).is_dir()
}

pub(crate) fn times(mtime: Time) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: mtime.seconds, tv_nsec: mtime.nanos.into() },
    }
}

/// Names in a directory, without `.` and `..`.
pub(crate) fn names(dir: impl AsFd) -> rustix::io::Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push(entry.file_name().to_bytes().to_vec());
        }
    }
    Ok(names)
}

/// Names of the attributes of an open file.
pub(crate) fn xattr_names(fd: impl AsFd) -> rustix::io::Result<Vec<Vec<u8>>> {
    // No more than this exists, XATTR_LIST_MAX; almost always there is nothing.
    let length = match rustix::fs::flistxattr_query(fd.as_fd()) {
        Ok(0) | Err(Errno::NOTSUP) => return Ok(Vec::new()),
        done => done?,
    };
    let mut list = vec![0_u8; length];
    let length = rustix::fs::flistxattr(fd.as_fd(), &mut list[..])?;
    Ok(list[..length].split(|b| *b == 0).filter(|name| !name.is_empty()).map(<[u8]>::to_vec).collect())
}

/// For calls that take no descriptor of what cannot be opened: what the kernel calls one, proc(5). No name of an image is in it.
pub(crate) fn by_number(fd: impl AsFd) -> String {
    format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd())
}

#[expect(clippy::disallowed_methods, reason = "a path that holds a descriptor's number only")]
fn remove_xattr(handle: impl AsFd, name: &[u8]) -> rustix::io::Result<()> {
    rustix::fs::removexattr(by_number(handle), name)
}

#[expect(clippy::disallowed_methods, reason = "a path that holds a descriptor's number only")]
fn chmod(handle: impl AsFd, mode: Mode) -> rustix::io::Result<()> {
    rustix::fs::chmod(by_number(handle), mode)
}

const OPEN_DIR: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Removes what a name stands for, directories with all in them, links never followed.
pub(crate) fn remove(dir: BorrowedFd<'_>, name: &[u8], stat: &Stat, depth: usize) -> rustix::io::Result<()> {
    if !is_dir(stat) {
        return rustix::fs::unlinkat(dir, name, AtFlags::empty());
    }
    // Each level holds a descriptor and a piece of the stack.
    if depth == 0 {
        return Err(Errno::NAMETOOLONG);
    }
    let inner = rustix::fs::openat(dir, name, OPEN_DIR, Mode::empty())?;
    for child in names(&inner)? {
        if let Some(stat) = lstat(&inner, &child)? {
            remove(inner.as_fd(), &child, &stat, depth - 1)?;
        }
    }
    rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR)
}

/// The attributes that an image may have. Others are the host's own business (`security.selinux`, `trusted.*`).
fn kept(name: &[u8]) -> bool {
    name.starts_with(b"user.")
        || matches!(name, b"security.capability" | b"system.posix_acl_access" | b"system.posix_acl_default")
}

impl<'a> Applier<'a> {
    /// For the directory `root`, which nobody else writes to. Clears the process's umask: modes are the layer's.
    pub fn new(root: OwnedFd, budget: &'a Budget) -> Self {
        rustix::process::umask(Mode::empty());
        Self {
            root,
            budget,
            owners: true,
            own: (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw()),
            made: HashSet::new(),
            entries: MAX_ENTRIES,
            memory: MAX_REMEMBERED,
            looks: MAX_LOOKS,
            late: HashMap::new(),
            last: None,
            covers: None,
            writeback: None,
            dropped: BTreeSet::new(),
        }
    }

    /// Applies all entries, then the times of the directories. Returns the names of attributes left out.
    ///
    /// # Errors
    /// The first entry that cannot be applied, or is not one that a layer may have.
    pub fn apply<R: BufRead>(self, layer: &mut Reader<R>) -> Result<BTreeSet<String>> {
        self.apply_as(layer, |_| Ok(true))
    }

    /// For a copy into a container, which may run and change its names meanwhile. No name hides another; a directory never
    /// takes the place of something else, or the other way round; directories that entries are put into get new times.
    pub(crate) fn into_a_container(mut self, covers: Covers) -> Self {
        self.covers = Some(covers);
        self
    }

    /// Files go to the disk as soon as they are complete, unless room is short.
    pub(crate) fn writing_back(mut self, to: &'a Writeback) -> Self {
        self.writeback = Some(to);
        self
    }

    /// As [`Applier::apply`]; `rename` has each entry first, and says whether it counts.
    pub(crate) fn apply_as<R: BufRead>(
        mut self,
        layer: &mut Reader<R>,
        mut rename: impl FnMut(&mut Entry) -> Result<bool>,
    ) -> Result<BTreeSet<String>> {
        while let Some(mut entry) = layer.next_entry().map_err(|e| Error::new("unpack", "layer", e))? {
            if !rename(&mut entry)? {
                continue;
            }
            let left = self.entries.checked_sub(1);
            self.entries = left.ok_or_else(|| Error::new("unpack", "layer", "more than 1,000,000 entries"))?;
            self.entry(&entry, layer)?;
        }
        self.set_late_times()?;
        Ok(self.dropped)
    }

    fn entry(&mut self, entry: &Entry, data: &mut impl BufRead) -> Result<()> {
        let path = entry.path.as_slice();
        let parts = components(path)?;
        let Some((leaf, parents)) = parts.split_last() else { return self.root_entry(entry) };
        let is_layer = self.covers.is_none();
        if is_layer && parents.iter().any(|part| part.starts_with(b".wh.")) {
            // aufs kept hard links in /.wh..wh.plnk; whoever made a layer on it shipped them.
            if parents[0] == b".wh..wh.plnk" {
                return self.budget.spend(entry.stored);
            }
            return Err(refuse(path, "a path through a whiteout"));
        }
        if let Some(hidden) = leaf.strip_prefix(b".wh.").filter(|_| is_layer) {
            // It has no data; if it has, reading past it is no cheaper than a file's.
            self.budget.spend(entry.stored)?;
            return self.whiteout(path, parents, hidden);
        }
        let parent = self.parent(path, parents)?;
        // Twice: of a block of metadata, 16 KiB, one attribute of half that fills the whole.
        let attributes: usize = entry.xattrs.iter().map(|(name, value)| name.len() + value.len()).sum();
        self.budget.spend(room_for(entry).saturating_add(ENTRY_COST + (2 * attributes + entry.link.len()) as u64))?;
        let fail = os(path);
        if self.is_covered(entry, &parent, leaf)? {
            return Ok(());
        }
        match entry.kind {
            Kind::Directory => {
                match lstat(&*parent.fd, leaf).map_err(&fail)? {
                    Some(stat) if is_dir(&stat) => {}
                    Some(_) if !is_layer => return Err(fail(Errno::NOTDIR)),
                    existing => {
                        self.replace(&parent, leaf, existing.as_ref()).map_err(&fail)?;
                        rustix::fs::mkdirat(&*parent.fd, *leaf, Mode::RWXU).map_err(&fail)?;
                    }
                }
                // What it hands down may be another thing from here on.
                self.last = None;
                let dir = rustix::fs::openat(&*parent.fd, *leaf, OPEN_DIR, Mode::empty()).map_err(&fail)?;
                self.describe_by_fd(entry, &dir)?;
                let ino = rustix::fs::fstat(&dir).map_err(&fail)?.st_ino;
                self.late_at(ino, parts.join(&b'/'), entry.mtime)?;
            }
            Kind::File => {
                // Most files are as they should be once they are made: so each costs four calls instead of nine.
                let own = !self.owners || (entry.uid, entry.gid) == self.own;
                let done = parent.plain && own && entry.xattrs.is_empty() && entry.mode & 0o7000 == 0;
                let mode = Mode::from_raw_mode(if done { entry.mode } else { 0o600 });
                let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let file =
                    self.make(&parent, leaf, || rustix::fs::openat(&*parent.fd, *leaf, flags, mode)).map_err(&fail)?;
                let file = self.fill(entry, File::from(file), data)?;
                if !done {
                    self.describe_by_fd(entry, &file)?;
                }
                rustix::fs::futimens(&file, &times(entry.mtime)).map_err(&fail)?;
                // Where room is short, what fails has to be free again at once: what the disk does not have yet is.
                if let Some(writeback) = self.writeback.filter(|_| self.budget.is_ample()) {
                    writeback.take(file, entry.stored);
                }
            }
            Kind::HardLink => self.hard_link(entry, &parent, leaf)?,
            Kind::Symlink => {
                let link = || rustix::fs::symlinkat(entry.link.as_slice(), &*parent.fd, *leaf);
                self.make(&parent, leaf, link).map_err(&fail)?;
                self.describe_by_name(entry, &parent, leaf)?;
            }
            Kind::Character | Kind::Block | Kind::Fifo => {
                let kind = match entry.kind {
                    Kind::Character => FileType::CharacterDevice,
                    Kind::Block => FileType::BlockDevice,
                    _ => FileType::Fifo,
                };
                let device = rustix::fs::makedev(entry.device.0, entry.device.1);
                let node = || rustix::fs::mknodat(&*parent.fd, *leaf, kind, Mode::from_raw_mode(0o600), device);
                self.make(&parent, leaf, node).map_err(&fail)?;
                self.describe_by_name(entry, &parent, leaf)?;
            }
        }
        self.made_at(parent.ino, leaf)
    }

    /// Takes room for what is remembered.
    fn hold(&mut self, bytes: usize) -> Result<()> {
        let left = self.memory.checked_sub(bytes);
        self.memory = left.ok_or_else(|| Error::new("unpack", "layer", "its names and paths are more than 128 MiB"))?;
        Ok(())
    }

    fn made_at(&mut self, ino: u64, leaf: &[u8]) -> Result<()> {
        // Only whiteouts ask.
        if self.covers.is_none() && self.made.insert((ino, leaf.to_vec())) {
            self.hold(leaf.len() + size_of::<(u64, Vec<u8>)>())?;
        }
        Ok(())
    }

    /// A directory's time is this, when all is done.
    fn late_at(&mut self, ino: u64, path: Vec<u8>, mtime: Time) -> Result<()> {
        self.hold(path.len() + size_of::<Late>())?;
        if let Some(before) = self.late.insert(ino, Late { path, mtime }) {
            self.memory += before.path.len() + size_of::<Late>();
        }
        Ok(())
    }

    fn drop_attribute(&mut self, name: &[u8]) {
        self.dropped.insert(shown(name));
        if self.dropped.len() > MAX_TOLD {
            self.dropped.pop_last();
        }
    }

    /// `./`: the root directory's own mode, owner and time. It can be nothing but a directory.
    fn root_entry(&mut self, entry: &Entry) -> Result<()> {
        if entry.kind != Kind::Directory {
            return Err(refuse(&entry.path, "the root is not a directory"));
        }
        let fail = os(&entry.path);
        let root = open_in_root(&self.root, b"", OFlags::RDONLY).map_err(&fail)?;
        self.describe_by_fd(entry, &root)?;
        let ino = rustix::fs::fstat(&root).map_err(&fail)?.st_ino;
        self.late_at(ino, Vec::new(), entry.mtime)
    }

    /// The directory that an entry lies in, made if it is not there.
    fn parent(&mut self, path: &[u8], parts: &[&[u8]]) -> Result<Parent> {
        let joined = parts.join(&b'/');
        if let Some((known, parent)) = &self.last
            && *known == joined
        {
            return Ok(parent.clone());
        }
        let fd = self.directory(path, parts, true)?.ok_or_else(|| os(path)(Errno::NOENT))?;
        let stat = rustix::fs::fstat(&fd).map_err(os(path))?;
        self.remember(&joined, &stat)?;
        let plain = stat.st_mode & Mode::SGID.as_raw_mode() == 0 && {
            let open = rustix::fs::openat(&fd, ".", OPEN_DIR, Mode::empty()).map_err(os(path))?;
            !xattr_names(open).map_err(os(path))?.iter().any(|name| name == b"system.posix_acl_default")
        };
        let parent = Parent { fd: Rc::new(fd), ino: stat.st_ino, plain };
        self.last = Some((joined, parent.clone()));
        Ok(parent)
    }

    /// Notes a directory's time before it is changed, unless the layer has named one: adding `usr/bin/x` alone is
    /// no reason for `usr/bin` to look new.
    fn remember(&mut self, path: &[u8], stat: &Stat) -> Result<()> {
        if self.covers.is_some() || self.late.contains_key(&stat.st_ino) {
            return Ok(());
        }
        let mtime = Time { seconds: stat.st_mtime, nanos: stat.st_mtime_nsec as u32 };
        self.late_at(stat.st_ino, path.to_vec(), mtime)
    }

    /// The directory that these names lead to inside the root, as a handle; links are followed as in a chroot. Where something is
    /// missing, it is made, or there is none.
    fn directory(&mut self, path: &[u8], parts: &[&[u8]], make: bool) -> Result<Option<OwnedFd>> {
        // The kernel does not know of the mounts here.
        if self.covers.as_ref().is_some_and(|covers| !covers.is_empty()) {
            return self.walk(path, parts, make);
        }
        match open_in_root(&self.root, &parts.join(&b'/'), OFlags::PATH) {
            Err(Errno::NOENT | Errno::NOTDIR) if !make => Ok(None),
            Err(Errno::NOENT | Errno::LOOP) => self.walk(path, parts, make),
            done => done.map(Some).map_err(os(path)),
        }
    }

    /// Walks from the root one component at a time; makes the directories that are missing, also those that a dangling link
    /// names. Each step is one component below a descriptor, so it cannot leave the root.
    fn walk(&mut self, path: &[u8], parts: &[&[u8]], make: bool) -> Result<Option<OwnedFd>> {
        let fail = os(path);
        let root = open_in_root(&self.root, b"", OFlags::PATH).map_err(&fail)?;
        let mut stack: Vec<(Vec<u8>, OwnedFd)> = Vec::new();
        let mut queue: VecDeque<Vec<u8>> = parts.iter().map(|part| part.to_vec()).collect();
        let mut links = 0;
        while let Some(part) = queue.pop_front() {
            let left = self.looks.checked_sub(1);
            self.looks = left.ok_or_else(|| refuse(path, "the layer's links take too many steps to follow"))?;
            let here = stack.last().map_or(root.as_fd(), |(_, fd)| fd.as_fd());
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            match part.as_slice() {
                b"" | b"." => continue,
                b".." => {
                    stack.pop();
                    continue;
                }
                // Where something is made in it, that is one deeper.
                _ if stack.len() >= MAX_DEPTH - usize::from(make) => {
                    return Err(refuse(path, "the path is deeper than 512 directories"));
                }
                _ => {}
            }
            match rustix::fs::openat(here, part.as_slice(), flags, Mode::empty()) {
                Ok(fd) => stack.push((part, self.crossed(path, fd)?)),
                Err(Errno::NOENT) if !make => return Ok(None),
                Err(Errno::NOENT) => {
                    let stat = rustix::fs::fstat(here).map_err(&fail)?;
                    let physical: Vec<_> = stack.iter().map(|(name, _)| name.as_slice()).collect();
                    let physical = physical.join(&b'/');
                    rustix::fs::mkdirat(here, part.as_slice(), Mode::from_raw_mode(0o755)).map_err(&fail)?;
                    let fd = rustix::fs::openat(here, part.as_slice(), flags, Mode::empty()).map_err(&fail)?;
                    self.budget.spend(ENTRY_COST)?;
                    self.made_at(stat.st_ino, &part)?;
                    self.remember(&physical, &stat)?;
                    stack.push((part, fd));
                }
                Err(Errno::NOTDIR | Errno::LOOP) => {
                    links += 1;
                    let target = match rustix::fs::readlinkat(here, part.as_slice(), Vec::new()) {
                        Err(_) if !make => return Ok(None),
                        target => target.map_err(|_| refuse(path, "a parent is not a directory"))?,
                    };
                    if links > MAX_LINKS {
                        return Err(refuse(path, "too many links"));
                    }
                    if target.to_bytes().starts_with(b"/") {
                        stack.clear();
                    }
                    for part in target.to_bytes().split(|b| *b == b'/').rev() {
                        queue.push_front(part.to_vec());
                    }
                }
                Err(errno) => return Err(fail(errno)),
            }
        }
        Ok(Some(stack.pop().map_or(root, |(_, fd)| fd)))
    }

    /// The directory, or the volume that is mounted on it.
    fn crossed(&self, path: &[u8], dir: OwnedFd) -> Result<OwnedFd> {
        let Some(covers) = self.covers.as_ref().filter(|covers| !covers.is_empty()) else { return Ok(dir) };
        let stat = rustix::fs::fstat(&dir).map_err(os(path))?;
        match covers.get(&key(&stat)) {
            None => Ok(dir),
            Some(Cover { volume: Some(volume), read_only: false, .. }) => {
                volume.try_clone().map_err(|e| refuse(path, e))
            }
            Some(cover) => Err(covered(path, cover)),
        }
    }

    /// Whether an entry is what a volume is mounted on, which has its owner and mode already; anything else is not put there.
    fn is_covered(&self, entry: &Entry, parent: &Parent, leaf: &[u8]) -> Result<bool> {
        let Some(covers) = self.covers.as_ref().filter(|covers| !covers.is_empty()) else { return Ok(false) };
        let stat = lstat(&*parent.fd, leaf).map_err(os(&entry.path))?;
        match stat.and_then(|stat| covers.get(&key(&stat))) {
            None => Ok(false),
            Some(Cover { volume: Some(_), .. }) if entry.kind == Kind::Directory => Ok(true),
            Some(cover) => Err(covered(&entry.path, cover)),
        }
    }

    /// Makes an entry at a name; where something is in the way, that goes first.
    fn make<T>(
        &mut self,
        parent: &Parent,
        leaf: &[u8],
        make: impl Fn() -> rustix::io::Result<T>,
    ) -> rustix::io::Result<T> {
        match make() {
            Err(Errno::EXIST) => {
                let existing = lstat(&*parent.fd, leaf)?;
                self.replace(parent, leaf, existing.as_ref())?;
                make()
            }
            done => done,
        }
    }

    /// Clears the way for an entry.
    fn replace(&mut self, parent: &Parent, leaf: &[u8], existing: Option<&Stat>) -> rustix::io::Result<()> {
        let Some(stat) = existing else { return Ok(()) };
        if self.covers.is_some() && is_dir(stat) {
            return Err(Errno::ISDIR);
        }
        // What resolved through it resolves elsewhere now.
        self.last = None;
        remove(parent.fd.as_fd(), leaf, stat, MAX_DEPTH)
    }

    /// Whiteouts hide what lower layers have, never what this one brings, whatever the order of its entries.
    fn whiteout(&mut self, path: &[u8], parents: &[&[u8]], hidden: &[u8]) -> Result<()> {
        let fail = os(path);
        if matches!(hidden, b".wh.aufs" | b".wh.plnk" | b".wh.orph") {
            return Ok(());
        }
        if matches!(hidden, b"" | b"." | b"..") || (hidden.starts_with(b".wh.") && hidden != b".wh..opq") {
            return Err(refuse(path, "not a whiteout's name"));
        }
        let joined = parents.join(&b'/');
        // Nothing there, so nothing to hide.
        let Some(dir) = self.directory(path, parents, false)? else { return Ok(()) };
        let dir = rustix::fs::openat(dir, ".", OPEN_DIR, Mode::empty()).map_err(&fail)?;
        let stat = rustix::fs::fstat(&dir).map_err(&fail)?;
        self.remember(&joined, &stat)?;
        self.last = None;
        if hidden == b".wh..opq" {
            for name in names(&dir).map_err(&fail)? {
                self.hide(dir.as_fd(), stat.st_ino, &name, MAX_DEPTH).map_err(&fail)?;
            }
        } else {
            self.hide(dir.as_fd(), stat.st_ino, hidden, MAX_DEPTH).map_err(&fail)?;
        }
        if self.looks == 0 {
            return Err(refuse(path, "the layer's whiteouts look at what it brings itself again and again"));
        }
        Ok(())
    }

    /// Removes what lower layers have at a name. True if nothing of this layer is left there.
    fn hide(&mut self, dir: BorrowedFd<'_>, ino: u64, name: &[u8], depth: usize) -> rustix::io::Result<bool> {
        let Some(stat) = lstat(dir, name)? else { return Ok(true) };
        let mut ours = self.made.contains(&(ino, name.to_vec()));
        if is_dir(&stat) {
            if depth == 0 {
                return Err(Errno::NAMETOOLONG);
            }
            let inner = rustix::fs::openat(dir, name, OPEN_DIR, Mode::empty())?;
            for child in names(&inner)? {
                ours |= !self.hide(inner.as_fd(), stat.st_ino, &child, depth - 1)?;
            }
        }
        if ours {
            self.looks = self.looks.saturating_sub(1);
        } else {
            let flags = if is_dir(&stat) { AtFlags::REMOVEDIR } else { AtFlags::empty() };
            rustix::fs::unlinkat(dir, name, flags)?;
        }
        Ok(!ours)
    }

    /// Another name for an entry of this layer or a lower one. The target is relative to the root, also with a `/`.
    fn hard_link(&mut self, entry: &Entry, parent: &Parent, leaf: &[u8]) -> Result<()> {
        let path = entry.path.as_slice();
        let fail = os(path);
        let missing = || refuse(path, format!("hard link to '{}', which is not there", shown(&entry.link)));
        let parts = components(&entry.link)?;
        let (name, parents) = parts.split_last().ok_or_else(missing)?;
        let dir = self.directory(path, parents, false)?.ok_or_else(missing)?;
        let target = lstat(&dir, name).map_err(&fail)?.ok_or_else(missing)?;
        if is_dir(&target) {
            return Err(refuse(path, "hard link to a directory"));
        }
        let existing = lstat(&*parent.fd, leaf).map_err(&fail)?;
        if existing.is_some_and(|stat| stat.st_ino == target.st_ino) {
            return Ok(());
        }
        self.replace(parent, leaf, existing.as_ref()).map_err(&fail)?;
        match rustix::fs::linkat(&dir, *name, &*parent.fd, leaf, AtFlags::empty()) {
            Err(Errno::NOENT) => Err(missing()),
            done => done.map_err(fail),
        }
    }

    /// The entry's bytes, each where it belongs; the file is as long as the entry says.
    fn fill(&mut self, entry: &Entry, file: File, data: &mut impl BufRead) -> Result<OwnedFd> {
        let fail = |e: std::io::Error| failed("unpack", format_args!("'{}'", shown(&entry.path)), e);
        let whole = [(0, entry.stored)];
        let map = entry.sparse.as_deref().unwrap_or(&whole);
        for (offset, length) in map {
            let (mut at, mut left) = (*offset, *length);
            while left > 0 {
                let here = match data.fill_buf() {
                    Ok([]) => return Err(fail(ErrorKind::UnexpectedEof.into())),
                    Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                    here => here.map_err(fail)?,
                };
                let most = usize::try_from(left).unwrap_or(usize::MAX).min(here.len());
                if entry.sparse.is_some() {
                    file.write_all_at(&here[..most], at).map_err(fail)?;
                } else {
                    (&file).write_all(&here[..most]).map_err(fail)?;
                }
                data.consume(most);
                at += most as u64;
                left -= most as u64;
            }
        }
        if entry.sparse.is_some() {
            file.set_len(entry.size).map_err(fail)?;
        }
        Ok(file.into())
    }

    /// Owner, then attributes (a change of owner drops file capabilities), then mode (it drops setuid, too).
    fn describe_by_fd(&mut self, entry: &Entry, fd: &OwnedFd) -> Result<()> {
        let fail = os(&entry.path);
        if self.owners {
            rustix::fs::fchown(fd, Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid))).map_err(&fail)?;
        }
        // What a lower layer's directory or a parent's default ACL left.
        for name in xattr_names(fd).map_err(&fail)?.iter().filter(|name| kept(name)) {
            rustix::fs::fremovexattr(fd, name.as_slice()).map_err(&fail)?;
        }
        for (name, value) in &entry.xattrs {
            if !kept(name) {
                self.drop_attribute(name);
                continue;
            }
            match rustix::fs::fsetxattr(fd, name.as_slice(), value, XattrFlags::empty()) {
                Err(Errno::NOTSUP) => self.drop_attribute(name),
                Err(Errno::PERM) if !self.owners => {}
                done => done.map_err(&fail)?,
            }
        }
        rustix::fs::fchmod(fd, Mode::from_raw_mode(entry.mode)).map_err(&fail)
    }

    /// The same for what cannot be opened: the name was made just now, so it is what we made.
    fn describe_by_name(&mut self, entry: &Entry, parent: &Parent, leaf: &[u8]) -> Result<()> {
        let fail = os(&entry.path);
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        let dir = &*parent.fd;
        let (uid, gid) = (Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid)));
        let owned = self.owners && !(parent.plain && (entry.uid, entry.gid) == self.own);
        if self.covers.is_none() && entry.kind == Kind::Symlink {
            if owned {
                rustix::fs::chownat(dir, leaf, uid, gid, flags).map_err(&fail)?;
            }
        } else {
            // A running container may have put something else there: so by a handle, after a look at what it is. And only
            // ACLs are inherited.
            let handle = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let node = rustix::fs::openat(dir, leaf, handle, Mode::empty()).map_err(&fail)?;
            let found = FileType::from_raw_mode(rustix::fs::fstat(&node).map_err(&fail)?.st_mode);
            let made = match entry.kind {
                Kind::Symlink => FileType::Symlink,
                Kind::Character => FileType::CharacterDevice,
                Kind::Block => FileType::BlockDevice,
                _ => FileType::Fifo,
            };
            if found != made {
                return Err(refuse(&entry.path, "it was replaced while it was made"));
            }
            if owned {
                rustix::fs::chownat(&node, "", uid, gid, AtFlags::EMPTY_PATH).map_err(&fail)?;
            }
            if entry.kind != Kind::Symlink {
                let _ = remove_xattr(&node, b"system.posix_acl_access");
                let mode = Mode::from_raw_mode(entry.mode);
                chmod(&node, mode).map_err(&fail)?;
            }
        }
        for (name, _) in &entry.xattrs {
            self.drop_attribute(name);
        }
        rustix::fs::utimensat(dir, leaf, &times(entry.mtime), flags).map_err(fail)
    }

    /// Times of the directories, once nothing changes inside them. A name that means another directory by now is let be.
    fn set_late_times(&mut self) -> Result<()> {
        for (ino, late) in std::mem::take(&mut self.late) {
            let fail = os(&late.path);
            let parts: Vec<_> = late.path.split(|b| *b == b'/').filter(|part| !part.is_empty()).collect();
            match self.directory(&late.path, &parts, false) {
                Ok(Some(dir)) if rustix::fs::fstat(&dir).map_err(&fail)?.st_ino == ino => {
                    let dir = rustix::fs::openat(dir, ".", OPEN_DIR, Mode::empty()).map_err(&fail)?;
                    rustix::fs::futimens(&dir, &times(late.mtime)).map_err(&fail)?;
                }
                Err(error) if self.looks == 0 => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bocker_common::tarball::samples::{pax, raw};
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use std::path::{Path, PathBuf};

    /// A directory that goes with the value.
    struct Temporary(PathBuf);

    impl Temporary {
        fn new() -> Self {
            use std::sync::atomic::{AtomicU32, Ordering};
            static COUNT: AtomicU32 = AtomicU32::new(0);
            let count = COUNT.fetch_add(1, Ordering::Relaxed);
            let path = std::env::temp_dir().join(format!("bocker-layer-{}-{count}", std::process::id()));
            std::fs::create_dir(&path).unwrap();
            for name in ["root", "outside"] {
                std::fs::create_dir(path.join(name)).unwrap();
            }
            std::fs::write(path.join("outside/file"), "outside").unwrap();
            Self(path)
        }

        fn root(&self) -> PathBuf {
            self.0.join("root")
        }

        fn outside(&self) -> Vec<String> {
            listing(&self.0.join("outside"), false)
        }

        fn outside_is_whole(&self) -> bool {
            let outside = self.0.join("outside");
            let names: Vec<_> = std::fs::read_dir(&outside).unwrap().map(|e| e.unwrap().file_name()).collect();
            names == ["file"]
                && std::fs::read(outside.join("file")).unwrap() == b"outside"
                && std::fs::read_dir(&self.0).unwrap().count() == 2
        }
    }

    impl Drop for Temporary {
        fn drop(&mut self) {
            std::fs::remove_dir_all(&self.0).unwrap();
        }
    }

    fn apply(root: &Path, archive: &[u8]) -> Result<BTreeSet<String>> {
        apply_within(root, archive, usize::MAX, u64::MAX)
    }

    /// Check 23: what costs nothing is counted.
    #[test]
    fn entries_have_an_end() {
        let nothing = raw(b".wh..wh.plnk/x", b'0', b"", b"");
        for (count, good) in [(10, true), (11, false)] {
            let at = Temporary::new();
            let root = rustix::fs::open(at.root(), OPEN_DIR, Mode::empty()).unwrap();
            let budget = Budget::new(0);
            let mut applier = Applier::new(root, &budget);
            applier.entries = 10;
            let done = applier.apply(&mut Reader::new(&nothing.repeat(count)[..]));
            assert_eq!(done.is_ok(), good, "{done:?}");
        }
    }

    fn apply_within(root: &Path, archive: &[u8], memory: usize, looks: u64) -> Result<BTreeSet<String>> {
        let budget = Budget::new(1 << 20);
        let root = rustix::fs::open(root, OPEN_DIR, Mode::empty()).unwrap();
        let mut applier = Applier::new(root, &budget);
        (applier.owners, applier.memory, applier.looks) = (false, memory, looks);
        applier.apply(&mut Reader::new(archive))
    }

    /// All that `lstat(2)` and attributes tell of a tree, and its links' targets; `moved`: without what differs between two
    /// trees that are the same.
    fn listing(root: &Path, moved: bool) -> Vec<String> {
        use std::os::unix::fs::MetadataExt;
        fn walk(at: &Path, moved: bool, firsts: &mut HashMap<u64, String>, out: &mut Vec<String>) {
            let meta = std::fs::symlink_metadata(at).unwrap();
            let open = rustix::fs::open(at, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW, Mode::empty());
            let attributes = open.map_or(Vec::new(), |fd| xattr_names(fd).unwrap());
            let first = firsts.entry(meta.ino()).or_insert_with(|| format!("{}", out.len())).clone();
            let target = std::fs::read_link(at).unwrap_or_default();
            // Directories that no entry describes are of the time when they were made.
            let time = if moved && meta.mtime() > 100 { (0, 0) } else { (meta.mtime(), meta.mtime_nsec()) };
            let (ino, size) =
                if moved { (0, if meta.is_dir() { 0 } else { meta.size() }) } else { (meta.ino(), meta.size()) };
            let name = if moved { at.file_name().filter(|name| *name != "root") } else { at.file_name() };
            out.push(format!(
                "{name:?} {:o} {}:{} {} {time:?} {ino} {size} {first} {target:?} {attributes:?}",
                meta.mode(),
                meta.uid(),
                meta.gid(),
                meta.nlink(),
            ));
            if meta.is_dir() {
                let mut inner: Vec<_> = std::fs::read_dir(at).unwrap().map(|e| e.unwrap().path()).collect();
                inner.sort();
                inner.iter().for_each(|path| walk(path, moved, firsts, out));
            }
        }
        let mut out = Vec::new();
        walk(root, moved, &mut HashMap::new(), &mut out);
        out
    }

    /// Path, and `dir`, the target of a link or the content of a file.
    fn tree(root: &Path) -> BTreeMap<String, String> {
        fn walk(at: &Path, prefix: &str, out: &mut BTreeMap<String, String>) {
            for entry in std::fs::read_dir(at).unwrap().map(std::result::Result::unwrap) {
                let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
                let kind = entry.file_type().unwrap();
                if kind.is_dir() {
                    walk(&entry.path(), &format!("{name}/"), out);
                    out.insert(name, "dir".into());
                } else if kind.is_symlink() {
                    out.insert(name, std::fs::read_link(entry.path()).unwrap().to_string_lossy().into_owned());
                } else {
                    out.insert(name, std::fs::read_to_string(entry.path()).unwrap());
                }
            }
        }
        let mut out = BTreeMap::new();
        walk(root, "", &mut out);
        out
    }

    /// Layers by honest tools and by others: what is taken, what is refused; and nothing near them reaches out of the root.
    #[test]
    fn the_corpus() {
        use bocker_common::corpus;
        for (file, good, bytes) in corpus::files(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus/layer").into()) {
            let place = Temporary::new();
            let done = apply(&place.root(), &bytes);
            assert_eq!(done.is_ok(), good, "{file}: {done:?}");
            assert!(place.outside_is_whole(), "{file}");
            for near in corpus::near(&bytes, 60) {
                let place = Temporary::new();
                let _ = apply(&place.root(), &near);
                assert!(place.outside_is_whole(), "near {file}");
            }
        }
    }

    fn layer(entries: &[Vec<u8>]) -> Vec<u8> {
        entries.concat()
    }

    #[test]
    fn opaque_spares_what_the_layer_brings_in_any_order() {
        let lower = layer(&[
            raw(b"d/", b'5', b"", b""),
            raw(b"d/sub/", b'5', b"", b""),
            raw(b"d/sub/old", b'0', b"", b"old"),
            raw(b"d/old", b'0', b"", b"old"),
        ]);
        let opaque = raw(b"d/.wh..wh..opq", b'0', b"", b"");
        let file = raw(b"d/sub/new", b'0', b"", b"new");
        let same = raw(b"d/old", b'0', b"", b"new");
        for order in [[&opaque, &file, &same], [&file, &opaque, &same], [&same, &file, &opaque]] {
            let at = Temporary::new();
            apply(&at.root(), &lower).unwrap();
            apply(&at.root(), &order.map(Clone::clone).concat()).unwrap();
            let names: Vec<_> = tree(&at.root()).into_iter().collect();
            let expected = [("d", "dir"), ("d/old", "new"), ("d/sub", "dir"), ("d/sub/new", "new")];
            assert_eq!(names, expected.map(|(a, b)| (a.to_owned(), b.to_owned())));
        }
    }

    #[test]
    fn a_whiteout_spares_its_own_layers_entry() {
        let at = Temporary::new();
        apply(&at.root(), &raw(b"f", b'0', b"", b"old")).unwrap();
        apply(&at.root(), &layer(&[raw(b"f", b'0', b"", b"new"), raw(b".wh.f", b'0', b"", b"")])).unwrap();
        assert_eq!(tree(&at.root())["f"], "new");
        apply(&at.root(), &raw(b".wh.f", b'0', b"", b"")).unwrap();
        assert!(tree(&at.root()).is_empty());
    }

    #[test]
    fn times_survive_what_is_put_into_a_directory() {
        use std::os::unix::fs::MetadataExt;
        let at = Temporary::new();
        let dir = [pax(&[("mtime", b"5.000000007")]), raw(b"d/", b'5', b"", b"")].concat();
        apply(&at.root(), &layer(&[dir, raw(b"d/f", b'0', b"", b"x")])).unwrap();
        apply(&at.root(), &raw(b"d/g", b'0', b"", b"y")).unwrap();
        let meta = std::fs::metadata(at.root().join("d")).unwrap();
        assert_eq!((meta.mtime(), meta.mtime_nsec()), (5, 7));
    }

    #[test]
    fn holes_are_holes() {
        use std::os::unix::fs::MetadataExt;
        let at = Temporary::new();
        let map = pax(&[("GNU.sparse.map", b"1048576,3,2097152,0"), ("GNU.sparse.size", b"2097152")]);
        apply(&at.root(), &[map, raw(b"s", b'0', b"", b"abc")].concat()).unwrap();
        let content = std::fs::read(at.root().join("s")).unwrap();
        assert_eq!((content.len(), &content[1 << 20..][..4]), (2 << 20, &b"abc\0"[..]));
        assert!(std::fs::metadata(at.root().join("s")).unwrap().blocks() < 100);
    }

    #[test]
    fn a_bomb_is_stopped_by_its_announcement() {
        let at = Temporary::new();
        let error = apply(&at.root(), &raw(b"f", b'0', b"", &[0; 2 << 20])).unwrap_err();
        assert!(error.to_string().starts_with("no room"), "{error}");
        assert!(tree(&at.root()).is_empty());
    }

    /// Check 23: attributes, links' targets and what a whiteout drags along take room, too.
    #[test]
    fn all_that_takes_room_is_counted() {
        let attribute = |size| [pax(&[("SCHILY.xattr.trusted.x", &vec![7; size])]), raw(b"f", b'0', b"", b"")].concat();
        let link = |size| [pax(&[("linkpath", &vec![b'x'; size])]), raw(b"l", b'2', b"", b"")].concat();
        let whiteout = |size| raw(b".wh.f", b'0', b"", &vec![0; size]);
        let aufs = |size| raw(b".wh..wh.plnk/f", b'0', b"", &vec![0; size]);
        for many in [
            attribute(600 << 10),
            attribute(300 << 10).repeat(2),
            link(4000).repeat(200),
            whiteout(2 << 20),
            aufs(2 << 20),
        ] {
            let at = Temporary::new();
            let error = apply(&at.root(), &many).unwrap_err();
            assert!(error.to_string().starts_with("no room"), "{error}");
        }
        for few in [attribute(300 << 10), link(4000), whiteout(2 << 10), aufs(2 << 10)] {
            apply(&Temporary::new().root(), &few).unwrap();
        }
    }

    /// Check 23: a piece of a sparse file takes whole blocks.
    #[test]
    fn pieces_far_apart_take_more_room_than_their_bytes() {
        let file = |count: usize, from: usize| {
            let map: Vec<_> = (1..=count).map(|n| format!("{},512", from + n * 8192)).collect();
            let size = (from + count * 8192 + 512).to_string();
            let records = [("GNU.sparse.map", map.join(",")), ("GNU.sparse.size", size)];
            let records: Vec<_> = records.iter().map(|(key, value)| (*key, value.as_bytes())).collect();
            [pax(&records), raw(b"s", b'0', b"", &vec![7; count * 512])].concat()
        };
        // Of 1 MiB: 150 KB in 300 blocks, or over the edge between two, are too much.
        for (count, from) in [(300, 0), (150, 4096 - 256)] {
            let error = apply(&Temporary::new().root(), &file(count, from)).unwrap_err();
            assert!(error.to_string().starts_with("no room"), "{error}");
        }
        apply(&Temporary::new().root(), &file(150, 0)).unwrap();
    }

    /// Checks 22 and 23: what is remembered of a layer, and what its whiteouts may cost, have an end.
    #[test]
    fn names_and_whiteouts_have_an_end() {
        let at = Temporary::new();
        let name = |n: usize| format!("{}/{n}/", ["p".repeat(200), "q".repeat(200)].join("/"));
        let record = |n: usize| [pax(&[("path", name(n).as_bytes())]), raw(b"d/", b'5', b"", b"")].concat();
        let many: Vec<u8> = (0..20).flat_map(record).collect();
        let error = apply_within(&at.root(), &many, 8000, 1000).unwrap_err();
        assert!(error.to_string().contains("names and paths"), "{error}");
        apply_within(&at.root(), &many, 16_000, 1000).unwrap();
        // The same names again take no more.
        apply_within(&at.root(), &many.repeat(10), 16_000, 1000).unwrap();

        let files: Vec<u8> = (0..10).flat_map(|n| raw(format!("d/{n}").as_bytes(), b'0', b"", b"")).collect();
        let opaque = raw(b"d/.wh..wh..opq", b'0', b"", b"");
        for again in [opaque.clone(), raw(b".wh.d", b'0', b"", b"")] {
            let vain = [files.clone(), again.repeat(10)].concat();
            let error = apply_within(&Temporary::new().root(), &vain, 1 << 20, 100).unwrap_err();
            assert!(error.to_string().contains("again and again"), "{error}");
        }
        // What they hide is of use, and not counted.
        let at = Temporary::new();
        apply(&at.root(), &files).unwrap();
        apply_within(&at.root(), &[opaque, files].concat(), 1 << 20, 1).unwrap();
        assert_eq!(tree(&at.root()).len(), 11);
    }

    /// Check 23: links cost steps, wherever a path is looked up; so many are enough for what anybody does with links.
    #[test]
    fn following_links_has_an_end() {
        let hop = "a/../".repeat(200);
        let links = [
            raw(b"a/", b'5', b"", b""),
            raw(b"a/f", b'0', b"", b""),
            pax(&[("linkpath", format!("{hop}a").as_bytes())]),
            raw(b"l", b'2', b"", b""),
        ]
        .concat();
        let dir = [links.clone(), raw(b"l/d/", b'5', b"", b"")].concat();
        for (entry, looks) in [
            (raw(b"l/x", b'0', b"", b""), 400),
            (raw(b"l/.wh.x", b'0', b"", b""), 400),
            (raw(b"h", b'1', b"l/f", b""), 400),
            // Its parent, and at the end itself, for its time.
            (raw(b"l/d/", b'5', b"", b""), 800),
        ] {
            let layer = [links.clone(), entry].concat();
            let error = apply_within(&Temporary::new().root(), &layer, 1 << 20, looks).unwrap_err();
            assert!(error.to_string().contains("too many steps"), "{error}");
            apply_within(&Temporary::new().root(), &layer, 1 << 20, 2000).unwrap();
        }
        let at = Temporary::new();
        apply(&at.root(), &dir).unwrap();
        assert_eq!(tree(&at.root())["a/d"], "dir");
    }

    /// Check 23: a directory is no deeper by links than by its name.
    #[test]
    fn links_make_nothing_deeper() {
        let deep = |from: &str, count| {
            let one = |n: usize| {
                [pax(&[("path", [from, &"d/".repeat(n)].concat().as_bytes())]), raw(b"d/", b'5', b"", b"")].concat()
            };
            (1..=count).flat_map(one).collect::<Vec<u8>>()
        };
        let link = [pax(&[("linkpath", "d/".repeat(300).as_bytes())]), raw(b"l", b'2', b"", b"")].concat();
        for (below, fits) in [(212, true), (213, false), (300, false)] {
            let at = Temporary::new();
            let budget = Budget::new(10 << 20);
            let root = rustix::fs::open(at.root(), OPEN_DIR, Mode::empty()).unwrap();
            let mut applier = Applier::new(root, &budget);
            applier.owners = false;
            let layer = [deep("", 300), link.clone(), deep("l/", below)].concat();
            match applier.apply(&mut Reader::new(&layer[..])) {
                Ok(_) => assert!(fits, "{below}"),
                Err(error) => assert!(!fits && error.to_string().contains("deeper than 512"), "{below}: {error}"),
            }
        }
    }

    /// Thousands of different names of attributes that are left out: some are told.
    #[test]
    fn what_is_left_out_is_told_in_few_words() {
        let one = |n: usize| {
            [pax(&[(format!("SCHILY.xattr.trusted.{n:03}").as_str(), b"")]), raw(b"f", b'0', b"", b"")].concat()
        };
        let dropped = apply(&Temporary::new().root(), &(0..200).rev().flat_map(one).collect::<Vec<u8>>()).unwrap();
        let told: Vec<String> = (0..9).map(|n| format!("trusted.{n:03}")).collect();
        assert_eq!(dropped.into_iter().collect::<Vec<_>>(), told);
    }

    /// What a layer may do to a name.
    #[derive(Debug, Clone)]
    enum Change {
        Directory,
        File(u8),
        Hide,
        Opaque,
    }

    /// The specification, in a few lines, for layers without links: path, content (None: a directory), made by this layer.
    #[derive(Default)]
    struct Model(BTreeMap<Vec<String>, (Option<u8>, bool)>);

    impl Model {
        /// False if the entry must be refused.
        fn apply(&mut self, path: &[String], change: &Change) -> bool {
            let parents: Vec<_> = (1..path.len()).map(|end| path[..end].to_vec()).collect();
            let blocked = parents.iter().any(|parent| matches!(self.0.get(parent), Some((Some(_), _))));
            match change {
                Change::Hide | Change::Opaque => {
                    if !blocked {
                        self.hide(path, matches!(change, Change::Opaque));
                    }
                    return true;
                }
                _ if blocked => return false,
                _ => {}
            }
            for parent in parents {
                self.0.entry(parent).or_insert((None, true));
            }
            let content = if let Change::File(content) = change { Some(*content) } else { None };
            let stays = content.is_none() && matches!(self.0.get(path), Some((None, _)));
            if !stays {
                self.0.retain(|name, _| !name.starts_with(path));
            }
            self.0.insert(path.to_vec(), (content, true));
            true
        }

        /// Drops below `path` what nothing of this layer needs; `path` itself, too, unless only its content is meant.
        fn hide(&mut self, path: &[String], content_only: bool) {
            let ours: Vec<_> = self.0.iter().filter(|(_, (_, made))| *made).map(|(name, _)| name.clone()).collect();
            self.0.retain(|name, _| {
                let meant = name.starts_with(path) && !(content_only && name == path);
                !meant || ours.iter().any(|mine| mine.starts_with(name))
            });
        }
    }

    fn change() -> impl Strategy<Value = (Vec<String>, Change)> {
        let path = prop::collection::vec(prop::sample::select(vec!["a", "b", "c"]).prop_map(str::to_owned), 1..4);
        let change = prop_oneof![
            3 => Just(Change::Directory),
            4 => (0_u8..9).prop_map(Change::File),
            2 => Just(Change::Hide),
            1 => Just(Change::Opaque),
        ];
        (path, change)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn layers_do_what_the_specification_says(
            layers in prop::collection::vec(prop::collection::vec(change(), 0..12), 1..4)
        ) {
            let at = Temporary::new();
            let mut model = Model::default();
            for changes in &layers {
                for node in model.0.values_mut() {
                    node.1 = false;
                }
                let mut archive = Vec::new();
                let mut good = true;
                for (path, change) in changes {
                    let name = path.join("/");
                    let (last, parents) = path.split_last().unwrap();
                    let hidden = [parents, &[format!(".wh.{last}")]].concat().join("/");
                    archive.extend(match change {
                        Change::Directory => raw(format!("{name}/").as_bytes(), b'5', b"", b""),
                        Change::File(content) => raw(name.as_bytes(), b'0', b"", &[b'0' + content]),
                        Change::Hide => raw(hidden.as_bytes(), b'0', b"", b""),
                        Change::Opaque => raw(format!("{name}/.wh..wh..opq").as_bytes(), b'0', b"", b""),
                    });
                    good &= model.apply(path, change);
                    if !good {
                        break;
                    }
                }
                prop_assert_eq!(apply(&at.root(), &archive).is_ok(), good);
                if !good {
                    return Ok(());
                }
            }
            let expected: BTreeMap<_, _> = model.0.iter().map(|(path, (content, _))| {
                (path.join("/"), content.map_or("dir".to_owned(), |content| content.to_string()))
            }).collect();
            prop_assert_eq!(tree(&at.root()), expected);
        }

        #[test]
        fn no_layer_reaches_out(
            entries in prop::collection::vec((
                prop::collection::vec(prop::sample::select(vec!["a", "b", "..", ".", "", "outside", "file", ".wh.a", ".wh.file"]), 1..5),
                prop::sample::select(vec![b'0', b'1', b'2', b'2', b'5']),
                prop::sample::select(vec!["/", "..", "../outside", "../../outside/file", "a", "b/..", "ABSOLUTE", "ABSOLUTE/file", "."]),
            ), 1..12)
        ) {
            let at = Temporary::new();
            let outside = at.0.join("outside");
            for (parts, kind, link) in &entries {
                let link = link.replace("ABSOLUTE", outside.to_str().unwrap());
                let data: &[u8] = if *kind == b'0' { b"in" } else { b"" };
                // Each a layer of its own, so that one refusal does not shield the next.
                let _ = apply(&at.root(), &raw(parts.join("/").as_bytes(), *kind, link.as_bytes(), data));
                prop_assert!(at.outside_is_whole(), "{entries:?}");
            }
        }

        /// Check 19: entries of all kinds over few names, so that links, replacements and whiteouts meet (none is opaque: were
        /// this broken, `/` would be the host's). Nothing outside changes; over another root the same layers give the same tree,
        /// links and times included.
        #[test]
        fn all_kinds_stay_inside_and_come_out_the_same(
            layers in prop::collection::vec(prop::collection::vec((
                prop::collection::vec(prop::sample::select(vec!["a", "b", "c", ".wh.a", ".wh.c", "..", ""]), 1..4),
                prop::sample::select(b"00112225566".to_vec()),
                prop::sample::select(vec!["a", "/", "..", "../b", "a/b", "/a/c", "../../outside", "ABSOLUTE/file", "c/../..", "."]),
                prop::sample::select(vec!["1.5", "7", "-3.25"]),
            ), 1..4), 1..12)
        ) {
            let (at, again) = (Temporary::new(), Temporary::new());
            let before = at.outside();
            for layer in &layers {
                let mut archive = Vec::new();
                for (parts, kind, link, mtime) in layer {
                    let link = link.replace("ABSOLUTE", &at.0.join("outside").to_string_lossy());
                    let (link, data): (&str, &[u8]) = match kind { b'0' => ("", b"in"), b'1' | b'2' => (&link, b""), _ => ("", b"") };
                    archive.extend(pax(&[("mtime", mtime.as_bytes()), ("SCHILY.xattr.user.x", b"x")]));
                    archive.extend(raw(parts.join("/").as_bytes(), *kind, link.as_bytes(), data));
                }
                let (one, two) = (apply(&at.root(), &archive), apply(&again.root(), &archive));
                prop_assert_eq!(at.outside(), before.clone());
                // One refusal does not shield the next.
                prop_assert_eq!(one.is_ok(), two.is_ok());
                prop_assert_eq!(listing(&at.root(), true), listing(&again.root(), true), "{:?}", layers);
            }
        }

        #[test]
        fn any_bytes_are_an_error_at_worst(bytes in prop::collection::vec(any::<u8>(), 0..1500), at in 0_usize..1024) {
            let place = Temporary::new();
            let mut archive = [pax(&[("path", b"a/b")]), raw(b"f", b'0', b"", b"x")].concat();
            let _ = apply(&place.root(), &bytes);
            // A valid header with some bytes changed gets further.
            for (offset, byte) in bytes.iter().take(8).enumerate() {
                archive[(at + offset * 37) % 1024] = *byte;
                for block in [0, 1024] {
                    let sum: u32 = (0..512).filter(|i| !(148..156).contains(i)).map(|i| u32::from(archive[block + i])).sum();
                    archive[block + 148..block + 156].copy_from_slice(format!("{:06o}\0 ", sum + 256).as_bytes());
                }
                let _ = apply(&place.root(), &archive);
            }
            prop_assert!(place.outside_is_whole());
        }
    }
}
