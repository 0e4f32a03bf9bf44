//! `--words FILE`: what a container was told at its making, one word a line, as if typed first.
//!
//! A line break in a word is `\n` there and a backslash `\\`; nothing else is escaped. Options come before a line `--`, each in one
//! word with its value (`--env=A=1`), the command after it. The file is the store's, written by `bocker-store snapshot`.

use std::ffi::{OsStr, OsString};
use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use bocker_common::words::unescape;
use bocker_common::{Error, Result};

/// More than the kernel takes as arguments (`ARG_MAX` of an 8 MiB stack is 2 MiB), each byte escaped.
const MOST: u64 = 4 << 20;

/// The options that count for a command that joins: who it is, and what it may.
const OF_A_JOIN: [&str; 10] = [
    "env",
    "user",
    "workdir",
    "cap-add",
    "cap-drop",
    "privileged",
    "seccomp",
    "no-new-privileges",
    "ulimit",
    "oom-score-adj",
];
/// The options that count for `--stop`.
const OF_A_STOP: [&str; 2] = ["stop-signal", "stop-timeout"];

/// What the words are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum For {
    /// A new container: all of them.
    Run,
    /// A join: some options, not the command.
    Join,
    /// The end: how.
    Stop,
}

/// The file, parsed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Words {
    /// Before `--`; each begins with `--` and holds its value.
    pub options: Vec<OsString>,
    /// After it.
    pub command: Vec<OsString>,
}

impl Words {
    /// Reads the file; no link is followed.
    ///
    /// # Errors
    /// One line: it cannot be read, is larger than 4 MiB, or is no list of words.
    #[expect(clippy::disallowed_methods, reason = "the caller's word: beside the root, not in it")]
    pub fn read(path: &Path) -> Result<Self> {
        let fail = |e: std::io::Error| Error::new("read", path.display(), e);
        let mut bytes = Vec::new();
        let mut options = OpenOptions::new();
        let file = options.read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path).map_err(fail)?;
        file.take(MOST + 1).read_to_end(&mut bytes).map_err(fail)?;
        if bytes.len() as u64 > MOST {
            return Err(Error::new("read", path.display(), "larger than 4 MiB"));
        }
        Self::parse(&bytes).map_err(|why| Error::new("read", path.display(), why))
    }

    fn parse(bytes: &[u8]) -> std::result::Result<Self, String> {
        let mut lines = list(bytes)?.into_iter();
        let mut words = Self::default();
        for word in lines.by_ref() {
            if word == "--" {
                break;
            }
            // So that an option is one word, and which options there are can be seen without knowing all of them.
            if !word.as_bytes().starts_with(b"--") {
                return Err(format!("'{}' is not an option with its value in one word", word.to_string_lossy()));
            }
            words.options.push(word);
        }
        words.command = lines.collect();
        Ok(words)
    }

    /// Whether the container that was told so has users of its own.
    #[must_use]
    pub fn own_users(&self) -> bool {
        let last = self.options.iter().rfind(|word| name(word) == "userns");
        last.is_none_or(|word| word == "--userns=private") && !self.options.iter().any(|word| word == "--privileged")
    }

    /// Only what counts.
    #[must_use]
    pub fn only(mut self, what: For) -> Self {
        let names = match what {
            For::Run => return self,
            For::Join => &OF_A_JOIN[..],
            For::Stop => &OF_A_STOP,
        };
        self.options.retain(|word| names.contains(&name(word)));
        self.command.clear();
        self
    }
}

/// `env` of `--env=A=1`.
fn name(word: &OsStr) -> &str {
    let name = word.as_bytes().strip_prefix(b"--").unwrap_or_default();
    std::str::from_utf8(name.split(|&b| b == b'=').next().unwrap_or_default()).unwrap_or_default()
}

/// The words, one a line.
fn list(bytes: &[u8]) -> std::result::Result<Vec<OsString>, String> {
    let Some(text) = bytes.strip_suffix(b"\n") else {
        return if bytes.is_empty() { Ok(Vec::new()) } else { Err("cut off: no line break at the end".to_owned()) };
    };
    text.split(|&b| b == b'\n').map(word).collect()
}

fn word(line: &[u8]) -> std::result::Result<OsString, String> {
    let word = unescape(line).ok_or("a backslash that is neither \\\\ nor \\n")?;
    if word.contains(&0) { Err("a NUL".to_owned()) } else { Ok(OsString::from_vec(word)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// As the store writes them.
    fn written(words: &[Vec<u8>]) -> Vec<u8> {
        words.iter().flat_map(|word| [bocker_common::words::escape(word), b"\n".to_vec()].concat()).collect()
    }

    proptest! {
        /// Any word comes back as it was: line breaks, backslashes, empty ones, no UTF-8.
        #[test]
        fn every_word_comes_back(words in prop::collection::vec(prop::collection::vec(
            prop_oneof![Just(b'\n'), Just(b'\\'), Just(b'n'), 1_u8..], 0..20), 0..10)) {
            let back: Vec<Vec<u8>> = list(&written(&words)).unwrap().into_iter().map(OsString::into_vec).collect();
            prop_assert_eq!(back, words);
        }

        /// What is taken is what its words are written as: nothing has two readings.
        #[test]
        fn one_text_for_one_list(bytes in prop::collection::vec(
            prop_oneof![Just(b'\n'), Just(b'\\'), Just(b'n'), Just(b'-'), any::<u8>()], 0..60)) {
            if let Ok(words) = list(&bytes) {
                let words: Vec<Vec<u8>> = words.into_iter().map(OsString::into_vec).collect();
                prop_assert_eq!(written(&words), bytes);
            }
        }
    }

    #[test]
    fn options_then_the_command() {
        let words = Words::parse(b"--env=A=1\n--init\n--\nsh\n-c\n\necho \\\\ \\n\n--\n").unwrap();
        assert_eq!(words.options, ["--env=A=1", "--init"]);
        assert_eq!(words.command, ["sh", "-c", "", "echo \\ \n", "--"]);
        assert_eq!(Words::parse(b"").unwrap(), Words::default());
        for bad in [&b"--env\nA=1\n"[..], b"x\n", b"--env=A", b"--env=\\x\n", b"--env=\0\n", b"--env=\\\n", b"\n"] {
            assert!(Words::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn whose_the_users_are() {
        let own = |text: &[u8]| Words::parse(text).unwrap().own_users();
        assert!(own(b""));
        assert!(own(b"--userns=host\n--userns=private\n"));
        assert!(!own(b"--userns=host\n"));
        assert!(!own(b"--env=A=1\n--privileged\n--\nsh\n"));
        assert!(own(b"--\n--privileged\n"), "the command's own word");
    }

    #[test]
    fn a_join_takes_who_and_may_only() {
        let all =
            b"--env=A=1\n--init\n--user=5\n--volume=/a:/b\n--environment\n--ulimit=core=0\n--oom-score-adj=3\n--stop-signal=INT\n--\nsh\n";
        let kept = |what| Words::parse(all).unwrap().only(what);
        assert_eq!(kept(For::Join).options, ["--env=A=1", "--user=5", "--ulimit=core=0", "--oom-score-adj=3"]);
        assert!(kept(For::Join).command.is_empty());
        assert_eq!(kept(For::Stop).options, ["--stop-signal=INT"]);
        assert_eq!(kept(For::Run), Words::parse(all).unwrap());
    }
}
