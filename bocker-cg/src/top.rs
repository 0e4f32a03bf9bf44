//! `top`: the processes of a container, from the host's `/proc`. Nothing of the container is run, and what its processes
//! call themselves is shown with its control characters spelled out.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::Read;
use std::path::Path;

use bocker_common::diag::printable;
use bocker_common::{Error, Result};
use serde::Serialize;

use crate::act;
use crate::group;
use crate::layout::{Controller, Layout};
use crate::name::Name;

/// A process, as the host sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Process {
    pid: i32,
    ppid: i32,
    /// The name that the host's /etc/passwd has for it, else the number.
    user: String,
    /// Seconds of a processor that it has used.
    time: u64,
    /// Its words; what has none (a zombie) by its name in brackets, as ps has it.
    command: String,
    #[serde(skip)]
    inside: bool,
}

impl Process {
    /// As `--json`, or `PID\tPPID\tUSER\tTIME\tCOMMAND` with time as `H:MM:SS`.
    ///
    /// # Errors
    /// None that could be; serde's own.
    pub(crate) fn line(&self, json: bool) -> Result<String> {
        if json {
            return serde_json::to_string(self).map_err(|e| Error::new("write", "JSON", e.to_string()));
        }
        let (minutes, seconds) = (self.time / 60, self.time % 60);
        let time = format!("{}:{:02}:{seconds:02}", minutes / 60, minutes % 60);
        Ok([self.pid.to_string(), self.ppid.to_string(), printable(&self.user), time, printable(&self.command)]
            .join("\t"))
    }
}

/// Those in the container's cgroup and below, by number. Where some of them are in a PID namespace of their own, they are
/// the container, and the others (bocker-exec, which waits for it) are not shown.
///
/// # Errors
/// No such cgroup.
pub(crate) fn processes(layout: &Layout, id: Name) -> Result<Vec<Process>> {
    group::must_exist(layout, id)?;
    let mut dirs = Vec::new();
    // Whoever is in the container is in all of its hierarchies.
    group::leaves_first(&layout.dir_of(Controller::Memory, id), &mut dirs)?;
    let pids: BTreeSet<i32> = dirs.iter().flat_map(|dir| act::processes(dir)).map(nix::unistd::Pid::as_raw).collect();
    let users = users(&std::fs::read_to_string("/etc/passwd").unwrap_or_default());
    // Who has ended since is not shown.
    let all: Vec<Process> = pids.into_iter().filter_map(|pid| process(Path::new("/proc"), pid, &users)).collect();
    let some_inside = all.iter().any(|process| process.inside);
    Ok(all.into_iter().filter(|process| process.inside == some_inside).collect())
}

/// USER_HZ: what the kernel tells processes in, whatever it counts in itself.
const TICKS: u64 = 100;
/// Words may be of megabytes.
const MOST: u64 = 4096;

fn process(proc: &Path, pid: i32, users: &HashMap<u32, String>) -> Option<Process> {
    let dir = proc.join(pid.to_string());
    let read = |name: &str| {
        let mut bytes = Vec::new();
        File::open(dir.join(name)).and_then(|file| file.take(MOST).read_to_end(&mut bytes)).ok()?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    };
    // proc_pid_stat(5): the name is in parentheses, and may have some itself.
    let stat = read("stat")?;
    let (name, rest) = stat.split_once('(')?.1.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let number = |at: usize| fields.get(at - 3)?.parse::<u64>().ok();
    let status = read("status")?;
    let line = |key: &str| status.lines().find_map(|line| line.strip_prefix(key)).map(|rest| rest.split_whitespace());
    // Real, effective, saved, file system.
    let uid: u32 = line("Uid:")?.nth(1)?.parse().ok()?;
    let words = read("cmdline").unwrap_or_default();
    let words: Vec<&str> = words.trim_end_matches('\0').split('\0').collect();
    let command = words.join(" ");
    Some(Process {
        pid,
        ppid: i32::try_from(number(4)?).ok()?,
        user: users.get(&uid).cloned().unwrap_or_else(|| uid.to_string()),
        time: (number(14)? + number(15)?) / TICKS,
        command: if command.is_empty() { format!("[{name}]") } else { command },
        // Its number in each PID namespace from ours inwards.
        inside: line("NSpid:").is_some_and(|numbers| numbers.count() > 1),
    })
}

/// passwd(5), the host's; no library that asks a network.
fn users(passwd: &str) -> HashMap<u32, String> {
    let entry = |line: &str| {
        let mut fields = line.split(':');
        Some((fields.next()?.to_owned(), fields.nth(1)?.parse().ok()?))
    };
    let mut users = HashMap::new();
    for (name, uid) in passwd.lines().filter_map(entry) {
        users.entry(uid).or_insert(name);
    }
    users
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_cannot_write_on_the_terminal() {
        let dir = tempfile::tempdir().unwrap();
        let proc = |stat: &str, status: &str, cmdline: &[u8]| {
            let files = dir.path().join("7");
            std::fs::create_dir_all(&files).unwrap();
            for (name, bytes) in [("stat", stat.as_bytes()), ("status", status.as_bytes()), ("cmdline", cmdline)] {
                std::fs::write(files.join(name), bytes).unwrap();
            }
            process(dir.path(), 7, &users("root:x:0:0::/:/bin/sh\nme:x:1000:1:\nother:x:1000:1:\nbroken\n"))
        };
        let stat = "7 (a) S 1 \u{1b}[2J) S 5 7 7 0 -1 4194560 1 2 3 4 360000 6150 0 0 20 0 1 0 9";
        let one = proc(stat, "Name:\tx\nUid:\t0\t1000\t0\t0\nNSpid:\t7\t1\n", b"sh\0-c\0a\x1b[2J\tb\n\xff\0").unwrap();
        assert_eq!((one.ppid, one.time, one.inside), (5, 3661, true));
        assert_eq!(one.line(false).unwrap(), "7\t5\tme\t1:01:01\tsh -c a\\u{1b}[2J\\tb\\n\u{fffd}");
        assert!(one.line(true).unwrap().contains(r#""command":"sh -c a\u001b[2J\tb\n"#));
        let zombie = proc(stat, "Uid:\t9\t9\t9\t9\n", b"").unwrap();
        assert_eq!(zombie.line(false).unwrap(), "7\t5\t9\t1:01:01\t[a) S 1 \\u{1b}[2J]");
        assert!(!zombie.inside);
        assert_eq!(proc("7 (gone", "", b""), None);
        let long = proc(stat, "Uid:\t0\t0\t0\t0\n", &b"x".repeat(1 << 20)).unwrap();
        assert_eq!(long.command.len(), 4096);
    }
}
