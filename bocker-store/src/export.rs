//! A root file system as a tar archive on stdout: the same tree gives the same bytes.
//!
//! Names in order, owners as numbers, what the ustar header has no room for in PAX records, holes as GNU tar's sparse
//! format 1.0. The tree is a container's: each name is opened from its directory's descriptor and never followed. It may
//! change while it is read; what is written is then still an archive, and that it changed is said.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

use bocker_common::diag::{USAGE, printable};
use bocker_common::{Error, Result};
use rustix::fs::{FileType, Mode, OFlags, SeekFrom, Stat};
use rustix::io::Errno;
use tar::{EntryType, Header};

use crate::cp::{Covers, key, sorted};
use crate::layer::{is_dir, lstat, names, xattr_names};
use crate::store::{Store, to_nix};
use bocker_common::tarball::{Time, shown};

/// Directories within directories, at most: each holds a descriptor. As for layers.
pub(crate) const MAX_DEPTH: usize = 512;
/// Pieces of a sparse file, at most; one with more is written whole. As for layers.
const MAX_SPARSE: usize = 1 << 18;
const BLOCK: u64 = 512;
/// The first number that seven octal digits cannot hold.
const OCTAL_7: u64 = 1 << 21;
/// And eleven.
const OCTAL_11: u64 = 1 << 33;

pub(crate) const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// What can be said of an entry; the rest follows from its type.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    /// Relative to the root; directories end in a slash.
    path: Vec<u8>,
    kind: EntryType,
    link: Vec<u8>,
    mode: u32,
    uid: u32,
    gid: u32,
    mtime: Time,
    device: (u32, u32),
    /// Sorted by name.
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    size: u64,
    /// Where there is data, offset and length; None: everywhere.
    pieces: Option<Vec<(u64, u64)>>,
}

impl Entry {
    /// A file of this name, root's, of no time.
    pub(crate) fn file(path: impl Into<Vec<u8>>, size: u64) -> Self {
        Self {
            path: path.into(),
            kind: EntryType::Regular,
            link: Vec::new(),
            mode: 0o644,
            uid: 0,
            gid: 0,
            mtime: Time::default(),
            device: (0, 0),
            xattrs: Vec::new(),
            size,
            pieces: None,
        }
    }
}

/// The records of an extended header, `LENGTH KEY=VALUE\n`.
#[derive(Debug, Default)]
struct Records(Vec<u8>);

impl Records {
    fn add(&mut self, key: &[u8], value: &[u8]) {
        // The length counts its own digits.
        let rest = key.len() + value.len() + 3;
        let mut length = rest + 1;
        while length != rest + length.to_string().len() {
            length = rest + length.to_string().len();
        }
        self.0.extend_from_slice(format!("{length} ").as_bytes());
        self.0.extend_from_slice(key);
        self.0.push(b'=');
        self.0.extend_from_slice(value);
        self.0.push(b'\n');
    }
}

/// `-1.5` is half a second before the second before 1970.
fn decimal(time: Time) -> String {
    let (sign, seconds, nanos) = match (time.seconds < 0, time.nanos) {
        (true, 0) => ("-", time.seconds.unsigned_abs(), 0),
        (true, nanos) => ("-", time.seconds.unsigned_abs() - 1, 1_000_000_000 - nanos),
        (false, nanos) => ("", time.seconds.unsigned_abs(), nanos),
    };
    let fraction = if nanos == 0 { String::new() } else { format!(".{nanos:09}") };
    format!("{sign}{seconds}{}", fraction.trim_end_matches('0'))
}

/// Puts the name into its field; what does not fit, or could be read in two ways, goes into a record, too.
fn name(field: &mut [u8; 100], value: &[u8], key: &[u8], records: &mut Records) {
    let fits = value.len().min(field.len());
    field[..fits].copy_from_slice(&value[..fits]);
    if value.len() > field.len() || !value.is_ascii() {
        records.add(key, value);
    }
}

/// The map of a sparse file as it stands before its data: how many pieces, then offset and length of each, in blocks.
fn sparse_map(pieces: &[(u64, u64)]) -> Vec<u8> {
    let mut map = format!("{}\n", pieces.len());
    for (offset, length) in pieces {
        map += &format!("{offset}\n{length}\n");
    }
    let mut map = map.into_bytes();
    map.resize(map.len().next_multiple_of(BLOCK as usize), 0);
    map
}

/// The header blocks of an entry, and the map if it is sparse; its data follows.
pub(crate) fn headers(entry: &Entry) -> io::Result<Vec<u8>> {
    let mut records = Records::default();
    let mut header = Header::new_ustar();
    let mut stored = entry.size;
    let mut map = Vec::new();
    match &entry.pieces {
        Some(pieces) => {
            map = sparse_map(pieces);
            stored = map.len() as u64 + pieces.iter().map(|(_, length)| length).sum::<u64>();
            records.add(b"GNU.sparse.major", b"1");
            records.add(b"GNU.sparse.minor", b"0");
            records.add(b"GNU.sparse.name", &entry.path);
            records.add(b"GNU.sparse.realsize", entry.size.to_string().as_bytes());
            // What a tar that does not know the format makes of it.
            let leaf = entry.path.rsplit(|b| *b == b'/').next().unwrap_or_default();
            let other = [b"GNUSparseFile.0/", leaf].concat();
            let fits = other.len().min(100);
            header.as_old_mut().name[..fits].copy_from_slice(&other[..fits]);
        }
        None => name(&mut header.as_old_mut().name, &entry.path, b"path", &mut records),
    }
    name(&mut header.as_old_mut().linkname, &entry.link, b"linkpath", &mut records);
    header.set_entry_type(entry.kind);
    header.set_mode(entry.mode);
    for (key, id) in [("uid", entry.uid), ("gid", entry.gid)] {
        let id = u64::from(id);
        if id >= OCTAL_7 {
            records.add(key.as_bytes(), id.to_string().as_bytes());
        }
        let id = if id < OCTAL_7 { id } else { 0 };
        if key == "uid" { header.set_uid(id) } else { header.set_gid(id) }
    }
    if stored >= OCTAL_11 {
        records.add(b"size", stored.to_string().as_bytes());
    }
    // In base 256 where octal digits do not do: header and record say the same.
    header.set_size(stored);
    let seconds = u64::try_from(entry.mtime.seconds).ok().filter(|seconds| *seconds < OCTAL_11);
    if seconds.is_none() || entry.mtime.nanos > 0 {
        records.add(b"mtime", decimal(entry.mtime).as_bytes());
    }
    header.set_mtime(seconds.unwrap_or(0));
    header.set_device_major(entry.device.0)?;
    header.set_device_minor(entry.device.1)?;
    for (key, value) in &entry.xattrs {
        records.add(&[b"SCHILY.xattr.", key.as_slice()].concat(), value);
    }
    header.set_cksum();

    let mut out = Vec::new();
    if !records.0.is_empty() {
        let mut before = Header::new_ustar();
        before.as_old_mut().name[..14].copy_from_slice(b"././@PaxHeader");
        before.set_entry_type(EntryType::XHeader);
        before.set_mode(0o644);
        before.set_uid(0);
        before.set_gid(0);
        before.set_mtime(0);
        before.set_size(records.0.len() as u64);
        before.set_device_major(0)?;
        before.set_device_minor(0)?;
        before.set_cksum();
        out.extend_from_slice(before.as_bytes());
        out.extend_from_slice(&records.0);
        out.resize(out.len().next_multiple_of(BLOCK as usize), 0);
    }
    out.extend_from_slice(header.as_bytes());
    out.extend_from_slice(&map);
    Ok(out)
}

/// The attributes that a layer may have, sorted.
pub(crate) fn attributes(fd: BorrowedFd<'_>, path: &[u8]) -> rustix::io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let kept = |name: &Vec<u8>| {
        name.starts_with(b"user.")
            || matches!(&name[..], b"security.capability" | b"system.posix_acl_access" | b"system.posix_acl_default")
    };
    let mut all = Vec::new();
    for name in xattr_names(fd)?.into_iter().filter(kept) {
        if name.contains(&b'=') {
            warn(path, "an attribute with '=' in its name, which tar has no word for, is left out");
            continue;
        }
        let read = || {
            let mut value = vec![0; rustix::fs::fgetxattr_query(fd, name.as_slice())?];
            let length = rustix::fs::fgetxattr(fd, name.as_slice(), &mut value[..])?;
            value.truncate(length);
            Ok(value)
        };
        match read() {
            Ok(value) => all.push((name, value)),
            // Changed between the two calls, or gone.
            Err(Errno::NODATA | Errno::RANGE) => warn(path, "an attribute changed while it was read"),
            Err(e) => return Err(e),
        }
    }
    all.sort();
    Ok(all)
}

fn warn(path: &[u8], what: &str) {
    let _ = writeln!(io::stderr(), "bocker-store: warning: '{}': {what}", printable(&shown(path)));
}

/// Where a file has data, with the end of the file as an empty last piece if it ends in a hole; None: it has no hole.
fn pieces(file: &OwnedFd, size: u64) -> Option<Vec<(u64, u64)>> {
    let mut all = Vec::new();
    let mut at = 0;
    while at < size {
        let start = match rustix::fs::seek(file, SeekFrom::Data(at)) {
            Ok(start) => start.min(size),
            Err(Errno::NXIO) => size,
            Err(_) => return None,
        };
        let end = rustix::fs::seek(file, SeekFrom::Hole(start)).unwrap_or(size).min(size).max(start);
        if start < size {
            all.push((start, end - start));
        }
        if all.len() > MAX_SPARSE {
            return None;
        }
        at = end.max(start + 1);
    }
    match all.last() {
        Some((0, length)) if *length == size => return None,
        Some((start, length)) if start + length == size => {}
        _ if size == 0 => return None,
        _ => all.push((size, 0)),
    }
    Some(all)
}

/// One export under way.
pub(crate) struct Exporter<W> {
    out: W,
    /// What a failed write means.
    broken: fn(&io::Error) -> Error,
    /// No time is later than this.
    latest: Option<i64>,
    /// A layer: a name that would hide another is refused.
    layer: bool,
    /// What a container has mounted over its files.
    covers: Covers,
    /// The first name of a file with several, by device and inode.
    links: HashMap<(u64, u64), Vec<u8>>,
    /// Directories that are written when something in them is.
    pending: Vec<Vec<u8>>,
    changed: bool,
    buffer: Vec<u8>,
}

fn fail(path: &[u8], errno: Errno) -> Error {
    Error::new("export", format_args!("'{}'", shown(path)), io::Error::from(errno))
}

impl<W: Write> Exporter<W> {
    fn new(out: W) -> Self {
        Self {
            out,
            broken: Error::stdout,
            latest: None,
            layer: false,
            covers: Covers::new(),
            links: HashMap::new(),
            pending: Vec::new(),
            changed: false,
            buffer: vec![0; 256 << 10],
        }
    }

    /// A layer's archive to `out`; `broken` makes an error of one that it has.
    pub(crate) fn of_a_layer(out: W, broken: fn(&io::Error) -> Error) -> Self {
        Self { broken, layer: true, ..Self::new(out) }
    }

    /// An archive of a container's files as it sees them: volumes with what is in them, other mounts not.
    pub(crate) fn of_a_container(out: W, covers: Covers) -> Self {
        Self { covers, ..Self::new(out) }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        for head in std::mem::take(&mut self.pending) {
            self.out.write_all(&head).map_err(|e| (self.broken)(&e))?;
        }
        self.out.write_all(bytes).map_err(|e| (self.broken)(&e))
    }

    /// The end mark, and what was written to; an error where the tree changed meanwhile, which has been said.
    pub(crate) fn end(mut self) -> Result<W> {
        self.pending.clear();
        self.write(&[0; 2 * BLOCK as usize])?;
        self.out.flush().map_err(|e| (self.broken)(&e))?;
        // As GNU tar has it: the archive is good, and not what one would get now.
        if self.changed { Err(Error::explained_elsewhere()) } else { Ok(self.out) }
    }

    /// What lies in `old`, as far as that differs from `new`, and what is hidden of it. Inodes that are not in `touched`
    /// are the same in both, and so are files whose inode has the same number and was not changed since.
    pub(crate) fn changes(
        &mut self,
        old: &OwnedFd,
        new: &OwnedFd,
        touched: Option<&HashSet<u64>>,
        path: &[u8],
        depth: usize,
    ) -> Result<()> {
        let os = |e| fail(path, e);
        let (was, stat) = (rustix::fs::fstat(old).map_err(os)?, rustix::fs::fstat(new).map_err(os)?);
        let entry = self.directory_entry(new, path, &stat)?;
        let head = headers(&entry).map_err(|e| Error::new("export", shown(path), e))?;
        let fields = |stat: &Stat| (stat.st_mode, stat.st_uid, stat.st_gid, stat.st_mtime, stat.st_mtime_nsec);
        let waiting = self.pending.len();
        if fields(&was) == fields(&stat) && attributes(old.as_fd(), path).map_err(os)? == entry.xattrs {
            self.pending.push(head);
        } else {
            self.write(&head)?;
        }
        check_depth(path, depth)?;
        let (olds, news) = (names(old).map_err(os)?, names(new).map_err(os)?);
        let olds: BTreeSet<_> = olds.into_iter().collect();
        let news: BTreeSet<_> = news.into_iter().collect();
        for name in olds.union(&news) {
            let inner = [path, name.as_slice()].concat();
            if !news.contains(name) {
                let hide = [path, b".wh.", name.as_slice()].concat();
                self.head(&Entry::file(hide, 0))?;
                continue;
            }
            let stat = lstat(new, name).map_err(|e| fail(&inner, e))?;
            let was = lstat(old, name).map_err(|e| fail(&inner, e))?;
            let (Some(stat), Some(was)) = (stat, was) else {
                match stat {
                    Some(stat) => self.node(new, name, &inner, &stat, depth)?,
                    None => self.notice(&inner),
                }
                continue;
            };
            let is = |stat: &Stat| (stat.st_ino, stat.st_mode, stat.st_ctime, stat.st_ctime_nsec);
            // Reading touches an inode, too (its atime, unless the store is mounted noatime), but changes nothing.
            let unchanged = is(&was) == is(&stat) && !is_dir(&stat);
            let untouched = |touched: &HashSet<u64>| was.st_ino == stat.st_ino && !touched.contains(&stat.st_ino);
            if unchanged || touched.is_some_and(untouched) {
                continue;
            }
            if is_dir(&was) && is_dir(&stat) {
                let open = |dir| rustix::fs::openat(dir, name, DIRECTORY, Mode::empty()).map_err(|e| fail(&inner, e));
                self.changes(&open(old)?, &open(new)?, touched, &[&inner, &b"/"[..]].concat(), depth - 1)?;
            } else {
                self.node(new, name, &inner, &stat, depth)?;
            }
        }
        // Nothing in it differed.
        self.pending.truncate(waiting);
        Ok(())
    }

    fn directory_entry(&self, dir: &OwnedFd, path: &[u8], stat: &Stat) -> Result<Entry> {
        let mut entry = self.entry(if path.is_empty() { b"./" } else { path }, EntryType::Directory, stat);
        entry.xattrs = attributes(dir.as_fd(), path).map_err(|e| fail(path, e))?;
        Ok(entry)
    }

    fn entry(&self, path: &[u8], kind: EntryType, stat: &Stat) -> Entry {
        let mut mtime = Time { seconds: stat.st_mtime, nanos: stat.st_mtime_nsec as u32 };
        if let Some(latest) = self.latest
            && mtime.seconds >= latest
        {
            mtime = Time { seconds: latest, nanos: 0 };
        }
        Entry {
            path: path.to_vec(),
            kind,
            link: Vec::new(),
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            mtime,
            device: (0, 0),
            xattrs: Vec::new(),
            size: 0,
            pieces: None,
        }
    }

    /// The directory's entry, then all in it in order. Its path ends in a slash, the root's is empty.
    pub(crate) fn directory(&mut self, dir: &OwnedFd, path: &[u8], depth: usize) -> Result<()> {
        let os = |e| fail(path, e);
        let stat = rustix::fs::fstat(dir).map_err(os)?;
        let entry = self.directory_entry(dir, path, &stat)?;
        self.head(&entry)?;
        check_depth(path, depth)?;
        let mut all = names(dir).map_err(os)?;
        all.sort_unstable();
        for name in all {
            let inner = [path, &name].concat();
            match lstat(dir, &name).map_err(|e| fail(&inner, e))? {
                Some(stat) => self.node(dir, &name, &inner, &stat, depth)?,
                None => self.notice(&inner),
            }
        }
        Ok(())
    }

    /// All in a directory, and not the directory itself.
    pub(crate) fn contents(&mut self, dir: &OwnedFd) -> Result<()> {
        for (name, stat) in sorted(dir).map_err(|e| fail(b"./", e))? {
            match stat {
                Some(stat) => self.node(dir, &name, &name, &stat, MAX_DEPTH)?,
                None => self.notice(&name),
            }
        }
        Ok(())
    }

    /// What a name stands for, a directory with all in it.
    fn node(&mut self, dir: &OwnedFd, name: &[u8], path: &[u8], stat: &Stat, depth: usize) -> Result<()> {
        if let Some(cover) = self.covers.get(&key(stat)) {
            let Some(volume) = &cover.volume else {
                warn(path, &format!("left out: {} ({})", cover.what, cover.way_out));
                return Ok(());
            };
            let volume = volume.try_clone().map_err(|e| Error::new("export", shown(path), e))?;
            return self.directory(&volume, &[path, &b"/"[..]].concat(), depth - 1);
        }
        if self.layer && name.starts_with(b".wh.") {
            let why = "in a layer such a name hides another, and is none itself";
            return Err(Error::new("save", format_args!("'{}'", shown(path)), why));
        }
        if !is_dir(stat) {
            return self.other(dir, name, path, stat);
        }
        match rustix::fs::openat(dir, name, DIRECTORY, Mode::empty()) {
            Ok(below) => self.directory(&below, &[path, &b"/"[..]].concat(), depth - 1),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {
                self.notice(path);
                Ok(())
            }
            Err(e) => Err(fail(path, e)),
        }
    }

    fn notice(&mut self, path: &[u8]) {
        self.changed = true;
        warn(path, "it changed while it was read");
    }

    pub(crate) fn other(&mut self, dir: &OwnedFd, name: &[u8], path: &[u8], stat: &Stat) -> Result<()> {
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => EntryType::Regular,
            FileType::Symlink => EntryType::Symlink,
            FileType::CharacterDevice => EntryType::Char,
            FileType::BlockDevice => EntryType::Block,
            FileType::Fifo => EntryType::Fifo,
            _ => {
                warn(path, "a socket is left out");
                return Ok(());
            }
        };
        let mut entry = self.entry(path, kind, stat);
        if stat.st_nlink > 1 {
            let key = (stat.st_dev, stat.st_ino);
            if let Some(first) = self.links.get(&key) {
                entry.kind = EntryType::Link;
                entry.link.clone_from(first);
                return self.head(&entry);
            }
            self.links.insert(key, path.to_vec());
        }
        match kind {
            EntryType::Regular => return self.file(dir, name, path, stat),
            EntryType::Symlink => match rustix::fs::readlinkat(dir, name, Vec::new()) {
                Ok(target) => entry.link = target.into_bytes(),
                Err(Errno::NOENT | Errno::INVAL) => {
                    self.notice(path);
                    return Ok(());
                }
                Err(e) => return Err(fail(path, e)),
            },
            EntryType::Char | EntryType::Block => {
                entry.device = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
            }
            _ => {}
        }
        self.head(&entry)
    }

    fn head(&mut self, entry: &Entry) -> Result<()> {
        let head = headers(entry).map_err(|e| Error::new("export", format_args!("'{}'", shown(&entry.path)), e))?;
        self.write(&head)
    }

    fn file(&mut self, dir: &OwnedFd, name: &[u8], path: &[u8], known: &Stat) -> Result<()> {
        let os = |e| fail(path, e);
        // NONBLOCK: were it a pipe by now, opening it would wait. NOATIME: reading is no change.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOATIME | OFlags::CLOEXEC;
        let file = match rustix::fs::openat(dir, name, flags, Mode::empty()) {
            // Gone, or something else by now; a device does not open here.
            Err(Errno::NOENT | Errno::LOOP | Errno::NXIO | Errno::ACCESS | Errno::PERM) => {
                self.notice(path);
                return Ok(());
            }
            done => done.map_err(os)?,
        };
        let stat = rustix::fs::fstat(&file).map_err(os)?;
        if (stat.st_dev, stat.st_ino) != (known.st_dev, known.st_ino)
            || FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile
        {
            self.notice(path);
            return Ok(());
        }
        let mut entry = self.entry(path, EntryType::Regular, &stat);
        entry.size = u64::try_from(stat.st_size).unwrap_or_default();
        entry.xattrs = attributes(file.as_fd(), path).map_err(os)?;
        entry.pieces = pieces(&file, entry.size);
        self.head(&entry)?;
        let whole = [(0, entry.size)];
        let mut written = 0;
        let file = File::from(file);
        for (offset, length) in entry.pieces.as_deref().unwrap_or(&whole) {
            self.data(&file, path, *offset, *length)?;
            written += length;
        }
        let padding = written.next_multiple_of(BLOCK) - written;
        self.write(&[0; BLOCK as usize][..padding as usize])
    }

    /// So many bytes of the file; zeros where it has become shorter.
    fn data(&mut self, file: &File, path: &[u8], offset: u64, length: u64) -> Result<()> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let (mut at, end) = (offset, offset + length);
        let mut short = false;
        while at < end {
            let most = usize::try_from(end - at).unwrap_or(usize::MAX).min(buffer.len());
            let read = match if short { Ok(0) } else { file.read_at(&mut buffer[..most], at) } {
                Ok(read) => read,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(Error::new("export", format_args!("'{}'", shown(path)), e)),
            };
            let read = match read {
                0 => {
                    if !short {
                        self.notice(path);
                        short = true;
                    }
                    buffer[..most].fill(0);
                    most
                }
                read => read,
            };
            self.write(&buffer[..read])?;
            at += read as u64;
        }
        self.buffer = buffer;
        Ok(())
    }
}

fn check_depth(path: &[u8], depth: usize) -> Result<()> {
    if depth > 0 {
        return Ok(());
    }
    Err(Error::new("export", format_args!("'{}'", shown(path)), "more than 512 directories within each other"))
}

/// `--source-date-epoch`, else `$SOURCE_DATE_EPOCH`: no time in the archive is later.
fn latest(given: Option<i64>) -> Result<Option<i64>> {
    match std::env::var_os("SOURCE_DATE_EPOCH").filter(|value| given.is_none() && !value.is_empty()) {
        None => Ok(given),
        Some(text) => text.to_str().and_then(|text| text.parse().ok()).map(Some).ok_or_else(|| {
            Error::new("read", "SOURCE_DATE_EPOCH", "it is not a number of seconds since 1970").status(USAGE)
        }),
    }
}

/// `export`: the root file system of an image or a container.
pub(crate) fn export(store: &Store, name: &str, source_date_epoch: Option<i64>) -> Result<()> {
    let latest = latest(source_date_epoch)?;
    let id = store.find_any(name)?;
    let root = rustix::fs::openat(store.dir(), id.to_string(), DIRECTORY, Mode::empty())
        .and_then(|subvolume| rustix::fs::openat(subvolume, "rootfs", DIRECTORY, Mode::empty()))
        .map_err(|e| Error::new("open", format_args!("{id}/rootfs"), to_nix(e)))?;
    let stdout = io::stdout();
    if stdout.is_terminal() {
        return Err(Error::plain("stdout is a terminal").hint(format!("bocker-store export {name} > FILE")));
    }
    let out = BufWriter::with_capacity(256 << 10, stdout.lock());
    let mut exporter = Exporter { latest, ..Exporter::new(out) };
    exporter.directory(&root, b"", MAX_DEPTH)?;
    // With the end mark: a reader that does not find it knows that the archive was cut off.
    exporter.end().map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bocker_common::tarball::{Kind, Reader};
    use proptest::prelude::*;
    use std::io::Read;

    fn entry() -> Entry {
        Entry { mode: 0o4755, uid: 1000, mtime: Time { seconds: 7, nanos: 0 }, ..Entry::file("a/b", 0) }
    }

    #[test]
    fn what_fits_a_header_has_no_record() {
        let bytes = headers(&entry()).unwrap();
        assert_eq!(bytes.len(), 512);
        let read = Reader::new(&bytes[..]).next_entry().unwrap().unwrap();
        assert_eq!((read.mode, read.uid, read.mtime.seconds), (0o4755, 1000, 7));
        assert_eq!(headers(&Entry { uid: 1 << 21, ..entry() }).unwrap().len(), 3 * 512);
    }

    #[test]
    fn eight_gibibytes_and_more_are_said_in_both_places() {
        for size in [OCTAL_11 - 1, OCTAL_11, OCTAL_11 + 1, 1 << 60] {
            let bytes = headers(&Entry { size, ..entry() }).unwrap();
            let read = Reader::new(&bytes[..]).next_entry().unwrap().unwrap();
            assert_eq!((read.size, read.stored), (size, size));
            // A reader that knows no PAX finds the same in the header, and no other entry in the data.
            let header = Header::from_byte_slice(&bytes[bytes.len() - 512..]);
            assert_eq!(header.entry_size().unwrap(), size);
        }
    }

    #[test]
    fn times_before_1970_count_backwards() {
        for (seconds, nanos, text) in [
            (0, 0, "0"),
            (1, 500_000_000, "1.5"),
            (-1, 0, "-1"),
            (-2, 500_000_000, "-1.5"),
            (-1, 999_999_999, "-0.000000001"),
            (1, 1, "1.000000001"),
            (i64::MIN, 0, "-9223372036854775808"),
        ] {
            assert_eq!(decimal(Time { seconds, nanos }), text);
        }
    }

    #[test]
    fn a_length_that_counts_itself() {
        for size in [0, 1, 5, 90, 91, 92, 93, 980, 990, 9_990] {
            let mut records = Records::default();
            records.add(b"k", &vec![b'v'; size]);
            let space = records.0.iter().position(|b| *b == b' ').unwrap();
            let length: usize = std::str::from_utf8(&records.0[..space]).unwrap().parse().unwrap();
            assert_eq!(length, records.0.len());
        }
    }

    #[test]
    fn holes_are_found() {
        use std::os::unix::fs::FileExt;
        let file = tempfile::tempfile().unwrap();
        let find = |size| pieces(&OwnedFd::from(file.try_clone().unwrap()), size);
        assert_eq!(find(0), None);
        file.set_len(1 << 20).unwrap();
        assert_eq!(find(1 << 20), Some(vec![(1 << 20, 0)]));
        file.write_all_at(&[1; 4096], 8192).unwrap();
        file.write_all_at(&[1; 10], 1 << 20).unwrap();
        file.sync_all().unwrap();
        let found = find((1 << 20) + 10).unwrap();
        assert_eq!((found[0], found.len()), ((8192, 4096), 2));
        assert_eq!(found[1].0 + found[1].1, (1 << 20) + 10);
        let dense = tempfile::tempfile().unwrap();
        dense.write_all_at(&[1; 10_000], 0).unwrap();
        assert_eq!(pieces(&OwnedFd::from(dense), 10_000), None);
    }

    fn bytes(most: usize) -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(1_u8.., 1..most)
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn the_layers_reader_reads_what_is_written(
            path in bytes(300), link in bytes(300), mode in 0_u32..0o10000, uid in 0..u32::MAX, gid in 0..u32::MAX,
            seconds in any::<i32>(), nanos in 0_u32..1_000_000_000,
            xattrs in prop::collection::btree_map("user\\.[a-z]{1,9}", prop::collection::vec(any::<u8>(), 0..40), 0..4),
            // As the file system has them: whole blocks, but at the end.
            holes in prop::collection::vec((1_u64..1 << 40, (1_u64..4).prop_map(|blocks| blocks * 512)), 0..5), tail in 0_u64..512,
            sparse in any::<bool>(), symlink in any::<bool>(),
        ) {
            prop_assume!(!path.ends_with(b"/"));
            let mut written = Entry {
                path, mode, uid, gid, mtime: Time { seconds: seconds.into(), nanos }, ..entry()
            };
            written.xattrs = xattrs.into_iter().map(|(name, value)| (name.into_bytes(), value)).collect();
            let mut data = Vec::new();
            if symlink {
                written.kind = EntryType::Symlink;
                written.link = link;
            } else {
                let mut map = Vec::new();
                let mut end = 0;
                let last = holes.len();
                for (n, (hole, length)) in holes.into_iter().enumerate() {
                    let length = if n + 1 == last { length + tail } else { length };
                    map.push((end + hole, length));
                    end += hole + length;
                    data.extend(vec![b'd'; length as usize]);
                }
                written.size = if sparse { end } else { data.len() as u64 };
                written.pieces = (sparse && end > 0).then_some(map);
            }
            let mut archive = headers(&written).unwrap();
            archive.extend(&data);
            archive.resize(archive.len().next_multiple_of(512) + 1024, 0);
            let mut reader = Reader::new(&archive[..]);
            let read = reader.next_entry().unwrap().unwrap();
            let mut content = Vec::new();
            reader.read_to_end(&mut content).unwrap();
            prop_assert!(reader.next_entry().unwrap().is_none());
            prop_assert_eq!(read.kind, if symlink { Kind::Symlink } else { Kind::File });
            prop_assert_eq!((&read.path, &read.link, read.mode), (&written.path, &written.link, written.mode));
            prop_assert_eq!((read.uid, read.gid, read.mtime), (written.uid, written.gid, written.mtime));
            prop_assert_eq!((&read.xattrs, read.size, &read.sparse), (&written.xattrs, written.size, &written.pieces));
            prop_assert_eq!(content, data);
        }
    }
}
