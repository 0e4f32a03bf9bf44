//! Which signals the supervisor passes on, and how.

use nix::sys::signal::SigSet;
use nix::unistd::{Pid, getpgid, getpgrp, getppid, getsid};

use crate::sys;

/// What to do with a signal that came for the payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deliver {
    /// Send it.
    Forward,
    /// The payload would have died of it: SIGKILL, and report this signal.
    Kill,
    /// The payload would have stopped: SIGSTOP.
    Stop,
}

/// The default action, signal(7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Default {
    Terminate,
    Stop,
    Nothing,
}

fn default_action(signal: i32) -> Default {
    match signal {
        libc::SIGCHLD | libc::SIGURG | libc::SIGWINCH | libc::SIGCONT => Default::Nothing,
        libc::SIGTSTP | libc::SIGTTIN | libc::SIGTTOU | libc::SIGSTOP => Default::Stop,
        _ => Default::Terminate,
    }
}

/// How to deliver `signal` to process 1 of a PID namespace, whose `/proc/PID/status` this is.
///
/// The kernel drops signals for a process 1 that has no handler for them, even from outside, but for KILL and STOP.
/// That protects an init; it would make `sleep 100` deaf to Ctrl-C. So the default action is done from here.
pub fn deliver(signal: i32, status: &str) -> Deliver {
    // SigBlk: it may wait for it with sigwait(3) or signalfd(2).
    let mask = |name| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
    };
    let (Some(blocked), Some(ignored), Some(caught)) = (mask("SigBlk"), mask("SigIgn"), mask("SigCgt")) else {
        return Deliver::Forward;
    };
    let cares = (1..=64).contains(&signal) && (blocked | ignored | caught) & (1 << (signal - 1)) != 0;
    match default_action(signal) {
        _ if cares => Deliver::Forward,
        Default::Terminate => Deliver::Kill,
        Default::Stop => Deliver::Stop,
        Default::Nothing => Deliver::Forward,
    }
}

/// Whether the process of this `/proc/PID/status` blocks the signal: a supervisor takes what it blocks by signalfd(2).
pub(crate) fn is_blocked(signal: i32, status: &str) -> bool {
    let line = status.lines().find_map(|line| line.strip_prefix("SigBlk:"));
    let set = line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0);
    // SIGCHLD is its own.
    (1..=64).contains(&signal) && signal != libc::SIGCHLD && set & (1 << (signal - 1)) != 0
}

/// Whether the process of this `/proc/PID/status` is stopped.
pub fn is_stopped(status: &str) -> bool {
    status.lines().any(|line| line.starts_with("State:\tT"))
}

/// What a shell with job control knows of this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Job {
    /// The shell started it, and waits for it to end or to stop.
    Waited,
    /// It belongs to such a job, by way of a process of the same group.
    Member,
    /// There is no such shell: what stopped now would never be continued.
    Orphan,
}

/// Goes up from this process to the first one of another group: a shell if that is in the same session.
pub fn job() -> Job {
    let (group, session) = (getpgrp(), getsid(None));
    let (mut parent, mut found) = (getppid(), Job::Waited);
    while parent.as_raw() > 0 {
        match getpgid(Some(parent)) {
            Ok(other) if other == group => found = Job::Member,
            Ok(_) if getsid(Some(parent)) == session => return found,
            _ => return Job::Orphan,
        }
        let Some(next) = parent_of(parent) else { return Job::Orphan };
        parent = next;
    }
    Job::Orphan
}

#[expect(clippy::disallowed_methods, reason = "/proc/PID/status")]
pub(crate) fn parent_of(pid: Pid) -> Option<Pid> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("PPid:"))?;
    line.trim().parse().ok().map(Pid::from_raw)
}

/// The signals that the supervisor takes: SIGCHLD, and all that can be meant for the payload.
///
/// Not those that a fault of our own raises, nor SIGPIPE, nor a background process's TTIN and TTOU.
/// What the caller had ignored stays ignored, so that `nohup` and a shell's `&` keep their meaning.
pub fn taken() -> SigSet {
    let named = [
        libc::SIGHUP,
        libc::SIGINT,
        libc::SIGQUIT,
        libc::SIGUSR1,
        libc::SIGUSR2,
        libc::SIGALRM,
        libc::SIGTERM,
        libc::SIGSTKFLT,
        libc::SIGCONT,
        libc::SIGTSTP,
        libc::SIGURG,
        libc::SIGXCPU,
        libc::SIGXFSZ,
        libc::SIGVTALRM,
        libc::SIGPROF,
        libc::SIGWINCH,
        libc::SIGIO,
        libc::SIGPWR,
    ];
    let real_time = libc::SIGRTMIN()..=libc::SIGRTMAX();
    let mut all: Vec<i32> = named.into_iter().chain(real_time).filter(|&s| !sys::is_ignored(s)).collect();
    all.push(libc::SIGCHLD);
    sys::signal_set(&all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(blocked: u64, ignored: u64, caught: u64) -> String {
        format!(
            "Name:\tx\nSigPnd:\t0000000000000000\nSigBlk:\t{blocked:016x}\nSigIgn:\t{ignored:016x}\nSigCgt:\t{caught:016x}\n"
        )
    }

    #[test]
    fn the_default_action_is_done_where_nobody_cares() {
        let deaf = status(0, 0, 0);
        assert_eq!(deliver(libc::SIGTERM, &deaf), Deliver::Kill);
        assert_eq!(deliver(libc::SIGINT, &deaf), Deliver::Kill);
        assert_eq!(deliver(64, &deaf), Deliver::Kill);
        assert_eq!(deliver(libc::SIGTSTP, &deaf), Deliver::Stop);
        for harmless in [libc::SIGWINCH, libc::SIGCONT, libc::SIGURG] {
            assert_eq!(deliver(harmless, &deaf), Deliver::Forward);
        }
    }

    #[test]
    fn who_cares_gets_it() {
        let term = 1 << (libc::SIGTERM - 1);
        for text in [status(term, 0, 0), status(0, term, 0), status(0, 0, term)] {
            assert_eq!(deliver(libc::SIGTERM, &text), Deliver::Forward);
            assert_eq!(deliver(libc::SIGINT, &text), Deliver::Kill);
        }
        assert_eq!(deliver(64, &status(0, 0, 1 << 63)), Deliver::Forward);
    }

    #[test]
    fn without_knowledge_it_is_only_forwarded() {
        for text in ["", "SigBlk:\tx\nSigIgn:\t0\nSigCgt:\t0\n", "SigCgt:\t0000000000000000\n"] {
            assert_eq!(deliver(libc::SIGTERM, text), Deliver::Forward);
        }
    }
}
