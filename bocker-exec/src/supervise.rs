//! The supervisor: forks, passes signals on, copies the output to the log if there is one, waits, reports.

use std::ffi::OsString;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use bocker_common::diag::OWN_FAILURE;
use bocker_common::{Error, Result};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::{ForkResult, Pid, pipe2, setsid};

use crate::act;
use crate::detach::Detached;
use crate::log::{Stream, Writer};
use crate::protect::{self, Score};
use crate::signals::{self, Deliver, Job, deliver, taken};
use crate::status::{Status, StatusFd};
use crate::sys::{self, Ended};
use crate::terminal::Talk;

/// Signals from here on come through this descriptor and interrupt nothing. The child keeps them blocked until
/// right before its `execve(2)`.
///
/// # Errors
/// `signalfd(2)`.
pub fn take_signals() -> Result<SignalFd> {
    let set = taken();
    let fail = |e| Error::new("take", "signals", bocker_common::diag::Reason::from(e));
    nix::sys::signal::sigprocmask(nix::sys::signal::SigmaskHow::SIG_SETMASK, Some(&set), None).map_err(fail)?;
    SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).map_err(fail)
}

/// A child on its way to `execve(2)`.
#[derive(Debug)]
pub struct Started {
    pid: Pid,
    /// Ends without a byte when the payload has been executed (our reaper says so by a zero), else tells why not. It ends without
    /// a byte, too, where the child was killed: see [`has_executed`].
    report: OwnedFd,
}

/// Forks; the child does `become_payload`, which returns only with the reason why it could not. It gets a copy of the other end of
/// the report.
///
/// # Errors
/// `pipe2(2)`, `fork(2)`.
pub fn start(become_payload: impl FnOnce(OwnedFd) -> Error) -> Result<Started> {
    let (report, tell) = pipe2(OFlag::O_CLOEXEC).map_err(|e| Error::new("make", "a pipe", e))?;
    let copy = tell.try_clone().map_err(|e| Error::new("copy", "a descriptor", e))?;
    match sys::fork().map_err(|e| Error::new("fork", "the payload", e))? {
        // The closure goes here too, and with it our copies of the child's descriptors: the root, the pipes' ends.
        ForkResult::Parent { child } => Ok(Started { pid: child, report }),
        ForkResult::Child => {
            drop(report);
            let error = match detach(&tell) {
                Ok(()) => become_payload(copy),
                Err(error) => error,
            };
            let mut message = vec![error.exit_status()];
            message.extend(error.to_string().bytes());
            // At most PIPE_BUF fits without a reader, and a reader there is.
            let _ = std::io::Write::write_all(&mut std::fs::File::from(tell), &message);
            sys::exit_now(error.exit_status());
        }
    }
}

/// In the background of our terminal (a shell's `&`) the payload gets no input. By its session it is outside of the
/// shell's job control, so the kernel would not stop it: it would take what is typed for the shell. To be called while /dev is the
/// host's: a container's root says what lies at its own /dev/null.
#[expect(clippy::disallowed_methods, reason = "/dev/null, before any namespace")]
pub(crate) fn leave_the_terminal_to_others() -> Result<()> {
    let stdin = rustix::stdio::stdin();
    if rustix::termios::tcgetpgrp(stdin).is_ok_and(|group| group != rustix::process::getpgrp()) {
        let nothing = std::fs::File::open("/dev/null").map_err(|e| Error::new("open", "/dev/null", e))?;
        rustix::stdio::dup2_stdin(nothing).map_err(|e| Error::new("leave", "the terminal", crate::inroot::errno(e)))?;
    }
    Ok(())
}

/// A session of its own: the terminal's Ctrl-C comes once, through the supervisor, and TIOCSTI needs a controlling
/// terminal. And no life without the supervisor.
fn detach(tell: &OwnedFd) -> Result<()> {
    setsid().map_err(|e| Error::new("start", "a session", e))?;
    act::die_with_supervisor().map_err(|e| Error::new("bind", "to the supervisor", e))?;
    is_watched(tell)
}

/// After [`act::die_with_supervisor`]: it may have died before that. getppid(2) is 0 in a new PID namespace either way; a pipe without a
/// reader tells. A change of identity undoes the binding, so this is to be asked once more after the last one.
pub(crate) fn is_watched(tell: &OwnedFd) -> Result<()> {
    let mut fds = [PollFd::new(tell.as_fd(), PollFlags::empty())];
    let gone = poll(&mut fds, PollTimeout::ZERO).is_ok()
        && fds[0].revents().is_some_and(|events| events.contains(PollFlags::POLLERR));
    if gone { Err(Error::plain("the supervisor was killed").status(OWN_FAILURE)) } else { Ok(()) }
}

/// Whether a process has executed a program since it was forked: PF_FORKNOEXEC of <linux/sched.h> in the flags of `/proc/PID/stat`, which
/// a zombie has, too. Where they cannot be read it counts as done.
#[expect(
    clippy::disallowed_methods,
    reason = "/proc/PID/stat, of the host or of the container that asks about its own"
)]
pub(crate) fn has_executed(pid: Pid) -> bool {
    const FORKNOEXEC: u64 = 0x40;
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The second field is a name in parentheses, which may hold anything; the ninth is meant.
    let flags = text.rsplit_once(')').and_then(|(_, rest)| rest.split_ascii_whitespace().nth(6)?.parse::<u64>().ok());
    flags.is_none_or(|flags| flags & FORKNOEXEC == 0)
}

/// What the supervisor holds while the payload lives.
#[derive(Debug)]
pub struct Supervisor {
    /// The signals that were taken.
    pub signals: SignalFd,
    /// The lock.
    pub status: Option<Status>,
    /// The log.
    pub log: Option<Writer>,
    /// The payload's outputs that are copied, to the log and to ours.
    pub streams: Vec<Stream>,
    /// Its input that is copied, and its terminal.
    pub talk: Talk,
    /// The payload is process 1 of a PID namespace, for which the kernel drops what it does not handle.
    pub first: bool,
    /// With --die-with-parent: who started us, by pidfd_open(2). With --detach, until the payload runs: the caller.
    pub parent: Option<OwnedFd>,
    /// With --detach: the caller is told when the payload runs.
    pub detached: Option<Detached>,
    /// With --status-fd.
    pub status_fd: Option<StatusFd>,
    /// The container's name: that of its control groups, and of the directory of its status file.
    pub container: Option<OsString>,
    /// With --init.
    pub init: bool,
    /// Whether there is memory to give back.
    pub memory: Memory,
    /// What the OOM killer thought of us before.
    pub score: Option<Score>,
}

/// Of who watches.
#[derive(Debug, Clone, Copy)]
pub enum Memory {
    /// In the foreground nobody asks.
    Unasked,
    /// It has been given back, and nothing has happened since.
    Small,
    /// Something has happened, first at this time: in a second.
    Grown(Instant),
}

/// How long memory stays, lest a container that writes many lines pays for each.
const MEMORY_STAYS: Duration = Duration::from_secs(1);

/// How far the payload is.
struct Payload {
    pid: Pid,
    /// `None` once it has been executed.
    report: Option<std::fs::File>,
    told: Vec<u8>,
    /// It ended, or is about to, without a word and without the command.
    killed_before: bool,
    /// Signals that came before, and whether by a key of the terminal.
    held: Vec<(i32, bool)>,
    /// Its default action was done for it by SIGKILL.
    killed_for: Option<i32>,
    status: Option<u8>,
    /// By INT, TERM, HUP or QUIT; `stop`: once more after its end.
    told_to_end: bool,
    stop: bool,
    /// Who started us stops for the shell; we stay awake to hear when it dies.
    accompanied: bool,
    /// Our reaper is process 1, and passes on what it gets.
    init: bool,
}

impl Supervisor {
    /// Until the payload has ended and its output has been copied: its status, 128 + n for a signal.
    ///
    /// # Errors
    /// What the child reported before it could execute the payload; `poll(2)`.
    pub fn wait(mut self, started: Started) -> Result<u8> {
        let mut payload = Payload {
            pid: started.pid,
            report: Some(started.report.into()),
            told: Vec::new(),
            killed_before: false,
            held: Vec::new(),
            killed_for: None,
            status: None,
            told_to_end: false,
            stop: false,
            accompanied: self.parent.is_some(),
            init: self.init,
        };
        if let Some(log) = &mut self.log {
            log.start();
        }
        let mut clean = Vec::new();
        loop {
            let copied = self.streams.iter().all(Stream::is_done);
            if let (Some(status), None, true) = (payload.status, &payload.report, copied) {
                let lost = status == 0 && self.lost();
                if let Some(log) = self.log.take() {
                    log.finish();
                }
                if let Some(score) = self.score.take() {
                    score.restore();
                }
                let status = if lost { OWN_FAILURE } else { status };
                self.talk.finish(status);
                return payload.result(status);
            }
            let ended = payload.status.is_some();
            let ready = self.poll(&payload, &clean)?;
            clean.clear();
            match self.memory {
                Memory::Grown(since) if since.elapsed() >= MEMORY_STAYS => {
                    clean = protect::shrink();
                    self.memory = Memory::Small;
                }
                Memory::Small => self.memory = Memory::Grown(Instant::now()),
                Memory::Grown(_) | Memory::Unasked => {}
            }
            if ready.report {
                self.hear(&mut payload);
            }
            if ready.parent && self.parent.is_some() {
                // Not the end of ourselves: the log and the status are still to be written.
                self.parent = None;
                payload.told_to_end = true;
                match payload.status {
                    None => drop(sys::kill(payload.pid, libc::SIGKILL)),
                    Some(_) => payload.stop = true,
                }
            }
            if ready.signals {
                self.take(&mut payload);
            }
            if payload.stop || ready.nothing {
                self.streams.iter_mut().for_each(Stream::abandon);
            }
            self.talk.copy(&ready.talk);
            for signal in self.talk.signals() {
                match &payload {
                    Payload { status: Some(_), .. } => {}
                    Payload { report: Some(_), .. } => payload.held.push((signal, false)),
                    _ => payload.deliver(signal, false, self.first),
                }
            }
            let ready_blocked = ready.blocked;
            for (stream, ready) in self.streams.iter_mut().zip(ready.streams) {
                match ready {
                    true if stream.is_full() => {
                        stream.drain();
                        match stream.broken() {
                            Some(Errno::EPIPE) => {
                                if self.first && payload.status.is_none() {
                                    payload.pipe_broke();
                                }
                                stream.close();
                                self.talk.hang_up();
                            }
                            // Lost, which is no reader's wish: the payload goes on, and the log has the rest.
                            Some(_) => stream.abandon(),
                            None => {}
                        }
                    }
                    true => {
                        let stderr = stream.is_stderr();
                        self.talk.output(stderr, stream.fill(self.log.as_mut()));
                    }
                    // A terminal has no end while anybody holds it: what the payload left behind in the background.
                    false if ended && !ready_blocked && self.talk.has_terminal() && !stream.is_full() => stream.close(),
                    false => {}
                }
            }
        }
    }

    /// Whether some of the output reached neither a reader nor somebody who has stopped reading.
    fn lost(&self) -> bool {
        let mut broken = self.streams.iter().filter_map(Stream::broken);
        broken.any(|errno| errno != Errno::EPIPE)
    }

    /// Pages of `clean` are not needed meanwhile.
    fn poll(&self, payload: &Payload, clean: &[(usize, usize)]) -> Result<Ready> {
        let mut fds = vec![PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
        fds.extend(self.parent.iter().map(|parent| PollFd::new(parent.as_fd(), PollFlags::POLLIN)));
        fds.extend(payload.report.iter().map(|report| PollFd::new(report.as_fd(), PollFlags::POLLIN)));
        // Somebody who is attached has no room: nothing is read until then.
        let blocked = self.talk.is_full();
        let waits: Vec<_> = self.streams.iter().map(|s| s.waits_for().filter(|_| s.is_full() || !blocked)).collect();
        for (fd, events) in waits.iter().flatten() {
            fds.push(PollFd::new(*fd, *events));
        }
        let talk = self.talk.waits_for();
        fds.extend(talk.iter().map(|(fd, events)| PollFd::new(*fd, *events)));
        let ended = payload.status.is_some();
        // Told to end, the payload has ended, and nobody reads its output: a second, as a courtesy.
        let hurry = ended && payload.told_to_end;
        let timeout = match self.talk.timeout() {
            _ if ended && !blocked && self.talk.has_terminal() && !self.streams.iter().any(Stream::is_full) => {
                PollTimeout::ZERO
            }
            talk if hurry || matches!(self.memory, Memory::Grown(_)) => {
                PollTimeout::from(talk.unwrap_or(1000).min(1000))
            }
            talk => talk.map_or(PollTimeout::NONE, PollTimeout::from),
        };
        clean.iter().for_each(|(start, end)| sys::forget_pages(*start, end - start));
        let timed_out = match poll(&mut fds, timeout) {
            Ok(ready) => ready == 0,
            Err(Errno::EINTR) => false,
            Err(errno) => return Err(Error::new("wait for", "the payload", errno)),
        };
        let mut ready = fds.iter().map(|fd| fd.any().unwrap_or(false));
        let signals = ready.next().unwrap_or(false);
        let parent = self.parent.is_some() && ready.next().unwrap_or(false);
        let report = payload.report.is_some() && ready.next().unwrap_or(false);
        let streams = waits.iter().map(|waits| waits.is_some() && ready.next().unwrap_or(false)).collect();
        let talk = fds[fds.len() - talk.len()..].iter().map(|fd| fd.revents().unwrap_or(PollFlags::empty())).collect();
        Ok(Ready { signals, parent, report, streams, talk, blocked, nothing: timed_out && hurry })
    }

    /// The child's report: its end means that the payload runs, for `execve(2)` closed the other side; or that it was killed.
    fn hear(&mut self, payload: &mut Payload) {
        let Some(report) = &mut payload.report else { return };
        let mut bytes = [0; 4096];
        match report.read(&mut bytes) {
            Ok(0) => payload.report = None,
            Ok(length) => return payload.told.extend_from_slice(&bytes[..length]),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => return,
            Err(_) => payload.report = None,
        }
        let executed = match payload.init {
            true => payload.told == crate::init::EXECUTED,
            false => payload.told.is_empty() && has_executed(payload.pid),
        };
        payload.killed_before = payload.told.is_empty() && !executed;
        if executed {
            payload.told.clear();
            self.executed(payload.pid);
            self.talk.begin();
            for (signal, key) in std::mem::take(&mut payload.held) {
                payload.deliver(signal, key, self.first);
            }
        }
    }

    /// The payload runs. First what others need to find it, then the caller's leave.
    fn executed(&mut self, payload: Pid) {
        self.score = protect::from_the_oom_killer();
        if let Some(status) = &self.status {
            status.running(payload);
        }
        if let Some(fd) = &mut self.status_fd {
            fd.running(payload);
        }
        if let Some(detached) = self.detached.take() {
            // In the foreground it stays where it is: who started it is outside, and kills all that is in the group.
            self.container.iter().for_each(|name| protect::leave_groups(name));
            self.parent = None;
            detached.executed();
            self.memory = Memory::Grown(Instant::now());
        }
    }

    /// Takes all signals that are there.
    fn take(&mut self, payload: &mut Payload) {
        while let Ok(Some(info)) = self.signals.read_signal() {
            let signal = info.ssi_signo as i32;
            // SI_KERNEL: no kill(2), but a key of the terminal.
            let key = info.ssi_code > 0 && matches!(signal, libc::SIGINT | libc::SIGQUIT | libc::SIGTSTP);
            // Our own, for a log longer than `ulimit -f` allows: the write has failed and been told.
            if signal == libc::SIGXFSZ && info.ssi_pid == std::process::id() {
                continue;
            }
            if signal == libc::SIGWINCH && self.talk.has_terminal() {
                self.talk.resize();
                continue;
            }
            payload.told_to_end |= ends(signal);
            if signal == libc::SIGCHLD {
                self.collect(payload);
            } else if payload.status.is_some() {
                // The payload has ended; somebody who does not read our output keeps us. Then this one is for us.
                payload.stop |= ends(signal);
            } else if payload.report.is_some() {
                payload.held.push((signal, key));
            } else {
                if signal == libc::SIGTSTP {
                    self.talk.pause();
                }
                payload.deliver(signal, key, self.first);
                if matches!(signal, libc::SIGTSTP | libc::SIGCONT) {
                    self.talk.resume();
                }
            }
        }
    }

    /// Has it ended? First the status file, then the reaping: until then nobody else can have its PID.
    fn collect(&mut self, payload: &mut Payload) {
        if payload.status.is_some() {
            return;
        }
        let Ok(Some(ended)) = sys::peek_exit(payload.pid) else { return };
        let code = match (ended, payload.killed_for) {
            (Ended::Killed(libc::SIGKILL), Some(signal)) => 128 + signal,
            (Ended::Killed(signal), _) => 128 + signal,
            (Ended::Exited(code), _) => code,
        };
        let mut code = (code & 0xff) as u8;
        // It is dead, so the report is complete: did it get as far as to execute the payload?
        while payload.report.is_some() {
            self.hear(payload);
        }
        if payload.killed_before {
            code = OWN_FAILURE;
            let how = match ended {
                Ended::Killed(signal) => format!("was killed by signal {signal}"),
                Ended::Exited(status) => format!("ended with status {status}"),
            };
            payload.told = [&[code], format!("its process {how} before the command was executed").as_bytes()].concat();
        }
        payload.status = Some(code);
        self.talk.ended();
        // A status file that says nothing: nothing ever ran.
        if let (Some(status), true) = (&self.status, payload.told.is_empty()) {
            status.exited(code);
        }
        if let (Some(fd), true) = (&mut self.status_fd, payload.told.is_empty()) {
            fd.exited(code);
        }
        sys::reap(payload.pid);
    }
}

impl Payload {
    #[expect(clippy::disallowed_methods, reason = "/proc/PID/status")]
    fn status(&self) -> String {
        std::fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap_or_default()
    }

    fn deliver(&mut self, signal: i32, key: bool, first: bool) {
        let status = self.status();
        // A joined command is no process 1: it gets what comes. But its session has no terminal, and there the kernel
        // lets nothing stop: setpgid(2), "orphaned process group".
        let how = if first || signal == libc::SIGTSTP { deliver(signal, &status) } else { Deliver::Forward };
        let job = signals::job();
        if how == Deliver::Stop && job == Job::Orphan {
            return;
        }
        let send = match how {
            Deliver::Forward => signal,
            Deliver::Kill => {
                self.killed_for = Some(signal);
                libc::SIGKILL
            }
            Deliver::Stop => libc::SIGSTOP,
        };
        // Not reaped yet, so it is the payload or its zombie. A key goes to the whole group, as it would had the payload
        // not a session of its own: to what a shell waits for, too.
        let group = Pid::from_raw(-self.pid.as_raw());
        let all = key && how != Deliver::Kill || signal == libc::SIGCONT;
        let _ = match (all, self.init) {
            (true, true) => sys::queue(self.pid, send, crate::init::GROUP),
            (true, false) => sys::kill(group, send),
            (false, _) => sys::kill(self.pid, send),
        };
        if ends(signal) && signals::is_stopped(&status) {
            // Who is told to end must be able to.
            let _ = sys::kill(group, libc::SIGCONT);
        }
        if signal == libc::SIGTSTP && (job == Job::Waited || !self.accompanied) {
            let _ = sys::kill(nix::unistd::getpid(), libc::SIGSTOP);
        }
    }

    /// Nobody takes the output any more, and the pipe is about to be closed. For others than process 1 the kernel does the rest; a
    /// process 1 without care for SIGPIPE would write into nothing for ever, so its default action is done from here.
    fn pipe_broke(&mut self) {
        if deliver(libc::SIGPIPE, &self.status()) == Deliver::Kill {
            self.killed_for = Some(libc::SIGPIPE);
            let _ = sys::kill(self.pid, libc::SIGKILL);
        }
    }

    fn result(&self, status: u8) -> Result<u8> {
        match self.told.split_first() {
            Some((&status, line)) => Err(Error::plain(String::from_utf8_lossy(line)).status(status)),
            None => Ok(status),
        }
    }
}

/// Whether it tells a process to end.
pub(crate) fn ends(signal: i32) -> bool {
    matches!(signal, libc::SIGTERM | libc::SIGINT | libc::SIGHUP | libc::SIGQUIT)
}

struct Ready {
    signals: bool,
    parent: bool,
    report: bool,
    streams: Vec<bool>,
    talk: Vec<PollFlags>,
    blocked: bool,
    /// Nobody reads what is left.
    nothing: bool,
}
