//! `run`: a command of the host's in a cgroup of its own, which goes with it.
//!
//! The command is started as `bocker-cg exec NAME -- COMMAND`: it is in the cgroup before it is executed.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus};

use bocker_common::diag::{OWN_FAILURE, Reason};
use bocker_common::entry::Uninterrupted;
use bocker_common::say::{self, Explain, Said, quote};
use bocker_common::{Error, Result};
use nix::sys::signal::Signal;
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::act::{self, Act, Place};
use crate::group::{self, Created, For};
use crate::layout::Layout;
use crate::limits::{Limit, Limits};
use crate::name::Name;
use crate::stat::Killed;
use crate::sys;

/// Runs the command; its status, 128 and the number of the signal that ended it, or 125 to 127.
///
/// # Errors
/// With status 125: no such limit here, no cgroup may be made.
pub(crate) fn run(
    root: &Path,
    layout: Layout,
    limits: Vec<Limit>,
    command: &[OsString],
    explain: Explain,
) -> Result<ExitCode> {
    let own = |error: Error| error.status(OWN_FAILURE);
    let name = Name::own().map_err(own)?;
    let layout = ours(layout).map_err(own)?;
    let root = match &layout {
        Layout::V1(_) => root.to_owned(),
        Layout::V2(top) => top.clone(),
    };
    let Plan { before, after } = plan(&layout, name, Limits::of(limits)).map_err(own)?;
    if explain.dry_run {
        before.iter().try_for_each(|act| say::tell(act, explain)).map_err(own)?;
        let places = joins(&before, layout.v2());
        say::tell(&Inside { joins: &places, command }, explain).map_err(own)?;
        let ends: Vec<_> = after.iter().rev().collect();
        ends.into_iter().try_for_each(|act| say::tell(act, explain)).map_err(own)?;
        return say::tell(&Exit, explain).map(|()| ExitCode::SUCCESS).map_err(own);
    }
    say::perform_whole(&before, explain, |act| act.apply(&layout, name), |act| take_back(act, &after)).map_err(own)?;
    let status = start_and_wait(&root, name, command);
    if let Some(killed) = Killed::of(&layout, name) {
        let _ = writeln!(std::io::stderr(), "bocker-cg: out of memory: {}", killed.line());
    }
    let cleaned = clean_up(&layout, name, &after, explain);
    let status = status.map_err(own)?;
    let status = match (status.code(), status.signal()) {
        (Some(code), _) => code as u8,
        (None, signal) => 128_u8.wrapping_add(signal.unwrap_or(0) as u8),
    };
    match cleaned {
        // What the command said is worth more to its caller; a success would hide what is left.
        Err(error) => Err(error.status(if status == 0 { OWN_FAILURE } else { status })),
        Ok(()) => Ok(ExitCode::from(status)),
    }
}

/// What makes the cgroup, and what is left to do when it is empty, in the opposite order.
struct Plan {
    before: Vec<Act>,
    after: Vec<Act>,
}

fn plan(layout: &Layout, name: Name, limits: Limits) -> Result<Plan> {
    let create = |counted| group::plan_create(layout, name, limits.clone(), For::Command { counted });
    let Created { acts, .. } = create(true)?;
    let Layout::V2(top) = layout else { return Ok(whole(acts, layout)) };
    let Some(Act::Enable { controllers, .. }) = acts.first() else { return Ok(whole(acts, layout)) };
    // Only the root of all may have processes beside children that have controllers.
    let is_inside = top.join("cgroup.events").exists();
    let inside = act::processes(top);
    if !is_inside || inside.is_empty() {
        return Ok(whole(acts, layout));
    }
    if inside != [nix::unistd::getpid()] {
        let Created { acts, .. } = create(false)?;
        return if matches!(acts.first(), Some(Act::Enable { .. })) {
            let why = format!(
                "{} has other processes, so its children get no {} controller",
                top.display(),
                controllers.join(" ")
            );
            Err(Error::plain(why).hint(DELEGATE))
        } else {
            Ok(whole(acts, layout))
        };
    }
    // It is only us: we wait in a child of it.
    let leaf = Place { dir: top.join(name.leaf().unwrap_or_default()), v2: true };
    let disable = Act::Disable { top: top.clone(), controllers: controllers.clone() };
    let back = Act::Join(Place { dir: top.clone(), v2: true });
    let mut plan = whole(acts, layout);
    plan.before.splice(0..0, [Act::Create(leaf.dir.clone()), Act::Join(leaf.clone())]);
    plan.after.splice(0..0, [Act::Delete(leaf.dir), back, disable]);
    Ok(plan)
}

fn whole(before: Vec<Act>, layout: &Layout) -> Plan {
    let made = |act: &Act| match act {
        Act::Create(dir) => Some(dir.clone()),
        _ => None,
    };
    let dirs: Vec<PathBuf> = before.iter().filter_map(made).collect();
    let delete = dirs.iter().rev().cloned().map(Act::Delete);
    // Whoever is in one hierarchy is in all.
    let kill = dirs.first().map(|dir| Act::Kill(Place { dir: dir.clone(), v2: layout.v2() }));
    let after = delete.chain(kill).collect();
    Plan { before, after }
}

/// The act that takes one back where the cgroup could not be made: of those that are done at the end anyway.
fn take_back(done: &Act, after: &[Act]) -> Option<Act> {
    match done {
        Act::Join(_) => after.iter().find(|act| matches!(act, Act::Join(_))).cloned(),
        // Only where the cgroup is ours alone.
        Act::Enable { .. } => after.iter().find(|act| matches!(act, Act::Disable { .. })).cloned(),
        done => done.undo(),
    }
}

/// What is in it ends, also in cgroups that it made itself.
fn clean_up(layout: &Layout, name: Name, after: &[Act], explain: Explain) -> Result<()> {
    let _whole = Uninterrupted::begin();
    let is_ours = |act: &&Act| matches!(act, Act::Join(_) | Act::Disable { .. });
    let mut failures = Vec::new();
    let leaf = name.leaf().unwrap_or_default();
    let is_leaf = |act: &Act| match act {
        Act::Delete(dir) => dir.file_name().is_some_and(|last| *last == *leaf),
        Act::Kill(place) => place.dir.file_name().is_some_and(|last| *last == *leaf),
        _ => false,
    };
    // Nobody is killed in the leaf: that is us.
    let (last, first): (Vec<Act>, Vec<Act>) = group::plan_delete(layout, name, true)?.into_iter().partition(is_leaf);
    let last = last.into_iter().filter(|act| matches!(act, Act::Delete(_)));
    for act in first.into_iter().chain(after.iter().rev().filter(is_ours).cloned()).chain(last) {
        say::tell(&act, explain)?;
        failures.extend(act.apply(layout, name).err().map(|e| e.to_string()));
    }
    if failures.is_empty() {
        return Ok(());
    }
    Err(Error::plain(failures.join("; ")).hint(format!("bocker-cg gc removes {name} when that can be done")))
}

/// How somebody gets a cgroup in which he may make others.
const DELEGATE: &str = "systemd-run --user --scope -p Delegate=yes bocker-cg run … has one of its own; or sudo";

/// Where we may make cgroups: at the top, or else, on version 2, in our own: what systemd has delegated to us.
fn ours(layout: Layout) -> Result<Layout> {
    let Layout::V2(top) = &layout else { return Ok(layout) };
    let file = "/proc/self/cgroup";
    let text = std::fs::read_to_string(file).map_err(|e| Error::new("read", file, e))?;
    Ok(Layout::V2(delegated(top, &text, may_make)?))
}

/// Whether processes can be moved there, and children made. Root may where the file system is not read-only.
fn may_make(dir: &Path) -> bool {
    let may_write = |name: &str| OpenOptions::new().write(true).open(dir.join(name)).is_ok();
    may_write("cgroup.procs") && may_write("cgroup.subtree_control")
}

fn delegated(top: &Path, own: &str, may_make: impl Fn(&Path) -> bool) -> Result<PathBuf> {
    if may_make(top) {
        return Ok(top.to_owned());
    }
    // cgroups(7): version 2's line. What begins with `/..` lies outside of this cgroup namespace.
    let path = own.lines().find_map(|line| line.strip_prefix("0::/")).filter(|path| !path.starts_with(".."));
    let own = path.map(|path| top.join(path));
    match own {
        Some(own) if may_make(&own) => Ok(own),
        own => {
            let shown = own.unwrap_or_else(|| top.to_owned());
            Err(Error::new("make a cgroup in", shown.display(), "it is not ours").hint(DELEGATE))
        }
    }
}

/// Of a dry run: the directories that would be joined.
fn joins(before: &[Act], v2: bool) -> Vec<Act> {
    let is_leaf = |dir: &Path| dir.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"leaf_"));
    let made = |act: &Act| match act {
        Act::Create(dir) if !is_leaf(dir) => Some(Act::Join(Place { dir: dir.clone(), v2 })),
        _ => None,
    };
    before.iter().filter_map(made).collect()
}

/// The command, in the words of a shell.
struct Inside<'a> {
    joins: &'a [Act],
    command: &'a [OsString],
}

impl say::Act for Inside<'_> {
    fn say(&self) -> Said {
        let joins: String = self.joins.iter().map(|act| format!("{}; ", act.say().shell)).collect();
        let words: Vec<String> = self.command.iter().map(quote).collect();
        let shell = format!("status=0\n({joins}exec {}) || status=$?", words.join(" "));
        Said::new(shell, "0 is whoever writes: the subshell, which becomes the command")
    }
}

/// The last line of a dry run.
struct Exit;

impl say::Act for Exit {
    fn say(&self) -> Said {
        Said::new("exit $status", "")
    }
}

/// Signals that come meanwhile go to the command.
fn start_and_wait(root: &Path, name: Name, command: &[OsString]) -> Result<ExitStatus> {
    let held = Uninterrupted::begin();
    let mut set = held.signals();
    set.add(Signal::SIGCHLD);
    let fail = |act, e: nix::errno::Errno| Error::new(act, "signals", e);
    set.thread_block().map_err(|e| fail("hold", e))?;
    let signals = SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC).map_err(|e| fail("listen to", e))?;
    let me = std::env::current_exe().map_err(|e| Error::new("find", "/proc/self/exe", e))?;
    let mut tool = Command::new(&me);
    tool.arg0("bocker-cg").arg("--root").arg(root).arg("exec");
    tool.arg(format!("--die-with-parent={}", std::process::id())).arg(name.to_string()).arg("--").args(command);
    let mut child = tool.spawn().map_err(|e| Error::new("start", me.display(), e))?;
    let status = wait(&mut child, &signals);
    held.until_the_end();
    status
}

fn wait(child: &mut Child, signals: &SignalFd) -> Result<ExitStatus> {
    loop {
        if let Some(status) = child.try_wait().map_err(|e| Error::new("wait", "for the command", Reason::from(e)))? {
            return Ok(status);
        }
        let info = match signals.read_signal() {
            Ok(Some(info)) => info,
            Ok(None) | Err(nix::errno::Errno::EINTR) => continue,
            Err(e) => return Err(Error::new("wait", "for signals", e)),
        };
        let signal = info.ssi_signo as i32;
        // A key of the terminal (from the kernel: a code above 0) has reached the command, too.
        let key = info.ssi_code > 0 && [libc::SIGINT, libc::SIGQUIT, libc::SIGHUP].contains(&signal);
        if signal != libc::SIGCHLD && !key {
            // It may have ended meanwhile.
            let _ = sys::kill(child.id(), signal);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::tests::{fake_v1, fake_v2};

    fn name() -> Name {
        "run_7_9".parse().unwrap()
    }

    fn said(root: &Path, acts: &[Act]) -> Vec<String> {
        use say::Act as _;
        let first =
            |act: &Act| act.say().shell.lines().next().unwrap_or_default().replace(&*root.to_string_lossy(), "");
        acts.iter().map(first).collect()
    }

    fn limits() -> Limits {
        Limits::of(["memory.max=64M".parse().unwrap()])
    }

    #[test]
    fn a_cgroup_with_what_was_asked_for_only() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::among(dir.path(), &fake_v1(dir.path(), &["cpu,cpuacct", "memory", "devices"])).unwrap();
        let Plan { before, after } = plan(&layout, name(), limits()).unwrap();
        assert_eq!(
            said(dir.path(), &before),
            [
                "mkdir '/cpu,cpuacct/run_7_9'",
                "mkdir /memory/run_7_9",
                "mkdir /devices/run_7_9",
                "echo 67108864 > /memory/run_7_9/memory.limit_in_bytes",
            ]
        );
        assert_eq!(after.len(), 4, "emptied, and each removed");

        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::among(dir.path(), &fake_v2(dir.path(), "memory pids", "")).unwrap();
        let Plan { before, after } = plan(&layout, name(), limits()).unwrap();
        assert_eq!(
            said(dir.path(), &before),
            ["echo +memory +pids > /cgroup.subtree_control", "mkdir /run_7_9", "echo 67108864 > /run_7_9/memory.max"]
        );
        assert_eq!(after.len(), 2);
        let error = plan(&layout, name(), Limits::of(["cpus=1".parse().unwrap()])).map(|_| ()).unwrap_err().to_string();
        assert!(error.starts_with("no cpu controller in "), "{error}");
    }

    #[test]
    fn who_is_alone_in_a_cgroup_of_its_own_waits_in_a_leaf() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::among(dir.path(), &fake_v2(dir.path(), "memory", "")).unwrap();
        std::fs::write(dir.path().join("cgroup.events"), "populated 1\n").unwrap();
        let processes = |text: String| std::fs::write(dir.path().join("cgroup.procs"), text).unwrap();
        processes(format!("{}\n", std::process::id()));
        let Plan { before, after } = plan(&layout, name(), limits()).unwrap();
        assert_eq!(
            said(dir.path(), &before),
            [
                "mkdir /leaf_7_9",
                "echo 0 > /leaf_7_9/cgroup.procs",
                "echo +memory > /cgroup.subtree_control",
                "mkdir /run_7_9",
                "echo 67108864 > /run_7_9/memory.max",
            ]
        );
        let ends: Vec<Act> = after.iter().rev().cloned().collect();
        assert_eq!(
            said(dir.path(), &ends),
            [
                "echo 1 > /run_7_9/cgroup.kill",
                "rmdir /run_7_9",
                "echo -memory > /cgroup.subtree_control",
                "echo 0 > /cgroup.procs",
                "rmdir /leaf_7_9",
            ]
        );
        // Taken back where it fails in the middle.
        let undone: Vec<Act> = before.iter().rev().filter_map(|act| take_back(act, &after)).collect();
        assert_eq!(
            said(dir.path(), &undone),
            ["rmdir /run_7_9", "echo -memory > /cgroup.subtree_control", "echo 0 > /cgroup.procs", "rmdir /leaf_7_9"]
        );
        // With others there it cannot be, unless nothing is asked for that needs it.
        processes(format!("{}\n1\n", std::process::id()));
        let error = plan(&layout, name(), limits()).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("has other processes") && error.contains("systemd-run"), "{error}");
        let Plan { before, .. } = plan(&layout, name(), Limits::default()).unwrap();
        assert_eq!(said(dir.path(), &before), ["mkdir /run_7_9"]);
    }

    #[test]
    fn our_own_part_of_the_tree() {
        let top = Path::new("/top");
        let of = |own: &str, may: &[&str]| {
            let may: Vec<PathBuf> = may.iter().map(PathBuf::from).collect();
            delegated(top, own, |dir| may.iter().any(|one| one == dir)).map_err(|e| e.to_string())
        };
        let scope = "0::/user.slice/user-1000.slice/user@1000.service/app.slice/x.scope\n";
        let path = "/top/user.slice/user-1000.slice/user@1000.service/app.slice/x.scope";
        assert_eq!(of(scope, &["/top", path]).unwrap(), top);
        assert_eq!(of(scope, &[path]).unwrap(), Path::new(path));
        assert_eq!(of("0::/\n", &["/top"]).unwrap(), top);
        for (own, may) in [(scope, &[][..]), ("0::/../../x\n", &["/top/../../x"]), ("1:cpu:/\n", &[])] {
            let error = of(own, may).unwrap_err();
            assert!(error.contains("it is not ours (systemd-run --user --scope"), "{error}");
        }
    }
}
