//! A container's cgroup over all hierarchies: what to do, from what is there.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use bocker_common::{Error, Id, Result};

use crate::act::{self, Act, Place};
use crate::layout::Layout;
use crate::limits::Limit;

/// On version 2: what limits need, and what a later limit on processes will.
const NEEDED: [&str; 2] = ["cpu", "memory"];
const WELCOME: [&str; 1] = ["pids"];

/// The script's `cgcreate` and `cgset`.
///
/// # Errors
/// Version 2 lacks a controller.
pub(crate) fn plan_create(layout: &Layout, id: Id, limits: &[Limit]) -> Result<Vec<Act>> {
    let mut plan = match layout {
        Layout::V1(_) => Vec::new(),
        Layout::V2(top) => plan_enable(top)?,
    };
    plan.extend(layout.dirs(id).into_iter().map(Act::Create));
    plan.extend(limits.iter().map(|limit| {
        let dir = layout.dir_of(limit.key.controller(), id);
        Act::Limit(*limit, Place { dir, v2: layout.v2() })
    }));
    plan.push(Act::Print(id));
    Ok(plan)
}

/// Controllers that children of the top do not have yet.
fn plan_enable(top: &Path) -> Result<Vec<Act>> {
    let read = |name: &str| {
        let file = top.join(name);
        std::fs::read_to_string(&file).map_err(|e| Error::new("read", file.display(), e))
    };
    let (available, enabled) = (read("cgroup.controllers")?, read("cgroup.subtree_control")?);
    let has = |list: &str, name: &str| list.split_whitespace().any(|word| word == name);
    let mut controllers = Vec::new();
    for controller in NEEDED.into_iter().chain(WELCOME) {
        if has(&enabled, controller) {
            continue;
        }
        if has(&available, controller) {
            controllers.push(controller);
        } else if NEEDED.contains(&controller) {
            return Err(Error::plain(format!(
                "no {controller} controller in {} (the kernel lacks it, version 1 has it mounted, or the parent's cgroup.subtree_control does not hand it down)",
                top.join("cgroup.controllers").display()
            )));
        }
    }
    let enable = Act::Enable { top: top.to_owned(), controllers: controllers.clone() };
    Ok(if controllers.is_empty() { Vec::new() } else { vec![enable] })
}

/// The script's `cgexec`: everywhere where the container has a cgroup.
///
/// # Errors
/// It has none.
pub(crate) fn plan_join(layout: &Layout, id: Id) -> Result<Vec<Act>> {
    let plan: Vec<Act> = layout
        .dirs(id)
        .into_iter()
        .filter(|dir| dir.is_dir())
        .map(|dir| Act::Join(Place { dir, v2: layout.v2() }))
        .collect();
    if plan.is_empty() {
        return Err(Error::plain(format!("no cgroup /{id} (bocker-cg create {id} makes it)")));
    }
    Ok(plan)
}

/// The script's `cgdelete`, with what the container may have made inside, leaves first. With `kill` whoever is in there
/// ends before that.
///
/// # Errors
/// A directory cannot be read.
pub(crate) fn plan_delete(layout: &Layout, id: Id, kill: bool) -> Result<Vec<Act>> {
    let mut dirs = Vec::new();
    for dir in layout.dirs(id) {
        leaves_first(&dir, &mut dirs)?;
    }
    let busy = |dir: &&PathBuf| kill && !act::processes(dir).is_empty();
    let kills = dirs.iter().rev().filter(busy).map(|dir| Act::Kill(Place { dir: dir.clone(), v2: layout.v2() }));
    Ok(kills.collect::<Vec<_>>().into_iter().chain(dirs.into_iter().map(Act::Delete)).collect())
}

/// Adds the directory and all below it; nothing if there is none. Kept on the heap: a container chooses the depth.
fn leaves_first(top: &Path, into: &mut Vec<PathBuf>) -> Result<()> {
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

fn children(dir: &Path) -> io::Result<Vec<PathBuf>> {
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
pub(crate) fn is_inhabited(layout: &Layout, id: Id) -> Result<bool> {
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

/// Every id that has a cgroup in one hierarchy at least, in order.
///
/// # Errors
/// A directory cannot be read.
pub(crate) fn all(layout: &Layout) -> Result<Vec<Id>> {
    let mut ids = BTreeSet::new();
    for top in layout.tops() {
        for dir in children(top).map_err(|e| Error::new("read", top.display(), e))? {
            ids.extend(dir.file_name().and_then(|name| name.to_str()?.parse::<Id>().ok()));
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

    fn id() -> Id {
        "ps_42045".parse().unwrap()
    }

    fn limits(words: &[&str]) -> Vec<Limit> {
        words.iter().map(|word| word.parse().unwrap()).collect()
    }

    #[test]
    fn version_1_gets_a_directory_for_each_hierarchy() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::among(dir.path(), &fake_v1(dir.path(), &["cpu,cpuacct", "memory"])).unwrap();
        let plan = plan_create(&layout, id(), &limits(&["cpu.shares=512", "memory=512000000"])).unwrap();
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
        let plan = plan_create(&layout, id(), &limits(&["cpu.shares=1024", "memory=max"])).unwrap();
        let said: Vec<String> =
            plan.iter().map(|act| act.say().shell.replace(&*dir.path().to_string_lossy(), "")).collect();
        assert_eq!(
            said,
            [
                "echo +cpu +pids > /cgroup.subtree_control",
                "mkdir /ps_42045",
                "echo 100 > /ps_42045/cpu.weight",
                "echo max > /ps_42045/memory.max",
                "echo /ps_42045",
            ]
        );
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
        let error = plan_create(&layout, id(), &[]).unwrap_err().to_string();
        assert!(error.contains("no memory controller") && error.contains("cgroup.controllers"), "{error}");
        // A kernel without pids will do.
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::among(dir.path(), &fake_v2(dir.path(), "cpu memory", "cpu memory")).unwrap();
        assert_eq!(plan_create(&layout, id(), &[]).unwrap().len(), 2);
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
