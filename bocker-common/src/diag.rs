//! Errors: one line, said once, on stderr, with the exit status that goes with it.

use std::fmt;
use std::io::Write;
use std::process::ExitCode;

use nix::errno::Errno;

/// The result of whatever a tool does.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Failure of the tool itself where it runs nothing for the caller.
pub const FAILURE: u8 = 1;
/// The words on the command line do not make sense.
pub const USAGE: u8 = 2;
/// A tool that runs a command for the caller failed before it could (as `chroot(1)`, `env(1)`).
pub const OWN_FAILURE: u8 = 125;
/// The command was found but cannot be executed.
pub const CANNOT_EXECUTE: u8 = 126;
/// The command was not found.
pub const NOT_FOUND: u8 = 127;

/// What went wrong: a line without the tool's name, and the exit status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    line: String,
    status: u8,
    quiet: bool,
}

impl Error {
    /// `act object: reason`, as in `create veth0_ps_42045: File exists`.
    pub fn new(act: &str, object: impl fmt::Display, reason: impl Into<Reason>) -> Self {
        Self::plain(format!("{act} {object}: {}", reason.into().0))
    }

    /// A line that is complete already.
    pub fn plain(line: impl Into<String>) -> Self {
        Self { line: line.into(), status: FAILURE, quiet: false }
    }

    /// A failure that somebody else has already explained: exits with 1, says nothing.
    pub fn explained_elsewhere() -> Self {
        Self { line: String::new(), status: FAILURE, quiet: true }
    }

    /// Whether somebody else has explained it.
    pub fn is_explained_elsewhere(&self) -> bool {
        self.quiet
    }

    /// A failed write to stdout: quiet where the reader has gone, as `head` does.
    pub fn stdout(error: &std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::BrokenPipe => Self::explained_elsewhere(),
            _ => Self::new("write", "stdout", error),
        }
    }

    /// Adds the way out, in parentheses.
    #[must_use]
    pub fn hint(mut self, way_out: impl fmt::Display) -> Self {
        self.line = format!("{} ({way_out})", self.line);
        self
    }

    /// Sets the exit status (1 unless set).
    #[must_use]
    pub fn status(mut self, status: u8) -> Self {
        self.status = status;
        self
    }

    /// The exit status that goes with this error.
    pub fn exit_status(&self) -> u8 {
        self.status
    }

    /// Prints `tool: line` on stderr, control characters escaped, and gives the exit code.
    pub fn report(&self, tool: &str) -> ExitCode {
        if !self.quiet {
            // A closed stderr leaves nobody to tell.
            let _ = writeln!(std::io::stderr(), "{tool}: {}", printable(&self.line));
        }
        ExitCode::from(self.status)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.line)
    }
}

impl std::error::Error for Error {}

/// The kernel's or a library's word for why, without decoration.
#[derive(Debug, Clone)]
pub struct Reason(String);

impl From<Errno> for Reason {
    fn from(errno: Errno) -> Self {
        Self(errno.desc().to_owned())
    }
}

impl From<std::io::Error> for Reason {
    fn from(error: std::io::Error) -> Self {
        Self::from(&error)
    }
}

impl From<&std::io::Error> for Reason {
    fn from(error: &std::io::Error) -> Self {
        match error.raw_os_error() {
            // "File exists", not "File exists (os error 17)".
            Some(raw) => Self::from(Errno::from_raw(raw)),
            None => Self(error.to_string()),
        }
    }
}

impl From<String> for Reason {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl From<&str> for Reason {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The text with every control character (and so every line break and terminal escape) spelled out.
///
/// Names, labels and messages that a registry, an image or a container made pass
/// through here before a person sees them.
pub fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_act_object_reason_and_way_out() {
        let error = Error::new("create", "veth0_ps_42045", Errno::EEXIST).hint("bocker rm ps_42045");
        assert_eq!(error.to_string(), "create veth0_ps_42045: File exists (bocker rm ps_42045)");
        assert_eq!(error.exit_status(), FAILURE);
        assert_eq!(error.status(NOT_FOUND).exit_status(), 127);
    }

    #[test]
    fn io_errors_lose_their_number() {
        let io = std::io::Error::from_raw_os_error(libc::ENOENT);
        assert_eq!(Reason::from(io).to_string(), "No such file or directory");
    }

    #[test]
    fn escapes_do_not_reach_a_terminal() {
        assert_eq!(printable("a\u{1b}[2Jb\nc\u{9b}d é"), "a\\u{1b}[2Jb\\nc\\u{9b}d é");
    }
}
