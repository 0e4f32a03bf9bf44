//! The script's `| tee "$log"`, with stdout and stderr kept apart, and no copying where there is no log.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use bocker_common::{Error, Result};
use nix::errno::Errno;
use nix::sys::stat::{SFlag, fstat};

/// The log file. A full disk costs the log, never the payload.
#[derive(Debug)]
pub struct Log {
    file: File,
    path: PathBuf,
    warned: bool,
}

impl Log {
    /// Opens the file for appending, made with mode 600; no link is followed.
    ///
    /// # Errors
    /// `open(2)`, in one line.
    #[expect(clippy::disallowed_methods, reason = "the caller's word: beside the root, not in it")]
    pub fn open(path: &Path) -> Result<Self> {
        let mut options = OpenOptions::new();
        options.append(true).create(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
        let file = options.open(path).map_err(|e| Error::new("open", path.display(), e))?;
        Ok(Self { file, path: path.to_owned(), warned: false })
    }

    fn write(&mut self, bytes: &[u8]) {
        if let Err(error) = self.file.write_all(bytes) {
            if !self.warned {
                self.warned = true;
                warn(
                    &Error::new("write", self.path.display(), error).hint("the log is incomplete; the command goes on"),
                );
            }
        }
    }
}

fn warn(error: &Error) {
    let _ = error.report("bocker-exec");
}

/// One of the payload's two outputs on its way to one of ours.
#[derive(Debug)]
pub struct Stream {
    from: Option<OwnedFd>,
    to: BorrowedFd<'static>,
    name: &'static str,
    buffer: Vec<u8>,
    /// Read and not yet written: `buffer[start..end]`.
    start: usize,
    end: usize,
    /// The most that a write can take without waiting, once `poll(2)` said that there is room.
    at_once: usize,
    /// Our output takes nothing any more; the log still does.
    abandoned: bool,
    /// What made our output take nothing: EPIPE is a reader that has gone, anything else is output lost.
    broken: Option<Errno>,
}

impl Stream {
    /// From the reading end of a pipe to one of our own outputs.
    pub fn new(from: OwnedFd, to: BorrowedFd<'static>, name: &'static str) -> Self {
        // Room in a pipe or terminal means at least PIPE_BUF bytes; files and /dev/null take everything.
        // O_NONBLOCK is no way out: it would change the caller's own descriptor.
        let kind = fstat(to).map_or(SFlag::S_IFIFO, |stat| SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT);
        let at_once = if kind == SFlag::S_IFREG { usize::MAX } else { libc::PIPE_BUF };
        Self {
            from: Some(from),
            to,
            name,
            buffer: vec![0; 1 << 16],
            start: 0,
            end: 0,
            at_once,
            abandoned: false,
            broken: None,
        }
    }

    /// Nothing will come any more.
    pub fn is_done(&self) -> bool {
        self.from.is_none() && self.start == self.end
    }

    /// Why our output took nothing any more.
    pub fn broken(&self) -> Option<Errno> {
        self.broken
    }

    /// Something is read and waits for room.
    pub fn is_full(&self) -> bool {
        self.start < self.end
    }

    /// What to poll: room while something is left to write, else something to read.
    pub fn waits_for(&self) -> Option<(BorrowedFd<'_>, nix::poll::PollFlags)> {
        if self.is_full() {
            return Some((self.to, nix::poll::PollFlags::POLLOUT));
        }
        Some((self.from.as_ref()?.as_fd(), nix::poll::PollFlags::POLLIN))
    }

    /// No more waiting for whoever should read our output: the rest goes to the log only.
    pub fn abandon(&mut self) {
        self.abandoned = true;
        self.start = self.end;
    }

    /// Whoever writes to us from here on is told that nobody reads.
    pub fn close(&mut self) {
        self.from = None;
    }

    /// Reads once, for the log at once and for our output when it has room.
    pub fn fill(&mut self, log: &mut Log) {
        let Some(from) = &self.from else { return };
        match nix::unistd::read(from, &mut self.buffer) {
            Ok(0) => self.from = None,
            Ok(length) => {
                (self.start, self.end) = (if self.abandoned { length } else { 0 }, length);
                log.write(&self.buffer[..length]);
            }
            Err(Errno::EINTR | Errno::EAGAIN) => {}
            Err(_) => self.from = None,
        }
    }

    /// Writes once.
    pub fn drain(&mut self) {
        let end = self.end.min(self.start.saturating_add(self.at_once));
        match nix::unistd::write(self.to, &self.buffer[self.start..end]) {
            Ok(length) => self.start += length,
            Err(Errno::EINTR | Errno::EAGAIN) => {}
            Err(errno) => {
                // EPIPE: whoever writes next learns it as it would without us, from the pipe that is closed then, and by
                // SIGPIPE, which the kernel keeps from a process 1 (see Supervisor::pipe_broke).
                self.broken = Some(errno);
                self.start = self.end;
                if errno != Errno::EPIPE {
                    warn(&Error::new("write", self.name, errno));
                }
            }
        }
    }
}
