//! Into a running container: what `nsenter … chroot` was.

use std::os::fd::OwnedFd;
use std::path::Path;

use bocker_common::diag::{FAILURE, OWN_FAILURE};
use bocker_common::say::perform;
use bocker_common::{Error, Result};
use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};
use nix::sys::signalfd::SignalFd;
use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::act::{Act, Inside, Stdio};
use crate::args::Args;
use crate::detach::{self, Detached, Side};
use crate::inroot::{Root, errno};
use crate::status::StatusFd;
use crate::supervise::{Memory, Supervisor, leave_the_terminal_to_others, start, take_signals};
use crate::terminal::{Plumbing, Pty};
use crate::userns::Users;
use crate::{config, plan, status};

/// Runs the command in the container of this status file; its status.
///
/// # Errors
/// `Container 'NAME' exists but is not running`; one line for the act that failed.
pub fn run(status_file: &Path, args: &Args) -> Result<u8> {
    let inherited = if args.process.detach { detach::inherited() } else { Vec::new() };
    let mut status_fd = args.process.status_fd.map(StatusFd::new).transpose()?;
    let result = join(status_file, args, &mut status_fd, &inherited);
    if let (Err(error), Some(fd)) = (&result, &mut status_fd) {
        fd.failed(error);
    }
    result
}

#[expect(clippy::disallowed_methods, reason = "/proc/PID/root, by a PID that the lock vouches for")]
fn join(status_file: &Path, args: &Args, status_fd: &mut Option<StatusFd>, inherited: &[i32]) -> Result<u8> {
    let config = config::read(args.config.as_deref())?;
    let name = status_file.parent().and_then(Path::file_name).map_or("?".into(), |name| name.to_string_lossy());
    let not_running = || not_running(&name);

    let pid = status::running(status_file)?.ok_or_else(not_running)?;
    // The number may belong to someone else by now. The supervisor writes `exited` before it reaps: so if the file
    // and the lock still say the same once we hold a descriptor, the descriptor is the payload's.
    let process = Pid::from_raw(pid).ok_or_else(not_running)?;
    let pidfd = pidfd_open(process, PidfdFlags::empty()).map_err(|_| not_running())?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(format!("/proc/{pid}/root"), flags, Mode::empty()).map_err(|_| not_running())?;
    if status::running(status_file)? != Some(pid) {
        return Err(not_running());
    }
    let users = Users::of(pid).map_err(|e| Error::new("look at", format!("the users of {name}"), e))?;
    let root = Root::new(root);
    let plan = plan::join(pid, args, &config, &root, users.as_ref().map(|users| users.start))?;
    if args.explain.dry_run {
        for acts in [&plan.outer, &plan.inner] {
            perform(acts, args.explain, |_| Ok(()))?;
        }
        return Ok(0);
    }

    let (signals, detached, caller) = match args.process.detach {
        false => (take_signals()?, None, None),
        true => match detach::fork(inherited)? {
            (Side::Caller(caller), _) => return caller.wait().map(|()| 0),
            (Side::Supervisor(detached), caller) => (take_signals()?, Some(detached), caller),
        },
    };
    let spare = detached.as_ref().map(Detached::try_clone).transpose()?;
    let status_fd = status_fd.as_ref().map(StatusFd::try_clone).transpose()?;
    let result = enter(plan, args, &name, (pidfd, root, users), signals, status_fd, (detached, caller));
    match (result, spare) {
        (Ok(status), Some(_)) => crate::sys::exit_now(status),
        (Err(error), Some(detached)) => detached.fail(&error),
        (result, None) => result,
    }
}

fn enter(
    plan: plan::Plan,
    args: &Args,
    name: &str,
    (pidfd, root, users): (OwnedFd, Root, Option<Users>),
    signals: SignalFd,
    status_fd: Option<StatusFd>,
    (detached, caller): (Option<Detached>, Option<OwnedFd>),
) -> Result<u8> {
    let not_running = || not_running(name);
    let uid = plan.outer.iter().find_map(|act| if let Act::Terminal { uid, .. } = act { Some(*uid) } else { None });
    let pty = uid.map(|uid| Pty::open_in(&root, uid)).transpose()?;
    drop(root);
    let has_terminal = pty.is_some();
    let Plumbing { stdio, streams, talk } = match (&detached, pty) {
        (None, Some(pty)) => Plumbing::terminal(pty, args.process.interactive)?,
        (None, None) => Plumbing::pipes(false)?,
        (Some(_), pty) => Plumbing::detached(pty, false, false, None)?,
    };
    let parent = match args.die_with_parent {
        Some(starter) => Some(crate::container::parent(starter)?),
        None => caller,
    };
    // Processes in there could otherwise attach to this one, or open its files, as soon as it is in their PID
    // namespace (CVE-2016-9962). execve(2) makes it dumpable again.
    leave_the_terminal_to_others()?;
    nix::sys::prctl::set_dumpable(false).map_err(|e| Error::new("hide from", name, e))?;
    let failed = |e| if e == Errno::ESRCH { not_running() } else { Error::new("join", name, e) };
    perform(&plan.outer, args.explain, |act| match act {
        Act::Wall(wall) => wall.apply_to_children(),
        // The next child's. The supervisor stays where it is: what it looks at in /proc is the host's.
        Act::Join { .. } => setns(&pidfd, CloneFlags::CLONE_NEWPID).map_err(failed),
        _ => Ok(()),
    })?;
    let (explain, inner) = (args.explain, plan.inner);
    let become_payload = |tell| {
        // All at once: no moment in one and not the other.
        let others = CloneFlags::CLONE_NEWNS
            | CloneFlags::CLONE_NEWUTS
            | CloneFlags::CLONE_NEWIPC
            | CloneFlags::CLONE_NEWNET
            | CloneFlags::CLONE_NEWCGROUP;
        setns(&pidfd, others).map_err(failed)?;
        // No file of the host's is open from here on but stdin, stdout and stderr.
        drop(pidfd);
        inside(&inner, users, explain, stdio, tell, has_terminal)
    };
    let started = start(|tell| match become_payload(tell) {
        Err(error) if error.exit_status() == FAILURE => error.status(OWN_FAILURE),
        Err(error) => error,
        Ok(()) => Error::plain("nothing to execute"),
    })?;
    let supervisor = Supervisor {
        signals,
        status: None,
        log: None,
        streams,
        talk,
        first: false,
        parent,
        detached,
        status_fd,
        container: None,
        init: false,
        memory: Memory::Unasked,
        score: None,
    };
    supervisor.wait(started)
}

/// Whether what runs there now is in another user namespace than we are.
#[must_use]
pub fn has_own_users(status_file: &Path) -> bool {
    let pid = status::running(status_file).ok().flatten();
    pid.is_some_and(|pid| matches!(Users::of(pid), Ok(Some(_))))
}

fn not_running(name: &str) -> Error {
    Error::plain(format!("Container '{name}' exists but is not running"))
}

#[expect(clippy::disallowed_methods, reason = "/, which is the container's since setns(2)")]
fn inside(
    acts: &[Act],
    users: Option<Users>,
    explain: bocker_common::say::Explain,
    stdio: Stdio,
    tell: OwnedFd,
    has_terminal: bool,
) -> Result<()> {
    // setns(2) has set / and the working directory to the root of the mount namespace: the container's.
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open("/", flags, Mode::empty()).map_err(|e| Error::new("open", "/", errno(e)))?;
    let mut inside = Inside::new(Root::new(root), users, stdio, tell)?;
    if has_terminal {
        inside.on_a_terminal(None);
    }
    perform(acts, explain, |act| inside.apply(act))
}
