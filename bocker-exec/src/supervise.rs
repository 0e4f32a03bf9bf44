//! The supervisor: forks, passes signals on, copies the output to the log if there is one, waits, reports.

use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};

use bocker_common::diag::OWN_FAILURE;
use bocker_common::{Error, Result};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::{ForkResult, Pid, pipe2, setsid};

use crate::act;
use crate::log::{Log, Stream};
use crate::signals::{self, Deliver, Job, deliver, taken};
use crate::status::Status;
use crate::sys::{self, Ended};

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
    /// Ends without a byte when the payload has been executed, else tells why not.
    report: OwnedFd,
}

/// Forks; the child does `become_payload`, which returns only with the reason why it could not.
///
/// # Errors
/// `pipe2(2)`, `fork(2)`.
pub fn start(become_payload: impl FnOnce() -> Error) -> Result<Started> {
    leave_the_terminal_to_others()?;
    let (report, tell) = pipe2(OFlag::O_CLOEXEC).map_err(|e| Error::new("make", "a pipe", e))?;
    match sys::fork().map_err(|e| Error::new("fork", "the payload", e))? {
        // The closure goes here too, and with it our copies of the child's descriptors: the root, the pipes' ends.
        ForkResult::Parent { child } => Ok(Started { pid: child, report }),
        ForkResult::Child => {
            drop(report);
            let error = match detach(&tell) {
                Ok(()) => become_payload(),
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
/// shell's job control, so the kernel would not stop it: it would take what is typed for the shell.
#[expect(clippy::disallowed_methods, reason = "/dev/null, before any namespace")]
fn leave_the_terminal_to_others() -> Result<()> {
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
    // It may have died before that. getppid(2) is 0 in a new PID namespace either way; a pipe without a reader tells.
    let mut fds = [PollFd::new(tell.as_fd(), PollFlags::empty())];
    let gone = poll(&mut fds, PollTimeout::ZERO).is_ok()
        && fds[0].revents().is_some_and(|events| events.contains(PollFlags::POLLERR));
    if gone { sys::exit_now(OWN_FAILURE) } else { Ok(()) }
}

/// What the supervisor holds while the payload lives.
#[derive(Debug)]
pub struct Supervisor {
    /// The signals that were taken.
    pub signals: SignalFd,
    /// The lock.
    pub status: Option<Status>,
    /// The log, and the two streams that are copied to it.
    pub copy: Option<(Log, [Stream; 2])>,
    /// The payload is process 1 of a PID namespace, for which the kernel drops what it does not handle.
    pub first: bool,
    /// With --die-with-parent: who started us, by pidfd_open(2).
    pub parent: Option<OwnedFd>,
}

/// How far the payload is.
struct Payload {
    pid: Pid,
    /// `None` once it has been executed.
    report: Option<std::fs::File>,
    told: Vec<u8>,
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
            held: Vec::new(),
            killed_for: None,
            status: None,
            told_to_end: false,
            stop: false,
            accompanied: self.parent.is_some(),
        };
        loop {
            let copied = self.copy.as_ref().is_none_or(|(_, streams)| streams.iter().all(Stream::is_done));
            if let (Some(status), None, true) = (payload.status, &payload.report, copied) {
                return payload.result(if status == 0 && self.lost() { OWN_FAILURE } else { status });
            }
            let ready = self.poll(&payload)?;
            if ready.report {
                self.hear(&mut payload);
            }
            if ready.parent {
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
                self.copy.iter_mut().flat_map(|(_, streams)| streams).for_each(Stream::abandon);
            }
            if let Some((log, streams)) = &mut self.copy {
                for (stream, ready) in streams.iter_mut().zip(ready.streams) {
                    match ready {
                        true if stream.is_full() => {
                            stream.drain();
                            match stream.broken() {
                                Some(Errno::EPIPE) => {
                                    if self.first && payload.status.is_none() {
                                        payload.pipe_broke();
                                    }
                                    stream.close();
                                }
                                // Lost, which is no reader's wish: the payload goes on, and the log has the rest.
                                Some(_) => stream.abandon(),
                                None => {}
                            }
                        }
                        true => stream.fill(log),
                        false => {}
                    }
                }
            }
        }
    }

    /// Whether some of the output reached neither a reader nor somebody who has stopped reading.
    fn lost(&self) -> bool {
        let mut broken = self.copy.iter().flat_map(|(_, streams)| streams).filter_map(Stream::broken);
        broken.any(|errno| errno != Errno::EPIPE)
    }

    fn poll(&self, payload: &Payload) -> Result<Ready> {
        let mut fds = vec![PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
        fds.extend(self.parent.iter().map(|parent| PollFd::new(parent.as_fd(), PollFlags::POLLIN)));
        fds.extend(payload.report.iter().map(|report| PollFd::new(report.as_fd(), PollFlags::POLLIN)));
        let waits: Vec<_> = self.copy.iter().flat_map(|(_, streams)| streams.iter().map(Stream::waits_for)).collect();
        for (fd, events) in waits.iter().flatten() {
            fds.push(PollFd::new(*fd, *events));
        }
        // Told to end, the payload has ended, and nobody reads its output: a second, as a courtesy.
        let hurry = payload.status.is_some() && payload.told_to_end;
        let nothing = match poll(&mut fds, if hurry { PollTimeout::from(1000_u16) } else { PollTimeout::NONE }) {
            Ok(ready) => ready == 0,
            Err(Errno::EINTR) => false,
            Err(errno) => return Err(Error::new("wait for", "the payload", errno)),
        };
        let mut ready = fds.iter().map(|fd| fd.any().unwrap_or(false));
        let signals = ready.next().unwrap_or(false);
        let parent = self.parent.is_some() && ready.next().unwrap_or(false);
        let report = payload.report.is_some() && ready.next().unwrap_or(false);
        let mut streams = [false; 2];
        for (stream, waits) in streams.iter_mut().zip(&waits) {
            *stream = waits.is_some() && ready.next().unwrap_or(false);
        }
        Ok(Ready { signals, parent, report, streams, nothing })
    }

    /// The child's report: its end means that the payload runs, for `execve(2)` closed the other side.
    fn hear(&self, payload: &mut Payload) {
        let Some(report) = &mut payload.report else { return };
        let mut bytes = [0; 4096];
        match report.read(&mut bytes) {
            Ok(0) => payload.report = None,
            Ok(length) => return payload.told.extend_from_slice(&bytes[..length]),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => return,
            Err(_) => payload.report = None,
        }
        if payload.told.is_empty() && payload.status.is_none() {
            if let Some(status) = &self.status {
                status.running(payload.pid);
            }
            for (signal, key) in std::mem::take(&mut payload.held) {
                payload.deliver(signal, key, self.first);
            }
        }
    }

    /// Takes all signals that are there.
    fn take(&self, payload: &mut Payload) {
        while let Ok(Some(info)) = self.signals.read_signal() {
            let signal = info.ssi_signo as i32;
            // SI_KERNEL: no kill(2), but a key of the terminal.
            let key = info.ssi_code > 0 && matches!(signal, libc::SIGINT | libc::SIGQUIT | libc::SIGTSTP);
            // Our own, for a log longer than `ulimit -f` allows: the write has failed and been told.
            if signal == libc::SIGXFSZ && info.ssi_pid == std::process::id() {
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
                payload.deliver(signal, key, self.first);
            }
        }
    }

    /// Has it ended? First the status file, then the reaping: until then nobody else can have its PID.
    fn collect(&self, payload: &mut Payload) {
        if payload.status.is_some() {
            return;
        }
        let Ok(Some(ended)) = sys::peek_exit(payload.pid) else { return };
        let code = match (ended, payload.killed_for) {
            (Ended::Killed(libc::SIGKILL), Some(signal)) => 128 + signal,
            (Ended::Killed(signal), _) => 128 + signal,
            (Ended::Exited(code), _) => code,
        };
        let code = (code & 0xff) as u8;
        // It is dead, so the report is complete: did it get as far as to execute the payload?
        while payload.report.is_some() {
            self.hear(payload);
        }
        payload.status = Some(code);
        // A status file that says nothing: nothing ever ran.
        if let (Some(status), true) = (&self.status, payload.told.is_empty()) {
            status.exited(code);
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
        let whom = if all { group } else { self.pid };
        let _ = sys::kill(whom, send);
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

fn ends(signal: i32) -> bool {
    matches!(signal, libc::SIGTERM | libc::SIGINT | libc::SIGHUP | libc::SIGQUIT)
}

struct Ready {
    signals: bool,
    parent: bool,
    report: bool,
    streams: [bool; 2],
    nothing: bool,
}
