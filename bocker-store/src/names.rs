//! Names of images: `names/docker.io/library/debian:12 -> ../../../img_42150`, a symbolic link per name.
//!
//! Who changes them holds a lock on the directory; a name moves from one image to another by rename. A link to an image
//! that is gone is nobody's name, and gc removes it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use bocker_common::entry::Uninterrupted;
use bocker_common::say::{Explain, Said, perform, quote};
use bocker_common::{Error, Id, Kind, Result};
use rustix::fs::{AtFlags, FileType, FlockOperation, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::layer::{lstat, names};
use crate::reference::Reference;
use crate::store::{NEW, Step, Store, no_such, short, to_nix};

/// The directory of the names.
pub const NAMES: &str = "names";

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// The file of an image that has had a name: without one it is left over, where one that never had a name is not.
pub const NAMED: &str = "named";

/// The names do not change but by who has this.
#[derive(Debug)]
pub(crate) struct Held<'a> {
    store: &'a Store,
    place: &'static str,
    lock: OwnedFd,
}

impl AsFd for Held<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.lock.as_fd()
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        // Without names there is no directory. Not empty, mostly.
        let _ = rustix::fs::unlinkat(self.store.dir(), self.place, AtFlags::REMOVEDIR);
    }
}

/// What lies in the directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Found {
    /// A link of the right form, whether its image is there or not.
    Name(Reference, Id),
    /// A name that was being changed, or anything else that is none; its path in the store.
    Other(String),
}

/// What a link says: up to the store, then the image.
fn target(name: &Reference, id: Id) -> String {
    "../".repeat(name.components().len()) + &id.to_string()
}

/// A temporary name, the same for all: whoever changes a name is alone.
fn temporary() -> String {
    format!("{NEW}name")
}

/// The directory of the name, below that of all names; and its last component.
fn split(name: &Reference) -> (String, String) {
    let mut parts = name.components();
    let leaf = parts.pop().unwrap_or_default();
    (parts.join("/"), leaf)
}

/// What tying says in shell.
pub(crate) fn say_tie(root: &std::path::Path, name: &Reference, id: Id) -> Said {
    let at = |path: &str| quote(root.join(NAMES).join(path));
    let (parent, _) = split(name);
    let shell = format!(
        "(umask 077; mkdir -p {})\nln -sfn {} {new}\nmv -T {new} {}\n: > {}",
        at(&parent),
        target(name, id),
        at(&name.to_string()),
        quote(root.join(id.to_string()).join(NAMED)),
        new = at(&temporary())
    );
    Said::new(shell, "a name is a link to its image; renamed over the old one it moves in one step")
}

/// What untying says in shell.
pub(crate) fn say_untie(root: &std::path::Path, name: &Reference) -> Said {
    let (parent, _) = split(name);
    let shell = format!(
        "rm -f {}\n(cd {} && rmdir -p --ignore-fail-on-non-empty {})",
        quote(root.join(NAMES).join(name.to_string())),
        quote(root),
        quote(format!("{NAMES}/{parent}"))
    );
    Said::new(shell, "the name goes, the image stays")
}

impl Store {
    /// Locks the names; the directory is made if it is not there and that is wanted, else None.
    pub(crate) fn hold_names(&self, make: bool) -> Result<Option<Held<'_>>> {
        self.hold_directory(NAMES, make)
    }

    /// The same for a directory of the store, ours, in which names are links.
    pub(crate) fn hold_directory(&self, place: &'static str, make: bool) -> Result<Option<Held<'_>>> {
        let fail = |e| self.fail("lock", place)(to_nix(e));
        loop {
            if make {
                match rustix::fs::mkdirat(self.dir(), place, Mode::RWXU) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(e) => return Err(self.fail("create", place)(to_nix(e))),
                }
            }
            let dir = match rustix::fs::openat(self.dir(), place, DIRECTORY, Mode::empty()) {
                Err(Errno::NOENT) if make => continue,
                Err(Errno::NOENT) => return Ok(None),
                done => done.map_err(fail)?,
            };
            rustix::fs::flock(&dir, FlockOperation::LockExclusive).map_err(fail)?;
            // Removed while we waited, being empty?
            let now = lstat(self.dir(), place.as_bytes()).map_err(fail)?;
            if now.is_some_and(|now| rustix::fs::fstat(&dir).is_ok_and(|held| held.st_ino == now.st_ino)) {
                return Ok(Some(Held { store: self, place, lock: dir }));
            }
        }
    }

    /// The same, None while somebody else has it, or if it is not there.
    pub(crate) fn try_directory(&self, place: &'static str) -> Option<Held<'_>> {
        let lock = rustix::fs::openat(self.dir(), place, DIRECTORY, Mode::empty()).ok()?;
        rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).ok()?;
        Some(Held { store: self, place, lock })
    }

    /// All that lies in the directory of the names, sorted.
    pub(crate) fn look_at_names(&self) -> Result<Vec<Found>> {
        let mut found = Vec::new();
        match rustix::fs::openat(self.dir(), NAMES, DIRECTORY, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(found),
            dir => dir.and_then(|dir| walk(dir.as_fd(), "", 0, &mut found)),
        }
        .map_err(|e| self.fail("list", NAMES)(to_nix(e)))?;
        found.sort_by_key(|one| match one {
            Found::Name(name, _) => format!("{NAMES}/{name}"),
            Found::Other(path) => path.clone(),
        });
        Ok(found)
    }

    /// All names of images that are there, sorted.
    pub(crate) fn image_names(&self) -> Result<Vec<(Reference, Id)>> {
        let images = self.list(Kind::Image)?;
        let name = |found| match found {
            Found::Name(name, id) if images.contains(&id) => Some((name, id)),
            _ => None,
        };
        Ok(self.look_at_names()?.into_iter().filter_map(name).collect())
    }

    /// The names of one image.
    pub(crate) fn names_of(&self, id: Id) -> Result<Vec<Reference>> {
        Ok(self.image_names()?.into_iter().filter(|(_, of)| *of == id).map(|(name, _)| name).collect())
    }

    /// The image that a link names, whether it is there or not.
    pub(crate) fn named(&self, name: &Reference) -> Result<Option<Id>> {
        let (_, leaf) = split(name);
        let link = rustix::fs::openat(self.dir(), NAMES, DIRECTORY, Mode::empty())
            .and_then(|dir| open_parent(&dir, name))
            .and_then(|parent| rustix::fs::readlinkat(parent, leaf, Vec::new()));
        match link {
            Ok(link) => Ok(read_target(name, link.as_bytes())),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::INVAL | Errno::LOOP) => Ok(None),
            Err(e) => Err(self.fail("read", &format!("{NAMES}/{name}"))(to_nix(e))),
        }
    }

    /// Names that gc removes: of images that are gone, and what a crash left. Empty while somebody changes names.
    pub(crate) fn stale_names(&self) -> Result<Option<(Held<'_>, Vec<Step>)>> {
        let Some(held) = self.try_directory(NAMES) else { return Ok(None) };
        let images = self.list(Kind::Image)?;
        let stale = |found| match found {
            Found::Name(name, id) => (!images.contains(&id)).then_some(Step::Untie(name)),
            Found::Other(path) => {
                (path == format!("{NAMES}/{}", temporary())).then(|| Step::Forget(vec![path.clone()]))
            }
        };
        let steps = self.look_at_names()?.into_iter().filter_map(stale).collect();
        Ok(Some((held, steps)))
    }

    /// Gives the image the name; whichever had it has it no longer. The names are held.
    pub(crate) fn tie(&self, name: &Reference, id: Id) -> Result<()> {
        let fail = |e| self.fail("create", &format!("{NAMES}/{name}"))(to_nix(e));
        let dir = rustix::fs::openat(self.dir(), NAMES, DIRECTORY, Mode::empty()).map_err(fail)?;
        let new = temporary();
        match rustix::fs::unlinkat(&dir, &new, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(e) => return Err(fail(e)),
        }
        rustix::fs::symlinkat(target(name, id), &dir, &new).map_err(fail)?;
        let done = make_parents(&dir, name).and_then(|parent| {
            let (_, leaf) = split(name);
            rustix::fs::renameat(&dir, &new, &parent, &leaf)
        });
        done.map_err(|e| {
            let _ = rustix::fs::unlinkat(&dir, &new, AtFlags::empty());
            remove_parents(&dir, name);
            fail(e)
        })?;
        // Last, and not worth a failure: without it prune lets the image be, whatever becomes of its name.
        let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let _ = rustix::fs::openat(self.dir(), format!("{id}/{NAMED}"), flags, Mode::from_raw_mode(0o644));
        Ok(())
    }

    /// Takes the name away; gone already is no error. The names are held.
    pub(crate) fn untie(&self, name: &Reference) -> Result<()> {
        let fail = |e| self.fail("remove", &format!("{NAMES}/{name}"))(to_nix(e));
        let dir = match rustix::fs::openat(self.dir(), NAMES, DIRECTORY, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(()),
            done => done.map_err(fail)?,
        };
        let (_, leaf) = split(name);
        match open_parent(&dir, name).and_then(|parent| rustix::fs::unlinkat(parent, leaf, AtFlags::empty())) {
            Ok(()) | Err(Errno::NOENT | Errno::NOTDIR) => {}
            Err(e) => return Err(fail(e)),
        }
        remove_parents(&dir, name);
        Ok(())
    }
}

/// The image of a link, if the link is of our form.
fn read_target(name: &Reference, link: &[u8]) -> Option<Id> {
    let id = std::str::from_utf8(link).ok()?.rsplit('/').next()?.parse::<Id>().ok()?;
    (id.kind() == Kind::Image && link == target(name, id).as_bytes()).then_some(id)
}

fn walk(dir: BorrowedFd<'_>, path: &str, depth: usize, found: &mut Vec<Found>) -> rustix::io::Result<()> {
    for entry in names(dir)? {
        let Some(stat) = lstat(dir, &entry)? else { continue };
        let text = String::from_utf8_lossy(&entry).into_owned();
        let inner = if path.is_empty() { text.clone() } else { format!("{path}/{text}") };
        match FileType::from_raw_mode(stat.st_mode) {
            // A repository has 128 components at most.
            FileType::Directory if depth < 256 => {
                match rustix::fs::openat(dir, &entry, DIRECTORY, Mode::empty()) {
                    // Gone meanwhile: who only looks holds no lock.
                    Err(Errno::NOENT) => {}
                    below => walk(below?.as_fd(), &inner, depth + 1, found)?,
                }
            }
            FileType::Symlink => {
                let link = match rustix::fs::readlinkat(dir, &entry, Vec::new()) {
                    Err(Errno::NOENT) => continue,
                    link => link?,
                };
                let name = inner.parse::<Reference>().ok().filter(|name| name.to_string() == inner);
                found.push(match name.and_then(|name| Some((read_target(&name, link.as_bytes())?, name))) {
                    Some((id, name)) => Found::Name(name, id),
                    None => Found::Other(format!("{NAMES}/{inner}")),
                });
            }
            _ => found.push(Found::Other(format!("{NAMES}/{inner}"))),
        }
    }
    Ok(())
}

/// The directory that the name's link lies in, no link on the way to it.
fn open_parent(dir: &OwnedFd, name: &Reference) -> rustix::io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    rustix::fs::openat2(dir, split(name).0, DIRECTORY, Mode::empty(), resolve)
}

/// The same, made as far as it is missing.
fn make_parents(dir: &OwnedFd, name: &Reference) -> rustix::io::Result<OwnedFd> {
    let mut parts = name.components();
    parts.pop();
    let mut here = rustix::io::dup(dir)?;
    for part in parts {
        match rustix::fs::mkdirat(&here, &part, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(e) => return Err(e),
        }
        // One component, not followed.
        here = rustix::fs::openat(&here, &part, DIRECTORY, Mode::empty())?;
    }
    Ok(here)
}

/// Removes the directories below that are empty: whoever took the last name of one was killed before it had done so, too.
pub(crate) fn remove_empty(dir: BorrowedFd<'_>, depth: usize) -> rustix::io::Result<()> {
    for entry in names(dir)? {
        let below = if depth < 256 { rustix::fs::openat(dir, &entry, DIRECTORY, Mode::empty()) } else { continue };
        if let Ok(below) = below {
            remove_empty(below.as_fd(), depth + 1)?;
            let _ = rustix::fs::unlinkat(dir, &entry, AtFlags::REMOVEDIR);
        }
    }
    Ok(())
}

/// Removes the directories of a name that are empty.
fn remove_parents(dir: &OwnedFd, name: &Reference) {
    let mut parts = name.components();
    while parts.pop().is_some() && !parts.is_empty() {
        if rustix::fs::unlinkat(dir, parts.join("/"), AtFlags::REMOVEDIR).is_err() {
            return;
        }
    }
}

/// Gives a new image the name that it came from, if that is one. Where that fails there is no new image.
pub(crate) fn name_by_source(store: &Store, id: Id, source: Option<&str>, explain: Explain) -> Result<()> {
    let Some(name) = source.and_then(|source| source.parse::<Reference>().ok()) else { return Ok(()) };
    let named = hold(store, explain)
        .and_then(|_held| perform(&[store.act(Step::Tie(name, id))], explain, |act| store.apply(act.step())));
    if named.is_err() && !explain.dry_run {
        let gone = store.apply(&Step::Delete(id.to_string(), Vec::new()));
        let _ = gone.and_then(|()| store.prune(None, Explain::default(), |_| Ok(())));
    }
    named
}

/// Holds the names, unless nothing is to be done but talk.
pub(crate) fn hold(store: &Store, explain: Explain) -> Result<Option<Held<'_>>> {
    if explain.dry_run { Ok(None) } else { store.hold_names(true) }
}

/// `tag`: one more name for an image.
pub(crate) fn tag(store: &Store, image: &str, name: &str, explain: Explain) -> Result<()> {
    let name: Reference = name.parse()?;
    let _whole = Uninterrupted::begin();
    let _held = hold(store, explain)?;
    let id = store.find(Kind::Image, image)?;
    perform(&[store.act(Step::Tie(name, id))], explain, |act| store.apply(act.step()))
}

/// `untag`: the name goes, the image stays.
pub(crate) fn untag(store: &Store, name: &str, explain: Explain) -> Result<()> {
    let none = || no_such(Kind::Image, name);
    // An id is no name.
    let reference: Reference = name.parse().map_err(|_| none())?;
    let _whole = Uninterrupted::begin();
    let _held = if explain.dry_run { None } else { store.hold_names(false)? };
    store.named(&reference)?.ok_or_else(none)?;
    perform(&[store.act(Step::Untie(reference))], explain, |act| store.apply(act.step()))
}

/// Why an image with several names is not deleted by its id.
pub(crate) fn has_several(id: Id, names: &[Reference]) -> Error {
    let shown: Vec<_> = names.iter().take(4).map(Reference::familiar).collect();
    let more = if names.len() > shown.len() { ", …" } else { "" };
    Error::plain(format!("Image '{id}' has {} names: {}{more}", names.len(), shown.join(", ")))
        .hint("rm of a name removes that one; --force removes all and the image")
}

/// `id --missing`: whether who wants the image has to pull it.
///
/// # Errors
/// There is one, or the store does not say.
pub(crate) fn is_missing(store: &Store, name: &str) -> Result<()> {
    match store.find(Kind::Image, name) {
        Err(error) if error == no_such(Kind::Image, name) => Ok(()),
        found => Err(Error::plain(format!("There is an image named '{}': {}", short(name), found?))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bocker_common::say::Act as _;

    fn name() -> Reference {
        "debian:12".parse().unwrap()
    }

    #[test]
    fn a_link_leads_up_to_the_store_and_nowhere_else() {
        let id: Id = "img_42150".parse().unwrap();
        assert_eq!(target(&name(), id), "../../../img_42150");
        assert_eq!(read_target(&name(), b"../../../img_42150"), Some(id));
        for link in ["../../img_42150", "img_42150", "/var/bocker/img_42150", "../../../ps_42045", "../../../img_1", ""]
        {
            assert_eq!(read_target(&name(), link.as_bytes()), None, "{link}");
        }
    }

    #[test]
    fn what_is_walked_is_what_was_made() {
        let place = tempfile::tempdir().unwrap();
        let dir: OwnedFd = std::fs::File::open(place.path()).unwrap().into();
        let id: Id = "img_42150".parse().unwrap();
        let mut made = Vec::new();
        for text in ["debian:12", "debian", "localhost:5000/debian/12", "docker.io/a/b/c/d:e"] {
            let name: Reference = text.parse().unwrap();
            let parent = make_parents(&dir, &name).unwrap();
            rustix::fs::symlinkat(target(&name, id), &parent, split(&name).1).unwrap();
            made.push(Found::Name(name, id));
        }
        std::fs::write(place.path().join("docker.io/file"), "").unwrap();
        std::os::unix::fs::symlink("../../../img_42150", place.path().join("docker.io/library/no:tag:at:all")).unwrap();
        let mut found = Vec::new();
        walk(dir.as_fd(), "", 0, &mut found).unwrap();
        let others: Vec<_> = found.iter().filter(|one| matches!(one, Found::Other(_))).collect();
        assert_eq!((others.len(), found.len()), (2, 6));
        assert!(made.iter().all(|one| found.contains(one)));
        for one in made {
            let Found::Name(name, _) = one else { panic!() };
            rustix::fs::unlinkat(&dir, name.to_string(), AtFlags::empty()).unwrap();
            remove_parents(&dir, &name);
        }
        // What is not ours keeps its directories.
        assert!(place.path().join("docker.io/library").exists() && !place.path().join("localhost:5000").exists());
    }

    #[test]
    fn says_what_it_does() {
        let step = Step::Tie(name(), "img_42150".parse().unwrap());
        let said = Store::act_at("/var/bocker".as_ref(), step).say().shell;
        assert!(
            said.contains("mv -T /var/bocker/names/.new_name /var/bocker/names/docker.io/library/debian:12\n"),
            "{said}"
        );
        assert!(said.contains("ln -sfn ../../../img_42150 "), "{said}");
    }
}
