//! Which hierarchies this host has, and where: `/proc/self/mountinfo`, `cgroups(7)`.

use std::fmt;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use crate::name::Name;
use bocker_common::{Error, Result};
use cgroups_rs::blkio::BlkIoController;
use cgroups_rs::cpu::CpuController;
use cgroups_rs::cpuacct::CpuAcctController;
use cgroups_rs::cpuset::CpuSetController;
use cgroups_rs::devices::DevicesController;
use cgroups_rs::freezer::FreezerController;
use cgroups_rs::memory::MemController;
use cgroups_rs::pid::PidController;
use cgroups_rs::{Cgroup, Hierarchy, Subsystem};

/// What limits or counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Controller {
    Cpu,
    Cpuacct,
    Memory,
    Pids,
    Devices,
    Freezer,
    Blkio,
    Cpuset,
}

impl Controller {
    /// The script's `cpu,cpuacct,memory`: without them it is no version 1.
    const NEEDED: [Self; 3] = [Self::Cpu, Self::Cpuacct, Self::Memory];
    /// Used where the host has them.
    const WELCOME: [Self; 5] = [Self::Pids, Self::Devices, Self::Freezer, Self::Blkio, Self::Cpuset];
}

impl fmt::Display for Controller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cpu => "cpu",
            Self::Cpuacct => "cpuacct",
            Self::Memory => "memory",
            Self::Pids => "pids",
            Self::Devices => "devices",
            Self::Freezer => "freezer",
            Self::Blkio => "blkio",
            Self::Cpuset => "cpuset",
        })
    }
}

/// The hierarchies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Layout {
    /// One for each controller, or for several: `cpu` and `cpuacct` are often mounted together.
    V1(Vec<(Controller, PathBuf)>),
    /// One for all.
    V2(PathBuf),
}

impl Layout {
    /// Looks below `root`.
    ///
    /// # Errors
    /// No cgroups there, or a controller is missing.
    pub(crate) fn find(root: &Path) -> Result<Self> {
        const MOUNTS: &str = "/proc/self/mountinfo";
        let mounts = std::fs::read(MOUNTS).map_err(|e| Error::new("read", MOUNTS, e))?;
        Self::among(root, &String::from_utf8_lossy(&mounts))
    }

    /// As `find`, with the content of mountinfo given.
    pub(crate) fn among(root: &Path, mountinfo: &str) -> Result<Self> {
        // What is mounted over later hides what was there before: the last line wins, and must still be reachable.
        let mounts: Vec<Mount> =
            mountinfo.lines().rev().filter_map(Mount::parse).filter(|m| m.point.starts_with(root)).collect();
        let v1 = |controller: Controller| {
            let name = controller.to_string();
            let mounted = mounts.iter().find(|m| m.kind == "cgroup" && m.options.split(',').any(|o| o == name));
            // A directory of that name serves a root that is no mount point itself.
            let point = mounted.map_or_else(|| root.join(&name), |m| m.point.clone());
            point.join("tasks").exists().then_some((controller, point))
        };
        let found: Vec<_> = Controller::NEEDED.into_iter().filter_map(v1).collect();
        if found.len() == Controller::NEEDED.len() {
            return Ok(Self::V1(found.into_iter().chain(Controller::WELCOME.into_iter().filter_map(v1)).collect()));
        }
        let mut unified = mounts.iter().filter(|m| m.kind == "cgroup2").map(|m| m.point.as_path());
        let is_v2 = |dir: &&Path| dir.join("cgroup.controllers").exists();
        if found.is_empty() {
            if let Some(dir) = Some(root).filter(is_v2).or_else(|| unified.find(is_v2)) {
                return Ok(Self::V2(dir.to_owned()));
            }
            return Err(Error::plain(format!("no cgroups below {} (mount -t cgroup2 cgroup2 {0})", root.display())));
        }
        let missing: Vec<String> = Controller::NEEDED
            .iter()
            .filter(|c| !found.iter().any(|(have, _)| have == *c))
            .map(ToString::to_string)
            .collect();
        let all = missing.join(",");
        Err(Error::plain(format!(
            "no {all} hierarchy below {} (mount -t cgroup -o {all} cgroup {0}/{all})",
            root.display()
        )))
    }

    /// Whether it is version 2.
    pub(crate) fn v2(&self) -> bool {
        matches!(self, Self::V2(_))
    }

    /// The top of each hierarchy; one that has several controllers once.
    pub(crate) fn tops(&self) -> Vec<&Path> {
        match self {
            Self::V2(dir) => vec![dir],
            Self::V1(mounts) => {
                let mut tops: Vec<&Path> = Vec::with_capacity(mounts.len());
                for (_, dir) in mounts {
                    if !tops.contains(&dir.as_path()) {
                        tops.push(dir);
                    }
                }
                tops
            }
        }
    }

    /// The container's directory in each hierarchy, whether it exists or not.
    pub(crate) fn dirs(&self, id: Name) -> Vec<PathBuf> {
        self.tops().iter().map(|top| top.join(id.to_string())).collect()
    }

    /// The top of the hierarchy that has this controller; `None` where version 1 has it mounted nowhere.
    pub(crate) fn top_of(&self, controller: Controller) -> Option<&Path> {
        match self {
            Self::V2(dir) => Some(dir),
            Self::V1(mounts) => mounts.iter().find(|(c, _)| *c == controller).map(|(_, dir)| dir.as_path()),
        }
    }

    /// The container's directory where this controller is, or would be.
    pub(crate) fn dir_of(&self, controller: Controller, id: Name) -> PathBuf {
        self.top_of(controller).unwrap_or(Path::new("")).join(id.to_string())
    }

    /// Whether that hierarchy has another controller that we use.
    pub(crate) fn has_another(&self, controller: Controller, top: &Path) -> bool {
        matches!(self, Self::V1(mounts) if mounts.iter().any(|(c, dir)| *c != controller && dir == top))
    }

    /// What is wrong where version 1 has no such controller, and what for it is needed; `or` is another way out.
    pub(crate) fn lacks(&self, controller: Controller, wanted: impl fmt::Display, or: &str) -> Error {
        let root = self.tops().first().and_then(|top| top.parent()).unwrap_or(Path::new("/sys/fs/cgroup")).display();
        Error::plain(format!("{wanted}: no {controller} hierarchy"))
            .hint(format!("mount -t cgroup -o {controller} cgroup {root}/{controller}{or}"))
    }

    /// The container's cgroup as cgroups-rs has it. Nothing is created.
    pub(crate) fn group(&self, id: Name) -> Cgroup {
        Cgroup::load(Box::new(self.clone()), id.to_string())
    }
}

/// The hierarchies for cgroups-rs, whose own look at /sys/fs/cgroup only, and at every controller.
impl Hierarchy for Layout {
    fn subsystems(&self) -> Vec<Subsystem> {
        match self {
            Self::V1(mounts) => mounts
                .iter()
                .map(|(controller, dir)| match controller {
                    Controller::Cpu => Subsystem::Cpu(CpuController::new(dir.clone(), false)),
                    Controller::Cpuacct => Subsystem::CpuAcct(CpuAcctController::new(dir.clone())),
                    Controller::Memory => Subsystem::Mem(MemController::new(dir.clone(), false)),
                    Controller::Pids => Subsystem::Pid(PidController::new(dir.clone(), false)),
                    Controller::Devices => Subsystem::Devices(DevicesController::new(dir.clone())),
                    Controller::Freezer => Subsystem::Freezer(FreezerController::new(dir.clone(), false)),
                    Controller::Blkio => Subsystem::BlkIo(BlkIoController::new(dir.clone(), false)),
                    Controller::Cpuset => Subsystem::CpuSet(CpuSetController::new(dir.clone(), false)),
                })
                .collect(),
            Self::V2(dir) => vec![
                Subsystem::Cpu(CpuController::new(dir.clone(), true)),
                Subsystem::Mem(MemController::new(dir.clone(), true)),
                Subsystem::Pid(PidController::new(dir.clone(), true)),
            ],
        }
    }

    fn root(&self) -> PathBuf {
        self.tops().first().map(|top| top.to_path_buf()).unwrap_or_default()
    }

    fn root_control_group(&self) -> Cgroup {
        Cgroup::load(Box::new(self.clone()), "")
    }

    fn parent_control_group(&self, _path: &str) -> Cgroup {
        // Ours are all at the top.
        self.root_control_group()
    }

    fn v2(&self) -> bool {
        Layout::v2(self)
    }
}

/// One line of mountinfo, `proc_pid_mountinfo(5)`.
#[derive(Debug, PartialEq, Eq)]
struct Mount<'a> {
    point: PathBuf,
    kind: &'a str,
    options: &'a str,
}

impl<'a> Mount<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        // Optional fields end with a lone dash.
        let (place, what) = line.split_once(" - ")?;
        let mut what = what.split(' ');
        let (kind, _source, options) = (what.next()?, what.next()?, what.next()?);
        matches!(kind, "cgroup" | "cgroup2").then_some(())?;
        Some(Self { point: unescape(place.split(' ').nth(4)?), kind, options })
    }
}

/// The kernel writes space, tab, newline and backslash as octal: `\040`.
fn unescape(text: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let octal = after.get(..3).filter(|_| first == b'\\').and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[3..];
            }
            None => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    std::ffi::OsString::from_vec(bytes).into()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A directory that looks like version 1 with these hierarchies, and its mountinfo.
    pub(crate) fn fake_v1(root: &Path, hierarchies: &[&str]) -> String {
        let mut mountinfo = format!("31 23 0:28 / {} rw - tmpfs tmpfs rw,mode=755\n", root.display());
        for names in hierarchies {
            let dir = root.join(names);
            std::fs::create_dir_all(&dir).unwrap();
            std::fs::write(dir.join("tasks"), "").unwrap();
            std::fs::write(dir.join("cgroup.procs"), "").unwrap();
            mountinfo += &format!("32 31 0:29 / {} rw,relatime shared:3 - cgroup cgroup rw,{names}\n", dir.display());
        }
        mountinfo
    }

    /// A directory that looks like version 2.
    pub(crate) fn fake_v2(root: &Path, controllers: &str, enabled: &str) -> String {
        std::fs::create_dir_all(root).unwrap();
        std::fs::write(root.join("cgroup.controllers"), format!("{controllers}\n")).unwrap();
        std::fs::write(root.join("cgroup.subtree_control"), format!("{enabled}\n")).unwrap();
        std::fs::write(root.join("cgroup.procs"), "").unwrap();
        format!("31 23 0:28 / {} rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n", root.display())
    }

    #[test]
    fn finds_controllers_apart_and_together() {
        let dir = tempfile::tempdir().unwrap();
        let apart = fake_v1(dir.path(), &["cpu", "cpuacct", "memory", "pids", "net_cls"]);
        assert_eq!(Layout::among(dir.path(), &apart).unwrap().tops().len(), 4);

        let dir = tempfile::tempdir().unwrap();
        let together = fake_v1(dir.path(), &["cpu,cpuacct", "memory"]);
        let layout = Layout::among(dir.path(), &together).unwrap();
        assert_eq!(layout.tops(), [dir.path().join("cpu,cpuacct"), dir.path().join("memory")]);
        assert!(!layout.v2());
        assert_eq!(layout.top_of(Controller::Pids), None);

        let dir = tempfile::tempdir().unwrap();
        let odd = fake_v1(dir.path(), &["cpu,pids", "cpuacct,cpuset", "memory"]);
        let layout = Layout::among(dir.path(), &odd).unwrap();
        assert_eq!(layout.tops().len(), 3, "each once");
        assert_eq!(layout.top_of(Controller::Cpuset), Some(&*dir.path().join("cpuacct,cpuset")));
    }

    #[test]
    fn a_hybrid_host_is_version_1() {
        let dir = tempfile::tempdir().unwrap();
        let mut mountinfo = fake_v1(dir.path(), &["cpu", "cpuacct", "memory"]);
        mountinfo += &fake_v2(&dir.path().join("unified"), "", "");
        assert!(!Layout::among(dir.path(), &mountinfo).unwrap().v2());
    }

    #[test]
    fn finds_version_2() {
        let dir = tempfile::tempdir().unwrap();
        let mountinfo = fake_v2(dir.path(), "cpu memory pids", "");
        assert_eq!(Layout::among(dir.path(), &mountinfo).unwrap(), Layout::V2(dir.path().into()));
        // A delegated subtree is no mount point.
        assert_eq!(Layout::among(dir.path(), "").unwrap(), Layout::V2(dir.path().into()));
    }

    #[test]
    fn what_is_hidden_by_a_later_mount_is_not_there() {
        let dir = tempfile::tempdir().unwrap();
        let mut mountinfo = String::new();
        for name in ["cpu", "cpuacct", "memory"] {
            mountinfo += &format!("32 31 0:29 / {}/{name} rw - cgroup cgroup rw,{name}\n", dir.path().display());
        }
        mountinfo += &fake_v2(dir.path(), "cpu memory pids", "");
        assert!(Layout::among(dir.path(), &mountinfo).unwrap().v2());
    }

    #[test]
    fn says_what_is_missing() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Layout::among(dir.path(), "").unwrap_err().to_string().starts_with("no cgroups below"));
        let mountinfo = fake_v1(dir.path(), &["cpu,cpuacct"]);
        let error = Layout::among(dir.path(), &mountinfo).unwrap_err().to_string();
        assert!(error.starts_with("no memory hierarchy") && error.contains("-o memory"), "{error}");
    }

    #[test]
    fn reads_mountinfo() {
        let line = r"36 35 98:0 /mnt1 /a\040b\134c rw,noatime master:1 shared:7 - cgroup src rw,cpu,cpuacct";
        let mount = Mount::parse(line).unwrap();
        assert_eq!(mount.point, Path::new(r"/a b\c"));
        assert_eq!((mount.kind, mount.options), ("cgroup", "rw,cpu,cpuacct"));
        for other in ["", "x", "36 35 98:0 / /a rw - ext4 /dev/vda rw", "1 - cgroup x rw"] {
            assert_eq!(Mount::parse(other), None, "{other:?}");
        }
    }
}
