//! What keeps a container in besides its namespaces: the options, and the acts that they make.

use bocker_common::say::{Said, quote};
use bocker_common::{Error, Result};
use nix::errno::Errno;
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use seccompiler::sock_filter;

use crate::caps::{self, Bounded, Capabilities};
use crate::devices::{self, Device, Wanted};
use crate::inroot::{Root, errno};
use crate::rlimits::{self, Limit};
use crate::seccomp::{self, Filter, Seccomp};
use crate::{masks, sys};

/// The walls, as typed.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Walls {
    /// Leave root inside this capability, besides the eleven; or ALL; repeatable
    #[arg(long, value_name = "CAP", value_parser = caps::name)]
    pub cap_add: Vec<caps::Name>,
    /// Take this capability away; or ALL; repeatable
    #[arg(long, value_name = "CAP", value_parser = caps::name)]
    pub cap_drop: Vec<caps::Name>,
    /// No walls but the namespaces: all capabilities, all system calls, the host's devices, /proc and /sys open
    #[arg(long)]
    pub privileged: bool,
    /// Which system calls there are: ours, all, or docker's JSON [default: default]
    #[arg(long, value_name = "default|unconfined|FILE", value_parser = |word: &str| Ok::<_, String>(Seccomp::from(word)))]
    pub seccomp: Option<Seccomp>,
    /// No setuid program gains anything
    #[arg(long)]
    pub no_new_privileges: bool,
    /// The root file system cannot be written to; what is mounted on it can
    #[arg(long)]
    pub read_only: bool,
    /// A resource limit, nofile=1024:4096; -1: none; repeatable [default: nofile=1024:524288, core=0]
    #[arg(long, value_name = "NAME=SOFT[:HARD]", value_parser = rlimits::limit)]
    pub ulimit: Vec<Limit>,
    /// A device of the host's; repeatable. The device cgroup has its own word in who may use it
    #[arg(long, value_name = "HOST[:INSIDE[:rwm]]", value_parser = devices::wanted)]
    pub device: Vec<Wanted>,
    /// -1000 to 1000: how soon the kernel kills it when memory runs out [default: 0]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = clap::value_parser!(i32).range(-1000..=1000))]
    pub oom_score_adj: Option<i32>,
}

impl Walls {
    /// Those of root inside.
    pub fn capabilities(&self) -> Capabilities {
        Capabilities::new(self.privileged, &self.cap_add, &self.cap_drop)
    }

    /// What `/dev` has besides our own, while it is being made. `owner` is the host's id of the container's root.
    ///
    /// # Errors
    /// One line: no such device.
    pub fn in_dev(&self, owner: u32) -> Result<Option<Wall>> {
        let mut all = if self.privileged { devices::all()? } else { Vec::new() };
        for wanted in &self.device {
            all.push(wanted.device()?);
        }
        Ok((!all.is_empty()).then_some(Wall::Devices { devices: all, owner }))
    }

    /// In the new root, by the host's root, who may mount and raise limits.
    pub fn as_host_root(&self) -> Vec<Wall> {
        let mut all = Vec::new();
        if !self.privileged {
            all.push(Wall::Masks);
        }
        all.push(self.oom_score());
        all.extend(self.of_a_process());
        all
    }

    /// Of every process, a joined one's too: it inherits the caller's.
    pub fn oom_score(&self) -> Wall {
        Wall::OomScore { score: self.oom_score_adj.unwrap_or(0), asked: self.oom_score_adj.is_some() }
    }

    /// Of these, what every process gets that joins.
    pub fn of_a_process(&self) -> [Wall; 2] {
        [Wall::Keyring, Wall::Limits(rlimits::all(&self.ulimit))]
    }

    /// In the container's user namespace, before the user is changed. What this prepares is finished by [`Last::finish`].
    ///
    /// # Errors
    /// One line: a seccomp profile that makes no sense.
    pub fn as_container_root(&self, joined: bool, users: bool) -> Result<Vec<Wall>> {
        let capabilities = self.capabilities();
        let mut all = vec![Wall::Capabilities { capabilities, joined, users }];
        if self.no_new_privileges {
            all.push(Wall::NoNewPrivileges { joined });
        }
        let seccomp = match (&self.seccomp, self.privileged) {
            (Some(asked), _) => asked.clone(),
            (None, true) => Seccomp::Unconfined,
            (None, false) => Seccomp::Default,
        };
        all.extend(seccomp::filter(&seccomp, capabilities)?.map(Wall::Seccomp));
        Ok(all)
    }

    /// The bounding set for the shell's setpriv(1), if it is not everything. A user namespace begins with a full one again, and
    /// busybox has no word for it.
    pub(crate) fn bounding(&self, users: bool) -> Option<String> {
        self.capabilities().bounding().filter(|_| !users)
    }

    /// The last program before the payload in the shell's script, which gives up what the script needed.
    pub(crate) fn last_words(&self, users: bool) -> Vec<String> {
        let given_up: Vec<String> = caps::SCRIPT.iter().map(|name| format!("-{name}")).collect();
        let mut words = Vec::new();
        if self.bounding(users).is_some() {
            words.push(format!("--inh-caps={}", given_up.join(",")));
        }
        if self.no_new_privileges {
            words.push("--nnp".to_owned());
        }
        words
    }
}

/// One wall.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wall {
    /// Nodes of the host's devices.
    Devices {
        /// Which.
        devices: Vec<Device>,
        /// The host's id of the container's root, for the shell's words.
        owner: u32,
    },
    /// Paths of `/proc` and `/sys`.
    Masks,
    /// `--read-only`
    ReadOnly,
    /// A session keyring.
    Keyring,
    /// Resource limits.
    Limits(Vec<Limit>),
    /// `/proc/self/oom_score_adj`
    OomScore {
        /// The value.
        score: i32,
        /// By `--oom-score-adj`.
        asked: bool,
    },
    /// The bounding set, now; the others at the end.
    Capabilities {
        /// Which.
        capabilities: Capabilities,
        /// Whether this is a join, for the shell's words.
        joined: bool,
        /// Whether there is a user namespace, for the same.
        users: bool,
    },
    /// `PR_SET_NO_NEW_PRIVS`
    NoNewPrivileges {
        /// Whether this is a join, for the shell's words.
        joined: bool,
    },
    /// The system call filter, at the end.
    Seccomp(Filter),
}

impl Wall {
    pub(crate) fn say(&self) -> Said {
        match self {
            Self::Devices { devices, owner } => {
                let all: Vec<String> = devices.iter().map(|device| device.shell(*owner)).collect();
                Said::new(all.join("\n"), "nodes of the host's devices; the device cgroup decides who may open them")
            }
            Self::Masks => Said::new(
                masks::shell(),
                "the host's kernel and hardware: not seen, or not written to. Root inside has the user ID for it",
            ),
            Self::ReadOnly => Said::new(
                "mount -o remount,bind,ro /",
                "--read-only; /dev, /proc, our three files and volumes are other mounts",
            ),
            Self::Keyring => Said::new(
                ":",
                "a session keyring of its own: a process inherits the caller's, with the keys in it (keyctl session - has to be \
                 the script's first word, where there is keyutils)",
            ),
            Self::Limits(limits) => {
                let all: Vec<String> = limits.iter().map(|limit| limit.shell()).collect();
                Said::new(all.join("\n"), "resource limits; the hard ones go down only")
            }
            Self::OomScore { score, asked } => Said::new(
                format!(
                    "echo {score} {}>/proc/self/oom_score_adj{}",
                    if *asked { "" } else { "2>/dev/null " },
                    if *asked { "" } else { " || :" }
                ),
                "who is killed first when memory runs out; not what the caller is protected by",
            ),
            Self::Capabilities { joined: false, users: false, .. } => Said::new(
                ":",
                "capabilities: the bounding set was set before unshare, what is inheritable goes with the last exec; so the \
                 payload has the bounding set if it is root, else nothing",
            ),
            Self::Capabilities { capabilities, .. } => Said::new(
                ":",
                format!(
                    "capabilities {:x} (no tool that is left here has a word for it: this script gives all, of its namespace)",
                    capabilities.mask
                ),
            ),
            Self::NoNewPrivileges { joined } => Said::new(
                if *joined { "set -- setpriv --no-new-privs \"$@\"" } else { ":" },
                "setuid programs and file capabilities give nothing from here on",
            ),
            Self::Seccomp(filter) => Said::new(
                ":",
                format!(
                    "system calls: {} ({} instructions of BPF) is loaded last. No tool of the shell can do that",
                    quote(&filter.name),
                    filter.program.len()
                ),
            ),
        }
    }

    /// Those that a process sets for itself, and so for its next children; before a join, for there /proc is the container's.
    ///
    /// # Errors
    /// One line.
    pub(crate) fn apply_to_children(&self) -> Result<()> {
        match self {
            Self::OomScore { score, asked } => scored(crate::protect::set(*score), *asked),
            _ => Ok(()),
        }
    }

    pub(crate) fn apply(&self, root: &Root, last: &mut Last) -> Result<()> {
        match self {
            Self::Devices { devices, .. } => devices.iter().try_for_each(|device| device.make(root)),
            Self::Masks => masks::put(root),
            Self::ReadOnly => masks::read_only(root).map_err(|e| Error::new("make read-only", "/", e)),
            Self::Keyring => match sys::new_keyring() {
                // A kernel without keys has nothing to hide.
                Err(Errno::ENOSYS) => Ok(()),
                done => done.map_err(|e| Error::new("make", "a session keyring", e)),
            },
            Self::Limits(limits) => limits.iter().try_for_each(|limit| limit.set()),
            Self::OomScore { score, asked } => scored(oom_score(root, *score), *asked),
            Self::Capabilities { capabilities, .. } => {
                last.bounded = Some(capabilities.bound()?);
                Ok(())
            }
            Self::NoNewPrivileges { .. } => {
                last.no_new_privileges = true;
                rustix::thread::set_no_new_privs(true).map_err(|e| Error::new("set", "no_new_privs", errno(e)))
            }
            Self::Seccomp(filter) => {
                last.filter = Some(filter.program.clone());
                Ok(())
            }
        }
    }
}

fn scored(done: nix::Result<()>, asked: bool) -> Result<()> {
    match done {
        // To be killed later than now takes CAP_SYS_RESOURCE.
        Err(Errno::EACCES | Errno::EPERM) if !asked => Ok(()),
        done => done.map_err(|e| Error::new("set", "oom_score_adj", e)),
    }
}

fn oom_score(root: &Root, score: i32) -> nix::Result<()> {
    let own = format!("{}/oom_score_adj", nix::unistd::getpid());
    let proc = root.own_directory("proc")?;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let file = rustix::fs::openat2(proc, own, flags, Mode::empty(), resolve).map_err(errno)?;
    rustix::io::write(file, score.to_string().as_bytes()).map(drop).map_err(errno)
}

/// What is left for the moment before `execve(2)`, when nothing of ours is to be done any more that the filter could refuse.
#[derive(Debug, Default)]
pub struct Last {
    bounded: Option<Bounded>,
    no_new_privileges: bool,
    filter: Option<Vec<sock_filter>>,
}

impl Last {
    /// The filter, then the capabilities: the other way round only no_new_privs would let us load it. So whatever filter it
    /// is has to allow capset(2) and execve(2), else nothing runs.
    ///
    /// # Errors
    /// One line.
    pub fn finish(&mut self) -> Result<()> {
        if let Some(filter) = self.filter.take() {
            if let (Some(bounded), false) = (&self.bounded, self.no_new_privileges) {
                bounded.raise()?;
            }
            sys::load_filter(&filter).map_err(|e| Error::new("load", "the system call filter", e))?;
        }
        self.bounded.take().map_or(Ok(()), Bounded::drop)
    }
}

/// A directory of the host's as stdin, stdout or stderr is a way out: `openat(0, "../../..")`. Nothing reads or writes one.
///
/// # Errors
/// One line: which.
pub fn no_directories() -> Result<()> {
    let streams =
        [(rustix::stdio::stdin(), "stdin"), (rustix::stdio::stdout(), "stdout"), (rustix::stdio::stderr(), "stderr")];
    for (stream, name) in streams {
        let stat = rustix::fs::fstat(stream).map_err(|e| Error::new("look at", name, errno(e)))?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            return Err(Error::new("pass on", name, "it is a directory, which leads out of the container"));
        }
    }
    Ok(())
}
