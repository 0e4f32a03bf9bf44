//! Acts that can say themselves. A tool plans a short list of acts; [`perform`]
//! does them, or says them in shell, or both. There is no second description.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;

use crate::diag::{Error, Result};
use crate::entry::Uninterrupted;

/// `--explain` and `--dry-run`, the same on every verb that changes the kernel's state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::Args)]
pub struct Explain {
    /// Say on stderr what is done, as shell commands with a why, then do it
    #[arg(long)]
    pub explain: bool,
    /// With --explain or without: print the same commands on stdout and do nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// An act in the words of the standard tools.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// POSIX shell; may span lines.
    pub shell: String,
    /// Why, in one line.
    pub why: Cow<'static, str>,
}

impl Said {
    /// The two halves.
    pub fn new(shell: impl Into<String>, why: impl Into<Cow<'static, str>>) -> Self {
        Self { shell: shell.into(), why: why.into() }
    }
}

/// One thing that a tool does to the kernel's state.
pub trait Act {
    /// The same act in the words of `ip`, `btrfs`, `nft`, `mount`, `unshare` or cgroupfs.
    /// What it prints must do the same when run by `sh -e`.
    fn say(&self) -> Said;
}

/// Does the acts in order, says them first, or only says them, as `explain` asks.
///
/// # Errors
/// The first error of `act`; the acts after it are not done.
pub fn perform<A: Act>(acts: &[A], explain: Explain, mut act: impl FnMut(&A) -> Result<()>) -> Result<()> {
    for one in acts {
        tell(one, explain)?;
        if !explain.dry_run {
            act(one)?;
        }
    }
    Ok(())
}

/// As [`perform`], all or nothing: if an act fails, or this tool is told to end before the last of them, what `undo`
/// gives for those that were done is done, last first. When all are done signals are held back for good: a last act
/// that prints a name has told the caller.
///
/// # Errors
/// The first error of `act`; [`Uninterrupted::go_on`].
pub fn perform_whole<A: Act>(
    acts: &[A],
    explain: Explain,
    mut act: impl FnMut(&A) -> Result<()>,
    undo: impl Fn(&A) -> Option<A>,
) -> Result<()> {
    let whole = Uninterrupted::begin();
    let mut undos = Vec::new();
    let result = perform(acts, explain, |one| {
        whole.go_on()?;
        act(one)?;
        undos.extend(undo(one));
        Ok(())
    });
    if result.is_ok() {
        whole.until_the_end();
        return Ok(());
    }
    for one in undos.iter().rev() {
        // What cannot be undone either is less worth saying than the first failure.
        let _ = act(one);
    }
    result
}

/// Says one act where `explain` asks for it: on stdout for a dry run, else on stderr.
///
/// # Errors
/// A dry run whose stdout cannot be written to.
pub fn tell(act: &impl Act, explain: Explain) -> Result<()> {
    if !explain.dry_run && !explain.explain {
        return Ok(());
    }
    let Said { shell, why } = act.say();
    let text = if why.is_empty() { format!("{shell}\n") } else { format!("# {why}\n{shell}\n") };
    if explain.dry_run {
        std::io::stdout().write_all(text.as_bytes()).map_err(|e| Error::stdout(&e))
    } else {
        let _ = std::io::stderr().write_all(text.as_bytes());
        Ok(())
    }
}

/// The word quoted for a POSIX shell. Bytes that are not UTF-8 are kept out: they are shown as U+FFFD.
pub fn quote(word: impl AsRef<OsStr>) -> String {
    let bytes = word.as_ref().as_bytes();
    // NUL cannot occur in an argument or a path.
    let quoted = shlex::bytes::Quoter::new().allow_nul(true).quote(bytes).unwrap_or(Cow::Borrowed(bytes));
    String::from_utf8_lossy(&quoted).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Clone, PartialEq)]
    struct Number(i32);

    impl Act for Number {
        fn say(&self) -> Said {
            Said::new(format!("echo {}", self.0), "")
        }
    }

    #[test]
    fn told_to_end_in_the_middle_is_not_done_at_all() {
        use nix::sys::signal::{SigSet, Signal, raise};
        // Held for this thread, whatever happens below.
        let mut held = SigSet::empty();
        held.add(Signal::SIGUSR1);
        held.thread_block().unwrap();
        let acts = [Number(1), Number(2), Number(3)];
        let with_a_signal_in = |number| {
            let mut done = Vec::new();
            let act = |act: &Number| {
                done.push(act.0);
                if act.0 == number { raise(Signal::SIGUSR1).map_err(|e| Error::new("raise", "it", e)) } else { Ok(()) }
            };
            let result = perform_whole(&acts, Explain::default(), act, |act| Some(Number(-act.0)));
            (result.map_err(|error| (error.exit_status(), error.is_explained_elsewhere())), done)
        };
        // In the last act it comes too late.
        assert_eq!(with_a_signal_in(3), (Ok(()), vec![1, 2, 3]));
        held.wait().unwrap();
        assert_eq!(with_a_signal_in(2), (Err((138, true)), vec![1, 2, -2, -1]));
    }

    #[test]
    fn quotes_for_a_shell() {
        assert_eq!(quote("plain/path.1"), "plain/path.1");
        for word in ["a b", "$HOME", "it's", "", "*", "a;b", "`id`", "\\"] {
            let out = std::process::Command::new("/bin/sh")
                .arg("-c")
                .arg(format!("printf %s {}", quote(word)))
                .output()
                .unwrap();
            assert_eq!(out.stdout, word.as_bytes(), "{word:?}");
        }
    }
}
