//! The one place of this crate with `unsafe`.
#![allow(unsafe_code)]

use nix::sys::signal::{SigSet, Signal};

/// Marks every file descriptor from `first` on close-on-exec, `close_range(2)`, Linux 5.11.
pub(crate) fn cloexec_from(first: u32) -> nix::Result<()> {
    // SAFETY: close_range with CLOEXEC closes nothing now and touches no memory of ours.
    let done = unsafe { libc::close_range(first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC as i32) };
    nix::errno::Errno::result(done).map(drop)
}

/// Every signal, real-time ones included, but for those in `out` and those that this process ignores, `sigaction(2)`.
pub(crate) fn signals_but(out: &[Signal]) -> SigSet {
    // SAFETY: sigemptyset initialises the set before it is used; sigaddset refuses bad numbers; a sigaction of zeros is
    // valid, and with a null new action the call only fills `now`.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for signal in (1..=libc::SIGRTMAX()).filter(|signal| !out.iter().any(|spared| *spared as i32 == *signal)) {
            let mut now: libc::sigaction = std::mem::zeroed();
            libc::sigaction(signal, std::ptr::null(), &raw mut now);
            if now.sa_sigaction != libc::SIG_IGN {
                libc::sigaddset(&raw mut set, signal);
            }
        }
        SigSet::from_sigset_t_unchecked(set)
    }
}

/// The first of these signals that has come and is held back, `sigpending(2)`.
pub(crate) fn pending(of: &SigSet) -> Option<i32> {
    // SAFETY: the calls fill the set or read one that is filled.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigpending(&raw mut set);
        let is_in = |set: &libc::sigset_t, signal| libc::sigismember(set, signal) == 1;
        (1..=libc::SIGRTMAX()).find(|signal| is_in(&set, *signal) && is_in(of.as_ref(), *signal))
    }
}

/// SIGCHLD as it should be: a caller that ignores it would make our `wait(2)` fail with ECHILD.
pub(crate) fn default_sigchld() {
    // SAFETY: SIG_DFL runs no code of ours.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
}
