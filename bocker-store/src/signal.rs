//! Ctrl-C during the long verbs: noticed between two reads, so that what was begun is cleaned up.

use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicI32, Ordering};

use bocker_common::{Error, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// INT, TERM, HUP and QUIT wait in a descriptor while this lives, signalfd(2).
#[derive(Debug)]
pub struct Interrupt {
    signals: SignalFd,
    caught: AtomicI32,
}

impl Interrupt {
    /// Blocks the four signals for the rest of the process and listens to them.
    ///
    /// # Errors
    /// No descriptor left.
    pub fn listen() -> Result<Self> {
        let mut set = SigSet::empty();
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT] {
            set.add(signal);
        }
        set.thread_block().map_err(|e| Error::new("block", "signals", e))?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        let signals = SignalFd::with_flags(&set, flags).map_err(|e| Error::new("listen to", "signals", e))?;
        Ok(Self { signals, caught: AtomicI32::new(0) })
    }

    /// Fails once a signal has come.
    ///
    /// # Errors
    /// One line that names it, with status 128 and its number.
    pub fn check(&self) -> Result<()> {
        if let Ok(Some(info)) = self.signals.read_signal() {
            self.caught.store(i32::try_from(info.ssi_signo).unwrap_or(1), Ordering::Relaxed);
        }
        match self.caught.load(Ordering::Relaxed) {
            0 => Ok(()),
            number => {
                let name = Signal::try_from(number).map_or("a signal", Signal::as_str);
                let status = u8::try_from(128 + number).unwrap_or(1);
                Err(Error::plain(format!("interrupted by {name}; nothing was kept")).status(status))
            }
        }
    }

    /// The error of the signal if one has come, else the given one: a read that was cut short is not the reason.
    pub fn or(&self, error: Error) -> Error {
        self.check().err().unwrap_or(error)
    }

    /// Waits until the descriptor can be read, or a signal comes.
    fn wait(&self, fd: impl AsFd) -> io::Result<()> {
        loop {
            if self.check().is_err() {
                return Err(io::Error::other("interrupted"));
            }
            let mut fds =
                [PollFd::new(fd.as_fd(), PollFlags::POLLIN), PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
            match poll(&mut fds, PollTimeout::NONE) {
                Ok(_) if fds[1].any() != Some(true) => return Ok(()),
                Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }
}

/// Reads a descriptor; a signal ends it with an error.
#[derive(Debug)]
pub struct Interruptible<'a> {
    fd: OwnedFd,
    interrupt: &'a Interrupt,
}

impl<'a> Interruptible<'a> {
    /// Takes the descriptor over.
    pub fn new(fd: OwnedFd, interrupt: &'a Interrupt) -> Self {
        Self { fd, interrupt }
    }
}

impl Read for Interruptible<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.interrupt.wait(&self.fd)?;
        Ok(rustix::io::read(&self.fd, into)?)
    }
}
