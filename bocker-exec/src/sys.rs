//! The one place of this crate with `unsafe`: calls that nix and rustix do not wrap.
#![allow(unsafe_code)]

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::sys::signal::SigSet;
use nix::unistd::{ForkResult, Pid};

/// `fork(2)`.
///
/// The child may allocate and do anything else: this program never has a second thread
/// that could have held a lock at the time.
pub(crate) fn fork() -> nix::Result<ForkResult> {
    // SAFETY: single-threaded (see the crate's documentation), so the child is not limited to async-signal-safe calls.
    unsafe { nix::unistd::fork() }
}

/// Ends the child without running what the parent registered for its exit, `_exit(2)`.
pub(crate) fn exit_now(status: u8) -> ! {
    // SAFETY: _exit(2) does not return and touches no memory of ours.
    unsafe { libc::_exit(i32::from(status)) }
}

/// Our stdout for as long as we live. std opens what a caller closed, and nothing of ours closes it.
pub(crate) fn stdout() -> BorrowedFd<'static> {
    // SAFETY: descriptor 1 stays open, see above.
    unsafe { BorrowedFd::borrow_raw(1) }
}

/// Our stderr for as long as we live.
pub(crate) fn stderr() -> BorrowedFd<'static> {
    // SAFETY: descriptor 2 stays open, as 1 does.
    unsafe { BorrowedFd::borrow_raw(2) }
}

/// Marks every descriptor from `first` on close-on-exec, `close_range(2)`, Linux 5.11.
pub(crate) fn cloexec_from(first: u32) -> nix::Result<()> {
    // SAFETY: closes nothing now, touches no memory of ours.
    Errno::result(unsafe { libc::close_range(first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC as i32) }).map(drop)
}

/// Sets every signal to its default action. `execve(2)` resets handlers but keeps "ignored":
/// Rust ignores SIGPIPE, `nohup` SIGHUP, a shell's `&` SIGINT.
pub(crate) fn default_signals() {
    for signal in 1..=libc::SIGRTMAX() {
        // SAFETY: SIG_DFL runs no code of ours. KILL, STOP and the C library's own two are refused: nothing to do.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
}

/// Ignores the signal until [`default_signals`]: what raises it fails with an error number instead.
pub(crate) fn ignore(signal: i32) {
    // SAFETY: SIG_IGN runs no code of ours.
    unsafe { libc::signal(signal, libc::SIG_IGN) };
}

/// Whether this process ignores the signal, `sigaction(2)`.
pub(crate) fn is_ignored(signal: i32) -> bool {
    // SAFETY: a sigaction of zeros is valid; with a null new action the call only fills `now`.
    unsafe {
        let mut now: libc::sigaction = std::mem::zeroed();
        libc::sigaction(signal, std::ptr::null(), &raw mut now) == 0 && now.sa_sigaction == libc::SIG_IGN
    }
}

/// A set of signals by number; nix's own names no real-time signals.
pub(crate) fn signal_set(signals: &[i32]) -> SigSet {
    // SAFETY: sigemptyset initialises the set before it is used; sigaddset refuses bad numbers.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for &signal in signals {
            libc::sigaddset(&raw mut set, signal);
        }
        SigSet::from_sigset_t_unchecked(set)
    }
}

/// `kill(2)` by number, real-time signals included.
pub(crate) fn kill(pid: Pid, signal: i32) -> nix::Result<()> {
    // SAFETY: touches no memory of ours.
    Errno::result(unsafe { libc::kill(pid.as_raw(), signal) }).map(drop)
}

/// `struct mount_attr` of <linux/mount.h>.
#[repr(C)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    userns_fd: u64,
}

/// Changes the mount that `mount` is the root of, `mount_setattr(2)`, Linux 5.12:
/// sets and clears MOUNT_ATTR_* and sets the propagation (MS_PRIVATE).
pub(crate) fn mount_setattr(mount: impl AsFd, set: u64, clear: u64, propagation: u64) -> nix::Result<()> {
    let attr = MountAttr { set, clear, propagation, userns_fd: 0 };
    // SAFETY: `attr` and the empty path live through the call, and its size is passed.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_fd().as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attr,
            size_of::<MountAttr>(),
        )
    };
    Errno::result(done).map(drop)
}

/// The exit of `pid` without reaping it, `waitid(2)` with WNOWAIT: while it is a zombie its number stays taken.
/// The status as the shell has it: the process's own, or 128 and the signal. `None` while it runs.
pub(crate) fn peek_exit(pid: Pid) -> nix::Result<Option<Ended>> {
    // SAFETY: a siginfo of zeros is valid, and waitid only fills it; si_pid and si_status are valid for its answers.
    unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
        Errno::result(libc::waitid(libc::P_PID, pid.as_raw() as libc::id_t, &raw mut info, flags))?;
        if info.si_pid() == 0 {
            return Ok(None);
        }
        let number = info.si_status();
        Ok(Some(if info.si_code == libc::CLD_EXITED { Ended::Exited(number) } else { Ended::Killed(number) }))
    }
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// With this status.
    Exited(i32),
    /// By this signal.
    Killed(i32),
}

/// Waits for `pid` and takes it out of the process table.
pub(crate) fn reap(pid: Pid) {
    while nix::sys::wait::waitpid(pid, None) == Err(Errno::EINTR) {}
}
