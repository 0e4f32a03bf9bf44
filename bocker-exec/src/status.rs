//! The status file: `running PID`, then `exited N`, and an exclusive `flock(2)` for as long as the container lives.
//!
//! So "running" is what the kernel says. After a crash or a reboot the lock is gone, whatever the text says.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

use bocker_common::{Error, Result};
use nix::unistd::Pid;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

/// The file, locked. The lock belongs to the open file: it goes with the last descriptor, so none may reach the payload.
#[derive(Debug)]
pub struct Status(File);

impl Status {
    /// Creates or takes the file, empties it and holds the lock.
    ///
    /// # Errors
    /// One line, `container is already running` when someone else holds it.
    #[expect(clippy::disallowed_methods, reason = "the caller's word: beside the root, not in it")]
    pub fn hold(path: &Path) -> Result<Self> {
        let fail = |e: std::io::Error| Error::new("open", path.display(), e);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let file = options.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path).map_err(fail)?;
        // Who only asks whether it is held (bocker-store ps, a join) holds it for some microseconds.
        let mut tries = 20;
        while let Err(errno) = flock(&file, FlockOperation::NonBlockingLockExclusive) {
            tries -= 1;
            match errno {
                Errno::INTR => {}
                Errno::WOULDBLOCK if tries > 0 => std::thread::sleep(Duration::from_millis(5)),
                Errno::WOULDBLOCK => return Err(Error::plain("container is already running")),
                _ => return Err(Error::new("lock", path.display(), crate::inroot::errno(errno))),
            }
        }
        file.set_len(0).map_err(fail)?;
        Ok(Self(file))
    }

    /// The payload has been executed; its PID as the host has it.
    pub fn running(&self, pid: Pid) {
        self.say(&format!("running {pid}\n"));
    }

    /// The payload ended with this status. To be written before it is reaped: until then its PID is its own.
    pub fn exited(&self, status: u8) {
        self.say(&format!("exited {status}\n"));
    }

    /// The new text over the old one, then the length: a reader finds a whole first line at any time.
    fn say(&self, line: &str) {
        // On a full disk the lock still tells the truth.
        let _ = self.0.write_all_at(line.as_bytes(), 0).and_then(|()| self.0.set_len(line.len() as u64));
    }
}

/// The PID in a status file whose lock is held; `None` when nobody holds it or the payload is not there yet or any more.
///
/// # Errors
/// A file that cannot be opened or read.
#[expect(clippy::disallowed_methods, reason = "the caller's word: beside the root, not in it")]
pub fn running(path: &Path) -> Result<Option<i32>> {
    let fail = |e: std::io::Error| Error::new("open", path.display(), e);
    let mut options = OpenOptions::new();
    let file = options.read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path).map_err(fail)?;
    match flock(&file, FlockOperation::NonBlockingLockShared) {
        // Got it, so nobody had it; closing gives it back.
        Ok(()) => return Ok(None),
        Err(Errno::WOULDBLOCK) => {}
        Err(errno) => return Err(Error::new("lock", path.display(), crate::inroot::errno(errno))),
    }
    let mut text = String::new();
    file.take(64).read_to_string(&mut text).map_err(fail)?;
    Ok(parse(&text))
}

fn parse(text: &str) -> Option<i32> {
    let pid = text.lines().next()?.strip_prefix("running ")?;
    pid.parse().ok().filter(|&pid| pid > 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_held_lock_means_running() {
        let path = std::env::temp_dir().join(format!("bocker-exec-status-{}", std::process::id()));
        std::fs::write(&path, "running 77\n").unwrap();
        assert_eq!(running(&path), Ok(None), "a stale text");
        let status = Status::hold(&path).unwrap();
        assert_eq!(running(&path), Ok(None), "not there yet");
        status.running(Pid::from_raw(4242));
        assert_eq!(running(&path), Ok(Some(4242)));
        assert_eq!(Status::hold(&path).unwrap_err().to_string(), "container is already running");
        assert_eq!(running(&path), Ok(Some(4242)), "who failed to take it changed nothing");
        status.exited(3);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "exited 3\n");
        drop(status);
        assert_eq!(running(&path), Ok(None));
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn hostile_texts_name_no_process() {
        for text in
            ["", "running", "running -1", "running 1", "running 0", "running 99999999999", "exited 3", "running 5x"]
        {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }
}
