//! The one place of this crate with `unsafe`.
#![allow(unsafe_code)]

use std::os::fd::{AsFd, FromRawFd};

use nix::errno::Errno;
use nix::libc;
use nix::unistd::{ForkResult, Pid, chdir, dup2_stdin, fork};
use rtnetlink::sys::Socket;

/// Runs `work` in a child that holds nothing of the caller's but `socket`; what `work` returns is its exit status.
///
/// The process must have one thread only, and `work` must not touch the tokio runtime.
pub(crate) fn in_child(socket: &Socket, work: impl FnOnce(&Socket) -> u8) -> nix::Result<Pid> {
    // SAFETY: this process has a single thread (its runtime is a current-thread one that never
    // spawns blocking tasks), so no lock is held by a thread that the child lacks.
    if let ForkResult::Parent { child } = unsafe { fork() }? {
        return Ok(child);
    }
    let _ = chdir("/");
    let status = match dup2_stdin(socket.as_fd()) {
        Ok(()) => {
            // SAFETY: closes every descriptor but 0. No Rust object that owns one of them is used
            // or dropped afterwards: `work` has the new Socket, and the child ends by _exit(2).
            unsafe { libc::close_range(1, u32::MAX, 0) };
            // SAFETY: descriptor 0 is open, the copy of `socket`, and has no other owner here.
            let only = unsafe { Socket::from_raw_fd(0) };
            work(&only)
        }
        Err(errno) => u8::try_from(errno as i32).unwrap_or(Errno::EIO as u8),
    };
    // SAFETY: ends the child without the parent's exit handlers and buffers.
    unsafe { libc::_exit(status.into()) }
}
