//! The payload's environment. It starts empty: nothing of the caller's reaches the container.

use std::ffi::{CString, OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use bocker_common::{Error, Result};

/// docker's, where the image sets none.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Variables in the order in which they were first set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Environment(Vec<(OsString, OsString)>);

impl Environment {
    /// PATH, HOME and HOSTNAME, then the image's, then the caller's `--env`: the later wins.
    ///
    /// # Errors
    /// An entry without `=`, with an empty name, or with a NUL: an image's `FOO` or `*` never means "the host's"
    /// (CVE-2026-57231).
    pub fn new(home: &OsStr, hostname: &OsStr, image: &[String], given: &[OsString]) -> Result<Self> {
        let mut all = Self(Vec::new());
        all.set("PATH".into(), PATH.into());
        all.set("HOME".into(), home.into());
        all.set("HOSTNAME".into(), hostname.into());
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

    fn entries(image: &[&str], given: &[&str]) -> Result<Vec<OsString>> {
        let image: Vec<String> = image.iter().map(ToString::to_string).collect();
        let given: Vec<OsString> = given.iter().map(OsString::from).collect();
        Ok(Environment::new(OsStr::new("/root"), OsStr::new("h"), &image, &given)?.entries().collect())
    }

    #[test]
    fn the_later_wins() {
        let all = entries(&["PATH=/bin", "A=1", "A=2", "E="], &["A=3=4", "HOME=/x"]).unwrap();
        assert_eq!(all, ["PATH=/bin", "HOME=/x", "HOSTNAME=h", "A=3=4", "E="]);
    }

    #[test]
    fn nothing_is_imported() {
        for bad in ["HOME", "*", "PATH*", "", "=x", "A\0=b"] {
            assert!(entries(&[bad], &[]).is_err(), "{bad:?}");
            assert!(entries(&[], &[bad]).is_err(), "{bad:?}");
        }
    }
}
