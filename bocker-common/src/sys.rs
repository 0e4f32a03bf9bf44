//! The one place of this crate with `unsafe`.
#![allow(unsafe_code)]

use nix::sys::signal::{SigSet, Signal};

/// Marks every file descriptor from `first` on close-on-exec, `close_range(2)`, Linux 5.11.
pub(crate) fn cloexec_from(first: u32) -> nix::Result<()> {
    // SAFETY: close_range with CLOEXEC closes nothing now and touches no memory of ours.
    let done = unsafe { libc::close_range(first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC as i32) };
    nix::errno::Errno::result(done).map(drop)
}

/// The signals that have come and are held back, `sigpending(2)`.
pub(crate) fn pending() -> Option<SigSet> {
    // SAFETY: the call fills the set; only then is it read.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        (libc::sigpending(&raw mut set) == 0).then(|| SigSet::from_sigset_t_unchecked(set))
    }
}

/// Whether this process ignores the signal, `sigaction(2)`.
pub(crate) fn is_ignored(signal: Signal) -> bool {
    // SAFETY: a sigaction of zeros is valid; with a null new action the call only fills `now`.
    unsafe {
        let mut now: libc::sigaction = std::mem::zeroed();
        libc::sigaction(signal as i32, std::ptr::null(), &raw mut now) == 0 && now.sa_sigaction == libc::SIG_IGN
    }
}

/// SIGCHLD as it should be: a caller that ignores it would make our `wait(2)` fail with ECHILD.
pub(crate) fn default_sigchld() {
    // SAFETY: SIG_DFL runs no code of ours.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
}
