//! The room of a store: what is free in its btrfs, and on the disk below where that is a file that takes room as it is
//! filled. What was deleted counts when the kernel has freed it, which it does within half a minute, or when it is told to.

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use bocker_common::{Error, Result};
use rustix::fs::{FallocateFlags, Mode, OFlags};

use crate::pool;
use crate::store::to_nix;
use crate::sys;

/// Bytes always left free in the store and on the disk below it, at least: deleting needs some.
const RESERVE: u64 = 32 << 20;
/// How long somebody waits, at most, for what was deleted.
const FREEING: Duration = Duration::from_secs(3);
/// Less than this is little, in a store of any size; in a small one an eighth of it.
pub(crate) const LITTLE: u64 = 1 << 30;
/// Pieces of free room that are given back to the disk below, at least, in bytes: each costs a call.
const PIECE: u64 = 64 << 10;
/// Bytes that are taken to see whether there is room, at most.
const TRIED: u64 = 16 << 20;

/// Where there is room.
#[derive(Debug)]
pub(crate) struct Room {
    store: OwnedFd,
    path: PathBuf,
    /// What was deleted before was not free yet.
    owed: bool,
}

/// Bytes that may be filled.
struct Bytes {
    /// In the store.
    inside: u64,
    /// On the disk below, without those that the store's file has already.
    below: u64,
    /// Of the store.
    all: u64,
}

impl Bytes {
    fn least(&self) -> u64 {
        self.inside.min(self.below)
    }
}

impl Room {
    /// That of the store which is open at this path.
    ///
    /// # Errors
    /// No more descriptors.
    pub(crate) fn of(store: impl AsFd, path: PathBuf) -> Result<Self> {
        let store = store.as_fd().try_clone_to_owned().map_err(|e| Error::new("open", path.display(), e))?;
        let owed = sys::is_freeing(&store).unwrap_or(false);
        Ok(Self { store, path, owed })
    }

    fn look(&self) -> Result<Bytes> {
        let stat = rustix::fs::fstatvfs(&self.store).map_err(to_nix);
        let stat = stat.map_err(|e| Error::new("look at", self.path.display(), e))?;
        let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
        let all = bytes(stat.f_blocks);
        let inside = bytes(stat.f_bavail).saturating_sub(RESERVE.max(all / 50));
        Ok(Bytes { inside, below: self.below().saturating_sub(RESERVE), all })
    }

    /// What the store's file can still take from its file system; all, where it has what it can hold.
    #[expect(clippy::disallowed_methods, reason = "the pool file beside the store")]
    fn below(&self) -> u64 {
        let file = pool::file_of(&self.path);
        let (Ok(stat), Ok(disk)) = (rustix::fs::lstat(&file), rustix::fs::statvfs(&file)) else { return u64::MAX };
        if stat.st_blocks.saturating_mul(512) >= stat.st_size || !pool::is_mounted(&self.path) {
            return u64::MAX;
        }
        // Not f_bavail: the loop device writes as root, for whom some file systems keep a part.
        disk.f_bfree.saturating_mul(disk.f_frsize)
    }

    /// Bytes that may be filled.
    ///
    /// # Errors
    /// The kernel's reason.
    pub(crate) fn bytes(&self) -> Result<u64> {
        self.look().map(|bytes| bytes.least())
    }

    /// Whether so little is left that what was deleted should be free at once.
    pub(crate) fn is_short(&self) -> bool {
        self.look().is_ok_and(|bytes| bytes.least() < LITTLE.min(bytes.all / 8))
    }

    /// Frees what was deleted, if that can be done within [`FREEING`], and gives it back to the disk below.
    pub(crate) fn free(&self) -> nix::Result<()> {
        sys::sync(&self.store)?;
        // It goes on after that, if there is much of it or somebody else has a file open in it.
        let until = Instant::now() + FREEING;
        while sys::is_freeing(&self.store)? && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(10));
        }
        // What was freed in this transaction can be used in the next.
        sys::sync(&self.store)?;
        // Groups of blocks that have become empty are nobody's for a moment, while the kernel decides what they are for.
        let until = Instant::now() + FREEING;
        while !self.is_usable() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(10));
        }
        // By itself it tells the disk below some minutes later.
        match self.look() {
            Ok(bytes) if bytes.below < bytes.inside => sys::trim(&self.store, PIECE),
            _ => Ok(()),
        }
    }

    /// Whether a file gets some of the room that is said to be there.
    fn is_usable(&self) -> bool {
        let bytes = self.look().map_or(0, |bytes| bytes.least().min(TRIED));
        let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.store, ".", flags, Mode::RUSR | Mode::WUSR);
        bytes == 0 || file.and_then(|file| rustix::fs::fallocate(file, FallocateFlags::empty(), 0, bytes)).is_ok()
    }

    /// Before somebody is refused: bytes that may be filled when all is free that was deleted, here or on the disk below.
    /// None: there was nothing of that kind.
    pub(crate) fn freed(&self) -> Option<u64> {
        let bytes = self.look().ok()?;
        if !self.owed && bytes.below >= bytes.inside && !sys::is_freeing(&self.store).unwrap_or(false) {
            return None;
        }
        // Whatever came of it, what is there counts.
        let _ = self.free();
        self.bytes().ok()
    }

    /// What somebody is told to whom this many bytes were refused.
    pub(crate) fn refusal(&self, bytes: u64) -> Error {
        let is_below = self.look().is_ok_and(|bytes| bytes.below < bytes.inside);
        let (whose, way_out) = if is_below {
            ("the disk below the store", "room on that disk, or bocker rm what is not needed")
        } else {
            ("the store", "bocker rm what is not needed, or a larger store")
        };
        let needed = bytes.div_ceil(1 << 20);
        Error::plain(format!("no room: {needed} MiB more would not leave {whose} its reserve")).hint(way_out)
    }
}
