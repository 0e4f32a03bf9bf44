//! A layer's bytes on their way to the disk, as a pipe would have it: one thread reads and verifies what comes, one
//! inflates it, and the caller's applies it. Each waits only for the one before; between them a few pieces lie at most.

use std::io::{self, BufRead, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::Scope;

use bocker_common::packed;

/// Bytes of a piece.
const PIECE: usize = 256 << 10;
/// Pieces that may lie between two threads: 4 MiB, enough for the applying thread to wait for the disk a little.
const WAITING: usize = 16;

/// What another thread reads, in order, with the error that ended it.
#[derive(Debug)]
pub(crate) struct Pieces {
    from: Receiver<io::Result<Vec<u8>>>,
    piece: Vec<u8>,
    at: usize,
}

impl BufRead for Pieces {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at == self.piece.len() {
            self.at = 0;
            // A closed channel is the end.
            self.piece = self.from.recv().unwrap_or_else(|_| Ok(Vec::new()))?;
        }
        Ok(&self.piece[self.at..])
    }

    fn consume(&mut self, bytes: usize) {
        self.at += bytes;
    }
}

impl Read for Pieces {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let here = self.fill_buf()?;
        let count = here.len().min(into.len());
        into[..count].copy_from_slice(&here[..count]);
        self.consume(count);
        Ok(count)
    }
}

/// Reads on a thread of its own. It ends when the reader does, or nobody wants more.
pub(crate) fn pump<'scope>(scope: &'scope Scope<'scope, '_>, from: impl Read + Send + 'scope) -> Pieces {
    let (to, pieces) = sync_channel(WAITING);
    scope.spawn(move || read_all(from, &to));
    Pieces { from: pieces, piece: Vec::new(), at: 0 }
}

fn read_all(mut from: impl Read, to: &SyncSender<io::Result<Vec<u8>>>) {
    loop {
        let mut piece = Vec::with_capacity(PIECE);
        let read = from.by_ref().take(PIECE as u64).read_to_end(&mut piece);
        let ended = read.is_err() || piece.is_empty();
        // What came before an error counts as well.
        if !piece.is_empty() && to.send(Ok(piece)).is_err() {
            return;
        }
        if let Err(error) = read {
            let _ = to.send(Err(error));
        }
        if ended {
            return;
        }
    }
}

/// An archive out of its compressed form. What the bytes are decides, not the media type, as everywhere; a layer's diff id
/// is checked in any case.
///
/// # Errors
/// The bytes cannot be read.
pub(crate) fn inflate<'scope>(
    scope: &'scope Scope<'scope, '_>,
    bytes: impl BufRead + Send + 'scope,
) -> io::Result<Box<dyn Read + 'scope>> {
    Ok(match packed::open(bytes)? {
        (true, packed) => Box::new(pump(scope, packed)),
        (false, plain) => plain,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn through(blob: Vec<u8>) -> io::Result<Vec<u8>> {
        std::thread::scope(|scope| {
            let mut out = Vec::new();
            inflate(scope, pump(scope, &blob[..]))?.read_to_end(&mut out).map(|_| out)
        })
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        flate2::bufread::GzEncoder::new(bytes, flate2::Compression::fast()).read_to_end(&mut out).unwrap();
        out
    }

    #[test]
    fn all_three_kinds_come_out_whole() {
        for length in [0, 1, 3, PIECE - 1, PIECE, PIECE + 1, 20 * PIECE + 7] {
            let plain: Vec<u8> = (0..length).map(|n| (n * n / 7) as u8).collect();
            assert_eq!(through(plain.clone()).unwrap(), plain, "plain {length}");
            assert_eq!(through(gzip(&plain)).unwrap(), plain, "gzip {length}");
            assert_eq!(through(zstd::encode_all(&plain[..], 1).unwrap()).unwrap(), plain, "zstd {length}");
            // Several members and frames are one stream.
            assert_eq!(through([gzip(&plain), gzip(b"more")].concat()).unwrap(), [&plain[..], b"more"].concat());
            let frames = [zstd::encode_all(&plain[..], 1).unwrap(), zstd::encode_all(&b"more"[..], 1).unwrap()];
            assert_eq!(through(frames.concat()).unwrap(), [&plain[..], b"more"].concat());
        }
    }

    #[test]
    fn what_ends_early_is_an_error() {
        let plain = vec![7; 3 * PIECE];
        for blob in [gzip(&plain), zstd::encode_all(&plain[..], 1).unwrap()] {
            for cut in [5, blob.len() / 2, blob.len() - 1] {
                assert!(through(blob[..cut].to_vec()).is_err(), "cut at {cut}");
            }
        }
    }

    #[test]
    fn a_zstd_window_has_a_limit() {
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(28).unwrap();
        encoder.include_contentsize(false).unwrap();
        std::io::Write::write_all(&mut encoder, &[7; 1000]).unwrap();
        let error = through(encoder.finish().unwrap()).unwrap_err().to_string();
        assert!(error.contains("memory"), "{error}");
    }

    #[test]
    fn nobody_who_wants_more_ends_the_threads() {
        // Would not return otherwise.
        std::thread::scope(|scope| {
            let mut pieces = pump(scope, io::repeat(7));
            assert_eq!(pieces.fill_buf().unwrap().len(), PIECE);
        });
    }
}
