//! What interrupted pulls have left beside the store, in `/var/bocker.cache`: `bocker-pull fetch --cache` keeps a blob there
//! until all of it has come, and goes on from it. Beside, not in it: bringing a layer to the disk would bring these, too.

#![expect(clippy::disallowed_methods, reason = "the cache beside the store, which only root can write to")]

use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use bocker_common::say::{Explain, Said, perform, quote};
use bocker_common::{Error, Result};
use rustix::fs::{FlockOperation, OFlags};

use crate::oci::Digest;

/// What goes.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Act {
    /// A blob of which not all has come.
    Remove(PathBuf),
    /// The directory, if it is empty.
    RemoveDirectory(PathBuf),
}

impl bocker_common::say::Act for Act {
    fn say(&self) -> Said {
        match self {
            Self::Remove(file) => {
                Said::new(format!("flock -n {0} rm -f {0}", quote(file)), "half a blob that no pull goes on with")
            }
            Self::RemoveDirectory(dir) => {
                Said::new(format!("rmdir --ignore-fail-on-non-empty {}", quote(dir)), "bocker pull makes it again")
            }
        }
    }
}

/// Removes the partial blobs beside the store at `root` that no fetch is at just now, and the directory; `told` gets each
/// name.
///
/// # Errors
/// The directory cannot be read or changed.
pub(crate) fn sweep(root: &Path, explain: Explain, mut told: impl FnMut(&str) -> Result<()>) -> Result<()> {
    let mut dir = root.as_os_str().to_owned();
    dir.push(".cache");
    let dir = PathBuf::from(dir);
    let fail = |act: &'static str, path: &Path, e: io::Error| Err(Error::new(act, path.display(), e));
    let entries = match std::fs::read_dir(&dir) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        Err(e) => return fail("list", &dir, e),
        Ok(entries) => entries,
    };
    let mut names: Vec<_> = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
    names.retain(|name| name.strip_suffix(".partial").is_some_and(|digest| digest.parse::<Digest>().is_ok()));
    names.sort();
    for name in names {
        let path = dir.join(&name);
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        // Gone by now, or a fetch is at it: whoever waits for this lock finds the file without a name, and makes another.
        let Ok(file) = rustix::fs::open(&path, flags, rustix::fs::Mode::empty()).map(File::from) else { continue };
        if rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            continue;
        }
        perform(&[Act::Remove(path.clone())], explain, |_| match std::fs::remove_file(&path) {
            Err(e) if e.kind() != ErrorKind::NotFound => fail("remove", &path, e),
            _ => Ok(()),
        })?;
        told(&path.to_string_lossy())?;
    }
    perform(&[Act::RemoveDirectory(dir.clone())], explain, |_| match std::fs::remove_dir(&dir) {
        Err(e) if !matches!(e.kind(), ErrorKind::NotFound | ErrorKind::DirectoryNotEmpty) => fail("remove", &dir, e),
        _ => Ok(()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_is_at_goes() {
        let place = tempfile::tempdir().unwrap();
        let (root, dir) = (place.path().join("store"), place.path().join("store.cache"));
        let sweep = |explain| {
            let mut told = Vec::new();
            let note = |name: &str| {
                told.push(name.to_owned());
                Ok(())
            };
            sweep(&root, explain, note).unwrap();
            told
        };
        assert!(sweep(Explain::default()).is_empty());
        std::fs::create_dir(&dir).unwrap();
        let name = |n: u8| dir.join(format!("{}.partial", Digest::of(&[n])));
        for n in 1..=3 {
            std::fs::write(name(n), "x").unwrap();
        }
        std::fs::write(dir.join("other.partial"), "").unwrap();
        std::os::unix::fs::symlink("/etc/passwd", name(4)).unwrap();
        let busy = File::open(name(2)).unwrap();
        rustix::fs::flock(&busy, FlockOperation::LockExclusive).unwrap();
        assert_eq!(sweep(Explain { dry_run: true, explain: false }).len(), 2);
        assert!((1..=3).all(|n| name(n).exists()));
        assert_eq!(sweep(Explain::default()).len(), 2);
        assert!(name(2).exists() && !name(1).exists() && !name(3).exists() && dir.join("other.partial").exists());
        drop(busy);
        std::fs::remove_file(dir.join("other.partial")).unwrap();
        std::fs::remove_file(name(4)).unwrap();
        assert_eq!(sweep(Explain::default()).len(), 1);
        assert!(!dir.exists());
    }
}
