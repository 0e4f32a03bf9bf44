//! The one place of this crate with `unsafe`.
#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::Pid;

/// Marks every file descriptor from `first` on close-on-exec, `close_range(2)`, Linux 5.11.
pub(crate) fn cloexec_from(first: u32) -> nix::Result<()> {
    // SAFETY: close_range with CLOEXEC closes nothing now and touches no memory of ours.
    let done = unsafe { libc::close_range(first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC as i32) };
    nix::errno::Errno::result(done).map(drop)
}

/// The descriptor stays open across `execve(2)`; a number that is none is left alone.
pub(crate) fn keep_on_exec(number: i32) {
    // SAFETY: changes a flag of our own descriptor table, touches no memory of ours.
    unsafe { libc::fcntl(number, libc::F_SETFD, 0) };
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

/// The user namespace that owns this namespace, `NS_GET_USERNS` of ioctl_ns(2).
pub(crate) fn user_namespace_of(namespace: BorrowedFd<'_>) -> nix::Result<OwnedFd> {
    const NS_GET_USERNS: libc::c_ulong = 0xb701;
    // SAFETY: takes no memory of ours, and gives a new descriptor that nobody else has.
    unsafe {
        let fd = Errno::result(libc::ioctl(namespace.as_raw_fd(), NS_GET_USERNS as _))?;
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// What kind of namespace it is, as a flag of `clone(2)`: `NS_GET_NSTYPE` of ioctl_ns(2). The descriptor must be one of nsfs: for
/// others the number may mean anything.
pub(crate) fn namespace_kind(namespace: BorrowedFd<'_>) -> nix::Result<i32> {
    const NS_GET_NSTYPE: libc::c_ulong = 0xb703;
    // SAFETY: takes no memory of ours.
    Errno::result(unsafe { libc::ioctl(namespace.as_raw_fd(), NS_GET_NSTYPE as _) })
}

/// The user who made this user namespace, `NS_GET_OWNER_UID` of ioctl_ns(2).
pub(crate) fn maker_of(namespace: BorrowedFd<'_>) -> nix::Result<u32> {
    const NS_GET_OWNER_UID: libc::c_ulong = 0xb704;
    let mut uid: libc::uid_t = 0;
    // SAFETY: the call only fills `uid`.
    Errno::result(unsafe { libc::ioctl(namespace.as_raw_fd(), NS_GET_OWNER_UID as _, &raw mut uid) })?;
    Ok(uid)
}

/// A process that does nothing in a user namespace of its own, until this is dropped.
pub(crate) struct Waiting {
    pid: Pid,
    end: Option<OwnedFd>,
}

impl Waiting {
    /// `clone(2)` with CLONE_NEWUSER, and CLONE_NEWNET if wanted: the kernel makes the user namespace first, so the other is its own.
    pub(crate) fn clone(with_network: bool) -> nix::Result<Self> {
        let (wait, end) = nix::unistd::pipe()?;
        let mut flags = libc::CLONE_NEWUSER | libc::SIGCHLD;
        if with_network {
            flags |= libc::CLONE_NEWNET;
        }
        let none = std::ptr::null_mut::<libc::c_void>();
        // SAFETY: without CLONE_VM and without a stack it is a fork. The child makes async-signal-safe calls only, on a byte of
        // its own, and never returns.
        let pid = unsafe {
            let pid = libc::syscall(libc::SYS_clone, flags as libc::c_ulong, none, none, none, none);
            if pid == 0 {
                libc::close(end.as_raw_fd());
                let mut byte = 0_u8;
                // The pipe ends with us, however we end.
                while libc::read(wait.as_raw_fd(), (&raw mut byte).cast(), 1) != 0 {}
                libc::_exit(0);
            }
            Errno::result(pid)?
        };
        Ok(Self { pid: Pid::from_raw(pid as i32), end: Some(end) })
    }

    pub(crate) fn pid(&self) -> Pid {
        self.pid
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.end = None;
        // SAFETY: a null status is allowed.
        while unsafe { libc::waitpid(self.pid.as_raw(), std::ptr::null_mut(), 0) } == -1
            && Errno::last() == Errno::EINTR
        {}
    }
}
