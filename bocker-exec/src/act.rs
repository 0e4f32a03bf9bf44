//! What is done to make a container, one act at a time, each with its reason.
//!
//! [`Inside::apply`] does an act; `say` says it in the words of `unshare`, `mount` and `pivot_root`. What a dry run prints
//! is one script for `sh`. Its inner part runs in a static busybox: after `pivot_root` no program of the host
//! has its libraries any more, and none of the image may run before the walls are up.

use std::ffi::{CString, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use bocker_common::diag::Reason;
use bocker_common::say::{self, Said, quote};
use bocker_common::userns::COUNT;
use bocker_common::{Error, Result};
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::stat::{Mode as FileMode, umask};
use nix::unistd::{Gid, Uid, chdir, fchdir, getcwd, setfsgid, setfsuid, setgroups, sethostname, setresgid, setresuid};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};

use crate::environment::Environment;
use crate::inroot::{Root, errno, no_directory, no_file, shown};
use crate::mounts::{Attach, Source};
use crate::userns::Users;
use crate::walls::{Last, Wall};
use crate::{payload, sys};

/// One act of making or joining a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// Users of the container's own. They exist already: the plan had to know them.
    Users {
        /// The host's id of the container's root.
        start: u32,
    },
    /// The caller returns when the payload runs.
    Detach,
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
        /// Whether its owners are shown as the container's users.
        mapped: bool,
    },
    /// The host name.
    Hostname(String),
    /// A small file system for the files that are ours. The number here and below: whose the container's root is on the host.
    Files(Vec<OurFile>, u32),
    /// One of these files over the image's.
    File {
        /// The name in the small file system.
        name: &'static str,
        /// The path in the image.
        at: &'static str,
        /// The same without links, for the shell, which would follow them on the host.
        real: PathBuf,
        /// Whether the root is mapped.
        mapped: bool,
    },
    /// The small file system disappears; the files stay mounted.
    FilesDone,
    /// What the caller mounts.
    Attach(Attach),
    /// A kernel file system.
    Mount(&'static Mount, u32),
    /// `/dev`, filled before anyone can see it.
    Dev(u32),
    /// The payload's terminal.
    Terminal {
        /// Whose it is.
        uid: u32,
        /// Whether this is a join, for the shell's words.
        joined: bool,
        /// The last line of the shell's here-document, which occurs nowhere in it.
        end: String,
        /// The container has users of its own, for the shell's words.
        mapped: bool,
    },
    /// The mount becomes `/`, and the host's file systems go out of reach.
    Pivot,
    /// What keeps the container in besides its namespaces.
    Wall(Wall),
    /// The working directory.
    Workdir {
        /// In the container.
        dir: OsString,
        /// Whether this is a join, for the shell's words.
        joined: bool,
        /// Whether the root is mapped.
        mapped: bool,
    },
    /// Pipes that are stdin, stdout or stderr become the payload's: `/dev/stdout` opens them anew.
    Streams {
        /// On the host.
        uid: u32,
        /// On the host.
        gid: u32,
    },
    /// Into the user namespace: nobody on the host from here on.
    EnterUsers {
        /// Whether this is a join, for the shell's words.
        joined: bool,
        /// With a mount namespace of its own, for SYS_ADMIN counts in no other. What is mounted already stays locked there.
        mounts: bool,
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
        /// It has a user namespace of its own.
        users: bool,
    },
}

/// Which namespaces, and what the shell needs around them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Namespaces {
    pub cgroup: bool,
    pub log: bool,
    pub status: bool,
    /// The descriptor of --status-fd.
    pub status_fd: Option<i32>,
    /// Supplementary groups for the shell's `setpriv`.
    pub groups: Vec<u32>,
    /// The capability bounding set for the shell's `setpriv`.
    pub bounding: Option<String>,
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
    /// The shell has a user namespace as descriptor 6.
    pub users: bool,
    /// The shell has descriptors 4 and, with a status file, 9 to close.
    pub status: bool,
    /// Not root: the shell changes identity here.
    pub ids: Option<(u32, u32)>,
    /// Options of the shell's last `setpriv`.
    pub last: Vec<String>,
    /// With a terminal: the end of [`Act::Terminal`]'s here-document.
    pub terminal: Option<String>,
    /// A reaper stays as process 1.
    pub init: bool,
}

/// The end of the script.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Wait {
    pub log: bool,
    /// The status file.
    pub status: Option<PathBuf>,
    pub end: String,
    /// The descriptor of --status-fd.
    pub status_fd: Option<i32>,
    pub detached: bool,
    /// The program that comes after it.
    pub then: Vec<OsString>,
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
/// `/sys` for `--privileged`
pub static SYS_OPEN: Mount = Mount {
    kind: "sysfs",
    at: "sys",
    attributes: INERT,
    options: &[],
    why: "/sys; the host's hardware, too, may be set",
};
/// `/sys/fs/cgroup`, of version 2, with a cgroup namespace
pub static CGROUP2: Mount = Mount {
    kind: "cgroup2",
    at: "sys/fs/cgroup",
    attributes: INERT.union(RDONLY),
    options: &[],
    why: "the container's own part of the tree, to read its limits from, as Java and Go do",
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
    options: &[("mode", "755"), ("size", "16m")],
    why: "resolv.conf, hosts and hostname are mounted, never written into the image. They can be written to inside, as docker's: \
          resolvconf and the like expect it, and nothing outside sees it",
};

/// name, major, minor
const NULL: (&str, u32, u32) = ("null", 1, 3);
const DEVICES: [(&str, u32, u32); 6] =
    [NULL, ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];
/// name, target
const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

impl Mount {
    /// The file system's own options, where the container's root is `owner` on the host.
    fn options(&self, owner: u32) -> Vec<(&'static str, String)> {
        let group = |key: &str, value: &str| match value.parse::<u32>() {
            Ok(id) if key == "gid" => (id + owner).to_string(),
            _ => value.to_owned(),
        };
        let mut options: Vec<_> = self.options.iter().map(|(key, value)| (*key, group(key, value))).collect();
        if self.kind == "tmpfs" && owner != 0 {
            options.extend([("uid", owner.to_string()), ("gid", owner.to_string())]);
        }
        options
    }

    /// As `mount(8)` has it, with `-o`.
    fn shell(&self, owner: u32) -> String {
        let names = [(RDONLY, "ro"), (NOSUID, "nosuid"), (NODEV, "nodev"), (NOEXEC, "noexec")];
        let flags =
            names.iter().filter(|(flag, _)| self.attributes.contains(*flag)).map(|(_, name)| (*name).to_owned());
        let own = self.options(owner).into_iter().map(|(key, value)| match value.as_str() {
            "" => key.to_owned(),
            value => format!("{key}={value}"),
        });
        let options: Vec<String> = flags.chain(own).collect();
        format!("mount -t {} -o {} {} {}", self.kind, options.join(","), self.kind, self.at)
    }

    /// The file system as a mount that is nowhere yet.
    ///
    /// # Errors
    /// `fsopen(2)`, `fsconfig(2)`, `fsmount(2)`.
    pub fn detached(&self, owner: u32) -> Result<OwnedFd> {
        let make = || -> rustix::io::Result<OwnedFd> {
            let fs = fsopen(self.kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
            fsconfig_set_string(&fs, "source", self.kind)?;
            for (key, value) in self.options(owner) {
                if value.is_empty() { fsconfig_set_flag(&fs, key)? } else { fsconfig_set_string(&fs, key, value)? }
            }
            fsconfig_create(&fs)?;
            fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, self.attributes)
        };
        make().map_err(|e| Error::new("make", self.kind, errno(e)))
    }
}

impl say::Act for Act {
    fn say(&self) -> Said {
        match self {
            Self::Users { start } => Said::new(
                format!(
                    "users=$(unshare --user sh -c 'echo $$; exec sleep 9 >&-' &)\necho '0 {start} {COUNT}' > /proc/$users/uid_map\n\
                     echo '0 {start} {COUNT}' > /proc/$users/gid_map\nexec 6</proc/$users/ns/user\nkill $users\nexport mount=\"$(command -v mount)\""
                ),
                "the container's root is nobody on the host",
            ),
            Self::Detach => Said::new(
                "(",
                "all of the rest goes on by itself (the tool's caller goes when the command has been executed; the shell does not wait for that)",
            ),
            Self::Status { file } => Said::new(
                format!(
                    "( umask 077; : >> {0} )\nexec 9<>{0}\nflock -w 0.1 9 || {{ echo 'container is already running' >&2; exit 125; }}\n: > {0}",
                    quote(file)
                ),
                "who holds this lock is the running container; the kernel drops it with the last holder",
            ),
            Self::Log { file } => Said::new(
                format!(
                    "( umask 077; : >> {file} )\n\
                     record() {{ printf '%s %s %s %s\\n' \"$(date -u +%Y-%m-%dT%H:%M:%S.%NZ)\" \"$1\" \"$2\" \"$3\" >> {file}; }}\n\
                     copy() {{\n\
                     while IFS= read -r line; do record \"$1\" F \"$line\"; printf '%s\\n' \"$line\"; done\n\
                     [ -z \"$line\" ] || {{ record \"$1\" P \"$line\"; printf %s \"$line\"; }}\n\
                     }}\n\
                     pipes=$(mktemp -d)\nmkfifo \"$pipes/1\" \"$pipes/2\"\n\
                     copy stdout <\"$pipes/1\" & copy stderr <\"$pipes/2\" >&2 &",
                    file = quote(file)
                ),
                "output goes to the caller, stdout and stderr apart, and to the log, line by line with its time (a shell drops NULs, and \
                 begins no new file at the size limit)",
            ),
            Self::Namespaces(spaces) => spaces.say(),
            Self::Private => Said::new("mount --make-rprivate /", "mounts made here stay here"),
            Self::Root { dir, mapped } => {
                let (mount, idmap, more, why) = if *mapped {
                    (
                        // busybox's own knows no such option.
                        "\"$mount\"",
                        " -o X-mount.idmap=/proc/self/fd/6",
                        format!("\ngrep -q \" $PWD [^ ]*,idmapped\" /proc/self/mountinfo{}", inside()),
                        "; owners as the container's users have them (util-linux 2.39), and only they can make files there",
                    )
                } else {
                    ("mount", "", String::new(), "")
                };
                Said::new(
                    format!("{mount} --bind{idmap} {0} {0}\nmount -o remount,bind,nodev {0}\ncd {0}{more}", quote(dir)),
                    format!(
                        "only a mount can become /; a device node in the image opens nothing, a setuid program works{why}"
                    ),
                )
            }
            Self::Hostname(name) => Said::new(format!("hostname {}", quote(name)), "in the new UTS namespace only"),
            Self::Files(files, owner) => {
                let mut shell = FILES.shell(*owner);
                for file in files {
                    shell += &format!("\nprintf %s {} > {}/{}", quote(&file.text), FILES.at, file.name);
                    shell += &given_to(*owner, &format!("{}/{}", FILES.at, file.name));
                }
                Said::new(shell, FILES.why)
            }
            Self::File { name, real, mapped, .. } => {
                let at = quote(Path::new(".").join(real.strip_prefix("/").unwrap_or(real)));
                let parent = quote(
                    Path::new(".").join(real.parent().and_then(|p| p.strip_prefix("/").ok()).unwrap_or(Path::new(""))),
                );
                Said::new(
                    format!(
                        "{}\n[ -e {at} ] || {}\nmount --bind {}/{name} {at}",
                        make(*mapped, &format!("mkdir -p {parent}")),
                        make(*mapped, &format!("touch {at}")),
                        FILES.at
                    ),
                    "the image's links are followed inside the image only",
                )
            }
            Self::FilesDone => Said::new(format!("umount -l {}", FILES.at), "the three files stay"),
            Self::Attach(attach) => attach.say(),
            Self::Mount(mount, owner) => {
                let mkdir = make(*owner != 0, &format!("mkdir -p {}", mount.at));
                let mut shell = format!("{mkdir}\n{}", mount.shell(*owner));
                if mount.kind == "mqueue" {
                    shell += &given_to(*owner, mount.at);
                }
                Said::new(shell, mount.why)
            }
            Self::Dev(owner) => {
                let mkdir = make(*owner != 0, &format!("mkdir -p {}", DEV.at));
                let mut shell = format!("{mkdir}\n{}", DEV.shell(*owner));
                for (name, major, minor) in DEVICES {
                    shell += &format!("\nmknod -m 666 dev/{name} c {major} {minor}");
                    shell += &given_to(*owner, &format!("dev/{name}"));
                }
                for (name, target) in LINKS {
                    shell += &format!("\nln -s {target} dev/{name}");
                    shell += &given_to(*owner, &format!("dev/{name}"));
                }
                Said::new(shell, DEV.why)
            }
            Self::Terminal { uid, joined, end, mapped } => terminal_said(*uid, *joined, end, *mapped),
            Self::Pivot => Said::new(
                "pivot_root . .\numount -l /..\ncd /",
                "chroot(2) can be left, a root without the old one mounted cannot; the old root lies over the new one for a moment, \
                 and /.. goes up to it",
            ),
            Self::Wall(wall) => wall.say(),
            Self::Workdir { dir, joined: false, mapped } => {
                let mkdir = make(*mapped, &format!("mkdir -p {}", quote(dir)));
                Said::new(format!("{mkdir}\ncd {}", quote(dir)), "looked up inside: / is the container's by now")
            }
            Self::Workdir { dir, joined: true, .. } => {
                Said::new(format!("set -- \"$@\" --wdns={}", quote(dir)), "looked up inside the container")
            }
            Self::Streams { uid, gid } => Said::new(
                format!(
                    "for pipe in 0 1 2; do [ ! -p /proc/self/fd/$pipe ] || chown {uid}:{gid} /proc/self/fd/$pipe; done"
                ),
                "a pipe that it was given is the payload's: /dev/stdout and its like are opened anew",
            ),
            Self::EnterUsers { joined: false, .. } => Said::new(
                ":",
                "now the user namespace, in the last line: all mounts are the host's, and no capability inside can undo one",
            ),
            Self::EnterUsers { joined: true, .. } => Said::new(":", "the user namespace is nsenter's last, too"),
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
            Self::Join { pid, users } => Said::new(
                format!(
                    "set -- \"$(command -v nsenter)\" --target {pid} --mount --uts --ipc --net --pid --cgroup{}",
                    if *users { " --user" } else { "" }
                ),
                "by a descriptor of the process, so that a new process with the same number cannot be meant",
            ),
        }
    }
}

impl Namespaces {
    fn tell(&self) -> String {
        let descriptors = self.status.then_some(9).into_iter().chain(self.status_fd);
        let mut shell: String = descriptors.map(|fd| format!("\necho \"running $pid\" >&{fd}")).collect();
        if !shell.is_empty() {
            shell.insert_str(0, "\nread -r pid rest </proc/self/stat");
        }
        if let Some(fd) = self.status_fd.filter(|&fd| fd > 2) {
            shell += &format!("\nexec {fd}>&-");
        }
        shell
    }

    fn say(&self) -> Said {
        let groups: Vec<String> = self.groups.iter().map(ToString::to_string).collect();
        // What is inheritable stays beyond the bounding set until the script's end gives it up.
        let kept: Vec<String> = crate::caps::SCRIPT.iter().map(|name| format!("+{name}")).collect();
        let bounding = match &self.bounding {
            Some(set) => (format!("setpriv --inh-caps={} ", kept.join(",")), format!(" --bounding-set={set}")),
            None => Default::default(),
        };
        let shell = format!(
            "status=0\n{}setpriv{} --groups {} unshare --mount --uts --ipc{} --pid --fork --kill-child busybox sh -e /proc/self/fd/4{} 4<<'{}' || status=$?{}",
            bounding.0,
            bounding.1,
            groups.join(","),
            if self.cgroup { " --cgroup" } else { "" },
            if self.log { " >\"$pipes/1\" 2>\"$pipes/2\"" } else { "" },
            self.end,
            // Only here, before its own /proc is mounted, the process can see its number on the host.
            self.tell(),
        );
        Said::new(shell, "mounts, names, IPC and processes of its own; the next child is process 1")
    }
}

impl Exec {
    fn say(&self) -> Said {
        let mut words: Vec<String> = vec![if self.init { "env -i" } else { "exec env -i" }.to_owned()];
        words.extend(self.env.entries().map(quote));
        if self.joined {
            words.push("\"$@\"".to_owned());
            words.extend(self.words.iter().map(quote));
        } else {
            let last = self.last.join(" ");
            match self.ids {
                // What it starts is no word of busybox's own: so busybox again, under that name.
                Some((uid, gid)) if !last.is_empty() => words.push(format!(
                    "start-stop-daemon -S -p /dev/null -c {uid}:{gid} -x /proc/self/exe -a setpriv -- {last} {}",
                    quote(&self.found)
                )),
                Some((uid, gid)) => {
                    words
                        .push(format!("start-stop-daemon -S -p /dev/null -c {uid}:{gid} -x {} --", quote(&self.found)));
                }
                None if !last.is_empty() => words.push(format!("setpriv {last} {}", quote(&self.found))),
                None => words.push(quote(&self.found)),
            }
            words.extend(self.words.iter().skip(1).map(quote));
            // On lines of their own: a shell keeps copies of what a command's redirections replace.
            let close = if self.status { "exec 4<&-\nexec 9<&-\n" } else { "exec 4<&-\n" };
            words.insert(0, close.to_owned());
            if self.users {
                // nsenter opens descriptor 6, a shell in between closes it.
                let exec = if self.init { "" } else { "exec " };
                let enter = format!("{exec}{ENTER} sh -c 'exec \"$@\" 6<&-' sh env -i");
                words.iter_mut().filter(|word| word.ends_with("env -i")).for_each(|word| word.clone_from(&enter));
            }
        }
        if self.init {
            // A shell gives /dev/null to what it starts with &.
            words[0] += "exec 3<&0\n";
            words.push(
                "<&3 3<&- &\ncommand=$!\nfor signal in HUP INT QUIT TERM USR1 USR2; do trap \"kill -$signal $command\" $signal; done\n\
                 while :; do\nstatus=0; wait $command || status=$?\nkill -0 $command 2>/dev/null || exit $status\ndone"
                    .to_owned(),
            );
        }
        let mut shell = words.join(" ").replacen("\n ", "\n", 1);
        if let Some(end) = &self.terminal {
            shell = format!("exec 5<&-\n{shell}\n{end}");
        }
        Said::new(shell, "the environment starts empty; nothing of ours stays in the process but its number")
    }
}

/// `script(1)` copies as the supervisor does. On the host it finds its terminal in what lies beside the host's /dev/ptmx,
/// so the container's devpts goes there, in this mount namespace; a shell that joins has no such way.
fn terminal_said(uid: u32, joined: bool, end: &str, mapped: bool) -> Said {
    let shell = if joined { "sh" } else { "busybox sh" };
    let mut said = format!("exec script -qec 'exec {shell} -e /proc/self/fd/5' /dev/null 5<<'{end}'");
    if joined {
        return Said::new(
            said,
            "a terminal of its own, never ours (here one of the host's; the tool takes the container's)",
        );
    }
    said.insert_str(0, "mount --bind dev/pts /dev/pts\n");
    said += &format!("\nchown {uid} dev/pts/0\n: > dev/console\nmount --bind dev/pts/0 dev/console");
    if mapped {
        // Another shell from here on.
        said += &inside();
    }
    Said::new(said, "a terminal of the container's own: who held a descriptor of ours could type on it (TIOCSTI)")
}

impl Wait {
    fn say(&self) -> Said {
        let mut shell = self.end.clone();
        if self.log {
            shell += "\nwait\nrm -r \"$pipes\"";
        }
        if let Some(file) = &self.status {
            if !self.then.is_empty() {
                let holder = quote(file.with_file_name("holder"));
                let me = "me=$(exec sh -c 'echo \"$PPID\"')";
                shell += &format!(
                    "\n{me}\n[ ! -e {holder} ] || echo \"$me $(cut -d ' ' -f 22 /proc/$me/stat) ended\" > {holder}"
                );
            }
            shell += &format!("\necho \"exited $status\" > {}", quote(file));
        }
        if let Some(fd) = self.status_fd {
            shell += &format!("\necho \"exited $status\" >&{fd}");
        }
        if !self.then.is_empty() {
            let words: Vec<String> = self.then.iter().map(quote).collect();
            shell += &format!("\nexec 9<&-\ncd /\nexec {}", words.join(" "));
        }
        Said::new(
            shell + "\nexit \"$status\"" + if self.detached { "\n) </dev/null >/dev/null 2>&1 &" } else { "" },
            "",
        )
    }
}

/// The process that becomes the payload, while it does the acts.
#[derive(Debug)]
pub struct Inside {
    root: Root,
    users: Option<Users>,
    sources: Vec<Source>,
    files: Option<OwnedFd>,
    stdio: Stdio,
    /// They are a terminal, of the container's own devpts.
    terminal: bool,
    devpts: Option<OwnedFd>,
    last: Last,
    /// The other end of the supervisor's report.
    tell: OwnedFd,
}

/// What becomes stdin, stdout and stderr of the payload; `None`: as ours.
#[derive(Debug, Default)]
pub struct Stdio(pub [Option<OwnedFd>; 3]);

impl Stdio {
    /// Nothing to read, and nobody to write to.
    ///
    /// # Errors
    /// `open(2)`.
    #[expect(clippy::disallowed_methods, reason = "the host's /dev/null, before any namespace")]
    pub fn null() -> Result<Self> {
        let open = || std::fs::File::options().read(true).write(true).open("/dev/null").map(|file| Some(file.into()));
        let all = || Ok([open()?, open()?, open()?]);
        all().map(Self).map_err(|e: std::io::Error| Error::new("open", "/dev/null", e))
    }
}

impl Inside {
    /// `root` is the root as a mount that is nowhere yet (see [`detached_root`]), or `/` for a join;
    /// `stdio` is what it says; `tell` the pipe whose reader is the supervisor.
    ///
    /// # Errors
    /// `prctl(2)`.
    pub fn new(root: Root, users: Option<Users>, stdio: Stdio, tell: OwnedFd) -> Result<Self> {
        // Modes are given in full below; the payload gets 022 back.
        umask(FileMode::empty());
        if let Some(users) = &users {
            // Through a mapped mount only the container's users can make files. Capabilities stay the host's root's.
            sys::keep_capabilities().map_err(|e| Error::new("keep", "capabilities", e))?;
            setfsuid(Uid::from_raw(users.start));
            setfsgid(Gid::from_raw(users.start));
            // The kernel forgets it when these change.
            die_with_supervisor().map_err(|e| Error::new("bind", "to the supervisor", e))?;
        }
        Ok(Self {
            root,
            users,
            sources: Vec::new(),
            files: None,
            stdio,
            terminal: false,
            devpts: None,
            last: Last::default(),
            tell,
        })
    }

    /// With what the caller mounts.
    #[must_use]
    pub fn with(self, sources: Vec<Source>) -> Self {
        Self { sources, ..self }
    }

    /// `stdio` is a terminal; with a new container of this mount of [`PTS`].
    pub fn on_a_terminal(&mut self, devpts: Option<OwnedFd>) {
        (self.terminal, self.devpts) = (true, devpts);
    }

    /// Does one act. [`Act::Exec`] returns on failure only.
    ///
    /// # Errors
    /// One line; the acts after it must not be done.
    pub fn apply(&mut self, act: &Act) -> Result<()> {
        match act {
            // The supervisor's.
            Act::Detach
            | Act::Users { .. }
            | Act::Status { .. }
            | Act::Log { .. }
            | Act::Wait(_)
            | Act::Join { .. } => Ok(()),
            Act::Namespaces(spaces) => {
                let mut flags = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS | CloneFlags::CLONE_NEWIPC;
                flags.set(CloneFlags::CLONE_NEWCGROUP, spaces.cgroup);
                unshare(flags).map_err(|e| Error::new("unshare", "mount, UTS and IPC namespaces", e))
            }
            Act::Private => make_private().map_err(|e| Error::new("make private", "/", e)),
            // Anywhere will do, pivot_root takes it away from there at once: so over /, which needs no lookup.
            Act::Root { dir, .. } => {
                move_mount(&self.root, "", rustix::fs::CWD, "/", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
                    .map_err(|e| Error::new("mount", dir.display(), errno(e)))
            }
            Act::Hostname(name) => sethostname(name).map_err(|e| Error::new("set host name", name, e)),
            Act::Files(files, owner) => self.make_files(files, *owner),
            Act::File { name, at, .. } => self.mount_file(name, at),
            Act::FilesDone => self.unmount_files().map_err(|e| Error::new("unmount", "our files", e)),
            Act::Attach(attach) => attach.apply(&self.root, &mut self.sources),
            Act::Mount(mount, owner) => {
                let made = self.devpts.take_if(|_| std::ptr::eq(*mount, &raw const PTS));
                self.attach(&made.map_or_else(|| mount.detached(*owner), Ok)?, mount.at)
            }
            Act::Terminal { joined: true, .. } => Ok(()),
            Act::Terminal { .. } => self.make_console(),
            Act::Dev(owner) => self.make_dev(*owner),
            Act::Pivot => self.pivot().map_err(|e| match e {
                Errno::EINVAL => Error::new("pivot_root", "/", e).hint("is / an initramfs, or this a chroot?"),
                _ => Error::new("pivot_root", "/", e),
            }),
            Act::Wall(wall) => wall.apply(&self.root, &mut self.last),
            Act::Workdir { dir, .. } => self.enter(dir).map_err(|e| Error::new("enter", shown(dir), e)),
            Act::Streams { uid, gid } => self.give_streams(*uid, *gid),
            Act::EnterUsers { mounts, .. } => {
                self.enter_users(*mounts).map_err(|e| Error::new("enter", "the user namespace", e))
            }
            Act::User { uid, gid, groups, .. } => {
                become_user(*uid, *gid, groups)?;
                // It is the last change.
                crate::supervise::is_watched(&self.tell)
            }
            Act::Exec(exec) => self.exec(exec),
        }
    }

    /// Mounts on a directory below the root that is reached without a link.
    fn attach(&self, mount: &OwnedFd, at: &str) -> Result<()> {
        let target = self.root.own_directory(at).map_err(|e| Error::new("mount", format!("/{at}"), no_directory(e)))?;
        place(mount, &target).map_err(|e| Error::new("mount", format!("/{at}"), errno(e)))
    }

    fn make_files(&mut self, files: &[OurFile], owner: u32) -> Result<()> {
        let fail = |e| Error::new("make", "resolv.conf, hosts and hostname", Reason::from(errno(e)));
        let mount = FILES.detached(owner)?;
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

    fn make_dev(&self, owner: u32) -> Result<()> {
        let dev = DEV.detached(owner)?;
        let fill = || -> rustix::io::Result<()> {
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
            Ok(())
        };
        fill().map_err(|e| Error::new("make", "/dev", errno(e)))?;
        self.attach(&dev, DEV.at)
    }

    /// The terminal is the console, too, for programs that write to it (syslog, an init). What is mounted is what the
    /// descriptor has open, wherever its path leads by now.
    fn make_console(&self) -> Result<()> {
        let Some(terminal) = &self.stdio.0[0] else { return Ok(()) };
        let make = || -> rustix::io::Result<()> {
            let dev = self.root.own_directory("dev").map_err(|e| rustix::io::Errno::from_raw_os_error(e as i32))?;
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::WRONLY | OFlags::CLOEXEC;
            let console = rustix::fs::openat(dev, "console", flags, Mode::from_raw_mode(0o600))?;
            let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
            let flags = flags | OpenTreeFlags::AT_EMPTY_PATH;
            place(&open_tree(terminal, "", flags)?, &console)
        };
        make().map_err(|e| Error::new("mount", "/dev/console", errno(e)))
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
        let users = self.users.as_ref().map(|users| users.start);
        fchdir(self.root.directory(Path::new("/").join(dir), users)?)?;
        if getcwd()?.is_absolute() { Ok(()) } else { Err(Errno::ENOENT) }
    }

    /// A pipe has the owner that made it, and mode 600. Files, terminals and sockets of the caller's stay as they are.
    fn give_streams(&self, uid: u32, gid: u32) -> Result<()> {
        const PIPEFS: i64 = 0x5049_5045;
        let (stdin, stdout, stderr) = (rustix::stdio::stdin(), sys::stdout(), sys::stderr());
        let ours = self.stdio.0.iter().flatten().map(AsFd::as_fd);
        for stream in [stdin, stdout, stderr].into_iter().chain(ours) {
            if rustix::fs::fstatfs(stream).is_ok_and(|fs| fs.f_type == PIPEFS) {
                nix::unistd::fchown(stream, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
                    .map_err(|e| Error::new("give", "a pipe to the payload", e))?;
            }
        }
        Ok(())
    }

    #[expect(clippy::disallowed_methods, reason = "/, which is the container's")]
    fn enter_users(&mut self, mounts: bool) -> nix::Result<()> {
        let Some(users) = self.users.take() else { return Ok(()) };
        setns(users.namespace, CloneFlags::CLONE_NEWUSER)?;
        // Who was the host's root has all capabilities in there, and is nobody. As its root first: a change from root to
        // somebody else is what takes them away.
        setgroups(&[])?;
        let (uid, gid) = (Uid::from_raw(0), Gid::from_raw(0));
        setresgid(gid, gid, gid)?;
        setresuid(uid, uid, uid)?;
        if mounts {
            unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS)?;
            // The other mount namespace has ended with the last process in it, and what is mounted below our root with it.
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            self.root = Root::new(rustix::fs::open("/", flags, Mode::empty()).map_err(errno)?);
        }
        Ok(())
    }

    fn exec(&mut self, exec: &Exec) -> Result<()> {
        let fail = |e| Error::new("prepare", "exec", Reason::from(e));
        let word = |w: &OsString| CString::new(w.clone().into_vec()).map_err(|_| fail(Errno::EINVAL));
        let words: Vec<CString> = exec.words.iter().map(word).collect::<Result<_>>()?;
        let over = [rustix::stdio::dup2_stdin, rustix::stdio::dup2_stdout, rustix::stdio::dup2_stderr];
        for (fd, over) in std::mem::take(&mut self.stdio.0).iter().zip(over) {
            fd.as_ref().map_or(Ok(()), over).map_err(|e| fail(errno(e)))?;
        }
        if self.terminal {
            // Of the session that this process leads.
            rustix::process::ioctl_tiocsctty(rustix::stdio::stdin()).map_err(|e| fail(errno(e)))?;
        }
        no_terminal_of_ours(self.terminal)?;
        own_null(&self.root).map_err(|e| Error::new("open", "/dev/null", e))?;
        umask(FileMode::from_bits_truncate(0o022));
        sys::default_signals();
        sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None).map_err(fail)?;
        // Close-on-exec rather than closed: the report of a failed execve(2) still has to go out.
        sys::cloexec_from(3).map_err(fail)?;
        self.last.finish()?;
        if exec.init {
            // Under all the walls; only the command comes back from here.
            crate::init::split(&self.tell).map_err(|e| Error::new("start", "the reaper", e))?;
        }
        Err(payload::exec(&words, &exec.env))
    }
}

#[expect(clippy::disallowed_methods, reason = "/, which is still the caller's")]
fn make_private() -> nix::Result<()> {
    let (none, all) = (None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE);
    mount(none, "/", none, all, none)
}

pub(crate) fn place(mount: &OwnedFd, target: &OwnedFd) -> rustix::io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount, "", target, "", flags)
}

/// Without `own`, a terminal is one of the caller's, and terminal.rs has put a pipe into its place.
fn no_terminal_of_ours(own: bool) -> Result<()> {
    let streams = [(rustix::stdio::stdin(), "stdin"), (sys::stdout(), "stdout"), (sys::stderr(), "stderr")];
    match streams.iter().find(|(stream, _)| !own && rustix::termios::isatty(stream)) {
        Some((_, name)) => Err(Error::new("pass on", name, "it is a terminal that is not the container's")),
        None => Ok(()),
    }
}

/// Where the caller gave us the host's /dev/null, the container's: whoever has the descriptor could change the mode of the host's node.
fn own_null(root: &Root) -> nix::Result<()> {
    let is_null = |stat: &rustix::fs::Stat| {
        FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
            && stat.st_rdev == rustix::fs::makedev(NULL.1, NULL.2)
    };
    let replace = |fd: BorrowedFd<'_>, over: fn(OwnedFd) -> rustix::io::Result<()>| {
        // A closed one stays closed.
        if !rustix::fs::fstat(fd).is_ok_and(|stat| is_null(&stat)) {
            return Ok(());
        }
        let own = root.open("/dev/null", OFlags::RDWR)?;
        match rustix::fs::fstat(&own) {
            Ok(stat) if is_null(&stat) => over(own).map_err(errno),
            _ => Err(Errno::ENODEV),
        }
    };
    replace(rustix::stdio::stdin(), rustix::stdio::dup2_stdin)?;
    replace(rustix::stdio::stdout(), rustix::stdio::dup2_stdout)?;
    replace(rustix::stdio::stderr(), rustix::stdio::dup2_stderr)
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

/// The shell's way into the user namespace, as its root.
const ENTER: &str = "nsenter -U/proc/self/fd/6 -S 0 -G 0";

/// The same for one command.
fn inside() -> String {
    format!("\ninside() {{ {ENTER} \"$@\"; }}")
}

/// What makes a file in the image: through a mapped mount only one of the container's users can.
pub(crate) fn make(mapped: bool, shell: &str) -> String {
    if mapped { format!("inside {shell}") } else { shell.to_owned() }
}

/// The shell's root makes files that are its own.
fn given_to(owner: u32, path: &str) -> String {
    if owner == 0 { String::new() } else { format!("\nchown -h {owner}:{owner} {path}") }
}

/// Text of an act's script, to choose a here-document's last line that is not in it.
pub(crate) fn occurs(acts: &[Act], word: &str) -> bool {
    acts.iter().any(|act| say::Act::say(act).shell.lines().any(|line| line == word))
}

/// `-` and friends need no care in a word list, but an empty path does.
pub(crate) fn is_plain_word(word: &OsString) -> bool {
    !word.as_bytes().contains(&b'/')
}
