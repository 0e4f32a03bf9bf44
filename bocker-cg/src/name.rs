//! Names of cgroups: a container's id, or of the process that `run` is.

use std::fmt;
use std::str::FromStr;

use bocker_common::{Error, Id, Result};

/// A cgroup of ours. Only well-formed names exist, so a name is safe as a path component.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Name {
    /// `ps_42045`
    Container(Id),
    /// `run_4711_123456`: of `bocker-cg run` with this process id, which began so many clock ticks after the boot. The two are
    /// no other process's, so who sees the name can tell whether its owner lives.
    Run {
        /// As whoever made it sees it.
        pid: u32,
        /// Field 22 of proc_pid_stat(5).
        began: u64,
    },
}

impl Name {
    /// That of a `run` that is this process.
    ///
    /// # Errors
    /// No /proc.
    pub(crate) fn own() -> Result<Self> {
        let pid = std::process::id();
        let began = began(pid).ok_or_else(|| Error::new("read", format!("/proc/{pid}/stat"), "no start time in it"))?;
        Ok(Self::Run { pid, began })
    }

    /// Whether it is of a `run` that has ended, and left it.
    pub(crate) fn is_left(self) -> bool {
        matches!(self, Self::Run { pid, began } if self::began(pid) != Some(began) && !lives_below(pid, began))
    }

    /// Where `run` itself waits, when its own cgroup has to be without processes (version 2).
    pub(crate) fn leaf(self) -> Option<String> {
        match self {
            Self::Run { pid, began } => Some(format!("leaf_{pid}_{began}")),
            Self::Container(_) => None,
        }
    }

    /// The name to which a directory belongs.
    pub(crate) fn of_directory(name: &str) -> Option<Self> {
        match name.strip_prefix("leaf_") {
            Some(rest) => format!("run_{rest}").parse().ok(),
            None => name.parse().ok(),
        }
    }
}

/// When a process began.
fn began(pid: u32) -> Option<u64> {
    let stat = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
    // Its name is in parentheses, and may have some itself, and any bytes.
    let stat = String::from_utf8_lossy(&stat);
    stat.rsplit_once(')')?.1.split_whitespace().nth(22 - 3)?.parse().ok()
}

/// Whether a PID namespace below ours has one with this number that began then: `NSpid` of proc_pid_status(5).
fn lives_below(pid: u32, began: u64) -> bool {
    let all = std::fs::read_dir("/proc").into_iter().flatten();
    let mut numbers = all.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    numbers.any(|one| {
        self::began(one) == Some(began)
            && std::fs::read_to_string(format!("/proc/{one}/status")).is_ok_and(|status| is_below(&status, pid))
    })
}

fn is_below(status: &str, pid: u32) -> bool {
    let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap_or_default();
    numbers.split_whitespace().skip(1).any(|number| number.parse() == Ok(pid))
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Container(id) => id.fmt(f),
            Self::Run { pid, began } => write!(f, "run_{pid}_{began}"),
        }
    }
}

impl FromStr for Name {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let run = || {
            let (pid, began) = text.strip_prefix("run_")?.split_once('_')?;
            let run = Self::Run { pid: pid.parse().ok()?, began: began.parse().ok()? };
            // No second spelling of the same.
            (run.to_string() == text).then_some(run)
        };
        run().map_or_else(|| text.parse().map(Self::Container), Ok)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_one_spelling() {
        for text in ["ps_42045", "run_1_0", "run_4711_123456"] {
            assert_eq!(text.parse::<Name>().unwrap().to_string(), text);
        }
        for text in
            ["run_", "run_1", "run_1_", "run_01_2", "run_+1_2", "run_1_2/..", "run_1_2_3", "../run_1_2", "run_-1_2"]
        {
            assert!(text.parse::<Name>().is_err(), "{text}");
        }
        let run: Name = "run_7_9".parse().unwrap();
        assert_eq!(run.leaf().and_then(|leaf| Name::of_directory(&leaf)), Some(run));
        assert_eq!(Name::of_directory("leaf_ps_42045"), None);
    }

    #[test]
    fn who_lives_has_left_nothing() {
        let own = Name::own().unwrap();
        assert!(!own.is_left());
        let Name::Run { pid, began } = own else { panic!() };
        assert!(Name::Run { pid, began: began + 1 }.is_left(), "another process with this number");
        assert!(Name::Run { pid: u32::MAX, began }.is_left());
        assert!(is_below("Name:\tx\nNSpid:\t4711\t7\n", 7));
        assert!(!is_below("Name:\tx\nNSpid:\t7\n", 7) && !is_below("", 7));
    }
}
