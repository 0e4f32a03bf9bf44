//! `--init`: a reaper as process 1, and the command as its child.
//!
//! It is a fork of the process that would have become the command, right before its `execve(2)`: all walls are up, and hold for
//! both. No file of ours is needed in the container, and none can be had: the kernel keeps `/proc/1/exe`, memory and environment of a
//! process that is not dumpable for who has CAP_SYS_PTRACE in the host's user namespace (proc(5), CVE-2019-5736).

use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use nix::unistd::{ForkResult, Pid, chdir, pipe2, setpgid};

use crate::sys::{self, Change};

/// In a signal of the supervisor's own: it is meant for the command's whole process group, as a key of the terminal is.
pub(crate) const GROUP: i32 = 1;

/// What the supervisor is told when the command has been executed. The end of the report alone does not say so: this process
/// never executes anything.
pub(crate) const EXECUTED: [u8; 1] = [0];

/// Returns in the command's process; the other one stays, and tells the supervisor.
///
/// # Errors
/// `fork(2)`, `pipe2(2)`, `setpgid(2)`, `prctl(2)`, or a `/proc` that does not say where the arguments are.
pub(crate) fn split(tell: &OwnedFd) -> nix::Result<()> {
    hide()?;
    let (hear, begun) = pipe2(OFlag::O_CLOEXEC)?;
    // What it does not care for the supervisor would do to it, as to any process 1.
    sys::care_for_signals();
    let mut before = SigSet::empty();
    // The reaper waits for them; a key of the terminal's that comes before is not lost.
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), Some(&mut before))?;
    match sys::fork()? {
        ForkResult::Parent { child } => {
            drop(begun);
            stay(child, &hear, tell)
        }
        ForkResult::Child => {
            // A group of its own, in front of the terminal if there is one: keys are its, and come once.
            let own = Pid::from_raw(0);
            setpgid(own, own)?;
            if rustix::termios::tcgetpgrp(rustix::stdio::stdin()).is_ok() {
                rustix::termios::tcsetpgrp(rustix::stdio::stdin(), rustix::process::getpid())
                    .map_err(crate::inroot::errno)?;
            }
            // Its end is what the reaper waits for: by execve(2), or by ours.
            std::mem::forget(begun);
            sigprocmask(SigmaskHow::SIG_SETMASK, Some(&before), None).map(drop)
        }
    }
}

/// What `ps` shows inside: neither the words nor the environment of the host's command line.
#[expect(clippy::disallowed_methods, reason = "/proc, which is the container's own mount of ours")]
fn hide() -> nix::Result<()> {
    let text = std::fs::read_to_string("/proc/self/stat").map_err(|_| Errno::ENOENT)?;
    let ranges = arguments(&text).ok_or(Errno::ENODATA)?;
    sys::overwrite(ranges, b"init");
    nix::sys::prctl::set_name(c"init")?;
    nix::sys::prctl::set_dumpable(false)
}

/// Where the arguments and the environment begin and end: fields 48 to 51 of `/proc/PID/stat`.
fn arguments(stat: &str) -> Option<[(usize, usize); 2]> {
    // The second field is a name in parentheses, which may hold anything.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace().skip(45).map_while(|field| field.parse().ok());
    let ranges = [(fields.next()?, fields.next()?), (fields.next()?, fields.next()?)];
    ranges.iter().all(|&(start, end)| 0 < start && start <= end).then_some(ranges)
}

/// Reaps whatever ends, passes every signal on, and ends as the command does; the kernel then kills the rest.
#[expect(clippy::disallowed_methods, reason = "/, which is the container's")]
fn stay(command: Pid, hear: &OwnedFd, tell: &OwnedFd) -> ! {
    while nix::unistd::read(hear, &mut [0]) == Err(Errno::EINTR) {}
    // Not reaped yet, so the number is its own. What it has not done it has told itself, or was killed.
    if crate::supervise::has_executed(command) {
        let _ = nix::unistd::write(tell, &EXECUTED);
    }
    // It stays as long as the container, beside the supervisor. Who waits for the end of the command's output, or for the report that it was executed, waits for no copy of ours.
    sys::close_all();
    let _ = chdir("/");
    crate::protect::shrink();
    let group = Pid::from_raw(-command.as_raw());
    let mut stopped = false;
    loop {
        let Some(signal) = sys::wait_for_any() else { continue };
        // Whatever came: of two signals the kernel gives the lower number first, so a stop may be told after what is to end it.
        // And one may stand for many children.
        let changes: Vec<(Pid, Change)> = std::iter::from_fn(sys::next_change).collect();
        for (_, change) in changes.into_iter().filter(|(pid, _)| *pid == command) {
            match change {
                Change::Ended(status) => sys::exit_now(status),
                Change::Stopped => stopped = true,
                Change::Continued => stopped = false,
            }
        }
        match signal.number {
            libc::SIGCHLD => {}
            // Nobody's key, but the kernel's word to a background process.
            libc::SIGTTIN | libc::SIGTTOU => {}
            number => {
                let _ = sys::kill(if signal.value == Some(GROUP) { group } else { command }, number);
                if stopped && crate::supervise::ends(number) {
                    // Who is told to end must be able to.
                    let _ = sys::kill(group, libc::SIGCONT);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_its_own_arguments() {
        let text = std::fs::read_to_string("/proc/self/stat").unwrap();
        let [(start, end), (environment, _)] = arguments(&text).unwrap();
        let words: usize = std::env::args_os().map(|word| word.len() + 1).sum();
        assert_eq!(end - start, words);
        assert!(environment >= end);
        for text in ["", "1 (x", "1 (x) S 1 2", &text.replace(&start.to_string(), "0")] {
            assert_eq!(arguments(text), None, "{text}");
        }
    }
}
