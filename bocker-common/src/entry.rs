//! How every tool starts: the same state, whatever the caller left behind.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::error::ErrorKind;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::stat::{Mode, umask};

use crate::diag::{Error, Result, USAGE};
use crate::sys;

/// Runs `tool` from a known state and reports its error, once, on stderr.
///
/// - Descriptors from 3 on are close-on-exec: what a caller leaked reaches no payload (CVE-2024-21626).
/// - The umask is 022, no signal is blocked, and SIGCHLD is not ignored.
pub fn run(tool: &'static str, main: impl FnOnce() -> Result<ExitCode>) -> ExitCode {
    // Fails only on a kernel before 5.11, where there is nothing better to do.
    let _ = sys::cloexec_from(3);
    umask(Mode::from_bits_truncate(0o022));
    let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None);
    sys::default_sigchld();
    match main() {
        Ok(code) => code,
        Err(error) => error.report(tool),
    }
}

/// The program that this one becomes has this descriptor of the caller's, against what [`run`] has done. A number that is none is left
/// alone.
pub fn keep_on_exec(number: i32) {
    sys::keep_on_exec(number);
}

/// Reads the command line. `--help` and `--version` print, and end the tool.
///
/// # Errors
/// What clap says about a mistake, as one line with status 2; with `status_of`'s status where
/// that gives one for these words (a verb that runs a command for the caller says 125).
pub fn parse<T: clap::Parser>(status_of: impl FnOnce(&[OsString]) -> Option<u8>) -> Result<T> {
    let words: Vec<OsString> = std::env::args_os().collect();
    T::try_parse_from(&words).map_err(|mistake| {
        if matches!(mistake.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
            mistake.exit();
        }
        let error = match (mistake.kind(), std::error::Error::source(&mistake)) {
            // Our own parsers' words are complete without clap's frame.
            (ErrorKind::ValueValidation, Some(own)) => Error::plain(own.to_string()),
            (ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand, _) => {
                Error::plain("no command given").hint("see --help")
            }
            _ => Error::plain(one_line(&mistake.render().to_string())).hint("see --help"),
        };
        error.status(status_of(&words).unwrap_or(USAGE))
    })
}

/// The first paragraph of what clap prints, without its `error: `.
pub fn one_line(rendered: &str) -> String {
    let first = rendered.split("\n\n").next().unwrap_or_default();
    let words: Vec<&str> = first.split_whitespace().collect();
    words.join(" ").trim_start_matches("error: ").to_owned()
}

/// Holds every signal back that would end this tool, until dropped; those of the real-time range, too: who ends a whole
/// job with one of them sends it to the tools as well.
///
/// For the short stretches that must happen whole or not at all: a Ctrl-C then
/// ends the tool after the stretch instead of in the middle of it.
#[derive(Debug)]
#[must_use = "signals are held back only while this value lives"]
pub struct Uninterrupted {
    before: SigSet,
    held: SigSet,
}

impl Uninterrupted {
    /// Blocks them, `sigprocmask(2)`. One that the caller ignores (`nohup`) ends nothing: blocked, it would be pending.
    pub fn begin() -> Self {
        let held = sys::signals_but(&SPARED);
        let mut before = SigSet::empty();
        let _ = sigprocmask(SigmaskHow::SIG_BLOCK, Some(&held), Some(&mut before));
        Self { before, held }
    }

    /// One of them that has come meanwhile: it ends the tool when this value is dropped.
    fn is_told_to_end(&self) -> Option<i32> {
        sys::pending(&self.held)
    }

    /// Fails if one of them has come.
    ///
    /// # Errors
    /// Nothing to say: the caller knows what it sent. The status is 128 and the signal's number.
    pub fn go_on(&self) -> Result<()> {
        match self.is_told_to_end() {
            Some(signal) => Err(Error::explained_elsewhere().status(128_u8.wrapping_add(signal as u8))),
            None => Ok(()),
        }
    }

    /// Those that are held back.
    pub fn signals(&self) -> SigSet {
        self.held
    }

    /// Holds them back for good: the work is done, and whoever waits for this tool is to learn that.
    pub fn until_the_end(self) {
        std::mem::forget(self);
    }
}

/// What a fault of our own raises, what cannot be held, and what ends nobody: signal(7).
const SPARED: [Signal; 17] = [
    Signal::SIGILL,
    Signal::SIGTRAP,
    Signal::SIGABRT,
    Signal::SIGBUS,
    Signal::SIGFPE,
    Signal::SIGSEGV,
    Signal::SIGSYS,
    Signal::SIGKILL,
    Signal::SIGSTOP,
    Signal::SIGTSTP,
    Signal::SIGTTIN,
    Signal::SIGTTOU,
    Signal::SIGCONT,
    Signal::SIGCHLD,
    Signal::SIGURG,
    Signal::SIGWINCH,
    Signal::SIGPIPE,
];

impl Drop for Uninterrupted {
    fn drop(&mut self) {
        let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&self.before), None);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_is_one_line() {
        let text = "error: the following required arguments were not provided:\n  <ID>\n\nUsage: x <ID>\n";
        assert_eq!(one_line(text), "the following required arguments were not provided: <ID>");
    }
}
