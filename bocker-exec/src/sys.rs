//! The one place of this crate with `unsafe`: calls that nix and rustix do not wrap.
#![allow(unsafe_code)]

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::signal::SigSet;
use nix::unistd::{ForkResult, Pid};

/// `fork(2)`.
///
/// The child may allocate and do anything else: this program never has a second thread
/// that could have held a lock at the time (the log's starts after the last fork).
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

/// A handler that does nothing for every signal that can have one, so that `/proc/PID/status` says who cares for them: the kernel shows
/// those that `sigwaitinfo(2)` waits for as not blocked. `execve(2)` forgets it.
pub(crate) fn care_for_signals() {
    extern "C" fn nothing(_: i32) {}
    let nothing: extern "C" fn(i32) = nothing;
    for signal in 1..=libc::SIGRTMAX() {
        // SAFETY: the handler touches nothing. KILL, STOP and the C library's own two are refused: nothing to do.
        unsafe { libc::signal(signal, nothing as libc::sighandler_t) };
    }
}

/// As [`default_signals`], but a broken pipe stays an error: for who goes on by himself, whatever his caller ignored.
pub(crate) fn own_signals() {
    default_signals();
    // SAFETY: SIG_IGN runs no code of ours.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
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

/// Sends a signal to the process that this descriptor is of, `pidfd_send_signal(2)`, Linux 5.1.
pub(crate) fn pidfd_send(process: impl AsFd, signal: i32) -> nix::Result<()> {
    let fd = process.as_fd().as_raw_fd();
    // SAFETY: without a siginfo the call touches no memory of ours.
    let done =
        unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, signal, std::ptr::null::<libc::siginfo_t>(), 0) };
    Errno::result(done).map(drop)
}

/// A close-on-exec copy, above stderr, of a descriptor that the caller has given by number, `fcntl(2)`.
pub(crate) fn duplicate(fd: i32) -> nix::Result<OwnedFd> {
    // SAFETY: the call refuses a number that is no descriptor; what it gives is new, so ours alone.
    unsafe { Errno::result(libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 3)).map(|fd| OwnedFd::from_raw_fd(fd)) }
}

/// Closes a descriptor by number, `close(2)`.
pub(crate) fn close(fd: i32) {
    // SAFETY: only for numbers that the caller of this program left open and that nothing of ours owns (detach::inherited, --env-fd).
    unsafe { libc::close(fd) };
}

/// Whether there is a descriptor of this number, `fcntl(2)`.
pub(crate) fn is_open(fd: i32) -> bool {
    // SAFETY: the call only asks.
    unsafe { libc::fcntl(fd, libc::F_GETFD) != -1 }
}

/// Closes every descriptor, `close_range(2)`: for a process that goes on without any, and never returns to their owners.
pub(crate) fn close_all() {
    // SAFETY: the reaper (init.rs) uses none from here on, and its end is _exit(2): no owner's drop runs.
    unsafe { libc::close_range(0, u32::MAX, 0) };
}

/// A signal with a number in it, `sigqueue(3)`.
pub(crate) fn queue(pid: Pid, signal: i32, value: i32) -> nix::Result<()> {
    let value = libc::sigval { sival_ptr: value as usize as *mut libc::c_void };
    // SAFETY: the value is a number for the receiver, no pointer that anybody follows.
    Errno::result(unsafe { libc::sigqueue(pid.as_raw(), signal, value) }).map(drop)
}

/// A signal that was waited for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Taken {
    pub(crate) number: i32,
    /// With one of [`queue`]: its number.
    pub(crate) value: Option<i32>,
}

/// The next of all signals, `sigwaitinfo(2)`; they must be blocked.
pub(crate) fn wait_for_any() -> Option<Taken> {
    let all = SigSet::all();
    // SAFETY: a siginfo of zeros is valid and the call fills it; si_value is valid where si_code is SI_QUEUE.
    unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        if libc::sigwaitinfo(all.as_ref(), &raw mut info) < 0 {
            return None;
        }
        let value = (info.si_code == libc::SI_QUEUE).then(|| info.si_value().sival_ptr as usize as i32);
        Some(Taken { number: info.si_signo, value })
    }
}

/// What became of a child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// Reaped: its status as the shell has it.
    Ended(u8),
    Stopped,
    Continued,
}

/// The next child that has ended (it is reaped), stopped or gone on, `waitpid(2)`; `None` when there is none at present.
/// By number: nix's own knows no real-time signals.
pub(crate) fn next_change() -> Option<(Pid, Change)> {
    let mut status = 0;
    // SAFETY: the call only fills `status`.
    let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG | libc::WUNTRACED | libc::WCONTINUED) };
    let change = match status {
        s if libc::WIFEXITED(s) => Change::Ended((libc::WEXITSTATUS(s) & 0xff) as u8),
        s if libc::WIFSIGNALED(s) => Change::Ended((128 + libc::WTERMSIG(s)) as u8),
        s if libc::WIFSTOPPED(s) => Change::Stopped,
        _ => Change::Continued,
    };
    (pid > 0).then(|| (Pid::from_raw(pid), change))
}

/// Overwrites this process's arguments and environment, as `ps` shows them: the first range begins with `name`, the rest is zeros.
/// The ranges are those of `/proc/self/stat`.
pub(crate) fn overwrite(ranges: [(usize, usize); 2], name: &[u8]) {
    for (start, end) in ranges {
        // SAFETY: the kernel made these pages of our stack, writable, and says where they are; what std and the C library still
        // point to in there are strings that only become shorter, and nobody runs beside us.
        unsafe { std::ptr::write_bytes(start as *mut u8, 0, end - start) };
    }
    let (start, end) = ranges[0];
    // SAFETY: as above; a byte at least stays zero.
    unsafe {
        std::ptr::copy_nonoverlapping(name.as_ptr(), start as *mut u8, name.len().min((end - start).saturating_sub(1)))
    };
}

/// Lets go of pages that come back from their file when they are next touched, `madvise(2)`.
pub(crate) fn forget_pages(start: usize, length: usize) {
    // SAFETY: only for private mappings of files without a page of their own (protect.rs): their contents stay the same.
    unsafe { libc::madvise(start as *mut libc::c_void, length, libc::MADV_DONTNEED) };
}

/// Lets go of the stack's pages that earlier, deeper calls have used: 128 KiB, a margin below this one.
#[inline(never)]
pub(crate) fn forget_stack() {
    const MARGIN: usize = 16 << 10;
    const LENGTH: usize = 128 << 10;
    let here = 0_u8;
    let top = (&raw const here as usize - MARGIN) & !0xffff;
    // SAFETY: below the stack pointer and its red zone nothing is alive; a page that was never there is refused or fresh.
    unsafe { libc::madvise((top - LENGTH) as *mut libc::c_void, LENGTH, libc::MADV_DONTNEED) };
}

/// Gives the heap's free pages back, `malloc_trim(3)`.
pub(crate) fn trim_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: touches free memory of the allocator's only.
    unsafe {
        libc::malloc_trim(0)
    };
}
/// MOUNT_ATTR_IDMAP
const IDMAP: u64 = 0x0010_0000;

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
    set_attributes(mount.as_fd(), 0, MountAttr { set, clear, propagation, userns_fd: 0 })
}

/// Shows the owners of a mount that is nowhere yet as the user namespace has them, MOUNT_ATTR_IDMAP.
pub(crate) fn idmap(mount: BorrowedFd<'_>, userns: BorrowedFd<'_>) -> nix::Result<()> {
    set_attributes(mount, 0, MountAttr { set: IDMAP, clear: 0, propagation: 0, userns_fd: userns.as_raw_fd() as u64 })
}

/// As [`mount_setattr`], for what is mounted below as well.
pub(crate) fn mount_setattr_all(mount: BorrowedFd<'_>, set: u64, propagation: u64) -> nix::Result<()> {
    set_attributes(mount, libc::AT_RECURSIVE, MountAttr { set, clear: 0, propagation, userns_fd: 0 })
}

/// As [`idmap`], for what is mounted below as well: all of it, or nothing.
pub(crate) fn idmap_all(mount: BorrowedFd<'_>, userns: BorrowedFd<'_>) -> nix::Result<()> {
    let attr = MountAttr { set: IDMAP, clear: 0, propagation: 0, userns_fd: userns.as_raw_fd() as u64 };
    set_attributes(mount, libc::AT_RECURSIVE, attr)
}

/// From here on a change of user changes no capability, `SECBIT_NO_SETUID_FIXUP` of capabilities(7). A new user namespace starts
/// without.
pub(crate) fn keep_capabilities() -> nix::Result<()> {
    const NO_SETUID_FIXUP: libc::c_ulong = 1 << 2;
    // SAFETY: touches no memory of ours.
    Errno::result(unsafe { libc::prctl(libc::PR_SET_SECUREBITS, NO_SETUID_FIXUP, 0, 0, 0) }).map(drop)
}

fn set_attributes(mount: BorrowedFd<'_>, flags: i32, attr: MountAttr) -> nix::Result<()> {
    // SAFETY: `attr` and the empty path live through the call, and its size is passed.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | flags,
            &raw const attr,
            size_of::<MountAttr>(),
        )
    };
    Errno::result(done).map(drop)
}

/// Every call of this process and its children goes through `program` from here on, seccomp(2). It takes SYS_ADMIN, or no_new_privs.
pub(crate) fn load_filter(program: &[seccompiler::sock_filter]) -> nix::Result<()> {
    // The library's instructions have libc's layout, which is the kernel's.
    let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_ptr().cast_mut().cast() };
    // SAFETY: the kernel copies the program, which lives through the call, and writes nothing.
    let done = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) };
    Errno::result(done).map(drop)
}

/// A session keyring of its own for this process and its children, keyctl(2), instead of the caller's.
pub(crate) fn new_keyring() -> nix::Result<()> {
    // SAFETY: a null name makes a nameless keyring; no memory of ours is touched.
    let done =
        unsafe { libc::syscall(libc::SYS_keyctl, libc::KEYCTL_JOIN_SESSION_KEYRING, std::ptr::null::<libc::c_char>()) };
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
