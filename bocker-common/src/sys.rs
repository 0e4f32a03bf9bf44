//! The one place of this crate with `unsafe`.
#![allow(unsafe_code)]

/// Marks every file descriptor from `first` on close-on-exec, `close_range(2)`, Linux 5.11.
pub(crate) fn cloexec_from(first: u32) -> nix::Result<()> {
    // SAFETY: close_range with CLOEXEC closes nothing now and touches no memory of ours.
    let done = unsafe { libc::close_range(first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC as i32) };
    nix::errno::Errno::result(done).map(drop)
}
