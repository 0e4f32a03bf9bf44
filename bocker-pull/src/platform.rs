//! Which of an index's images runs here (image-spec, image-index.md; names as in Go's GOOS and GOARCH).

use std::fmt;
use std::str::FromStr;

use bocker_common::Error;
use bocker_common::diag::USAGE;

/// `OS/ARCH[/VARIANT]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Platform {
    /// `linux`
    pub os: String,
    /// `amd64`, `arm64`, …
    pub arch: String,
    /// `v7`, `v8`, …
    pub variant: Option<String>,
}

impl Platform {
    /// The machine that this runs on.
    pub fn here() -> Self {
        let arch = match std::env::consts::ARCH {
            "powerpc64" if cfg!(target_endian = "little") => "ppc64le",
            other => go_name(other),
        };
        Self { os: "linux".into(), arch: arch.into(), variant: None }
    }

    /// The variants that do, best first; the empty one is an entry that names none.
    pub fn variants(&self) -> Vec<&str> {
        match (self.arch.as_str(), self.variant.as_deref()) {
            // Every amd64 runs v1, every arm64 v8: most entries leave these out.
            ("amd64", None | Some("v1")) => vec!["", "v1"],
            ("arm64", None | Some("v8")) => vec!["v8", ""],
            ("arm", None | Some("v7")) => vec!["v7", "v6", "v5", ""],
            ("arm", Some("v8")) => vec!["v8", "v7", "v6", "v5", ""],
            ("arm", Some("v6")) => vec!["v6", "v5", ""],
            (_, None) => vec![""],
            (_, Some(variant)) => vec![variant],
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.arch)?;
        self.variant.iter().try_for_each(|variant| write!(f, "/{variant}"))
    }
}

impl FromStr for Platform {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let good = |word: &&str| {
            (1..=32).contains(&word.len()) && word.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
        };
        let words: Vec<&str> = text.split('/').filter(good).collect();
        match (words.as_slice(), text.split('/').count()) {
            ([os, arch], 2) => Ok(Self { os: (*os).into(), arch: go_name(arch).into(), variant: None }),
            ([os, arch, variant], 3) => {
                Ok(Self { os: (*os).into(), arch: go_name(arch).into(), variant: Some((*variant).into()) })
            }
            _ => {
                let shown: String = text.chars().take(64).collect();
                Err(Error::plain(format!("'{shown}' is not a platform (they look like linux/amd64 or linux/arm/v7)"))
                    .status(USAGE))
            }
        }
    }
}

/// Rust's and the kernel's names for architectures, in Go's words, which images use.
fn go_name(arch: &str) -> &str {
    match arch {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" | "i386" | "i686" => "386",
        "loongarch64" => "loong64",
        "powerpc64" => "ppc64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        for text in ["linux/amd64", "linux/arm/v7"] {
            assert_eq!(text.parse::<Platform>().unwrap().to_string(), text);
        }
        assert_eq!("linux/x86_64".parse::<Platform>().unwrap().to_string(), "linux/amd64");
        assert!(!Platform::here().arch.is_empty());
    }

    #[test]
    fn refuses_everything_else() {
        for text in
            ["", "linux", "linux/", "/amd64", "linux/amd64/", "linux/arm/v7/x", "a b/c", "linux/\"", &"a/b".repeat(99)]
        {
            assert_eq!(text.parse::<Platform>().unwrap_err().exit_status(), USAGE, "{text:?}");
        }
    }
}
