//! What this tool does to the kernel, as values.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bocker_common::diag::Reason;
use bocker_common::say::{self, Said, quote};
use bocker_common::{Error, Result};
use cgroups_rs::cpu::CpuController;
use cgroups_rs::memory::MemController;
use cgroups_rs::pid::PidController;
use cgroups_rs::{Cgroup, CgroupPid, MaxValue};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::devices::Devices;
use crate::freeze;
use crate::key::{IO_WEIGHT, Key};
use crate::layout::Layout;
use crate::limits::Limit;
use crate::name::Name;
use crate::systemd;

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Act {
    /// Tells systemd which controllers are needed at its top.
    Tell,
    /// Version 2: children of the top get these controllers' files. One write: all of them or none.
    Enable { top: PathBuf, controllers: Vec<&'static str> },
    /// Takes that back: processes may be in the top again.
    Disable { top: PathBuf, controllers: Vec<&'static str> },
    /// Makes a cgroup.
    Create(PathBuf),
    /// Version 1: a new cgroup has no processors and no memory nodes, and takes nobody. It gets those of the one above.
    Inherit { top: PathBuf, dir: PathBuf, file: &'static str },
    /// Sets a limit.
    Limit(Limit, Place),
    /// Puts a limit back: the file, and what was in it.
    Restore(PathBuf, String),
    /// Says which devices may be used.
    Devices(Devices, Place),
    /// Its processes stand still, or go on.
    Freeze(bool, Place),
    /// Moves this process there.
    Join(Place),
    /// Kills the processes of a cgroup.
    Kill(Place),
    /// Removes a cgroup that has no children.
    Delete(PathBuf),
    /// The cgroup's name on stdout.
    Print(Name),
}

/// A container's cgroup directory, and which version it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) dir: PathBuf,
    pub(crate) v2: bool,
}

impl Place {
    /// The file that takes processes.
    ///
    /// On version 1 that is `tasks`: writing 0 to it moves the calling thread alone, and for that the kernel
    /// needs no lock against forks. A write to `cgroup.procs` takes that lock, which costs an RCU grace period
    /// whenever nobody has taken it lately: 5 to 15 ms instead of 0.1. We have one thread, so it is the same.
    fn entrance(&self) -> &'static str {
        if self.v2 { "cgroup.procs" } else { "tasks" }
    }
}

impl Act {
    /// The act that takes this one back. Controllers that were enabled stay: others may use them by now.
    pub(crate) fn undo(&self) -> Option<Self> {
        match self {
            Self::Create(dir) => Some(Self::Delete(dir.clone())),
            _ => None,
        }
    }

    /// Does it, for the container `id`.
    ///
    /// # Errors
    /// The file, the kernel's reason, the way out where there is one.
    pub(crate) fn apply(&self, layout: &Layout, id: Name) -> Result<()> {
        match self {
            Self::Tell => {
                if let Err(why) = systemd::tell() {
                    // All else works, until systemd looks. A closed stderr leaves nobody to tell.
                    let _ = writeln!(
                        std::io::stderr(),
                        "bocker-cg: systemd may take limits away ('systemctl daemon-reload'): its unit bocker-controllers.service cannot be made: {why}"
                    );
                }
                Ok(())
            }
            Self::Enable { top, controllers } => enable(top, controllers),
            Self::Disable { top, controllers } => {
                let (file, text) = (top.join(SUBTREE), switches('-', controllers));
                write(&file, &text).map_err(|e| Error::new(&format!("write {text} to"), file.display(), e))
            }
            // cgroups-rs would ignore a failure, and an existing directory.
            Self::Create(dir) => std::fs::create_dir(dir).map_err(|e| match e.kind() {
                std::io::ErrorKind::AlreadyExists => {
                    Error::new("create", dir.display(), e).hint(format!("bocker-cg delete {id} removes it"))
                }
                std::io::ErrorKind::PermissionDenied => Error::new("create", dir.display(), e).hint("try sudo"),
                _ => Error::new("create", dir.display(), e),
            }),
            Self::Inherit { top, dir, file } => inherit(top, dir, file),
            Self::Limit(limit, place) => set(&layout.group(id), limit, place),
            Self::Restore(file, text) => {
                write(file, text).map_err(|e| Error::new(&format!("write {text} to"), file.display(), e))
            }
            Self::Devices(devices, place) => devices.apply(place),
            Self::Freeze(frozen, place) => freeze::apply(*frozen, place),
            Self::Join(place) => join(&layout.group(id), place),
            Self::Kill(place) => {
                kill(place);
                Ok(())
            }
            Self::Delete(dir) => remove(dir),
            Self::Print(id) => writeln!(std::io::stdout(), "/{id}").map_err(|e| Error::stdout(&e)),
        }
    }
}

impl say::Act for Act {
    fn say(&self) -> Said {
        match self {
            Self::Tell => systemd::say(),
            Self::Enable { top, controllers } => Said::new(
                format!("echo {} > {}", switches('+', controllers), quote(top.join(SUBTREE))),
                "version 2: a child has only the controllers that its parent hands down",
            ),
            Self::Disable { top, controllers } => Said::new(
                format!("echo {} > {}", switches('-', controllers), quote(top.join(SUBTREE))),
                "version 2: who hands controllers down has no processes itself",
            ),
            Self::Create(dir) => Said::new(format!("mkdir {}", quote(dir)), "a directory here is a group of processes"),
            Self::Limit(limit, place) => Said::new(limit.shell(place), limit.why(place.v2)),
            Self::Inherit { top, dir, file } => Said::new(
                format!("cat {} > {}", quote(top.join(file)), quote(dir.join(file))),
                "version 1: a new cgroup has none, and takes no process without",
            ),
            Self::Restore(file, text) => Said::new(format!("echo {} > {}", quote(text), quote(file)), "as before"),
            Self::Devices(devices, place) => devices.say(place),
            Self::Freeze(frozen, place) => freeze::say(*frozen, place),
            Self::Join(place) => Said::new(
                format!("echo 0 > {}", quote(place.dir.join(place.entrance()))),
                "0 is whoever writes; what it starts later is counted here, too",
            ),
            Self::Kill(Place { dir, v2 }) => {
                let procs = quote(dir.join(PROCESSES));
                if *v2 {
                    let shell =
                        format!("echo 1 > {}\nwhile grep -q . {procs}; do sleep 0.1; done", quote(dir.join(KILL)));
                    Said::new(shell, "SIGKILL to all at once, so nobody can fork away")
                } else {
                    let shell = format!("while pids=$(grep . {procs}); do kill -KILL $pids || :; sleep 0.1; done");
                    Said::new(shell, "again and again: who is killed may have forked before")
                }
            }
            Self::Delete(dir) => Said::new(format!("rmdir {}", quote(dir)), "only an empty group can go"),
            Self::Print(id) => Said::new(format!("echo /{id}"), ""),
        }
    }
}

/// Which controllers children have.
const SUBTREE: &str = "cgroup.subtree_control";

/// `+cpu +memory`
fn switches(sign: char, controllers: &[&str]) -> String {
    controllers.iter().map(|name| format!("{sign}{name}")).collect::<Vec<_>>().join(" ")
}

fn enable(top: &Path, controllers: &[&str]) -> Result<()> {
    let (file, text) = (top.join(SUBTREE), switches('+', controllers));
    std::fs::write(&file, &text).map_err(|e| {
        let way_out = match e.kind() {
            // The kernel's "no internal processes" rule, cgroups(7).
            std::io::ErrorKind::ResourceBusy | std::io::ErrorKind::Unsupported => {
                format!("processes are in {} itself: move them into a child of it", top.display())
            }
            std::io::ErrorKind::PermissionDenied => "try sudo".to_owned(),
            _ => format!("as root: echo {text} > {}", file.display()),
        };
        Error::new(&format!("write {text} to"), file.display(), e).hint(way_out)
    })
}

/// One `write(2)`; cgroupfs has no file to make or to empty first.
fn write(file: &Path, text: &str) -> std::io::Result<()> {
    std::fs::OpenOptions::new().write(true).open(file)?.write_all(text.as_bytes())
}

fn inherit(top: &Path, dir: &Path, name: &str) -> Result<()> {
    let (from, to) = (top.join(name), dir.join(name));
    let text = std::fs::read_to_string(&from).map_err(|e| Error::new("read", from.display(), e))?;
    write(&to, text.trim_end()).map_err(|e| Error::new(&format!("write {} to", text.trim_end()), to.display(), e))
}

fn set(group: &Cgroup, limit: &Limit, place: &Place) -> Result<()> {
    let value = limit.value(place.v2);
    let (file, text) = limit.target(place);
    let written = match limit.key {
        Key::Memory => group.controller_of::<MemController>().map(|memory| memory.set_limit(value)),
        Key::Swap => group.controller_of::<MemController>().map(|memory| memory.set_memswap_limit(value)),
        // The range was checked: never negative.
        Key::Shares | Key::Weight => {
            group.controller_of::<CpuController>().map(|cpu| cpu.set_shares(value.unsigned_abs()))
        }
        Key::Pids => group
            .controller_of::<PidController>()
            .map(|pids| pids.set_pid_max(if value < 0 { MaxValue::Max } else { MaxValue::Value(value) })),
        // Where cgroups-rs would write -1 to version 2's memory.low, or read and write more than once.
        _ => {
            return write(&file, &text).map_err(|e| refused(limit, place, &file, e.kind(), Reason::from(e)));
        }
    };
    match written {
        Some(Ok(())) => Ok(()),
        Some(Err(e)) => Err(refused(limit, place, &file, cause(&e).unwrap_or(std::io::ErrorKind::Other), reason(&e))),
        None => Err(Error::new("write", file.display(), "no such controller")),
    }
}

fn refused(limit: &Limit, place: &Place, file: &Path, kind: std::io::ErrorKind, reason: Reason) -> Error {
    use std::io::ErrorKind::{NotFound, PermissionDenied};
    // cgroupfs says "Permission denied" to who opens a missing file to write: it takes that for creating one.
    if matches!(kind, NotFound | PermissionDenied) && !file.exists() {
        return Error::new("write", file.display(), "no such file").hint(match limit.key {
            Key::Swap => "this kernel does not count swap: swapaccount=1 on its command line".to_owned(),
            Key::BlkioWeight | Key::IoWeight => {
                format!("no scheduler of disks that this kernel has knows weights: bfq and {IO_WEIGHT}'s iocost do")
            }
            Key::Swappiness => "this kernel has none".to_owned(),
            _ => format!("the {} controller is not in this hierarchy", limit.key.controller()),
        });
    }
    let error = Error::new(&format!("write {} to", limit.text(place.v2)), file.display(), reason);
    match (limit.key, kind) {
        (Key::Rate(_), _) => error.hint("a whole disk that is there is wanted: lsblk -d"),
        (Key::Memory, std::io::ErrorKind::InvalidInput) if !place.v2 => {
            error.hint("memory and swap together have less: memory-swap=SIZE, too")
        }
        _ => error,
    }
}

fn join(group: &Cgroup, place: &Place) -> Result<()> {
    let own = CgroupPid::from(0_u64);
    let found = group.subsystems().iter().map(|s| s.to_controller()).find(|c| c.path() == place.dir);
    let written = found.map(|c| if place.v2 { c.add_task_by_tgid(&own) } else { c.add_task(&own) });
    let file = place.dir.join(place.entrance());
    match written {
        Some(Ok(())) => Ok(()),
        Some(Err(e)) => Err(Error::new("join", file.display(), reason(&e))),
        // Not the container's: where `run` waits.
        None => write(&file, "0").map_err(|e| Error::new("join", file.display(), e)),
    }
}

/// The error of the system call that cgroups-rs wraps.
fn wrapped(error: &cgroups_rs::error::Error) -> Option<&std::io::Error> {
    std::error::Error::source(error)?.downcast_ref()
}

fn cause(error: &cgroups_rs::error::Error) -> Option<std::io::ErrorKind> {
    wrapped(error).map(std::io::Error::kind)
}

fn reason(error: &cgroups_rs::error::Error) -> Reason {
    wrapped(error).map_or_else(|| Reason::from(error.to_string()), Reason::from)
}

/// The file that lists the processes of a cgroup itself.
pub(crate) const PROCESSES: &str = "cgroup.procs";
/// Version 2, Linux 5.14.
const KILL: &str = "cgroup.kill";

/// The processes of a cgroup that this PID namespace sees; none where there is no such cgroup.
pub(crate) fn processes(dir: &Path) -> Vec<Pid> {
    let text = std::fs::read_to_string(dir.join(PROCESSES)).unwrap_or_default();
    // Those that it does not see are 0, and that would be our own process group, kill(2).
    text.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid > 0).map(Pid::from_raw).collect()
}

/// How long what is killed may take to end, and what has ended to be reaped.
const DYING: Duration = Duration::from_secs(5);

/// SIGKILL until nobody is left; who is left after [`DYING`] is in the error of the removal.
///
/// The first of a container is process 1 of its PID namespace, and with it the kernel kills all others there.
fn kill(place: &Place) {
    let at_once = place.v2 && std::fs::write(place.dir.join(KILL), "1").is_ok();
    let until = Instant::now() + DYING;
    loop {
        let inside = processes(&place.dir);
        if inside.is_empty() || Instant::now() > until {
            return;
        }
        for pid in inside.into_iter().filter(|_| !at_once) {
            // It may have ended meanwhile.
            let _ = nix::sys::signal::kill(pid, Signal::SIGKILL);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// `rmdir(2)`; the kernel says EBUSY until the last process has been reaped, so we ask again: for half a second, and where none
/// lives any more for [`DYING`].
///
/// cgroups-rs waits 10 ms before it tries a second time, and at the end has forgotten the reason.
fn remove(dir: &Path) -> Result<()> {
    let began = Instant::now();
    let may_wait = || {
        let patience = if processes(dir).is_empty() { DYING } else { Duration::from_millis(500) };
        began.elapsed() < patience
    };
    let mut pause = Duration::from_micros(250);
    loop {
        match std::fs::remove_dir(dir) {
            Err(e) if e.kind() == std::io::ErrorKind::ResourceBusy && may_wait() => {
                std::thread::sleep(pause);
                pause = (pause * 2).min(Duration::from_millis(64));
            }
            Err(e) if e.kind() == std::io::ErrorKind::ResourceBusy => {
                let inside: Vec<String> = processes(dir).iter().take(8).map(ToString::to_string).collect();
                let error = Error::new("remove", dir.display(), e);
                return Err(if inside.is_empty() {
                    error
                } else {
                    error.hint(format!("processes in it: {}; --kill ends them", inside.join(" ")))
                });
            }
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(Error::new("remove", dir.display(), e)),
            _ => return Ok(()),
        }
    }
}
