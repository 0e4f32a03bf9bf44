//! From what was typed and what the image says to the list of acts. Nothing is done here.

use std::ffi::{OsStr, OsString};
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use bocker_common::{Error, Result};
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};

use crate::act::{self, Act, Exec, MQUEUE, Namespaces, OurFile, PROC, PTS, SHM, SYS, Wait};
use crate::args::{Args, Cgroupns};
use crate::config::{self, Config};
use crate::environment::Environment;
use crate::inroot::Root;
use crate::payload;
use crate::user::{self, User};

/// The original's.
const NAMESERVER: IpAddr = IpAddr::V4(Ipv4Addr::new(8, 8, 8, 8));

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
pub fn run(dir: &Path, args: &Args, config: &Config, root: &Root) -> Result<Plan> {
    let user = user::find(spec(args, config), root)?;
    let hostname = match &args.hostname {
        Some(name) => OsString::from(name),
        None => nix::unistd::gethostname().map_err(|e| Error::new("read", "the host name", e))?,
    };
    let files = our_files(args, &hostname.to_string_lossy());
    let exec = exec(args, config, &user, &hostname, root, false)?;
    for name in ["proc", "sys", "dev"] {
        // The acts look again; a script could not.
        let refused = |e| Error::new("mount", format!("/{name}"), crate::inroot::no_directory(e));
        root.could_be_own_directory(name).map_err(refused)?;
    }

    // The order is the safety: what the walls of the container need comes before them, and nothing of the image
    // is executed before all of them are up. Masks, capabilities and seccomp belong between Pivot and Exec.
    let mut inner = vec![Act::Private, Act::Root { dir: dir.to_owned() }];
    inner.extend(args.hostname.clone().map(Act::Hostname));
    inner.push(Act::Files(files));
    for (name, at) in [("resolv.conf", "/etc/resolv.conf"), ("hosts", "/etc/hosts"), ("hostname", "/etc/hostname")] {
        // Only the shell needs it; the act itself resolves again.
        let told = args.explain.explain || args.explain.dry_run;
        let real = if told { real(root, at)? } else { PathBuf::from(at) };
        inner.push(Act::File { name, at, real });
    }
    inner.push(Act::FilesDone);
    inner.extend([
        Act::Mount(&PROC),
        Act::Mount(&SYS),
        Act::Dev,
        Act::Mount(&PTS),
        Act::Mount(&SHM),
        Act::Mount(&MQUEUE),
    ]);
    inner.push(Act::Pivot);
    inner.extend(identity(args, config, &user, false));
    inner.push(Act::Exec(exec));

    let (log, status) = (args.log.is_some(), args.status.is_some());
    let mut end = "EOF".to_owned();
    while act::occurs(&inner, &end) {
        end.push('F');
    }
    let spaces =
        Namespaces { cgroup: private_cgroups(args.cgroupns), log, status, groups: user.groups, end: end.clone() };
    inner.insert(0, Act::Namespaces(spaces));
    let status_act = args.status.clone().map(|file| Act::Status { file });
    let log_act = args.log.clone().map(|file| Act::Log { file });
    Ok(Plan {
        outer: status_act.into_iter().chain(log_act).collect(),
        inner,
        wait: vec![Act::Wait(Wait { log, status: args.status.clone(), end })],
    })
}

/// The plan of a join. `root` is the running container's.
///
/// # Errors
/// As for [`run`].
pub fn join(pid: i32, args: &Args, config: &Config, root: &Root) -> Result<Plan> {
    let user = user::find(spec(args, config), root)?;
    // As the container was told at its start.
    let hostname = root.read("/etc/hostname", 255).ok().flatten().unwrap_or_default();
    let name: Vec<u8> = hostname.into_iter().take_while(|&b| b > b' ').collect();
    let exec = exec(args, config, &user, &OsString::from_vec(name), root, true)?;
    let mut inner: Vec<Act> = identity(args, config, &user, true).collect();
    inner.push(Act::Exec(exec));
    Ok(Plan { outer: vec![Act::Join { pid }], inner, wait: Vec::new() })
}

fn spec<'a>(args: &'a Args, config: &'a Config) -> &'a str {
    args.user.as_deref().or(config.user.as_deref()).unwrap_or_default()
}

/// The working directory as root, for it may have to be made; then the user.
fn identity(args: &Args, config: &Config, user: &User, joined: bool) -> impl Iterator<Item = Act> {
    let image = config.working_dir.as_ref().map(OsString::from);
    let dir = args.workdir.clone().or(image).filter(|dir| !dir.is_empty());
    let dir = dir.unwrap_or_else(|| "/".into());
    let user = Act::User { uid: user.uid, gid: user.gid, groups: user.groups.clone(), joined };
    [Act::Workdir { dir, joined }, user].into_iter()
}

fn exec(args: &Args, config: &Config, user: &User, hostname: &OsStr, root: &Root, joined: bool) -> Result<Exec> {
    let words = config::command(&args.command, config)?;
    let image = config.env.as_deref().unwrap_or_default();
    let env = Environment::new(&user.home, hostname, image, &args.env)?;
    let told = args.explain.explain || args.explain.dry_run;
    let found = match words.first() {
        Some(word) if told && act::is_plain_word(word) => payload::find(root, word, env.path()),
        word => word.cloned().unwrap_or_default(),
    };
    let ids = ((user.uid, user.gid) != (0, 0)).then_some((user.uid, user.gid));
    Ok(Exec { words, env, found, joined, status: args.status.is_some(), ids })
}

fn our_files(args: &Args, hostname: &str) -> Vec<OurFile> {
    let servers = if args.nameservers.is_empty() { &[NAMESERVER][..] } else { &args.nameservers };
    let resolv: String = servers.iter().map(|ip| format!("nameserver {ip}\n")).collect();
    let mut hosts = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n".to_owned();
    if let Some(address) = args.address {
        hosts += &format!("{address}\t{hostname}\n");
    }
    vec![
        OurFile { name: "resolv.conf", text: resolv },
        OurFile { name: "hosts", text: hosts },
        OurFile { name: "hostname", text: format!("{hostname}\n") },
    ]
}

fn real(root: &Root, at: &str) -> Result<PathBuf> {
    root.canonical(at).map_err(|e| Error::new("mount", at, crate::inroot::no_file(e)))
}

/// On v1 the caller's, as docker and podman do, and as the original's `/proc/self/cgroup` shows.
#[expect(clippy::disallowed_methods, reason = "the host's cgroup file system")]
fn private_cgroups(asked: Cgroupns) -> bool {
    match asked {
        Cgroupns::Host => false,
        Cgroupns::Private => true,
        Cgroupns::Auto => statfs("/sys/fs/cgroup").is_ok_and(|fs| fs.filesystem_type() == CGROUP2_SUPER_MAGIC),
    }
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
            address: Some("10.0.0.45".parse().unwrap()),
            nameservers: Vec::new(),
            cgroupns: Cgroupns::Private,
            env: Vec::new(),
            workdir: None,
            user: Some("1:2".into()),
            die_with_parent: None,
            explain: Explain::default(),
            command: vec!["true".into()],
        }
    }

    fn plan(args: &Args, config: &Config) -> Plan {
        let root = Root::new(std::fs::File::open("/").unwrap().into());
        run(Path::new("/r"), args, config, &root).unwrap()
    }

    #[test]
    fn nothing_of_the_image_comes_before_the_walls() {
        let inner = plan(&args(), &Config::default()).inner;
        let at = |wanted: fn(&Act) -> bool| inner.iter().position(wanted).unwrap();
        let pivot = at(|a| matches!(a, Act::Pivot));
        assert_eq!(at(|a| matches!(a, Act::Namespaces(_))), 0);
        assert_eq!(at(|a| matches!(a, Act::Private)), 1);
        assert!(pivot < at(|a| matches!(a, Act::Workdir { .. })));
        assert!(at(|a| matches!(a, Act::User { .. })) == inner.len() - 2);
        assert!(matches!(inner.last(), Some(Act::Exec(_))));
        assert!(inner.iter().all(|a| !matches!(a, Act::Mount(_)) || at(|b| matches!(b, Act::Dev)) < pivot));
    }

    #[test]
    fn the_files_say_who_we_are() {
        let files = our_files(&args(), "h");
        assert_eq!(files[0].text, "nameserver 8.8.8.8\n");
        assert!(files[1].text.ends_with("10.0.0.45\th\n"));
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
