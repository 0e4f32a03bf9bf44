//! What the caller adds to the container's files: directories and files of the host, and memory.
//!
//! `--volume` and `--mount type=bind` are trees, with what is mounted below: cloned from the host once, open_tree(2), before any
//! namespace; shown with the container's users as the root is (see [`crate::userns`]), so that what belongs to user N on the disk
//! belongs to user N inside; and put on a place that is resolved inside the root to a descriptor. No path of the image is ever
//! looked up from the host. The mounts are the host's, as all of the container's are: nothing inside undoes a `ro`.
//!
//! Where docker's ways differ: a source that is not there is an error with `-v`, too (docker makes a directory of root's out of a
//! typo; podman refuses as we do); device nodes in a bind open nothing (but one that is the source itself was asked for by name).

use std::ffi::OsString;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use bocker_common::say::{Said, quote};
use bocker_common::userns::COUNT;
use bocker_common::{Error, Result};
use clap::builder::{OsStringValueParser, TypedValueParser};
use nix::errno::Errno;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, StatxFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen,
    open_tree,
};

use crate::act::{make, place};
use crate::inroot::{Root, errno, no_directory, no_file};
use crate::sys;
use crate::userns::Users;

/// `f_type` of /proc, <linux/magic.h>.
const PROC_MAGIC: i64 = 0x9fa0;

/// What `--hosts` is mounted on.
const HOSTS: &str = "/etc/hosts";

/// The options, as they are typed.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Mounts {
    /// The host's SRC is DST inside; repeatable. OPTS: ro, rw, noidmap, nocopy, z, Z, private, slave, shared (rprivate, … the same)
    #[arg(long, value_name = "SRC:DST[:OPTS]", value_parser = OsStringValueParser::new().try_map(volume))]
    volume: Vec<Asked>,
    /// The same in docker's words: type=bind|tmpfs,source=SRC,target=DST,readonly,…; repeatable
    #[arg(long, value_name = "KEY=VALUE,…", value_parser = OsStringValueParser::new().try_map(mount))]
    mount: Vec<Asked>,
    /// Memory as a directory, empty at first; repeatable. OPTS: size=64m, mode=755, uid=N, gid=N, exec, suid, ro
    #[arg(long, value_name = "DST[:OPTS]", value_parser = OsStringValueParser::new().try_map(tmpfs))]
    tmpfs: Vec<Asked>,
}

/// One mount that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    target: PathBuf,
    what: What,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum What {
    Bind(Bind),
    Tmpfs(Tmpfs),
}

/// A tree of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Bind {
    source: PathBuf,
    read_only: Option<ReadOnly>,
    propagation: Propagation,
    /// With what is mounted below.
    recursive: bool,
    /// With the container's users.
    mapped: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ReadOnly {
    /// Not what is mounted below.
    Top,
    All,
}

/// What becomes of later mounts below the source, mount_namespaces(7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Propagation {
    /// Nothing.
    Private,
    /// They appear inside.
    Slave,
    /// And the container's outside.
    Shared,
}

/// Memory.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Tmpfs {
    attributes: MountAttrFlags,
    /// As the kernel has them, tmpfs(5); uid and gid the container's.
    options: Vec<(&'static str, String)>,
}

const RDONLY: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_RDONLY;
const NOSUID: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NOSUID;
const NODEV: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NODEV;
const NOEXEC: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NOEXEC;

impl Bind {
    fn new(source: PathBuf) -> Self {
        Self { source, read_only: None, propagation: Propagation::Private, recursive: true, mapped: true }
    }
}

impl Tmpfs {
    /// As docker has it.
    fn new() -> Self {
        Self { attributes: NOSUID | NODEV | NOEXEC, options: vec![("mode", "1777".to_owned())] }
    }

    fn set(&mut self, key: &'static str, value: String) {
        self.options.retain(|(had, _)| *had != key);
        self.options.push((key, value));
    }

    /// Where the container's root is `owner` on the host.
    fn options(&self, owner: u32) -> Vec<(&'static str, String)> {
        let mut options = self.options.clone();
        for key in ["uid", "gid"] {
            let own = |value: &String| value.parse::<u32>().unwrap_or(0);
            let id = self.options.iter().find(|(had, _)| *had == key).map_or(0, |(_, value)| own(value));
            options.retain(|(had, _)| *had != key);
            options.push((key, (owner + id).to_string()));
        }
        options
    }

    fn shell(&self, owner: u32) -> String {
        let flags = [(RDONLY, "ro"), (NOSUID, "nosuid"), (NODEV, "nodev"), (NOEXEC, "noexec")];
        let flags =
            flags.iter().filter(|(flag, _)| self.attributes.contains(*flag)).map(|(_, name)| (*name).to_owned());
        let own = self.options(owner).into_iter().map(|(key, value)| format!("{key}={value}"));
        flags.chain(own).collect::<Vec<_>>().join(",")
    }

    fn detached(&self, owner: u32) -> rustix::io::Result<OwnedFd> {
        let fs = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_set_string(&fs, "source", "tmpfs")?;
        for (key, value) in self.options(owner) {
            fsconfig_set_string(&fs, key, value)?;
        }
        fsconfig_create(&fs)?;
        fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, self.attributes)
    }
}

/// The reason for which words make no sense.
type Nonsense = String;

fn absolute(path: &[u8], what: &str) -> Result<PathBuf, Nonsense> {
    if path.starts_with(b"/") && !path.contains(&0) {
        Ok(PathBuf::from(OsString::from_vec(path.to_vec())))
    } else {
        Err(format!("{what} is no absolute path"))
    }
}

/// Where it goes, as far as words tell: `/` and /proc are not to be had.
fn target(path: &[u8]) -> Result<PathBuf, Nonsense> {
    let path = absolute(path, "the place inside")?;
    forbidden(&path).map_or(Ok(path), |why| Err(why.to_owned()))
}

/// `/` is the image, /dev and /proc are what the walls stand on, CVE-2019-16884.
fn forbidden(path: &Path) -> Option<&'static str> {
    if path.starts_with("/proc") {
        Some("nothing is mounted on or in /proc")
    } else if path == Path::new("/dev") {
        Some("/dev is the container's own: name what is needed of it")
    } else {
        (path.components().count() < 2).then_some("/ is the image")
    }
}

fn text(bytes: &[u8]) -> Result<&str, Nonsense> {
    std::str::from_utf8(bytes).map_err(|_| format!("'{}' is no option", String::from_utf8_lossy(bytes)))
}

fn propagation(word: &str) -> Option<Propagation> {
    // What is mounted below goes along: left as it is, it would be shared with the host.
    match word {
        "private" | "rprivate" => Some(Propagation::Private),
        "slave" | "rslave" => Some(Propagation::Slave),
        "shared" | "rshared" => Some(Propagation::Shared),
        _ => None,
    }
}

/// `SRC:DST[:OPTS]`
fn volume(word: OsString) -> Result<Asked, Nonsense> {
    let bytes = word.as_bytes();
    let parts: Vec<&[u8]> = bytes.split(|byte| *byte == b':').collect();
    let (source, at, options) = match parts[..] {
        [source, at] => (source, at, &b""[..]),
        [source, at, options] => (source, at, options),
        _ => return Err("SRC:DST or SRC:DST:OPTS; --mount knows paths with a colon".to_owned()),
    };
    let mut bind = Bind::new(absolute(source, "the source")?);
    let (mut access, mut asked) = (None, None);
    for option in options.split(|byte| *byte == b',').filter(|option| !option.is_empty()) {
        let option = text(option)?;
        match option {
            "ro" | "rro" | "rw" => {
                let read_only = (option != "rw").then_some(ReadOnly::All);
                if access.replace(read_only).is_some_and(|had| had != read_only) {
                    return Err("ro and rw".to_owned());
                }
            }
            "noidmap" => bind.mapped = false,
            // bocker-store's; SELinux's.
            "nocopy" | "z" | "Z" => {}
            _ => {
                let found = propagation(option).ok_or_else(|| format!("'{option}' is no option of a mount"))?;
                if asked.replace(found).is_some_and(|had| had != found) {
                    return Err("two kinds of propagation".to_owned());
                }
            }
        }
    }
    bind.read_only = access.flatten();
    bind.propagation = asked.unwrap_or(Propagation::Private);
    Ok(Asked { target: target(at)?, what: What::Bind(bind) })
}

/// `DST[:OPTS]`
fn tmpfs(word: OsString) -> Result<Asked, Nonsense> {
    let bytes = word.as_bytes();
    let end = bytes.iter().position(|byte| *byte == b':').unwrap_or(bytes.len());
    let mut tmpfs = Tmpfs::new();
    let options = bytes.get(end + 1..).unwrap_or_default();
    for option in options.split(|byte| *byte == b',').filter(|option| !option.is_empty()) {
        let option = text(option)?;
        let (key, value) = option.split_once('=').unwrap_or((option, ""));
        let id = || value.parse::<u32>().map(|id| id.to_string()).map_err(|_| format!("{key}: '{value}' is no number"));
        match (key, value.is_empty()) {
            ("rw", true) => tmpfs.attributes -= RDONLY,
            ("ro", true) => tmpfs.attributes |= RDONLY,
            ("exec", true) => tmpfs.attributes -= NOEXEC,
            ("noexec", true) => tmpfs.attributes |= NOEXEC,
            ("suid", true) => tmpfs.attributes -= NOSUID,
            ("nosuid", true) => tmpfs.attributes |= NOSUID,
            ("nodev", true) => {}
            ("size", false) => tmpfs.set("size", amount(value)?),
            ("nr_inodes", false) => tmpfs.set("nr_inodes", amount(value)?),
            ("mode", false) => tmpfs.set("mode", mode(value)?),
            ("uid", false) => tmpfs.set("uid", id()?),
            ("gid", false) => tmpfs.set("gid", id()?),
            _ => return Err(format!("'{option}' is no option of a tmpfs")),
        }
    }
    Ok(Asked { target: target(&bytes[..end])?, what: What::Tmpfs(tmpfs) })
}

/// Bytes, or with k, m, g, t; docker's `64MB` and `64MiB`, too. As the kernel reads it: `64m`.
fn amount(value: &str) -> Result<String, Nonsense> {
    let wrong = || format!("'{value}' is no size: 64m, 1g");
    let lower = value.to_ascii_lowercase();
    let number = lower.strip_suffix("ib").or_else(|| lower.strip_suffix('b')).unwrap_or(&lower);
    let digits = number.strip_suffix(['k', 'm', 'g', 't', '%']).unwrap_or(number);
    // 0 would be no limit at all.
    match digits.parse::<u64>() {
        Ok(1..) if digits.bytes().all(|byte| byte.is_ascii_digit()) => Ok(number.to_owned()),
        _ => Err(wrong()),
    }
}

fn mode(value: &str) -> Result<String, Nonsense> {
    match u32::from_str_radix(value, 8) {
        Ok(bits @ 0..=0o7777) => Ok(format!("{bits:o}")),
        _ => Err(format!("'{value}' is no mode: 1777, 755")),
    }
}

/// `type=bind,source=SRC,target=DST,…`, docker's CSV.
fn mount(word: OsString) -> Result<Asked, Nonsense> {
    let (mut kind, mut source, mut at) = (None, None, None);
    let (mut read_only, mut below, mut found) = (false, None, Propagation::Private);
    let (mut bind_only, mut tmpfs_only) = (None, None);
    let mut bind = Bind::new(PathBuf::new());
    let mut tmpfs = Tmpfs::new();
    for field in fields(word.as_bytes())? {
        let end = field.iter().position(|byte| *byte == b'=');
        let (key, value) = (text(&field[..end.unwrap_or(field.len())])?, end.map(|end| &field[end + 1..]));
        let word = || value.ok_or_else(|| format!("{key} needs a value")).and_then(text);
        if key.starts_with("bind-") {
            bind_only = Some(key.to_owned());
        } else if key.starts_with("tmpfs-") {
            tmpfs_only = Some(key.to_owned());
        }
        match key {
            "type" => kind = Some(word()?.to_owned()),
            "source" | "src" => source = Some(value.unwrap_or_default().to_vec()),
            "target" | "dst" | "destination" => at = Some(value.unwrap_or_default().to_vec()),
            "readonly" | "ro" => read_only = truth(key, value)?,
            "bind-propagation" => {
                let word = word()?;
                found = propagation(word).ok_or_else(|| format!("'{word}' is no propagation"))?;
            }
            "bind-nonrecursive" if truth(key, value)? => below = Some("disabled".to_owned()),
            "bind-recursive" => below = Some(word()?.to_owned()),
            "tmpfs-size" => tmpfs.set("size", amount(word()?)?),
            "tmpfs-mode" => tmpfs.set("mode", mode(word()?)?),
            "noidmap" => bind.mapped = !truth(key, value)?,
            // macOS's; bocker-store's.
            "consistency" | "volume-nocopy" | "bind-nonrecursive" => {}
            _ => return Err(format!("'{key}' is no part of a mount")),
        }
    }
    let target = target(&at.ok_or("target is missing")?)?;
    let kind = kind.as_deref().unwrap_or("volume");
    match (kind, bind_only, tmpfs_only) {
        ("tmpfs", Some(key), _) | ("bind" | "volume", _, Some(key)) => {
            return Err(format!("{key} is nothing of type={kind}"));
        }
        _ => {}
    }
    match kind {
        "tmpfs" if source.is_some() => return Err("a tmpfs has no source".to_owned()),
        "tmpfs" => {
            tmpfs.attributes.set(RDONLY, read_only);
            return Ok(Asked { target, what: What::Tmpfs(tmpfs) });
        }
        "bind" | "volume" => {}
        _ => return Err(format!("type={kind}: bind, volume or tmpfs")),
    }
    // A volume's name is nothing that this program knows.
    bind.source = absolute(&source.ok_or("source is missing")?, "the source")?;
    bind.propagation = found;
    bind.read_only = read_only.then_some(ReadOnly::All);
    match below.as_deref() {
        None | Some("enabled") => {}
        Some("disabled") => bind.recursive = false,
        Some("writable") => bind.read_only = read_only.then_some(ReadOnly::Top),
        // What is mounted there later would not be.
        Some("readonly") if read_only && found == Propagation::Private => {}
        Some("readonly") => {
            return Err("bind-recursive=readonly needs readonly and bind-propagation=rprivate".to_owned());
        }
        Some(other) => return Err(format!("bind-recursive={other}: enabled, disabled, writable or readonly")),
    }
    Ok(Asked { target, what: What::Bind(bind) })
}

fn truth(key: &str, value: Option<&[u8]>) -> Result<bool, Nonsense> {
    match value {
        None | Some(b"1" | b"true") => Ok(true),
        Some(b"0" | b"false") => Ok(false),
        Some(other) => Err(format!("{key}={}: true or false", String::from_utf8_lossy(other))),
    }
}

/// The fields of a line of CSV, RFC 4180: `"a,b",c` has two.
fn fields(line: &[u8]) -> Result<Vec<Vec<u8>>, Nonsense> {
    let mut all = vec![Vec::new()];
    let (mut quoted, mut bytes) = (false, line.iter().copied().peekable());
    while let Some(byte) = bytes.next() {
        let starts = all.last().is_some_and(Vec::is_empty);
        match byte {
            b'"' if quoted && bytes.peek() == Some(&b'"') => {
                bytes.next();
                all.last_mut().into_iter().for_each(|field| field.push(byte));
            }
            b'"' if quoted => {
                quoted = false;
                if !matches!(bytes.peek(), None | Some(b',')) {
                    return Err("a quote in the middle".to_owned());
                }
            }
            b'"' if starts => quoted = true,
            b',' if !quoted => all.push(Vec::new()),
            _ => all.last_mut().into_iter().for_each(|field| field.push(byte)),
        }
    }
    if quoted { Err("a quote that does not end".to_owned()) } else { Ok(all) }
}

/// What a mount brings, opened.
#[derive(Debug)]
pub struct Source {
    asked: Asked,
    kind: FileType,
    /// Device nodes in it open nothing.
    nodev: bool,
    /// None for memory, and when it has been mounted.
    tree: Option<OwnedFd>,
}

impl Mounts {
    /// With a file of `--hosts`, unless something else was asked for at its place. It is not mapped: it lies in a tmpfs, which older
    /// kernels cannot map, and all may read it.
    #[must_use]
    pub fn and_hosts(mut self, file: Option<&Path>) -> Self {
        let taken =
            [&self.volume, &self.mount, &self.tmpfs].into_iter().flatten().any(|one| one.target == Path::new(HOSTS));
        if let Some(file) = file.filter(|_| !taken) {
            let file = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
            let bind = Bind { read_only: Some(ReadOnly::All), mapped: false, ..Bind::new(file) };
            self.volume.push(Asked { target: HOSTS.into(), what: What::Bind(bind) });
        }
        self
    }

    /// Clones the trees of the host and shows them as they will be inside. Attaches nothing.
    ///
    /// # Errors
    /// One line: a source that is not there, a file system that cannot be mapped, propagation that the source does not have.
    pub fn open(&self, users: Option<&Users>, privileged: bool) -> Result<Vec<Source>> {
        let nodev = !privileged;
        let open = |asked: &Asked| {
            let (kind, tree) = match &asked.what {
                What::Bind(bind) => {
                    let (kind, tree) = bind.open(users, nodev)?;
                    (kind, Some(tree))
                }
                What::Tmpfs(tmpfs) => {
                    let outside = |(key, value): &&(&str, String)| {
                        ["uid", "gid"].contains(key) && value.parse().is_ok_and(|id: u32| id >= COUNT)
                    };
                    if let Some((key, id)) = tmpfs.options.iter().find(outside).filter(|_| users.is_some()) {
                        return Err(Error::new(
                            "mount",
                            asked.target.display(),
                            format!("{key}={id} is not the container's"),
                        )
                        .hint("at most 65535, or --userns=host"));
                    }
                    (FileType::Directory, None)
                }
            };
            Ok(Source { asked: asked.clone(), kind, nodev, tree })
        };
        self.volume.iter().chain(&self.mount).chain(&self.tmpfs).map(open).collect()
    }
}

impl Bind {
    /// The tree as a mount that is nowhere yet, and what its root is.
    fn open(&self, users: Option<&Users>, nodev: bool) -> Result<(FileType, OwnedFd)> {
        let fail = |e| Error::new("mount", self.source.display(), errno(e));
        let found = handle(&self.source).map_err(|e| match errno(e) {
            Errno::ENOENT => fail(e).hint("it is not made here: mkdir -p it first"),
            _ => fail(e),
        })?;
        let kind = FileType::from_raw_mode(rustix::fs::fstat(&found).map_err(fail)?.st_mode);
        self.check_propagation(&found)?;
        let mut flags =
            OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
        flags.set(OpenTreeFlags::AT_RECURSIVE, self.recursive);
        let tree = open_tree(&found, "", flags).map_err(fail)?;
        if let Some(users) = users.filter(|_| self.is_mapped(kind)) {
            sys::idmap_all(tree.as_fd(), users.namespace.as_fd()).map_err(|e| self.unmapped(e, users))?;
        }
        // A device that was asked for by name opens. Which ones may be opened is the cgroup's to say, too.
        let mut set = if nodev && !is_device(kind) { NODEV } else { MountAttrFlags::empty() };
        set.set(RDONLY, self.read_only == Some(ReadOnly::All));
        let propagation = match self.propagation {
            Propagation::Private => libc::MS_PRIVATE,
            Propagation::Slave => libc::MS_SLAVE,
            // A clone is its source's peer already.
            Propagation::Shared => 0,
        };
        let fail = |e: Errno| Error::new("mount", self.source.display(), e);
        sys::mount_setattr_all(tree.as_fd(), u64::from(set.bits()), propagation).map_err(fail)?;
        if self.read_only == Some(ReadOnly::Top) {
            sys::mount_setattr(tree.as_fd(), u64::from(RDONLY.bits()), 0, 0).map_err(fail)?;
        }
        Ok((kind, tree))
    }

    /// The devices' file system cannot be mapped, and need not be: who may use one, its mode says.
    fn is_mapped(&self, kind: FileType) -> bool {
        self.mapped && !is_device(kind)
    }

    /// Only what is shared can be followed. As in docker: said, not ignored.
    fn check_propagation(&self, found: &OwnedFd) -> Result<()> {
        let (way, needed): (&str, &[&str]) = match self.propagation {
            Propagation::Private => return Ok(()),
            Propagation::Slave => ("rslave", &["shared:", "master:"]),
            Propagation::Shared => ("rshared", &["shared:"]),
        };
        let fail = |e| Error::new("mount", self.source.display(), errno(e));
        let id = rustix::fs::statx(found, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID).map_err(fail)?.stx_mnt_id;
        let on = table()?.into_iter().find(|mount| mount.id == id);
        if on.as_ref().is_some_and(|on| needed.iter().any(|tag| on.tags.contains(tag))) {
            return Ok(());
        }
        let at = on.map_or_else(|| self.source.clone(), |on| on.point);
        Err(Error::new("mount", self.source.display(), format!("{way}: {} is not shared", at.display()))
            .hint(format!("mount --make-shared {} first", at.display())))
    }

    /// Why the tree has no owners for the container: the first mount in it that cannot be mapped by itself.
    #[expect(clippy::disallowed_methods, reason = "the user's path, for a message")]
    fn unmapped(&self, error: Errno, users: &Users) -> Error {
        let source = std::fs::canonicalize(&self.source).unwrap_or_else(|_| self.source.clone());
        let below = |mount: &&Entry| self.recursive && mount.point.starts_with(&source);
        let mounts = table().unwrap_or_default();
        let refuses = |at: &Path| {
            let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
            let tree = open_tree(rustix::fs::CWD, at, flags);
            tree.is_ok_and(|tree| sys::idmap_all(tree.as_fd(), users.namespace.as_fd()).is_err())
        };
        let on =
            || mounts.iter().filter(|mount| source.starts_with(&mount.point)).max_by_key(|m| m.point.as_os_str().len());
        let culprit = if refuses(&source) { on() } else { mounts.iter().filter(below).find(|m| refuses(&m.point)) };
        let reason = match (error, culprit) {
            (Errno::EINVAL, Some(at)) => format!("{}, a {}, cannot be mapped", at.point.display(), at.kind),
            (Errno::EPERM, Some(at)) => format!("{} is mapped already", at.point.display()),
            _ => format!("its file system cannot be mapped: {}", error.desc()),
        };
        Error::new("map the owners of", self.source.display(), reason)
            .hint("noidmap mounts it as it is, its files nobody's; --userns=host does without")
    }
}

fn is_device(kind: FileType) -> bool {
    matches!(kind, FileType::CharacterDevice | FileType::BlockDevice)
}

#[expect(clippy::disallowed_methods, reason = "the user's path, looked up as the user would")]
fn handle(path: &Path) -> rustix::io::Result<OwnedFd> {
    rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
}

/// A line of mountinfo, proc(5).
#[derive(Debug, PartialEq, Eq)]
struct Entry {
    id: u64,
    point: PathBuf,
    /// `shared:N master:N`
    tags: String,
    kind: String,
}

#[expect(clippy::disallowed_methods, reason = "/proc of the host")]
fn table() -> Result<Vec<Entry>> {
    let table = std::fs::read("/proc/self/mountinfo").map_err(|e| Error::new("read", "/proc/self/mountinfo", e))?;
    Ok(table.split(|byte| *byte == b'\n').filter_map(entry).collect())
}

fn entry(line: &[u8]) -> Option<Entry> {
    let words: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
    let end = words.iter().position(|word| *word == b"-")?;
    let text = |word: &[u8]| String::from_utf8_lossy(word).into_owned();
    Some(Entry {
        id: text(words.first()?).parse().ok()?,
        point: unescaped(words.get(4)?),
        tags: text(&words.get(6..end)?.join(&b' ')),
        kind: text(words.get(end + 1)?),
    })
}

/// Blanks and backslashes are octal there.
fn unescaped(word: &[u8]) -> PathBuf {
    let (mut out, mut left) = (Vec::new(), word);
    while let Some((&byte, rest)) = left.split_first() {
        let code = rest.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        match code.and_then(|digits| u8::from_str_radix(digits, 8).ok()).filter(|_| byte == b'\\') {
            Some(code) => {
                out.push(code);
                left = &rest[3..];
            }
            None => {
                out.push(byte);
                left = rest;
            }
        }
    }
    PathBuf::from(OsString::from_vec(out))
}

/// The act: one of the sources on its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attach {
    /// Which of the sources.
    number: usize,
    asked: Asked,
    /// Of the source.
    kind: FileType,
    nodev: bool,
    /// Whether the shell maps it.
    mapped: bool,
    /// The place without links, as far as the image tells, for the shell, which would follow them on the host.
    real: PathBuf,
    /// Whose the container's root is on the host.
    owner: u32,
}

/// The acts, before and after the container's own files and file systems: /etc as a volume gets our resolv.conf as the image's would, and /dev/shm
/// goes over ours.
///
/// # Errors
/// One line: two on one place; a place that is not to be had.
pub fn plan(sources: &[Source], root: &Root, users: Option<u32>, ours: &[&str]) -> Result<(Vec<Attach>, Vec<Attach>)> {
    let (mut early, mut late) = (Vec::<Attach>::new(), Vec::<Attach>::new());
    let mut taken: Vec<PathBuf> = Vec::new();
    let ours: Vec<PathBuf> = ours.iter().filter_map(|at| root.canonical(at).ok()).collect();
    for (number, source) in sources.iter().enumerate() {
        let Asked { target, what } = &source.asked;
        let fail = |why: &str| Error::new("mount on", target.display(), why);
        let real = root.canonical(target).map_err(|e| Error::new("mount on", target.display(), e))?;
        if let Some(why) = forbidden(&real) {
            return Err(fail(why));
        }
        if taken.contains(&real) {
            return Err(fail("two mounts on one place"));
        }
        taken.push(real.clone());
        let mapped = users.is_some() && matches!(what, What::Bind(bind) if bind.is_mapped(source.kind));
        let group = if real.starts_with("/dev") || real.starts_with("/sys") || ours.contains(&real) {
            &mut late
        } else {
            &mut early
        };
        group.push(Attach {
            number,
            asked: source.asked.clone(),
            kind: source.kind,
            nodev: source.nodev,
            mapped,
            real,
            owner: users.unwrap_or(0),
        });
    }
    // What is mounted in another comes after it.
    for group in [&mut early, &mut late] {
        group.sort_by_key(|attach| attach.real.components().count());
    }
    Ok((early, late))
}

impl Attach {
    pub(crate) fn apply(&self, root: &Root, sources: &mut [Source]) -> Result<()> {
        let fail = |e: Errno| Error::new("mount on", self.asked.target.display(), e);
        let mount = match &self.asked.what {
            What::Tmpfs(tmpfs) => tmpfs.detached(self.owner).map_err(|e| fail(errno(e)))?,
            What::Bind(_) => {
                sources.get_mut(self.number).and_then(|source| source.tree.take()).ok_or_else(|| fail(Errno::EBADF))?
            }
        };
        place(&mount, &self.place(root)?).map_err(|e| fail(errno(e)))
    }

    fn is_file(&self) -> bool {
        self.kind != FileType::Directory
    }

    /// The place as a descriptor: whatever is renamed from here on, the mount is where this was found, in the root.
    fn place(&self, root: &Root) -> Result<OwnedFd> {
        let fail = |why| Error::new("mount on", self.asked.target.display(), why);
        let at = &self.asked.target;
        let found = if self.is_file() {
            // Over whatever is no directory: a device, a socket.
            match root.open(at, OFlags::PATH) {
                Err(Errno::ENOENT) => root.file(at),
                found => found,
            }
            .map_err(|e| fail(no_file(e)))?
        } else {
            root.directory(at, None).map_err(|e| fail(no_directory(e)))?
        };
        let stat = |fd: &OwnedFd| rustix::fs::fstat(fd).map_err(|e| fail(errno(e).into()));
        let here = stat(&found)?;
        if self.is_file() && FileType::from_raw_mode(here.st_mode) == FileType::Directory {
            return Err(fail(no_file(Errno::EISDIR)));
        }
        // Again, for what the plan saw may have been replaced, by a link to them.
        for taken in ["/", "/dev"] {
            if let Ok(taken) = root.open(taken, OFlags::PATH) {
                let taken = stat(&taken)?;
                if (taken.st_dev, taken.st_ino) == (here.st_dev, here.st_ino) {
                    return Err(fail("a link of the image's leads to / or /dev".into()));
                }
            }
        }
        match rustix::fs::fstatfs(&found) {
            Ok(fs) if fs.f_type == PROC_MAGIC => Err(fail("a link of the image's leads into /proc".into())),
            Ok(_) => Ok(found),
            Err(e) => Err(fail(errno(e).into())),
        }
    }

    pub(crate) fn say(&self) -> Said {
        let below = |path: &Path| quote(Path::new(".").join(path.strip_prefix("/").unwrap_or(path)));
        let at = below(&self.real);
        let mapped = self.owner != 0;
        let made = if self.is_file() {
            let parent = below(self.real.parent().unwrap_or(Path::new("/")));
            let touch = make(mapped, &format!("touch {at}"));
            format!("{}\n[ -e {at} ] || {touch}", make(mapped, &format!("mkdir -p {parent}")))
        } else {
            make(mapped, &format!("mkdir -p {at}"))
        };
        let full = format!("\"$(pwd -P)\"{}", quote(&self.real));
        let made = format!("{made}\n[ \"$(readlink -f {at})\" = {full} ]");
        match &self.asked.what {
            What::Tmpfs(tmpfs) => Said::new(
                format!("{made}\nmount -t tmpfs -o {} tmpfs {at}", tmpfs.shell(self.owner)),
                "memory, gone with the container",
            ),
            What::Bind(bind) => {
                let (how, mut why) = (if bind.recursive { "rbind" } else { "bind" }, String::new());
                let source = quote(&bind.source);
                let mut shell = if self.mapped {
                    why += "owners as the container's users have them (util-linux 2.39); ";
                    format!("{made}\n\"$mount\" --{how} -o X-mount.idmap=/proc/self/fd/6 {source} {at}")
                } else {
                    format!("{made}\nmount -o {how} {source} {at}")
                };
                shell += &self.said_attributes(bind, &full);
                if bind.propagation != Propagation::Private {
                    shell = "echo 'rslave and rshared take open_tree(2): no command of this namespace has the host'\\''s mount' >&2\nexit 125"
                        .to_owned();
                }
                why += "the host's tree, at a place that is looked up inside the image only";
                Said::new(shell, why)
            }
        }
    }

    /// A remount replaces what a mount had, so that is read first; and it is for one mount only.
    fn said_attributes(&self, bind: &Bind, full: &str) -> String {
        let nodev = if self.nodev && !is_device(self.kind) { ",nodev" } else { "" };
        let one = |below: &str, add: &str| {
            format!(
                "\nmounts=$(findmnt {below}nlo TARGET -M {full})\nprintf '%s\\n' \"$mounts\" | while read -r at; do \
                 mount -o \"remount,bind,$(findmnt -d backward -fno VFS-OPTIONS -M \"$at\"){add}\" \"$at\"; done"
            )
        };
        let mut shell = String::new();
        let all = if bind.read_only == Some(ReadOnly::All) { format!("{nodev},ro") } else { nodev.to_owned() };
        if !all.is_empty() {
            shell += &one("-R", &all);
        }
        if bind.read_only == Some(ReadOnly::Top) {
            shell += &one("-", &format!("{nodev},ro"));
        }
        shell
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bind(asked: Result<Asked, Nonsense>) -> (PathBuf, Bind) {
        match asked.unwrap() {
            Asked { target, what: What::Bind(bind) } => (target, bind),
            other => panic!("{other:?}"),
        }
    }

    fn memory(asked: Result<Asked, Nonsense>, owner: u32) -> String {
        match asked.unwrap().what {
            What::Tmpfs(tmpfs) => tmpfs.shell(owner),
            other @ What::Bind(_) => panic!("{other:?}"),
        }
    }

    #[test]
    fn volumes() {
        let plain = Bind::new("/a b".into());
        assert_eq!(bind(volume("/a b:/c".into())), ("/c".into(), plain.clone()));
        let read_only = Bind { read_only: Some(ReadOnly::All), ..plain.clone() };
        assert_eq!(bind(volume("/a b:/c:ro,z,nocopy".into())).1, read_only);
        assert_eq!(bind(volume("/a b:/c:rro".into())).1, read_only);
        let slave = Bind { propagation: Propagation::Slave, mapped: false, ..plain };
        assert_eq!(bind(volume("/a b:/c:rw,rslave,noidmap".into())).1, slave);
        for wrong in [
            "",
            "/a",
            "/a:",
            ":/a",
            "a:/c",
            "/a:c",
            "/a:/c:ro:rw",
            "/a:/c:ro,rw",
            "/a:/c:rslave,rshared",
            "/a:/c:exec",
            "/a:/",
            "/a:/.",
            "/a:/proc",
            "/a:/proc/sys",
            "/a:/dev",
            "/a:/dev/",
        ] {
            assert!(volume(wrong.into()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn mounts_in_dockers_words() {
        let plain = Bind::new("/a".into());
        for words in [
            "type=bind,source=/a,target=/c",
            "type=bind,src=/a,dst=/c,readonly=false",
            "type=volume,src=/a,destination=/c,volume-nocopy",
            "src=/a,dst=/c,bind-recursive=enabled,consistency=cached",
        ] {
            assert_eq!(bind(mount(words.into())), ("/c".into(), plain.clone()), "{words}");
        }
        let with = |words: &str| bind(mount(format!("type=bind,src=/a,dst=/c,{words}").into())).1;
        assert_eq!(with("ro"), Bind { read_only: Some(ReadOnly::All), ..plain.clone() });
        assert_eq!(with("readonly=1,bind-recursive=writable").read_only, Some(ReadOnly::Top));
        assert_eq!(with("ro,bind-recursive=readonly").read_only, Some(ReadOnly::All));
        assert!(!with("bind-recursive=disabled").recursive);
        assert!(!with("bind-nonrecursive").recursive);
        assert_eq!(with("bind-propagation=rshared").propagation, Propagation::Shared);
        assert_eq!(bind(mount(r#"type=bind,"src=/a,""b",dst=/c"#.into())).1.source, Path::new("/a,\"b"));
        for wrong in [
            "",
            "type=bind",
            "type=bind,src=/a",
            "type=bind,dst=/c",
            "type=bind,src=a,dst=/c",
            "type=image,src=/a,dst=/c",
            "type=volume,src=name,dst=/c",
            "type=tmpfs,src=/a,dst=/c",
            "type=bind,src=/a,dst=/c,tmpfs-size=1m",
            "type=tmpfs,dst=/c,bind-propagation=rslave",
            "type=bind,src=/a,dst=/c,ro=perhaps",
            "type=bind,src=/a,dst=/c,new",
            "type=bind,src=/a,dst=/c,bind-recursive=readonly",
            r#"type=bind,"src=/a,dst=/c"#,
            r#"type=bind,"src=/a"b,dst=/c"#,
        ] {
            assert!(mount(wrong.into()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn memory_as_docker_has_it() {
        assert_eq!(memory(tmpfs("/t".into()), 0), "nosuid,nodev,noexec,mode=1777,uid=0,gid=0");
        assert_eq!(
            memory(tmpfs("/t:rw,exec,size=64M,mode=0700,uid=7".into()), 1 << 16),
            "nosuid,nodev,size=64m,mode=700,uid=65543,gid=65536"
        );
        assert_eq!(
            memory(mount("type=tmpfs,dst=/t,tmpfs-size=1GiB,tmpfs-mode=755,ro".into()), 0),
            "ro,nosuid,nodev,noexec,size=1g,mode=755,uid=0,gid=0"
        );
        for wrong in [
            "",
            "t",
            "/t:size",
            "/t:size=",
            "/t:size=0",
            "/t:size=-1",
            "/t:mode=8",
            "/t:mode=10000",
            "/t:ro=1",
            "/t:dev",
            "/t:uid=x",
        ] {
            assert!(tmpfs(wrong.into()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn lines_of_mountinfo() {
        let line = b"36 35 98:0 /mnt1 /mnt\\040two\\134 rw,noatime shared:1 master:7 - ext3 /dev/root rw";
        let entry = entry(line).unwrap();
        assert_eq!((entry.id, entry.point.as_path(), entry.kind.as_str()), (36, Path::new("/mnt two\\"), "ext3"));
        assert_eq!(entry.tags, "shared:1 master:7");
    }
}
