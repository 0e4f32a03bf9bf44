//! `--kill`, `--stop` and `--wait`: what is done to a running container from outside.
//!
//! A signal goes to the supervisor, which passes it on as it does with the terminal's; so there is one way in which a process 1
//! without a handler ends. Nothing is sent to a number: the lock on the status file says whose it is, and `pidfd_open(2)` keeps it.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use bocker_common::say::{Said, perform, quote, tell};
use bocker_common::{Error, Result, entry};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::args::Args;
use crate::process::{self, Signal};
use crate::signals::{self, Deliver};
use crate::status::{self, Seen, Text};
use crate::{config, detach, sys};

/// How often a file is looked at where there is no descriptor to wait for.
const MOMENT: Duration = Duration::from_micros(200);
/// How long the supervisor may take to write down that its payload has ended, and to let go.
const PATIENCE: Duration = Duration::from_secs(10);

/// A container that runs.
#[derive(Debug)]
struct Running {
    pid: i32,
    /// Process 1 of the container.
    first: OwnedFd,
    /// Its parent's number, and the parent.
    supervisor: Option<(i32, OwnedFd)>,
}

/// One act, as for the shell.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Act {
    Signal { pid: i32, signal: Signal },
    Wait { pid: i32, seconds: Option<u64> },
    Show { file: std::path::PathBuf },
}

impl bocker_common::say::Act for Act {
    fn say(&self) -> Said {
        match self {
            Self::Signal { pid, signal: Signal(libc::SIGKILL) } => {
                Said::new(format!("kill -s KILL {pid}"), "process 1 of the container: all others in it die with it")
            }
            Self::Signal { pid, signal } => Said::new(
                format!("kill -s {signal} {pid}"),
                "the process that watches the container passes it on; what process 1 has no handler for would be dropped",
            ),
            Self::Wait { pid, seconds } => {
                let limit = seconds.map(|s| format!("timeout {s} ")).unwrap_or_default();
                Said::new(format!("{limit}tail --pid={pid} -f /dev/null || true"), "until it has ended")
            }
            Self::Show { file } => Said::new(
                format!("sed -n 's/^exited //p; s/^running .*/unknown/p' {}", quote(file)),
                "written down before the process is reaped; a number without an end is what a crash leaves",
            ),
        }
    }
}

fn name(file: &Path) -> String {
    file.parent().and_then(Path::file_name).map_or("?".into(), |name| name.to_string_lossy()).into_owned()
}

fn not_running(file: &Path) -> Error {
    Error::plain(format!("Container '{}' exists but is not running", name(file)))
}

/// The container by descriptors: `None` when it does not run. As for a join: the text and the lock still say the same once the
/// descriptors are held, so they are of the processes that the text means.
fn find(file: &Path) -> Result<Option<Running>> {
    let Some(pid) = status::running(file)? else { return Ok(None) };
    let Some(first) = detach::open(pid) else { return Ok(None) };
    let parent = signals::parent_of(nix::unistd::Pid::from_raw(pid)).filter(|parent| parent.as_raw() > 1);
    let supervisor = parent.and_then(|parent| Some((parent.as_raw(), detach::open(parent.as_raw())?)));
    let same = signals::parent_of(nix::unistd::Pid::from_raw(pid)) == parent || parent.is_none();
    Ok((status::running(file)? == Some(pid) && same).then_some(Running { pid, first, supervisor }))
}

/// The same, after the moment that a start takes.
fn find_soon(file: &Path) -> Result<Option<Running>> {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(running) = find(file)? {
            return Ok(Some(running));
        }
        match status::look(file)? {
            Seen { held: true, text: Text::Nothing } if Instant::now() < until => sleep(MOMENT),
            _ => return Ok(None),
        }
    }
}

impl Running {
    /// Through the supervisor where that takes the signal, else with the default action done from here.
    fn send(&self, signal: Signal, args: &Args) -> Result<()> {
        let through = self.supervisor.as_ref().filter(|(pid, _)| signals::is_blocked(signal.0, &status_text(*pid)));
        let (pid, fd, number) = match through {
            Some((pid, fd)) => (*pid, fd, signal.0),
            None => {
                let number = match signals::deliver(signal.0, &status_text(self.pid)) {
                    Deliver::Forward => signal.0,
                    Deliver::Kill => libc::SIGKILL,
                    Deliver::Stop => libc::SIGSTOP,
                };
                (self.pid, &self.first, number)
            }
        };
        perform(&[Act::Signal { pid, signal: Signal(number) }], args.explain, |_| match sys::pidfd_send(fd, number) {
            // Ended meanwhile.
            Ok(()) | Err(Errno::ESRCH) => Ok(()),
            Err(e) => Err(Error::new("signal", format!("process {pid}"), e)),
        })
    }

    /// Whether process 1 has ended within this time, `None` for ever.
    fn ends_within(&self, time: Option<Duration>) -> Result<bool> {
        let until = time.map(|time| Instant::now() + time);
        loop {
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            // poll(2) counts milliseconds in an int: longer waits are several.
            let timeout = left.map_or(PollTimeout::NONE, |left| {
                PollTimeout::try_from(left.min(Duration::from_secs(86400)) + Duration::from_micros(999))
                    .unwrap_or(PollTimeout::MAX)
            });
            match poll(&mut [PollFd::new(self.first.as_fd(), PollFlags::POLLIN)], timeout) {
                Ok(0) if left.is_some_and(|left| left.is_zero()) => return Ok(false),
                Ok(0) | Err(Errno::EINTR) => {}
                Ok(_) => return Ok(true),
                Err(e) => return Err(Error::new("wait for", format!("process {}", self.pid), e)),
            }
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "/proc/PID/status")]
fn status_text(pid: i32) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default()
}

/// What the status file says in the end: after process 1 has, its supervisor needs a moment to write it down. And one more to let go of
/// the lock, where nobody keeps it waiting: whoever removes the container next then finds it free.
fn settled(file: &Path, opened: &File) -> Result<Text> {
    let began = Instant::now();
    loop {
        let seen = status::look_at(opened, file)?;
        match (seen.held, seen.text) {
            (false, text) => return Ok(text),
            (true, text @ Text::Exited(_)) if began.elapsed() > PATIENCE / 20 => return Ok(text),
            (true, _) if began.elapsed() > PATIENCE => {
                let error = Error::new("wait for", name(file), "its supervisor does not answer");
                return Err(error.hint("is it paused?"));
            }
            (true, _) => sleep(MOMENT),
        }
    }
}

/// `--kill`: sends `--signal`, KILL where there is none.
///
/// # Errors
/// `Container 'NAME' exists but is not running`.
pub fn kill(file: &Path, args: &Args) -> Result<()> {
    entry::need_root("bocker-exec")?;
    let running = find_soon(file)?.ok_or_else(|| not_running(file))?;
    running.send(args.process.signal.unwrap_or(Signal(libc::SIGKILL)), args)
}

/// `--stop`: the stop signal; after the timeout, KILL. Returns when the payload has ended and the status file says so; one that does
/// not run is stopped already, as is one that whoever ran it has removed meanwhile. Signal and timeout: as typed, else as in
/// `--words`, else the image's signal, else TERM and 10 seconds.
///
/// # Errors
/// A supervisor that does not write the end down within 10 seconds.
pub fn stop(file: &Path, args: &Args) -> Result<()> {
    entry::need_root("bocker-exec")?;
    match stop_or_say_why(file, args) {
        Err(_) if args.process.words.is_some() && is_gone(file) => Ok(()),
        done => done,
    }
}

/// Whether its whole directory is gone: with `--rm` that is the end of a container.
#[expect(clippy::disallowed_methods, reason = "a path of the caller's")]
pub(crate) fn is_gone(status_file: &Path) -> bool {
    status_file.parent().is_some_and(|dir| !dir.as_os_str().is_empty() && matches!(dir.try_exists(), Ok(false)))
}

fn stop_or_say_why(file: &Path, args: &Args) -> Result<()> {
    let image = config::read(args.config.as_deref())?.stop_signal;
    // The image's word must not make it unstoppable.
    let image = image.and_then(|word| process::signal(&word).ok());
    let signal = args.process.signal.or(args.process.stop_signal).or(image).unwrap_or(Signal(libc::SIGTERM));
    let seconds = args.process.timeout.or(args.process.stop_timeout).unwrap_or(10);
    let time = u64::try_from(seconds).ok().map(Duration::from_secs);
    // What is dead may not be said to be yet.
    let opened = status::open(file)?;
    let Some(running) = find_soon(file)? else { return settled(file, &opened).map(drop) };
    running.send(signal, args)?;
    let wait = Act::Wait { pid: running.pid, seconds: time.map(|time| time.as_secs()) };
    tell(&wait, args.explain)?;
    if args.explain.dry_run {
        return running.send(Signal(libc::SIGKILL), args);
    }
    if !running.ends_within(time)? {
        running.send(Signal(libc::SIGKILL), args)?;
        running.ends_within(None)?;
    }
    settled(file, &opened).map(drop)
}

/// `--wait`: prints the exit status when the container has ended, at once where it has already. `unknown`: its supervisor was killed, or
/// the machine stopped, before anybody could write it down.
///
/// # Errors
/// One that never ran.
pub fn wait(file: &Path, args: &Args) -> Result<()> {
    entry::need_root("bocker-exec")?;
    // With --rm its name goes soon after its end, maybe before we look at it again.
    let opened = status::open(file)?;
    let running = find_soon(file)?;
    if let Some(running) = &running {
        tell(&Act::Wait { pid: running.pid, seconds: None }, args.explain)?;
    }
    tell(&Act::Show { file: file.to_owned() }, args.explain)?;
    if args.explain.dry_run {
        return Ok(());
    }
    if let Some(running) = running {
        running.ends_within(None)?;
    }
    let text = match settled(file, &opened)? {
        Text::Exited(status) => status.to_string(),
        Text::Running(_) => "unknown".to_owned(),
        Text::Nothing => return Err(Error::plain(format!("Container '{}' has not run", name(file)))),
    };
    writeln!(std::io::stdout(), "{text}").map_err(|e| Error::stdout(&e))
}
