//! Layers' bytes on their way to the disk, as a pipe would have it: one thread reads and verifies blobs, one inflates them, and
//! one applies what is in them. Each waits only for the one before, and goes on with the next layer while the one after it waits
//! for the disk; between them a few pieces lie at most.

use std::io::{self, BufRead, Read};
use std::ops::Range;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::Scope;

use bocker_common::packed::{self, Opened};
use sha2::{Digest as _, Sha256};

use crate::oci::Digest;

/// Bytes of a piece.
const PIECE: usize = 256 << 10;
/// Pieces that may lie before whoever inflates: 4 MiB.
const PACKED: usize = 16;
/// Pieces that may lie before whoever applies them: 32 MiB, for between two layers that one waits for the disk.
const PLAIN: usize = 128;

/// What is sent: streams, one after the other, each of them called `H`.
#[derive(Debug)]
enum Item<H> {
    Begin(H),
    /// A buffer of [`PIECE`] bytes, and how many of them count.
    Piece(Vec<u8>, usize),
    End,
    /// It cannot be read on.
    Failed(io::Error),
}

/// Where streams go in. Without its end a stream is an error to who reads it.
#[derive(Debug)]
pub(crate) struct Feed<H> {
    to: SyncSender<Item<H>>,
    /// Buffers that have been read: taken again, nobody has to clear new ones.
    back: Receiver<Vec<u8>>,
}

/// Where they come out, in order.
#[derive(Debug)]
pub(crate) struct Pieces<H> {
    from: Receiver<Item<H>>,
    back: Sender<Vec<u8>>,
    piece: Vec<u8>,
    /// What of it has not been read.
    left: Range<usize>,
    /// A stream has begun and not ended.
    within: bool,
}

/// A way from one thread to another, on which so many pieces may lie.
fn way<H>(waiting: usize) -> (Feed<H>, Pieces<H>) {
    let (to, from) = sync_channel(waiting);
    let (give, back) = channel();
    (Feed { to, back }, Pieces { from, back: give, piece: Vec::new(), left: 0..0, within: false })
}

/// A way for layers' blobs.
pub(crate) fn feed<H>() -> (Feed<H>, Pieces<H>) {
    way(PACKED)
}

impl<H> Feed<H> {
    /// The next stream begins. False: nobody wants it.
    pub(crate) fn begin(&self, head: H) -> bool {
        self.to.send(Item::Begin(head)).is_ok()
    }

    /// Sends on all that there is to read. False: nobody wants more.
    ///
    /// # Errors
    /// The reader's, after what came before it was sent.
    pub(crate) fn all(&self, from: &mut impl Read) -> io::Result<bool> {
        let mut more = Ok(true);
        while let Ok(true) = more {
            let mut piece = self.back.try_recv().unwrap_or_else(|_| vec![0; PIECE]);
            let mut length = 0;
            while length < PIECE && matches!(more, Ok(true)) {
                match from.read(&mut piece[length..]) {
                    Ok(0) => more = Ok(false),
                    Ok(read) => length += read,
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    Err(e) => more = Err(e),
                }
            }
            if length > 0 && self.to.send(Item::Piece(piece, length)).is_err() {
                return Ok(false);
            }
        }
        more.map(|_| true)
    }

    /// That was all of it.
    pub(crate) fn end(&self) {
        let _ = self.to.send(Item::End);
    }

    /// It cannot be read on.
    fn fail(&self, error: io::Error) {
        let _ = self.to.send(Item::Failed(error));
    }
}

impl<H> Pieces<H> {
    /// What is called so comes next, and can be read; None: nothing comes. What was not read of the one before is passed over.
    pub(crate) fn next(&mut self) -> Option<H> {
        loop {
            if let Item::Begin(head) = self.from.recv().ok()? {
                (self.left, self.within) = (0..0, true);
                return Some(head);
            }
        }
    }
}

impl<H> BufRead for Pieces<H> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.left.is_empty() && self.within {
            let read = std::mem::take(&mut self.piece);
            self.left = 0..0;
            if !read.is_empty() {
                let _ = self.back.send(read);
            }
            match self.from.recv() {
                Ok(Item::Piece(piece, length)) => (self.piece, self.left) = (piece, 0..length),
                Ok(Item::End) => self.within = false,
                Ok(Item::Failed(error)) => return Err(error),
                // Whoever feeds us has an error of its own to tell.
                Ok(Item::Begin(_)) | Err(_) => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
        Ok(&self.piece[self.left.clone()])
    }

    fn consume(&mut self, bytes: usize) {
        self.left.start += bytes;
    }
}

impl<H> Read for Pieces<H> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.fill_buf()?.read(into)?;
        self.consume(count);
        Ok(count)
    }
}

/// Hashes what is read through it.
#[derive(Debug)]
pub(crate) struct Hashed<R> {
    inner: R,
    hasher: Sha256,
}

impl<R: Read> Hashed<R> {
    pub(crate) fn new(inner: R) -> Self {
        Self { inner, hasher: Sha256::new() }
    }

    /// Reads what is left and gives the digest of all.
    pub(crate) fn finish(mut self) -> io::Result<Digest> {
        io::copy(&mut self, &mut io::sink())?;
        Ok(Digest::finish(self.hasher))
    }
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(into)?;
        self.hasher.update(&into[..read]);
        Ok(read)
    }
}

/// Archives out of blobs, by a thread of its own. What the bytes are decides, not the media type, as everywhere. The thread ends
/// with the blobs, or soon after nobody wants more.
pub(crate) fn inflate<'scope, H: Send + 'scope>(scope: &'scope Scope<'scope, '_>, mut blobs: Pieces<H>) -> Archives<H> {
    let (feed, plain) = way(PLAIN);
    scope.spawn(move || {
        while let Some(head) = blobs.next() {
            if !feed.begin(head) {
                return;
            }
            match packed::open(&mut blobs).and_then(|archive| feed.all(&mut archive.reader())) {
                Ok(true) => feed.end(),
                Ok(false) => return,
                Err(error) => return feed.fail(error),
            }
        }
    });
    Archives { plain, hasher: Sha256::new() }
}

/// What is inflated, and at the end of each archive its digest. It is taken where the bytes are used: the thread that inflates has
/// more to do than all others, and what has just been hashed lies in the cache of the processor that writes it.
#[derive(Debug)]
pub(crate) struct Archives<H> {
    plain: Pieces<H>,
    hasher: Sha256,
}

impl<H> Archives<H> {
    /// As [`Pieces::next`].
    pub(crate) fn next(&mut self) -> Option<H> {
        self.hasher = Sha256::new();
        self.plain.next()
    }

    /// Reads the rest, and gives the digest of all; None: the rest has `most` bytes or more.
    ///
    /// # Errors
    /// The rest cannot be read.
    pub(crate) fn finish(&mut self, most: u64) -> io::Result<Option<Digest>> {
        if io::copy(&mut self.take(most), &mut io::sink())? == most {
            return Ok(None);
        }
        Ok(Some(Digest::finish(std::mem::take(&mut self.hasher))))
    }
}

impl<H> BufRead for Archives<H> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        let is_new = self.plain.left.is_empty();
        let bytes = self.plain.fill_buf()?;
        if is_new {
            self.hasher.update(bytes);
        }
        Ok(bytes)
    }

    fn consume(&mut self, bytes: usize) {
        self.plain.consume(bytes);
    }
}

impl<H> Read for Archives<H> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.fill_buf()?.read(into)?;
        self.consume(count);
        Ok(count)
    }
}

/// An archive that may be compressed. One that is not needs no thread.
///
/// # Errors
/// The bytes cannot be read.
pub(crate) fn archive<'scope>(
    scope: &'scope Scope<'scope, '_>,
    bytes: impl BufRead + Send + 'scope,
) -> io::Result<Box<dyn BufRead + 'scope>> {
    let mut packed = match packed::open(bytes)? {
        Opened::Packed(packed) => packed,
        Opened::Plain(plain) => return Ok(plain),
    };
    let (feed, mut pieces) = way(PACKED);
    feed.begin(());
    pieces.next();
    scope.spawn(move || match feed.all(&mut packed) {
        Ok(_) => feed.end(),
        Err(error) => feed.fail(error),
    });
    Ok(Box::new(pieces))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn through(blob: Vec<u8>) -> io::Result<Vec<u8>> {
        let blob = blob.as_slice();
        std::thread::scope(|scope| {
            let mut out = Vec::new();
            archive(scope, blob)?.read_to_end(&mut out)?;
            let (feed, blobs) = feed();
            let mut archives = inflate(scope, blobs);
            scope.spawn(move || {
                for head in 0..2 {
                    feed.begin(head);
                    let _ = feed.all(&mut { blob });
                    feed.end();
                }
            });
            for head in 0..2 {
                assert_eq!(archives.next(), Some(head));
                let mut again = vec![0; out.len()];
                archives.read_exact(&mut again)?;
                assert_eq!(again, out);
                assert_eq!(archives.finish(1)?, Some(Digest::of(&out)));
            }
            assert_eq!(archives.next(), None);
            Ok(out)
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
    fn who_does_not_say_that_it_was_all_is_an_error() {
        for blob in [gzip(b"whole"), zstd::encode_all(&b"whole"[..], 1).unwrap(), b"whole".to_vec()] {
            for end in [false, true] {
                let read = std::thread::scope(|scope| {
                    let (feed, blobs) = feed();
                    let mut archives = inflate(scope, blobs);
                    assert!(feed.begin(()) && feed.all(&mut &blob[..]).unwrap());
                    if end {
                        feed.end();
                    }
                    drop(feed);
                    archives.next().unwrap();
                    let read = archives.finish(100);
                    assert_eq!(archives.next(), None);
                    read
                });
                assert_eq!(read.ok(), end.then(|| Some(Digest::of(b"whole"))));
            }
        }
    }

    #[test]
    fn what_was_not_read_is_passed_over() {
        let (feed, mut pieces) = feed();
        for head in 0..3 {
            assert!(feed.begin(head) && feed.all(&mut io::repeat(head).take(2 * PIECE as u64)).unwrap());
            feed.end();
        }
        assert_eq!(pieces.next(), Some(0));
        assert_eq!(pieces.fill_buf().unwrap()[0], 0);
        assert_eq!((pieces.next(), pieces.next()), (Some(1), Some(2)));
        assert_eq!(pieces.fill_buf().unwrap()[0], 2);
    }

    #[test]
    fn nobody_who_wants_more_ends_the_threads() {
        // Would not return otherwise.
        std::thread::scope(|scope| {
            let (feed, blobs) = feed();
            let fed = scope.spawn(move || feed.begin(()) && feed.all(&mut io::repeat(7)).unwrap());
            let mut archives = inflate(scope, blobs);
            archives.next().unwrap();
            assert_eq!(archives.fill_buf().unwrap().len(), PIECE);
            drop(archives);
            assert!(!fed.join().unwrap());
        });
    }

    #[test]
    fn the_rest_has_an_end() {
        for (length, whole) in [(99, true), (100, false), (101, false)] {
            let (feed, plain) = feed();
            let mut archives = Archives { plain, hasher: Sha256::new() };
            assert!(feed.begin(()) && feed.all(&mut io::repeat(7).take(length)).unwrap());
            feed.end();
            archives.next().unwrap();
            assert_eq!(archives.finish(100).unwrap().is_some(), whole, "{length}");
        }
    }
}
