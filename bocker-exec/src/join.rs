//! Into a running container: what `nsenter … chroot` was.

use std::path::Path;

use bocker_common::diag::{FAILURE, OWN_FAILURE};
use bocker_common::say::perform;
use bocker_common::{Error, Result, entry};
use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};
use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::act::Inside;
use crate::args::Args;
use crate::inroot::{Root, errno};
use crate::supervise::{Supervisor, start, take_signals};
use crate::{config, plan, status};

/// Runs the command in the container of this status file; its status.
///
/// # Errors
/// `Container 'NAME' exists but is not running`; one line for the act that failed.
#[expect(clippy::disallowed_methods, reason = "/proc/PID/root, by a PID that the lock vouches for")]
pub fn run(status_file: &Path, args: &Args) -> Result<u8> {
    entry::need_root("bocker-exec")?;
    let config = config::read(args.config.as_deref())?;
    let name = status_file.parent().and_then(Path::file_name).map_or("?".into(), |name| name.to_string_lossy());
    let not_running = || Error::plain(format!("Container '{name}' exists but is not running"));

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
    let plan = plan::join(pid, args, &config, &Root::new(root))?;
    if args.explain.dry_run {
        for acts in [&plan.outer, &plan.inner] {
            perform(acts, args.explain, |_| Ok(()))?;
        }
        return Ok(0);
    }

    let signals = take_signals()?;
    let parent = args.die_with_parent.map(crate::container::parent).transpose()?;
    // Processes in there could otherwise attach to this one, or open its files, as soon as it is in their PID
    // namespace (CVE-2016-9962). execve(2) makes it dumpable again.
    nix::sys::prctl::set_dumpable(false).map_err(|e| Error::new("hide from", &name, e))?;
    perform(&plan.outer, args.explain, |_| {
        // All at once: no moment in one and not the other. The PID namespace is the next child's.
        let all = CloneFlags::CLONE_NEWNS
            | CloneFlags::CLONE_NEWUTS
            | CloneFlags::CLONE_NEWIPC
            | CloneFlags::CLONE_NEWPID
            | CloneFlags::CLONE_NEWNET
            | CloneFlags::CLONE_NEWCGROUP;
        setns(&pidfd, all).map_err(|e| if e == Errno::ESRCH { not_running() } else { Error::new("join", &name, e) })
    })?;
    // No file of the host's is open from here on but stdin, stdout and stderr.
    drop(pidfd);
    let (explain, inner) = (args.explain, plan.inner);
    let started = start(move || match inside(&inner, explain) {
        Err(error) if error.exit_status() == FAILURE => error.status(OWN_FAILURE),
        Err(error) => error,
        Ok(()) => Error::plain("nothing to execute"),
    })?;
    Supervisor { signals, status: None, copy: None, first: false, parent }.wait(started)
}

#[expect(clippy::disallowed_methods, reason = "/, which is the container's since setns(2)")]
fn inside(acts: &[crate::act::Act], explain: bocker_common::say::Explain) -> Result<()> {
    // setns(2) has set / and the working directory to the root of the mount namespace: the container's.
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open("/", flags, Mode::empty()).map_err(|e| Error::new("open", "/", errno(e)))?;
    let mut inside = Inside::new(Root::new(root), None);
    perform(acts, explain, |act| inside.apply(act))
}
