//! Whose container an id is. Link, namespace, cgroup and address follow from the number alone, so they are the host's and
//! not one store's: a link `/run/bocker/ps_42045 -> /var/bocker` says which store has the id, until the next restart,
//! which takes all of those names away, too.
//!
//! A link counts only while its store has the container, or is making it. What a crash left stops counting by itself.

use std::fs::{DirBuilder, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use bocker_common::{Error, Id, Result};
use rustix::fs::{FlockOperation, flock};

use crate::layer::lstat;
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
            // It counts for nothing without the container.
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
    /// The link cannot be read.
    pub fn owner(&self, id: Id) -> Result<Option<PathBuf>> {
        let link = self.link(id);
        match std::fs::read_link(&link) {
            Ok(store) => Ok(has(&store, id).then_some(store)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Error::new("read", link.display(), e)),
        }
    }

    /// Takes the id for a store that is making the container already; None if another one has it.
    ///
    /// # Errors
    /// The link cannot be made.
    pub fn take(&self, id: Id, store: &Path) -> Result<Option<Claim>> {
        let fail = |e: io::Error| {
            Error::new("take", id, format!("{}: {}", self.0.display(), bocker_common::diag::Reason::from(e)))
        };
        // One at a time: a link that does not count is replaced.
        let _alone = self.lock().map_err(fail)?;
        if self.owner(id)?.is_some() {
            return Ok(None);
        }
        let link = self.link(id);
        gone(std::fs::remove_file(&link)).map_err(fail)?;
        std::os::unix::fs::symlink(store, &link).map_err(fail)?;
        Ok(Some(Claim { link, kept: false }))
    }

    /// Gives the id back if this store has it.
    ///
    /// # Errors
    /// The link cannot be removed.
    pub fn release(&self, id: Id, store: &OwnedFd) -> Result<()> {
        let link = self.link(id);
        if std::fs::read_link(&link).is_ok_and(|target| same(&target, store)) {
            gone(std::fs::remove_file(&link)).map_err(|e| Error::new("remove", link.display(), e))?;
        }
        Ok(())
    }

    /// Ids whose links count for nothing.
    ///
    /// # Errors
    /// The directory cannot be read; none is no error.
    pub fn stale(&self) -> Result<Vec<Id>> {
        let mut stale = Vec::new();
        for id in self.all().map_err(|e| Error::new("read", self.0.display(), e))? {
            if self.owner(id)?.is_none() {
                stale.push(id);
            }
        }
        Ok(stale)
    }

    /// Removes a link that counts for nothing.
    ///
    /// # Errors
    /// It cannot be removed.
    pub fn sweep(&self, id: Id) -> Result<()> {
        let link = self.link(id);
        let fail = |e| Error::new("remove", link.display(), e);
        let _alone = self.lock().map_err(fail)?;
        if self.owner(id)?.is_none() { gone(std::fs::remove_file(&link)).map_err(fail) } else { Ok(()) }
    }

    /// Removes the links to `store`, if one is given, then the directory if it is empty.
    ///
    /// # Errors
    /// One of them cannot be removed.
    pub fn forget(&self, store: Option<&Path>) -> Result<()> {
        let fail = |e| Error::new("remove", self.0.display(), e);
        for id in self.all().map_err(fail)? {
            if store.is_some_and(|store| std::fs::read_link(self.link(id)).is_ok_and(|target| target == store)) {
                gone(std::fs::remove_file(self.link(id))).map_err(fail)?;
            }
        }
        match std::fs::remove_dir(&self.0) {
            Err(e) if e.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
            done => gone(done).map_err(fail),
        }
    }

    /// Whether there is a directory.
    pub fn exist(&self) -> bool {
        self.0.is_dir()
    }

    fn all(&self) -> io::Result<Vec<Id>> {
        let entries = match std::fs::read_dir(&self.0) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut ids: Vec<Id> = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
        ids.sort_unstable();
        Ok(ids)
    }

    /// The directory, made if it is missing, and locked.
    fn lock(&self) -> io::Result<File> {
        loop {
            match DirBuilder::new().mode(0o700).create(&self.0) {
                Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
                _ => {}
            }
            let directory = match File::open(&self.0) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                directory => directory?,
            };
            flock(&directory, FlockOperation::LockExclusive)?;
            // Removed by an undo while we waited?
            if directory.metadata()?.nlink() > 0 {
                return Ok(directory);
            }
        }
    }
}

/// Whether the store at this path has the container, or is making it.
fn has(store: &Path, id: Id) -> bool {
    let Ok(directory) = File::open(store) else { return false };
    [id.to_string(), format!("{NEW}{id}")]
        .iter()
        .any(|name| lstat(&directory, name.as_bytes()).is_ok_and(|found| found.is_some()))
}

/// Whether both are the same directory.
pub(crate) fn same(path: &Path, store: &OwnedFd) -> bool {
    let (Ok(one), Ok(other)) = (std::fs::metadata(path), rustix::fs::fstat(store)) else { return false };
    (one.dev(), one.ino()) == (other.st_dev, other.st_ino)
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
            File::open(self.store(store)).unwrap().into()
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
        claims.forget(None).unwrap();
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
        claims.forget(Some(&a)).unwrap();
        assert!(claims.exist(), "the other store's link is there");
        claims.forget(Some(&b)).unwrap();
        assert!(!claims.exist());
    }
}
