//! What of `/proc` and `/sys` a container does not see, or only reads: they show the host's kernel and hardware.

use std::os::fd::{AsFd, OwnedFd};

use bocker_common::{Error, Result};
use nix::errno::Errno;
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};

use crate::inroot::{Root, errno};
use crate::sys;

/// Neither seen nor written: what docker and podman hide, together. The kernel's memory and keys, timings that tell what
/// others do (acpi, interrupts, timers, sched_debug, latency, thermal_throttle: GHSA-6fw5-f8r9-fgfm; powercap:
/// GHSA-jq35-85cj-fj4p, CVE-2020-8694), devices, firmware. Besides these, thermal_throttle of each processor.
const MASKED: [&str; 14] = [
    "proc/acpi",
    "proc/asound",
    "proc/interrupts",
    "proc/kcore",
    "proc/keys",
    "proc/latency_stats",
    "proc/sched_debug",
    "proc/scsi",
    "proc/timer_list",
    "proc/timer_stats",
    "sys/dev/block",
    "sys/devices/virtual/powercap",
    "sys/firmware",
    "sys/fs/selinux",
];
const PROCESSORS: &str = "sys/devices/system/cpu";

/// Read, not written: the host's settings. Root inside could otherwise set those that belong to no namespace, such as
/// core_pattern, by its user ID alone.
const READ_ONLY: [&str; 5] = ["proc/bus", "proc/fs", "proc/irq", "proc/sys", "proc/sysrq-trigger"];

/// For the shell, which looks itself whether they exist.
pub(crate) fn shell() -> String {
    let all = |paths: &[&str]| paths.iter().map(|path| format!(" /{path}")).collect::<String>();
    format!(
        "for at in{} /{PROCESSORS}/cpu[0-9]*/thermal_throttle; do\n  \
           if [ -d \"$at\" ]; then mount -t tmpfs -o ro,nosuid,nodev,noexec,mode=755,nr_blocks=1,nr_inodes=1 tmpfs \"$at\"\n  \
           elif [ -e \"$at\" ]; then mount --bind /dev/null \"$at\"; fi\ndone\n\
         for at in{}; do\n  \
           [ ! -e \"$at\" ] || {{ mount --bind \"$at\" \"$at\"; mount -o remount,bind,ro,nosuid,nodev,noexec \"$at\"; }}\ndone",
        all(&MASKED),
        all(&READ_ONLY)
    )
}

/// Puts them all up, where they exist.
///
/// `/proc`, `/sys` and `/dev` are mounts of ours by now, and nothing of the image's is reached from them: their names are
/// walked without a link and without leaving their file system. What lies on a mask is not the path `/dev/null`, which
/// somebody may have replaced (CVE-2025-31133), but a descriptor that has been looked at.
///
/// # Errors
/// One line: the path, and the call that failed.
pub fn put(root: &Root) -> Result<()> {
    let open = |name: &str| root.own_directory(name).map_err(|e| Error::new("mask", format!("/{name}"), e));
    let (proc, sys, dev) = (open("proc")?, open("sys")?, open("dev")?);
    let mut nothing = Nothing { dev, directory: None };
    let find = |path: &str| {
        let (tree, below) = path.split_once('/').unwrap_or((path, ""));
        within(if tree == "proc" { &proc } else { &sys }, below)
    };
    let mut throttles = Vec::new();
    if let Some(processors) = find(PROCESSORS).map_err(|e| Error::new("mask", format!("/{PROCESSORS}"), e))? {
        let fail = |e: rustix::io::Errno| Error::new("list", format!("/{PROCESSORS}"), errno(e));
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let processors = rustix::fs::openat(&processors, ".", flags, Mode::empty()).map_err(fail)?;
        for entry in rustix::fs::Dir::new(processors).map_err(fail)? {
            let name = entry.map_err(fail)?.file_name().to_string_lossy().into_owned();
            if name.strip_prefix("cpu").is_some_and(|number| number.starts_with(|c: char| c.is_ascii_digit())) {
                throttles.push(format!("{PROCESSORS}/{name}/thermal_throttle"));
            }
        }
    }
    throttles.sort_unstable();
    for path in MASKED.iter().copied().chain(throttles.iter().map(String::as_str)) {
        let fail = |e| Error::new("mask", format!("/{path}"), e);
        if let Some(target) = find(path).map_err(fail)? {
            nothing.cover(&target).map_err(fail)?;
        }
    }
    for path in READ_ONLY {
        let fail = |e| Error::new("make read-only", format!("/{path}"), e);
        if let Some(target) = find(path).map_err(fail)? {
            read_only_copy(&target).map_err(fail)?;
        }
    }
    Ok(())
}

/// A path of a kernel file system; `None` where this kernel has no such thing.
fn within(tree: &OwnedFd, path: &str) -> nix::Result<Option<OwnedFd>> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat2(tree, path, flags, Mode::empty(), resolve) {
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => Ok(None),
        found => found.map(Some).map_err(errno),
    }
}

/// What covers the masked ones.
struct Nothing {
    dev: OwnedFd,
    /// An empty directory, one for all: mounted once and then mounted again.
    directory: Option<OwnedFd>,
}

impl Nothing {
    fn cover(&mut self, target: &OwnedFd) -> nix::Result<()> {
        let stat = rustix::fs::fstat(target).map_err(errno)?;
        let cover = match (FileType::from_raw_mode(stat.st_mode), &self.directory) {
            (FileType::Directory, None) => {
                let made = empty_directory().map_err(errno)?;
                place(&made, target)?;
                self.directory = Some(made);
                return Ok(());
            }
            (FileType::Directory, Some(directory)) => again(directory, "")?,
            _ => {
                let null = again(&self.dev, "null")?;
                let stat = rustix::fs::fstat(&null).map_err(errno)?;
                let device = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
                if FileType::from_raw_mode(stat.st_mode) != FileType::CharacterDevice || device != (1, 3) {
                    return Err(Errno::ENODEV);
                }
                null
            }
        };
        place(&cover, target)
    }
}

fn empty_directory() -> rustix::io::Result<OwnedFd> {
    let fs = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&fs, "source", "tmpfs")?;
    for (key, value) in [("uid", "0"), ("gid", "0"), ("mode", "755"), ("nr_blocks", "1"), ("nr_inodes", "1")] {
        fsconfig_set_string(&fs, key, value)?;
    }
    // The file system itself, not only the mount.
    fsconfig_set_flag(&fs, "ro")?;
    fsconfig_create(&fs)?;
    let inert =
        MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, inert | MountAttrFlags::MOUNT_ATTR_RDONLY)
}

/// The same once more, nowhere yet.
fn again(at: &OwnedFd, name: &str) -> nix::Result<OwnedFd> {
    let mut flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_SYMLINK_NOFOLLOW;
    flags.set(OpenTreeFlags::AT_EMPTY_PATH, name.is_empty());
    open_tree(at, name, flags).map_err(errno)
}

/// Mounted on itself, read-only.
fn read_only_copy(target: &OwnedFd) -> nix::Result<()> {
    let copy = again(target, "")?;
    read_only(&copy)?;
    place(&copy, target)
}

/// Nothing can be written through this mount any more, mount_setattr(2); what is mounted on it stays as it is.
///
/// # Errors
/// `mount_setattr(2)`.
pub fn read_only(mount: impl AsFd) -> nix::Result<()> {
    sys::mount_setattr(mount, u64::from(MountAttrFlags::MOUNT_ATTR_RDONLY.bits()), 0, 0)
}

fn place(mount: &OwnedFd, target: &OwnedFd) -> nix::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount, "", target, "", flags).map_err(errno)
}
