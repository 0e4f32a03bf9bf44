//! `logs`: what a container has said, its stdout to stdout and its stderr to stderr.
//!
//! The file `log` beside `rootfs`, and before it those that it was until they were full: `log.1`, `log.2`, …, the oldest
//! with the highest number. Each record is a line in the format of the CRI (kubelet's, podman's k8s-file):
//! `2026-11-25T14:06:02.123456789Z stdout F text`; F: a whole line, or the end of one; P: a part, without a line break. What is
//! no such line (a log of an older bocker) is printed as it is. Nothing is kept but one buffer: a line may be 200 MB long.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::os::unix::net::UnixStream;

use bocker_common::{Error, Id, Kind, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::fs::{FileType, FlockOperation, Mode, OFlags, inotify};
use rustix::io::Errno;

use crate::export::DIRECTORY;
use crate::layer::{by_number, lstat};
use crate::store::{Store, to_nix};
use crate::verbs::for_terminal;
use crate::when::Moment;

const LOG: &str = "log";
/// Bytes read and written at once.
const PIECE: usize = 64 << 10;
/// Bytes that a record's head can have: time, stream, tag.
const HEAD: usize = 64;

/// Which lines, and how.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Wanted {
    /// Go on with what comes, until the container has ended
    #[arg(long, short)]
    follow: bool,
    /// The last N lines only
    #[arg(long, short = 'n', value_name = "N|all", default_value = "all", value_parser = tail)]
    tail: Tail,
    /// Lines since then: 2026-11-25T14:06:02Z, seconds since 1970, or how long ago, as 10m
    #[arg(long, value_name = "TIME", value_parser = Moment::typed)]
    since: Option<Moment>,
    /// Lines until then
    #[arg(long, value_name = "TIME", value_parser = Moment::typed)]
    until: Option<Moment>,
    /// Begin each line with its time
    #[arg(long, short)]
    timestamps: bool,
}

/// How many lines, from the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tail {
    All,
    Last(u64),
}

fn tail(text: &str) -> std::result::Result<Tail, String> {
    match text {
        "all" => Ok(Tail::All),
        _ => text.parse().map(Tail::Last).map_err(|_| "a number of lines, or all".to_owned()),
    }
}

/// Where a record came from, and goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stream {
    Stdout = 0,
    Stderr = 1,
}

/// What stands before a record's text.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Head {
    /// Where in the line the time stands.
    time: Range<usize>,
    moment: Moment,
    stream: Stream,
    /// The text is not the end of a line.
    part: bool,
    /// Bytes before the text.
    length: usize,
}

/// Reads the head of a record; None: the line is none.
fn head(line: &[u8]) -> Option<Head> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let space = |from: usize| line[from..].iter().position(|byte| *byte == b' ').map(|at| from + at);
    let time = 0..space(0)?;
    let moment = Moment::rfc3339(&line[time.clone()])?;
    let named = time.end + 1..space(time.end + 1)?;
    let stream = match &line[named.clone()] {
        b"stdout" => Stream::Stdout,
        b"stderr" => Stream::Stderr,
        _ => return None,
    };
    // An empty line may have no space after its tag. More tags may come, after colons.
    let end = space(named.end + 1).unwrap_or(line.len());
    let part = match line[named.end + 1..end].split(|byte| *byte == b':').next()? {
        b"F" => false,
        b"P" => true,
        _ => return None,
    };
    Some(Head { time, moment, stream, part, length: (end + 1).min(line.len()) })
}

/// Who gets what is printed.
trait Sink {
    fn put(&mut self, stream: Stream, bytes: &[u8]) -> Result<()>;
}

/// Where in a line the decoder is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// In a head that is not whole yet.
    Head,
    /// In a record's text.
    Text { stream: Stream, part: bool, shown: bool },
    /// In a line that is no record.
    Other,
}

/// Makes of a log's bytes, however they are cut, what the container wrote.
#[derive(Debug)]
struct Decoder {
    since: Option<Moment>,
    until: Option<Moment>,
    timestamps: bool,
    at: At,
    /// A line's first bytes, until they are enough.
    head: Vec<u8>,
    /// Of each stream whether a line is begun, and if it is shown.
    begun: [Option<bool>; 2],
}

impl Decoder {
    fn new(wanted: &Wanted) -> Self {
        let Wanted { since, until, timestamps, .. } = *wanted;
        Self { since, until, timestamps, at: At::Head, head: Vec::with_capacity(HEAD), begun: [None; 2] }
    }

    fn feed(&mut self, mut bytes: &[u8], out: &mut impl Sink) -> Result<()> {
        while !bytes.is_empty() {
            let most = if self.at == At::Head { bytes.len().min(HEAD - self.head.len()) } else { bytes.len() };
            let end = bytes[..most].iter().position(|byte| *byte == b'\n');
            let (piece, rest) = bytes.split_at(end.map_or(most, |end| end + 1));
            bytes = rest;
            if self.at != At::Head {
                self.text(piece, out)?;
                continue;
            }
            self.head.extend_from_slice(piece);
            if end.is_some() || self.head.len() == HEAD {
                self.begin(out)?;
            }
        }
        Ok(())
    }

    /// The file's last byte has come: what looks like the begin of a head is all there is of its line.
    fn end(&mut self, out: &mut impl Sink) -> Result<()> {
        if !self.head.is_empty() {
            self.begin(out)?;
        }
        self.at = At::Head;
        Ok(())
    }

    /// A line has begun, its first bytes are in `head`.
    fn begin(&mut self, out: &mut impl Sink) -> Result<()> {
        let line = std::mem::take(&mut self.head);
        match head(&line) {
            None => {
                self.at = At::Other;
                self.text(&line, out)?;
            }
            Some(head) => {
                let begun = &mut self.begun[head.stream as usize];
                // A line is shown whole or not at all.
                let within = self.since.is_none_or(|since| head.moment >= since)
                    && self.until.is_none_or(|until| head.moment <= until);
                let shown = begun.unwrap_or(within);
                if shown && begun.is_none() && self.timestamps {
                    out.put(head.stream, &line[head.time])?;
                    out.put(head.stream, b" ")?;
                }
                *begun = head.part.then_some(shown);
                self.at = At::Text { stream: head.stream, part: head.part, shown };
                self.text(&line[head.length..], out)?;
            }
        }
        self.head = line;
        self.head.clear();
        Ok(())
    }

    /// More of a line; a line break can only be the last byte.
    fn text(&mut self, piece: &[u8], out: &mut impl Sink) -> Result<()> {
        let ends = piece.last() == Some(&b'\n');
        match self.at {
            At::Text { shown: false, .. } => {}
            // The line break is the record's, not the container's.
            At::Text { stream, part: true, .. } => out.put(stream, &piece[..piece.len() - usize::from(ends)])?,
            At::Text { stream, .. } => out.put(stream, piece)?,
            _ => out.put(Stream::Stdout, piece)?,
        }
        if ends {
            self.at = At::Head;
        }
        Ok(())
    }
}

/// Stdout and stderr: byte for byte, and on a terminal without what would steer it; in the order of the log where
/// both are one.
struct Out {
    files: [File; 2],
    terminal: [bool; 2],
    waiting: [Vec<u8>; 2],
    /// A character's first bytes.
    cut: [Vec<u8>; 2],
    last: Stream,
}

impl Out {
    fn new() -> Result<Self> {
        let copy = |fd: io::Result<OwnedFd>| fd.map(File::from).map_err(|e| Error::stdout(&e));
        let (stdout, stderr) = (io::stdout(), io::stderr());
        Ok(Self {
            files: [copy(stdout.as_fd().try_clone_to_owned())?, copy(stderr.as_fd().try_clone_to_owned())?],
            terminal: [stdout.is_terminal(), stderr.is_terminal()],
            waiting: Default::default(),
            cut: Default::default(),
            last: Stream::Stdout,
        })
    }

    fn flush(&mut self, all: bool) -> Result<()> {
        for n in 0..2 {
            let mut bytes = std::mem::take(&mut self.waiting[n]);
            let done = if self.terminal[n] {
                self.cut[n].extend_from_slice(&bytes);
                let text = for_terminal(&mut self.cut[n], all);
                (&self.files[n]).write_all(text.as_bytes())
            } else {
                (&self.files[n]).write_all(&bytes)
            };
            done.map_err(|e| match n {
                0 => Error::stdout(&e),
                // There is nobody who could be told.
                _ => Error::explained_elsewhere(),
            })?;
            bytes.clear();
            self.waiting[n] = bytes;
        }
        Ok(())
    }
}

impl Sink for Out {
    fn put(&mut self, stream: Stream, bytes: &[u8]) -> Result<()> {
        if self.last != stream || self.waiting[stream as usize].len() >= PIECE {
            self.flush(false)?;
            self.last = stream;
        }
        self.waiting[stream as usize].extend_from_slice(bytes);
        Ok(())
    }
}

/// One file of a log, read up to `at`.
#[derive(Debug)]
struct Part {
    file: File,
    inode: u64,
    at: u64,
}

impl Part {
    /// Reads what is there now.
    fn copy(&mut self, buffer: &mut [u8], mut to: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        loop {
            match self.file.read_at(buffer, self.at) {
                Ok(0) => {
                    // A record that the disk had no room for was taken back.
                    let size = self.file.metadata().map_err(|e| Error::new("look at", LOG, e))?.size();
                    self.at = self.at.min(size);
                    return Ok(());
                }
                Ok(read) => {
                    to(&buffer[..read])?;
                    self.at += read as u64;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(Error::new("read", LOG, e)),
            }
        }
    }
}

/// One of a container's logs, if it is there; a link is not followed.
fn open(dir: &OwnedFd, id: Id, name: &str) -> Result<Option<Part>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let none = || Error::plain(format!("'{id}' has no {name}")).hint("there is something else of that name");
    let file = match rustix::fs::openat(dir, name, flags, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(None),
        Err(Errno::LOOP | Errno::NXIO) => return Err(none()),
        done => done.map_err(|e| Error::new("open", format_args!("{id}/{name}"), to_nix(e)))?,
    };
    let stat = rustix::fs::fstat(&file).map_err(|e| Error::new("look at", format_args!("{id}/{name}"), to_nix(e)))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(none());
    }
    Ok(Some(Part { file: file.into(), inode: stat.st_ino, at: 0 }))
}

/// The log and what it was before, oldest first. The newest is opened first: when the names move on meanwhile a file is
/// found twice, not never.
fn parts(dir: &OwnedFd, id: Id) -> Result<Vec<Part>> {
    let mut parts: Vec<Part> = Vec::new();
    let mut missing = 0;
    for n in 0_u32.. {
        let name = if n == 0 { LOG.to_owned() } else { format!("{LOG}.{n}") };
        match open(dir, id, &name)? {
            Some(part) => {
                missing = 0;
                if parts.iter().all(|known| known.inode != part.inode) {
                    parts.push(part);
                }
            }
            // One may be between its two names.
            None if missing == 2 => break,
            None => missing += 1,
        }
    }
    parts.reverse();
    Ok(parts)
}

/// Where the last so many lines begin: which file, and where in it. From the end, so a long log costs no more than
/// a short one. As for tail(1) lines are counted by their ends; where two streams' parts alternate the first may lack its begin.
fn begin_of_tail(parts: &[Part], lines: u64) -> io::Result<(usize, u64)> {
    let mut left = lines;
    let mut newest = true;
    for (index, part) in parts.iter().enumerate().rev() {
        let size = part.file.metadata()?.size();
        let found = lines_back(&part.file, size, |end, start| {
            // The part of a line belongs to the one after it, but for the log's last.
            let ends = newest || head(start).is_none_or(|head| !head.part);
            newest = false;
            if ends && left == 0 {
                return Some(end);
            }
            left -= u64::from(ends);
            None
        })?;
        if let Some(offset) = found {
            return Ok((index, offset));
        }
    }
    Ok((0, 0))
}

/// Gives the end of each line and its first bytes, last line first, until there is a result.
fn lines_back(file: &File, size: u64, mut each: impl FnMut(u64, &[u8]) -> Option<u64>) -> io::Result<Option<u64>> {
    let (mut piece, mut at) = (Vec::new(), size);
    let mut end = size;
    while end > 0 {
        // The line break at its end is its own.
        let mut from = end - 1;
        let start = loop {
            if from == 0 {
                break 0;
            }
            if from <= at {
                at = from.saturating_sub(PIECE as u64);
                piece.resize((from - at) as usize, 0);
                file.read_exact_at(&mut piece, at)?;
            }
            match piece[..(from - at) as usize].iter().rposition(|byte| *byte == b'\n') {
                Some(found) => break at + found as u64 + 1,
                None => from = at,
            }
        };
        let mut first = [0; HEAD];
        let first = &mut first[..(end - start).min(HEAD as u64) as usize];
        let within = start.checked_sub(at).and_then(|from| piece.get(from as usize..from as usize + first.len()));
        match within {
            Some(bytes) => first.copy_from_slice(bytes),
            None => file.read_exact_at(first, start)?,
        }
        if let Some(found) = each(end, first) {
            return Ok(Some(found));
        }
        end = start;
    }
    Ok(None)
}

/// What wakes who follows: the directory's files change, or the container has ended.
struct Watch {
    changes: OwnedFd,
    /// Hangs up when nobody holds the lock on `status` any more.
    ended: UnixStream,
}

impl Watch {
    /// None: the container does not run.
    fn begin(store: &Store, id: Id, dir: &OwnedFd) -> Result<Option<Self>> {
        if store.stopped(id)?.is_some() {
            return Ok(None);
        }
        let fail = |e: Errno| Error::new("watch", id, to_nix(e));
        let changes = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK).map_err(fail)?;
        use inotify::WatchFlags as On;
        // By what the kernel calls the descriptor: no name is walked.
        inotify::add_watch(&changes, by_number(dir), On::MODIFY | On::CREATE | On::MOVED_TO).map_err(fail)?;
        let status = store.open_text(id, "status").map_err(fail)?;
        let (ended, its) = UnixStream::pair().map_err(|e| Error::new("watch", id, e))?;
        // No event says that a lock is gone (a file's closing is told of before it goes); whoever waits for it learns it.
        std::thread::spawn(move || {
            let _ = rustix::fs::flock(&status, FlockOperation::LockShared);
            drop((status, its));
        });
        Ok(Some(Self { changes, ended }))
    }

    /// Waits for news. True: the container has ended, or it is `until`.
    ///
    /// # Errors
    /// Nobody reads stdout any more.
    fn wait(&self, until: Option<Moment>) -> Result<bool> {
        let mut timeout = PollTimeout::NONE;
        if let Some(until) = until {
            let now = Moment::now();
            let left = (i128::from(until.seconds) - i128::from(now.seconds)) * 1000
                + (i128::from(until.nanos) - i128::from(now.nanos)) / 1_000_000;
            if left < 0 {
                return Ok(true);
            }
            timeout = PollTimeout::try_from(i32::try_from(left + 1).unwrap_or(i32::MAX)).unwrap_or(PollTimeout::MAX);
        }
        let stdout = io::stdout();
        // Of stdout only that its reader has gone: it may be long until something is to be written.
        let mut fds = [
            PollFd::new(self.changes.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.ended.as_fd(), PollFlags::POLLIN),
            PollFd::new(stdout.as_fd(), PollFlags::empty()),
        ];
        match poll(&mut fds, timeout) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(e) => return Err(Error::new("wait for", LOG, e)),
        }
        if fds[2].any() == Some(true) {
            return Err(Error::explained_elsewhere());
        }
        let ended = fds[1].any() == Some(true);
        // What they say is looked at afterwards.
        let mut events = [0; 4096];
        while rustix::io::read(&self.changes, &mut events).is_ok_and(|read| read > 0) {}
        Ok(ended)
    }
}

/// `logs`.
pub(crate) fn logs(store: &Store, name: &str, wanted: &Wanted) -> Result<()> {
    let id = store.find(Kind::Container, name)?;
    let dir = rustix::fs::openat(store.dir(), id.to_string(), DIRECTORY, Mode::empty())
        .map_err(|e| store.fail("open", &id.to_string())(to_nix(e)))?;
    // Before the first look: what comes after that look is told of.
    let watch = if wanted.follow { Watch::begin(store, id, &dir)? } else { None };
    let mut parts = parts(&dir, id)?;
    if let Tail::Last(lines) = wanted.tail {
        let (index, at) =
            begin_of_tail(&parts, lines).map_err(|e| Error::new("read", format_args!("{id}/{LOG}"), e))?;
        parts.drain(..index);
        parts.iter_mut().take(1).for_each(|part| part.at = at);
    }
    let mut decoder = Decoder::new(wanted);
    let mut out = Out::new()?;
    let mut buffer = vec![0; PIECE];
    let mut current: Option<Part> = None;
    let last = parts.len().saturating_sub(1);
    for (index, mut part) in parts.into_iter().enumerate() {
        if index < last && wanted.since.is_some_and(|since| is_older(&part.file, since)) {
            continue;
        }
        if current.is_some() {
            decoder.end(&mut out)?;
        }
        part.copy(&mut buffer, |bytes| decoder.feed(bytes, &mut out))?;
        current = Some(part);
    }
    if let Some(watch) = watch {
        let mut ended = false;
        loop {
            out.flush(false)?;
            if ended {
                break;
            }
            // Read once more after the end: what was said before it.
            ended = watch.wait(wanted.until)?;
            if let Some(part) = &mut current {
                part.copy(&mut buffer, |bytes| decoder.feed(bytes, &mut out))?;
            }
            for mut newer in newer_than(&dir, id, current.as_ref())? {
                if let Some(part) = &mut current {
                    // Nothing is written to it now that it has another name; but until then something may have been.
                    part.copy(&mut buffer, |bytes| decoder.feed(bytes, &mut out))?;
                    decoder.end(&mut out)?;
                }
                newer.copy(&mut buffer, |bytes| decoder.feed(bytes, &mut out))?;
                current = Some(newer);
            }
        }
    }
    decoder.end(&mut out)?;
    out.flush(true)
}

/// The files that have come after this one, oldest first.
fn newer_than(dir: &OwnedFd, id: Id, known: Option<&Part>) -> Result<Vec<Part>> {
    let now = lstat(dir, LOG.as_bytes()).map_err(|e| Error::new("look at", format_args!("{id}/{LOG}"), to_nix(e)))?;
    if now.is_none_or(|now| known.is_some_and(|known| known.inode == now.st_ino)) {
        return Ok(Vec::new());
    }
    let mut all = parts(dir, id)?;
    if let Some(at) = known.and_then(|known| all.iter().position(|part| part.inode == known.inode)) {
        all.drain(..=at);
    }
    Ok(all)
}

/// Whether nothing in it was written since; the file's time may lag behind its records' by a tick of the clock.
fn is_older(file: &File, since: Moment) -> bool {
    file.metadata().is_ok_and(|meta| meta.mtime() < since.seconds.saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const T: &str = "2026-11-25T14:06:02.123456789Z";

    #[derive(Debug, Default, PartialEq, Eq, Clone)]
    struct Kept([Vec<u8>; 2]);

    impl Sink for Kept {
        fn put(&mut self, stream: Stream, bytes: &[u8]) -> Result<()> {
            self.0[stream as usize].extend_from_slice(bytes);
            Ok(())
        }
    }

    fn wanted() -> Wanted {
        Wanted { follow: false, tail: Tail::All, since: None, until: None, timestamps: false }
    }

    fn decode(pieces: &[&[u8]], wanted: &Wanted) -> (String, String) {
        let (mut decoder, mut kept) = (Decoder::new(wanted), Kept::default());
        pieces.iter().for_each(|piece| decoder.feed(piece, &mut kept).unwrap());
        decoder.end(&mut kept).unwrap();
        let [out, err] = kept.0.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        (out, err)
    }

    #[test]
    fn records_go_where_they_came_from() {
        let log = format!(
            "{T} stdout F a\n{T} stderr P b\n{T} stdout F \n{T} stderr F c\n{T} stdout F\n{T} stdout P:x end\n"
        );
        assert_eq!(decode(&[log.as_bytes()], &wanted()), ("a\n\n\nend".into(), "bc\n".into()));
        let times = Wanted { timestamps: true, ..wanted() };
        let (out, err) = decode(&[log.as_bytes()], &times);
        assert_eq!(out, format!("{T} a\n{T} \n{T} \n{T} end"));
        assert_eq!(err, format!("{T} bc\n"), "one for the whole line");
    }

    #[test]
    fn what_is_no_record_is_printed_as_it_is() {
        for line in [
            "plain\n",
            "\n",
            "no end",
            " stdout F x\n",
            "2026-11-25T14:06:02 stdout F no zone\n",
            "2026-11-25T14:06:02Z stdin F x\n",
            "2026-11-25T14:06:02Z stdout Q x\n",
            "2026-11-25T14:06:02Z stdout\n",
            "2026-11-25T14:06:02Z",
            "2026-11-25T14:06:02.0000000000000000000000000000000000000Z stdout F x\n",
        ] {
            let since = Wanted { since: Some(Moment { seconds: 1 << 40, nanos: 0 }), timestamps: true, ..wanted() };
            assert_eq!(decode(&[line.as_bytes()], &since), (line.to_owned(), String::new()), "{line:?}");
        }
    }

    #[test]
    fn a_line_is_within_the_times_or_is_not() {
        let at = |second| format!("2026-11-25T14:06:0{second}Z");
        let log = format!(
            "{} stdout F one\n{} stdout P tw\n{} stderr F err\n{} stdout F o\n{} stdout F three\n",
            at(1),
            at(2),
            at(3),
            at(4),
            at(5)
        );
        let moment = |second| Moment::rfc3339(at(second).as_bytes());
        let some = |since, until| decode(&[log.as_bytes()], &Wanted { since, until, ..wanted() });
        assert_eq!(some(moment(2), None), ("two\nthree\n".into(), "err\n".into()));
        assert_eq!(some(moment(3), None), ("three\n".into(), "err\n".into()));
        assert_eq!(some(None, moment(2)), ("one\ntwo\n".into(), String::new()));
        assert_eq!(some(moment(5), moment(5)), ("three\n".into(), String::new()));
    }

    fn file(bytes: &[u8]) -> Part {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        Part { file, inode: 0, at: 0 }
    }

    #[test]
    fn the_last_lines_are_found_from_the_end() {
        let one = |text: &str| format!("{T} stdout F {text}\n");
        let part = |text: &str| format!("{T} stdout P {text}\n");
        let old = [one("a"), part("b"), one("c")].concat();
        let new = [one("d"), "raw\n".to_owned(), part(&"x".repeat(3 * PIECE)), one("e"), part("f")].concat();
        let parts = [file(old.as_bytes()), file(new.as_bytes())];
        let tail = |lines| {
            let (index, at) = begin_of_tail(&parts, lines).unwrap();
            let text = [
                &old.as_bytes()[if index == 0 { at as usize } else { old.len() }..],
                &new.as_bytes()[if index == 0 { 0 } else { at as usize }..],
            ];
            decode(&text, &wanted()).0
        };
        let long = format!("{}e\nf", "x".repeat(3 * PIECE));
        assert_eq!(tail(0), "");
        assert_eq!(tail(1), "f");
        assert_eq!(tail(2), long);
        assert_eq!(tail(3), format!("raw\n{long}"));
        assert_eq!(tail(4), format!("d\nraw\n{long}"));
        assert_eq!(tail(5), format!("bc\nd\nraw\n{long}"));
        assert_eq!(tail(6), format!("a\nbc\nd\nraw\n{long}"));
        assert_eq!(tail(u64::MAX), tail(6));
        assert_eq!(begin_of_tail(&[], 5).unwrap(), (0, 0));
        assert_eq!(begin_of_tail(&[file(b"")], 5).unwrap(), (0, 0));
    }

    /// Something like a log: whole heads, torn ones, and what is between.
    fn hostile() -> impl Strategy<Value = Vec<u8>> {
        let words =
            ["\n", " ", T, " stdout F ", " stderr F ", " stdout P ", " stderr P", "text", "\u{1b}[2J", ":", "F", "P\n"];
        let word = prop_oneof![
            4 => prop::sample::select(words.to_vec()).prop_map(|word| word.as_bytes().to_vec()),
            1 => prop::collection::vec(any::<u8>(), 0..100),
        ];
        prop::collection::vec(word, 0..30).prop_map(|words| words.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn however_it_is_cut(log in hostile(), cuts in prop::collection::vec(0_usize..4000, 0..8)) {
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(log.len())).collect();
            cuts.extend([0, log.len()]);
            cuts.sort_unstable();
            let pieces: Vec<_> = cuts.windows(2).map(|cut| &log[cut[0]..cut[1]]).collect();
            prop_assert_eq!(decode(&pieces, &wanted()), decode(&[&log], &wanted()));
        }

        /// Byte for byte what the container wrote, whatever that was.
        #[test]
        fn what_was_written_is_read(
            chunks in prop::collection::vec((any::<bool>(), prop::collection::vec(prop_oneof![4 => any::<u8>(), 1 => Just(b'\n')], 0..40)), 0..20),
        ) {
            let (mut log, mut written) = (Vec::new(), Kept::default());
            for (err, chunk) in chunks {
                let (stream, name) = if err { (Stream::Stderr, "stderr") } else { (Stream::Stdout, "stdout") };
                written.put(stream, &chunk).unwrap();
                for line in chunk.split_inclusive(|byte| *byte == b'\n') {
                    let (tag, line) = line.strip_suffix(b"\n").map_or(("P", line), |line| ("F", line));
                    log.extend([format!("{T} {name} {tag} ").as_bytes(), line, b"\n"].concat());
                }
            }
            let (mut decoder, mut kept) = (Decoder::new(&wanted()), Kept::default());
            decoder.feed(&log, &mut kept).unwrap();
            decoder.end(&mut kept).unwrap();
            prop_assert_eq!(kept, written);
        }

        /// The tail is a piece of the log that begins with a line, and has no more ends of lines than were asked for.
        #[test]
        fn a_tail_is_the_end_of_it(log in hostile(), lines in 0_u64..6) {
            let (index, at) = begin_of_tail(&[file(&log)], lines).unwrap();
            prop_assert_eq!(index, 0);
            let at = at as usize;
            prop_assert!(at == 0 || at == log.len() || log[at - 1] == b'\n');
            let lines_in: Vec<_> = log[at..].split_inclusive(|byte| *byte == b'\n').collect();
            let whole = |line: &[u8]| head(&line[..line.len().min(HEAD)]).is_none_or(|head| !head.part);
            let count = lines_in.iter().enumerate().filter(|(n, line)| n + 1 == lines_in.len() || whole(line)).count() as u64;
            prop_assert!(count <= lines && (at == 0 || count == lines), "{} of {}", count, lines);
        }
    }
}
