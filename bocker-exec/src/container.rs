//! A new container: what `unshare … chroot … | tee` was.

use std::os::fd::OwnedFd;
use std::path::Path;

use bocker_common::say::{perform, tell};
use bocker_common::{Error, Result, entry};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Pid, getpid, getppid, pipe2};
use rustix::process::{PidfdFlags, pidfd_open};

use crate::act::{self, Act, Inside};
use crate::args::Args;
use crate::inroot::errno;
use crate::log::{Log, Stream};
use crate::status::Status;
use crate::supervise::{Supervisor, start, take_signals};
use crate::sys::{stderr, stdout};
use crate::{config, plan};

/// Runs the command in a new container on `dir`; its status.
///
/// # Errors
/// One line for the act that failed; the payload did not run then.
pub fn run(dir: &Path, args: &Args) -> Result<u8> {
    entry::need_root("bocker-exec")?;
    let config = config::read(args.config.as_deref())?;
    let root = act::detached_root(dir)?;
    let plan = plan::run(dir, args, &config, &root)?;
    if args.explain.dry_run {
        for acts in [&plan.outer, &plan.inner, &plan.wait] {
            perform(acts, args.explain, |_| Ok(()))?;
        }
        return Ok(0);
    }

    let parent = args.die_with_parent.map(parent).transpose()?;
    let signals = take_signals()?;
    let (mut status, mut log) = (None, None);
    perform(&plan.outer, args.explain, |act| {
        match act {
            Act::Status { file } => status = Some(Status::hold(file)?),
            Act::Log { file } => log = Some(Log::open(file)?),
            _ => {}
        }
        Ok(())
    })?;
    let (copy, streams) = match log {
        Some(log) => {
            let (out, err) = (pipe()?, pipe()?);
            let out_to = Stream::new(out.0, stdout(), "stdout");
            let err_to = Stream::new(err.0, stderr(), "stderr");
            (Some((log, [out_to, err_to])), Some((out.1, err.1)))
        }
        None => (None, None),
    };
    // For the next child only: it is process 1 of the new namespace. The supervisor stays where it is, in the
    // host's mounts too, so that it keeps nothing mounted.
    unshare(CloneFlags::CLONE_NEWPID).map_err(|e| Error::new("unshare", "PID namespace", e))?;
    let (explain, inner) = (args.explain, plan.inner);
    let started = start(move || {
        let mut inside = Inside::new(root, streams);
        match perform(&inner, explain, |act| inside.apply(act)) {
            Err(error) if error.exit_status() == bocker_common::diag::FAILURE => {
                error.status(bocker_common::diag::OWN_FAILURE)
            }
            Err(error) => error,
            Ok(()) => Error::plain("nothing to execute"),
        }
    })?;
    let result = Supervisor { signals, status, copy, first: true, parent }.wait(started);
    for act in &plan.wait {
        tell(act, args.explain)?;
    }
    result
}

/// The process that started this one, as a descriptor that becomes readable when it dies: the supervisor then kills the
/// payload, writes what is left, and ends. A signal (PR_SET_PDEATHSIG) would be lost where the caller ignores it.
///
/// `starter` is the parent's own number: it may have died before this program began, while the links before it ran.
/// A shell that has nothing left to do execs its last command instead of starting it: then the number is ours.
pub(crate) fn parent(starter: Option<i32>) -> Result<OwnedFd> {
    let parent = getppid();
    let opened = rustix::process::Pid::from_raw(parent.as_raw())
        .ok_or(Errno::ESRCH)
        .and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).map_err(errno));
    let was = starter.map_or(parent, Pid::from_raw);
    match opened {
        // Still our parent: so the number was nobody else's when it was opened.
        Ok(opened) if getppid() == parent && (was == parent || was == getpid()) => Ok(opened),
        Err(reason) if reason != Errno::ESRCH => Err(Error::new("bind", "to the parent", reason)),
        _ => Err(Error::plain("the parent process has ended, or is in another PID namespace")),
    }
}

fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    pipe2(OFlag::O_CLOEXEC).map_err(|e| Error::new("make", "a pipe", e))
}
