//! Blobs that did not come to their end, kept by digest until they do: `sha256:<hex>.partial` in a directory.
//!
//! Whoever writes one has it locked; a second that wants the same blob waits, and reads it. A file leaves when its blob was
//! written out. What a file holds is never believed: the digest of all of it decides.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::Read as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bocker_common::{Error, Result};
use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;
use sha2::Digest as _;

use crate::digest::Digest;
use crate::download::Transfer;

/// How often we look whether a lock is free.
const LOOK: Duration = Duration::from_millis(50);
/// How many looks we wait in silence.
const SILENT: u32 = 40;

/// The directory.
#[derive(Debug, Clone)]
pub(crate) struct Cache(PathBuf);

/// One blob's file, locked by us.
#[derive(Debug)]
pub(crate) struct Partial {
    pub(crate) file: File,
    path: PathBuf,
}

impl Cache {
    /// The directory `dir`, made if it is not there. What is oldest leaves until the rest is no more than `most` bytes.
    ///
    /// # Errors
    /// Others could change what is in it.
    pub(crate) fn open(dir: &Path, most: u64) -> Result<Self> {
        let wrong = |e: std::io::Error| Error::new("open", dir.display(), e);
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(wrong)?;
        let meta = std::fs::metadata(dir).map_err(wrong)?;
        if meta.uid() != rustix::process::geteuid().as_raw() || meta.mode() & 0o022 != 0 {
            return Err(Error::new("open", dir.display(), "others may write to it").hint("a cache is its user's own"));
        }
        let cache = Self(dir.to_owned());
        cache.shrink(most).map_err(wrong)?;
        Ok(cache)
    }

    fn shrink(&self, most: u64) -> std::io::Result<()> {
        let mut files = Vec::new();
        for entry in std::fs::read_dir(&self.0)? {
            let entry = entry?;
            if is_ours(&entry.file_name().to_string_lossy()) {
                let meta = entry.metadata()?;
                files.push((meta.modified()?, meta.len(), entry.path()));
            }
        }
        files.sort();
        let mut total: u64 = files.iter().map(|(_, length, _)| length).sum();
        for (_, length, path) in files {
            if total <= most {
                break;
            }
            // One that somebody writes is in use; one that is gone needs no room.
            let Ok(file) = File::open(&path) else { continue };
            if flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
                std::fs::remove_file(&path)?;
                total -= length;
            }
        }
        Ok(())
    }

    /// The file of a blob of `size` bytes, once nobody else writes it.
    pub(crate) async fn partial(&self, digest: Digest, size: u64) -> Result<Partial> {
        let path = self.0.join(format!("{digest}.partial"));
        let wrong = |e: std::io::Error| Error::new("open", path.display(), e);
        loop {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).truncate(false).mode(0o600);
            let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
            let file = options.custom_flags(flags.bits() as i32).open(&path).map_err(wrong)?;
            if !file.metadata().map_err(wrong)?.is_file() {
                return Err(Error::new("open", path.display(), "it is not a regular file"));
            }
            let mut looks = 0;
            while let Err(e) = flock(&file, FlockOperation::NonBlockingLockExclusive) {
                if e != Errno::WOULDBLOCK {
                    return Err(wrong(e.into()));
                }
                looks += 1;
                if looks == SILENT {
                    crate::remark(format!("waiting for another that fetches {digest}"));
                }
                tokio::time::sleep(LOOK).await;
            }
            let meta = file.metadata().map_err(wrong)?;
            // Whoever had it may have removed it, and all is still there for us; else it is another's name by now.
            if meta.nlink() > 0 || meta.len() == size {
                return Ok(Partial { file, path });
            }
        }
    }
}

fn is_ours(name: &str) -> bool {
    name.strip_suffix(".partial").is_some_and(|digest| digest.parse::<Digest>().is_ok())
}

impl Partial {
    /// Takes what is there into `transfer`. What is too long is wrong, and is nothing.
    pub(crate) async fn resume(&mut self, transfer: &mut Transfer) -> Result<()> {
        let wrong = |e: std::io::Error| Error::new("read", self.path.display(), e);
        let length = self.file.metadata().map_err(wrong)?.len();
        if transfer.size.is_some_and(|size| length > size) {
            return self.clear();
        }
        let mut buffer = vec![0; 1 << 20];
        let mut file = &self.file;
        loop {
            let got = file.read(&mut buffer).map_err(wrong)?;
            if got == 0 {
                return Ok(());
            }
            transfer.hasher.update(buffer.get(..got).unwrap_or_default());
            transfer.got += got as u64;
            // The other blobs come meanwhile.
            tokio::task::yield_now().await;
        }
    }

    /// Nothing of it is good.
    pub(crate) fn clear(&self) -> Result<()> {
        let cleared = self.file.set_len(0).and_then(|()| std::io::Seek::rewind(&mut &self.file));
        cleared.map_err(|e| Error::new("write", self.path.display(), e))
    }

    /// It is complete: others may read it.
    pub(crate) fn unlock(&self) {
        // Closing it does the same.
        let _ = flock(&self.file, FlockOperation::Unlock);
    }

    /// It has been written out, or is no good: its name goes, unless that is another's by now.
    pub(crate) fn remove(&self) {
        let same = || {
            let (ours, named) = (self.file.metadata().ok()?, std::fs::symlink_metadata(&self.path).ok()?);
            (ours.ino() == named.ino() && ours.dev() == named.dev()).then_some(())
        };
        if same().is_some() {
            let _ = std::fs::remove_file(&self.path);
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;
    use std::time::SystemTime;

    fn run<T>(future: impl Future<Output = Result<T>>) -> Result<T> {
        crate::registry::block_on(future)
    }

    #[test]
    fn the_oldest_leave_first_and_what_is_in_use_stays() {
        let dir = tempfile::tempdir().unwrap();
        let name = |n: u8| dir.path().join(format!("{}.partial", Digest::of(&[n])));
        for n in 1..=4 {
            std::fs::write(name(n), [0; 100]).unwrap();
            let old = SystemTime::now() - Duration::from_secs(1000 - u64::from(n));
            File::options().write(true).open(name(n)).unwrap().set_modified(old).unwrap();
        }
        std::fs::write(dir.path().join("other.partial"), [0; 1000]).unwrap();
        let busy = File::open(name(1)).unwrap();
        flock(&busy, FlockOperation::LockExclusive).unwrap();
        Cache::open(dir.path(), 250).unwrap();
        let left: Vec<u8> = (1..=4).filter(|&n| name(n).exists()).collect();
        assert_eq!(left, [1, 4]);
        assert!(dir.path().join("other.partial").exists());
    }

    #[test]
    fn a_directory_for_others_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let own = dir.path().join("a/b");
        Cache::open(&own, 0).unwrap();
        assert_eq!(std::fs::metadata(&own).unwrap().mode() & 0o777, 0o700);
        std::fs::set_permissions(&own, std::fs::Permissions::from_mode(0o777)).unwrap();
        assert!(Cache::open(&own, 0).unwrap_err().to_string().contains("others may write"));
    }

    #[test]
    fn a_partial_is_the_users_own_and_no_link() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path(), 0).unwrap();
        let digest = Digest::of(b"x");
        let partial = run(cache.partial(digest, 1)).unwrap();
        assert_eq!(partial.file.metadata().unwrap().mode() & 0o777, 0o600);
        partial.remove();
        assert!(!partial.path().exists());
        std::os::unix::fs::symlink("/etc/passwd", partial.path()).unwrap();
        assert!(run(cache.partial(digest, 1)).is_err());
    }

    #[test]
    fn a_second_waits_and_reads_what_the_first_had() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path(), 0).unwrap();
        let (digest, size) = (Digest::of(b"whole"), 5);
        let read = run(async {
            let first = cache.partial(digest, size).await?;
            let second = async {
                let mut partial = cache.partial(digest, size).await?;
                let mut transfer = Transfer::new(digest, Some(size));
                partial.resume(&mut transfer).await?;
                Ok((transfer.got, transfer.verify().is_ok()))
            };
            let write = async {
                tokio::time::sleep(LOOK * 3).await;
                std::io::Write::write_all(&mut &first.file, b"whole").unwrap();
                first.unlock();
                first.remove();
            };
            tokio::pin!(second);
            let early = tokio::time::timeout(LOOK * 2, &mut second).await;
            assert!(early.is_err(), "it did not wait");
            write.await;
            second.await
        });
        assert_eq!(read.unwrap(), (5, true));
    }

    #[test]
    fn what_is_too_long_is_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path(), 0).unwrap();
        let digest = Digest::of(b"whole");
        std::fs::write(dir.path().join(format!("{digest}.partial")), b"much too long").unwrap();
        let mut transfer = Transfer::new(digest, Some(5));
        run(async {
            let mut partial = cache.partial(digest, 5).await?;
            partial.resume(&mut transfer).await?;
            assert_eq!(partial.file.metadata().unwrap().len(), 0);
            Ok(())
        })
        .unwrap();
        assert_eq!(transfer.got, 0);
    }
}
