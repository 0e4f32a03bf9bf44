//! From what was typed and what the image says to the list of acts. Nothing is done here.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use bocker_common::userns::COUNT;
use bocker_common::{Error, Result};
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};

use crate::act::{self, Act, CGROUP2, Exec, MQUEUE, Namespaces, OurFile, PROC, PTS, SHM, SYS, SYS_OPEN, Wait};
use crate::args::{Args, Cgroupns};
use crate::config::{self, Config};
use crate::environment::Environment;
use crate::inroot::Root;
use crate::mounts::{self, Source};
use crate::payload;
use crate::user::{self, User};
use crate::walls::Wall;

/// Files that are ours, and where they go.
const OURS: [(&str, &str); 3] =
    [("resolv.conf", "/etc/resolv.conf"), ("hosts", "/etc/hosts"), ("hostname", "/etc/hostname")];

/// The acts in order.
#[derive(Debug)]
pub struct Plan {
    /// The supervisor's, before it forks.
    pub outer: Vec<Act>,
    /// The child's; the last one is the `execve(2)`.
    pub inner: Vec<Act>,
    /// The end of the script.
    pub wait: Vec<Act>,
}

/// The plan of a new container.
///
/// # Errors
/// A configuration or user database that makes no sense; no command.
pub fn run(
    dir: &Path,
    args: &Args,
    config: &Config,
    root: &Root,
    users: Option<u32>,
    sources: &[Source],
) -> Result<Plan> {
    let user = who(args, config, root, users)?;
    // Whose the container's root is on the host.
    let owner = users.unwrap_or(0);
    let hostname = match &args.hostname {
        Some(name) => OsString::from(name),
        None => nix::unistd::gethostname().map_err(|e| Error::new("read", "the host name", e))?,
    };
    let files = our_files(args, &hostname.to_string_lossy())?;
    let how = How { joined: false, users: users.is_some() };
    let mut exec = exec(args, config, &user, &hostname, root, how)?;
    for name in ["proc", "sys", "dev"] {
        // The acts look again; a script could not.
        let refused = |e| Error::new("mount", format!("/{name}"), crate::inroot::no_directory(e));
        root.could_be_own_directory(name).map_err(refused)?;
    }

    // The order is the safety: what the walls of the container need comes before them, and nothing of the image
    // is executed before all of them are up.
    let mut inner = vec![Act::Private, Act::Root { dir: dir.to_owned(), mapped: users.is_some() }];
    inner.extend(args.hostname.clone().map(Act::Hostname));
    let (early, late) = mounts::plan(sources, root, users, &OURS.map(|(_, at)| at))?;
    inner.extend(early.into_iter().map(Act::Attach));
    inner.push(Act::Files(files, owner));
    for (name, at) in OURS {
        // Only the shell needs it; the act itself resolves again.
        let told = args.explain.explain || args.explain.dry_run;
        let real = if told { real(root, at)? } else { PathBuf::from(at) };
        inner.push(Act::File { name, at, real, mapped: users.is_some() });
    }
    inner.push(Act::FilesDone);
    let sys = if args.walls.privileged { &SYS_OPEN } else { &SYS };
    inner.extend([Act::Mount(&PROC, owner), Act::Mount(sys, owner)]);
    if private_cgroups(args.cgroupns) && is_cgroup2() {
        inner.push(Act::Mount(&CGROUP2, owner));
    }
    inner.extend([Act::Dev(owner), Act::Mount(&PTS, owner), Act::Mount(&SHM, owner), Act::Mount(&MQUEUE, owner)]);
    inner.extend(args.walls.in_dev(owner)?.map(Act::Wall));
    inner.extend(late.into_iter().map(Act::Attach));
    // What follows is the here-document of the shell's terminal.
    let before = inner.len();
    inner.push(Act::Pivot);
    // By the host's root: all that mounts.
    inner.extend(args.walls.as_host_root().into_iter().map(Act::Wall));
    let (workdir, become_user) = identity(args, config, &user, how);
    inner.push(workdir);
    if args.walls.read_only {
        // After the working directory, which may have to be made.
        inner.push(Act::Wall(Wall::ReadOnly));
    }
    inner.push(Act::Streams { uid: owner + user.uid, gid: owner + user.gid });
    inner.extend(users.map(|_| Act::EnterUsers { joined: false, mounts: args.walls.capabilities().has("SYS_ADMIN") }));
    // By the container's root, who soon has less of it.
    inner.extend(args.walls.as_container_root(false, how.users)?.into_iter().map(Act::Wall));
    inner.push(become_user);
    inner.push(Act::Exec(exec.clone()));
    if args.terminal.tty {
        let end = unused("TTY", 'Y', &inner);
        exec.terminal = Some(end.clone());
        inner.pop();
        inner.push(Act::Exec(exec));
        inner.insert(before, Act::Terminal { uid: owner + user.uid, joined: false, end, mapped: users.is_some() });
    }

    let (log, status) = (args.log.is_some(), args.status.is_some());
    let end = unused("EOF", 'F', &inner);
    let spaces = Namespaces {
        cgroup: private_cgroups(args.cgroupns),
        log,
        status,
        status_fd: args.process.status_fd,
        groups: user.groups,
        bounding: args.walls.bounding(how.users),
        end: end.clone(),
    };
    inner.insert(0, Act::Namespaces(spaces));
    let detach = args.process.detach.then_some(Act::Detach);
    let users_act = users.map(|start| Act::Users { start });
    let status_act = args.status.clone().map(|file| Act::Status { file });
    let log_act = args.log.clone().map(|file| Act::Log { file });
    Ok(Plan {
        outer: detach.into_iter().chain(users_act).chain(status_act).chain(log_act).collect(),
        inner,
        wait: vec![Act::Wait(Wait {
            log,
            status: args.status.clone(),
            end,
            status_fd: args.process.status_fd,
            detached: args.process.detach,
            then: args.process.then.clone(),
        })],
    })
}

/// The plan of a join. `root` is the running container's.
///
/// # Errors
/// As for [`run`].
pub fn join(pid: i32, args: &Args, config: &Config, root: &Root, users: Option<u32>) -> Result<Plan> {
    let user = who(args, config, root, users)?;
    // As the container was told at its start.
    let hostname = root.read("/etc/hostname", 255).ok().flatten().unwrap_or_default();
    let name: Vec<u8> = hostname.into_iter().take_while(|&b| b > b' ').collect();
    let how = How { joined: true, users: users.is_some() };
    let mut exec = exec(args, config, &user, &OsString::from_vec(name), root, how)?;
    let (workdir, become_user) = identity(args, config, &user, how);
    let owner = users.unwrap_or(0);
    let mut inner: Vec<Act> = args.walls.of_a_process().into_iter().map(Act::Wall).collect();
    inner.extend([workdir, Act::Streams { uid: owner + user.uid, gid: owner + user.gid }]);
    inner.extend(users.map(|_| Act::EnterUsers { joined: true, mounts: false }));
    inner.extend(args.walls.as_container_root(true, how.users)?.into_iter().map(Act::Wall));
    inner.extend([become_user, Act::Exec(exec.clone())]);
    let mut outer = vec![Act::Wall(args.walls.oom_score()), Act::Join { pid, users: users.is_some() }];
    if args.terminal.tty {
        let end = unused("TTY", 'Y', &inner);
        exec.terminal = Some(end.clone());
        inner.pop();
        inner.push(Act::Exec(exec));
        outer.insert(0, Act::Terminal { uid: owner + user.uid, joined: true, end, mapped: users.is_some() });
    }
    Ok(Plan { outer, inner, wait: Vec::new() })
}

/// A last line for a here-document: `word`, longer by `more` as long as the acts have such a line.
fn unused(word: &str, more: char, acts: &[Act]) -> String {
    let mut end = word.to_owned();
    while act::occurs(acts, &end) {
        end.push(more);
    }
    end
}

/// The user, who must be one that the container has.
fn who(args: &Args, config: &Config, root: &Root, users: Option<u32>) -> Result<User> {
    let spec = args.user.as_deref().or(config.user.as_deref()).unwrap_or_default();
    let user = user::find(spec, root)?;
    match [user.uid, user.gid].iter().chain(&user.groups).find(|id| users.is_some() && **id >= COUNT) {
        Some(id) => {
            Err(Error::new("user", format!("'{spec}'"), format!("{id} is none of the container's {COUNT} ids"))
                .hint("--userns=host has them all"))
        }
        None => Ok(user),
    }
}

/// The working directory as root, for it may have to be made; then the user.
fn identity(args: &Args, config: &Config, user: &User, how: How) -> (Act, Act) {
    let joined = how.joined;
    let image = config.working_dir.as_ref().map(OsString::from);
    let dir = args.workdir.clone().or(image).filter(|dir| !dir.is_empty());
    let dir = dir.unwrap_or_else(|| "/".into());
    let user = Act::User { uid: user.uid, gid: user.gid, groups: user.groups.clone(), joined };
    (Act::Workdir { dir, joined, mapped: how.users }, user)
}

/// What the shell's words depend on.
#[derive(Clone, Copy)]
struct How {
    joined: bool,
    users: bool,
}

fn exec(args: &Args, config: &Config, user: &User, hostname: &OsStr, root: &Root, how: How) -> Result<Exec> {
    let words = config::command(&args.command, config)?;
    let image = config.env.as_deref().unwrap_or_default();
    let env = Environment::new(&user.home, hostname, args.terminal.tty, image, &args.env)?;
    let told = args.explain.explain || args.explain.dry_run;
    let found = match words.first() {
        Some(word) if told && act::is_plain_word(word) => payload::find(root, word, env.path()),
        word => word.cloned().unwrap_or_default(),
    };
    let ids = ((user.uid, user.gid) != (0, 0)).then_some((user.uid, user.gid));
    let How { joined, users } = how;
    let last = args.walls.last_words(users);
    let init = args.process.init && !joined;
    Ok(Exec { words, env, found, joined, users, status: args.status.is_some(), ids, last, terminal: None, init })
}

fn our_files(args: &Args, hostname: &str) -> Result<Vec<OurFile>> {
    Ok(vec![
        OurFile { name: "resolv.conf", text: args.resolver.resolv_conf()? },
        OurFile { name: "hosts", text: args.resolver.hosts_text(hostname)? },
        OurFile { name: "hostname", text: format!("{hostname}\n") },
    ])
}

fn real(root: &Root, at: &str) -> Result<PathBuf> {
    root.canonical(at).map_err(|e| Error::new("mount", at, crate::inroot::no_file(e)))
}

/// On v1 the caller's, as docker and podman do, and as the original's `/proc/self/cgroup` shows.
fn private_cgroups(asked: Cgroupns) -> bool {
    match asked {
        Cgroupns::Host => false,
        Cgroupns::Private => true,
        Cgroupns::Auto => is_cgroup2(),
    }
}

#[expect(clippy::disallowed_methods, reason = "the host's cgroup file system")]
fn is_cgroup2() -> bool {
    statfs("/sys/fs/cgroup").is_ok_and(|fs| fs.filesystem_type() == CGROUP2_SUPER_MAGIC)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bocker_common::say::Explain;

    fn args() -> Args {
        Args {
            mode: crate::args::Mode::Run("/".into()),
            config: None,
            log: None,
            status: None,
            hostname: Some("h".into()),
            resolver: crate::resolver::Resolver::default(),
            cgroupns: Cgroupns::Private,
            joins_own_users: false,
            userns: bocker_common::userns::Userns::Private,
            uids: None,
            env: Vec::new(),
            env_fd: None,
            workdir: None,
            user: Some("1:2".into()),
            die_with_parent: None,
            walls: crate::walls::Walls::default(),
            terminal: crate::terminal::TerminalOptions::default(),
            attach: crate::attach::AttachOptions::default(),
            process: crate::process::Options::default(),
            mounts: mounts::Mounts::default(),
            explain: Explain::default(),
            command: vec!["true".into()],
        }
    }

    fn plan(args: &Args, config: &Config) -> Plan {
        let root = Root::new(std::fs::File::open("/").unwrap().into());
        run(Path::new("/r"), args, config, &root, Some(1 << 20), &args.mounts.open(None, false).unwrap()).unwrap()
    }

    #[test]
    fn nothing_of_the_image_comes_before_the_walls() {
        let inner = plan(&args(), &Config::default()).inner;
        let at = |wanted: fn(&Act) -> bool| inner.iter().position(wanted).unwrap();
        let pivot = at(|a| matches!(a, Act::Pivot));
        assert_eq!(at(|a| matches!(a, Act::Namespaces(_))), 0);
        assert_eq!(at(|a| matches!(a, Act::Private)), 1);
        assert!(pivot < at(|a| matches!(a, Act::Workdir { .. })));
        let masks = at(|a| matches!(a, Act::Wall(Wall::Masks)));
        let capabilities = at(|a| matches!(a, Act::Wall(Wall::Capabilities { .. })));
        assert!(pivot < masks && masks < capabilities);
        assert!(capabilities < at(|a| matches!(a, Act::Wall(Wall::Seccomp(_)))));
        assert!(capabilities < at(|a| matches!(a, Act::User { .. })));
        assert!(at(|a| matches!(a, Act::User { .. })) == inner.len() - 2);
        assert!(matches!(inner.last(), Some(Act::Exec(_))));
        assert!(inner.iter().all(|a| !matches!(a, Act::Mount(..)) || at(|b| matches!(b, Act::Dev(_))) < pivot));
    }

    #[test]
    fn an_image_cannot_end_the_here_document() {
        let config = Config { working_dir: Some("/a\nEOF\nreboot\n".into()), ..Config::default() };
        let mut args = args();
        args.env = vec!["A=\nEOFF\nreboot".into()];
        let Act::Wait(wait) = &plan(&args, &config).wait[0] else { unreachable!() };
        assert_eq!(wait.end, "EOFFF");
    }
}
