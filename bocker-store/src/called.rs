//! Names of containers: `containers/web -> ../ps_42045`, a symbolic link per name, beside the line in the container's
//! file `name`.
//!
//! The link is the claim: of many who want a name one makes it. It counts while that container has the name in its file,
//! so a container that is gone, however it went, frees its name at once; `gc` removes the link that is left. Who changes
//! a name holds a lock on the directory. Images' names are another namespace.

use std::fmt;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::str::FromStr;

use bocker_common::diag::USAGE;
use bocker_common::entry::Uninterrupted;
use bocker_common::say::{Explain, Said, perform, quote};
use bocker_common::{Error, Id, Kind, Result};
use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use crate::layer::{lstat, names};
use crate::names::Held;
use crate::network;
use crate::store::{NEW, Step, Store, short, to_nix};
use crate::sys;

/// The directory of the links.
pub const CONTAINERS: &str = "containers";
/// A container's file with its name, one line.
pub const NAME: &str = "name";
/// That file, or another, while it is written anew.
pub(crate) const NEW_NAME: &str = ".new_name";

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// A container's name, `[a-zA-Z0-9][a-zA-Z0-9_.-]*` as docker has it, of 255 bytes at most and not of the form of an id;
/// safe as a path's component.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(String);

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Name {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong =
            |hint: &str| Error::plain(format!("'{}' is not a container's name", short(text))).hint(hint).status(USAGE);
        let first = text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
        let rest = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
        if !first || !rest || text.len() > 255 {
            return Err(wrong("letters and digits; after the first also _ . and -"));
        }
        if resembles_an_id(text) {
            return Err(wrong("it looks like an id"));
        }
        Ok(Self(text.to_owned()))
    }
}

/// Whether somebody could take it for an id (`ps_42045`, `42045`) or mean one (`ps_42`).
fn resembles_an_id(text: &str) -> bool {
    let number = text.strip_prefix("img_").or_else(|| text.strip_prefix("ps_"));
    number.is_some_and(|number| number.bytes().next().is_none_or(|b| b.is_ascii_digit()))
        || format!("ps_{text}").parse::<Id>().is_ok()
}

/// What a link says: up to the store, then the container.
fn target(id: Id) -> String {
    format!("../{id}")
}

/// The container of a link, if the link is of our form.
fn read_target(link: &[u8]) -> Option<Id> {
    let id = std::str::from_utf8(link).ok()?.strip_prefix("../")?.parse::<Id>().ok()?;
    Some(id).filter(|id| id.kind() == Kind::Container)
}

/// What lies in the directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Found {
    /// A link of the right form, and whether it counts.
    Name(Name, Id, bool),
    /// Anything else; its path in the store.
    Other(String),
}

fn at(name: &Name) -> String {
    format!("{CONTAINERS}/{name}")
}

/// What taking a name says in shell.
pub(crate) fn say_call(root: &Path, name: &Name, id: Id) -> Said {
    let (dir, link) = (quote(root.join(CONTAINERS)), quote(root.join(at(name))));
    let shell = format!(
        "(umask 077; mkdir -p {dir})\n[ \"$(cat {link}/{NAME} 2>/dev/null)\" = {name} ] || rm -f {link}\nln -sT {} {link}",
        target(id)
    );
    Said::new(
        shell,
        "one link for each name: whoever makes it has the name; it counts while that container says so, too",
    )
}

/// What freeing a name says in shell.
pub(crate) fn say_uncall(root: &Path, name: &Name) -> Said {
    let shell = format!(
        "rm -f {}\nrmdir --ignore-fail-on-non-empty {}",
        quote(root.join(at(name))),
        quote(root.join(CONTAINERS))
    );
    Said::new(shell, "the name is free")
}

/// What writing a container's name says in shell.
pub(crate) fn say_name(root: &Path, id: Id, name: &Name) -> Said {
    let dir = root.join(id.to_string());
    let new = quote(dir.join(NEW_NAME));
    let shell = format!("printf '%s\\n' {name} > {new}\nmv -T {new} {}", quote(dir.join(NAME)));
    Said::new(shell, "renamed over the old one: from here on the other link counts")
}

impl Store {
    /// The container that has this name, whether the link that says so is of an old one or not.
    pub(crate) fn called(&self, name: &Name) -> Result<Option<Id>> {
        let link = rustix::fs::openat(self.dir(), CONTAINERS, DIRECTORY, Mode::empty())
            .and_then(|dir| rustix::fs::readlinkat(dir, &name.0, Vec::new()));
        match link {
            Ok(link) => Ok(read_target(link.as_bytes()).filter(|id| self.is_called(id, name))),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::INVAL | Errno::LOOP) => Ok(None),
            Err(e) => Err(self.fail("read", &at(name))(to_nix(e))),
        }
    }

    fn is_called(&self, container: impl fmt::Display, name: &Name) -> bool {
        self.text(container, NAME) == name.0.as_bytes()
    }

    /// The name of a container, if it has one.
    pub(crate) fn name_of(&self, id: Id) -> Option<Name> {
        std::str::from_utf8(&self.text(id, NAME)).ok()?.parse().ok()
    }

    /// The containers whose ids begin with these letters, `ps_42` or `42`.
    pub(crate) fn ids_from(&self, text: &str) -> Result<Vec<Id>> {
        let digits = text.strip_prefix(Kind::Container.prefix()).unwrap_or(text);
        if digits.is_empty() || digits.len() > 6 || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Ok(Vec::new());
        }
        let mut ids = self.list(Kind::Container)?;
        ids.retain(|id| id.number().to_string().starts_with(digits));
        Ok(ids)
    }

    /// Whether the link counts: that container has the name in its file, or one that is being made has.
    fn counts(&self, name: &Name, id: Id) -> Result<bool> {
        // In this order: what is being made gets its own name, and never the other way round.
        let new = format!("{NEW}{id}");
        if !self.is_called(&new, name) {
            return Ok(self.is_called(id, name));
        }
        // Whoever makes it holds its lock; a crash does not.
        let dir = rustix::fs::openat(self.dir(), &new, DIRECTORY, Mode::empty());
        let lock = dir.and_then(|dir| rustix::fs::flock(&dir, FlockOperation::NonBlockingLockShared));
        match lock {
            // It has its own name by now, or is gone.
            Ok(()) | Err(Errno::NOENT) => Ok(self.is_called(id, name)),
            Err(Errno::WOULDBLOCK) => Ok(true),
            Err(e) => Err(self.fail("look at", &new)(to_nix(e))),
        }
    }

    /// All that lies in the directory of the links, sorted.
    pub(crate) fn look_at_called(&self) -> Result<Vec<Found>> {
        let fail = |e| self.fail("list", CONTAINERS)(to_nix(e));
        let dir = match rustix::fs::openat(self.dir(), CONTAINERS, DIRECTORY, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(Vec::new()),
            dir => dir.map_err(fail)?,
        };
        let mut all = names(&dir).map_err(fail)?;
        all.sort();
        let mut found = Vec::new();
        for entry in all {
            let link = match rustix::fs::readlinkat(&dir, &entry, Vec::new()) {
                // Gone meanwhile: who only looks holds no lock.
                Err(Errno::NOENT) => continue,
                Err(Errno::INVAL) => None,
                link => read_target(link.map_err(fail)?.as_bytes()),
            };
            let text = String::from_utf8_lossy(&entry).into_owned();
            found.push(match (text.parse::<Name>(), link) {
                (Ok(name), Some(id)) => {
                    let counts = self.counts(&name, id)?;
                    Found::Name(name, id, counts)
                }
                _ => Found::Other(format!("{CONTAINERS}/{text}")),
            });
        }
        Ok(found)
    }

    /// Gives the container the name; fails if another has it.
    pub(crate) fn call(&self, name: &Name, id: Id) -> Result<()> {
        let Some(held) = self.hold_directory(CONTAINERS, true)? else { return Ok(()) };
        self.call_held(&held, name, id)
    }

    fn call_held(&self, held: &Held<'_>, name: &Name, id: Id) -> Result<()> {
        let fail = |e| self.fail("create", &at(name))(to_nix(e));
        // The second time over what a crash, or a container that went, has left.
        for _ in 0..2 {
            match rustix::fs::symlinkat(target(id), held, &name.0) {
                Err(Errno::EXIST) => {}
                done => return done.map_err(fail),
            }
            let link = rustix::fs::readlinkat(held, &name.0, Vec::new()).map_err(fail)?;
            match read_target(link.as_bytes()) {
                Some(other) if other == id => return Ok(()),
                Some(other) if self.counts(name, other)? => return Err(taken(name, other)),
                _ => rustix::fs::unlinkat(held, &name.0, AtFlags::empty()).map_err(fail)?,
            }
        }
        Err(fail(Errno::EXIST))
    }

    /// Frees a name that no container has any more; that of one that has it stays.
    pub(crate) fn uncall(&self, name: &Name) -> Result<()> {
        let Some(held) = self.hold_directory(CONTAINERS, false)? else { return Ok(()) };
        self.uncall_held(&held, name)
    }

    pub(crate) fn uncall_held(&self, held: &Held<'_>, name: &Name) -> Result<()> {
        let fail = |e| self.fail("remove", &at(name))(to_nix(e));
        let link = match rustix::fs::readlinkat(held, &name.0, Vec::new()) {
            Err(Errno::NOENT) => return Ok(()),
            link => link.map_err(fail)?,
        };
        match read_target(link.as_bytes()) {
            Some(id) if self.counts(name, id)? => Ok(()),
            _ => rustix::fs::unlinkat(held, &name.0, AtFlags::empty()).map_err(fail),
        }
    }

    /// Writes a container's name in one step, over the one it had.
    pub(crate) fn write_name(&self, id: Id, name: &Name) -> Result<()> {
        self.rewrite(id, NAME, format!("{name}\n").as_bytes())
    }

    /// Another text for one of a container's files, in one step. Who does that holds the lock of the names.
    pub(crate) fn rewrite(&self, id: Id, name: &str, text: &[u8]) -> Result<()> {
        let path = format!("{id}/{name}");
        let fail = |e| self.fail("write", &path)(to_nix(e));
        let dir = rustix::fs::openat(self.dir(), id.to_string(), DIRECTORY, Mode::empty()).map_err(fail)?;
        forget(&dir).map_err(fail)?;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&dir, NEW_NAME, flags, Mode::from_raw_mode(0o644)).map_err(fail)?;
        let written = File::from(file.as_fd().try_clone_to_owned().map_err(|e| Error::new("write", &path, e))?)
            .write_all(text)
            .map_err(|e| fail(Errno::from_io_error(&e).unwrap_or(Errno::IO)))
            .and_then(|()| sys::write_out(&file).map_err(self.fail("write", &path)))
            .and_then(|()| rustix::fs::renameat(&dir, NEW_NAME, &dir, name).map_err(fail));
        if written.is_err() {
            let _ = forget(&dir);
        }
        written
    }

    /// What gc removes: links that do not count, and names that were being written. Empty while somebody changes names.
    pub(crate) fn stale_called(&self) -> Result<Option<(Held<'_>, Vec<Step>)>> {
        let Some(held) = self.try_directory(CONTAINERS) else { return Ok(None) };
        let stale = |found| match found {
            Found::Name(name, _, false) => Some(Step::Uncall(name)),
            _ => None,
        };
        let mut steps: Vec<_> = self.look_at_called()?.into_iter().filter_map(stale).collect();
        for id in self.list(Kind::Container)? {
            let path = format!("{id}/{NEW_NAME}");
            if matches!(lstat(self.dir(), path.as_bytes()), Ok(Some(_))) {
                steps.push(Step::Forget(vec![path]));
            }
        }
        Ok(Some((held, steps)))
    }
}

fn forget(dir: &OwnedFd) -> rustix::io::Result<()> {
    match rustix::fs::unlinkat(dir, NEW_NAME, AtFlags::empty()) {
        Err(Errno::NOENT) => Ok(()),
        done => done,
    }
}

/// Why a name cannot be had.
pub(crate) fn taken(name: &Name, by: Id) -> Error {
    Error::plain(format!("the name '{name}' is container {by}'s"))
        .hint(format!("bocker rm {name}, or bocker rename {name}"))
}

/// `rename`: another name for a container, in one step: whoever looks finds it by the old name or by the new one.
pub(crate) fn rename(store: &Store, container: &str, name: &str, explain: Explain) -> Result<()> {
    let name: Name = name.parse()?;
    let _whole = Uninterrupted::begin();
    let held = if explain.dry_run { None } else { store.hold_directory(CONTAINERS, true)? };
    let id = store.find(Kind::Container, container)?;
    let old = store.name_of(id);
    if let Some(other) = store.called(&name)?.filter(|other| *other != id) {
        return Err(taken(&name, other));
    }
    let mut steps = vec![Step::Call(name.clone(), id), Step::Name(id, name.clone())];
    steps.extend(network::renamed(store, id, &name));
    steps.extend(old.filter(|old| *old != name).map(Step::Uncall));
    let steps: Vec<_> = steps.into_iter().map(|step| store.act(step)).collect();
    let done = perform(&steps, explain, |act| match (act.step(), &held) {
        (Step::Call(name, id), Some(held)) => store.call_held(held, name, *id),
        (Step::Uncall(name), Some(held)) => store.uncall_held(held, name),
        (step, _) => store.apply(step),
    });
    if let (Err(_), Some(held)) = (&done, &held) {
        // It counts no more than before.
        let _ = store.uncall_held(held, &name);
    }
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_as_docker_has_them() {
        let long = "x".repeat(255);
        for name in ["a", "web", "A.b_c-d", "0", "4", "42", "42001", "107535", "ps", "psx_1", "vol_1", "p.s", &long] {
            assert_eq!(name.parse::<Name>().unwrap().to_string(), name);
        }
        let longer = "x".repeat(256);
        for name in [
            "",
            ".",
            "..",
            ".a",
            "-a",
            "_a",
            "a/b",
            "a b",
            "a\n",
            "ä",
            "a\0",
            "/web",
            &longer,
            "ps_42045",
            "42045",
            "107534",
            "ps_",
            "ps_4",
            "ps_1x",
            "img_42150",
            "img_1",
            "img_",
        ] {
            assert_eq!(name.parse::<Name>().unwrap_err().exit_status(), USAGE, "{name:?}");
        }
    }

    #[test]
    fn a_link_leads_to_a_container_of_the_store_and_nowhere_else() {
        let id: Id = "ps_42045".parse().unwrap();
        assert_eq!(read_target(target(id).as_bytes()), Some(id));
        for link in
            ["ps_42045", "../../ps_42045", "/var/bocker/ps_42045", "../img_42045", "../ps_1", "../ps_42045/", ""]
        {
            assert_eq!(read_target(link.as_bytes()), None, "{link}");
        }
    }
}
