//! Digests and descriptors: how OCI names bytes (image-spec, descriptor.md).

use std::fmt;
use std::str::FromStr;

use sha2::{Digest as _, Sha256};

/// The SHA-256 of some bytes. Only well-formed digests exist, so one is safe in a path or a URL.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// What a hasher that saw all the bytes came to.
    pub(crate) fn from_hasher(hasher: Sha256) -> Self {
        Self(hasher.finalize().into())
    }

    /// 64 lower-case hexadecimal digits, without `sha256:`.
    pub fn hex(&self) -> String {
        use fmt::Write as _;
        self.0.iter().fold(String::with_capacity(64), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        })
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = String;

    /// `sha256:` and 64 lower-case hexadecimal digits, nothing else.
    fn from_str(text: &str) -> Result<Self, String> {
        let Some(hex) = text.strip_prefix("sha256:") else {
            return Err(if text.starts_with("sha512:") {
                "only sha256 digests are known here".into()
            } else {
                "a digest is sha256: and 64 hexadecimal digits".into()
            });
        };
        let digit = |b: u8| match b {
            b'0'..=b'9' => Some(b - b'0'),
            b'a'..=b'f' => Some(b - b'a' + 10),
            _ => None,
        };
        let parse = || {
            let mut bytes = [0; 32];
            if hex.len() != 64 {
                return None;
            }
            for (byte, pair) in bytes.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
                *byte = digit(*pair.first()?)? << 4 | digit(*pair.get(1)?)?;
            }
            Some(Self(bytes))
        };
        parse().ok_or_else(|| "a digest is sha256: and 64 lower-case hexadecimal digits".into())
    }
}

/// What some bytes are, and how to know that they are the right ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptor {
    /// `type/subtype`, checked: it holds no white space or control character.
    pub media_type: String,
    /// SHA-256 of the bytes.
    pub digest: Digest,
    /// Their number.
    pub size: u64,
}

impl Descriptor {
    /// A descriptor from the three texts of a manifest or a record.
    ///
    /// # Errors
    /// What is wrong with which of them.
    pub fn new(media_type: &str, digest: &str, size: u64) -> Result<Self, String> {
        if !is_media_type(media_type) {
            return Err("a media type is not of the form type/subtype".into());
        }
        Ok(Self { media_type: media_type.to_owned(), digest: digest.parse()?, size })
    }
}

/// `type/subtype` in the characters of RFC 6838 section 4.2, at most 255 bytes.
fn is_media_type(text: &str) -> bool {
    let name = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_alphanumeric())
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&b))
    };
    text.len() <= 255 && text.split_once('/').is_some_and(|(left, right)| name(left) && name(right))
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn reads_what_it_writes() {
        assert_eq!(Digest::of(b"").to_string(), EMPTY);
        assert_eq!(EMPTY.parse::<Digest>().unwrap(), Digest::of(b""));
    }

    #[test]
    fn refuses_other_spellings() {
        for text in [
            "",
            "sha256:",
            "sha256:../../../../etc/passwd",
            &EMPTY.to_uppercase(),
            &EMPTY.replace("e3", "E3"),
            &EMPTY[..70],
            &format!("{EMPTY}0"),
            &format!("{EMPTY}\n"),
            &format!(" {EMPTY}"),
            "sha512:00",
            "sha256:éé00c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        ] {
            assert!(text.parse::<Digest>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_media_type_fits_a_record() {
        assert!(Descriptor::new("application/vnd.oci.image.layer.v1.tar+gzip", EMPTY, 0).is_ok());
        for text in
            ["", "/", "a/", "/b", "a", "a/b/c", "a/b\tc", "a/b\nend", "a/b c", &format!("a/{}", "b".repeat(300))]
        {
            assert!(Descriptor::new(text, EMPTY, 0).is_err(), "{text:?}");
        }
    }
}
