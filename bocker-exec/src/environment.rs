//! The payload's environment. It starts empty: nothing of the caller's reaches the container.

use std::ffi::{CString, OsStr, OsString};
use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use bocker_common::diag::Reason;
use bocker_common::{Error, Result};

use crate::sys;

/// docker's, where the image sets none.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Variables in the order in which they were first set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Environment(Vec<(OsString, OsString)>);

impl Environment {
    /// PATH, HOME and HOSTNAME, TERM for a terminal (docker's value), then the image's, then the caller's `--env`: the later wins.
    ///
    /// # Errors
    /// An entry without `=`, with an empty name, or with a NUL: an image's `FOO` or `*` never means "the host's"
    /// (CVE-2026-57231).
    pub fn new(home: &OsStr, hostname: &OsStr, tty: bool, image: &[String], given: &[OsString]) -> Result<Self> {
        let mut all = Self(Vec::new());
        all.set("PATH".into(), PATH.into());
        all.set("HOME".into(), home.into());
        all.set("HOSTNAME".into(), hostname.into());
        if tty {
            all.set("TERM".into(), "xterm".into());
        }
        for (from, entry) in image
            .iter()
            .map(|e| ("the image's Env", OsStr::new(e)))
            .chain(given.iter().map(|e| ("--env", e.as_os_str())))
        {
            let (key, value) = split(entry).ok_or_else(|| {
                Error::new("read", from, format!("'{}' is not KEY=VALUE", crate::inroot::shown(entry)))
            })?;
            all.set(key, value);
        }
        Ok(all)
    }

    fn set(&mut self, key: OsString, value: OsString) {
        match self.0.iter_mut().find(|(k, _)| *k == key) {
            Some(entry) => entry.1 = value,
            None => self.0.push((key, value)),
        }
    }

    /// The value of PATH, for finding the command.
    pub fn path(&self) -> &OsStr {
        self.0.iter().find(|(key, _)| key == "PATH").map_or(OsStr::new(PATH), |(_, value)| value)
    }

    /// `KEY=VALUE` each, for `env(1)` and `execve(2)`.
    pub fn entries(&self) -> impl Iterator<Item = OsString> {
        self.0.iter().map(|(key, value)| {
            let mut entry = key.clone();
            entry.push("=");
            entry.push(value);
            entry
        })
    }

    /// As `execve(2)` takes it.
    pub fn to_c(&self) -> Vec<CString> {
        // No entry has a NUL: `split` refuses them.
        self.entries().filter_map(|entry| CString::new(entry.into_vec()).ok()).collect()
    }
}

/// More than the kernel takes as an environment, execve(2).
const MOST: u64 = 4 << 20;

/// What `--env-fd` has, to its end: entries with a NUL after each, as in /proc/PID/environ. It is closed then.
///
/// # Errors
/// One line: no such descriptor, more than 4 MiB, no NUL at the end.
pub fn read(number: i32) -> Result<Vec<OsString>> {
    let fail = |why: Reason| Error::new("read", format!("--env-fd {number}"), why);
    let file = std::fs::File::from(sys::duplicate(number).map_err(|e| fail(e.into()))?);
    sys::close(number);
    let mut bytes = Vec::new();
    file.take(MOST + 1).read_to_end(&mut bytes).map_err(|e| fail(e.into()))?;
    if bytes.len() as u64 > MOST {
        return Err(fail("larger than 4 MiB".into()));
    }
    entries(&bytes).ok_or_else(|| fail("cut off: no NUL at the end".into()))
}

fn entries(bytes: &[u8]) -> Option<Vec<OsString>> {
    if bytes.is_empty() {
        return Some(Vec::new());
    }
    let all = bytes.strip_suffix(b"\0")?.split(|&b| b == 0);
    Some(all.map(|entry| OsString::from_vec(entry.to_vec())).collect())
}

fn split(entry: &OsStr) -> Option<(OsString, OsString)> {
    let bytes = entry.as_bytes();
    let at = bytes.iter().position(|&b| b == b'=')?;
    if at == 0 || bytes.contains(&0) {
        return None;
    }
    Some((OsStr::from_bytes(&bytes[..at]).to_owned(), OsStr::from_bytes(&bytes[at + 1..]).to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(image: &[&str], given: &[&str]) -> Result<Vec<OsString>> {
        let image: Vec<String> = image.iter().map(ToString::to_string).collect();
        let given: Vec<OsString> = given.iter().map(OsString::from).collect();
        Ok(Environment::new(OsStr::new("/root"), OsStr::new("h"), false, &image, &given)?.entries().collect())
    }

    #[test]
    fn the_later_wins() {
        let all = all(&["PATH=/bin", "A=1", "A=2", "E="], &["A=3=4", "HOME=/x"]).unwrap();
        assert_eq!(all, ["PATH=/bin", "HOME=/x", "HOSTNAME=h", "A=3=4", "E="]);
    }

    #[test]
    fn nothing_is_imported() {
        for bad in ["HOME", "*", "PATH*", "", "=x", "A\0=b"] {
            assert!(all(&[bad], &[]).is_err(), "{bad:?}");
            assert!(all(&[], &[bad]).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn entries_end_in_a_nul() {
        for (bytes, expected) in [
            (&b""[..], Some(vec![])),
            (b"A=1\0", Some(vec!["A=1"])),
            (b"A=1\n\0B=\0", Some(vec!["A=1\n", "B="])),
            (b"A=1", None),
        ] {
            assert_eq!(entries(bytes), expected.map(|all| all.into_iter().map(OsString::from).collect()), "{bytes:?}");
        }
        // An empty one is no entry, and is refused as such.
        assert_eq!(entries(b"A=1\0\0").unwrap()[1], "");
    }
}
