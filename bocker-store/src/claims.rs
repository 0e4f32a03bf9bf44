//! Whose container an id is. Link, namespace, cgroup and address follow from the number alone, so they are the host's and
//! not one store's: a link `/run/bocker/ps_42045 -> /var/bocker` says which store has the id, until the next restart,
//! which takes all of those names away, too.
//!
//! A link counts only while its store has the container, or is making it. What a crash left stops counting by itself.
//! Whoever changes a link, or makes or undoes a store, holds the directory's lock.

#![expect(
    clippy::disallowed_methods,
    reason = "/run/bocker and where its links lead: stores, never what is in an image"
)]

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use bocker_common::{Error, Id, Result};
use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use crate::layer::{is_dir, lstat, names};
use crate::store::NEW;

/// Where the links are.
pub const DIRECTORY: &str = "/run/bocker";

/// The links.
#[derive(Debug, Clone)]
pub struct Claims(PathBuf);

impl Default for Claims {
    fn default() -> Self {
        Self(DIRECTORY.into())
    }
}

/// Adds the way out where the host has no room.
fn no_room(error: Error, errno: Errno) -> Error {
    if errno == Errno::NOSPC { error.hint("make room in /run: df -i /run") } else { error }
}

/// An id that is ours; given back unless it is kept.
#[derive(Debug)]
pub struct Claim {
    link: PathBuf,
    kept: bool,
}

impl Claim {
    /// The container is there.
    pub fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if !self.kept {
            // It counts as long as the container is being made, so nobody has replaced it.
            let _ = std::fs::remove_file(&self.link);
        }
    }
}

impl Claims {
    /// The link of this id.
    pub fn link(&self, id: Id) -> PathBuf {
        self.0.join(id.to_string())
    }

    /// The store that has the id.
    ///
    /// # Errors
    /// The link cannot be read, or others may have made it.
    pub fn owner(&self, id: Id) -> Result<Option<PathBuf>> {
        self.open()?.map_or(Ok(None), |directory| self.owner_in(&directory, id))
    }

    /// Takes the id for a store that is making the container already; None if another one has it.
    ///
    /// # Errors
    /// The link cannot be made.
    pub fn take(&self, id: Id, store: &Path) -> Result<Option<Claim>> {
        // One at a time: what does not count is replaced.
        let held = self.lock()?;
        if self.owner_in(&held.directory, id)?.is_some() || !held.remove(id)? {
            return Ok(None);
        }
        let link = self.link(id);
        rustix::fs::symlinkat(store, &held.directory, id.to_string())
            .map_err(|e| no_room(Error::new("create", link.display(), io::Error::from(e)), e))?;
        Ok(Some(Claim { link, kept: false }))
    }

    /// Gives the id back if this store has it.
    ///
    /// # Errors
    /// The link cannot be removed.
    pub fn release(&self, id: Id, store: &OwnedFd) -> Result<()> {
        match self.lock_there()? {
            Some(held) if self.target(&held.directory, id)?.is_some_and(|target| same(&target, store)) => {
                held.remove(id).map(drop)
            }
            _ => Ok(()),
        }
    }

    /// Ids whose links count for nothing.
    ///
    /// # Errors
    /// The directory cannot be read; none is no error.
    pub fn stale(&self) -> Result<Vec<Id>> {
        let mut stale = Vec::new();
        if let Some(directory) = self.open()? {
            for id in self.all(&directory)? {
                if self.owner_in(&directory, id)?.is_none() {
                    stale.push(id);
                }
            }
        }
        Ok(stale)
    }

    /// Removes a link that counts for nothing.
    ///
    /// # Errors
    /// It cannot be removed.
    pub fn sweep(&self, id: Id) -> Result<()> {
        match self.lock_there()? {
            Some(held) if self.owner_in(&held.directory, id)?.is_none() => held.remove(id).map(drop),
            _ => Ok(()),
        }
    }

    /// Whether there is a directory.
    pub fn exist(&self) -> bool {
        self.0.is_dir()
    }

    /// The directory, made if it is missing, and locked.
    ///
    /// # Errors
    /// It cannot be made, or what is there is not ours.
    pub fn lock(&self) -> Result<Held<'_>> {
        loop {
            let made = match rustix::fs::mkdir(&self.0, Mode::RWXU) {
                Ok(()) => true,
                Err(Errno::EXIST) => false,
                Err(e) => return Err(self.fail("create", e)),
            };
            // Removed by an undo meanwhile?
            if let Some(mut held) = self.lock_there()? {
                held.made = made;
                return Ok(held);
            }
        }
    }

    /// The directory, locked; None if there is none.
    fn lock_there(&self) -> Result<Option<Held<'_>>> {
        while let Some(directory) = self.open()? {
            rustix::fs::flock(&directory, FlockOperation::LockExclusive).map_err(|e| self.fail("lock", e))?;
            // Removed by an undo while we waited?
            if self.is_at_its_place(&directory) {
                return Ok(Some(Held { claims: self, directory, made: false }));
            }
        }
        Ok(None)
    }

    /// The directory, if it is there and nobody but us can have made a link in it.
    fn open(&self) -> Result<Option<OwnedFd>> {
        let refuse = |why: &str, way_out: String| Err(Error::new("use", self.0.display(), why).hint(way_out));
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = match rustix::fs::open(&self.0, flags, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::NOTDIR | Errno::LOOP) => {
                return refuse("it is no directory", format!("rm {}", self.0.display()));
            }
            done => done.map_err(|e| self.fail("open", e))?,
        };
        let stat = rustix::fs::fstat(&directory).map_err(|e| self.fail("look at", e))?;
        if stat.st_uid != rustix::process::geteuid().as_raw() {
            return refuse("it is somebody else's", format!("chown 0:0 {}", self.0.display()));
        }
        if stat.st_mode & 0o022 != 0 {
            let why = format!("others may write to it, its mode is {:o}", stat.st_mode & 0o7777);
            return refuse(&why, format!("chmod 700 {}", self.0.display()));
        }
        Ok(Some(directory))
    }

    fn fail(&self, act: &str, errno: Errno) -> Error {
        no_room(Error::new(act, self.0.display(), io::Error::from(errno)), errno)
    }

    fn is_at_its_place(&self, directory: &OwnedFd) -> bool {
        std::fs::symlink_metadata(&self.0).is_ok_and(|found| is(&found, directory))
    }

    fn owner_in(&self, directory: &OwnedFd, id: Id) -> Result<Option<PathBuf>> {
        Ok(self.target(directory, id)?.filter(|store| has(store, id)))
    }

    /// Where the link leads. What is no link leads nowhere.
    fn target(&self, directory: &OwnedFd, id: Id) -> Result<Option<PathBuf>> {
        match rustix::fs::readlinkat(directory, id.to_string(), Vec::new()) {
            Ok(target) => Ok(Some(OsString::from_vec(target.into_bytes()).into())),
            Err(Errno::NOENT | Errno::INVAL) => Ok(None),
            Err(e) => Err(Error::new("read", self.link(id).display(), io::Error::from(e))),
        }
    }

    /// All names that are ids, but for directories: no verb of ours makes one there, or removes it.
    fn all(&self, directory: &OwnedFd) -> Result<Vec<Id>> {
        let all = names(directory).map_err(|e| self.fail("list", e))?;
        let mut ids: Vec<Id> = all.iter().filter_map(|name| std::str::from_utf8(name).ok()?.parse().ok()).collect();
        ids.retain(|id| matches!(lstat(directory, id.to_string().as_bytes()), Ok(Some(found)) if !is_dir(&found)));
        ids.sort_unstable();
        Ok(ids)
    }
}

/// The lock on the directory.
#[derive(Debug)]
pub struct Held<'a> {
    claims: &'a Claims,
    directory: OwnedFd,
    /// By us, just now.
    made: bool,
}

impl Held<'_> {
    /// Removes the links to `store`, if one is given, then the directory if it is empty.
    ///
    /// # Errors
    /// One of them cannot be removed.
    pub fn forget(&self, store: Option<&Path>) -> Result<()> {
        for id in self.claims.all(&self.directory)? {
            let target = self.claims.target(&self.directory, id)?;
            if store.is_some_and(|store| target.is_some_and(|target| target == store)) {
                self.remove(id)?;
            }
        }
        match rustix::fs::rmdir(&self.claims.0) {
            Ok(()) | Err(Errno::NOTEMPTY) => Ok(()),
            Err(e) => Err(self.claims.fail("remove", e)),
        }
    }

    /// Removes the entry; false if it is a directory, which stays.
    fn remove(&self, id: Id) -> Result<bool> {
        match rustix::fs::unlinkat(&self.directory, id.to_string(), AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(true),
            Err(Errno::ISDIR) => Ok(false),
            Err(e) => Err(Error::new("remove", self.claims.link(id).display(), io::Error::from(e))),
        }
    }
}

impl AsFd for Held<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        // Who waited for the lock looks whether the directory is still there.
        if self.made && self.claims.is_at_its_place(&self.directory) {
            // Not where there are links now.
            let _ = rustix::fs::rmdir(&self.claims.0);
        }
    }
}

/// Whether the store at this path has the container, or is making it.
fn has(store: &Path, id: Id) -> bool {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let Ok(directory) = rustix::fs::open(store, flags, Mode::empty()) else { return false };
    // A link made by hand may lead from wherever we are.
    store.is_absolute()
        && [id.to_string(), format!("{NEW}{id}")]
            .iter()
            .any(|name| lstat(&directory, name.as_bytes()).is_ok_and(|found| found.is_some()))
}

/// Whether both are the same directory.
pub(crate) fn same(path: &Path, store: &OwnedFd) -> bool {
    std::fs::metadata(path).is_ok_and(|found| is(&found, store))
}

fn is(found: &std::fs::Metadata, open: &OwnedFd) -> bool {
    rustix::fs::fstat(open).is_ok_and(|stat| (stat.st_dev, stat.st_ino) == (found.dev(), found.ino()))
}

/// Not there is as good as removed.
pub(crate) fn gone(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Host(tempfile::TempDir);

    impl Host {
        fn new() -> Self {
            let host = Self(tempfile::tempdir().unwrap());
            for store in ["a", "b"] {
                std::fs::create_dir(host.store(store)).unwrap();
            }
            host
        }

        fn claims(&self) -> Claims {
            Claims(self.0.path().join("run"))
        }

        fn store(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        fn has(&self, store: &str, name: &str) {
            std::fs::create_dir(self.store(store).join(name)).unwrap();
        }

        fn open(&self, store: &str) -> OwnedFd {
            std::fs::File::open(self.store(store)).unwrap().into()
        }

        fn link(&self, store: &str) {
            std::os::unix::fs::symlink(self.store(store), self.claims().link(id())).unwrap();
        }
    }

    fn id() -> Id {
        "ps_42045".parse().unwrap()
    }

    #[test]
    fn one_store_at_a_time_has_an_id() {
        let host = Host::new();
        let (claims, a, b) = (host.claims(), host.store("a"), host.store("b"));
        host.has("a", ".new_ps_42045");
        claims.take(id(), &a).unwrap().unwrap().keep();
        assert!(claims.take(id(), &b).unwrap().is_none(), "it is being made");
        std::fs::rename(a.join(".new_ps_42045"), a.join("ps_42045")).unwrap();
        assert_eq!(claims.owner(id()).unwrap(), Some(a.clone()));
        assert!(claims.take(id(), &b).unwrap().is_none(), "it is there");
        claims.release(id(), &host.open("b")).unwrap();
        assert_eq!(claims.owner(id()).unwrap(), Some(a.clone()), "only its own store gives it back");
        claims.release(id(), &host.open("a")).unwrap();
        assert_eq!(claims.owner(id()).unwrap(), None);
        claims.lock().unwrap().forget(None).unwrap();
        assert!(!claims.exist());
        // Nothing is made only to be locked.
        claims.release(id(), &host.open("a")).unwrap();
        claims.sweep(id()).unwrap();
        assert!(!claims.exist());
        drop(claims.lock().unwrap());
        assert!(!claims.exist());
    }

    #[test]
    fn what_a_crash_left_counts_for_nothing() {
        let host = Host::new();
        let (claims, a, b) = (host.claims(), host.store("a"), host.store("b"));
        host.has("a", "ps_42045");
        claims.take(id(), &a).unwrap().unwrap().keep();
        std::fs::remove_dir(a.join("ps_42045")).unwrap();
        assert_eq!(claims.owner(id()).unwrap(), None);
        assert_eq!(claims.stale().unwrap(), [id()]);
        host.has("b", "ps_42045");
        drop(claims.take(id(), &b).unwrap().unwrap());
        assert_eq!(claims.owner(id()).unwrap(), None, "not kept");
        claims.take(id(), &b).unwrap().unwrap().keep();
        claims.sweep(id()).unwrap();
        assert_eq!(claims.owner(id()).unwrap(), Some(b.clone()), "what counts stays");
        claims.lock().unwrap().forget(Some(&a)).unwrap();
        assert!(claims.exist(), "the other store's link is there");
        claims.lock().unwrap().forget(Some(&b)).unwrap();
        assert!(!claims.exist());
    }

    /// Whether `act` is still waiting after a while, and what it comes to once `meanwhile` is done and the lock is free.
    fn waits<T: Send>(claims: &Claims, meanwhile: impl FnOnce(), act: impl FnOnce() -> T + Send) -> T {
        let held = claims.lock().unwrap();
        std::thread::scope(|scope| {
            let thread = scope.spawn(act);
            std::thread::sleep(std::time::Duration::from_millis(100));
            assert!(!thread.is_finished(), "it did not wait");
            meanwhile();
            drop(held);
            thread.join().unwrap()
        })
    }

    #[test]
    fn whoever_changes_a_link_waits_and_looks_again() {
        let host = Host::new();
        let (claims, a, b) = (host.claims(), host.store("a"), host.store("b"));
        host.has("a", "ps_42045");
        host.has("b", "ps_42045");
        claims.take(id(), &a).unwrap().unwrap().keep();
        // The link that was the first store's is the second one's when it is their turn.
        let moved = || {
            std::fs::remove_file(claims.link(id())).unwrap();
            host.link("b");
        };
        waits(&claims, moved, || claims.release(id(), &host.open("a"))).unwrap();
        assert_eq!(claims.owner(id()).unwrap(), Some(b.clone()), "released by the one who had it before");
        waits(&claims, || (), || claims.lock().unwrap().forget(Some(&a))).unwrap();
        assert_eq!(claims.owner(id()).unwrap(), Some(b.clone()));
        std::fs::remove_dir(b.join("ps_42045")).unwrap();
        waits(&claims, || host.has("b", "ps_42045"), || claims.sweep(id())).unwrap();
        assert_eq!(claims.owner(id()).unwrap(), Some(b));
    }

    #[test]
    fn a_directory_that_goes_while_it_is_waited_for() {
        let host = Host::new();
        let claims = host.claims();
        host.has("a", "ps_42045");
        std::fs::create_dir(&claims.0).unwrap();
        let goes = || std::fs::remove_dir(&claims.0).unwrap();
        waits(&claims, goes, || claims.take(id(), &host.store("a"))).unwrap().unwrap().keep();
        assert_eq!(claims.owner(id()).unwrap(), Some(host.store("a")), "in the new one");
        let goes = || std::fs::remove_dir_all(&claims.0).unwrap();
        waits(&claims, goes, || claims.release(id(), &host.open("a"))).unwrap();
        assert!(!claims.exist());
    }

    #[test]
    fn what_is_no_link_counts_for_nothing() {
        let host = Host::new();
        let claims = host.claims();
        host.has("a", "ps_42045");
        std::fs::create_dir(&claims.0).unwrap();
        let link = claims.link(id());
        std::fs::write(&link, "").unwrap();
        assert_eq!((claims.owner(id()).unwrap(), claims.stale().unwrap()), (None, vec![id()]));
        claims.sweep(id()).unwrap();
        std::fs::write(&link, "").unwrap();
        claims.take(id(), &host.store("a")).unwrap().unwrap().keep();
        assert_eq!(claims.owner(id()).unwrap(), Some(host.store("a")));
        std::fs::remove_file(&link).unwrap();
        // It may mean another store in each working directory.
        std::os::unix::fs::symlink(format!("{}{}", "../".repeat(99), host.store("a").display()), &link).unwrap();
        assert_eq!(claims.owner(id()).unwrap(), None);
        std::fs::remove_file(&link).unwrap();
        // No verb makes a directory there, and none removes one.
        std::fs::create_dir(&link).unwrap();
        assert_eq!((claims.owner(id()).unwrap(), claims.stale().unwrap()), (None, vec![]));
        assert!(claims.take(id(), &host.store("a")).unwrap().is_none(), "the id is not free");
        claims.sweep(id()).unwrap();
        claims.lock().unwrap().forget(Some(&host.store("a"))).unwrap();
        assert!(link.is_dir());
    }

    #[test]
    fn a_directory_that_is_not_ours_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let host = Host::new();
        let claims = host.claims();
        host.has("a", "ps_42045");
        let refused = |why: &str| {
            for error in [
                claims.lock().map(drop).unwrap_err(),
                claims.owner(id()).map(drop).unwrap_err(),
                claims.stale().map(drop).unwrap_err(),
                claims.release(id(), &host.open("a")).unwrap_err(),
            ] {
                assert!(error.to_string().contains(why), "{error}");
            }
        };
        for target in ["nowhere", "a"] {
            std::os::unix::fs::symlink(host.store(target), &claims.0).unwrap();
            refused("it is no directory (rm ");
            std::fs::remove_file(&claims.0).unwrap();
        }
        std::fs::write(&claims.0, "").unwrap();
        refused("it is no directory (rm ");
        std::fs::remove_file(&claims.0).unwrap();
        std::fs::create_dir(&claims.0).unwrap();
        host.link("a");
        for mode in [0o770, 0o702, 0o1777] {
            std::fs::set_permissions(&claims.0, PermissionsExt::from_mode(mode)).unwrap();
            refused(&format!("others may write to it, its mode is {mode:o} (chmod 700 "));
        }
        std::fs::set_permissions(&claims.0, PermissionsExt::from_mode(0o755)).unwrap();
        assert_eq!(claims.owner(id()).unwrap(), Some(host.store("a")));
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(&claims.0, Some(65_534), None).unwrap();
            refused("it is somebody else's (chown 0:0 ");
        }
    }
}
