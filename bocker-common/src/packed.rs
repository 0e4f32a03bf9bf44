//! Bytes out of their compressed form: gzip and zstd, in this process. What the bytes are decides, not what they are called.

use std::io::{self, BufRead, Cursor, Read};

use flate2::bufread::MultiGzDecoder;

use crate::tarball::bad;

/// log2 of the window that a zstd frame may ask for: 128 MiB, the most that `zstd -d` gives without being asked.
const ZSTD_WINDOW: u32 = 27;
/// As many of the first bytes as it takes: a tar archive may begin with a file that is called `BZh9`.
const START: u64 = 10;

/// Bytes that were looked at.
pub enum Opened<'a> {
    /// They are compressed: what is in them.
    Packed(Box<dyn Read + Send + 'a>),
    /// They are not: they themselves.
    Plain(Box<dyn BufRead + Send + 'a>),
}

impl<'a> Opened<'a> {
    /// To read, whatever they were.
    pub fn reader(self) -> Box<dyn Read + Send + 'a> {
        match self {
            Self::Packed(packed) => packed,
            Self::Plain(plain) => Box::new(plain),
        }
    }
}

/// What is in `from`, if it is compressed. Members and frames that follow each other are one stream; anything else
/// after the last one is an error of the reader's, as is an end that comes too early.
///
/// # Errors
/// Of `from`; it is compressed by bzip2 or xz, which are left to their programs.
pub fn open<'a>(mut from: impl BufRead + Send + 'a) -> io::Result<Opened<'a>> {
    let mut start = Vec::new();
    from.by_ref().take(START).read_to_end(&mut start)?;
    let from = |start| Cursor::new(start).chain(from);
    Ok(match start.as_slice() {
        [0x1f, 0x8b, ..] => Opened::Packed(Box::new(MultiGzDecoder::new(from(start)))),
        // A frame, or one that is to be skipped, as pzstd has it first.
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => {
            let mut zstd = zstd::stream::read::Decoder::with_buffer(from(start))?;
            zstd.window_log_max(ZSTD_WINDOW)?;
            Opened::Packed(Box::new(zstd))
        }
        [b'B', b'Z', b'h', b'1'..=b'9', b'1', b'A', b'Y', b'&', b'S', b'Y'] => return Err(by("bzip2")),
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => return Err(by("xz")),
        _ => Opened::Plain(Box::new(from(start))),
    })
}

fn by(program: &str) -> io::Error {
    bad(format!("it is compressed by {program} ({program} -dc FILE |)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn through(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        open(bytes)?.reader().read_to_end(&mut out).map(|_| out)
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        flate2::bufread::GzEncoder::new(bytes, flate2::Compression::fast()).read_to_end(&mut out).unwrap();
        out
    }

    fn zstd(bytes: &[u8]) -> Vec<u8> {
        zstd::encode_all(bytes, 1).unwrap()
    }

    #[test]
    fn what_follows_the_last_member_is_refused() {
        // A frame that is skipped: its magic, its length, that many bytes.
        let skipped = b"\x50\x2a\x4d\x18\x02\0\0\0xy";
        for packed in [gzip(b"one"), [gzip(b"o"), gzip(b""), gzip(b"ne")].concat(), zstd(b"one")] {
            assert_eq!(through(&packed).unwrap(), b"one");
            for more in [&b"x"[..], b"\0", &[0; 512], b"\x1f", &packed[..packed.len() - 1], &gzip(b"")[..5]] {
                assert!(through(&[&packed[..], more].concat()).is_err(), "{more:?}");
            }
        }
        assert_eq!(through(&[skipped, &zstd(b"o")[..], skipped, &zstd(b"ne")].concat()).unwrap(), b"one");
    }

    #[test]
    fn what_is_plain_passes() {
        for plain in [&b""[..], b"B", b"BZh9", b"BZh91AY&S", b"\x1f", b"\x28\xb5\x2f", b"a tar archive"] {
            assert_eq!(through(plain).unwrap(), plain);
            assert!(matches!(open(plain).unwrap(), Opened::Plain(_)));
        }
    }

    #[test]
    fn others_are_named() {
        for (bytes, program) in [(&b"BZh91AY&SY\0"[..], "bzip2"), (b"\xfd7zXZ\0\0\x04", "xz")] {
            let error = through(bytes).unwrap_err().to_string();
            assert_eq!(error, format!("it is compressed by {program} ({program} -dc FILE |)"));
        }
    }

    #[test]
    fn a_byte_at_a_time_is_the_same() {
        struct Slow<'a>(&'a [u8]);
        impl Read for Slow<'_> {
            fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
                let one = into.len().min(1);
                self.0.read(&mut into[..one])
            }
        }
        for packed in [gzip(b"one"), zstd(b"one")] {
            let mut out = Vec::new();
            open(io::BufReader::new(Slow(&packed))).unwrap().reader().read_to_end(&mut out).unwrap();
            assert_eq!(out, b"one");
        }
    }
}
