//! The options about the process itself: how it is started, told and ended.

use std::ffi::OsString;
use std::path::PathBuf;

/// Signals by the names that `kill(1)` and docker take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signal(pub i32);

/// What `--log-size` is without a word, in bytes.
pub const LOG_SIZE: u64 = 10 << 20;
/// What `--log-files` is without a word.
pub const LOG_FILES: u32 = 3;

/// Options of `bocker-exec`, flattened into its command line.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Options {
    /// Read words from FILE, one a line, as if typed first; what is typed overrides
    #[arg(long, value_name = "FILE")]
    pub words: Option<PathBuf>,
    /// Return when the command has been executed; it goes on, with one small process that watches it
    #[arg(long, conflicts_with = "die_with_parent")]
    pub detach: bool,
    /// With --detach: a word of the program to become when the command has ended, as which it is the container's holder (the file
    /// `holder` beside --status, where there is one); repeatable
    #[arg(long, value_name = "WORD", requires = "detach", conflicts_with = "join", allow_hyphen_values = true)]
    pub then: Vec<OsString>,
    /// A reaper as process 1, which passes signals on to the command
    #[arg(long, conflicts_with = "join")]
    pub init: bool,
    /// Write `running PID`, then `exited N`, or `failed N LINE`, to the descriptor N
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(0..))]
    pub status_fd: Option<i32>,
    /// With --detach: stdin stays open, for who attaches
    #[arg(long)]
    pub interactive: bool,
    /// Begin a new file when the log would be longer [default: 10485760]
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u64).range(1024..))]
    pub log_size: Option<u64>,
    /// How many files the log is at most: FILE, FILE.1, … [default: 3]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub log_files: Option<u32>,
    /// What --stop sends; remembered for it
    #[arg(long, value_name = "SIGNAL", value_parser = signal)]
    pub stop_signal: Option<Signal>,
    /// How long --stop waits; remembered for it
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true)]
    pub stop_timeout: Option<i32>,
    /// Send --signal [default: KILL] to the running container whose status file this is
    #[arg(long, value_name = "STATUSFILE", conflicts_with_all = ["root", "join", "stop", "wait", "command"])]
    pub kill: Option<PathBuf>,
    /// End it: its stop signal, and KILL after --timeout; return when it has ended
    #[arg(long, value_name = "STATUSFILE", conflicts_with_all = ["root", "join", "wait", "command"])]
    pub stop: Option<PathBuf>,
    /// Wait for its end and print its exit status; `unknown` if its supervisor was killed
    #[arg(long, value_name = "STATUSFILE", conflicts_with_all = ["root", "join", "command"])]
    pub wait: Option<PathBuf>,
    /// For --kill and --stop: a name or number, as TERM, SIGTERM, 15, RTMIN+3
    #[arg(long, value_name = "SIGNAL", value_parser = signal)]
    pub signal: Option<Signal>,
    /// For --stop: how long to wait before KILL; -1: for ever [default: 10]
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true)]
    pub timeout: Option<i32>,
}

/// As signal(7) has them on every architecture that Rust knows; the numbers are the C library's.
const NAMES: [(&str, i32); 33] = [
    ("HUP", libc::SIGHUP),
    ("INT", libc::SIGINT),
    ("QUIT", libc::SIGQUIT),
    ("ILL", libc::SIGILL),
    ("TRAP", libc::SIGTRAP),
    ("ABRT", libc::SIGABRT),
    ("IOT", libc::SIGABRT),
    ("BUS", libc::SIGBUS),
    ("FPE", libc::SIGFPE),
    ("KILL", libc::SIGKILL),
    ("USR1", libc::SIGUSR1),
    ("SEGV", libc::SIGSEGV),
    ("USR2", libc::SIGUSR2),
    ("PIPE", libc::SIGPIPE),
    ("ALRM", libc::SIGALRM),
    ("TERM", libc::SIGTERM),
    ("STKFLT", libc::SIGSTKFLT),
    ("CHLD", libc::SIGCHLD),
    ("CONT", libc::SIGCONT),
    ("STOP", libc::SIGSTOP),
    ("TSTP", libc::SIGTSTP),
    ("TTIN", libc::SIGTTIN),
    ("TTOU", libc::SIGTTOU),
    ("URG", libc::SIGURG),
    ("XCPU", libc::SIGXCPU),
    ("XFSZ", libc::SIGXFSZ),
    ("VTALRM", libc::SIGVTALRM),
    ("PROF", libc::SIGPROF),
    ("WINCH", libc::SIGWINCH),
    ("IO", libc::SIGIO),
    ("POLL", libc::SIGIO),
    ("PWR", libc::SIGPWR),
    ("SYS", libc::SIGSYS),
];

/// A signal by number, or by name with or without `SIG`, in any case; real-time ones from both ends, as `RTMIN+3`.
///
/// # Errors
/// A word that names none.
pub fn signal(word: &str) -> Result<Signal, String> {
    let none = || format!("'{word}' is no signal (as TERM, SIGTERM, 15, RTMIN+3)");
    let (first, last) = (libc::SIGRTMIN(), libc::SIGRTMAX());
    if word.bytes().all(|b| b.is_ascii_digit()) {
        // 32 and 33 are the C library's own.
        let number = word.parse().ok().filter(|n| (1..32).contains(n) || (first..=last).contains(n));
        return number.map(Signal).ok_or_else(none);
    }
    let upper = word.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let offset = |text: &str, sign: char| match text {
        "" => Some(0),
        // Not `+3` once more, which a number may begin with.
        text => {
            text.strip_prefix(sign).filter(|n| n.bytes().all(|b| b.is_ascii_digit()))?.parse::<u8>().ok().map(i32::from)
        }
    };
    let number = match name {
        name if name.starts_with("RTMIN") => offset(&name[5..], '+').map(|n| first + n),
        name if name.starts_with("RTMAX") => offset(&name[5..], '-').map(|n| last - n),
        name => NAMES.iter().find(|(known, _)| *known == name).map(|&(_, number)| number),
    };
    number.filter(|n| *n < 32 || (first..=last).contains(n)).map(Signal).ok_or_else(none)
}

impl std::fmt::Display for Signal {
    /// As `kill -s` takes it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match NAMES.iter().find(|(_, number)| *number == self.0) {
            Some((name, _)) => f.write_str(name),
            None => write!(f, "{}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_by_all_their_names() {
        for word in ["15", "TERM", "SIGTERM", "term", "SigTerm"] {
            assert_eq!(signal(word), Ok(Signal(15)), "{word}");
        }
        assert_eq!(signal("RTMIN"), Ok(Signal(libc::SIGRTMIN())));
        assert_eq!(signal("SIGRTMIN+3"), Ok(Signal(37)));
        assert_eq!(signal("37"), Ok(Signal(37)));
        assert_eq!(signal("RTMAX-1"), Ok(Signal(63)));
        assert_eq!(signal("64").unwrap().to_string(), "64");
        for word in [
            "",
            "0",
            "32",
            "33",
            "65",
            "-1",
            "SIG",
            "SIGNOPE",
            "RTMIN+31",
            "RTMIN-1",
            "RTMAX+1",
            "RTMIN+",
            "RTMIN++1",
            "RTMIN3",
            "15 ",
            "99999999999",
            "SIG15",
        ] {
            assert!(signal(word).is_err(), "{word}");
        }
        for (name, number) in NAMES {
            assert_eq!(signal(name), Ok(Signal(number)));
            assert_eq!(signal(&Signal(number).to_string()), Ok(Signal(number)));
        }
    }
}
