//! `--attach`: from another terminal to a detached container, and what its supervisor does for those who come.
//!
//! The supervisor listens on the socket `attach` beside the status file (mode 0600, in a directory that is root's), never on
//! an abstract one, which whoever shares the network namespace could reach. It is a SOCK_SEQPACKET: a message is a letter and
//! what follows it, and the kernel keeps messages apart.
//!
//! | from the supervisor | |
//! |---|---|
//! | `h` | first: then `t` (a terminal) or `p` (pipes), then `i` (input is taken) or `-` |
//! | `1`, `2` | bytes of stdout, of stderr; of a terminal there is only `1` |
//! | `x` | the payload has ended, with the status in the byte that follows: the last one |
//!
//! | from a client | |
//! |---|---|
//! | `0` | bytes of input |
//! | `w` | the size of its terminal: rows and columns, two bytes each, the higher first |
//! | `s` | a signal for the payload, by its number |

use std::collections::VecDeque;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bocker_common::diag::OWN_FAILURE;
use bocker_common::{Error, Result, entry};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signalfd::SignalFd;
use nix::sys::stat::{Mode as FileMode, umask};
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType};
use rustix::termios::Winsize;

use crate::inroot::errno;
use crate::status::{Seen, Text};
use crate::terminal::{FOREGROUND, Ours, TYPED, our_size};
use crate::{signals, status, supervise, sys};

/// The socket's name.
const NAME: &str = "attach";
/// The most bytes of output in a message.
const OUTPUT: usize = 16 << 10;
/// Who takes nothing of what waits for it for so long is let go.
const PATIENCE: Duration = Duration::from_secs(1);
/// Detach keys.
const MOST_KEYS: usize = 16;
/// At once; others wait in the kernel.
const CLIENTS: usize = 64;

/// The options of this module.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct AttachOptions {
    /// Attach to the detached container whose status file this is, until it ends
    #[arg(long, value_name = "STATUSFILE", conflicts_with_all = ["root", "join", "command"])]
    pub attach: Option<PathBuf>,
    /// With --attach: keys that end it, and not the container [default: ctrl-p,ctrl-q]
    #[arg(long, value_name = "KEYS", requires = "attach", value_parser = keys)]
    pub detach_keys: Option<Keys>,
    /// With --attach: only look
    #[arg(long, requires = "attach")]
    pub no_stdin: bool,
    /// With --attach: a signal is for this program, also where the container has no terminal
    #[arg(long, requires = "attach")]
    pub no_sig_proxy: bool,
}

/// Keys, as the bytes that a terminal makes of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keys(Vec<u8>);

impl Default for Keys {
    /// docker's.
    fn default() -> Self {
        Self(vec![16, 17])
    }
}

/// docker's spelling: characters and `ctrl-X`, parted by commas; none at all is no way out.
///
/// # Errors
/// A word that names no key.
pub fn keys(text: &str) -> Result<Keys, String> {
    let key = |word: &str| match word.as_bytes() {
        [byte] if byte.is_ascii() => Some(*byte),
        [b'c', b't', b'r', b'l', b'-', byte @ (b'a'..=b'z' | b'@' | b'['..=b'_')] => Some(byte & 0x1f),
        _ => None,
    };
    let words = text.split(',').filter(|_| !text.is_empty());
    let all = words.map(|word| key(word).ok_or_else(|| format!("'{word}' is no key (as a, ctrl-p, ctrl-@, ctrl-[)")));
    let all: Vec<u8> = all.collect::<Result<_, _>>()?;
    if all.len() > MOST_KEYS { Err(format!("more than {MOST_KEYS} keys")) } else { Ok(Keys(all)) }
}

/// Looks for the keys in what is typed.
#[derive(Debug)]
struct Watch {
    keys: Vec<u8>,
    /// The first keys, if they were the last that were typed: not passed on yet.
    held: Vec<u8>,
}

impl Watch {
    /// What is to be passed on, and whether the keys were among it; what was typed after them is nobody's.
    fn typed(&mut self, bytes: &[u8]) -> (Vec<u8>, bool) {
        let mut on = Vec::with_capacity(bytes.len() + self.held.len());
        for byte in bytes {
            self.held.push(*byte);
            while !self.keys.starts_with(&self.held) {
                on.push(self.held.remove(0));
            }
            if !self.keys.is_empty() && self.held == self.keys {
                return (on, true);
            }
        }
        (on, false)
    }
}

/// The directory of a status file, as a descriptor: a socket's path is short (107 bytes), a store's may not be.
#[expect(clippy::disallowed_methods, reason = "the caller's word: beside the root, not in it")]
///
/// # Errors
/// `open(2)`.
pub fn directory(status_file: &Path) -> Result<OwnedFd> {
    let parent = status_file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(parent, flags, Mode::empty()).map_err(|e| Error::new("open", parent.display(), errno(e)))
}

fn address(directory: &OwnedFd) -> nix::Result<SocketAddrUnix> {
    use std::os::fd::AsRawFd;
    SocketAddrUnix::new(format!("/proc/self/fd/{}/{NAME}", directory.as_raw_fd())).map_err(errno)
}

fn socket() -> nix::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).map_err(errno)
}

fn send(to: &OwnedFd, message: &[u8]) -> rustix::io::Result<usize> {
    rustix::net::send(to, message, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)
}

/// One message; 0 is the end, `None` that there is none now.
fn receive(from: &OwnedFd, message: &mut [u8]) -> rustix::io::Result<Option<usize>> {
    loop {
        match rustix::net::recv(from, &mut *message, RecvFlags::DONTWAIT) {
            Ok((length, _)) => return Ok(Some(length)),
            Err(rustix::io::Errno::AGAIN) => return Ok(None),
            // The other side has gone without reading all; what it sent before that is still to be had.
            Err(rustix::io::Errno::INTR | rustix::io::Errno::CONNRESET) => {}
            Err(e) => return Err(e),
        }
    }
}

/// The supervisor's side.
#[derive(Debug)]
pub struct Server {
    directory: OwnedFd,
    listener: OwnedFd,
    clients: Vec<Client>,
    terminal: bool,
    /// Where input goes; without blocking.
    input: Option<OwnedFd>,
    said: Vec<Said>,
}

/// What a client wants besides input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said {
    /// `w`
    Size(u16, u16),
    /// `s`
    Signal(i32),
}

#[derive(Debug)]
struct Client {
    socket: OwnedFd,
    /// Messages for which the kernel had no room, and since when.
    held: VecDeque<Vec<u8>>,
    since: Instant,
    /// Input that is not passed on yet.
    typed: Vec<u8>,
}

impl Server {
    /// Listens in this directory, beside the status file, whose lock is held: a socket that is there already is of somebody
    /// who is dead.
    ///
    /// # Errors
    /// `socket(2)`, `bind(2)`.
    pub fn listen(directory: OwnedFd, terminal: bool, input: Option<OwnedFd>) -> Result<Self> {
        let listen = || -> nix::Result<OwnedFd> {
            match rustix::fs::unlinkat(&directory, NAME, AtFlags::empty()) {
                Ok(()) | Err(rustix::io::Errno::NOENT) => {}
                Err(e) => return Err(errno(e)),
            }
            let listener = socket()?;
            let before = umask(FileMode::from_bits_truncate(0o177));
            let bound = rustix::net::bind(&listener, &address(&directory)?);
            umask(before);
            bound.map_err(errno)?;
            rustix::net::listen(&listener, 16).map_err(errno)?;
            Ok(listener)
        };
        let listener = listen().map_err(|e| Error::new("listen on", "the socket 'attach'", e))?;
        Ok(Self { directory, listener, clients: Vec::new(), terminal, input, said: Vec::new() })
    }

    /// Somebody has not taken what was sent: nothing more is read until then, as on a slow terminal, but for a second.
    pub fn is_full(&self) -> bool {
        self.clients.iter().any(|client| !client.held.is_empty())
    }

    /// When the patience with a slow client ends, in milliseconds.
    pub fn timeout(&self) -> Option<u16> {
        let slow = self.clients.iter().filter(|client| !client.held.is_empty());
        // Up, not to look a moment before the time.
        slow.map(|client| PATIENCE.saturating_sub(client.since.elapsed()).as_millis() as u16 + 1).min()
    }

    /// What to wait for: one for each of what is not waited for is left out.
    pub fn waits_for(&self) -> Vec<(BorrowedFd<'_>, PollFlags)> {
        let listener = (self.clients.len() < CLIENTS).then_some((self.listener.as_fd(), PollFlags::POLLIN));
        let clients = self.clients.iter().map(|client| (client.socket.as_fd(), client.waits_for()));
        let typed = self.clients.iter().any(|client| !client.typed.is_empty());
        let input = self.input.as_ref().filter(|_| typed).map(|input| (input.as_fd(), PollFlags::POLLOUT));
        listener.into_iter().chain(clients.filter(|(_, events)| !events.is_empty())).chain(input).collect()
    }

    /// Sends, receives and lets in what it can, `ready` being the answers for what [`Server::waits_for`] gave.
    pub fn copy(&mut self, ready: &[PollFlags]) {
        let mut ready = ready.iter().map(|flags| !flags.is_empty());
        let comes = self.clients.len() < CLIENTS && ready.next().unwrap_or(false);
        let (input, said) = (&mut self.input, &mut self.said);
        self.clients.retain_mut(|client| {
            let events = client.waits_for();
            let ready = !events.is_empty() && ready.next().unwrap_or(false);
            let goes_on = (!ready || client.send_held() && client.receive(said)) && !client.is_too_slow();
            client.pass_on(input);
            goes_on
        });
        if comes {
            self.let_in();
        }
    }

    fn let_in(&mut self) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        // Whoever came may have gone again.
        let Ok(socket) = rustix::net::accept_with(&self.listener, flags) else { return };
        let hello = [b'h', if self.terminal { b't' } else { b'p' }, if self.input.is_some() { b'i' } else { b'-' }];
        let mut client = Client { socket, held: VecDeque::new(), since: Instant::now(), typed: Vec::new() };
        client.give(hello.to_vec());
        self.clients.push(client);
    }

    /// Output of the payload, for all.
    pub fn output(&mut self, letter: u8, bytes: &[u8]) {
        for piece in bytes.chunks(OUTPUT) {
            let message = [&[letter], piece].concat();
            self.clients.iter_mut().for_each(|client| client.give(message.clone()));
        }
    }

    /// What clients have said since the last time.
    pub fn said(&mut self) -> Vec<Said> {
        std::mem::take(&mut self.said)
    }

    /// The payload reads no more.
    pub fn no_input(&mut self) {
        self.input = None;
        self.clients.iter_mut().for_each(|client| client.typed.clear());
    }

    /// The payload has ended, and all its output was given: the last word for all, for whom it is waited a second at most.
    pub fn finish(mut self, status: u8) {
        self.clients.iter_mut().for_each(|client| client.give(vec![b'x', status]));
        while self.is_full() {
            let slow: Vec<_> = self.clients.iter().filter(|client| !client.held.is_empty()).collect();
            let mut fds: Vec<_> = slow.iter().map(|c| PollFd::new(c.socket.as_fd(), PollFlags::POLLOUT)).collect();
            let _ = poll(&mut fds, self.timeout().map_or(PollTimeout::NONE, PollTimeout::from));
            self.clients.retain_mut(|client| client.send_held() && !client.is_too_slow());
        }
    }
}

impl Drop for Server {
    /// There is nobody to attach to any more. The lock is still held, so the socket is ours.
    fn drop(&mut self) {
        let _ = rustix::fs::unlinkat(&self.directory, NAME, AtFlags::empty());
    }
}

impl Client {
    fn waits_for(&self) -> PollFlags {
        let mut events = PollFlags::empty();
        // Who has gone is noticed by what it sent before that.
        events.set(PollFlags::POLLIN, self.typed.is_empty());
        events.set(PollFlags::POLLOUT, !self.held.is_empty());
        events
    }

    fn give(&mut self, message: Vec<u8>) {
        if self.held.is_empty() {
            self.since = Instant::now();
        }
        self.held.push_back(message);
        self.send_held();
    }

    /// Sends what the kernel has room for; whether the client is still there.
    fn send_held(&mut self) -> bool {
        while let Some(message) = self.held.front() {
            match send(&self.socket, message) {
                Ok(_) => {
                    self.held.pop_front();
                    self.since = Instant::now();
                }
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return true,
                Err(_) => {
                    self.held.clear();
                    return false;
                }
            }
        }
        true
    }

    fn is_too_slow(&self) -> bool {
        !self.held.is_empty() && self.since.elapsed() >= PATIENCE
    }

    /// Takes one message; whether the client is still there.
    fn receive(&mut self, said: &mut Vec<Said>) -> bool {
        if !self.typed.is_empty() {
            return true;
        }
        let mut message = [0; TYPED + 1];
        let length = match receive(&self.socket, &mut message) {
            Ok(None) => return true,
            Ok(Some(0)) | Err(_) => return false,
            Ok(Some(length)) => length,
        };
        match &message[..length] {
            [b'0', bytes @ ..] => self.typed.extend_from_slice(bytes),
            [b'w', a, b, c, d] => said.push(Said::Size(u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*c, *d]))),
            [b's', signal @ 1..=64] => said.push(Said::Signal(i32::from(*signal))),
            // Nothing that we know.
            _ => return false,
        }
        true
    }

    /// As much of the input as the payload has room for; without a reader it is nobody's.
    fn pass_on(&mut self, input: &mut Option<OwnedFd>) {
        let Some(to) = input else { return self.typed.clear() };
        if self.typed.is_empty() {
            return;
        }
        match nix::unistd::write(to, &self.typed) {
            Ok(length) => drop(self.typed.drain(..length)),
            Err(Errno::EINTR | Errno::EAGAIN) => {}
            Err(_) => *input = None,
        }
    }
}

/// Attaches to the container of this status file: its status when it has ended, 0 after the detach keys.
///
/// # Errors
/// `Container 'NAME' exists but is not running`; one in the foreground; one that has let us go.
pub fn run(status_file: &Path, options: &AttachOptions) -> Result<u8> {
    entry::need_root("bocker-exec")?;
    let name = status_file.parent().and_then(Path::file_name).map_or("?".into(), |name| name.to_string_lossy());
    if status::running(status_file)?.is_none() {
        return Err(Error::plain(format!("Container '{name}' exists but is not running")));
    }
    // From here on they are the container's.
    let signals = supervise::take_signals()?;
    let socket = connect(&directory(status_file)?).map_err(|e| match e {
        Errno::ENOENT | Errno::ECONNREFUSED => {
            Error::plain(format!("attach {name}: it is in the foreground of another process"))
        }
        e => Error::new("attach", &name, e),
    })?;
    let watch = Watch { keys: options.detach_keys.clone().unwrap_or_default().0, held: Vec::new() };
    let mut client = Attached {
        socket,
        signals,
        is_in: false,
        terminal: false,
        ours: if options.no_stdin { None } else { Some(Ours::stdin()?) },
        watch,
        typed: Vec::new(),
        shown: None,
        proxy: !options.no_sig_proxy,
    };
    let end = client.talk();
    // Before anything is said: lines are lines again.
    client.ours = None;
    match end? {
        End::Status(status) => Ok(status),
        End::Keys => {
            // What the container has shown ends anywhere in a line.
            let _ = if client.terminal { writeln!(std::io::stdout()) } else { Ok(()) };
            let _ = writeln!(std::io::stderr(), "detached from {name}");
            Ok(0)
        }
        End::Alone => match status::look(status_file)? {
            // It ended before it let us in.
            Seen { text: Text::Exited(status), .. } if !client.is_in => Ok(status),
            Seen { held: false, text: Text::Running(_) } => {
                Err(Error::plain(format!("attach {name}: its supervisor was killed, and the container with it")))
            }
            _ => Err(Error::plain(format!("attach {name}: this reader was too slow, and was let go"))),
        },
    }
}

/// The supervisor binds before the container is said to run, so there is nothing to wait for.
fn connect(directory: &OwnedFd) -> nix::Result<OwnedFd> {
    let socket = socket()?;
    rustix::net::connect(&socket, &address(directory)?).map_err(errno)?;
    Ok(socket)
}

/// A client.
struct Attached {
    socket: OwnedFd,
    signals: SignalFd,
    /// The supervisor has said what it is.
    is_in: bool,
    /// The container has one: ours is raw.
    terminal: bool,
    /// `None` at the end of the input.
    ours: Option<Ours>,
    watch: Watch,
    /// A message for which there was no room.
    typed: Vec<u8>,
    /// Output that is not written yet: whether it is stderr, and the bytes.
    shown: Option<(bool, Vec<u8>)>,
    proxy: bool,
}

/// Why a client ends.
enum End {
    /// The payload has ended.
    Status(u8),
    /// The detach keys.
    Keys,
    /// The connection has ended without a word.
    Alone,
}

impl Attached {
    fn talk(&mut self) -> Result<End> {
        loop {
            let (signals, socket, out, keys) = self.wait()?;
            if signals {
                if let Some(end) = self.take_signals() {
                    return Ok(end);
                }
            }
            if !self.typed.is_empty() && socket.contains(PollFlags::POLLOUT) {
                self.send_typed();
            }
            if out {
                if let Some(end) = self.show()? {
                    return Ok(end);
                }
            }
            if self.shown.is_none() && socket.intersects(PollFlags::POLLIN | PollFlags::POLLHUP) {
                if let Some(end) = self.hear()? {
                    return Ok(end);
                }
            }
            if keys && self.read_keys() {
                return Ok(End::Keys);
            }
            // In the foreground by now, without a word of the shell's.
            if self.ours.as_ref().is_some_and(Ours::has_come_to_the_foreground) {
                self.resume();
            }
        }
    }

    /// Whether signals, what of the socket, whether our output, whether keys are ready.
    fn wait(&self) -> Result<(bool, PollFlags, bool, bool)> {
        let mut events = PollFlags::empty();
        events.set(PollFlags::POLLIN, self.shown.is_none());
        events.set(PollFlags::POLLOUT, !self.typed.is_empty());
        let mut fds = vec![PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
        // With neither, not even its end is of interest: our own output is not written yet.
        let asked = !events.is_empty();
        if asked {
            fds.push(PollFd::new(self.socket.as_fd(), events));
        }
        if let Some((stderr, _)) = &self.shown {
            fds.push(PollFd::new(if *stderr { sys::stderr() } else { sys::stdout() }, PollFlags::POLLOUT));
        }
        let keys = self.ours.as_ref().filter(|ours| self.typed.is_empty() && !ours.in_background());
        fds.extend(keys.map(|ours| PollFd::new(ours.as_fd(), PollFlags::POLLIN)));
        let looks = self.ours.as_ref().is_some_and(Ours::in_background);
        let timeout = if looks { PollTimeout::from(FOREGROUND) } else { PollTimeout::NONE };
        match poll(&mut fds, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(e) => return Err(Error::new("wait for", "the container", e)),
        }
        let mut ready = fds.iter().map(|fd| fd.revents().unwrap_or(PollFlags::empty()));
        let mut next =
            |there: bool| if there { ready.next().unwrap_or(PollFlags::empty()) } else { PollFlags::empty() };
        let (signals, socket) = (next(true), next(asked));
        let (out, keys) = (next(self.shown.is_some()), next(keys.is_some()));
        Ok((!signals.is_empty(), socket, !out.is_empty(), !keys.is_empty()))
    }

    /// Where the container has no terminal, what would end this program is for the payload, as docker has it: but for HUP,
    /// by which our own terminal says that it has gone.
    fn take_signals(&mut self) -> Option<End> {
        while let Ok(Some(info)) = self.signals.read_signal() {
            match info.ssi_signo as i32 {
                libc::SIGWINCH => self.resize(),
                libc::SIGCONT => self.resume(),
                libc::SIGTSTP => {
                    self.ours.iter_mut().for_each(Ours::restore);
                    if signals::job() != signals::Job::Orphan {
                        let _ = sys::kill(nix::unistd::getpid(), libc::SIGSTOP);
                    }
                    self.resume();
                }
                libc::SIGCHLD | libc::SIGURG => {}
                signal if self.proxy && !self.terminal && signal != libc::SIGHUP => {
                    // No room: whoever does not read is not to be told either.
                    let _ = send(&self.socket, &[b's', signal as u8]);
                }
                signal => return Some(End::Status(128_u8.wrapping_add(signal as u8))),
            }
        }
        None
    }

    fn resume(&mut self) {
        if self.terminal {
            self.ours.iter_mut().for_each(Ours::raw);
        }
        self.resize();
    }

    fn resize(&self) {
        if let (true, Some(size)) = (self.terminal && self.ours.is_some(), our_size()) {
            self.send_size(size);
        }
    }

    fn send_size(&self, size: Winsize) {
        let ([a, b], [c, d]) = (size.ws_row.to_be_bytes(), size.ws_col.to_be_bytes());
        let _ = send(&self.socket, &[b'w', a, b, c, d]);
    }

    /// Takes one message.
    fn hear(&mut self) -> Result<Option<End>> {
        let mut message = vec![0; OUTPUT + 1];
        let length = match receive(&self.socket, &mut message) {
            Ok(Some(0)) => return Ok(Some(End::Alone)),
            Ok(None) => return Ok(None),
            Ok(Some(length)) => length,
            Err(e) => return Err(Error::new("read from", "the container", errno(e))),
        };
        match &message[..length] {
            [b'h', kind, input] => {
                if *input != b'i' {
                    self.ours = None;
                }
                (self.is_in, self.terminal) = (true, *kind == b't');
                // Another size first: then the kernel tells the programs in there of ours in any case, and they paint anew.
                if let (true, Some(size)) = (self.terminal && self.ours.is_some(), our_size()) {
                    self.send_size(Winsize { ws_row: size.ws_row.saturating_add(1), ..size });
                }
                self.resume();
            }
            [b'1', bytes @ ..] => self.shown = Some((false, bytes.to_vec())),
            [b'2', bytes @ ..] => self.shown = Some((true, bytes.to_vec())),
            [b'x', status] => return Ok(Some(End::Status(*status))),
            _ => {}
        }
        Ok(None)
    }

    /// Writes once, no more than there is room for.
    fn show(&mut self) -> Result<Option<End>> {
        let Some((stderr, bytes)) = &mut self.shown else { return Ok(None) };
        let (to, name) = if *stderr { (sys::stderr(), "stderr") } else { (sys::stdout(), "stdout") };
        match nix::unistd::write(to, &bytes[..bytes.len().min(libc::PIPE_BUF)]) {
            Ok(length) if length == bytes.len() => self.shown = None,
            Ok(length) => drop(bytes.drain(..length)),
            Err(Errno::EINTR | Errno::EAGAIN) => {}
            // As the signal would have ended us.
            Err(Errno::EPIPE) => return Ok(Some(End::Status(128 + libc::SIGPIPE as u8))),
            Err(e) => return Err(Error::new("write", name, e).status(OWN_FAILURE)),
        }
        Ok(None)
    }

    /// Reads what is typed; whether it was the keys that end us.
    fn read_keys(&mut self) -> bool {
        let Some(ours) = &self.ours else { return false };
        // With what the watch holds back still one message.
        let mut bytes = [0; TYPED - MOST_KEYS];
        let length = match nix::unistd::read(ours, &mut bytes) {
            Err(Errno::EINTR | Errno::EAGAIN) => return false,
            Ok(0) | Err(_) => {
                // We go on to look.
                self.ours = None;
                return false;
            }
            Ok(length) => length,
        };
        // Without a terminal in there ours gives lines, and keys are text.
        let (typed, keys) = match self.terminal && ours.is_terminal() {
            true => self.watch.typed(&bytes[..length]),
            false => (bytes[..length].to_vec(), false),
        };
        if !typed.is_empty() {
            self.typed = [b"0", &typed[..]].concat();
            self.send_typed();
        }
        keys
    }

    fn send_typed(&mut self) {
        if !matches!(send(&self.socket, &self.typed), Err(rustix::io::Errno::AGAIN)) {
            self.typed.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_as_docker_spells_them() {
        assert_eq!(keys("ctrl-p,ctrl-q"), Ok(Keys::default()));
        assert_eq!(keys("a,ctrl-@,ctrl-[,ctrl-_,~"), Ok(Keys(vec![b'a', 0, 27, 31, b'~'])));
        assert_eq!(keys(""), Ok(Keys(Vec::new())));
        for nonsense in ["ctrl-", "ctrl-P", "ctrl-1", "ab", "a,", ",", "ctrl-p ctrl-q", "é"] {
            assert!(keys(nonsense).is_err(), "{nonsense}");
        }
    }

    fn typed(watched: &str, pieces: &[&str]) -> (String, bool) {
        let mut watch = Watch { keys: watched.into(), held: Vec::new() };
        let mut all = Vec::new();
        for piece in pieces {
            let (on, end) = watch.typed(piece.as_bytes());
            all.extend(on);
            if end {
                return (String::from_utf8(all).unwrap(), true);
            }
        }
        (String::from_utf8(all).unwrap(), false)
    }

    #[test]
    fn keys_are_found_wherever_they_are() {
        let end = |text: &str| (text.to_owned(), true);
        assert_eq!(typed("pq", &["abpq"]), end("ab"));
        assert_eq!(typed("pq", &["p", "q"]), end(""));
        assert_eq!(typed("pq", &["pp", "q"]), end("p"));
        assert_eq!(typed("aab", &["aaab"]), end("a"));
        // The first key alone waits for what comes after it.
        assert_eq!(typed("pq", &["xp"]), ("x".to_owned(), false));
        assert_eq!(typed("pq", &["xp", "y"]), ("xpy".to_owned(), false));
        assert_eq!(typed("", &["pq"]), ("pq".to_owned(), false));
    }

    struct Scratch(PathBuf);

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    /// A server and a client of it that has been let in.
    fn pair(name: &str, input: Option<OwnedFd>) -> (Scratch, Server, OwnedFd) {
        // Longer than a socket's path may be.
        let dir = std::env::temp_dir().join(format!("bocker-exec-{name}-{}-{}", std::process::id(), "x".repeat(120)));
        std::fs::create_dir_all(&dir).unwrap();
        let status = dir.join("status");
        let mut server = Server::listen(directory(&status).unwrap(), false, input).unwrap();
        let client = connect(&directory(&status).unwrap()).unwrap();
        server.copy(&[PollFlags::POLLIN]);
        (Scratch(dir), server, client)
    }

    fn heard(client: &OwnedFd) -> Vec<u8> {
        let mut message = vec![0; OUTPUT + 1];
        let length = receive(client, &mut message).unwrap();
        message.truncate(length.unwrap_or(0));
        message
    }

    #[test]
    fn messages_go_both_ways() {
        let (read, write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_NONBLOCK).unwrap();
        let (dir, mut server, client) = pair("both", Some(write));
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(std::fs::metadata(dir.0.join(NAME)).unwrap().permissions().mode() & 0o7777, 0o600);
        assert_eq!(heard(&client), b"hpi");
        for message in [&b"0typed"[..], &[b'w', 0, 24, 1, 0], b"s\x0f"] {
            send(&client, message).unwrap();
            server.copy(&[PollFlags::empty(), PollFlags::POLLIN]);
        }
        let mut bytes = [0; 16];
        assert_eq!(nix::unistd::read(&read, &mut bytes), Ok(5));
        assert_eq!(&bytes[..5], b"typed");
        assert_eq!(server.said(), [Said::Size(24, 256), Said::Signal(15)]);
        server.output(b'2', b"error");
        assert_eq!(heard(&client), b"2error");
        server.finish(7);
        assert_eq!(heard(&client), b"x\x07");
        assert_eq!(heard(&client), b"");
        assert!(!dir.0.join(NAME).exists());
        assert_eq!(connect(&directory(&dir.0.join("status")).unwrap()).unwrap_err(), Errno::ENOENT);
    }

    #[test]
    fn who_does_not_know_the_protocol_is_let_go() {
        for message in [&b"?"[..], b"w\0", b"s\0", b"s\xff"] {
            let (_dir, mut server, client) = pair("unknown", None);
            assert_eq!(heard(&client), b"hp-");
            send(&client, message).unwrap();
            server.copy(&[PollFlags::empty(), PollFlags::POLLIN]);
            assert!(server.clients.is_empty() && server.said().is_empty(), "{message:?}");
        }
    }

    #[test]
    fn a_client_that_takes_nothing_is_let_go_and_memory_is_bounded() {
        let (_dir, mut server, client) = pair("slow", None);
        let mut rounds = 0;
        while !server.is_full() {
            server.output(b'1', &[b'x'; OUTPUT]);
            rounds += 1;
            assert!(rounds < 1000, "the kernel takes all");
        }
        assert_eq!(server.clients[0].held.len(), 1);
        assert!(server.timeout().is_some_and(|ms| ms <= 1001));
        server.copy(&[PollFlags::empty(), PollFlags::empty()]);
        assert_eq!(server.clients.len(), 1, "for a second");
        // Who takes something may go on.
        while !heard(&client).is_empty() {}
        server.copy(&[PollFlags::empty(), PollFlags::POLLOUT]);
        assert!(!server.is_full());
        while !server.is_full() {
            server.output(b'1', &[b'x'; OUTPUT]);
        }
        server.clients[0].since -= PATIENCE;
        server.copy(&[PollFlags::empty(), PollFlags::empty()]);
        assert!(server.clients.is_empty() && !server.is_full());
    }
}
