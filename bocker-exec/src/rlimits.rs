//! Resource limits, getrlimit(2): those a container begins with, and `--ulimit`.

use bocker_common::diag::Reason;
use bocker_common::{Error, Result};
use nix::errno::Errno;
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};

type Name = (&'static str, Resource, Option<(char, u64)>);
/// docker's names, the kernel's resources, and the letter of the shell's `ulimit` with its unit in bytes.
const NAMES: [Name; 15] = [
    ("as", Resource::RLIMIT_AS, Some(('v', 1024))),
    ("core", Resource::RLIMIT_CORE, Some(('c', 512))),
    ("cpu", Resource::RLIMIT_CPU, Some(('t', 1))),
    ("data", Resource::RLIMIT_DATA, Some(('d', 1024))),
    ("fsize", Resource::RLIMIT_FSIZE, Some(('f', 512))),
    ("locks", Resource::RLIMIT_LOCKS, Some(('w', 1))),
    ("memlock", Resource::RLIMIT_MEMLOCK, Some(('l', 1024))),
    ("msgqueue", Resource::RLIMIT_MSGQUEUE, None),
    ("nice", Resource::RLIMIT_NICE, None),
    ("nofile", Resource::RLIMIT_NOFILE, Some(('n', 1))),
    ("nproc", Resource::RLIMIT_NPROC, Some(('p', 1))),
    ("rss", Resource::RLIMIT_RSS, Some(('m', 1024))),
    ("rtprio", Resource::RLIMIT_RTPRIO, Some(('r', 1))),
    ("sigpending", Resource::RLIMIT_SIGPENDING, None),
    ("stack", Resource::RLIMIT_STACK, Some(('s', 1024))),
];

/// Open files: select(2) of a program that does not know more than 1024 corrupts its stack beyond; who knows can raise it.
/// Core files: a container's may land anywhere the host's core_pattern says.
const DEFAULT: [(&str, Option<u64>, Option<u64>); 2] =
    [("nofile", Some(1024), Some(524_288)), ("core", Some(0), Some(0))];

/// One limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    name: &'static str,
    /// `None` is unlimited. In the kernel's unit: bytes, seconds, or a number.
    soft: Option<u64>,
    hard: Option<u64>,
    /// By `--ulimit`: not to get it is an error.
    asked: bool,
}

/// `NAME=SOFT[:HARD]`, docker's; HARD is SOFT if not given; -1 is unlimited.
///
/// # Errors
/// What is no such limit.
pub fn limit(word: &str) -> std::result::Result<Limit, String> {
    let (name, values) = word.split_once('=').ok_or("want NAME=SOFT[:HARD]")?;
    let known = NAMES.iter().find(|(known, ..)| *known == name);
    let (name, ..) = known.ok_or_else(|| {
        let names: Vec<&str> = NAMES.iter().map(|(name, ..)| *name).collect();
        format!("no limit '{name}' (there are {})", names.join(", "))
    })?;
    let number = |word: &str| match word {
        "-1" | "unlimited" => Ok(None),
        word if word.bytes().all(|b| b.is_ascii_digit()) => {
            word.parse().map(Some).map_err(|_| format!("'{word}' is no number, or too large"))
        }
        word => Err(format!("'{word}' is no number")),
    };
    let (soft, hard) = match values.split_once(':') {
        Some((soft, hard)) => (number(soft)?, number(hard)?),
        None => (number(values)?, number(values)?),
    };
    if soft.unwrap_or(u64::MAX) > hard.unwrap_or(u64::MAX) {
        return Err("the soft limit is above the hard one".to_owned());
    }
    Ok(Limit { name, soft, hard, asked: true })
}

/// The default limits with those that were asked for; the last of a name counts.
pub fn all(asked: &[Limit]) -> Vec<Limit> {
    let defaults = DEFAULT.iter().map(|&(name, soft, hard)| Limit { name, soft, hard, asked: false });
    let mut all: Vec<Limit> = Vec::new();
    for limit in defaults.chain(asked.iter().copied()) {
        all.retain(|one| one.name != limit.name);
        all.push(limit);
    }
    all
}

impl Limit {
    /// Sets it for this process, `setrlimit(2)`. To raise a hard limit takes CAP_SYS_RESOURCE of the host's: a default one
    /// is then only lowered.
    ///
    /// # Errors
    /// One line, for one that was asked for.
    pub fn set(self) -> Result<()> {
        let Some((_, resource, _)) = NAMES.iter().find(|(name, ..)| *name == self.name) else { return Ok(()) };
        let fail = |e| Error::new("limit", self.name, Reason::from(e));
        let (soft, hard) = (self.soft.unwrap_or(RLIM_INFINITY), self.hard.unwrap_or(RLIM_INFINITY));
        match setrlimit(*resource, soft, hard) {
            Err(Errno::EPERM) if !self.asked => {
                let (_, most) = getrlimit(*resource).map_err(fail)?;
                // RLIM_INFINITY is the largest number.
                setrlimit(*resource, soft.min(most), hard.min(most)).map_err(fail)
            }
            Err(Errno::EPERM) => Err(fail(Errno::EPERM).hint("above what bocker-exec itself may have")),
            done => done.map_err(fail),
        }
    }

    /// As `ulimit` of sh; soft first, for it must not be above the hard one.
    pub(crate) fn shell(self) -> String {
        let Some((_, _, Some((letter, unit)))) = NAMES.iter().find(|(name, ..)| *name == self.name) else {
            return format!(": {} has no word in sh", self.name);
        };
        let number = |limit: Option<u64>| limit.map_or("unlimited".to_owned(), |limit| (limit / unit).to_string());
        let (soft, hard) = (number(self.soft), number(self.hard));
        let set = format!("ulimit -S -{letter} {soft} && ulimit -H -{letter} {hard}");
        if self.asked {
            set
        } else {
            format!("ulimit -S -{letter} {soft} 2>/dev/null || :\nulimit -H -{letter} {hard} 2>/dev/null || :")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dockers_words() {
        assert_eq!(limit("nofile=64"), Ok(Limit { name: "nofile", soft: Some(64), hard: Some(64), asked: true }));
        assert_eq!(limit("core=0:-1"), Ok(Limit { name: "core", soft: Some(0), hard: None, asked: true }));
        for word in [
            "nofile",
            "nofile=",
            "nofile=x",
            "nofile=-2",
            "files=1",
            "nofile=2:1",
            "core=-1:5",
            "nofile=1:2:3",
            "nofile=99999999999999999999",
        ] {
            assert!(limit(word).is_err(), "{word}");
        }
    }

    #[test]
    fn the_last_one_counts() {
        let all = all(&[limit("core=-1").unwrap(), limit("core=5").unwrap(), limit("cpu=7").unwrap()]);
        let seen: Vec<_> = all.iter().map(|one| (one.name, one.soft, one.asked)).collect();
        assert_eq!(seen, [("nofile", Some(1024), false), ("core", Some(5), true), ("cpu", Some(7), true)]);
    }
}
