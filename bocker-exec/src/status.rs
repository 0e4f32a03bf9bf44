//! The status file: `running PID`, then `exited N`, and an exclusive `flock(2)` for as long as the container lives.
//!
//! So "running" is what the kernel says. After a crash or a reboot the lock is gone, whatever the text says.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

use bocker_common::{Error, Result};
use nix::unistd::Pid;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

/// The file, locked. The lock belongs to the open file: it goes with the last descriptor, so none may reach the payload.
#[derive(Debug)]
pub struct Status {
    file: File,
    /// `holder` beside it.
    holder: Option<File>,
}

impl Status {
    /// Creates or takes the file, empties it and holds the lock. With `goes_on` this process is to clean up after the end: so that no
    /// moment comes in which nobody seems to have the container, it is its holder before the lock goes. Where there is a file `holder`
    /// (`PID STARTTIME ended`, in clock ticks since the boot), as bocker-store's containers have it, it says so then.
    ///
    /// # Errors
    /// One line, `container is already running` when someone else holds it.
    #[expect(clippy::disallowed_methods, reason = "the caller's word: beside the root, not in it")]
    pub fn hold(path: &Path, goes_on: bool) -> Result<Self> {
        let fail = |e: std::io::Error| Error::new("open", path.display(), e);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let file = options.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path).map_err(fail)?;
        let has_ended = || {
            let mut text = [0; 6];
            rustix::io::pread(&file, &mut text, 0).is_ok() && &text == b"exited"
        };
        // Who only asks whether it is held (bocker-store ps, a join) shares it, for some microseconds if nothing holds them up.
        let is_asked_for = || {
            let shared = flock(&file, FlockOperation::NonBlockingLockShared).is_ok();
            shared && flock(&file, FlockOperation::Unlock).is_ok()
        };
        // The supervisor of one that has ended holds it until it has written all that there is to write.
        let tries = if has_ended() { 400 } else { 20 };
        let mut tried = 0;
        while let Err(errno) = flock(&file, FlockOperation::NonBlockingLockExclusive) {
            match errno {
                Errno::INTR => {}
                Errno::WOULDBLOCK if tried < if is_asked_for() { 2000 } else { tries } => {
                    tried += 1;
                    std::thread::sleep(Duration::from_millis(5));
                }
                Errno::WOULDBLOCK => return Err(Error::plain("container is already running")),
                _ => return Err(Error::new("lock", path.display(), crate::inroot::errno(errno))),
            }
        }
        file.set_len(0).map_err(fail)?;
        let mut beside = OpenOptions::new();
        beside.write(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
        let holder = if goes_on { beside.open(path.with_file_name("holder")).ok() } else { None };
        Ok(Self { file, holder })
    }

    /// The payload has been executed; its PID as the host has it.
    pub fn running(&self, pid: Pid) {
        say(&self.file, &format!("running {pid}\n"));
    }

    /// The payload ended with this status. To be written before it is reaped: until then its PID is its own.
    pub fn exited(&self, status: u8) {
        if let (Some(holder), Some(started)) = (&self.holder, started()) {
            say(holder, &format!("{} {started} ended\n", std::process::id()));
        }
        say(&self.file, &format!("exited {status}\n"));
    }
}

/// The new text over the old one, then the length: a reader finds a whole first line at any time.
fn say(file: &File, line: &str) {
    // On a full disk the lock still tells the truth.
    let _ = file.write_all_at(line.as_bytes(), 0).and_then(|()| file.set_len(line.len() as u64));
}

/// When this process was started: proc(5), field 22 of stat. The second field is a name in parentheses, which may hold anything.
#[expect(clippy::disallowed_methods, reason = "/proc/self/stat, of the host")]
fn started() -> Option<u64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

/// `--status-fd`: the same for a program that started us, which so can tell our failure from the payload's status 125.
#[derive(Debug)]
pub struct StatusFd(File);

impl StatusFd {
    /// A copy of the caller's descriptor.
    ///
    /// # Errors
    /// One line: the number is none's.
    pub fn new(number: i32) -> Result<Self> {
        let fd = crate::sys::duplicate(number).map_err(|e| Error::new("write", format!("--status-fd {number}"), e))?;
        Ok(Self(fd.into()))
    }

    /// Another one, for the other process.
    ///
    /// # Errors
    /// `fcntl(2)`.
    pub fn try_clone(&self) -> Result<Self> {
        self.0.try_clone().map(Self).map_err(|e| Error::new("copy", "a descriptor", e))
    }

    /// `running PID`
    pub fn running(&mut self, pid: Pid) {
        self.say(&format!("running {pid}"));
    }

    /// `exited N`
    pub fn exited(&mut self, status: u8) {
        self.say(&format!("exited {status}"));
    }

    /// `failed N LINE`: the command was not executed, and this is what stderr has, too.
    pub fn failed(&mut self, error: &Error) {
        let status = crate::own_failure(error.exit_status());
        self.say(&format!("failed {status} {}", bocker_common::diag::printable(&error.to_string())));
    }

    /// Who does not read it has not asked.
    fn say(&mut self, line: &str) {
        let _ = self.0.write_all(format!("{line}\n").as_bytes());
    }
}

/// What a status file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Text {
    /// Nothing was executed yet; or nothing that makes sense.
    Nothing,
    /// This process, as long as the lock is held; without one, its supervisor did not live to write its end down.
    Running(i32),
    /// It has ended.
    Exited(u8),
}

/// The text, and whether somebody held the lock just before it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Seen {
    pub held: bool,
    pub text: Text,
}

/// Opens a status file, to be looked at; it can be when its name has gone, too.
///
/// # Errors
/// A file that cannot be opened.
#[expect(clippy::disallowed_methods, reason = "the caller's word: beside the root, not in it")]
pub fn open(path: &Path) -> Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    options.open(path).map_err(|e| Error::new("open", path.display(), e))
}

/// Looks at a status file that was opened by this path. The lock first: who lets go of it has written before.
///
/// # Errors
/// A file that cannot be read.
pub fn look_at(file: &File, path: &Path) -> Result<Seen> {
    let fail = |act: &str, errno| Error::new(act, path.display(), crate::inroot::errno(errno));
    let held = match flock(file, FlockOperation::NonBlockingLockShared) {
        // Got it, so nobody had it.
        Ok(()) => {
            flock(file, FlockOperation::Unlock).map_err(|e| fail("unlock", e))?;
            false
        }
        Err(Errno::WOULDBLOCK) => true,
        Err(errno) => return Err(fail("lock", errno)),
    };
    let mut bytes = [0; 64];
    let length = rustix::io::pread(file, &mut bytes, 0).map_err(|e| fail("read", e))?;
    Ok(Seen { held, text: parse(&String::from_utf8_lossy(&bytes[..length])) })
}

/// The same of a path.
///
/// # Errors
/// A file that cannot be opened or read.
pub fn look(path: &Path) -> Result<Seen> {
    look_at(&open(path)?, path)
}

/// The PID in a status file whose lock is held; `None` when nobody holds it or the payload is not there yet or any more.
///
/// # Errors
/// A file that cannot be opened or read.
pub fn running(path: &Path) -> Result<Option<i32>> {
    Ok(match look(path)? {
        Seen { held: true, text: Text::Running(pid) } => Some(pid),
        _ => None,
    })
}

fn parse(text: &str) -> Text {
    let line = text.lines().next().unwrap_or_default();
    let number = |word| line.strip_prefix(word)?.parse().ok();
    match (number("running ").filter(|&pid| pid > 1), number("exited ").and_then(|n: i32| u8::try_from(n).ok())) {
        (Some(pid), _) => Text::Running(pid),
        (_, Some(status)) => Text::Exited(status),
        _ => Text::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_held_lock_means_running() {
        let path = std::env::temp_dir().join(format!("bocker-exec-status-{}", std::process::id()));
        std::fs::write(&path, "running 77\n").unwrap();
        assert_eq!(running(&path), Ok(None), "a stale text");
        let status = Status::hold(&path, false).unwrap();
        assert_eq!(running(&path), Ok(None), "not there yet");
        status.running(Pid::from_raw(4242));
        assert_eq!(running(&path), Ok(Some(4242)));
        assert_eq!(Status::hold(&path, false).unwrap_err().to_string(), "container is already running");
        assert_eq!(running(&path), Ok(Some(4242)), "who failed to take it changed nothing");
        status.exited(3);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "exited 3\n");
        assert_eq!(look(&path), Ok(Seen { held: true, text: Text::Exited(3) }));
        drop(status);
        assert_eq!(look(&path), Ok(Seen { held: false, text: Text::Exited(3) }));
        assert_eq!(running(&path), Ok(None));
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn who_goes_on_holds_what_has_a_holder() {
        let dir = std::env::temp_dir().join(format!("bocker-exec-holder-{}", std::process::id()));
        std::fs::create_dir(&dir).unwrap();
        let (path, holder) = (dir.join("status"), dir.join("holder"));
        Status::hold(&path, true).unwrap().exited(0);
        assert!(!holder.exists(), "no container of a store");
        std::fs::write(&holder, "1234567 89012345678 new 4026531836,x\n").unwrap();
        Status::hold(&path, false).unwrap().exited(0);
        assert!(std::fs::read_to_string(&holder).unwrap().contains("new"));
        Status::hold(&path, true).unwrap().exited(0);
        let me = format!("{} {} ended\n", std::process::id(), started().unwrap());
        assert_eq!(std::fs::read_to_string(&holder).unwrap(), me);
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn hostile_texts_name_no_process() {
        for text in
            ["", "running", "running -1", "running 1", "running 0", "running 99999999999", "exited 256", "running 5x"]
        {
            assert_eq!(parse(text), Text::Nothing, "{text:?}");
        }
        assert_eq!(parse("exited 137\nrunning 5\n"), Text::Exited(137));
    }
}
