//! A container's cgroup over all hierarchies: what to do, from what is there.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use bocker_common::{Error, Result};

use crate::act::{self, Act, Place};
use crate::devices::Devices;
use crate::freeze;
use crate::key::Key;
use crate::layout::{Controller, Layout};
use crate::limits::{Limit, Limits};
use crate::name::Name;
use crate::systemd;

/// On version 2: what every container has.
const NEEDED: [&str; 2] = ["cpu", "memory"];
/// What each has where the host does.
const WELCOME: [&str; 4] = ["cpu", "memory", "pids", "io"];

/// Who the cgroup is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum For {
    /// What was not asked for: 2048 processes, and the default devices.
    Container,
    /// A command of the host's: only what was asked for. Whether it is counted in what else the host has, too.
    Command { counted: bool },
}

/// The script's `cgcreate` and `cgset`.
///
/// # Errors
/// A controller is missing: one that a limit needs that was asked for, or that of the devices, asked for or not; or limits
/// make no sense together.
pub(crate) fn plan_create(layout: &Layout, id: Name, mut limits: Limits, whose: For) -> Result<Created> {
    let v2 = layout.v2();
    limits.resolve(v2, |_| None)?;
    let asked = |controller: Controller| limits.files.iter().any(|limit| limit.key.controller() == controller);
    let (cpuset, pids) = (asked(Controller::Cpuset), asked(Controller::Pids));
    // A new cpuset has neither.
    let not_asked = ["cpuset.mems", "cpuset.cpus"].map(|file| {
        let is_told = limits.files.iter().any(|limit| limit.key.file(false) == file);
        (!is_told).then_some(file)
    });
    let is_container = whose == For::Container;
    let unlimited_pids = limits.value(Key::Pids) == Some(-1);
    let mut acts = Vec::new();
    let mut has_pids = layout.top_of(Controller::Pids).is_some();
    if let Layout::V2(top) = layout {
        let mut needed: Vec<&str> = if is_container { NEEDED.to_vec() } else { Vec::new() };
        for (controller, name) in [(Controller::Cpu, "cpu"), (Controller::Memory, "memory"), (Controller::Blkio, "io")]
        {
            needed.extend((asked(controller) && !needed.contains(&name)).then_some(name));
        }
        needed.extend(cpuset.then_some("cpuset"));
        needed.extend((pids && !unlimited_pids).then_some("pids"));
        let welcome = if whose == (For::Command { counted: false }) { &[][..] } else { &WELCOME };
        acts.extend(systemd::is_to_be_told(top).then_some(Act::Tell));
        let (enable, has) = plan_enable(top, &needed, welcome)?;
        acts.extend(enable);
        has_pids = has.contains(&"pids");
    }
    let warning = (is_container && !has_pids && !pids).then(|| {
        let unlimited = "the number of processes is not limited";
        match layout {
            Layout::V1(_) => layout.lacks(Controller::Pids, unlimited, "").to_string(),
            Layout::V2(top) => format!("{unlimited}: {}", no_controller(top, "pids")),
        }
    });
    if !has_pids && unlimited_pids {
        limits.files.retain(|limit| limit.key != Key::Pids);
    }
    if has_pids && !pids && is_container {
        limits.files.push(Limit::default_pids());
    }

    // Version 1's cpuset takes nobody until it has been told of processors and memory: only where it is asked for, or
    // lies in one hierarchy with another.
    let cpuset_top = layout.top_of(Controller::Cpuset);
    let alone = |top: &Path| !layout.has_another(Controller::Cpuset, top);
    for top in layout.tops() {
        let dir = top.join(id.to_string());
        let sets = !v2 && cpuset_top == Some(top);
        if sets && !cpuset && alone(top) {
            continue;
        }
        acts.push(Act::Create(dir.clone()));
        if sets {
            let inherited = not_asked.into_iter().flatten();
            acts.extend(inherited.map(|file| Act::Inherit { top: top.to_owned(), dir: dir.clone(), file }));
        }
    }
    for limit in limits.files {
        let controller = limit.key.controller();
        layout.top_of(controller).ok_or_else(|| layout.lacks(controller, &limit, ""))?;
        acts.push(Act::Limit(limit, Place { dir: layout.dir_of(controller, id), v2 }));
    }
    // A new cgroup has what the one above has.
    let default = if is_container { Devices::Default(Vec::new()) } else { Devices::All };
    if let devices @ Devices::Default(_) = limits.devices.unwrap_or(default) {
        let goes_without = "; or devices=all goes without: the container may use any device";
        let lack = || layout.lacks(Controller::Devices, "the rules for devices", goes_without);
        layout.top_of(Controller::Devices).ok_or_else(lack)?;
        acts.push(Act::Devices(devices, Place { dir: layout.dir_of(Controller::Devices, id), v2 }));
    }
    acts.extend(is_container.then_some(Act::Print(id)));
    Ok(Created { acts, warning })
}

/// What `create` does.
#[derive(Debug)]
pub(crate) struct Created {
    pub(crate) acts: Vec<Act>,
    /// What the container goes without, though it is the default.
    pub(crate) warning: Option<String>,
}

/// Controllers that children of the top do not have yet; and those that they have then.
fn plan_enable(
    top: &Path,
    needed: &[&'static str],
    welcome: &[&'static str],
) -> Result<(Option<Act>, Vec<&'static str>)> {
    let read = |name: &str| {
        let file = top.join(name);
        std::fs::read_to_string(&file).map_err(|e| Error::new("read", file.display(), e))
    };
    let (available, enabled) = (read("cgroup.controllers")?, read("cgroup.subtree_control")?);
    let has = |list: &str, name: &str| list.split_whitespace().any(|word| word == name);
    let welcome = welcome.iter().copied().filter(|name| !needed.contains(name));
    let (mut controllers, mut then) = (Vec::new(), Vec::new());
    for controller in needed.iter().copied().chain(welcome) {
        if has(&enabled, controller) {
            then.push(controller);
        } else if has(&available, controller) {
            controllers.push(controller);
            then.push(controller);
        } else if needed.contains(&controller) {
            return Err(no_controller(top, controller));
        }
    }
    let enable = Act::Enable { top: top.to_owned(), controllers: controllers.clone() };
    Ok(((!controllers.is_empty()).then_some(enable), then))
}

fn no_controller(top: &Path, controller: &str) -> Error {
    Error::plain(format!(
        "no {controller} controller in {} (the kernel lacks it, version 1 has it mounted, or the parent's cgroup.subtree_control does not hand it down)",
        top.join("cgroup.controllers").display()
    ))
}

/// # Errors
/// The container has a cgroup in no hierarchy.
pub(crate) fn must_exist(layout: &Layout, id: Name) -> Result<()> {
    if layout.dirs(id).iter().any(|dir| dir.is_dir()) { Ok(()) } else { Err(missing(id)) }
}

fn missing(id: Name) -> Error {
    Error::plain(format!("no cgroup /{id} (bocker-cg create {id} makes it)"))
}

/// The script's `cgexec`: everywhere where the container has a cgroup.
///
/// # Errors
/// It has none, or is frozen: whoever joins it would stop there.
pub(crate) fn plan_join(layout: &Layout, id: Name) -> Result<Vec<Act>> {
    let plan: Vec<Act> = layout
        .dirs(id)
        .into_iter()
        .filter(|dir| dir.is_dir())
        .map(|dir| Act::Join(Place { dir, v2: layout.v2() }))
        .collect();
    if plan.is_empty() {
        return Err(missing(id));
    }
    if layout.top_of(Controller::Freezer).is_some_and(|top| freeze::is_frozen(&top.join(id.to_string()), layout.v2())) {
        return Err(Error::plain(format!("{id} is frozen (bocker-cg thaw {id})")));
    }
    Ok(plan)
}

/// The script's `cgdelete`, with what the container may have made inside, leaves first. What is frozen is thawed before
/// that: nobody there could end. With `kill` whoever is in there ends, too.
///
/// # Errors
/// A directory cannot be read.
pub(crate) fn plan_delete(layout: &Layout, id: Name, kill: bool) -> Result<Vec<Act>> {
    let mut dirs = Vec::new();
    let leaf = id.leaf().map(|leaf| layout.tops().iter().map(|top| top.join(&leaf)).collect()).unwrap_or_default();
    for dir in [layout.dirs(id), leaf].concat() {
        leaves_first(&dir, &mut dirs)?;
    }
    let v2 = layout.v2();
    let place = |dir: &PathBuf| Place { dir: dir.clone(), v2 };
    // Only one hierarchy of version 1 can be frozen. From the top: below what is frozen nothing thaws.
    let freezer = layout.top_of(Controller::Freezer);
    let frozen = |dir: &&PathBuf| freezer.is_some_and(|top| dir.starts_with(top)) && freeze::is_frozen(dir, v2);
    let thaws = dirs.iter().rev().filter(frozen).map(|dir| Act::Freeze(false, place(dir)));
    let busy = |dir: &&PathBuf| kill && !act::processes(dir).is_empty();
    let kills = dirs.iter().rev().filter(busy).map(|dir| Act::Kill(place(dir)));
    let ends: Vec<Act> = thaws.chain(kills).collect();
    Ok(ends.into_iter().chain(dirs.into_iter().map(Act::Delete)).collect())
}

/// Adds the directory and all below it; nothing if there is none. Kept on the heap: a container chooses the depth.
pub(crate) fn leaves_first(top: &Path, into: &mut Vec<PathBuf>) -> Result<()> {
    let mut found: Vec<PathBuf> = Vec::new();
    let mut waiting = vec![top.to_owned()];
    while let Some(dir) = waiting.pop() {
        match children(&dir) {
            Ok(children) => {
                waiting.extend(children);
                found.push(dir);
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(Error::new("read", dir.display(), e)),
        }
    }
    // Parents were found before their children.
    into.extend(found.into_iter().rev());
    Ok(())
}

pub(crate) fn children(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// Whether a process is in the container's cgroup or below, in any hierarchy.
///
/// # Errors
/// A directory or a file cannot be read.
pub(crate) fn is_inhabited(layout: &Layout, id: Name) -> Result<bool> {
    let mut files = Vec::new();
    if layout.v2() {
        // Counts what is below, too, and is there where `cgroup.procs` cannot be read (a threaded cgroup).
        files.extend(layout.dirs(id).iter().map(|dir| dir.join("cgroup.events")));
    } else {
        for dir in layout.dirs(id) {
            leaves_first(&dir, &mut files)?;
        }
        files.iter_mut().for_each(|dir| dir.push(act::PROCESSES));
    }
    for file in files {
        match std::fs::read_to_string(&file) {
            Ok(text) if layout.v2() && text.lines().any(|line| line == "populated 1") => return Ok(true),
            Ok(text) if !layout.v2() && !text.is_empty() => return Ok(true),
            Err(e) if file.exists() => return Err(Error::new("read", file.display(), e)),
            // Gone since: nobody is in it.
            _ => {}
        }
    }
    Ok(false)
}

/// Whether a process is in it, or below, that is in another PID namespace: the kernel lists it as 0.
pub(crate) fn has_unseen(layout: &Layout, id: Name) -> bool {
    let mut dirs = Vec::new();
    let read = |dir: &PathBuf| std::fs::read_to_string(dir.join(act::PROCESSES)).unwrap_or_default();
    let read_all = layout.dirs(id).iter().all(|dir| leaves_first(dir, &mut dirs).is_ok());
    !read_all || dirs.iter().any(|dir| read(dir).lines().any(|line| line == "0"))
}

/// Every name that has a cgroup in one hierarchy at least, in order.
///
/// # Errors
/// A directory cannot be read.
pub(crate) fn all(layout: &Layout) -> Result<Vec<Name>> {
    let mut ids = BTreeSet::new();
    for top in layout.tops() {
        for dir in children(top).map_err(|e| Error::new("read", top.display(), e))? {
            ids.extend(dir.file_name().and_then(|name| Name::of_directory(name.to_str()?)));
        }
    }
    Ok(ids.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use bocker_common::say::Act as _;

    use super::*;
    use crate::layout::tests::{fake_v1, fake_v2};

    fn id() -> Name {
        "ps_42045".parse().unwrap()
    }

    fn limits(words: &[&str]) -> Limits {
        Limits::of(words.iter().map(|word| word.parse().unwrap()))
    }

    /// What is done, in shell, without the root.
    fn said(root: &Path, acts: &[Act]) -> Vec<String> {
        acts.iter().map(|act| act.say().shell.replace(&*root.to_string_lossy(), "")).collect()
    }

    #[test]
    fn version_1_gets_a_directory_for_each_hierarchy() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::among(dir.path(), &fake_v1(dir.path(), &["cpu,cpuacct", "memory"])).unwrap();
        let plan =
            plan_create(&layout, id(), limits(&["cpu.shares=512", "memory=512000000", "devices=all"]), For::Container);
        let Created { acts: plan, warning } = plan.unwrap();
        assert_eq!(
            warning.unwrap(),
            "the number of processes is not limited: no pids hierarchy (mount -t cgroup -o pids cgroup ".to_owned()
                + &format!("{}/pids)", dir.path().display())
        );
        for act in &plan {
            act.apply(&layout, id()).unwrap();
        }
        let read = |file: &str| fs::read_to_string(dir.path().join(file)).unwrap();
        assert_eq!(read("cpu,cpuacct/ps_42045/cpu.shares"), "512");
        assert_eq!(read("memory/ps_42045/memory.limit_in_bytes"), "512000000");
        assert_eq!(all(&layout).unwrap(), [id()]);
        for act in plan_join(&layout, id()).unwrap() {
            act.apply(&layout, id()).unwrap();
        }
        assert_eq!(read("memory/ps_42045/tasks"), "0");
        let error = plan[0].apply(&layout, id()).unwrap_err().to_string();
        assert!(error.contains("File exists (bocker-cg delete ps_42045"), "{error}");
    }

    #[test]
    fn version_2_gets_one_and_hands_controllers_down() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::among(dir.path(), &fake_v2(dir.path(), "cpuset cpu io memory pids", "memory")).unwrap();
        let words = ["cpu.shares=1024", "memory=max", "devices=all"];
        let Created { acts: plan, warning } = plan_create(&layout, id(), limits(&words), For::Container).unwrap();
        assert_eq!(warning, None);
        assert_eq!(
            said(dir.path(), &plan),
            [
                "echo +cpu +pids +io > /cgroup.subtree_control",
                "mkdir /ps_42045",
                "echo 100 > /ps_42045/cpu.weight",
                "echo max > /ps_42045/memory.max",
                "echo 2048 > /ps_42045/pids.max",
                "echo /ps_42045",
            ]
        );
        let words = [
            "cpuset.cpus=0-1",
            "memory=1M",
            "memory-swap=3M",
            "memory-reservation=4K",
            "cpus=.5",
            "device=b:7:0:r",
            "pids=max",
        ];
        let plan = plan_create(&layout, id(), limits(&words), For::Container).unwrap().acts;
        assert_eq!(
            said(dir.path(), &plan),
            [
                "echo +cpu +cpuset +pids +io > /cgroup.subtree_control",
                "mkdir /ps_42045",
                "echo 0-1 > /ps_42045/cpuset.cpus",
                "echo 1048576 > /ps_42045/memory.max",
                "echo 4096 > /ps_42045/memory.low",
                "echo 50000 100000 > /ps_42045/cpu.max",
                "echo max > /ps_42045/pids.max",
                "echo 2097152 > /ps_42045/memory.swap.max",
                "bocker-cg --root  set ps_42045 devices=default 'device=b:7:0:r'",
                "echo /ps_42045",
            ]
        );
        let plan =
            plan_create(&layout, id(), limits(&["cpu.shares=1024", "memory=max", "devices=all"]), For::Container)
                .unwrap()
                .acts;
        for act in &plan[1..] {
            act.apply(&layout, id()).unwrap();
        }
        assert_eq!(fs::read_to_string(dir.path().join("ps_42045/cpu.weight")).unwrap(), "100");
        assert_eq!(fs::read_to_string(dir.path().join("ps_42045/memory.max")).unwrap(), "max");
        plan_join(&layout, id()).unwrap()[0].apply(&layout, id()).unwrap();
        assert_eq!(fs::read_to_string(dir.path().join("ps_42045/cgroup.procs")).unwrap(), "0");
    }

    #[test]
    fn version_2_says_which_controller_is_missing() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::among(dir.path(), &fake_v2(dir.path(), "cpu pids", "cpu")).unwrap();
        let error = plan_create(&layout, id(), limits(&[]), For::Container).unwrap_err().to_string();
        assert!(error.contains("no memory controller") && error.contains("cgroup.controllers"), "{error}");
        // A kernel without pids will do, and says so, unless they were asked for.
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::among(dir.path(), &fake_v2(dir.path(), "cpu memory", "cpu memory")).unwrap();
        let Created { acts, warning } = plan_create(&layout, id(), limits(&["devices=all"]), For::Container).unwrap();
        assert_eq!(acts.len(), 2);
        assert!(warning.unwrap().starts_with("the number of processes is not limited: no pids controller in "));
        for word in ["pids=5", "cpuset.cpus=0"] {
            let error =
                plan_create(&layout, id(), limits(&[word, "devices=all"]), For::Container).unwrap_err().to_string();
            assert!(error.starts_with(&format!("no {} controller", word.split(['=', '.']).next().unwrap())), "{error}");
        }
    }

    #[test]
    fn version_1_fails_for_want_of_what_was_asked_for_and_of_devices() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::among(dir.path(), &fake_v1(dir.path(), &["cpu", "cpuacct", "memory"])).unwrap();
        let error = |words: &[&str]| plan_create(&layout, id(), limits(words), For::Container).unwrap_err().to_string();
        for words in [&[][..], &["devices=default"], &["device=c:1:1:r"]] {
            let error = error(words);
            assert!(
                error.starts_with("the rules for devices: no devices hierarchy (mount -t ")
                    && error.contains("or devices=all goes "),
                "{error}"
            );
        }
        assert!(error(&["devices=all", "pids=5"]).starts_with("pids=5: no pids hierarchy"));
        assert!(error(&["devices=all", "cpuset.cpus=0"]).starts_with("cpuset.cpus=0: no cpuset hierarchy"));
        assert!(error(&["devices=all", "memory-swap=1M"]).contains("memory=SIZE"));
    }

    #[test]
    fn version_1_limits_devices_and_processors() {
        let names = ["cpu", "cpuacct", "memory", "pids", "devices", "freezer", "blkio", "cpuset"];
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::among(dir.path(), &fake_v1(dir.path(), &names)).unwrap();
        let plan = plan_create(&layout, id(), limits(&["device=b:7:*:r"]), For::Container).unwrap().acts;
        let said_of = said(dir.path(), &plan);
        let made = names[..7].iter().map(|name| format!("mkdir /{name}/ps_42045"));
        assert_eq!(said_of[..7], made.collect::<Vec<_>>(), "cpuset only where it is asked for");
        assert_eq!(said_of[7], "echo 2048 > /pids/ps_42045/pids.max");
        let (deny, allow) = said_of[8].split_once('\n').unwrap();
        assert_eq!(deny, "echo a > /devices/ps_42045/devices.deny");
        assert!(
            allow.starts_with("for rule in 'c 1:3 rwm' 'c 1:5 rwm' ")
                && allow.contains("'c 5:2 rw' 'c 136:* rw' 'b 7:* r'; do"),
            "{allow}"
        );
        let plan = plan_create(&layout, id(), limits(&["cpuset.cpus=1", "devices=all"]), For::Container).unwrap().acts;
        let said_of = said(dir.path(), &plan);
        assert_eq!(
            said_of[7..10],
            [
                "mkdir /cpuset/ps_42045",
                "cat /cpuset/cpuset.mems > /cpuset/ps_42045/cpuset.mems",
                "echo 1 > /cpuset/ps_42045/cpuset.cpus"
            ]
        );
        // In one hierarchy with others it takes nobody without.
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::among(dir.path(), &fake_v1(dir.path(), &["cpu,cpuset", "cpuacct", "memory"])).unwrap();
        let plan = plan_create(&layout, id(), limits(&["devices=all"]), For::Container).unwrap().acts;
        assert_eq!(said(dir.path(), &plan)[2], "cat '/cpu,cpuset/cpuset.cpus' > '/cpu,cpuset/ps_42045/cpuset.cpus'");
    }

    #[test]
    fn who_is_frozen_is_thawed_before_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::among(dir.path(), &fake_v1(dir.path(), &["cpu", "cpuacct", "memory", "freezer"])).unwrap();
        for (name, state) in [("", "FROZEN\n"), ("/a", "FREEZING\n"), ("/b", "THAWED\n")] {
            let group = dir.path().join(format!("freezer/ps_42045{name}"));
            fs::create_dir_all(&group).unwrap();
            fs::write(group.join("freezer.state"), state).unwrap();
        }
        assert!(plan_join(&layout, id()).unwrap_err().to_string().contains("ps_42045 is frozen"));
        let said = said(dir.path(), &plan_delete(&layout, id(), true).unwrap());
        assert!(
            said[0].starts_with("echo THAWED > /freezer/ps_42045/freezer.state\nuntil grep -qx THAWED "),
            "{said:?}"
        );
        assert!(said[1].starts_with("echo THAWED > /freezer/ps_42045/a/"), "{said:?}");
        assert_eq!((said.len(), &*said[4]), (5, "rmdir /freezer/ps_42045"));
        assert_eq!(freeze::plan(&layout, id(), true).unwrap().len(), 1);
        assert_eq!(freeze::plan(&layout, id(), false).unwrap().len(), 2, "and a part of it that somebody froze");

        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::among(dir.path(), &fake_v2(dir.path(), "cpu memory", "cpu memory")).unwrap();
        fs::create_dir(dir.path().join("ps_42045")).unwrap();
        let frozen = |text: &str| {
            fs::write(dir.path().join("ps_42045/cgroup.freeze"), text).unwrap();
            plan_delete(&layout, id(), false).unwrap().len()
        };
        assert_eq!((frozen("0\n"), frozen("1\n")), (1, 2));
    }

    #[test]
    fn who_is_in_another_pid_namespace_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::among(dir.path(), &fake_v2(dir.path(), "cpu memory", "cpu memory")).unwrap();
        let run: Name = "run_4194305_1".parse().unwrap();
        fs::create_dir_all(dir.path().join("run_4194305_1/a")).unwrap();
        let procs = |text: &str| fs::write(dir.path().join("run_4194305_1/a/cgroup.procs"), text).unwrap();
        procs("10\n");
        assert!(!has_unseen(&layout, run));
        procs("10\n0\n");
        assert!(has_unseen(&layout, run));
        assert_eq!(all(&layout).unwrap(), [run]);
        fs::create_dir(dir.path().join("leaf_7_9")).unwrap();
        assert_eq!(all(&layout).unwrap().len(), 2, "where one waited");
        let plan = plan_delete(&layout, "run_7_9".parse().unwrap(), true).unwrap();
        assert_eq!(said(dir.path(), &plan), ["rmdir /leaf_7_9"]);
    }

    #[test]
    fn sees_processes_everywhere_and_below() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::among(dir.path(), &fake_v1(dir.path(), &["cpu,cpuacct", "memory"])).unwrap();
        assert!(!is_inhabited(&layout, id()).unwrap(), "none is there");
        for name in ["cpu,cpuacct/ps_42045", "memory/ps_42045/a/b", "memory/ps_42046"] {
            fs::create_dir_all(dir.path().join(name)).unwrap();
        }
        let procs = |name: &str, text: &str| fs::write(dir.path().join(name).join("cgroup.procs"), text).unwrap();
        procs("cpu,cpuacct/ps_42045", "");
        procs("memory/ps_42045", "");
        procs("memory/ps_42046", "7\n");
        assert!(!is_inhabited(&layout, id()).unwrap(), "its neighbour's");
        procs("memory/ps_42045/a/b", "7\n");
        assert!(is_inhabited(&layout, id()).unwrap());

        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::among(dir.path(), &fake_v2(dir.path(), "cpu memory", "cpu memory")).unwrap();
        fs::create_dir(dir.path().join("ps_42045")).unwrap();
        for (events, expected) in [("populated 0\nfrozen 1\n", false), ("populated 1\nfrozen 0\n", true)] {
            fs::write(dir.path().join("ps_42045/cgroup.events"), events).unwrap();
            assert_eq!(is_inhabited(&layout, id()).unwrap(), expected);
        }
    }

    #[test]
    fn deletes_leaves_first_and_nothing_twice() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::among(dir.path(), &fake_v1(dir.path(), &["cpu", "cpuacct", "memory"])).unwrap();
        fs::create_dir_all(dir.path().join("cpu/ps_42045/a/b")).unwrap();
        fs::create_dir_all(dir.path().join("cpu/ps_42045/c")).unwrap();
        fs::create_dir_all(dir.path().join("cpu/ps_42046")).unwrap();
        let plan = plan_delete(&layout, id(), true).unwrap();
        assert_eq!(plan.len(), 4);
        for act in &plan {
            act.apply(&layout, id()).unwrap();
            act.apply(&layout, id()).unwrap();
        }
        assert_eq!(plan_delete(&layout, id(), true).unwrap(), []);
        assert_eq!(all(&layout).unwrap().len(), 1, "the neighbour stays");
        assert!(plan_join(&layout, id()).unwrap_err().to_string().contains("bocker-cg create ps_42045"));
    }

    #[test]
    fn kills_only_when_told_to_and_only_what_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::among(dir.path(), &fake_v2(dir.path(), "cpu memory", "cpu memory")).unwrap();
        let group = dir.path().join("ps_42045");
        fs::create_dir_all(group.join("child")).unwrap();
        // 0: a process that this PID namespace does not see. kill(2) would take it for our own group.
        fs::write(group.join("cgroup.procs"), "0\n").unwrap();
        let said = |kill| -> Vec<String> {
            let plan = plan_delete(&layout, id(), kill).unwrap();
            plan.iter().map(|act| act.say().shell.replace(&*dir.path().to_string_lossy(), "")).collect()
        };
        let only_removed = ["rmdir /ps_42045/child", "rmdir /ps_42045"];
        assert_eq!(said(true), only_removed);
        fs::write(group.join("child/cgroup.procs"), "4194305\n").unwrap();
        assert_eq!(said(false), only_removed);
        let killed = said(true);
        assert!(killed[0].starts_with("echo 1 > /ps_42045/child/cgroup.kill\n"), "{killed:?}");
        assert_eq!(killed[1..], only_removed);
    }
}
