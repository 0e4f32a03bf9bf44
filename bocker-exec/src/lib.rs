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
//! process 1 of the container after its `execve(2)`. Everything here is single-threaded until the last fork: so the child of
//! `fork(2)` may allocate, and `setns(2)` and `unshare(2)` change the whole process. After that one thread writes the log.
//!
//! [`args`] parses, [`plan`] makes a list of [`act::Act`], the forked child does them in order
//! ([`container`]) and [`supervise`] waits.

#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

pub mod act;
pub mod args;
pub mod attach;
pub mod caps;
pub mod config;
pub mod container;
pub mod detach;
pub mod devices;
mod doctor;
pub mod environment;
mod init;
pub mod inroot;
pub mod join;
pub mod log;
pub mod manage;
pub mod masks;
pub mod mounts;
pub mod payload;
pub mod plan;
pub mod process;
pub mod protect;
pub mod reexec;
pub mod resolver;
pub mod rlimits;
pub mod seccomp;
pub mod signals;
pub mod status;
pub mod supervise;
mod sys;
mod syscalls;
pub mod terminal;
pub mod user;
pub mod userns;
pub mod walls;
pub mod words;

use std::process::ExitCode;

use bocker_common::diag::OWN_FAILURE;
use bocker_common::userns::Userns;
use bocker_common::{Result, entry};

use args::Mode;

/// Parses the command line, does it, and gives the payload's status.
///
/// # Errors
/// 125 with one line when the container could not be made, 126 and 127 when the command could not be executed.
pub fn main() -> Result<ExitCode> {
    let Some(mut args) = args::parse()? else { return Ok(ExitCode::SUCCESS) };
    match &args.mode {
        // These run nothing for the caller: a failure is 1.
        Mode::Kill(status) => return manage::kill(status, &args).map(|()| ExitCode::SUCCESS),
        Mode::Stop(status) => return manage::stop(status, &args).map(|()| ExitCode::SUCCESS),
        Mode::Wait(status) => return manage::wait(status, &args).map(|()| ExitCode::SUCCESS),
        Mode::Doctor => return doctor::doctor().map(|()| ExitCode::SUCCESS),
        Mode::Run(_) | Mode::Join(_) | Mode::Attach(_) => {}
    }
    let guarded = match &args.mode {
        Mode::Run(_) | Mode::Join(_) => entry::need_root("bocker-exec"),
        _ => Ok(()),
    };
    let guarded = guarded.and_then(|()| match &args.mode {
        _ if args.explain.dry_run => Ok(()),
        Mode::Run(_) if args.userns == Userns::Private => walls::no_directories(),
        // By its words, not by the user namespace of what runs there now alone: a container with the host's users could have made that
        // one. Nor by the words alone: they may be another container's.
        Mode::Join(status) if args.joins_own_users && join::has_own_users(status) => walls::no_directories(),
        Mode::Run(_) | Mode::Join(_) => walls::no_directories().and_then(|()| reexec::read_only()),
        _ => walls::no_directories(),
    });
    // Now that this program will not be executed anew: what comes by a pipe comes once.
    let guarded = guarded.and_then(|()| {
        args.env.extend(args.env_fd.map(environment::read).transpose()?.into_iter().flatten());
        Ok(())
    });
    // Whatever fails before the payload runs is 125; only execve(2) itself says 126 and 127, in the child.
    let status = guarded.and_then(|()| match &args.mode {
        Mode::Run(root) => container::run(root, &args),
        Mode::Join(status) => join::run(status, &args),
        Mode::Attach(status) => attach::run(status, &args.attach),
        Mode::Kill(_) | Mode::Stop(_) | Mode::Wait(_) | Mode::Doctor => Ok(0),
    });
    status.map(ExitCode::from).map_err(|error| {
        let status = own_failure(error.exit_status());
        error.status(status)
    })
}

/// 125 for a failure of ours that has no status of its own.
fn own_failure(status: u8) -> u8 {
    match status {
        bocker_common::diag::FAILURE | bocker_common::diag::USAGE => OWN_FAILURE,
        other => other,
    }
}
