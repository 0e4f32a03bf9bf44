//! `--doctor`: what this host has for containers, what it lacks, and what to do. Its probes leave nothing: a user namespace that ends
//! with it, a mount that is nowhere.

#![expect(clippy::disallowed_methods, reason = "/proc, /etc and the store of the host")]

use std::path::{Path, PathBuf};

use bocker_common::Result;
use bocker_common::doctor::{Findings, State};
use bocker_common::userns::{self, Ranges};
use nix::errno::Errno;
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::mount::{OpenTreeFlags, open_tree};
use rustix::process::{PidfdFlags, pidfd_open};

use crate::inroot::errno;
use crate::sys;

/// Prints the lines.
///
/// # Errors
/// Something is bad.
pub(crate) fn doctor() -> Result<()> {
    let mut all = Findings::default();
    if !nix::unistd::geteuid().is_root() {
        all.bad("rights", "containers are made by root: sudo");
    }
    let ranges = files(Path::new("/proc"), Path::new("/etc"), &mut all);
    users(ranges, &mut all);
    calls(&mut all);
    all.print()
}

/// What files tell: `proc` and `etc` are the host's. The ranges of ids that containers get.
fn files(proc: &Path, etc: &Path, all: &mut Findings) -> Option<Ranges> {
    let read = |name: &str| std::fs::read_to_string(proc.join(name)).ok();
    let number = |name: &str| read(name)?.trim().parse::<u64>().ok();
    let namespaces = [
        ("mnt", State::Bad),
        ("pid", State::Bad),
        ("uts", State::Bad),
        ("ipc", State::Bad),
        ("net", State::Bad),
        ("user", State::Bad),
        ("cgroup", State::Warn),
    ];
    let missing = |(name, _): &&(&str, State)| !proc.join("self/ns").join(name).exists();
    let lacking: Vec<_> = namespaces.iter().filter(missing).collect();
    if lacking.is_empty() {
        all.ok("namespaces", namespaces.map(|(name, _)| name).join(" "));
    }
    for (name, state) in lacking {
        all.add(
            *state,
            format!("{name} namespace"),
            format!("this kernel was built without it: CONFIG_{}_NS", name.to_uppercase()),
        );
    }
    match number("sys/user/max_user_namespaces") {
        Some(0) => {
            all.bad("user namespaces", "none is allowed: sysctl user.max_user_namespaces=10000, or --userns=host")
        }
        Some(most) => all.ok("user namespaces", format!("{most} at most")),
        None => {}
    }
    let actions = read("sys/kernel/seccomp/actions_avail").unwrap_or_default();
    if actions.split_whitespace().any(|action| action == "errno") {
        all.ok("seccomp", "system calls can be filtered");
    } else {
        all.bad("seccomp", "no filters: CONFIG_SECCOMP_FILTER; --seccomp unconfined goes without");
    }
    if proc.join("sys/kernel/keys").exists() {
        all.ok("keyrings", "each container has its own");
    } else {
        all.warn("keyrings", "none: CONFIG_KEYS");
    }
    match (number("sys/kernel/pty/nr"), number("sys/kernel/pty/max")) {
        (Some(now), Some(most)) if now + 1 >= most => {
            all.bad("terminals", format!("{now} of {most} are taken, so no --tty: sysctl kernel.pty.max={}", most * 2));
        }
        (Some(now), Some(most)) => all.ok("terminals", format!("{now} of {most}")),
        _ => all.bad("terminals", "none, so no --tty: CONFIG_UNIX98_PTYS"),
    }
    match number("sys/dev/tty/legacy_tiocsti") {
        Some(0) | None => all.ok("TIOCSTI", "nobody types on another's terminal, or this kernel has no such switch"),
        Some(_) => all.ok("TIOCSTI", "allowed; a container never gets the caller's terminal"),
    }
    let ranges = match Ranges::read(etc) {
        Ok(ranges) => ranges,
        Err(error) => {
            all.bad("ids of users", error);
            return None;
        }
    };
    let ids = ranges.ids();
    match overlapping(etc, &ids) {
        None => all.ok("ids of users", format!("{} to {} of the host are containers'", ids.start, ids.end - 1)),
        Some(line) => all.warn(
            "ids of users",
            format!("{} to {} are containers', and some of them somebody else's, too ({line}): bocker:START:COUNT in /etc/subuid and /etc/subgid", ids.start, ids.end - 1),
        ),
    }
    Some(ranges)
}

/// A line of subuid or subgid that gives others some of these ids, subuid(5).
fn overlapping(etc: &Path, ids: &std::ops::Range<u64>) -> Option<String> {
    let of = |name: &str| {
        let text = String::from_utf8_lossy(&std::fs::read(etc.join(name)).ok()?).into_owned();
        let overlaps = |line: &&str| {
            let mut words = line.split(':');
            let (Some(who), Some(Ok(start)), Some(Ok(count))) =
                (words.next(), words.next().map(str::parse::<u64>), words.next().map(str::parse::<u64>))
            else {
                return false;
            };
            who != "bocker" && start < ids.end && ids.start < start.saturating_add(count)
        };
        text.lines().find(overlaps).map(|line| format!("/etc/{name}: {line}"))
    };
    of("subuid").or_else(|| of("subgid"))
}

/// Makes what a container's users are made of.
fn users(ranges: Option<Ranges>, all: &mut Findings) {
    let Some(start) = ranges.and_then(|ranges| ranges.spare().next()) else { return };
    let made = match userns::make(start, false) {
        Ok(made) => made,
        Err(error) => return all.bad("a user namespace", error),
    };
    all.ok("a user namespace", "can be made");
    let store = std::env::var_os("BOCKER_ROOT")
        .filter(|root| !root.is_empty())
        .map_or_else(|| "/var/bocker".into(), PathBuf::from);
    if !store.is_dir() {
        return all.ok("mapped owners", format!("not known until there is a store at {}", store.display()));
    }
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let mapped = open_tree(rustix::fs::CWD, &store, flags).map_err(errno);
    match mapped.and_then(|mount| sys::idmap(std::os::fd::AsFd::as_fd(&mount), std::os::fd::AsFd::as_fd(&made.user))) {
        Ok(()) => all.ok("mapped owners", format!("the file system of {} can show them", store.display())),
        Err(Errno::EINVAL) => all.bad(
            "mapped owners",
            format!(
                "the file system of {} cannot, mount_setattr(2) (btrfs since Linux 5.15); --userns=host does without",
                store.display()
            ),
        ),
        Err(e) => all.bad("mapped owners", format!("{}: {}", store.display(), e.desc())),
    }
}

/// System calls that we do not go without.
fn calls(all: &mut Findings) {
    let here = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let openat2 = rustix::fs::openat2(rustix::fs::CWD, "/", here, Mode::empty(), ResolveFlags::IN_ROOT).map(drop);
    let pidfd = pidfd_open(rustix::process::getpid(), PidfdFlags::empty()).map(drop);
    let probes = [("openat2", "5.6", openat2), ("pidfd_open", "5.3", pidfd)];
    let failed: Vec<_> = probes.iter().filter_map(|(name, since, done)| Some((name, since, done.err()?))).collect();
    if failed.is_empty() {
        all.ok("system calls", probes.map(|(name, ..)| name).join(" "));
    }
    for (name, since, error) in failed {
        let reason = errno(error).desc();
        all.bad(
            name,
            format!(
                "{reason}: Linux {since} has it; a filter around us may forbid it (another container's, systemd's)"
            ),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_host_lacks_is_said_with_the_way_out() {
        let dir = std::env::temp_dir().join(format!("bocker-exec-doctor-{}", std::process::id()));
        let (proc, etc) = (dir.join("proc"), dir.join("etc"));
        let write = |file: &str, text: &str| {
            let file = dir.join(file);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, text).unwrap();
        };
        for name in ["mnt", "pid", "uts", "ipc", "net", "user", "cgroup"] {
            write(&format!("proc/self/ns/{name}"), "");
        }
        for (file, text) in [
            ("proc/sys/user/max_user_namespaces", "63000\n"),
            ("proc/sys/kernel/seccomp/actions_avail", "kill_process errno allow\n"),
            ("proc/sys/kernel/keys/maxkeys", "200\n"),
            ("proc/sys/kernel/pty/nr", "3\n"),
            ("proc/sys/kernel/pty/max", "4096\n"),
            ("proc/sys/dev/tty/legacy_tiocsti", "1\n"),
            ("etc/subuid", "me:100000:65536\n"),
        ] {
            write(file, text);
        }
        let said = || {
            let mut all = Findings::default();
            files(&proc, &etc, &mut all);
            all.lines().collect::<Vec<_>>().join("\n")
        };
        let well = said();
        assert!(well.lines().all(|line| line.starts_with("ok\t")) && well.lines().count() == 7, "{well}");
        std::fs::remove_file(proc.join("self/ns/cgroup")).unwrap();
        for (file, text, line) in [
            (
                "proc/sys/user/max_user_namespaces",
                "0\n",
                "bad\tuser namespaces\tnone is allowed: sysctl user.max_user_namespaces=",
            ),
            ("proc/sys/kernel/seccomp/actions_avail", "allow\n", "bad\tseccomp\tno filters"),
            (
                "proc/sys/kernel/pty/nr",
                "4095\n",
                "bad\tterminals\t4095 of 4096 are taken, so no --tty: sysctl kernel.pty.max=8192",
            ),
            ("etc/subgid", "you:1879048192:999999999\n", "warn\tids of users\t"),
        ] {
            write(file, text);
            let said = said();
            assert!(said.contains(line), "{line}: {said}");
        }
        assert!(said().contains("warn\tcgroup namespace\tthis kernel was built without it: CONFIG_CGROUP_NS"));
        assert!(said().contains("(/etc/subgid: you:1879048192:999999999)"));
        write("etc/subgid", "bocker:1:65536\n");
        assert!(said().contains("bad\tids of users\t"));
        std::fs::remove_dir_all(dir).unwrap();
    }
}
