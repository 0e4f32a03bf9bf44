//! The one place of this crate with `unsafe`: signals by number, which nix does not wrap.
#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::errno::Errno;
use nix::sys::signal::SigSet;
use nix::unistd::Pid;

/// SIGCHLD as it should be: a caller that ignores it would make our `wait(2)` fail with ECHILD.
pub(crate) fn default_sigchld() {
    // SAFETY: SIG_DFL runs no code of ours.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
}

/// Whether this process ignores the signal, `sigaction(2)`.
fn is_ignored(signal: i32) -> bool {
    // SAFETY: a sigaction of zeros is valid; with a null new action the call only fills `now`.
    unsafe {
        let mut now: libc::sigaction = std::mem::zeroed();
        libc::sigaction(signal, std::ptr::null(), &raw mut now) == 0 && now.sa_sigaction == libc::SIG_IGN
    }
}

/// The signals that end a program do nothing to this process from now on, nor to those that it starts.
pub(crate) fn ignore_ends() {
    let named = [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM, libc::SIGUSR1, libc::SIGUSR2, libc::SIGALRM];
    let others = [libc::SIGVTALRM, libc::SIGPROF, libc::SIGIO, libc::SIGPWR, libc::SIGSTKFLT, libc::SIGXCPU];
    for signal in named.into_iter().chain(others).chain(libc::SIGRTMIN()..=libc::SIGRTMAX()) {
        // SAFETY: SIG_IGN runs no code of ours.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
}

/// Every signal, real-time ones included, but for those in `out` and those that the caller ignores.
pub(crate) fn signals_but(out: &[i32]) -> SigSet {
    // SAFETY: sigemptyset initialises the set before it is used; sigaddset refuses bad numbers.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for signal in (1..=libc::SIGRTMAX()).filter(|signal| !out.contains(signal) && !is_ignored(*signal)) {
            libc::sigaddset(&raw mut set, signal);
        }
        SigSet::from_sigset_t_unchecked(set)
    }
}

/// The command has the file as this descriptor.
pub(crate) fn give(command: &mut Command, file: OwnedFd, number: i32) {
    let place = move || {
        let given = file.as_raw_fd();
        // SAFETY: dup2(2) and fcntl(2) may be called after a fork, signal-safety(7), and touch descriptors of the child's alone.
        // What is the same number already only has to stay open.
        let done =
            unsafe { if given == number { libc::fcntl(given, libc::F_SETFD, 0) } else { libc::dup2(given, number) } };
        if done == -1 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
    };
    // SAFETY: it allocates nothing and takes no lock.
    unsafe { command.pre_exec(place) };
}

/// `kill(2)` by number.
pub(crate) fn kill(pid: u32, signal: i32) -> nix::Result<()> {
    let pid = libc::pid_t::try_from(pid).map_err(|_| Errno::ESRCH)?;
    // SAFETY: touches no memory of ours.
    Errno::result(unsafe { libc::kill(pid, signal) }).map(drop)
}

/// Stops this process where the kernel would let a terminal's key do so: its group is not orphaned, setpgid(2). Whoever
/// started us, or started that one (`sudo` waits for us in our group), is in another group of the same session: a shell
/// that notices, and continues us.
pub(crate) fn stop_as_a_job() {
    use nix::unistd::{getpgid, getpgrp, getpid, getppid, getsid};
    let mut parent = getppid();
    while parent.as_raw() > 0 && getpgid(Some(parent)) == Ok(getpgrp()) {
        let Some(next) = parent_of(parent) else { return };
        parent = next;
    }
    if parent.as_raw() > 0 && getsid(Some(parent)) == getsid(None) {
        let _ = nix::sys::signal::kill(getpid(), nix::sys::signal::Signal::SIGSTOP);
    }
}

fn parent_of(pid: Pid) -> Option<Pid> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("PPid:"))?;
    line.trim().parse().ok().map(Pid::from_raw)
}
