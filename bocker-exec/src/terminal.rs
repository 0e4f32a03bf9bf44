//! A terminal for the payload (`--tty`), and what keeps it from ours.
//!
//! Whoever holds a descriptor of a terminal can do more than write to it: read what is typed for others, set its modes,
//! and, with CAP_SYS_ADMIN or where it is the own controlling terminal, type (TIOCSTI; on the console TIOCLINUX). So the
//! payload never holds one of ours. With `--tty` it gets a pseudo terminal of the container's own devpts; without,
//! a pipe in the place of each of stdin, stdout and stderr that is a terminal. The supervisor copies.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use bocker_common::{Error, Result};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::pipe2;
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::pty::OpenptFlags;
use rustix::stdio;
use rustix::termios::{
    OptionalActions, QueueSelector, SpecialCodeIndex, Termios, Winsize, isatty, tcgetattr, tcgetwinsize, tcsetattr,
};

use crate::act::Stdio;
use crate::attach::{Said, Server};
use crate::inroot::{Root, errno};
use crate::log::Stream;
use crate::sys;

/// `statfs(2)`
const DEVPTS_SUPER_MAGIC: i64 = 0x1cd1;
/// As much as a terminal's line discipline takes of what is typed, N_TTY_BUF_SIZE.
pub(crate) const TYPED: usize = 4096;
/// How often a job in the background looks whether it is in the foreground, in milliseconds: the shell does not say so to
/// one that was not stopped.
pub(crate) const FOREGROUND: u16 = 500;
/// How often the end of the input is told to whoever reads the terminal.
const END_OF_INPUT: Duration = Duration::from_millis(200);

/// The options of this module.
#[derive(Debug, Clone, Copy, Default, clap::Args)]
pub struct TerminalOptions {
    /// Give it a terminal of the container's own, copied to stdin and stdout
    #[arg(long)]
    pub tty: bool,
}

/// A pseudo terminal.
#[derive(Debug)]
pub struct Pty {
    master: OwnedFd,
    /// The payload's side. We hold it until the payload has ended: with nobody holding it, reading the master would fail,
    /// and yet somebody may open /dev/console or /dev/tty again.
    peer: Option<OwnedFd>,
}

impl Pty {
    /// A new one of the devpts whose root directory this is, for this user.
    ///
    /// The other side is got from the kernel (TIOCGPTPEER, Linux 4.13), never by its path: what lies at `/dev/pts/0` is
    /// for the container to say (CVE-2025-52565).
    ///
    /// # Errors
    /// `openat2(2)`, `ioctl_tty(2)`, `fchown(2)`.
    pub fn open(devpts: impl AsFd, uid: u32) -> Result<Self> {
        let open = || -> rustix::io::Result<Self> {
            let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
            // The file system's own `ptmx`, and nothing that is mounted over it.
            let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
            let master = rustix::fs::openat2(devpts, "ptmx", flags, Mode::empty(), resolve)?;
            rustix::pty::unlockpt(&master)?;
            let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
            let peer = rustix::pty::ioctl_tiocgptpeer(&master, flags)?;
            // As login(1) does; the group is the file system's option.
            rustix::fs::fchown(&peer, Some(rustix::fs::Uid::from_raw(uid)), None)?;
            Ok(Self { master, peer: Some(peer) })
        };
        open().map_err(|e| Error::new("open", "a terminal of /dev/pts", errno(e)))
    }

    /// As [`Pty::open`], in a container that runs already.
    ///
    /// # Errors
    /// ENOTTY where its /dev/pts is no devpts; as [`Pty::open`].
    pub fn open_in(root: &Root, uid: u32) -> Result<Self> {
        let fail = |e| Error::new("open", "/dev/pts", e);
        let devpts = root.open("/dev/pts", OFlags::PATH | OFlags::DIRECTORY).map_err(fail)?;
        let kind = rustix::fs::fstatfs(&devpts).map_err(|e| fail(errno(e)))?;
        if kind.f_type != DEVPTS_SUPER_MAGIC {
            return Err(fail(Errno::ENOTTY));
        }
        Self::open(devpts, uid)
    }

    /// Sets the size; the kernel tells the programs on it (SIGWINCH) if it is another one than before.
    pub fn resize(&self, size: Winsize) {
        let _ = rustix::termios::tcsetwinsize(&self.master, size);
    }

    /// Tells whoever reads that nothing more will come, as a person would by Ctrl-D. Not while something waits to be read:
    /// a program that has not asked yet may set another mode first, in which the key already typed means nothing.
    fn end_of_input(&self) {
        let Some(peer) = &self.peer else { return };
        let mut waiting = [PollFd::new(peer.as_fd(), PollFlags::POLLIN)];
        if poll(&mut waiting, PollTimeout::ZERO) == Ok(0) {
            if let Ok(modes) = tcgetattr(&self.master) {
                let _ = nix::unistd::write(&self.master, &[modes.special_codes[SpecialCodeIndex::VEOF]]);
            }
        }
    }
}

/// The two sides of the copying between us and the payload.
#[derive(Debug, Default)]
pub struct Plumbing {
    /// The payload's.
    pub stdio: Stdio,
    /// Its outputs on their way to ours.
    pub streams: Vec<Stream>,
    /// Its input, and its terminal.
    pub talk: Talk,
}

impl Plumbing {
    /// For a payload with this terminal, copied to ours.
    ///
    /// # Errors
    /// `fcntl(2)`.
    pub fn terminal(pty: Pty, interactive: bool) -> Result<Self> {
        let keyboard = if stdin_is_nothing() && !interactive { None } else { Some(Keyboard::new(copy(&pty.master)?)?) };
        let mut all = Self::of(pty, Some(sys::stdout()))?;
        all.talk.keyboard = keyboard;
        all.talk.resize();
        Ok(all)
    }

    fn of(pty: Pty, to: Option<BorrowedFd<'static>>) -> Result<Self> {
        let side = || pty.peer.as_ref().map(copy).transpose();
        let stdio = Stdio([side()?, side()?, side()?]);
        let streams = vec![Stream::new(copy(&pty.master)?, to, "stdout")];
        Ok(Self { stdio, streams, talk: Talk { pty: Some(pty), ..Talk::default() } })
    }

    /// For a payload without one: pipes for the outputs that are `logged`, and in the place of a terminal of ours.
    ///
    /// # Errors
    /// `pipe2(2)`, `fcntl(2)`.
    pub fn pipes(logged: bool) -> Result<Self> {
        let mut all = Self::default();
        if isatty(stdio::stdin()) {
            // Decided once: it may be in the foreground at the next look.
            all.stdio.0[0] = Some(if in_background(stdio::stdin()) {
                null()?
            } else {
                let (read, write) = input_pipe()?;
                all.talk.keyboard = Some(Keyboard::new(write)?);
                read
            });
        }
        let (out, err) = (isatty(stdio::stdout()), isatty(stdio::stderr()));
        if logged || out {
            let (read, write) = pipe()?;
            all.streams.push(Stream::new(read, Some(sys::stdout()), "stdout"));
            // On one terminal it can be seen which came first: so in one pipe, where no log keeps them apart.
            if !logged && err && same_terminal() {
                all.stdio.0[2] = Some(copy(&write)?);
            }
            all.stdio.0[1] = Some(write);
        }
        if (logged || err) && all.stdio.0[2].is_none() {
            let (read, write) = pipe()?;
            all.streams.push(Stream::new(read, Some(sys::stderr()), "stderr"));
            all.stdio.0[2] = Some(write);
        }
        Ok(all)
    }

    /// For a payload in the background of everything. Its output goes to the log, and to who attaches `beside` where there is
    /// a status file to find it by; its input comes from there.
    ///
    /// # Errors
    /// As above, and [`Server::listen`].
    pub fn detached(pty: Option<Pty>, interactive: bool, logged: bool, beside: Option<OwnedFd>) -> Result<Self> {
        let (mut all, mut input) = (Self::default(), None);
        let terminal = pty.is_some();
        match pty {
            Some(pty) => {
                input = Some(copy(&pty.master)?);
                all = Self::of(pty, None)?;
            }
            None => {
                all.stdio = Stdio::null()?;
                if interactive {
                    let (read, write) = input_pipe()?;
                    (all.stdio.0[0], input) = (Some(read), Some(write));
                }
                for (at, name) in [(1, "stdout"), (2, "stderr")].into_iter().filter(|_| logged || beside.is_some()) {
                    let (read, write) = pipe()?;
                    all.streams.push(Stream::new(read, None, name));
                    all.stdio.0[at] = Some(write);
                }
            }
        }
        match beside {
            Some(beside) => all.talk.server = Some(Server::listen(beside, terminal, input)?),
            // Open, though nobody ever types.
            None => all.talk.unused = input,
        }
        Ok(all)
    }
}

/// No input.
#[expect(clippy::disallowed_methods, reason = "the host's /dev/null, before any namespace")]
fn null() -> Result<OwnedFd> {
    std::fs::File::open("/dev/null").map(OwnedFd::from).map_err(|e| Error::new("open", "/dev/null", e))
}

fn copy(fd: impl AsFd) -> Result<OwnedFd> {
    rustix::io::fcntl_dupfd_cloexec(fd, 3).map_err(|e| Error::new("copy", "a descriptor", errno(e)))
}

/// A pipe that is written to without waiting.
fn input_pipe() -> Result<(OwnedFd, OwnedFd)> {
    let (read, write) = pipe()?;
    rustix::io::ioctl_fionbio(&write, true).map_err(|e| Error::new("make", "a pipe", errno(e)))?;
    Ok((read, write))
}

fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    pipe2(OFlag::O_CLOEXEC).map_err(|e| Error::new("make", "a pipe", e))
}

/// /dev/null is no input rather than its end: as docker's `-t` without `-i` has it, a shell waits then.
fn stdin_is_nothing() -> bool {
    rustix::fs::fstat(stdio::stdin()).is_ok_and(|stat| {
        FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == rustix::fs::makedev(1, 3)
    })
}

/// The size of the terminal that we are on, if we are on any.
pub(crate) fn our_size() -> Option<Winsize> {
    [stdio::stdin(), stdio::stdout(), stdio::stderr()].into_iter().find_map(|fd| tcgetwinsize(fd).ok())
}

fn same_terminal() -> bool {
    let number = |fd: BorrowedFd<'static>| rustix::fs::fstat(fd).map(|stat| (stat.st_dev, stat.st_ino)).ok();
    number(sys::stdout()) == number(sys::stderr())
}

/// What is typed, and what the supervisor does to the terminals on both sides.
#[derive(Debug, Default)]
pub struct Talk {
    pty: Option<Pty>,
    keyboard: Option<Keyboard>,
    /// Detached: for those who attach.
    server: Option<Server>,
    unused: Option<OwnedFd>,
    signals: Vec<i32>,
}

impl Talk {
    /// The payload has a terminal.
    pub fn has_terminal(&self) -> bool {
        self.pty.is_some()
    }

    /// The payload runs: from here on keys are its own to read, Ctrl-C as well as letters.
    pub fn begin(&mut self) {
        if self.has_terminal() {
            if let Some(ours) = self.ours() {
                ours.raw();
            }
        }
    }

    /// Before we stop: the shell finds its terminal as it was.
    pub fn pause(&mut self) {
        if let Some(ours) = self.ours() {
            ours.restore();
        }
    }

    /// After that, or when we were stopped by others: the terminal may be another size, or in other modes.
    pub fn resume(&mut self) {
        self.begin();
        self.resize();
    }

    /// Our terminal's size becomes the payload's.
    pub fn resize(&mut self) {
        if let (Some(pty), Some(size)) = (&self.pty, our_size()) {
            pty.resize(size);
        }
    }

    /// The payload has ended: its terminal ends for us when nobody else holds it.
    pub fn ended(&mut self) {
        (self.keyboard, self.unused) = (None, None);
        self.server.iter_mut().for_each(Server::no_input);
        if let Some(pty) = &mut self.pty {
            pty.peer = None;
        }
    }

    /// And all its output was copied.
    pub fn finish(&mut self, status: u8) {
        if let Some(server) = self.server.take() {
            server.finish(status);
        }
    }

    /// Output of the payload, for those who are attached.
    pub fn output(&mut self, stderr: bool, bytes: &[u8]) {
        self.server.iter_mut().for_each(|server| server.output(if stderr { b'2' } else { b'1' }, bytes));
    }

    /// Somebody who is attached has no room for more.
    pub fn is_full(&self) -> bool {
        self.server.as_ref().is_some_and(Server::is_full)
    }

    /// Signals that those who are attached have sent.
    pub fn signals(&mut self) -> Vec<i32> {
        std::mem::take(&mut self.signals)
    }

    /// Nobody takes what the terminal shows: as for a broken pipe, whoever writes to it is told (SIGHUP, EIO).
    pub fn hang_up(&mut self) {
        (self.keyboard, self.pty) = (None, None);
    }

    /// What to wait for.
    pub fn waits_for(&self) -> Vec<(BorrowedFd<'_>, PollFlags)> {
        match &self.server {
            Some(server) => server.waits_for(),
            None => self.keyboard.iter().flat_map(Keyboard::waits_for).collect(),
        }
    }

    /// The longest time to wait, in milliseconds.
    pub fn timeout(&self) -> Option<u16> {
        if let Some(server) = &self.server {
            return server.timeout();
        }
        let keyboard = self.keyboard.as_ref()?;
        match &keyboard.from {
            Some(from) if from.in_background() => Some(FOREGROUND),
            None if self.pty.is_some() => Some(END_OF_INPUT.as_millis() as u16),
            _ => None,
        }
    }

    /// Copies what it can, `ready` being the answers for what [`Talk::waits_for`] gave.
    pub fn copy(&mut self, ready: &[PollFlags]) {
        if let Some(server) = &mut self.server {
            server.copy(ready);
            for said in server.said() {
                match (said, &self.pty) {
                    (Said::Signal(signal), _) => self.signals.push(signal),
                    (Said::Size(ws_row, ws_col), Some(pty)) => {
                        pty.resize(Winsize { ws_row, ws_col, ws_xpixel: 0, ws_ypixel: 0 });
                    }
                    (Said::Size(..), None) => {}
                }
            }
        }
        let Some(keyboard) = &mut self.keyboard else { return };
        keyboard.copy(ready);
        match &keyboard.from {
            None if !keyboard.typed.is_empty() => {}
            None => match &self.pty {
                Some(pty) if keyboard.told.is_none_or(|at| at.elapsed() >= END_OF_INPUT) => {
                    keyboard.told = Some(Instant::now());
                    pty.end_of_input();
                }
                Some(_) => {}
                None => self.keyboard = None,
            },
            // In the foreground by now, without a word of the shell's.
            Some(from) if from.has_come_to_the_foreground() => self.resume(),
            Some(_) => {}
        }
    }

    fn ours(&mut self) -> Option<&mut Ours> {
        self.keyboard.as_mut()?.from.as_mut()
    }
}

/// Our stdin on its way to the payload.
#[derive(Debug)]
struct Keyboard {
    /// `None` at its end.
    from: Option<Ours>,
    to: OwnedFd,
    /// Read and not yet written.
    typed: Vec<u8>,
    /// When the terminal's reader was last told the end.
    told: Option<Instant>,
}

impl Keyboard {
    fn new(to: OwnedFd) -> Result<Self> {
        Ok(Self { from: Some(Ours::stdin()?), to, typed: Vec::new(), told: None })
    }

    /// Room while something is left to write, else something to read; and whether the reader has gone, always.
    fn waits_for(&self) -> impl Iterator<Item = (BorrowedFd<'_>, PollFlags)> {
        let writes = if self.typed.is_empty() { PollFlags::empty() } else { PollFlags::POLLOUT };
        let reads = self.from.as_ref().filter(|from| self.typed.is_empty() && !from.in_background());
        let reads = reads.map(|from| (from.fd.as_fd(), PollFlags::POLLIN));
        std::iter::once((self.to.as_fd(), writes)).chain(reads)
    }

    fn copy(&mut self, ready: &[PollFlags]) {
        let gone = |flags: &PollFlags| flags.intersects(PollFlags::POLLERR | PollFlags::POLLHUP | PollFlags::POLLNVAL);
        if ready.first().is_some_and(gone) {
            return self.close();
        }
        if let (true, Some(from)) = (ready.get(1).is_some_and(|flags| !flags.is_empty()), &self.from) {
            let mut bytes = [0; TYPED];
            match nix::unistd::read(&from.fd, &mut bytes) {
                // Else: it was in the background again, or somebody else read it.
                Err(Errno::EINTR | Errno::EAGAIN) => {}
                // A terminal that has hung up fails.
                Ok(0) | Err(_) => self.from = None,
                Ok(length) => self.typed.extend_from_slice(&bytes[..length]),
            }
        }
        if !self.typed.is_empty() {
            match nix::unistd::write(&self.to, &self.typed) {
                Ok(length) => drop(self.typed.drain(..length)),
                Err(Errno::EINTR | Errno::EAGAIN) => {}
                Err(_) => self.close(),
            }
        }
    }

    /// The payload reads no more: what is typed from here on stays for others.
    fn close(&mut self) {
        self.from = None;
        self.typed.clear();
    }
}

/// Our stdin: a terminal, or something else.
#[derive(Debug)]
pub(crate) struct Ours {
    fd: OwnedFd,
    /// The modes that we found, and those that we set.
    modes: Option<(Termios, Termios)>,
    waits_for_the_foreground: bool,
}

impl Ours {
    /// Opened once more where that can be: then its O_NONBLOCK is not the caller's, and two that read one terminal
    /// cannot keep us waiting.
    #[expect(clippy::disallowed_methods, reason = "/proc/self/fd/0, before any namespace")]
    pub(crate) fn stdin() -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let again = rustix::fs::open("/proc/self/fd/0", flags, Mode::empty());
        let fd = again.or_else(|_| rustix::io::fcntl_dupfd_cloexec(stdio::stdin(), 3));
        let fd = fd.map_err(|e| Error::new("open", "stdin", errno(e)))?;
        Ok(Self { fd, modes: None, waits_for_the_foreground: false })
    }

    pub(crate) fn in_background(&self) -> bool {
        in_background(&self.fd)
    }

    /// It was in the background when it should have become raw, and is no more.
    pub(crate) fn has_come_to_the_foreground(&self) -> bool {
        self.waits_for_the_foreground && !self.in_background()
    }

    pub(crate) fn is_terminal(&self) -> bool {
        isatty(&self.fd)
    }

    /// Every key comes as a byte, at once: the payload's terminal echoes, edits lines, and makes signals of keys.
    pub(crate) fn raw(&mut self) {
        self.waits_for_the_foreground = self.in_background();
        let Ok(found) = tcgetattr(&self.fd) else { return };
        if self.waits_for_the_foreground || self.modes.as_ref().is_some_and(|(_, set)| same(set, &found)) {
            return;
        }
        let mut set = found.clone();
        set.make_raw();
        if tcsetattr(&self.fd, OptionalActions::Now, &set).is_ok() {
            self.modes = Some((found, set));
        }
    }

    /// What we found, unless somebody else has set the terminal since: a shell, when we were stopped or in the background.
    pub(crate) fn restore(&mut self) {
        if let Some((found, set)) = self.modes.take() {
            if tcgetattr(&self.fd).is_ok_and(|now| same(&now, &set)) {
                // In the background, too: the shell may have taken the terminal back because who started us is dead.
                let mut hold = SigSet::empty();
                hold.add(Signal::SIGTTOU);
                let _ = hold.thread_block();
                let _ = tcsetattr(&self.fd, OptionalActions::Now, &found);
                let _ = hold.thread_unblock();
            }
        }
    }
}

impl AsFd for Ours {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        // What was typed for the payload, and what a terminal answers to its questions, is no command for the shell.
        if self.modes.is_some() && !self.in_background() {
            let _ = rustix::termios::tcflush(&self.fd, QueueSelector::IFlush);
        }
        self.restore();
    }
}

/// In the background of our terminal what is typed is for others. By its job control the kernel would stop us, for the
/// payload's sake, which may not even want input.
fn in_background(terminal: impl AsFd) -> bool {
    rustix::termios::tcgetpgrp(terminal).is_ok_and(|group| group != rustix::process::getpgrp())
}

fn same(a: &Termios, b: &Termios) -> bool {
    (a.input_modes, a.output_modes, a.control_modes, a.local_modes)
        == (b.input_modes, b.output_modes, b.control_modes, b.local_modes)
}
