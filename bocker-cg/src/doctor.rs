//! `doctor`: what this host has for limits, what it lacks, where, and what to do. It only reads: no cgroup is made.

use std::path::{Path, PathBuf};

use bocker_common::Result;
use bocker_common::doctor::{Findings, State};

use crate::devices::Devices;
use crate::group;
use crate::layout::{Controller, Layout};
use crate::name::Name;
use crate::{sys, systemd};

/// What is looked at.
struct Host {
    /// `/proc`.
    proc: PathBuf,
    /// Where hierarchies are mounted.
    root: PathBuf,
    is_root: bool,
    /// Whether a program that says which devices may be used can be loaded: only asked for on version 2.
    loads: fn() -> nix::Result<()>,
}

/// Prints the lines.
///
/// # Errors
/// Something is bad.
pub(crate) fn doctor(root: &Path, layout: Result<Layout>) -> Result<()> {
    let load = || sys::load_device_program(&Devices::Default(Vec::new()).program()).map(drop);
    let is_root = nix::unistd::geteuid().is_root();
    Host { proc: "/proc".into(), root: root.to_owned(), is_root, loads: load }.findings(layout).print()
}

/// What is gone without each of them, and how bad that is.
const USES: [(Controller, &str, State); 8] = [
    (Controller::Cpu, "shares and time of processors", State::Bad),
    (Controller::Cpuacct, "the time that containers use", State::Bad),
    (Controller::Memory, "limits of memory", State::Bad),
    (Controller::Pids, "limits of processes: a fork bomb hits the host", State::Warn),
    (Controller::Devices, "the rules for devices: containers need devices=all", State::Bad),
    (Controller::Freezer, "pause", State::Warn),
    (Controller::Blkio, "limits and figures of disks", State::Warn),
    (Controller::Cpuset, "limits to some processors", State::Warn),
];

impl Host {
    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.proc.join(name)).unwrap_or_default()
    }

    fn findings(&self, layout: Result<Layout>) -> Findings {
        let mut all = Findings::default();
        let layout = match layout {
            Ok(layout) => layout,
            Err(error) => {
                all.bad("control groups", error);
                self.kernel(&mut all);
                return all;
            }
        };
        match &layout {
            Layout::V1(_) => self.version_1(&layout, &mut all),
            Layout::V2(top) => self.version_2(top, &mut all),
        }
        self.swap(&layout, &mut all);
        self.pressure(&layout, &mut all);
        self.weights(&layout, &mut all);
        self.leftovers(&layout, &mut all);
        all
    }

    /// The kernel's own list: `name hierarchy count enabled`; none where it has no such file (cgroups(7)).
    fn known(&self) -> Vec<(String, bool, bool)> {
        let text = self.read("cgroups");
        let line = |line: &str| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let &[name, hierarchy, _, enabled] = words.as_slice() else { return None };
            (!name.starts_with('#')).then(|| (name.to_owned(), hierarchy != "0", enabled == "1"))
        };
        text.lines().filter_map(line).collect()
    }

    /// Why a controller is not there: of the kernel, its command line, or who mounted what; the way out.
    fn why(&self, controller: &str) -> Option<String> {
        let known = self.known();
        match known.iter().find(|(name, ..)| name == controller) {
            None if known.is_empty() => None,
            None => Some("this kernel was built without it".to_owned()),
            Some((_, _, false)) => {
                let word = self.read("cmdline");
                let word = word
                    .split_whitespace()
                    .find(|word| word.starts_with("cgroup_disable="))
                    .unwrap_or("cgroup_disable=");
                Some(format!(
                    "the kernel's command line turns it off ({word}; Raspberry Pi: cgroup_enable={controller})"
                ))
            }
            Some(_) => None,
        }
    }

    fn kernel(&self, all: &mut Findings) {
        let known: Vec<String> = self.known().into_iter().filter(|one| one.2).map(|(name, ..)| name).collect();
        if known.is_empty() {
            all.bad("controllers", "the kernel has none: CONFIG_CGROUPS");
        } else {
            all.ok("controllers", format!("of the kernel: {}", known.join(" ")));
        }
    }

    fn version_1(&self, layout: &Layout, all: &mut Findings) {
        let unified = self.root.join("unified/cgroup.controllers").exists();
        let beside = if unified { ", beside version 2 without controllers that we use (hybrid)" } else { "" };
        all.ok("control groups", format!("version 1 below {}{beside}", self.root.display()));
        for (controller, what, state) in USES {
            match layout.top_of(controller) {
                Some(top) => all.ok(format!("controller {controller}"), top.display()),
                None => {
                    let why = self.why(&controller.to_string()).unwrap_or_else(|| {
                        let at = self.root.join(controller.to_string());
                        let at = at.display();
                        format!("no hierarchy has it: mkdir -p {at} && mount -t cgroup -o {controller} cgroup {at}")
                    });
                    all.add(state, format!("controller {controller}"), format!("without it no {what}: {why}"));
                }
            }
        }
        if !self.is_root {
            all.warn("rights", "version 1 is root's: sudo");
        }
    }

    fn version_2(&self, top: &Path, all: &mut Findings) {
        let read = |file: &str| std::fs::read_to_string(top.join(file)).unwrap_or_default();
        let (available, enabled) = (read("cgroup.controllers"), read("cgroup.subtree_control"));
        let has = |list: &str, name: &str| list.split_whitespace().any(|word| word == name);
        all.ok("control groups", format!("version 2 at {}", top.display()));
        // The root of all may have processes beside children that have controllers.
        let is_inside = top.join("cgroup.events").exists();
        let stuck = is_inside && !read("cgroup.procs").trim().is_empty();
        for (controller, what, state) in USES {
            let name = match controller {
                Controller::Cpuacct | Controller::Devices | Controller::Freezer => continue,
                Controller::Blkio => "io".to_owned(),
                other => other.to_string(),
            };
            let line = format!("controller {name}");
            let fix = format!("echo +{name} > {}", top.join("cgroup.subtree_control").display());
            if has(&enabled, &name) {
                all.ok(line, "handed down to containers");
            } else if has(&available, &name) && stuck {
                let detail = format!(
                    "without it no {what}: processes in {0} itself keep it from being handed down: move them into a child (mkdir {0}/host; echo PID > {0}/host/cgroup.procs), then {fix}",
                    top.display()
                );
                all.add(state, line, detail);
            } else if has(&available, &name) {
                all.ok(line, format!("there; handed down when the first container needs it: {fix}"));
            } else {
                all.add(state, line, format!("without it no {what}: {}", self.why_not_there(top, &name, is_inside)));
            }
        }
        match (self.loads)() {
            Ok(()) => all.ok("devices", "rules by a BPF program can be loaded"),
            Err(nix::errno::Errno::EPERM) if !self.is_root => {
                all.warn("devices", "whether their rules can be loaded only root can tell")
            }
            Err(e) => all.bad(
                "devices",
                format!(
                    "their rules cannot be loaded: {} (CONFIG_CGROUP_BPF, and Linux 4.15; devices=all goes without)",
                    e.desc()
                ),
            ),
        }
        // In each cgroup but the root of all.
        let child = Self::child(top);
        let files = [
            ("freezer", "cgroup.freeze", "5.2", "pause"),
            ("kill", "cgroup.kill", "5.14", "killing at once: each process is killed by itself"),
        ];
        for (what, file, since, without) in files {
            match &child {
                Some(child) if !child.join(file).exists() => {
                    all.warn(
                        what,
                        format!("{} has no {file} (Linux {since}): without it no {without}", child.display()),
                    );
                }
                Some(_) => all.ok(what, file),
                None => all.ok(what, format!("not known until there is a cgroup below {}", top.display())),
            }
        }
        if systemd::is_to_be_told(top) {
            all.ok(
                "systemd",
                "the first container's create tells it which controllers are needed: its unit bocker-controllers.service",
            );
        } else if systemd::knows(top) {
            all.ok("systemd", "knows which controllers are needed: its unit bocker-controllers.service");
        }
        self.delegation(top, all);
    }

    /// Some cgroup below, if there is one.
    fn child(top: &Path) -> Option<PathBuf> {
        group::children(top).ok()?.into_iter().next()
    }

    fn why_not_there(&self, top: &Path, name: &str, is_inside: bool) -> String {
        let v1 = if name == "io" { "blkio" } else { name };
        if let Some(why) = self.why(v1) {
            return why;
        }
        if self.known().iter().any(|(known, mounted, _)| known == v1 && *mounted) && !is_inside {
            return format!(
                "a hierarchy of version 1 has it: umount that one (grep cgroup /proc/mounts), or boot with cgroup_no_v1={v1}"
            );
        }
        if is_inside {
            let parent = top.parent().unwrap_or(top).join("cgroup.subtree_control");
            return format!(
                "the cgroup above does not hand it down: echo +{name} > {}; under systemd Delegate={name} in the unit",
                parent.display()
            );
        }
        format!(
            "it is not in {}: this kernel was built without it, or its command line turns it off",
            top.join("cgroup.controllers").display()
        )
    }

    /// Who is not root has what systemd hands down.
    fn delegation(&self, top: &Path, all: &mut Findings) {
        let own = self.read("self/cgroup");
        let path = own.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/").to_owned();
        if self.is_root {
            all.ok("rights", format!("root; this process is in {path}"));
            return;
        }
        let own = top.join(path.trim_start_matches('/'));
        let may = std::fs::OpenOptions::new().write(true).open(own.join("cgroup.subtree_control")).is_ok();
        let controllers = std::fs::read_to_string(own.join("cgroup.controllers")).unwrap_or_default();
        let missing: Vec<&str> = ["cpu", "memory", "pids", "io"]
            .into_iter()
            .filter(|name| !controllers.split_whitespace().any(|one| one == *name))
            .collect();
        if !may {
            let way = "systemd-run --user --scope -p Delegate=yes COMMAND has a cgroup of its own; or sudo";
            all.warn("rights", format!("{} is not ours to divide: {way}", own.display()));
        } else if missing.is_empty() {
            all.ok("rights", format!("{} is ours", own.display()));
        } else {
            let names = missing.join(" ");
            all.warn(
                "rights",
                format!("{} is ours, without {names}: Delegate=cpu cpuset io memory pids in [Service] of user@.service.d/delegate.conf", own.display()),
            );
        }
    }

    fn swap(&self, layout: &Layout, all: &mut Findings) {
        let Some(top) = layout.top_of(Controller::Memory) else { return };
        let there = if layout.v2() {
            // Any that has the controller.
            let mut with_memory =
                group::children(top).unwrap_or_default().into_iter().filter(|dir| dir.join("memory.max").exists());
            with_memory.next().map(|dir| dir.join("memory.swap.max").exists())
        } else {
            Some(top.join("memory.memsw.limit_in_bytes").exists())
        };
        let swaps = self.read("swaps").lines().count() > 1;
        let has = if swaps { "the host has swap" } else { "the host has no swap now" };
        match there {
            Some(true) => all.ok("swap", format!("counted; {has}")),
            Some(false) => all.warn(
                "swap",
                format!("not counted, so no memory-swap=; {has}: swapaccount=1 on the kernel's command line"),
            ),
            None => {
                all.ok("swap", format!("not known until there is a cgroup with memory below {}; {has}", top.display()))
            }
        }
    }

    fn pressure(&self, layout: &Layout, all: &mut Findings) {
        let there = !self.read("pressure/memory").is_empty();
        match (there, layout.v2()) {
            (true, true) => all.ok("pressure", "counted for each cgroup"),
            (true, false) => all.ok("pressure", "counted for the host, by version 1 for no cgroup"),
            (false, _) => all.warn(
                "pressure",
                "not counted, so stat says nothing of it: psi=1 on the kernel's command line (CONFIG_PSI)",
            ),
        }
    }

    fn weights(&self, layout: &Layout, all: &mut Findings) {
        let Some(top) = layout.top_of(Controller::Blkio) else { return };
        let files: &[&str] =
            if layout.v2() { &["io.bfq.weight", "io.weight"] } else { &["blkio.weight", "blkio.bfq.weight"] };
        // Any that has the controller.
        let with_io = || group::children(top).ok()?.into_iter().find(|dir| dir.join("io.stat").exists());
        let child = if layout.v2() { with_io() } else { Some(top.to_owned()) };
        let found = child.as_ref().and_then(|dir| files.iter().find(|file| dir.join(file).exists()));
        match (found, child) {
            (Some(file), _) => all.ok("weight of disks", file),
            (None, Some(_)) => all.warn(
                "weight of disks",
                "no blkio-weight: no scheduler that knows weights (modprobe bfq; echo bfq > /sys/block/DISK/queue/scheduler)",
            ),
            (None, None) => all.ok("weight of disks", format!("not known until there is a cgroup with io below {}", top.display())),
        }
    }

    fn leftovers(&self, layout: &Layout, all: &mut Findings) {
        match group::all(layout) {
            Err(error) => all.bad("cgroups of ours", error),
            Ok(names) => {
                let (left, others): (Vec<Name>, Vec<Name>) = names.into_iter().partition(|name| name.is_left());
                let containers = others.iter().filter(|name| matches!(name, Name::Container(_))).count();
                all.ok(
                    "cgroups of ours",
                    format!("{containers} of containers, {} of bocker-cg run", others.len() - containers),
                );
                if !left.is_empty() {
                    let names: Vec<String> = left.iter().take(8).map(ToString::to_string).collect();
                    all.warn(
                        "leftovers",
                        format!("{} of bocker-cg run that was killed ({}): bocker-cg gc", left.len(), names.join(" ")),
                    );
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::layout::tests::{fake_v1, fake_v2};

    const CGROUPS: &str = "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpuset\t0\t1\t1\ncpu\t1\t5\t1\nmemory\t4\t1\t0\nblkio\t0\t1\t1\nfreezer\t0\t1\t1\n";

    fn host(dir: &Path, files: &[(&str, &str)]) -> Host {
        let proc = dir.join("proc");
        for (name, text) in files {
            let file = proc.join(name);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        }
        Host { proc, root: dir.join("cg"), is_root: true, loads: || Ok(()) }
    }

    fn lines(host: &Host, mountinfo: &str) -> String {
        let layout = Layout::among(&host.root, mountinfo);
        let text = host.findings(layout).lines().collect::<Vec<_>>().join("\n");
        text.replace(&*host.root.to_string_lossy(), "CG")
    }

    #[test]
    fn version_1_whole_and_without_some() {
        let dir = tempfile::tempdir().unwrap();
        let host = host(
            dir.path(),
            &[
                ("cgroups", CGROUPS),
                ("cmdline", "quiet cgroup_disable=pids\n"),
                ("pressure/memory", "some avg10=0\n"),
                ("swaps", "Filename\n/x\n"),
            ],
        );
        let mountinfo = fake_v1(&host.root, &["cpu,cpuacct", "memory", "devices"]);
        let said = lines(&host, &mountinfo);
        for line in [
            "ok\tcontrol groups\tversion 1 below CG",
            "ok\tcontroller cpuacct\tCG/cpu,cpuacct",
            "warn\tcontroller pids\twithout it no limits of processes: a fork bomb hits the host: this kernel was built without it",
            "warn\tcontroller freezer\twithout it no pause: no hierarchy has it: mkdir -p CG/freezer && mount -t cgroup -o freezer cgroup CG/freezer",
            "warn\tswap\tnot counted, so no memory-swap=; the host has swap: swapaccount=1 on the kernel's command line",
            "ok\tpressure\tcounted for the host, by version 1 for no cgroup",
            "ok\tcgroups of ours\t0 of containers, 0 of bocker-cg run",
        ] {
            assert!(said.lines().any(|is| is == line), "{line}:\n{said}");
        }
        assert!(!said.contains("bad\t") && !said.contains("hybrid"), "{said}");
        fs::create_dir_all(host.root.join("unified")).unwrap();
        fs::write(host.root.join("unified/cgroup.controllers"), "hugetlb\n").unwrap();
        fs::create_dir_all(host.root.join("memory/run_4194305_1")).unwrap();
        fs::create_dir_all(host.root.join("memory/ps_42045")).unwrap();
        fs::write(host.root.join("memory/memory.memsw.limit_in_bytes"), "").unwrap();
        let said = lines(&host, &mountinfo);
        assert!(said.contains("(hybrid)") && said.contains("ok\tswap\tcounted; "), "{said}");
        assert!(
            said.contains("\nok\tcgroups of ours\t1 of containers, 0 of bocker-cg run\nwarn\tleftovers\t1 of "),
            "{said}"
        );
    }

    #[test]
    fn without_any_the_kernel_is_asked() {
        let dir = tempfile::tempdir().unwrap();
        let host = host(dir.path(), &[("cgroups", CGROUPS)]);
        fs::create_dir_all(&host.root).unwrap();
        let said = lines(&host, "");
        assert!(said.starts_with("bad\tcontrol groups\tno cgroups below CG (mount -t cgroup2"), "{said}");
        assert!(said.ends_with("ok\tcontrollers\tof the kernel: cpuset cpu blkio freezer"), "{said}");
    }

    #[test]
    fn version_2_says_who_does_not_hand_what_down() {
        let dir = tempfile::tempdir().unwrap();
        let host = host(
            dir.path(),
            &[("cgroups", CGROUPS), ("cmdline", "cgroup_disable=memory\n"), ("self/cgroup", "0::/x\n")],
        );
        let mountinfo = fake_v2(&host.root, "cpuset cpu", "cpu");
        let said = lines(&host, &mountinfo);
        for line in [
            "ok\tcontroller cpu\thanded down to containers",
            "ok\tcontroller cpuset\tthere; handed down when the first container needs it: echo +cpuset > CG/cgroup.subtree_control",
            "bad\tcontroller memory\twithout it no limits of memory: the kernel's command line turns it off (cgroup_disable=memory; Raspberry Pi: cgroup_enable=memory)",
            "warn\tcontroller io\twithout it no limits and figures of disks: it is not in CG/cgroup.controllers: this kernel was built without it, or its command line turns it off",
            "ok\tdevices\trules by a BPF program can be loaded",
            "ok\trights\troot; this process is in /x",
            "warn\tpressure\tnot counted, so stat says nothing of it: psi=1 on the kernel's command line (CONFIG_PSI)",
        ] {
            assert!(said.lines().any(|is| is == line), "{line}:\n{said}");
        }
        // Not the root of all, and with processes.
        fs::write(host.root.join("cgroup.events"), "populated 1\n").unwrap();
        fs::write(host.root.join("cgroup.procs"), "7\n").unwrap();
        fs::create_dir_all(host.root.join("ps_42045")).unwrap();
        let host = Host { loads: || Err(nix::errno::Errno::EINVAL), ..host };
        let said = lines(&host, &mountinfo);
        for part in [
            "warn\tcontroller cpuset\twithout it no limits to some processors: processes in CG itself keep it",
            "the cgroup above does not hand it down: echo +io > ",
            "bad\tdevices\ttheir rules cannot be loaded: Invalid argument",
            "warn\tkill\tCG/ps_42045 has no cgroup.kill (Linux 5.14)",
            "ok\tweight of disks\tnot known until",
        ] {
            assert!(said.contains(part), "{part}:\n{said}");
        }
        // Who is not root.
        let user = Host { is_root: false, loads: || Err(nix::errno::Errno::EPERM), ..host };
        let own = user.root.join("x");
        fs::create_dir_all(&own).unwrap();
        assert!(lines(&user, &mountinfo).contains("warn\trights\tCG/x is not ours to divide: systemd-run"));
        fs::write(own.join("cgroup.subtree_control"), "").unwrap();
        fs::write(own.join("cgroup.controllers"), "memory pids").unwrap();
        let said = lines(&user, &mountinfo);
        assert!(said.contains("warn\trights\tCG/x is ours, without cpu io: Delegate="), "{said}");
        assert!(said.contains("warn\tdevices\twhether"), "{said}");
    }
}
