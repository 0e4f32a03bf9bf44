//! The OCI image configuration: what the image wants to be run as.
//! <https://github.com/opencontainers/image-spec/blob/v1.1.1/config.md>

use std::ffi::OsString;
use std::io::Read;
use std::path::Path;

use bocker_common::{Error, Result};
use serde::Deserialize;

/// More than any real configuration; the image made this file.
const MOST: u64 = 4 << 20;

#[derive(Debug, Default, Deserialize)]
struct Image {
    config: Option<Config>,
}

/// The `config` object. What is missing, `null` or empty means "not set".
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Config {
    /// `KEY=VALUE` each.
    pub env: Option<Vec<String>>,
    /// Comes before the command.
    pub entrypoint: Option<Vec<String>>,
    /// The command, where none is given.
    pub cmd: Option<Vec<String>>,
    /// The working directory.
    pub working_dir: Option<String>,
    /// `NAME|UID[:GROUP|GID]`
    pub user: Option<String>,
    /// What ends it: a name or a number.
    pub stop_signal: Option<String>,
}

/// Reads the file; without one, nothing is set.
///
/// # Errors
/// One line for a file that cannot be read, is larger than 4 MiB, or is no image configuration.
#[expect(clippy::disallowed_methods, reason = "the caller's word: beside the root, not in it")]
pub fn read(file: Option<&Path>) -> Result<Config> {
    let Some(path) = file else { return Ok(Config::default()) };
    let fail = |why: String| Error::new("read", path.display(), why);
    let mut bytes = Vec::new();
    let opened = std::fs::File::open(path).map_err(|e| Error::new("read", path.display(), e))?;
    opened.take(MOST + 1).read_to_end(&mut bytes).map_err(|e| Error::new("read", path.display(), e))?;
    if bytes.len() as u64 > MOST {
        return Err(fail("larger than 4 MiB".to_owned()));
    }
    parse(&bytes).map_err(fail)
}

fn parse(bytes: &[u8]) -> std::result::Result<Config, String> {
    let image: Image = serde_json::from_slice(bytes).map_err(|e| format!("not an image configuration: {e}"))?;
    let config = image.config.unwrap_or_default();
    let lists = [&config.env, &config.entrypoint, &config.cmd];
    let words = lists.into_iter().flatten().flatten().chain(&config.working_dir).chain(&config.user);
    // JSON can say NUL; no argument, variable or path can hold one.
    if let Some(bad) = words.into_iter().find(|word| word.contains('\0')) {
        return Err(format!("'{bad}' contains a NUL"));
    }
    Ok(config)
}

/// The words to execute: COMMAND in place of ENTRYPOINT and CMD, or these two.
///
/// # Errors
/// When there are none.
pub fn command(given: &[OsString], config: &Config) -> Result<Vec<OsString>> {
    let words: Vec<OsString> = if given.is_empty() {
        let image = config.entrypoint.iter().chain(&config.cmd).flatten();
        image.map(OsString::from).collect()
    } else {
        given.to_vec()
    };
    if words.is_empty() {
        return Err(Error::plain("no command given, and the image has no ENTRYPOINT or CMD"));
    }
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_docker_writes() {
        let text = br#"{"architecture":"amd64","config":{"Env":["PATH=/bin"],"Entrypoint":null,"Cmd":["sh","-c","a b"],
            "WorkingDir":"","Labels":{"x":"y"},"User":"1000:5"},"rootfs":{"type":"layers"}}"#;
        let config = parse(text).unwrap();
        assert_eq!(config.env.as_deref(), Some(&["PATH=/bin".to_owned()][..]));
        assert_eq!(command(&[], &config).unwrap(), ["sh", "-c", "a b"]);
        assert_eq!(command(&["true".into()], &config).unwrap(), ["true"]);
        assert_eq!(parse(b"{}").unwrap(), Config::default());
        assert_eq!(parse(br#"{"config":null}"#).unwrap(), Config::default());
    }

    #[test]
    fn entrypoint_then_cmd() {
        let config = parse(br#"{"config":{"Entrypoint":["/e","1"],"Cmd":["2"]}}"#).unwrap();
        assert_eq!(command(&[], &config).unwrap(), ["/e", "1", "2"]);
        assert_eq!(command(&["/c".into()], &config).unwrap(), ["/c"]);
        assert!(command(&[], &Config::default()).is_err());
    }

    #[test]
    fn refuses_what_is_none() {
        let deep = "[".repeat(100_000);
        for bad in ["", "[]x", "\"x\"", "{\"config\":[1]}", "{\"config\":{\"Env\":\"A=b\"}}", &deep] {
            assert!(parse(bad.as_bytes()).is_err(), "{bad:.40}");
        }
        assert!(parse(br#"{"config":{"Cmd":["a\u0000b"]}}"#).unwrap_err().contains("NUL"));
    }
}
