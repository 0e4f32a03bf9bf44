//! A process in namespaces of its own, on a root file system of its own.
//!
//! The script's lines that this crate replaces:
//!
//! ```text
//! unshare -fmuip --mount-proc chroot "$dir" /bin/sh -c "mount -t proc proc /proc && $cmd" 2>&1 | tee "$log"
//! echo 'nameserver 8.8.8.8' > "$dir/etc/resolv.conf"
//! nsenter -t "$pid" -m -u -i -n -p chroot "$dir" "$@"
//! ```
//!
//! Three processes at most: the caller, the supervisor (this program), and the payload, which is
//! process 1 of the container after its `execve(2)`. Everything here is single-threaded: so the child of
//! `fork(2)` may allocate, and `setns(2)` and `unshare(2)` change the whole process.
//!
//! [`args`] parses, [`plan`] makes a list of [`act::Act`], the forked child does them in order
//! ([`container`]) and [`supervise`] waits.

#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

pub mod act;
pub mod args;
pub mod config;
pub mod container;
pub mod environment;
pub mod inroot;
pub mod join;
pub mod log;
pub mod payload;
pub mod plan;
pub mod signals;
pub mod status;
pub mod supervise;
mod sys;
pub mod user;

use std::process::ExitCode;

use bocker_common::Result;
use bocker_common::diag::OWN_FAILURE;

use args::Mode;

/// Parses the command line, does it, and gives the payload's status.
///
/// # Errors
/// 125 with one line when the container could not be made, 126 and 127 when the command could not be executed.
pub fn main() -> Result<ExitCode> {
    let Some(args) = args::parse()? else { return Ok(ExitCode::SUCCESS) };
    // Whatever fails before the payload runs is 125; only execve(2) itself says 126 and 127, in the child.
    let status = match &args.mode {
        Mode::Run(root) => container::run(root, &args),
        Mode::Join(status) => join::run(status, &args),
    };
    status.map(ExitCode::from).map_err(|error| match error.exit_status() {
        bocker_common::diag::FAILURE | bocker_common::diag::USAGE => error.status(OWN_FAILURE),
        _ => error,
    })
}
