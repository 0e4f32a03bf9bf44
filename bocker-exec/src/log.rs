//! The script's `| tee "$log"`, with stdout and stderr kept apart, and no copying where there is no log.
//!
//! The log is in the CRI's format, as kubelet's and podman's: `2026-11-25T14:06:02.123456789Z stdout F the line`, or `P` for a part of a
//! line that goes on in the next record of the same stream. The bytes are the payload's own.
//! <https://github.com/kubernetes/design-proposals-archive/blob/main/node/kubelet-cri-logging.md>

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bocker_common::{Error, Result};
use nix::errno::Errno;
use nix::sys::stat::{SFlag, fstat};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, fstat as stat, openat, renameat, unlinkat};

use crate::inroot::errno;

/// The longest piece of a line in one record, as containerd's.
const PIECE: usize = 16 << 10;
/// What a record has beside its piece, at most: time, stream, tag.
const HEAD: usize = "2026-11-25T14:06:02.123456789Z stdout F \n".len();
/// So much is written at once.
const AT_ONCE: usize = 64 << 10;
/// How much may wait for the disk: this many reads.
const QUEUE: usize = 16;
/// How long the payload may be kept waiting by the disk, in looks, each a millisecond after the one before: time in which we
/// did not run ourselves is not the disk's.
const PATIENCE: u32 = 900;

/// The log files. A full disk costs the log, never the payload.
#[derive(Debug)]
pub struct Log {
    directory: OwnedFd,
    name: OsString,
    path: PathBuf,
    file: File,
    /// How long it is, and may become.
    size: u64,
    limit: u64,
    /// How many there are at most: `log`, `log.1`, …
    files: u32,
    /// Records that are not written yet.
    out: Vec<u8>,
    warned: bool,
}

impl Log {
    /// Opens the file for appending, made with mode 600; no link is followed. At `limit` bytes (1024 at least) it becomes
    /// `NAME.1`, and what was that `NAME.2`, `files` in all.
    ///
    /// # Errors
    /// `open(2)`, in one line.
    #[expect(clippy::disallowed_methods, reason = "the caller's word: beside the root, not in it")]
    pub fn open(path: &Path, limit: u64, files: u32) -> Result<Self> {
        let fail = |e| Error::new("open", path.display(), e);
        let name = path.file_name().ok_or_else(|| fail(Errno::EISDIR))?.to_owned();
        // Later names are of this directory, wherever it has gone and wherever we are by then.
        let directory = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(directory, flags, Mode::empty()).map_err(|e| fail(errno(e)))?;
        let mut file = append(&directory, &name, OFlags::empty()).map_err(|e| fail(errno(e)))?;
        let found = stat(&file).map_err(|e| fail(errno(e)))?;
        let regular = FileType::from_raw_mode(found.st_mode) == FileType::RegularFile;
        let size = if regular { u64::try_from(found.st_size).unwrap_or(0) } else { 0 };
        // What a crash cut off stays a line of its own.
        let mut last = [b'\n'];
        let out = match size > 0 && file.seek(SeekFrom::End(-1)).and_then(|_| file.read(&mut last)).is_ok() {
            true if last != [b'\n'] => vec![b'\n'],
            _ => Vec::new(),
        };
        let limit = if regular { limit } else { u64::MAX };
        Ok(Self { directory, name, path: path.to_owned(), file, size, limit, files, out, warned: false })
    }

    /// One read of a stream, as records.
    fn write(&mut self, chunk: &Chunk) {
        let head = format!("{} {} ", stamp(chunk.time), chunk.stream);
        let most = PIECE.min(usize::try_from(self.limit).unwrap_or(PIECE).saturating_sub(HEAD));
        let mut rest = &chunk.bytes[..];
        while !rest.is_empty() {
            let line = rest.iter().take(most + 1).position(|&b| b == b'\n');
            let piece = &rest[..line.unwrap_or(rest.len().min(most))];
            rest = &rest[line.map_or(piece.len(), |end| end + 1)..];
            let length = head.len() + 2 + piece.len() + 1;
            let full = self.size + (self.out.len() + length) as u64 > self.limit;
            if full || self.out.len() > AT_ONCE {
                self.flush();
            }
            if full && self.size > 0 {
                if let Err(error) = self.rotate() {
                    self.warn(&Error::new("begin anew", self.path.display(), errno(error)));
                    continue;
                }
            }
            self.out.extend_from_slice(head.as_bytes());
            self.out.extend_from_slice(if line.is_some() { b"F " } else { b"P " });
            self.out.extend_from_slice(piece);
            self.out.push(b'\n');
        }
        self.flush();
    }

    fn flush(&mut self) {
        match self.file.write_all(&self.out) {
            Ok(()) => self.size += self.out.len() as u64,
            Err(error) => {
                // Half a record would be none, and spoil the next one.
                if self.limit < u64::MAX {
                    let _ = self.file.set_len(self.size);
                }
                self.warn(&Error::new("write", self.path.display(), error));
            }
        }
        self.out.clear();
    }

    /// The new file first: if the disk has no room for it, nothing is lost of the old ones.
    fn rotate(&mut self) -> rustix::io::Result<()> {
        let numbered = |n: u32| if n == 0 { self.name.clone() } else { with(&self.name, &n.to_string()) };
        let new = with(&self.name, "new");
        let _ = unlinkat(&self.directory, &new, AtFlags::empty());
        let file = append(&self.directory, &new, OFlags::EXCL)?;
        for n in (0..self.files - 1).rev() {
            match renameat(&self.directory, numbered(n), &self.directory, numbered(n + 1)) {
                Ok(()) | Err(rustix::io::Errno::NOENT) => {}
                Err(error) => {
                    let _ = unlinkat(&self.directory, &new, AtFlags::empty());
                    return Err(error);
                }
            }
        }
        renameat(&self.directory, &new, &self.directory, &self.name)?;
        (self.file, self.size) = (file, 0);
        Ok(())
    }

    fn warn(&mut self, error: &Error) {
        if !self.warned {
            self.warned = true;
            warn(&error.clone().hint("the log is incomplete; the command goes on"));
        }
    }
}

/// NONBLOCK: neither the opening of a FIFO nor its slow reader keeps us.
fn append(directory: &OwnedFd, name: &OsStr, more: OFlags) -> rustix::io::Result<File> {
    let flags = OFlags::RDWR | OFlags::APPEND | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    openat(directory, name, flags | more, Mode::from_raw_mode(0o600)).map(File::from)
}

fn with(name: &OsStr, end: &str) -> OsString {
    let mut name = name.to_owned();
    name.push(".");
    name.push(end);
    name
}

fn warn(error: &Error) {
    let _ = error.report("bocker-exec");
}

/// `2026-11-25T14:06:02.123456789Z` of the time since 1970.
fn stamp(since: Duration) -> String {
    let (days, second) = (since.as_secs() / 86400, since.as_secs() % 86400);
    // Years that begin in March have the leap day at their end, and 400 of them have 146097 days. 719468: from there to 1970.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, later) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    format!(
        "{:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:09}Z",
        era * 400 + year + later,
        second / 3600,
        second / 60 % 60,
        second % 60,
        since.subsec_nanos()
    )
}

/// What was read at once.
#[derive(Debug)]
struct Chunk {
    stream: &'static str,
    time: Duration,
    bytes: Vec<u8>,
}

/// The way to the log. A thread of its own waits for the disk, which may take long (another's writes, a frozen file system), and no call
/// can be told not to; so the payload waits a second at most. (Our own end does wait: no process with a call in such a disk can.)
#[derive(Debug)]
pub enum Writer {
    /// Before the last fork(2), or where no thread could be had: written at once.
    Here(Log),
    /// By the thread.
    There(Queue),
    /// On the way from one to the other.
    Nowhere,
}

/// The thread's end of it.
#[derive(Debug)]
pub struct Queue {
    chunks: SyncSender<Chunk>,
    done: Receiver<()>,
    path: PathBuf,
    /// Something was left out: from then on nobody waits until there is room again.
    late: bool,
    warned: bool,
}

impl Writer {
    /// Starts the thread. To be called when nothing forks any more.
    pub fn start(&mut self) {
        let Self::Here(log) = std::mem::replace(self, Self::Nowhere) else { return };
        let (chunks, queue) = sync_channel::<Chunk>(QUEUE);
        let (tell, done) = sync_channel(1);
        let (path, spare) = (log.path.clone(), std::sync::Arc::new(std::sync::Mutex::new(Some(log))));
        let own = spare.clone();
        let body = move || {
            let log = own.lock().ok().and_then(|mut log| log.take());
            if let Some(mut log) = log {
                queue.into_iter().for_each(|chunk| log.write(&chunk));
            }
            let _ = tell.send(());
        };
        *self = match std::thread::Builder::new().name("log".to_owned()).stack_size(128 << 10).spawn(body) {
            Ok(_) => Self::There(Queue { chunks, done, path, late: false, warned: false }),
            // A limit on processes, say.
            Err(_) => spare.lock().ok().and_then(|mut log| log.take()).map_or(Self::Nowhere, Self::Here),
        };
    }

    fn write(&mut self, stream: &'static str, bytes: &[u8]) {
        let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let chunk = Chunk { stream, time, bytes: bytes.to_vec() };
        match self {
            Self::Here(log) => log.write(&chunk),
            Self::There(queue) => queue.push(chunk),
            Self::Nowhere => {}
        }
    }

    /// Until all is written; not for ever.
    pub fn finish(self) {
        if let Self::There(Queue { chunks, done, late, .. }) = self {
            drop(chunks);
            let _ = done.recv_timeout(if late { Duration::from_secs(1) } else { Duration::from_secs(10) });
        }
    }
}

impl Queue {
    fn push(&mut self, mut chunk: Chunk) {
        let mut looks = 0;
        loop {
            chunk = match self.chunks.try_send(chunk) {
                Ok(()) => return self.late = false,
                Err(TrySendError::Disconnected(_)) => return,
                Err(TrySendError::Full(chunk)) => chunk,
            };
            looks += 1;
            if self.late || looks > PATIENCE {
                self.late = true;
                if !std::mem::replace(&mut self.warned, true) {
                    let error = Error::new("write", self.path.display(), "the disk is too slow");
                    warn(&error.hint("the log is incomplete; the command goes on"));
                }
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// One of the payload's two outputs on its way to one of ours.
#[derive(Debug)]
pub struct Stream {
    from: Option<OwnedFd>,
    /// `None`: the log is all that there is.
    to: Option<BorrowedFd<'static>>,
    name: &'static str,
    buffer: Vec<u8>,
    /// Read and not yet written: `buffer[start..end]`.
    start: usize,
    end: usize,
    /// The most that a write can take without waiting, once `poll(2)` said that there is room.
    at_once: usize,
    /// Our output takes nothing any more; the log still does.
    abandoned: bool,
    /// What made our output take nothing: EPIPE is a reader that has gone, anything else is output lost.
    broken: Option<Errno>,
}

impl Stream {
    /// From the reading end of a pipe to one of our own outputs.
    pub fn new(from: OwnedFd, to: Option<BorrowedFd<'static>>, name: &'static str) -> Self {
        // Room in a pipe or terminal means at least PIPE_BUF bytes; files and /dev/null take everything.
        // O_NONBLOCK is no way out: it would change the caller's own descriptor.
        let kind = to
            .map(fstat)
            .and_then(nix::Result::ok)
            .map_or(SFlag::S_IFIFO, |stat| SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT);
        let at_once = if kind == SFlag::S_IFREG { usize::MAX } else { libc::PIPE_BUF };
        Self {
            from: Some(from),
            to,
            name,
            // Made when there is something to read.
            buffer: Vec::new(),
            start: 0,
            end: 0,
            at_once,
            abandoned: to.is_none(),
            broken: None,
        }
    }

    /// Nothing will come any more.
    pub fn is_done(&self) -> bool {
        self.from.is_none() && self.start == self.end
    }

    /// Why our output took nothing any more.
    pub fn broken(&self) -> Option<Errno> {
        self.broken
    }

    /// Something is read and waits for room.
    pub fn is_full(&self) -> bool {
        self.start < self.end
    }

    /// What to poll: room while something is left to write, else something to read.
    pub fn waits_for(&self) -> Option<(BorrowedFd<'_>, nix::poll::PollFlags)> {
        if let (true, Some(to)) = (self.is_full(), self.to) {
            return Some((to, nix::poll::PollFlags::POLLOUT));
        }
        Some((self.from.as_ref()?.as_fd(), nix::poll::PollFlags::POLLIN))
    }

    /// The payload's stderr.
    pub fn is_stderr(&self) -> bool {
        self.name == "stderr"
    }

    /// No more waiting for whoever should read our output: the rest goes to the log only.
    pub fn abandon(&mut self) {
        self.abandoned = true;
        self.start = self.end;
    }

    /// Whoever writes to us from here on is told that nobody reads.
    pub fn close(&mut self) {
        self.from = None;
    }

    /// Reads once, for the log (if there is one) at once and for our output when it has room; what it has read.
    pub fn fill(&mut self, log: Option<&mut Writer>) -> &[u8] {
        let Some(from) = &self.from else { return &[] };
        if self.buffer.is_empty() {
            // calloc(3): pages that nothing is read into are none.
            self.buffer = vec![0; 1 << 16];
        }
        match nix::unistd::read(from, &mut self.buffer) {
            Ok(0) => self.from = None,
            Ok(length) => {
                (self.start, self.end) = (if self.abandoned { length } else { 0 }, length);
                if let Some(log) = log {
                    log.write(self.name, &self.buffer[..length]);
                }
                return &self.buffer[..length];
            }
            Err(Errno::EINTR | Errno::EAGAIN) => {}
            Err(_) => self.from = None,
        }
        &[]
    }

    /// Writes once.
    pub fn drain(&mut self) {
        let Some(to) = self.to else { return };
        let end = self.end.min(self.start.saturating_add(self.at_once));
        match nix::unistd::write(to, &self.buffer[self.start..end]) {
            Ok(length) => self.start += length,
            Err(Errno::EINTR | Errno::EAGAIN) => {}
            Err(errno) => {
                // EPIPE: whoever writes next learns it as it would without us, from the pipe that is closed then, and by
                // SIGPIPE, which the kernel keeps from a process 1 (see Supervisor::pipe_broke).
                self.broken = Some(errno);
                self.start = self.end;
                if errno != Errno::EPIPE {
                    warn(&Error::new("write", self.name, errno));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn chunk(stream: &'static str, bytes: &[u8]) -> Chunk {
        Chunk { stream, time: Duration::new(1_795_615_562, 123_456_789), bytes: bytes.to_vec() }
    }

    fn directory(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("bocker-exec-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        path
    }

    /// What a reader makes of records: the bytes of one stream.
    fn read(text: &[u8], stream: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        for line in text.split_inclusive(|&b| b == b'\n') {
            let mut words = line.splitn(4, |&b| b == b' ');
            let (time, of, tag) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap());
            assert_eq!((time.len(), time.last()), (30, Some(&b'Z')));
            let piece = words.next().unwrap().strip_suffix(b"\n").unwrap();
            assert!(piece.len() <= PIECE);
            if of == stream.as_bytes() {
                bytes.extend_from_slice(piece);
                if tag == b"F" {
                    bytes.push(b'\n');
                } else {
                    assert_eq!(tag, b"P");
                }
            }
        }
        bytes
    }

    #[test]
    fn a_line_is_a_record_and_a_part_says_so() {
        let directory = directory("records");
        let path = directory.join("log");
        std::fs::write(&path, "cut o").unwrap();
        let mut log = Log::open(&path, 1 << 20, 3).unwrap();
        for (stream, bytes) in [("stdout", &b"one\n\ntw"[..]), ("stderr", b"E\xff\0\n"), ("stdout", b"o\n")] {
            log.write(&chunk(stream, bytes));
        }
        let time = "2026-11-25T14:06:02.123456789Z";
        let text = std::fs::read(&path).unwrap();
        assert_eq!(
            String::from_utf8_lossy(&text),
            format!(
                "cut o\n{time} stdout F one\n{time} stdout F \n{time} stdout P tw\n{time} stderr F E\u{fffd}\0\n{time} stdout F o\n"
            )
        );
        std::fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn times_are_of_this_calendar() {
        let at = |second| stamp(Duration::from_secs(second));
        assert_eq!(at(0), "1970-01-01T00:00:00.000000000Z");
        assert_eq!(at(951_782_400), "2000-02-29T00:00:00.000000000Z");
        assert_eq!(at(1_709_251_199), "2024-02-29T23:59:59.000000000Z");
        assert_eq!(at(1_735_689_599), "2024-12-31T23:59:59.000000000Z");
        assert_eq!(at(4_107_542_400), "2100-03-01T00:00:00.000000000Z");
    }

    #[test]
    fn no_file_is_longer_than_its_limit_and_no_more_are_kept() {
        let directory = directory("rotation");
        let path = directory.join("log");
        let mut log = Log::open(&path, 4096, 3).unwrap();
        let mut all = Vec::new();
        for n in 0..2000 {
            let bytes = format!("{n} {}\n", "x".repeat(n % 97)).into_bytes();
            log.write(&chunk("stdout", &bytes));
            all.extend(bytes);
        }
        // A line that is longer than all files.
        log.write(&chunk("stdout", &[b'y'; 20000]));
        all.extend([b'y'; 20000]);
        let mut names: Vec<String> =
            std::fs::read_dir(&directory).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        assert_eq!(names, ["log", "log.1", "log.2"]);
        let mut text = Vec::new();
        for name in ["log.2", "log.1", "log"] {
            let part = std::fs::read(directory.join(name)).unwrap();
            assert!(!part.is_empty() && part.len() <= 4096, "{name}: {}", part.len());
            text.extend(part);
        }
        assert!(all.ends_with(&read(&text, "stdout")), "the end of what was written");
        assert!(text.len() > 8192);
        // One file: what is too long is gone.
        std::fs::remove_dir_all(&directory).unwrap();
        std::fs::create_dir_all(&directory).unwrap();
        let mut log = Log::open(&path, 1024, 1).unwrap();
        (0..100).for_each(|n| log.write(&chunk("stderr", format!("{n}\n").as_bytes())));
        assert!(read(&std::fs::read(&path).unwrap(), "stderr").ends_with(b"98\n99\n"));
        assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 1);
        std::fs::remove_dir_all(directory).unwrap();
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// However the bytes come, and however long their lines are: what is read is what was written, stream by stream.
        #[test]
        fn every_byte_comes_back(chunks in prop::collection::vec((any::<bool>(), prop::collection::vec(
            prop_oneof![Just(b'\n'), Just(b' '), Just(b'P'), any::<u8>()], 1..300), 1..200_usize), 0..12)) {
            let directory = directory("bytes");
            let path = directory.join("log");
            let _ = std::fs::remove_file(&path);
            let mut log = Log::open(&path, 1 << 30, 2).unwrap();
            let (mut out, mut err) = (Vec::new(), Vec::new());
            for (is_err, bytes, times) in chunks {
                let bytes = bytes.repeat(times);
                if is_err { err.extend_from_slice(&bytes) } else { out.extend_from_slice(&bytes) }
                log.write(&chunk(if is_err { "stderr" } else { "stdout" }, &bytes));
            }
            let text = std::fs::read(&path).unwrap();
            std::fs::remove_dir_all(&directory).unwrap();
            prop_assert_eq!(read(&text, "stdout"), out);
            prop_assert_eq!(read(&text, "stderr"), err);
        }
    }
}
