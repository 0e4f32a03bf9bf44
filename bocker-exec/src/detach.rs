//! `--detach`: the caller returns when the payload has been executed, and one process of ours stays.
//!
//! It is forked before the namespaces are made, so that it is the payload's parent; until the payload runs it lives and dies with
//! the caller, which gets its error. Then it lets go of all that was the caller's.

use std::ffi::{CString, OsString};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;

use bocker_common::diag::{CANNOT_EXECUTE, NOT_FOUND, OWN_FAILURE};
use bocker_common::{Error, Result};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use nix::unistd::{ForkResult, chdir, getppid, pipe2, setsid};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::inroot::errno;
use crate::sys;

/// After [`fork`]: who we are.
#[derive(Debug)]
pub enum Side {
    /// Still the process that was started; it has nothing left to do but to wait.
    Caller(Caller),
    /// The one that stays.
    Supervisor(Detached),
}

/// Waits for the word of the other.
#[derive(Debug)]
pub struct Caller(File);

/// The supervisor's end.
#[derive(Debug)]
pub struct Detached {
    tell: File,
    null: File,
}

/// The descriptors that the caller has left to us, from 3 on. To be called before any of ours is opened.
#[expect(clippy::disallowed_methods, reason = "/proc/self")]
#[must_use]
pub fn inherited() -> Vec<i32> {
    let Ok(names) = std::fs::read_dir("/proc/self/fd") else { return Vec::new() };
    let numbers = names.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let all: Vec<i32> = numbers.filter(|&fd| fd > 2).collect();
    // The directory's own is closed by now, and its number will be another's.
    all.into_iter().filter(|&fd| sys::is_open(fd)).collect()
}

/// Forks the process that stays, without `inherited`: in a session of its own, out of reach of the caller's terminal.
///
/// The descriptor is the caller's, `pidfd_open(2)`: who waits for a container that does not run yet takes it along.
///
/// # Errors
/// `pipe2(2)`, `fork(2)`; in the child `setsid(2)`.
#[expect(clippy::disallowed_methods, reason = "/dev/null of the host, before any namespace; the working directory")]
pub fn fork(inherited: &[i32]) -> Result<(Side, Option<OwnedFd>)> {
    let fail = |act: &'static str| move |e: Errno| Error::new(act, "the supervisor", e);
    let (hear, tell) = pipe2(OFlag::O_CLOEXEC).map_err(|e| Error::new("make", "a pipe", e))?;
    let null = File::options().read(true).write(true).open("/dev/null");
    let null = null.map_err(|e| Error::new("open", "/dev/null", e))?;
    let caller = pidfd_open(rustix::process::getpid(), PidfdFlags::empty()).map_err(|e| fail("bind")(errno(e)))?;
    let own = nix::unistd::getpid();
    match sys::fork().map_err(fail("fork"))? {
        ForkResult::Parent { .. } => Ok((Side::Caller(Caller(hear.into())), None)),
        ForkResult::Child => {
            drop(hear);
            // Somebody may wait for the end of these.
            inherited.iter().for_each(|&fd| sys::close(fd));
            // It is nobody's job: what the caller ignored (nohup, a shell's &) is not its business.
            sys::own_signals();
            let detached = Detached { tell: tell.into(), null };
            let alone = || -> nix::Result<()> {
                setsid()?;
                // Nothing that was mounted for the caller stays busy.
                chdir("/")?;
                if getppid() == own { Ok(()) } else { Err(Errno::ESRCH) }
            };
            if let Err(e) = alone() {
                detached.fail(&fail("detach")(e));
            }
            Ok((Side::Supervisor(detached), Some(caller)))
        }
    }
}

impl Caller {
    /// Until the payload has been executed, or never will be.
    ///
    /// # Errors
    /// What the supervisor could not do, with its status.
    pub fn wait(mut self) -> Result<()> {
        let mut word = [OWN_FAILURE];
        if self.0.read_exact(&mut word).is_err() {
            return Err(Error::plain("the supervisor was killed before the command was executed").status(OWN_FAILURE));
        }
        if word == [0] {
            return Ok(());
        }
        let mut line = Vec::new();
        let _ = self.0.read_to_end(&mut line);
        Err(Error::plain(String::from_utf8_lossy(&line)).status(word[0]))
    }
}

impl Detached {
    /// Another one, for an error after the first was used up.
    ///
    /// # Errors
    /// `fcntl(2)`.
    pub fn try_clone(&self) -> Result<Self> {
        let copy = |file: &File| file.try_clone().map_err(|e| Error::new("copy", "a descriptor", e));
        Ok(Self { tell: copy(&self.tell)?, null: copy(&self.null)? })
    }

    /// The payload runs: the caller may go, and its stdin, stdout and stderr with it.
    pub fn executed(mut self) {
        let stdio = [rustix::stdio::dup2_stdin, rustix::stdio::dup2_stdout, rustix::stdio::dup2_stderr];
        for over in stdio {
            let _ = over(&self.null);
        }
        // The caller was killed at this moment: the container runs, and its id is known.
        let _ = self.tell.write_all(&[0]);
    }

    /// It does not: the caller says why, we end.
    pub fn fail(mut self, error: &Error) -> ! {
        let mut message = vec![error.exit_status()];
        message.extend(error.to_string().bytes());
        let _ = self.tell.write_all(&message);
        sys::exit_now(error.exit_status())
    }
}

/// The network namespace of who started us. We are in the container's (`bocker-net exec`); what comes after it has to do with the host's.
#[expect(clippy::disallowed_methods, reason = "/proc of the host")]
#[must_use]
pub fn home() -> Option<OwnedFd> {
    File::open(format!("/proc/{}/ns/net", getppid())).map(OwnedFd::from).ok()
}

/// `--then`: this process becomes the program, which it finds as a shell would, by the caller's PATH; `home` is where. Without a program, it
/// ends.
pub fn become_program(words: &[OsString], home: Option<OwnedFd>) -> ! {
    let _ = home.map(|home| setns(home, CloneFlags::CLONE_NEWNET));
    let words: Vec<CString> = words.iter().filter_map(|word| CString::new(word.as_bytes()).ok()).collect();
    let Some(program) = words.first() else { sys::exit_now(0) };
    sys::default_signals();
    let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None);
    // Nobody is left to be told; `gc` finds what stays.
    let Err(errno) = nix::unistd::execvp(program, &words);
    sys::exit_now(if errno == Errno::ENOENT { NOT_FOUND } else { CANNOT_EXECUTE })
}

/// The caller's process, by number, for those that look for it.
pub(crate) fn open(pid: i32) -> Option<OwnedFd> {
    pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()
}
