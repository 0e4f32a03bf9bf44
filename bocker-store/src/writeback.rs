//! Files on their way to the disk before anybody waits for them. A layer is written out before the next one can be its snapshot,
//! and before it gets its name: the less of it is left for then, the shorter that takes.

use std::os::fd::OwnedFd;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::Scope;

use crate::sys;

/// Smaller files, in bytes, are left to the kernel, which has many of them in one piece then.
const LARGE: u64 = 128 << 10;
/// Files that may wait, at most: each is an open one.
const WAITING: usize = 64;

/// The thread that tells the kernel of them, for on the way to the disk it finds their places and makes their checksums.
#[derive(Debug)]
pub(crate) struct Writeback {
    to: SyncSender<OwnedFd>,
}

impl Writeback {
    /// Begins to wait for files. The thread ends when this is gone.
    pub(crate) fn start<'scope>(scope: &'scope Scope<'scope, '_>) -> Self {
        let (to, files) = sync_channel::<OwnedFd>(WAITING);
        scope.spawn(move || {
            while let Ok(file) = files.recv() {
                // Whoever waits for the disk in the end is told what is wrong with it.
                let _ = sys::begin_to_write_out(file);
            }
        });
        Self { to }
    }

    /// Takes a file of so many bytes, if it is worth it and there is room for one.
    pub(crate) fn take(&self, file: OwnedFd, bytes: u64) {
        if bytes >= LARGE {
            let _ = self.to.try_send(file);
        }
    }
}
