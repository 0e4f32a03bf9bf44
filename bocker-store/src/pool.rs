//! The embedded default: btrfs in a sparse file, for hosts that have no btrfs at the store's place.
//!
//! The file is formatted under another name and renamed when that is done, so a file with the right name is complete.
//! The loop device lets go of the file by itself when the file system is unmounted (autoclear), so nothing is left to
//! detach, also after a crash.
//!
//! Making and undoing hold the lock of [`crate::claims`], for neither the store's directory nor what is mounted there
//! lasts: who comes later waits, then finds what the other one made of it. mkfs.btrfs inherits it and goes on holding it
//! if we are killed, so two of them never write to one file.

#![expect(
    clippy::disallowed_methods,
    reason = "the pool, its mount point and what lies beside it: nothing in the store is touched by path here"
)]

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use bocker_common::entry::Uninterrupted;
use bocker_common::say::{Explain, Said, perform, perform_whole, quote};
use bocker_common::{Error, Kind, Result};
use nix::errno::Errno as Nix;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};

use crate::claims::{Claims, DIRECTORY, Held, gone};
use crate::layer::names;
use crate::names::NAMES;
use crate::store::{LAYERS, NEW, Store, is_btrfs, to_nix};
use crate::{sys, verbs, volumes};

/// 10 GiB, of which the file takes what is written.
pub const DEFAULT_SIZE: u64 = 10 << 30;
/// mkfs.btrfs wants 109 MiB.
const SMALLEST: u64 = 128 << 20;

/// What init and its undoing do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// The store's directory.
    Directory(PathBuf),
    /// A new sparse file of this size in bytes.
    Allocate(PathBuf, u64),
    /// btrfs in it, by this mkfs.btrfs.
    Format(PathBuf, PathBuf),
    /// The file is complete.
    Rename(PathBuf, PathBuf),
    /// The file on a loop device, the device on the directory.
    Mount(PathBuf, PathBuf),
    /// Mode 0700.
    Private(PathBuf),
    /// The file system goes from the directory, the device from the file.
    Unmount(PathBuf),
    /// The file goes.
    Remove(PathBuf),
    /// The empty directory goes.
    RemoveDirectory(PathBuf),
    /// The host's ids: those of this store are free, and if no other store has one the directory goes.
    Forget(Option<PathBuf>),
}

impl Act {
    /// The act that takes this one back.
    fn undo(&self) -> Option<Self> {
        match self {
            Self::Directory(dir) => Some(Self::RemoveDirectory(dir.clone())),
            Self::Allocate(file, _) => Some(Self::Remove(file.clone())),
            Self::Rename(_, file) => Some(Self::Remove(file.clone())),
            Self::Mount(_, dir) => Some(Self::Unmount(dir.clone())),
            _ => None,
        }
    }
}

impl bocker_common::say::Act for Act {
    fn say(&self) -> Said {
        match self {
            Self::Directory(dir) => Said::new(format!("mkdir -m 700 {}", quote(dir)), "the store's place"),
            Self::Allocate(file, size) => Said::new(
                format!("rm -f {0}\n(umask 077; truncate -s {size} {0})", quote(file)),
                "a sparse file: it takes room as it is filled",
            ),
            Self::Format(mkfs, file) => Said::new(
                format!("{} -q -m single {} >/dev/null", quote(mkfs), quote(file)),
                "copies on one device would share its fate, so metadata is kept once",
            ),
            Self::Rename(from, to) => Said::new(format!("mv -T {} {}", quote(from), quote(to)), "formatted: complete"),
            Self::Mount(file, dir) => Said::new(
                format!("mount -t btrfs -o loop,nodev,noatime {} {}", quote(file), quote(dir)),
                "nodev: device nodes of images are only names here; noatime: reading must not unshare blocks",
            ),
            Self::Private(dir) => {
                Said::new(format!("chmod 700 {}", quote(dir)), "images hold setuid programs; nobody else comes in")
            }
            Self::Unmount(dir) => Said::new(format!("umount {}", quote(dir)), "the loop device detaches itself"),
            Self::Remove(file) => Said::new(format!("rm -f {}", quote(file)), "images and containers go with it"),
            Self::RemoveDirectory(dir) => Said::new(format!("rmdir {}", quote(dir)), ""),
            Self::Forget(store) => {
                let rmdir = format!("rmdir --ignore-fail-on-non-empty {DIRECTORY}");
                let shell = match store {
                    Some(store) => format!("find {DIRECTORY} -lname {} -delete\n{rmdir}", quote(store)),
                    None => rmdir,
                };
                Said::new(shell, "which ids are whose on this host; none is this store's any more")
            }
        }
    }
}

/// The store's file, beside its directory.
pub fn file_of(root: &Path) -> PathBuf {
    with_suffix(root, ".btrfs")
}

/// Whether what is mounted at the store's place is its file. Where that cannot be told it is not.
pub(crate) fn is_mounted(root: &Path) -> bool {
    mounted_from(root, &file_of(root)).unwrap_or(false)
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn fail<E: Into<bocker_common::diag::Reason>>(act: &'static str, path: &Path) -> impl FnOnce(E) -> Error {
    let shown = path.display().to_string();
    move |error| Error::new(act, shown, error)
}

fn io_of(errno: Errno) -> io::Error {
    errno.into()
}

/// `10G`, `512MiB`, `2000000000`: powers of 1024.
///
/// # Errors
/// No size, or too small for btrfs.
pub fn parse_size(text: &str) -> std::result::Result<u64, String> {
    let size = parse_size::Config::new().with_binary().parse_size(text).map_err(|e| e.to_string())?;
    if size < SMALLEST { Err("btrfs needs 128M at least".into()) } else { Ok(size) }
}

/// Opens a directory as what is mounted there now; None if it is not there.
fn open_dir(path: &Path) -> Result<Option<OwnedFd>> {
    match rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::NOENT) => Ok(None),
        Err(e) => Err(fail("open", path)(io_of(e))),
    }
}

/// True if btrfs is at the store's place.
///
/// # Errors
/// Its place is no directory.
pub fn ready(root: &Path) -> Result<bool> {
    Ok(open_dir(root)?.is_some_and(is_btrfs))
}

/// True if it is, and nobody else may enter it: init makes it so last.
///
/// # Errors
/// Its place is no directory.
pub fn complete(root: &Path) -> Result<bool> {
    let Some(dir) = open_dir(root)? else { return Ok(false) };
    let stat = rustix::fs::fstat(&dir).map_err(|e| fail("look at", root)(io_of(e)))?;
    Ok(is_btrfs(dir) && stat.st_mode & 0o077 == 0)
}

/// Makes the store if it is not there, mounts it if it is. Returns true if something was done.
///
/// # Errors
/// One line that says what is missing.
pub fn init(root: &Path, size: u64, explain: Explain) -> Result<bool> {
    check_place(root)?;
    if complete(root)? {
        return Ok(false);
    }
    let claims = Claims::default();
    let alone = if explain.dry_run { None } else { Some(claims.lock()?) };
    if complete(root)? {
        // Somebody who does the same was faster.
        return Ok(false);
    }
    let _whole = Uninterrupted::begin();
    let done = plan(root, size)
        .and_then(|plan| perform_whole(&plan, explain, |act| apply(act, alone.as_ref()), Act::undo).map(|()| true));
    // Before a signal ends us, so that no empty directory is left.
    drop(alone);
    done
}

/// The acts that lead from what is there to a mounted store.
fn plan(root: &Path, size: u64) -> Result<Vec<Act>> {
    let file = file_of(root);
    let mut acts = Vec::new();
    match open_dir(root)? {
        Some(dir) if is_btrfs(&dir) => return close(root, &dir),
        Some(dir) if !names(&dir).map_err(|e| fail("list", root)(io_of(e)))?.is_empty() => {
            return Err(fail("mount on", root)("there are files in it").hint("another BOCKER_ROOT"));
        }
        Some(_) => {}
        None => acts.push(Act::Directory(root.to_owned())),
    }
    // On a host whose file system is btrfs the directory is all that is needed.
    if !acts.is_empty() && ready(root.parent().unwrap_or(root))? {
        acts.push(Act::Private(root.to_owned()));
        return Ok(acts);
    }
    let is_new = match std::fs::symlink_metadata(&file) {
        Ok(found) if found.is_file() => false,
        Ok(_) => return Err(fail("use", &file)("it is not a regular file")),
        Err(e) if e.kind() == io::ErrorKind::NotFound => true,
        Err(e) => return Err(fail("look at", &file)(e)),
    };
    if is_new {
        let making = with_suffix(&file, ".new");
        let mkfs = mkfs().ok_or_else(|| Error::plain("init needs btrfs-progs").hint("apt install btrfs-progs"))?;
        acts.push(Act::Allocate(making.clone(), size));
        acts.push(Act::Format(mkfs.to_owned(), making.clone()));
        acts.push(Act::Rename(making, file.clone()));
    }
    acts.push(Act::Mount(file, root.to_owned()));
    acts.push(Act::Private(root.to_owned()));
    Ok(acts)
}

/// Where it is.
pub(crate) fn mkfs() -> Option<&'static Path> {
    let places = ["/usr/sbin/mkfs.btrfs", "/sbin/mkfs.btrfs", "/usr/bin/mkfs.btrfs"];
    places.into_iter().map(Path::new).find(|path| path.exists())
}

/// Refuses places where a store would be in the way.
fn check_place(root: &Path) -> Result<()> {
    if root.parent().is_none() || !root.is_absolute() {
        return Err(fail("use", root)("the store needs a directory of its own"));
    }
    Ok(())
}

/// A btrfs that others may enter: closed if there is nothing of others in it.
fn close(root: &Path, dir: &OwnedFd) -> Result<Vec<Act>> {
    let ours = |name: &Vec<u8>| {
        let name = String::from_utf8_lossy(name);
        name.parse::<bocker_common::Id>().is_ok()
            || name.starts_with(NEW)
            || name == LAYERS
            || name == NAMES
            || name.starts_with(volumes::PREFIX)
    };
    if !names(dir).map_err(|e| fail("list", root)(io_of(e)))?.iter().all(ours) {
        let stat = rustix::fs::fstat(dir).map_err(|e| fail("look at", root)(io_of(e)))?;
        let why = format!("others may enter it, its mode is {:o}", stat.st_mode & 0o7777);
        return Err(fail("use", root)(why).hint(format!("chmod 700 {}", root.display())));
    }
    Ok(vec![Act::Private(root.to_owned())])
}

/// Takes back what init made. A btrfs that it did not make is left alone.
///
/// # Errors
/// A container runs, or something else uses the store.
pub fn undo(root: &Path, explain: Explain) -> Result<()> {
    // Before the lock: what is waited for may need that itself.
    check_undo(root)?;
    let claims = Claims::default();
    let known = claims.exist();
    let alone = if explain.dry_run { None } else { Some(claims.lock()?) };
    let _whole = Uninterrupted::begin();
    let done = plan_undo(root, known).and_then(|plan| perform(&plan, explain, |act| apply(act, alone.as_ref())));
    drop(alone);
    done
}

/// Fails where a container runs, or is being started or cleaned up; the last is waited for.
fn refuse_in_use(root: &Path) -> Result<()> {
    let store = Store::open(root)?;
    store.list(Kind::Container)?.into_iter().try_for_each(|id| verbs::free(&store, id, None).map(drop))
}

/// Fails where [`undo`] would.
///
/// # Errors
/// A container is in use.
pub fn check_undo(root: &Path) -> Result<()> {
    check_place(root)?;
    let is_there = || Ok(ready(root)? && mounted_from(root, &file_of(root))?);
    if !is_there()? {
        return Ok(());
    }
    match refuse_in_use(root) {
        // Who undoes at the same time has come this far.
        Err(_) if !is_there()? => Ok(()),
        answer => answer,
    }
}

fn plan_undo(root: &Path, known: bool) -> Result<Vec<Act>> {
    let (file, making) = (file_of(root), with_suffix(&file_of(root), ".new"));
    let mut acts = Vec::new();
    let mut directory = open_dir(root)?.is_some();
    if ready(root)? {
        if !mounted_from(root, &file)? {
            let _ =
                writeln!(io::stderr(), "bocker-store: {} is a btrfs that init did not make; it stays", root.display());
            return Ok(known.then_some(Act::Forget(None)).into_iter().collect());
        }
        refuse_in_use(root)?;
        acts.push(Act::Unmount(root.to_owned()));
    } else if let Some(dir) = open_dir(root)? {
        directory = names(&dir).map_err(|e| fail("list", root)(io_of(e)))?.is_empty();
    }
    for left in [file, making] {
        if std::fs::symlink_metadata(&left).is_ok() {
            acts.push(Act::Remove(left));
        }
    }
    if directory && !acts.is_empty() {
        acts.push(Act::RemoveDirectory(root.to_owned()));
    }
    if known {
        acts.push(Act::Forget(Some(root.to_owned())));
    }
    Ok(acts)
}

/// True if what is mounted at `root` is on a loop device whose file is `file`, or was it until somebody removed it.
fn mounted_from(root: &Path, file: &Path) -> Result<bool> {
    // In bytes: the names of others' mounts need not be text.
    let table = std::fs::read("/proc/self/mountinfo").map_err(fail("read", Path::new("/proc/self/mountinfo")))?;
    let found = std::fs::metadata(file).ok();
    for line in table.split(|byte| *byte == b'\n') {
        let mut words = line.split(|byte| *byte == b' ');
        if words.nth(4).map(unescape).as_deref() != Some(root.as_os_str().as_bytes()) {
            continue;
        }
        let Some(source) = words.skip_while(|word| *word != b"-").nth(2) else { continue };
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        if let Ok(device) = rustix::fs::open(OsStr::from_bytes(source), flags, Mode::empty())
            && let Ok(info) = sys::loop_status(&device)
            && (found.as_ref().is_some_and(|file| (info.device, info.inode) == (file.dev(), file.ino()))
                || backing_file(&device).is_some_and(|name| name == with_suffix(file, " (deleted)")))
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// What the kernel calls the file of a loop device, sysfs-block-loop; with ` (deleted)` after it if it has no name any more.
fn backing_file(device: &OwnedFd) -> Option<PathBuf> {
    let number = rustix::fs::fstat(device).ok()?.st_rdev;
    let (major, minor) = (rustix::fs::major(number), rustix::fs::minor(number));
    let name = std::fs::read(format!("/sys/dev/block/{major}:{minor}/loop/backing_file")).ok()?;
    Some(OsStr::from_bytes(name.strip_suffix(b"\n")?).into())
}

/// mountinfo writes blanks and backslashes as octal numbers, proc(5).
fn unescape(word: &[u8]) -> Vec<u8> {
    let (mut out, mut bytes) = (Vec::new(), word.iter().copied());
    while let Some(byte) = bytes.next() {
        if byte == b'\\' {
            let value =
                bytes.by_ref().take(3).fold(0_u32, |value, digit| value * 8 + u32::from(digit.wrapping_sub(b'0')));
            out.push(value.to_le_bytes()[0]);
        } else {
            out.push(byte);
        }
    }
    out
}

/// Does it. `alone` is the lock; only a dry run, which does nothing, has none.
fn apply(act: &Act, alone: Option<&Held>) -> Result<()> {
    match act {
        Act::Directory(dir) => {
            use std::os::unix::fs::DirBuilderExt;
            match std::fs::DirBuilder::new().mode(0o700).create(dir) {
                // Somebody who does the same was faster.
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
                // Not made, too: nobody would take it back.
                Err(e) if e.kind() == io::ErrorKind::NotFound => {
                    let parent = dir.parent().unwrap_or(dir).display();
                    Err(fail("create", dir)(e).hint(format!("mkdir -p {parent}")))
                }
                done => done.map_err(fail("create", dir)),
            }
        }
        Act::Allocate(path, size) => {
            // What a crash left under this name is not complete.
            gone(std::fs::remove_file(path)).map_err(fail("remove", path))?;
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let file =
                rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR).map_err(|e| fail("create", path)(io_of(e)))?;
            File::from(file).set_len(*size).map_err(fail("size", path))
        }
        Act::Format(mkfs, path) => format(mkfs, path, alone),
        Act::Rename(from, to) => std::fs::rename(from, to).map_err(fail("rename to", to)),
        Act::Mount(file, dir) => mount(file, dir),
        Act::Private(dir) => rustix::fs::chmod(dir, Mode::RWXU).map_err(|e| fail("chmod", dir)(io_of(e))),
        Act::Unmount(dir) => unmount(dir),
        Act::Remove(path) => gone(std::fs::remove_file(path)).map_err(fail("remove", path)),
        Act::RemoveDirectory(dir) => gone(std::fs::remove_dir(dir)).map_err(fail("remove", dir)),
        Act::Forget(store) => alone.map_or(Ok(()), |held| held.forget(store.as_deref())),
    }
}

/// mkfs.btrfs has no library; it runs by absolute path and with nothing of the caller's environment.
fn format(mkfs: &Path, path: &Path, alone: Option<&Held>) -> Result<()> {
    // It opens the file several times by its name. The lock, which it never looks at, goes with it as its stdin: whoever
    // makes the next file of that name waits until the last mkfs has ended, also where we have been killed before it.
    let lock = alone.map(|held| held.as_fd().try_clone_to_owned()).transpose().map_err(fail("run", mkfs))?;
    let mut command = Command::new(mkfs);
    command.args(["-q", "-m", "single"]).arg(path).env_clear().stdout(Stdio::null());
    command.stdin(lock.map_or_else(Stdio::null, Stdio::from));
    let output = command.stderr(Stdio::piped()).output().map_err(fail("run", mkfs))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let last = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it failed").to_owned();
        return Err(fail("format", path)(last));
    }
    let file = File::open(path).map_err(fail("open", path))?;
    file.sync_all().map_err(fail("sync", path))
}

/// Puts the file on a loop device and mounts that.
///
/// Not nosuid: a container's mount of its rootfs begins as a copy of this one, flags included, and setuid programs must
/// work in it. On the host the directory's mode keeps everybody else away from them.
fn mount(path: &Path, dir: &Path) -> Result<()> {
    let file = File::options().read(true).write(true).open(path).map_err(fail("open", path))?;
    // The device stays open until it is mounted: autoclear would take it away between.
    let (_device, name) = attach(&file, path)?;
    let flags = MountFlags::NODEV | MountFlags::NOATIME;
    rustix::mount::mount(&name, dir, "btrfs", flags, None).map_err(|e| {
        let error = fail("mount", path)(io_of(e));
        if e == Errno::NODEV { error.hint("this kernel has no btrfs") } else { error }
    })
}

/// Whoever only looks at the store is done in a moment, so for half a second we ask again.
fn unmount(dir: &Path) -> Result<()> {
    let mut pause = Duration::from_millis(1);
    loop {
        match rustix::mount::unmount(dir, UnmountFlags::empty()) {
            Err(Errno::BUSY) if pause < Duration::from_millis(500) => {
                std::thread::sleep(pause);
                pause *= 2;
            }
            Err(Errno::BUSY) => {
                let error = fail("unmount", dir)(io_of(Errno::BUSY));
                return Err(error.hint("something still uses it: see fuser -m or lsof"));
            }
            done => return done.map_err(|e| fail("unmount", dir)(io_of(e))),
        }
    }
}

/// The loop device that has the file, or a free one that now has it.
fn attach(file: &File, path: &Path) -> Result<(OwnedFd, String)> {
    let meta = file.metadata().map_err(fail("look at", path))?;
    // Two devices over one file would be two caches of one file system, and its end. Another mount namespace may have it.
    for number in loops() {
        let name = format!("/dev/loop{number}");
        if let Ok(device) = rustix::fs::open(&name, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
            && let Ok(info) = sys::loop_status(&device)
            && (info.device, info.inode) == (meta.dev(), meta.ino())
        {
            return Ok((device, name));
        }
    }
    let control =
        rustix::fs::open("/dev/loop-control", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).map_err(|e| {
            fail("open", Path::new("/dev/loop-control"))(io_of(e)).hint("the kernel's loop module is needed")
        })?;
    let mut direct = sys::LO_DIRECT_IO;
    for _ in 0..100 {
        let number = sys::loop_free(&control).map_err(fail("find", Path::new("a free loop device")))?;
        let name = format!("/dev/loop{number}");
        let device = rustix::fs::open(&name, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty());
        let device = device.map_err(|e| fail("open", Path::new(&name))(io_of(e)))?;
        match sys::loop_configure(&device, file, sys::LO_AUTOCLEAR | direct, path.as_os_str().as_bytes()) {
            Ok(()) => return Ok((device, name)),
            // Somebody took it between the two calls.
            Err(Nix::EBUSY) => {}
            // The file's own file system has no direct I/O (tmpfs before 6.6).
            Err(Nix::EINVAL) if direct != 0 => direct = 0,
            Err(e) => return Err(fail("configure", Path::new(&name))(e)),
        }
    }
    Err(fail("find", Path::new("a free loop device"))(Nix::EBUSY))
}

/// Numbers of the loop devices that there are.
fn loops() -> Vec<u32> {
    let Ok(all) = open_dir(Path::new("/sys/block")).and_then(|dir| {
        dir.map_or(Ok(Vec::new()), |dir| names(&dir).map_err(|e| Error::new("list", "/sys/block", to_nix(e))))
    }) else {
        return Vec::new();
    };
    all.iter().filter_map(|name| std::str::from_utf8(name).ok()?.strip_prefix("loop")?.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(parse_size("10G"), Ok(DEFAULT_SIZE));
        assert_eq!(parse_size("512M"), Ok(512 << 20));
        for text in ["", "1M", "-1", "x", "10Q"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn mountinfo_words() {
        assert_eq!(unescape(br"/var/a\040b\134c"), br"/var/a b\c");
    }
}
