//! A new container: what `unshare … chroot … | tee` was.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::path::Path;

use bocker_common::say::{perform, tell};
use bocker_common::{Error, Result};
use nix::errno::Errno;
use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::{Pid, getpid, getppid};
use rustix::process::{PidfdFlags, pidfd_open};

use crate::act::{self, Act, Inside};
use crate::args::Args;
use crate::detach::{self, Detached, Side};
use crate::inroot::{Root, errno};
use crate::log::{Log, Writer};
use crate::mounts::Source;
use crate::process::{LOG_FILES, LOG_SIZE};
use crate::status::{Status, StatusFd};
use crate::supervise::{Memory, Supervisor, leave_the_terminal_to_others, start, take_signals};
use crate::terminal::{Plumbing, Pty};
use crate::userns::{Held, Users};
use crate::{attach, config, plan, userns};

/// Runs the command in a new container on `dir`; its status. With `--detach` 0, when it has been executed.
///
/// # Errors
/// One line for the act that failed; the payload did not run then.
pub fn run(dir: &Path, args: &Args) -> Result<u8> {
    let inherited = if args.process.detach { detach::inherited() } else { Vec::new() };
    let mut status_fd = args.process.status_fd.map(StatusFd::new).transpose()?;
    let result = start_and_wait(dir, args, &mut status_fd, &inherited);
    if let (Err(error), Some(fd)) = (&result, &mut status_fd) {
        fd.failed(error);
    }
    result
}

fn start_and_wait(dir: &Path, args: &Args, status_fd: &mut Option<StatusFd>, inherited: &[i32]) -> Result<u8> {
    let config = config::read(args.config.as_deref())?;
    let root = act::detached_root(dir)?;
    let (users, range) = userns::find(args.userns, args.uids, &root, dir)?;
    let mounts = args.mounts.clone().and_hosts(args.resolver.hosts_file());
    let sources = mounts.open(users.as_ref(), args.walls.privileged)?;
    let plan = plan::run(dir, args, &config, &root, users.as_ref().map(|users| users.start), &sources)?;
    if args.explain.dry_run {
        for acts in [&plan.outer, &plan.inner, &plan.wait] {
            perform(acts, args.explain, |_| Ok(()))?;
        }
        return Ok(0);
    }

    let (mut status, mut log) = (None, None);
    perform(&plan.outer, args.explain, |act| {
        match act {
            Act::Status { file } => status = Some(Status::hold(file, !args.process.then.is_empty())?),
            Act::Log { file } => {
                let (size, files) = (args.process.log_size, args.process.log_files);
                log = Some(Log::open(file, size.unwrap_or(LOG_SIZE), files.unwrap_or(LOG_FILES))?);
            }
            _ => {}
        }
        Ok(())
    })?;
    // While a path still means what it meant to the caller.
    let beside = args.status.as_deref().filter(|_| args.process.detach).map(attach::directory).transpose()?;
    let status_fd = status_fd.as_ref().map(StatusFd::try_clone).transpose()?;
    let mut made = Made { plan, root, sources, users, range, status, log, status_fd, beside };
    if !args.process.detach {
        return supervise(args, made, None);
    }
    let home = detach::home();
    match detach::fork(inherited)? {
        (Side::Caller(caller), _) => {
            // The locks are the other's: nobody is to find the status file's held by us after its end, and the range is not free.
            std::mem::forget(made.range.take());
            drop(made);
            caller.wait().map(|()| 0)
        }
        (Side::Supervisor(detached), caller) => match detached.try_clone() {
            Err(error) => detached.fail(&error),
            Ok(copy) => match supervise(args, made, Some((copy, caller))) {
                Ok(_) => detach::become_program(&args.process.then, home),
                Err(error) => detached.fail(&error),
            },
        },
    }
}

/// What is made by the caller, and goes on with the supervisor.
struct Made {
    plan: plan::Plan,
    root: Root,
    sources: Vec<Source>,
    users: Option<Users>,
    /// Of their ids, where it has to be held.
    range: Option<Held>,
    status: Option<Status>,
    log: Option<Log>,
    status_fd: Option<StatusFd>,
    /// The directory of the status file.
    beside: Option<OwnedFd>,
}

fn supervise(args: &Args, made: Made, detached: Option<(Detached, Option<OwnedFd>)>) -> Result<u8> {
    let Made { plan, root, sources, users, range: _range, status, log, status_fd, beside } = made;
    let (detached, caller) = detached.unzip();
    let parent = match args.die_with_parent {
        Some(starter) => Some(parent(starter)?),
        None => caller.flatten(),
    };
    let signals = take_signals()?;
    let uid = plan.inner.iter().find_map(|act| if let Act::Terminal { uid, .. } = act { Some(*uid) } else { None });
    let owner = users.as_ref().map_or(0, |users| users.start);
    let devpts = uid.map(|_| act::PTS.detached(owner)).transpose()?;
    let pty = uid.zip(devpts.as_ref()).map(|(uid, devpts)| Pty::open(devpts, uid)).transpose()?;
    let has_terminal = pty.is_some();
    let Plumbing { stdio, streams, talk } = match (&detached, pty) {
        (None, Some(pty)) => Plumbing::terminal(pty, args.process.interactive)?,
        (None, None) => Plumbing::pipes(log.is_some())?,
        (Some(_), pty) => Plumbing::detached(pty, args.process.interactive, log.is_some(), beside)?,
    };
    // For the next child only: it is process 1 of the new namespace. The supervisor stays where it is, in the
    // host's mounts too, so that it keeps nothing mounted.
    leave_the_terminal_to_others()?;
    unshare(CloneFlags::CLONE_NEWPID).map_err(|e| Error::new("unshare", "PID namespace", e))?;
    let (explain, inner) = (args.explain, plan.inner);
    let started = start(move |tell| {
        let inside = Inside::new(root, users, stdio, tell).and_then(|inside| {
            let mut inside = inside.with(sources);
            if has_terminal {
                inside.on_a_terminal(devpts);
            }
            perform(&inner, explain, |act| inside.apply(act))
        });
        match inside {
            Err(error) if error.exit_status() == bocker_common::diag::FAILURE => {
                error.status(bocker_common::diag::OWN_FAILURE)
            }
            Err(error) => error,
            Ok(()) => Error::plain("nothing to execute"),
        }
    })?;
    // Children of ours are none of the container's again: the kernel starts no thread for who would have them there, and no
    // process either for the program of --then, once that namespace's process 1 is dead.
    let own = pidfd_open(rustix::process::getpid(), PidfdFlags::empty()).map_err(errno);
    own.and_then(|own| setns(own, CloneFlags::CLONE_NEWPID)).map_err(|e| Error::new("leave", "PID namespace", e))?;
    let container = args.status.as_deref().and_then(Path::parent).and_then(Path::file_name).map(OsStr::to_owned);
    let supervisor = Supervisor {
        signals,
        status,
        log: log.map(Writer::Here),
        streams,
        talk,
        first: true,
        parent,
        detached,
        status_fd,
        container,
        init: args.process.init,
        memory: Memory::Unasked,
        score: None,
    };
    let result = supervisor.wait(started);
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
