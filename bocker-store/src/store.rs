//! The store: a btrfs directory whose subvolumes are images, containers and layers, and the acts that change it.
//!
//! Whatever is made is made under a name that begins with `.new_` and renamed when it is complete, so what has an id is
//! whole. While it is being made its directory is locked (flock(2)): what is left over by a crash has no lock, and
//! [`Store::sweep`] finds it.

use std::collections::HashMap;
use std::fmt::Display;
use std::fs::File;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use bocker_common::id::{FIRST, HIGHEST, LAST};
use bocker_common::say::{Explain, Said, perform, quote, tell};
use bocker_common::{Error, Id, Kind, Result};
use nix::errno::Errno as Nix;
use rustix::fs::{AtFlags, FileType, FlockOperation, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use crate::called::{self, Name};
use crate::claims::{self, Claims};
use crate::fill;
use crate::layer::{Budget, failed, is_dir, lstat, names};
use crate::names;
use crate::oci::Digest;
use crate::pool;
use crate::reference::Reference;
use crate::remember;
use crate::room::Room;
use crate::sys;
use crate::update;
use crate::volumes::{self, DATA, Volume};

/// `BTRFS_SUPER_MAGIC`, linux/magic.h
const BTRFS: u32 = 0x9123_683E;
/// The inode of every subvolume's root directory.
pub(crate) const SUBVOLUME_ROOT: u64 = 256;
/// What begins with this is not complete.
pub const NEW: &str = ".new_";
/// The directory of the layers.
pub const LAYERS: &str = "layers";
/// A layer's file that says which blob it came from and which layer is below: digest, chain id or `-`.
pub(crate) const ORIGIN: &str = "origin";
/// Bytes read of a text file for a listing, at most.
const MAX_TEXT: u64 = 4 << 20;

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// An open store.
#[derive(Debug)]
pub struct Store {
    /// Its absolute path.
    pub path: PathBuf,
    dir: OwnedFd,
    /// Which ids are whose on this host.
    pub claims: Claims,
    /// Whether something was.
    deleted: AtomicBool,
}

/// What was deleted the kernel frees within half a minute. In a store with little room that is done now, if it can be: after
/// all else, for as long as a file is open in it nothing is freed.
impl Drop for Store {
    fn drop(&mut self) {
        if self.deleted.load(Ordering::Relaxed)
            && let Ok(room) = self.room()
            && room.is_short()
        {
            // What was to be deleted is, all the same.
            let _ = room.free();
        }
    }
}

/// One change of the store. Names are relative to it and ours, so they are safe in a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// An empty subvolume.
    Subvolume(String),
    /// A writable snapshot of the first as the second.
    Snapshot(String, String),
    /// The host's ids: this container's is ours; done by who makes it.
    Claim(Id),
    /// And no longer, if it was ours.
    Release(Id),
    /// A directory.
    Directory(String),
    /// A small file with this text.
    Write(String, Vec<u8>),
    /// A copy of a directory of the host.
    Copy(PathBuf, String),
    /// What the tar archive on stdin holds, into the directory; done by who reads it.
    Extract(String),
    /// Files that go, if they are there.
    Forget(Vec<String>),
    /// A layer's blob, applied to the subvolume; done by who reads it.
    Layer(String, String),
    /// The subvolume becomes read-only; done by who made it.
    Seal(String),
    /// What an OCI layout on stdin holds, in words only: what it is shows while it is read.
    Unpack(String),
    /// All data to the disk.
    Sync,
    /// The first name becomes the second, which must be free.
    Publish(String, String),
    /// The two names change places.
    Exchange(String, String),
    /// A subvolume goes, after those inside it, which are given by id, leaves first.
    Delete(String, Vec<u64>),
    /// The image gets the name, and whoever had it loses it; the names are held.
    Tie(Reference, Id),
    /// The name goes; the names are held.
    Untie(Reference),
    /// The container has the name from now on, and nobody else.
    Call(Name, Id),
    /// The container's file with its name, in one step.
    Name(Id, Name),
    /// A file of what the container remembers, of that name, in one step.
    Remember(Id, &'static str, Vec<u8>),
    /// A name that no container has any more is free.
    Uncall(Name),
    /// A volume, unless it is there.
    Volume(Volume),
    /// An empty volume gets what is at the path in the root file system of the container that is being made.
    Fill(Volume, String, String),
    /// What a crash left of filling a volume goes, or goes on.
    Settle(Volume),
    /// The line on stdout.
    Print(Id),
    /// Another line there.
    Line(String),
}

/// A step in a certain store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Act {
    root: PathBuf,
    step: Step,
}

impl Act {
    /// What it does.
    pub fn step(&self) -> &Step {
        &self.step
    }
}

impl bocker_common::say::Act for Act {
    fn say(&self) -> Said {
        let at = |name: &str| quote(self.root.join(name));
        match &self.step {
            Step::Subvolume(name) => Said::new(
                format!("btrfs subvolume create {} >/dev/null", at(name)),
                "an empty subvolume; the name is the claim",
            ),
            Step::Snapshot(of, name) => Said::new(
                format!("btrfs subvolume snapshot {} {} >/dev/null", at(of), at(name)),
                "a writable copy that shares every block; the name is the claim",
            ),
            Step::Claim(id) => Said::new(
                format!(
                    "mkdir -p -m 700 {0}\n[ -e {0}/{id}/{id} ] || rm -f {0}/{id}\nln -s {1} {0}/{id}",
                    claims::DIRECTORY,
                    quote(&self.root)
                ),
                "names and address follow from the number alone: on this host the id is this store's",
            ),
            Step::Release(id) => Said::new(
                format!("[ ! {0}/{id} -ef {1} ] || rm -f {0}/{id}", claims::DIRECTORY, quote(&self.root)),
                "the id is free again",
            ),
            Step::Directory(name) => Said::new(format!("mkdir {}", at(name)), "what becomes the container's /"),
            Step::Write(name, bytes) => {
                let text = String::from_utf8_lossy(bytes);
                let (format, text) = text.strip_suffix('\n').map_or(("%s", &*text), |line| ("%s\\n", line));
                Said::new(
                    format!("printf '{format}' {} > {}", quote(text), at(name)),
                    "beside rootfs, so out of the container's reach",
                )
            }
            Step::Copy(from, to) => Said::new(
                format!("cp -a --reflink=auto {}/. {}", quote(from), at(to)),
                "owners, modes, times, links and attributes as they are; blocks shared where the file system can",
            ),
            Step::Extract(to) => Said::new(
                format!(
                    "tar --numeric-owner --xattrs --xattrs-include='*' --delay-directory-restore -xpf - -C {}",
                    at(to)
                ),
                "applied inside this root, links never followed out of it",
            ),
            Step::Forget(files) => {
                let files: Vec<_> = files.iter().map(|name| at(name)).collect();
                Said::new(format!("rm -f {}", files.join(" ")), "what belongs to a container and not to an image")
            }
            Step::Layer(digest, name) => Said::new(
                format!("tar -xpf blobs/{} --numeric-owner --xattrs -C {}/rootfs", digest.replace(':', "/"), at(name)),
                "applied inside this root, links never followed out of it; .wh.NAME hides NAME of the layers below",
            ),
            Step::Seal(name) => {
                Said::new(format!("btrfs property set -ts {} ro true", at(name)), "a layer never changes")
            }
            Step::Unpack(name) => Said::new(unpack_script(&at(name)), "each layer over the one below; whiteouts hide"),
            Step::Sync => {
                Said::new(format!("sync -f {}", quote(&self.root)), "data reaches the disk before the name does")
            }
            Step::Publish(from, to) => {
                Said::new(format!("mv -nT {} {}", at(from), at(to)), "complete: now it has its name")
            }
            Step::Exchange(new, old) => {
                let aside = at(&format!("{new}_old"));
                Said::new(
                    format!("mv -T {} {aside}\nmv -T {} {}\nmv -T {aside} {}", at(old), at(new), at(old), at(new)),
                    "one step here: renameat2(2) with RENAME_EXCHANGE",
                )
            }
            Step::Delete(name, nested) => {
                let mut shell = String::new();
                for id in nested {
                    shell += &format!("btrfs subvolume delete --subvolid {id} {} >/dev/null\n", quote(&self.root));
                }
                shell += &format!("btrfs subvolume delete {} >/dev/null", at(name));
                Said::new(shell, "one call whatever the size; subvolumes inside it first")
            }
            Step::Tie(name, id) => names::say_tie(&self.root, name, *id),
            Step::Untie(name) => names::say_untie(&self.root, name),
            Step::Call(name, id) => called::say_call(&self.root, name, *id),
            Step::Name(id, name) => called::say_name(&self.root, *id, name),
            Step::Remember(id, file, text) => update::say(&self.root, *id, file, text),
            Step::Uncall(name) => called::say_uncall(&self.root, name),
            Step::Volume(volume) => {
                let (new, name) = (at(&format!("{NEW}{}", volume.subvolume())), at(&volume.subvolume()));
                Said::new(
                    format!(
                        "[ -d {name} ] || {{ btrfs subvolume create {new} >/dev/null; mkdir {new}/{DATA}; mv -nT {new} {name}; }}"
                    ),
                    "what containers share and leave behind",
                )
            }
            Step::Fill(volume, from, path) => fill::say(&self.root, volume, from, path),
            Step::Settle(volume) => fill::say_settle(&self.root, volume),
            Step::Print(id) => Said::new(format!("echo {id}"), ""),
            Step::Line(line) => Said::new(format!("echo {}", quote(line)), ""),
        }
    }
}

/// What unpacking comes to in the words of tar, jq and find, for layers without opaque directories. The layers'
/// own subvolumes, which only save time and room, are left out.
fn unpack_script(image: &str) -> String {
    format!(
        r#"new={image}; mkdir "$new/rootfs" "$new/oci"; tar -xC "$new/oci"
blob() {{ echo "$new/oci/blobs/$(echo "$1" | tr : /)"; }}
manifest=$(blob "$(jq -r '.manifests[0].digest' "$new/oci/index.json")")
printf 'sha256:%s\n' "${{manifest##*/}}" > "$new/manifest"
cp "$(blob "$(jq -r .config.digest "$manifest")")" "$new/config"
jq -r '.layers[].digest' "$manifest" | while read -r layer; do
  tar --numeric-owner --xattrs --xattrs-include='*' --delay-directory-restore -xpf "$(blob "$layer")" -C "$new/rootfs"
  find "$new/rootfs" -name '.wh.*' | while read -r hide; do rm -rf "$(echo "$hide" | sed 's|/\.wh\.\([^/]*\)$|/\1|')" "$hide"; done
done
rm -r "$new/oci""#
    )
}

/// Something under a name of `.new_…`; deleted again unless it is kept.
#[derive(Debug)]
pub struct Building<'a> {
    dir: &'a OwnedFd,
    name: String,
    /// Held, so that nobody takes it for abandoned.
    lock: OwnedFd,
    kept: bool,
    /// The store's word that something was deleted.
    deleted: &'a AtomicBool,
}

impl<'a> Building<'a> {
    /// Takes the subvolume that was just made.
    fn lock(dir: &'a OwnedFd, name: &str, deleted: &'a AtomicBool) -> nix::Result<Self> {
        let lock = rustix::fs::openat(dir, name, DIRECTORY, Mode::empty())
            .and_then(|fd| rustix::fs::flock(&fd, FlockOperation::NonBlockingLockExclusive).map(|()| fd));
        match lock {
            Ok(lock) => Ok(Self { dir, name: name.to_owned(), lock, kept: false, deleted }),
            Err(e) => {
                let _ = sys::subvolume_delete(dir, name);
                Err(to_nix(e))
            }
        }
    }

    /// The subvolume.
    pub fn fd(&self) -> &OwnedFd {
        &self.lock
    }

    /// The directory in it that containers see.
    ///
    /// # Errors
    /// It is not there.
    pub(crate) fn rootfs(&self) -> Result<OwnedFd> {
        rustix::fs::openat(&self.lock, "rootfs", DIRECTORY, Mode::empty())
            .map_err(|e| Error::new("open", "rootfs", to_nix(e)))
    }

    /// It has its final name now.
    pub fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Building<'_> {
    fn drop(&mut self) {
        if !self.kept {
            // Already gone, or gc finds it.
            let _ = delete(self.dir, &self.name);
            self.deleted.store(true, Ordering::Relaxed);
        }
    }
}

/// Deletes the subvolume `name` of the directory with all subvolumes inside it, leaves first, and never by a path
/// that a container chose.
fn delete(dir: &OwnedFd, name: &str) -> nix::Result<()> {
    match sys::subvolume_delete(dir, name) {
        Err(Nix::ENOTEMPTY) => {}
        done => return done,
    }
    let fd = rustix::fs::openat(dir, name, DIRECTORY, Mode::empty()).map_err(to_nix)?;
    for id in nested(&fd)? {
        sys::subvolume_delete_by_id(dir, id)?;
    }
    drop(fd);
    sys::subvolume_delete(dir, name)
}

/// Ids of all subvolumes inside one, those further in first.
pub(crate) fn nested(subvolume: &OwnedFd) -> nix::Result<Vec<u64>> {
    let mut found = vec![sys::subvolume_id(subvolume)?];
    let mut next = 0;
    while next < found.len() {
        found.extend(sys::subvolumes_in(subvolume, found[next])?);
        next += 1;
    }
    // Parents were found before their children.
    Ok(found.into_iter().skip(1).rev().collect())
}

pub(crate) fn to_nix(errno: Errno) -> Nix {
    Nix::from_raw(errno.raw_os_error())
}

/// True for a directory on btrfs.
pub(crate) fn is_btrfs(dir: impl AsFd) -> bool {
    // f_type is wider on some machines and signed on others; the magic has 32 bits.
    rustix::fs::fstatfs(dir).is_ok_and(|stat| stat.f_type as u32 == BTRFS)
}

/// The text as part of a message: what was typed, but not 10 kB of it.
pub(crate) fn short(text: &str) -> String {
    let cut: String = text.chars().take(64).collect();
    if cut.len() < text.len() { cut + "…" } else { cut }
}

/// `No image named 'X' exists`
pub(crate) fn no_such(kind: Kind, name: &str) -> Error {
    Error::plain(format!("No {} named '{}' exists", kind.word(), short(name)))
}

pub(crate) fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

impl Store {
    /// Opens the store at an absolute path.
    ///
    /// # Errors
    /// There is none, or others than its owner may enter it.
    #[expect(clippy::disallowed_methods, reason = "the store itself, once; all in it goes by descriptor")]
    pub fn open(path: &Path) -> Result<Self> {
        let missing = |why: &str| Error::plain(format!("{why} {}", path.display())).hint("bocker setup");
        let dir = match rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) {
            Err(Errno::NOENT | Errno::NOTDIR) => return Err(missing("there is no store at")),
            done => done.map_err(|e| Error::new("open", path.display(), std::io::Error::from(e)))?,
        };
        if !is_btrfs(&dir) {
            return Err(missing("no btrfs is mounted at"));
        }
        let stat = rustix::fs::fstat(&dir).map_err(|e| Error::new("open", path.display(), std::io::Error::from(e)))?;
        // Images hold setuid programs that only a container should run (CVE-2021-41091).
        if stat.st_mode & 0o077 != 0 {
            let mode = stat.st_mode & 0o7777;
            return Err(Error::new("open", path.display(), format!("others may enter it, its mode is {mode:o}"))
                .hint(format!("chmod 700 {}", path.display())));
        }
        Ok(Self { path: path.to_owned(), dir, claims: Claims::default(), deleted: AtomicBool::new(false) })
    }

    /// Whether this is the store at `path`, whatever it is called there.
    pub(crate) fn is_at(&self, path: &Path) -> bool {
        claims::same(path, &self.dir)
    }

    /// The store's own directory.
    pub fn dir(&self) -> &OwnedFd {
        &self.dir
    }

    pub(crate) fn fail<'a>(&self, act: &'a str, name: &str) -> impl Fn(Nix) -> Error + use<'a> {
        let (at, root) = (self.path.join(name), self.path.clone());
        move |errno| {
            if !matches!(errno, Nix::EIO | Nix::EROFS) {
                return failed(act, at.display(), errno);
            }
            let error = Error::new(act, at.display(), errno);
            // A file that takes room as it is filled, on a disk that has none: btrfs ends all work, and what is written stays.
            if pool::is_mounted(&root) {
                let root = root.display();
                return error.hint(format!(
                    "the disk below is full or fails; make room there, then umount {root}; bocker setup"
                ));
            }
            error.hint("its disk fails, or it is mounted read-only: see dmesg")
        }
    }

    /// This step here.
    pub fn act(&self, step: Step) -> Act {
        Act { root: self.path.clone(), step }
    }

    #[cfg(test)]
    pub(crate) fn act_at(root: &Path, step: Step) -> Act {
        Act { root: root.to_owned(), step }
    }

    /// True if the name is there, whatever it is.
    fn taken(&self, name: &str) -> Result<bool> {
        let found = lstat(&self.dir, name.as_bytes()).map_err(to_nix).map_err(self.fail("look at", name))?;
        Ok(found.is_some())
    }

    /// The image or container of this id or of this name, or the container whose id alone begins so; what looks like an id
    /// is one.
    ///
    /// # Errors
    /// The original's line; several containers' ids begin so.
    pub fn find(&self, kind: Kind, name: &str) -> Result<Id> {
        let id = match (name.parse::<Id>(), kind) {
            (Ok(id), _) => Some(id).filter(|id| id.kind() == kind),
            (Err(_), Kind::Image) => name.parse().map_or(Ok(None), |name| self.named(&name))?,
            (Err(_), Kind::Container) => match name.parse().map_or(Ok(None), |name| self.called(&name))? {
                None => self.begins(name)?,
                called => called,
            },
        };
        let id = id.ok_or_else(|| no_such(kind, name))?;
        let stat = lstat(&self.dir, id.to_string().as_bytes()).map_err(to_nix).map_err(self.fail("look at", name))?;
        match stat {
            Some(stat) if is_dir(&stat) && stat.st_ino == SUBVOLUME_ROOT => Ok(id),
            _ => Err(no_such(kind, name)),
        }
    }

    /// An image or a container of this id; a container of this name, else an image of this name; the container whose id
    /// alone begins so. Where both have the name, the image's is `NAME:latest`.
    ///
    /// # Errors
    /// The original's line; it calls everything a container.
    pub fn find_any(&self, name: &str) -> Result<Id> {
        let Ok(id) = name.parse::<Id>() else {
            if let Some(id) = name.parse().map_or(Ok(None), |name| self.called(&name))? {
                return Ok(id);
            }
            let none = no_such(Kind::Image, name);
            return match self.find(Kind::Image, name) {
                Err(error) if error == none => self.find(Kind::Container, name),
                found => found,
            };
        };
        let none = no_such(id.kind(), name);
        self.find(id.kind(), name).map_err(|error| if error == none { no_such(Kind::Container, name) } else { error })
    }

    /// The one container whose id begins so.
    fn begins(&self, text: &str) -> Result<Option<Id>> {
        match self.ids_from(text)?[..] {
            [] => Ok(None),
            [id] => Ok(Some(id)),
            [one, other, ..] => {
                Err(Error::plain(format!("the ids of several containers begin with '{}'", short(text)))
                    .hint(format!("{one}, {other}")))
            }
        }
    }

    /// All ids of a kind, ascending.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn list(&self, kind: Kind) -> Result<Vec<Id>> {
        let all = names(&self.dir).map_err(to_nix).map_err(self.fail("list", ""))?;
        let ids = all.iter().filter_map(|name| std::str::from_utf8(name).ok()?.parse::<Id>().ok());
        let mut ids: Vec<_> = ids.filter(|id| id.kind() == kind).collect();
        ids.sort_unstable();
        Ok(ids)
    }

    /// Opens a text file beside `rootfs`. A link is not followed, and only a regular file is opened.
    pub(crate) fn open_text(&self, id: impl Display, file: &str) -> rustix::io::Result<File> {
        let subvolume = rustix::fs::openat(&self.dir, id.to_string(), DIRECTORY, Mode::empty())?;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&subvolume, file, flags, Mode::empty())?;
        let stat = rustix::fs::fstat(&fd)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(Errno::INVAL);
        }
        Ok(File::from(fd))
    }

    /// The images that this manifest described when they were unpacked, ascending.
    ///
    /// # Errors
    /// The store cannot be read.
    pub(crate) fn images_of(&self, manifest: &Digest) -> Result<Vec<Id>> {
        let mut images = self.list(Kind::Image)?;
        images.retain(|image| self.text(*image, "manifest") == manifest.as_str().as_bytes());
        Ok(images)
    }

    /// A file beside `rootfs`; empty if there is none.
    pub(crate) fn bytes(&self, id: impl Display, file: &str) -> Vec<u8> {
        // Room for most of them, so that they are read at once.
        let mut bytes = Vec::with_capacity(8192);
        if let Ok(file) = self.open_text(id, file)
            && file.take(MAX_TEXT).read_to_end(&mut bytes).is_err()
        {
            bytes.clear();
        }
        bytes
    }

    /// A text file without its last newline; empty if there is none.
    pub(crate) fn text(&self, id: impl Display, file: &str) -> Vec<u8> {
        let mut bytes = self.bytes(id, file);
        if bytes.last() == Some(&b'\n') {
            bytes.pop();
        }
        bytes
    }

    /// A lock that keeps the container from starting, or None: it runs, `bocker-exec` holds the lock.
    ///
    /// # Errors
    /// The file `status` cannot be opened.
    pub fn stopped(&self, id: Id) -> Result<Option<Stopped>> {
        let file = match self.open_text(id, "status") {
            Ok(file) => file,
            // Never started.
            Err(Errno::NOENT) => return Ok(Some(Stopped { _lock: None })),
            Err(e) => return Err(self.fail("open", &format!("{id}/status"))(to_nix(e))),
        };
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared) {
            Ok(()) => Ok(Some(Stopped { _lock: Some(file) })),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(e) => Err(self.fail("lock", &format!("{id}/status"))(to_nix(e))),
        }
    }

    /// Ids to try, in order: from anywhere in the range, so that an id is not reused at once; images go on beyond.
    fn candidates(kind: Kind, range: (u32, u32)) -> impl Iterator<Item = Id> {
        let (first, last) = range;
        let count = last.saturating_sub(first) + 1;
        let start = u32::try_from(random() % u64::from(count)).unwrap_or_default();
        let highest = if kind == Kind::Image { HIGHEST } else { last };
        let beyond = last + 1..=highest;
        (0..count)
            .map(move |i| first + (start + i) % count)
            .chain(beyond)
            .filter_map(move |number| Id::new(kind, number))
    }

    /// Makes a new image or container: takes an id, does the steps, gives it its name.
    ///
    /// `plan` gives the steps for a temporary name; the first of them makes the subvolume, and that is the claim: of
    /// many who try one succeeds. `fill` does those steps that are not the store's own.
    ///
    /// # Errors
    /// Every id is taken, or a step failed; then nothing is left.
    pub fn create(
        &self,
        kind: Kind,
        range: (u32, u32),
        explain: Explain,
        plan: impl Fn(&str) -> Vec<Step>,
        mut fill: impl FnMut(&Step, &Building<'_>) -> Result<bool>,
    ) -> Result<Id> {
        for attempt in 0..2 {
            for id in Self::candidates(kind, range) {
                let (name, temporary) = (id.to_string(), format!("{NEW}{id}"));
                let container = kind == Kind::Container;
                if self.taken(&name)? || self.taken(&temporary)? || container && self.claims.owner(id)?.is_some() {
                    continue;
                }
                let mut steps = plan(&temporary);
                if container {
                    steps.insert(1, Step::Claim(id));
                }
                let mut acts: Vec<_> = steps.into_iter().map(|step| self.act(step)).collect();
                acts.push(self.act(Step::Publish(temporary, name.clone())));
                if explain.dry_run {
                    acts.push(self.act(Step::Print(id)));
                    perform(&acts, explain, |_| Ok(()))?;
                    return Ok(id);
                }
                let Some((claim, rest)) = acts.split_first() else { continue };
                tell(claim, explain)?;
                let Some(building) = self.claim(&claim.step)? else { continue };
                // Somebody may have finished this id between the look and the claim.
                if self.taken(&name)? {
                    continue;
                }
                let mut ours = None;
                if container {
                    // Another store of this host may have been faster.
                    let Some(claim) = self.claims.take(id, &self.path)? else { continue };
                    ours = Some(claim);
                }
                perform(rest, explain, |act| if fill(&act.step, &building)? { Ok(()) } else { self.apply(&act.step) })?;
                building.keep();
                ours.into_iter().for_each(claims::Claim::keep);
                return Ok(id);
            }
            // Claims of the dead count as taken; they go before giving up.
            if attempt == 0 && (explain.dry_run || self.sweep(explain, |_| Ok(()))? == 0) {
                break;
            }
        }
        let count = range.1.saturating_sub(range.0) + 1;
        Err(Error::plain(format!("all {count} {} ids from {} to {} are taken", kind.word(), range.0, range.1))
            .hint("bocker rm what is not needed, or a wider BOCKER_SUBNET"))
    }

    /// Makes the subvolume of a first step and locks it; None if the name is taken.
    pub(crate) fn claim(&self, step: &Step) -> Result<Option<Building<'_>>> {
        let (Step::Subvolume(name) | Step::Snapshot(_, name)) = step else {
            return Err(Error::plain("a plan must begin with a subvolume"));
        };
        // Made and locked while gc waits, see `sweep`.
        let _sweeping = self.lock_store(FlockOperation::LockShared)?;
        let make = || match step {
            Step::Snapshot(of, _) => {
                let of = rustix::fs::openat(&self.dir, of, DIRECTORY, Mode::empty()).map_err(to_nix);
                of.map_err(self.fail("snapshot", name)).map(|of| sys::subvolume_snapshot(&of, &self.dir, name))
            }
            _ => Ok(sys::subvolume_create(&self.dir, name)),
        };
        let mut made = make()?;
        if made == Err(Nix::ENOSPC) {
            // What was freed since the last transaction may be enough.
            sys::sync(&self.dir).map_err(self.fail("sync", name))?;
            made = make()?;
        }
        match made {
            Err(Nix::EEXIST) => return Ok(None),
            done => done.map_err(self.fail("create", name))?,
        }
        Building::lock(&self.dir, name, &self.deleted).map(Some).map_err(self.fail("lock", name))
    }

    /// As [`Store::claim`]; if the name is taken, what a crash left goes first. None: somebody who lives has it.
    pub(crate) fn claim_again(&self, step: &Step) -> Result<Option<Building<'_>>> {
        match self.claim(step)? {
            None => {
                self.sweep(Explain::default(), |_| Ok(()))?;
                self.claim(step)
            }
            claimed => Ok(claimed),
        }
    }

    /// The room that may be filled.
    pub(crate) fn budget(&self) -> Result<Budget> {
        Budget::of(self.room()?)
    }

    fn room(&self) -> Result<Room> {
        Room::of(&self.dir, self.path.clone())
    }

    /// A lock on the store's directory, held while the value lives.
    pub(crate) fn lock_store(&self, how: FlockOperation) -> Result<OwnedFd> {
        // A descriptor of its own: locks belong to open files, not to processes.
        let fd = rustix::fs::openat(&self.dir, ".", DIRECTORY, Mode::empty())
            .and_then(|fd| rustix::fs::flock(&fd, how).map(|()| fd));
        fd.map_err(to_nix).map_err(self.fail("lock", ""))
    }

    /// Does one step of the store's own.
    ///
    /// # Errors
    /// The kernel's reason.
    pub fn apply(&self, step: &Step) -> Result<()> {
        match step {
            Step::Subvolume(name) => sys::subvolume_create(&self.dir, name).map_err(self.fail("create", name)),
            Step::Snapshot(..) => self.claim(step).map(|made| made.map(Building::keep)).map(drop),
            Step::Directory(name) => {
                let made = rustix::fs::mkdirat(&self.dir, name, Mode::from_raw_mode(0o755));
                made.map_err(to_nix).map_err(self.fail("create", name))
            }
            Step::Write(name, bytes) => {
                // EXCL and NOFOLLOW: nothing that an image brought is ever written through.
                let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let file = rustix::fs::openat(&self.dir, name, flags, Mode::from_raw_mode(0o644));
                let file = file.map_err(to_nix).map_err(self.fail("create", name))?;
                let mut file = File::from(file);
                let fail = |e| self.fail("write", name)(e);
                file.write_all(bytes).map_err(|e| fail(Nix::from_raw(e.raw_os_error().unwrap_or_default())))?;
                if bytes.is_empty() {
                    return Ok(());
                }
                // A power cut must not find the container and not its texts; a sync would cost every start a wait.
                sys::write_out(&file).map_err(fail)
            }
            Step::Forget(files) => {
                for name in files {
                    match rustix::fs::unlinkat(&self.dir, name, AtFlags::empty()) {
                        Ok(()) | Err(Errno::NOENT) => {}
                        Err(e) => return Err(self.fail("remove", name)(to_nix(e))),
                    }
                }
                Ok(())
            }
            Step::Release(id) => self.claims.release(*id, &self.dir),
            Step::Sync => rustix::fs::syncfs(&self.dir).map_err(to_nix).map_err(self.fail("sync", "")),
            Step::Publish(from, to) => self.rename(from, to, RenameFlags::NOREPLACE),
            Step::Exchange(new, old) => self.rename(new, old, RenameFlags::EXCHANGE),
            Step::Delete(name, _) => self.delete(name),
            Step::Tie(name, id) => self.tie(name, *id),
            Step::Untie(name) => self.untie(name),
            Step::Call(name, id) => self.call(name, *id),
            Step::Name(id, name) => self.write_name(*id, name),
            Step::Remember(id, file, text) => self.rewrite(*id, file, text),
            Step::Uncall(name) => self.uncall(name),
            Step::Volume(volume) => volumes::make(self, volume, false, Explain::default()),
            Step::Fill(volume, from, path) => self.fill(volume, from, path),
            Step::Settle(volume) => self.settle_volume(volume),
            // Words of a dry run, or done by the caller.
            Step::Copy(..)
            | Step::Extract(_)
            | Step::Layer(..)
            | Step::Seal(_)
            | Step::Unpack(_)
            | Step::Claim(_)
            | Step::Print(_)
            | Step::Line(_) => Ok(()),
        }
    }

    fn rename(&self, from: &str, to: &str, flags: RenameFlags) -> Result<()> {
        let done = rustix::fs::renameat_with(&self.dir, from, &self.dir, to, flags);
        done.map_err(to_nix).map_err(self.fail("rename to", to))
    }

    /// Deletes a subvolume. What holds others first loses its name, so that no half of it is ever listed.
    fn delete(&self, name: &str) -> Result<()> {
        self.deleted.store(true, Ordering::Relaxed);
        if name.starts_with("layers/") {
            return self.layers()?.map_or(Ok(()), |layers| layers.delete(name));
        }
        match sys::subvolume_delete(&self.dir, name) {
            Err(Nix::ENOTEMPTY) => {}
            done => return done.map_err(self.fail("delete", name)),
        }
        let mut doomed = name.to_owned();
        if !name.contains(NEW) {
            let aside = format!("{NEW}rm_{name}_{:016x}", random());
            match rustix::fs::renameat_with(&self.dir, name, &self.dir, &aside, RenameFlags::NOREPLACE) {
                Ok(()) => doomed = aside,
                // A full store has no room for another name, and must be emptied all the same.
                Err(Errno::NOSPC) => {}
                Err(e) => return Err(self.fail("rename to", &aside)(to_nix(e))),
            }
        }
        delete(&self.dir, &doomed).map_err(self.fail("delete", name))
    }

    /// The step that deletes a subvolume, with what lies inside it.
    pub(crate) fn deletion(&self, name: &str) -> Result<Step> {
        let fd = rustix::fs::openat(&self.dir, name, DIRECTORY, Mode::empty()).map_err(to_nix);
        let fd = fd.map_err(self.fail("open", name))?;
        Ok(Step::Delete(name.to_owned(), nested(&fd).map_err(self.fail("look into", name))?))
    }

    /// A temporary name for a layer.
    pub(crate) fn new_layer_name(chain: &str) -> String {
        format!("{NEW}layer_{}_{:016x}", chain.get(7..19).unwrap_or_default(), random())
    }

    /// The directory of the layers, made if it is not there; layers stay while it is held.
    pub(crate) fn hold_layers(&self) -> Result<LayerStore> {
        match rustix::fs::mkdirat(&self.dir, LAYERS, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(e) => return Err(self.fail("create", LAYERS)(to_nix(e))),
        }
        let dir = rustix::fs::openat(&self.dir, LAYERS, DIRECTORY, Mode::empty())
            .and_then(|dir| rustix::fs::flock(&dir, FlockOperation::LockShared).map(|()| dir));
        Ok(LayerStore { dir: dir.map_err(to_nix).map_err(self.fail("lock", LAYERS))? })
    }

    /// Makes and locks a layer's subvolume: empty, or a snapshot of the one below.
    pub(crate) fn claim_layer<'a>(
        &'a self,
        layers: &'a LayerStore,
        below: Option<&str>,
        name: &str,
    ) -> Result<Building<'a>> {
        let _sweeping = self.lock_store(FlockOperation::LockShared)?;
        let fail = |e| self.fail("create", &format!("{LAYERS}/{name}"))(e);
        match below {
            Some(below) => {
                let below =
                    rustix::fs::openat(&layers.dir, below, DIRECTORY, Mode::empty()).map_err(to_nix).map_err(fail)?;
                sys::subvolume_snapshot(&below, &layers.dir, name).map_err(fail)?;
            }
            None => sys::subvolume_create(&layers.dir, name).map_err(fail)?,
        }
        Building::lock(&layers.dir, name, &self.deleted).map_err(fail)
    }

    /// Opens the directory of the layers; None if there is none.
    pub(crate) fn layers(&self) -> Result<Option<LayerStore>> {
        match rustix::fs::openat(&self.dir, LAYERS, DIRECTORY, Mode::empty()) {
            Ok(dir) => Ok(Some(LayerStore { dir })),
            Err(Errno::NOENT) => Ok(None),
            Err(e) => Err(self.fail("open", LAYERS)(to_nix(e))),
        }
    }

    /// What a crash left: names with `.new_` that nobody holds a lock on, relative to the store. Call with the store locked.
    pub(crate) fn abandoned(&self) -> Result<Vec<String>> {
        let mut found = Vec::new();
        for place in ["", LAYERS] {
            let Ok(dir) =
                rustix::fs::openat(&self.dir, if place.is_empty() { "." } else { place }, DIRECTORY, Mode::empty())
            else {
                continue;
            };
            for name in names(&dir).map_err(to_nix).map_err(self.fail("list", place))? {
                let Ok(name) = String::from_utf8(name) else { continue };
                if !name.starts_with(NEW) {
                    continue;
                }
                let Ok(fd) = rustix::fs::openat(&dir, &name, DIRECTORY, Mode::empty()) else { continue };
                let ours = rustix::fs::fstat(&fd).is_ok_and(|stat| stat.st_ino == SUBVOLUME_ROOT);
                if ours && rustix::fs::flock(&fd, FlockOperation::NonBlockingLockExclusive).is_ok() {
                    found.push(if place.is_empty() { name } else { format!("{place}/{name}") });
                }
            }
        }
        found.sort();
        Ok(found)
    }

    /// How much there is of what a crash left, in the store and in /run.
    ///
    /// # Errors
    /// Something cannot be read.
    pub fn leftovers(&self) -> Result<usize> {
        // Nobody is between making and locking now.
        let _alone = self.lock_store(FlockOperation::LockExclusive)?;
        Ok(self.abandoned()?.len() + self.half_filled()?.len() + self.claims.stale()?.len())
    }

    /// Deletes what a crash left and the layers that no image lists; `told` gets each name. Returns how many.
    ///
    /// # Errors
    /// A deletion failed.
    pub fn sweep(&self, explain: Explain, mut told: impl FnMut(&str) -> Result<()>) -> Result<usize> {
        // Nobody is between making and locking now.
        let _alone = self.lock_store(FlockOperation::LockExclusive)?;
        let mut count = 0;
        for name in self.abandoned()? {
            let mounts = remember::mounts(self, &name);
            perform(&[self.act(self.deletion(&name)?)], explain, |act| self.apply(&act.step))?;
            count += 1;
            told(&name)?;
            count += remember::sweep_nameless(self, &mounts, explain, &mut told)?;
        }
        for (volume, path) in self.half_filled()? {
            perform(&[self.act(Step::Settle(volume))], explain, |act| self.apply(&act.step))?;
            count += 1;
            told(&path)?;
        }
        for id in self.claims.stale()? {
            perform(&[self.act(Step::Release(id))], explain, |_| self.claims.sweep(id))?;
            count += 1;
            told(&self.claims.link(id).to_string_lossy())?;
        }
        if let Some((held, steps)) = self.stale_names()? {
            for step in steps {
                let name = match &step {
                    Step::Untie(name) => format!("{}/{name}", names::NAMES),
                    _ => format!("{}/{NEW}name", names::NAMES),
                };
                perform(&[self.act(step)], explain, |act| self.apply(&act.step))?;
                count += 1;
                told(&name)?;
            }
            if !explain.dry_run {
                names::remove_empty(held.as_fd(), 0).map_err(|e| self.fail("look into", names::NAMES)(to_nix(e)))?;
            }
        }
        if let Some((held, steps)) = self.stale_called()? {
            for step in steps {
                let name = match &step {
                    Step::Uncall(name) => format!("{}/{name}", called::CONTAINERS),
                    Step::Forget(files) => files.concat(),
                    _ => continue,
                };
                perform(&[self.act(step)], explain, |act| match &act.step {
                    Step::Uncall(name) => self.uncall_held(&held, name),
                    step => self.apply(step),
                })?;
                count += 1;
                told(&name)?;
            }
        }
        count += self.prune(None, explain, told)?;
        Ok(count)
    }

    /// Deletes layers that no image lists, unless somebody is unpacking just now. Returns how many.
    ///
    /// `replaced` is an image that is about to go, and what comes in its place: a dry run sees it still there.
    ///
    /// # Errors
    /// A deletion failed.
    pub fn prune(
        &self,
        replaced: Option<(Id, Option<Id>)>,
        explain: Explain,
        mut told: impl FnMut(&str) -> Result<()>,
    ) -> Result<usize> {
        let Some(layers) = self.layers()? else { return Ok(0) };
        // Who unpacks holds it shared: layers made and not yet listed are in use, too.
        if rustix::fs::flock(&layers.dir, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Ok(0);
        }
        let mut used = std::collections::HashSet::new();
        for image in self.list(Kind::Image)? {
            let lists = match replaced {
                Some((gone, instead)) if gone == image => instead,
                _ => Some(image),
            };
            if let Some(id) = lists {
                used.extend(self.text(id, "layers").split(|b| *b == b'\n').map(<[u8]>::to_vec));
            }
        }
        let mut unused = names(&layers.dir).map_err(to_nix).map_err(self.fail("list", LAYERS))?;
        unused.retain(|name| name.starts_with(b"sha256:") && !used.contains(name));
        unused.sort();
        for name in &unused {
            let name = format!("{LAYERS}/{}", String::from_utf8_lossy(name));
            perform(&[self.act(Step::Delete(name.clone(), Vec::new()))], explain, |_| layers.delete(&name))?;
            told(&name)?;
        }
        self.deleted.fetch_or(!unused.is_empty() && !explain.dry_run, Ordering::Relaxed);
        Ok(unused.len())
    }
}

/// A container that does not run, and will not start while this lives.
#[derive(Debug)]
pub struct Stopped {
    _lock: Option<File>,
}

/// The directory of the layers.
#[derive(Debug)]
pub(crate) struct LayerStore {
    dir: OwnedFd,
}

impl LayerStore {
    /// The layer of this chain id, if it is complete.
    pub(crate) fn open(&self, chain: &str) -> Result<Option<OwnedFd>> {
        match rustix::fs::openat(&self.dir, chain, DIRECTORY, Mode::empty()) {
            Ok(fd) => Ok(Some(fd)),
            Err(Errno::NOENT) => Ok(None),
            Err(e) => Err(Error::new("open", chain, std::io::Error::from(e))),
        }
    }

    /// Gives a complete layer its name. False if somebody else has made the same layer meanwhile.
    pub(crate) fn publish(&self, new: &str, chain: &str) -> Result<bool> {
        match rustix::fs::renameat_with(&self.dir, new, &self.dir, chain, RenameFlags::NOREPLACE) {
            Ok(()) => Ok(true),
            Err(Errno::EXIST) => Ok(false),
            Err(e) => Err(failed("rename to", chain, e)),
        }
    }

    /// Which layer came from a blob on top of a layer (`-`: of none): chain ids by layer below and digest.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub(crate) fn origins(&self) -> Result<HashMap<(String, String), String>> {
        let mut origins = HashMap::new();
        for name in names(&self.dir).map_err(to_nix).map_err(|e| Error::new("list", LAYERS, e))? {
            let Ok(chain) = String::from_utf8(name) else { continue };
            let Ok(layer) = rustix::fs::openat(&self.dir, &chain, DIRECTORY, Mode::empty()) else { continue };
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let Ok(file) = rustix::fs::openat(&layer, ORIGIN, flags, Mode::empty()) else { continue };
            let mut text = String::new();
            if File::from(file).take(1024).read_to_string(&mut text).is_ok()
                && let Some((blob, below)) = text.trim_end().split_once('\t')
                && !chain.starts_with(NEW)
            {
                origins.insert((below.to_owned(), blob.to_owned()), chain);
            }
        }
        Ok(origins)
    }

    fn delete(&self, name: &str) -> Result<()> {
        let name = name.strip_prefix("layers/").unwrap_or(name);
        delete(&self.dir, name).map_err(|e| failed("delete", name, e))
    }
}

/// `42002-42254`: first and last id.
///
/// # Errors
/// No range, or not within what ids can be.
pub fn parse_range(text: &str) -> std::result::Result<(u32, u32), String> {
    let bound = |part: &str| part.parse::<u32>().ok().filter(|n| (FIRST..=HIGHEST).contains(n));
    match text.split_once('-').map(|(a, b)| (bound(a), bound(b))) {
        Some((Some(first), Some(last))) if first <= last => Ok((first, last)),
        _ => Err(format!("a range within {FIRST}-{HIGHEST}, as in {FIRST}-{LAST}")),
    }
}

/// The words with single spaces between them.
pub(crate) fn joined(words: &[std::ffi::OsString]) -> Vec<u8> {
    words.iter().map(|word| word.as_bytes()).collect::<Vec<_>>().join(&b' ')
}

#[cfg(test)]
mod tests {
    use super::*;
    use bocker_common::say::Act as _;

    #[test]
    fn ranges() {
        assert_eq!(parse_range("42002-42254"), Ok((42_002, 42_254)));
        assert_eq!(parse_range("42005-42005"), Ok((42_005, 42_005)));
        for text in ["", "42002", "42254-42002", "42001-42254", "42002-200000", "a-b", "-42002", "42002-"] {
            assert!(parse_range(text).is_err(), "{text}");
        }
    }

    #[test]
    fn every_id_is_tried_once() {
        let all: Vec<_> = Store::candidates(Kind::Container, (42_002, 42_254)).collect();
        let distinct: std::collections::HashSet<_> = all.iter().collect();
        assert_eq!((all.len(), distinct.len()), (253, 253));
        let mut images = Store::candidates(Kind::Image, (FIRST, LAST)).skip(253);
        assert_eq!(images.next().unwrap().number(), LAST + 1);
        assert_eq!(images.last().unwrap().number(), HIGHEST);
    }

    #[test]
    fn says_words_that_a_shell_takes_apart_again() {
        let act =
            Act { root: "/var/a b".into(), step: Step::Write(".new_ps_42002/cmd".into(), b"it's $HOME\n".to_vec()) };
        assert_eq!(act.say().shell, r#"printf '%s\n' "it's "'$HOME' > '/var/a b/.new_ps_42002/cmd'"#);
    }
}
