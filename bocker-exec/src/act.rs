//! What is done to make a container, one act at a time, each with its reason.
//!
//! [`Inside::apply`] does an act; `say` says it in the words of `unshare`, `mount` and `pivot_root`. What a dry run prints
//! is one script for `sh`. Its inner part runs in a static busybox: after `pivot_root` no program of the host
//! has its libraries any more, and none of the image may run before the walls are up.

use std::ffi::{CString, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use bocker_common::diag::Reason;
use bocker_common::say::{self, Said, quote};
use bocker_common::{Error, Result};
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::stat::{Mode as FileMode, umask};
use nix::unistd::{Gid, Uid, chdir, fchdir, getcwd, setgroups, sethostname, setresgid, setresuid};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};

use crate::environment::Environment;
use crate::inroot::{Root, errno, no_directory, no_file, shown};
use crate::{payload, sys};

/// One act of making or joining a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// Hold the lock on the status file.
    Status {
        /// The file.
        file: PathBuf,
    },
    /// Copy the output to the end of a file.
    Log {
        /// The file.
        file: PathBuf,
    },
    /// New namespaces. The PID namespace starts with the next child: the supervisor does that half, before it forks.
    Namespaces(Namespaces),
    /// No mount of ours appears outside, and none of theirs here.
    Private,
    /// The directory becomes a mount, so that it can become `/`.
    Root {
        /// The directory on the host.
        dir: PathBuf,
    },
    /// The host name.
    Hostname(String),
    /// A small file system for the files that are ours.
    Files(Vec<OurFile>),
    /// One of these files over the image's.
    File {
        /// The name in the small file system.
        name: &'static str,
        /// The path in the image.
        at: &'static str,
        /// The same without links, for the shell, which would follow them on the host.
        real: PathBuf,
    },
    /// The small file system disappears; the files stay mounted.
    FilesDone,
    /// A kernel file system.
    Mount(&'static Mount),
    /// `/dev`, filled before anyone can see it.
    Dev,
    /// The mount becomes `/`, and the host's file systems go out of reach.
    Pivot,
    /// The working directory.
    Workdir {
        /// In the container.
        dir: OsString,
        /// Whether this is a join, for the shell's words.
        joined: bool,
    },
    /// The identity.
    User {
        /// `setresuid(2)`
        uid: u32,
        /// `setresgid(2)`
        gid: u32,
        /// `setgroups(2)`
        groups: Vec<u32>,
        /// Whether this is a join, for the shell's words.
        joined: bool,
    },
    /// The payload.
    Exec(Exec),
    /// Wait for it.
    Wait(Wait),
    /// Into the namespaces of a running container.
    Join {
        /// The payload's PID on the host.
        pid: i32,
    },
}

/// Which namespaces, and what the shell needs around them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Namespaces {
    pub cgroup: bool,
    pub log: bool,
    pub status: bool,
    /// Supplementary groups for the shell's `setpriv`.
    pub groups: Vec<u32>,
    /// The here-document's last line; occurs nowhere in it.
    pub end: String,
}

/// The payload's words.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Exec {
    pub words: Vec<OsString>,
    pub env: Environment,
    /// Where the command is, for the shell: busybox would take its own `ls` before the image's.
    pub found: OsString,
    pub joined: bool,
    /// The shell has descriptors 4 and, with a status file, 9 to close.
    pub status: bool,
    /// Not root: the shell changes identity here.
    pub ids: Option<(u32, u32)>,
}

/// The end of the script.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Wait {
    pub log: bool,
    /// The status file.
    pub status: Option<PathBuf>,
    pub end: String,
}

/// A file of ours in the container.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct OurFile {
    pub name: &'static str,
    pub text: String,
}

/// A file system of the kernel's, and where it goes.
#[derive(Debug, PartialEq, Eq)]
pub struct Mount {
    kind: &'static str,
    /// Below the root; each component a directory and no link.
    at: &'static str,
    attributes: MountAttrFlags,
    /// Of the file system itself; without a value it is a flag.
    options: &'static [(&'static str, &'static str)],
    why: &'static str,
}

const NOSUID: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NOSUID;
const NODEV: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NODEV;
const NOEXEC: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NOEXEC;
const RDONLY: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_RDONLY;
const INERT: MountAttrFlags = NOSUID.union(NODEV).union(NOEXEC);

/// `/proc`
pub static PROC: Mount = Mount {
    kind: "proc",
    at: "proc",
    attributes: INERT,
    options: &[],
    why: "a /proc that shows this PID namespace: the one mounted by a process in it",
};
/// `/sys`
pub static SYS: Mount = Mount {
    kind: "sysfs",
    at: "sys",
    attributes: INERT.union(RDONLY),
    options: &[],
    why: "/sys shows this network namespace's links; read-only, for the rest of it is the host's hardware",
};
static DEV: Mount = Mount {
    kind: "tmpfs",
    at: "dev",
    attributes: NOSUID.union(NOEXEC),
    options: &[("mode", "755"), ("size", "65536k")],
    why: "a /dev of our own: six devices that hold no secret, whatever the image has there",
};
/// `/dev/pts`
pub static PTS: Mount = Mount {
    kind: "devpts",
    at: "dev/pts",
    attributes: NOSUID.union(NOEXEC),
    options: &[("newinstance", ""), ("ptmxmode", "0666"), ("mode", "0620"), ("gid", "5")],
    why: "terminals of its own; group 5 is tty",
};
/// `/dev/shm`
pub static SHM: Mount = Mount {
    kind: "tmpfs",
    at: "dev/shm",
    attributes: INERT,
    options: &[("mode", "1777"), ("size", "65536k")],
    why: "POSIX shared memory, shm_overview(7)",
};
/// `/dev/mqueue`
pub static MQUEUE: Mount = Mount {
    kind: "mqueue",
    at: "dev/mqueue",
    attributes: INERT,
    options: &[],
    why: "POSIX message queues of this IPC namespace, mq_overview(7)",
};
/// Where our files are while they are being mounted: on the place that `/dev` takes afterwards.
static FILES: Mount = Mount {
    kind: "tmpfs",
    at: "dev",
    attributes: INERT,
    options: &[("mode", "755"), ("size", "1024k")],
    why: "resolv.conf, hosts and hostname are mounted, never written into the image. They can be written to inside, as docker's: \
          resolvconf and the like expect it, and nothing outside sees it",
};

/// name, major, minor
const DEVICES: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];
/// name, target
const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

impl Mount {
    /// As `mount(8)` has it, with `-o`.
    fn shell(&self) -> String {
        let names = [(RDONLY, "ro"), (NOSUID, "nosuid"), (NODEV, "nodev"), (NOEXEC, "noexec")];
        let flags =
            names.iter().filter(|(flag, _)| self.attributes.contains(*flag)).map(|(_, name)| (*name).to_owned());
        let own = self.options.iter().map(|(key, value)| match *value {
            "" => (*key).to_owned(),
            value => format!("{key}={value}"),
        });
        let options: Vec<String> = flags.chain(own).collect();
        format!("mount -t {} -o {} {} {}", self.kind, options.join(","), self.kind, self.at)
    }

    /// The file system as a mount that is nowhere yet.
    fn detached(&self) -> rustix::io::Result<OwnedFd> {
        let fs = fsopen(self.kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_set_string(&fs, "source", self.kind)?;
        for (key, value) in self.options {
            if value.is_empty() { fsconfig_set_flag(&fs, *key)? } else { fsconfig_set_string(&fs, *key, *value)? }
        }
        fsconfig_create(&fs)?;
        fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, self.attributes)
    }
}

impl say::Act for Act {
    fn say(&self) -> Said {
        match self {
            Self::Status { file } => Said::new(
                format!(
                    "( umask 077; : >> {0} )\nexec 9<>{0}\nflock -n 9 || {{ echo 'container is already running' >&2; exit 125; }}\n: > {0}",
                    quote(file)
                ),
                "who holds this lock is the running container; the kernel drops it with the last holder",
            ),
            Self::Log { file } => Said::new(
                format!(
                    "( umask 077; : >> {file} )\npipes=$(mktemp -d)\nmkfifo \"$pipes/1\" \"$pipes/2\"\ntee -a {file} <\"$pipes/1\" & tee -a {file} <\"$pipes/2\" >&2 &",
                    file = quote(file)
                ),
                "output goes to the caller, stdout and stderr apart, and to the log, in the order in which it came",
            ),
            Self::Namespaces(spaces) => spaces.say(),
            Self::Private => Said::new("mount --make-rprivate /", "mounts made here stay here"),
            Self::Root { dir } => Said::new(
                format!("mount --bind {0} {0}\nmount -o remount,bind,nodev {0}\ncd {0}", quote(dir)),
                "only a mount can become /; a device node in the image opens nothing, a setuid program works",
            ),
            Self::Hostname(name) => Said::new(format!("hostname {}", quote(name)), "in the new UTS namespace only"),
            Self::Files(files) => {
                let mut shell = FILES.shell();
                for file in files {
                    shell += &format!("\nprintf %s {} > {}/{}", quote(&file.text), FILES.at, file.name);
                }
                Said::new(shell, FILES.why)
            }
            Self::File { name, real, .. } => {
                let at = quote(Path::new(".").join(real.strip_prefix("/").unwrap_or(real)));
                let parent = quote(
                    Path::new(".").join(real.parent().and_then(|p| p.strip_prefix("/").ok()).unwrap_or(Path::new(""))),
                );
                Said::new(
                    format!("mkdir -p {parent}\n[ -e {at} ] || : > {at}\nmount --bind {}/{name} {at}", FILES.at),
                    "the image's links are followed inside the image only",
                )
            }
            Self::FilesDone => Said::new(format!("umount -l {}", FILES.at), "the three files stay"),
            Self::Mount(mount) => Said::new(format!("mkdir -p {}\n{}", mount.at, mount.shell()), mount.why),
            Self::Dev => {
                let mut shell = format!("mkdir -p {}\n{}", DEV.at, DEV.shell());
                for (name, major, minor) in DEVICES {
                    shell += &format!("\nmknod -m 666 dev/{name} c {major} {minor}");
                }
                for (name, target) in LINKS {
                    shell += &format!("\nln -s {target} dev/{name}");
                }
                Said::new(shell, DEV.why)
            }
            Self::Pivot => Said::new(
                "pivot_root . .\numount -l /..\ncd /",
                "chroot(2) can be left, a root without the old one mounted cannot; the old root lies over the new one for a moment, \
                 and /.. goes up to it",
            ),
            Self::Workdir { dir, joined: false } => {
                Said::new(format!("mkdir -p {0}\ncd {0}", quote(dir)), "looked up inside: / is the container's by now")
            }
            Self::Workdir { dir, joined: true } => {
                Said::new(format!("set -- \"$@\" --wdns={}", quote(dir)), "looked up inside the container")
            }
            Self::User { uid, gid, groups, joined } => {
                let shell =
                    if *joined { format!("set -- \"$@\" --setuid {uid} --setgid {gid}") } else { ":".to_owned() };
                let list: Vec<String> = groups.iter().map(ToString::to_string).collect();
                Said::new(
                    shell,
                    format!(
                        "user {uid}, group {gid}, groups {}: groups first, for only root may set them{}",
                        list.join(","),
                        if groups.len() > 1 && (*uid, *gid) != (0, 0) {
                            " (the shell's tools set the first only)"
                        } else {
                            ""
                        }
                    ),
                )
            }
            Self::Exec(exec) => exec.say(),
            Self::Wait(wait) => wait.say(),
            Self::Join { pid } => Said::new(
                format!("set -- \"$(command -v nsenter)\" --target {pid} --mount --uts --ipc --net --pid --cgroup"),
                "by a descriptor of the process, so that a new process with the same number cannot be meant",
            ),
        }
    }
}

impl Namespaces {
    fn say(&self) -> Said {
        let groups: Vec<String> = self.groups.iter().map(ToString::to_string).collect();
        let shell = format!(
            "status=0\nsetpriv --groups {} unshare --mount --uts --ipc{} --pid --fork --kill-child busybox sh -e /proc/self/fd/4{} 4<<'{}' || status=$?{}",
            groups.join(","),
            if self.cgroup { " --cgroup" } else { "" },
            if self.log { " >\"$pipes/1\" 2>\"$pipes/2\"" } else { "" },
            self.end,
            // Only here, before its own /proc is mounted, the process can see its number on the host.
            if self.status { "\nread -r pid rest </proc/self/stat\necho \"running $pid\" >&9" } else { "" },
        );
        Said::new(shell, "mounts, names, IPC and processes of its own; the next child is process 1")
    }
}

impl Exec {
    fn say(&self) -> Said {
        let mut words: Vec<String> = vec!["exec env -i".to_owned()];
        words.extend(self.env.entries().map(quote));
        if self.joined {
            words.push("\"$@\"".to_owned());
            words.extend(self.words.iter().map(quote));
        } else {
            if let Some((uid, gid)) = self.ids {
                words.push(format!("start-stop-daemon -S -p /dev/null -c {uid}:{gid} -x"));
            }
            words.push(quote(&self.found));
            if self.ids.is_some() {
                words.push("--".to_owned());
            }
            words.extend(self.words.iter().skip(1).map(quote));
            // On lines of their own: a shell keeps copies of what a command's redirections replace.
            let close = if self.status { "exec 4<&-\nexec 9<&-\n" } else { "exec 4<&-\n" };
            words.insert(0, close.to_owned());
        }
        Said::new(
            words.join(" ").replacen("\n ", "\n", 1),
            "the environment starts empty; nothing of ours stays in the process but its number",
        )
    }
}

impl Wait {
    fn say(&self) -> Said {
        let mut shell = self.end.clone();
        if self.log {
            shell += "\nwait\nrm -r \"$pipes\"";
        }
        if let Some(file) = &self.status {
            shell += &format!("\necho \"exited $status\" > {}", quote(file));
        }
        Said::new(shell + "\nexit \"$status\"", "")
    }
}

/// The process that becomes the payload, while it does the acts.
#[derive(Debug)]
pub struct Inside {
    root: Root,
    files: Option<OwnedFd>,
    streams: Option<(OwnedFd, OwnedFd)>,
}

impl Inside {
    /// `root` is the root as a mount that is nowhere yet (see [`detached_root`]), or `/` for a join;
    /// `streams` become stdout and stderr.
    pub fn new(root: Root, streams: Option<(OwnedFd, OwnedFd)>) -> Self {
        // Modes are given in full below; the payload gets 022 back.
        umask(FileMode::empty());
        Self { root, files: None, streams }
    }

    /// Does one act. [`Act::Exec`] returns on failure only.
    ///
    /// # Errors
    /// One line; the acts after it must not be done.
    pub fn apply(&mut self, act: &Act) -> Result<()> {
        match act {
            // The supervisor's.
            Act::Status { .. } | Act::Log { .. } | Act::Wait(_) | Act::Join { .. } => Ok(()),
            Act::Namespaces(spaces) => {
                let mut flags = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS | CloneFlags::CLONE_NEWIPC;
                flags.set(CloneFlags::CLONE_NEWCGROUP, spaces.cgroup);
                unshare(flags).map_err(|e| Error::new("unshare", "mount, UTS and IPC namespaces", e))
            }
            Act::Private => make_private().map_err(|e| Error::new("make private", "/", e)),
            // Anywhere will do, pivot_root takes it away from there at once: so over /, which needs no lookup.
            Act::Root { dir } => {
                move_mount(&self.root, "", rustix::fs::CWD, "/", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
                    .map_err(|e| Error::new("mount", dir.display(), errno(e)))
            }
            Act::Hostname(name) => sethostname(name).map_err(|e| Error::new("set host name", name, e)),
            Act::Files(files) => self.make_files(files),
            Act::File { name, at, .. } => self.mount_file(name, at),
            Act::FilesDone => self.unmount_files().map_err(|e| Error::new("unmount", "our files", e)),
            Act::Mount(mount) => {
                let detached = mount.detached().map_err(|e| Error::new("make", mount.kind, errno(e)))?;
                self.attach(&detached, mount.at)
            }
            Act::Dev => self.make_dev(),
            Act::Pivot => self.pivot().map_err(|e| match e {
                Errno::EINVAL => Error::new("pivot_root", "/", e).hint("is / an initramfs, or this a chroot?"),
                _ => Error::new("pivot_root", "/", e),
            }),
            Act::Workdir { dir, .. } => self.enter(dir).map_err(|e| Error::new("enter", shown(dir), e)),
            Act::User { uid, gid, groups, .. } => become_user(*uid, *gid, groups),
            Act::Exec(exec) => self.exec(exec),
        }
    }

    /// Mounts on a directory below the root that is reached without a link.
    fn attach(&self, mount: &OwnedFd, at: &str) -> Result<()> {
        let target = self.root.own_directory(at).map_err(|e| Error::new("mount", format!("/{at}"), no_directory(e)))?;
        place(mount, &target).map_err(|e| Error::new("mount", format!("/{at}"), errno(e)))
    }

    fn make_files(&mut self, files: &[OurFile]) -> Result<()> {
        let fail = |e| Error::new("make", "resolv.conf, hosts and hostname", Reason::from(errno(e)));
        let mount = FILES.detached().map_err(fail)?;
        for file in files {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
            let fd = rustix::fs::openat(&mount, file.name, flags, Mode::from_raw_mode(0o644)).map_err(fail)?;
            std::io::Write::write_all(&mut std::fs::File::from(fd), file.text.as_bytes())
                .map_err(|e| Error::new("write", file.name, e))?;
        }
        // Before Linux 6.15 only what is attached can be mounted in parts.
        self.attach(&mount, FILES.at)?;
        self.files = Some(mount);
        Ok(())
    }

    fn mount_file(&self, name: &str, at: &str) -> Result<()> {
        let fail = |e| Error::new("mount", at, errno(e));
        let files = self.files.as_ref().ok_or_else(|| Error::new("mount", at, "no files"))?;
        let target = self.root.file(at).map_err(|e| Error::new("mount", at, no_file(e)))?;
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let file = open_tree(files, name, flags).map_err(fail)?;
        place(&file, &target).map_err(fail)
    }

    /// umount2(2) takes no descriptor: the working directory stands in for it.
    #[expect(clippy::disallowed_methods, reason = "the working directory, which is what it was set to by descriptor")]
    fn unmount_files(&mut self) -> nix::Result<()> {
        let Some(files) = self.files.take() else { return Ok(()) };
        fchdir(&files)?;
        umount2(".", MntFlags::MNT_DETACH)?;
        fchdir(&self.root)
    }

    fn make_dev(&self) -> Result<()> {
        let fill = || -> rustix::io::Result<OwnedFd> {
            let dev = DEV.detached()?;
            for (name, major, minor) in DEVICES {
                let number = rustix::fs::makedev(major, minor);
                rustix::fs::mknodat(&dev, name, FileType::CharacterDevice, Mode::from_raw_mode(0o666), number)?;
            }
            for (name, target) in LINKS {
                rustix::fs::symlinkat(target, &dev, name)?;
            }
            for mount in [&PTS, &SHM, &MQUEUE] {
                let name = mount.at.trim_start_matches("dev/");
                rustix::fs::mkdirat(&dev, name, Mode::from_raw_mode(0o755))?;
            }
            Ok(dev)
        };
        let dev = fill().map_err(|e| Error::new("make", "/dev", errno(e)))?;
        self.attach(&dev, DEV.at)
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "/ and the working directory, which is what it was set to by descriptor; /proc is ours"
    )]
    fn pivot(&self) -> nix::Result<()> {
        fchdir(&self.root)?;
        // The same place twice: the old root goes on top of the new one, and no directory for it is needed.
        rustix::process::pivot_root(".", ".").map_err(errno)?;
        umount2(".", MntFlags::MNT_DETACH)?;
        chdir("/")?;
        // Where we were started in a chroot, the real root is still in this mount namespace, and joining the
        // namespace leads there. So join it, as a container's root could, and see where that ends.
        let place = |stat: rustix::fs::Stat| (stat.st_dev, stat.st_ino);
        let root = rustix::fs::stat("/").map(place).map_err(errno)?;
        let namespace =
            rustix::fs::open("/proc/self/ns/mnt", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).map_err(errno)?;
        nix::sched::setns(namespace, CloneFlags::CLONE_NEWNS)?;
        if rustix::fs::stat("/").map(place).map_err(errno)? == root { Ok(()) } else { Err(Errno::EINVAL) }
    }

    /// The directory by descriptor, made if missing; then the proof that it is in here: the kernel answers
    /// "(unreachable)…" for a working directory outside the root (CVE-2024-21626).
    fn enter(&self, dir: &OsString) -> nix::Result<()> {
        fchdir(self.root.directory(Path::new("/").join(dir))?)?;
        if getcwd()?.is_absolute() { Ok(()) } else { Err(Errno::ENOENT) }
    }

    fn exec(&mut self, exec: &Exec) -> Result<()> {
        let fail = |e| Error::new("prepare", "exec", Reason::from(e));
        let word = |w: &OsString| CString::new(w.clone().into_vec()).map_err(|_| fail(Errno::EINVAL));
        let words: Vec<CString> = exec.words.iter().map(word).collect::<Result<_>>()?;
        if let Some((out, err)) = self.streams.take() {
            nix::unistd::dup2_stdout(&out).map_err(fail)?;
            nix::unistd::dup2_stderr(&err).map_err(fail)?;
        }
        umask(FileMode::from_bits_truncate(0o022));
        sys::default_signals();
        sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None).map_err(fail)?;
        // Close-on-exec rather than closed: the report of a failed execve(2) still has to go out.
        sys::cloexec_from(3).map_err(fail)?;
        Err(payload::exec(&words, &exec.env))
    }
}

#[expect(clippy::disallowed_methods, reason = "/, which is still the caller's")]
fn make_private() -> nix::Result<()> {
    let (none, all) = (None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE);
    mount(none, "/", none, all, none)
}

fn place(mount: &OwnedFd, target: &OwnedFd) -> rustix::io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount, "", target, "", flags)
}

fn become_user(uid: u32, gid: u32, groups: &[u32]) -> Result<()> {
    let fail = |e| Error::new("become", format!("user {uid}, group {gid}"), Reason::from(e));
    let groups: Vec<Gid> = groups.iter().map(|&g| Gid::from_raw(g)).collect();
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    setgroups(&groups).map_err(fail)?;
    setresgid(gid, gid, gid).map_err(fail)?;
    setresuid(uid, uid, uid).map_err(fail)?;
    // The kernel forgets it when the identity changes.
    die_with_supervisor().map_err(fail)
}

/// SIGKILL for this process when the supervisor is gone, `PR_SET_PDEATHSIG`.
///
/// # Errors
/// `prctl(2)`.
pub fn die_with_supervisor() -> nix::Result<()> {
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)
}

/// The directory as a mount of its own that is nowhere yet: opened once, before any namespace; everything later
/// goes through this descriptor.
///
/// # Errors
/// One line: no such directory, or a file system that cannot be mounted twice.
pub fn detached_root(dir: &Path) -> Result<Root> {
    let fail = |e: Errno| Error::new("open", dir.display(), e);
    // One mount, not what happens to be mounted below it.
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree = open_tree(rustix::fs::CWD, dir, flags).map_err(|e| fail(errno(e)))?;
    let stat = rustix::fs::fstat(&tree).map_err(|e| fail(errno(e)))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
        return Err(fail(Errno::ENOTDIR));
    }
    // The store may be mounted nosuid or noexec against the host's users; inside, sudo and su must work.
    let (set, clear) = (NODEV, NOSUID | NOEXEC);
    sys::mount_setattr(tree.as_fd(), u64::from(set.bits()), u64::from(clear.bits()), libc::MS_PRIVATE)
        .map_err(|e| Error::new("mount", dir.display(), e))?;
    Ok(Root::new(tree))
}

/// Text of an act's script, to choose a here-document's last line that is not in it.
pub(crate) fn occurs(acts: &[Act], word: &str) -> bool {
    acts.iter().any(|act| say::Act::say(act).shell.lines().any(|line| line == word))
}

/// `-` and friends need no care in a word list, but an empty path does.
pub(crate) fn is_plain_word(word: &OsString) -> bool {
    !word.as_bytes().contains(&b'/')
}
