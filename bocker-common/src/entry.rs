//! How every tool starts: the same state, whatever the caller left behind.

use std::process::ExitCode;

use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::stat::{Mode, umask};

use crate::diag::{Error, Result};
use crate::sys;

/// Runs `tool` from a known state and reports its error, once, on stderr.
///
/// - Descriptors from 3 on are close-on-exec: what a caller leaked reaches no payload (CVE-2024-21626).
/// - The umask is 022, and no signal is blocked.
pub fn run(tool: &'static str, main: impl FnOnce() -> Result<ExitCode>) -> ExitCode {
    // Fails only on a kernel before 5.11, where there is nothing better to do.
    let _ = sys::cloexec_from(3);
    umask(Mode::from_bits_truncate(0o022));
    let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None);
    match main() {
        Ok(code) => code,
        Err(error) => error.report(tool),
    }
}

/// Holds INT, TERM, HUP and QUIT back until dropped.
///
/// For the short stretches that must happen whole or not at all: a Ctrl-C then
/// ends the tool after the stretch instead of in the middle of it.
#[derive(Debug)]
#[must_use = "signals are held back only while this value lives"]
pub struct Uninterrupted(SigSet);

impl Uninterrupted {
    /// Blocks the four signals, `sigprocmask(2)`.
    pub fn begin() -> Self {
        let mut held = SigSet::empty();
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT] {
            held.add(signal);
        }
        let mut before = SigSet::empty();
        let _ = sigprocmask(SigmaskHow::SIG_BLOCK, Some(&held), Some(&mut before));
        Self(before)
    }
}

impl Drop for Uninterrupted {
    fn drop(&mut self) {
        let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&self.0), None);
    }
}

/// Fails unless the effective user is root.
///
/// # Errors
/// One line that names the tool's need and the way out.
pub fn need_root(act: &str) -> Result<()> {
    if nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    Err(Error::plain(format!("{act}: needs root (try sudo)")))
}
