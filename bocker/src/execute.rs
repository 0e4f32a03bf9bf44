//! Carries a plan out: starts the tools, waits, passes signals on, and always cleans up.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::Signal;
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::Failure;
use crate::plan::{Condition, Job, Plan, Step, Tool, Var, Word};
use crate::terminal::Modes;
use crate::{shell, sys};

/// The longest line that a tool may print for us: an id, a path, an address.
const LINE: u64 = 8192;

/// What of the caller's environment the tools see besides `BOCKER_*`: nothing of it reaches a payload,
/// and no variable can change which program they start (PATH, LD_PRELOAD).
const ENVIRONMENT: &[&str] = &[
    "HOME",
    "LANG",
    "LC_ALL",
    "TERM",
    "COLUMNS",
    "NO_COLOR",
    "XDG_RUNTIME_DIR",
    "XDG_CONFIG_HOME",
    "DOCKER_CONFIG",
    "REGISTRY_AUTH_FILE",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "ALL_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "all_proxy",
    "SOURCE_DATE_EPOCH",
    "TMPDIR",
];

/// Carries out `plan` with the tools in the directory `tools`; the exit status.
///
/// # Errors
/// A tool that cannot be started. Tools that fail have said why themselves.
pub fn execute(plan: &Plan, tools: &Path, trace: bool) -> Result<u8, Failure> {
    let signals = Signals::hold().map_err(|e| Failure::new(format!("signalfd: {e}")))?;
    let mut run = Run {
        plan,
        tools,
        trace,
        signals,
        values: HashMap::new(),
        on_exit: Vec::new(),
        alive: Vec::new(),
        handed: false,
        quiet: false,
        interrupted: None,
    };
    let status = run.steps(&plan.steps);
    run.clean_up();
    let own = |status: u8| plan.failure.filter(|_| status != 0).unwrap_or(status);
    match status {
        Ok(()) => Ok(0),
        Err(End::Payload(status)) => Ok(status),
        Err(End::Interrupted(signal)) => Ok(128 + signal as u8),
        Err(End::Failed(status)) => Ok(own(status)),
        Err(End::Unable(failure)) => Err(failure.status(own(1))),
    }
}

/// Why no further step is done.
enum End {
    /// A tool failed, and has said why.
    Failed(u8),
    /// The last step ended with this status.
    Payload(u8),
    /// We were told to stop.
    Interrupted(i32),
    /// A tool could not be started or was killed; nobody has said so yet.
    Unable(Failure),
}

struct Run<'a> {
    plan: &'a Plan,
    tools: &'a Path,
    trace: bool,
    signals: Signals,
    values: HashMap<Var, OsString>,
    on_exit: Vec<&'a Vec<(Var, Tool)>>,
    /// Started and not waited for: who signals are passed on to.
    alive: Vec<u32>,
    /// The last step is under way: signals are the payload's.
    handed: bool,
    /// What is started now says nothing.
    quiet: bool,
    interrupted: Option<i32>,
}

impl<'a> Run<'a> {
    fn steps(&mut self, steps: &'a [Step]) -> Result<(), End> {
        for step in steps {
            self.step(step)?;
            if let Some(signal) = self.interrupted {
                return Err(End::Interrupted(signal));
            }
        }
        Ok(())
    }

    fn step(&mut self, step: &'a Step) -> Result<(), End> {
        match step {
            Step::Do(jobs) => self.jobs(jobs),
            Step::OnExit(groups) => {
                // What a step before got under this name is not what is meant.
                groups.iter().flatten().for_each(|(var, _)| drop(self.values.remove(var)));
                self.on_exit.extend(groups);
                Ok(())
            }
            Step::Keep => {
                self.on_exit.clear();
                Ok(())
            }
            Step::Write(path, content) => self.write(&self.joined(path), &self.joined(content)),
            Step::If(condition, yes, no) => {
                let steps = if self.holds(condition)? { yes } else { no };
                // Interrupted meanwhile: the answer is none.
                if self.interrupted.is_some() { Ok(()) } else { self.steps(steps) }
            }
            Step::Each(tools) => {
                let mut result = Ok(());
                for tool in tools {
                    let child = self.start(tool, Stdio::inherit(), Stdio::inherit());
                    match child.and_then(|child| self.all_done(vec![(tool, child)])) {
                        _ if self.interrupted.is_some() => break,
                        Ok(()) => {}
                        Err(End::Unable(failure)) => {
                            failure.say();
                            result = Err(End::Failed(1));
                        }
                        Err(end) => result = Err(end),
                    }
                }
                result
            }
            Step::Fail(line) => Err(End::Unable(Failure::new(line.clone()))),
            Step::Stop => Err(End::Failed(1)),
            Step::Let(var, word) => {
                let value = self.value(word);
                self.values.insert(var, value);
                Ok(())
            }
            Step::Say(words) => {
                let mut line = words.iter().map(|word| self.value(word)).collect::<Vec<_>>().join(&OsString::from(" "));
                line.push("\n");
                match std::io::stdout().write_all(line.as_bytes()) {
                    Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => {
                        Err(End::Unable(Failure::new(format!("write stdout: {}", reason(&e)))))
                    }
                    _ => Ok(()),
                }
            }
            Step::Begin(tool) => {
                let child = self.start(tool, Stdio::inherit(), Stdio::inherit())?;
                match (self.all_done(vec![(tool, child)]), self.interrupted) {
                    (Err(_), Some(signal)) => Err(End::Interrupted(signal)),
                    (Err(End::Failed(status)), None) => Err(End::Payload(status)),
                    (done, _) => done,
                }
            }
            Step::Hand(tool) => {
                let modes = Modes::now();
                let mut child = self.start(tool, Stdio::inherit(), Stdio::inherit())?;
                self.handed = true;
                let status = self.wait(&mut child)?;
                if status.signal().is_some() {
                    modes.put_back();
                }
                Err(End::Payload(status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)) as u8))
            }
            // Signals that have come and were not read wait for it: what is pending stays so over execve(2).
            Step::Become(tool) => {
                let (mut command, path) = self.command(tool, Stdio::inherit(), Stdio::inherit())?;
                Err(unable(&path, &command.exec()))
            }
        }
    }

    fn holds(&mut self, condition: &'a Condition) -> Result<bool, End> {
        let (job, quiet) = match condition {
            Condition::There(paths) => return Ok(paths.iter().any(|path| Path::new(&self.joined(path)).exists())),
            Condition::Done(job) => (job, false),
            Condition::Quietly(job) => (job, true),
        };
        self.quiet = quiet;
        let done = self.jobs(std::slice::from_ref(job));
        self.quiet = false;
        match done {
            Ok(()) => Ok(true),
            Err(End::Failed(_)) => Ok(false),
            Err(end) => Err(end),
        }
    }

    fn joined(&self, words: &[Word]) -> OsString {
        words.iter().map(|word| self.value(word)).collect()
    }

    fn write(&self, path: &OsString, content: &OsString) -> Result<(), End> {
        use std::os::unix::fs::OpenOptionsExt;
        let fail = |act: &str, e: std::io::Error| {
            End::Unable(Failure::new(format!("{act} {}: {}", Path::new(path).display(), reason(&e))))
        };
        let made = File::options().write(true).create_new(true).mode(0o644).open(path);
        made.map_err(|e| fail("make", e))?.write_all(content.as_bytes()).map_err(|e| fail("write", e))
    }

    /// Starts all, then waits for all: none may still be at work when the next step, or cleaning up, begins.
    fn jobs(&mut self, jobs: &'a [Job]) -> Result<(), End> {
        let mut started = Vec::new();
        let mut result = Ok(());
        for job in jobs {
            // Several at once cannot share our stdin.
            let stdin = if jobs.len() == 1 { Stdio::inherit() } else { Stdio::null() };
            match self.start_pipe(&job.pipe, stdin, job.var.is_some()) {
                Ok((children, out)) => started.push((job, children, out)),
                Err(end) => {
                    result = Err(end);
                    break;
                }
            }
        }
        for (job, children, out) in started {
            let line = out.map(|out| self.read_line(out)).transpose();
            let done =
                self.all_done(children).and(line).and_then(|line| line.map_or(Ok(()), |line| self.keep(job, line)));
            result = result.and(done);
        }
        match (result, self.interrupted) {
            (Err(_), Some(signal)) => Err(End::Interrupted(signal)),
            (result, _) => result,
        }
    }

    /// `tool | tool`: the children, and what the last one prints if that is to be kept.
    fn start_pipe(
        &mut self,
        tools: &'a [Tool],
        stdin: Stdio,
        kept: bool,
    ) -> Result<(Vec<Running<'a>>, Option<File>), End> {
        let mut children: Vec<Running<'a>> = Vec::new();
        let mut stdin = stdin;
        for (at, tool) in tools.iter().enumerate() {
            let piped = kept || at + 1 < tools.len();
            let ours = || if self.quiet { Stdio::null() } else { Stdio::inherit() };
            match self.start(tool, stdin, if piped { Stdio::piped() } else { ours() }) {
                Ok(mut child) => {
                    let out = child.stdout.take();
                    children.push((tool, child));
                    if at + 1 == tools.len() {
                        return Ok((children, out.map(|out| File::from(OwnedFd::from(out)))));
                    }
                    stdin = out.map_or_else(Stdio::null, Stdio::from);
                }
                Err(end) => {
                    // Those before it end by themselves: their pipe is closed.
                    let _ = self.all_done(children);
                    return Err(end);
                }
            }
        }
        Ok((children, None))
    }

    /// The variable's value: exactly one line. Help where an id should be becomes no id.
    fn keep(&mut self, job: &Job, mut line: Vec<u8>) -> Result<(), End> {
        if line.last() == Some(&b'\n') {
            line.pop();
        }
        if line.is_empty() || line.contains(&b'\n') || line.len() as u64 > LINE {
            let tool = job.pipe.last().map_or("?", |tool| tool.name);
            return Err(End::Unable(Failure::new(format!("{tool}: it did not print one line, as it should have"))));
        }
        if let Some(var) = job.var {
            self.values.insert(var, OsString::from_vec(line));
        }
        Ok(())
    }

    /// Reads to the end, passing signals on meanwhile.
    fn read_line(&mut self, mut out: File) -> Result<Vec<u8>, End> {
        let mut line = Vec::new();
        let mut chunk = [0_u8; 1024];
        loop {
            if self.signal_or(Some(out.as_fd()))? {
                let n = out.read(&mut chunk).map_err(|e| End::Unable(Failure::new(format!("read: {}", reason(&e)))))?;
                line.extend_from_slice(chunk.get(..n).unwrap_or_default());
                if n == 0 || line.len() as u64 > LINE {
                    return Ok(line);
                }
            }
        }
    }

    fn start(&mut self, tool: &Tool, stdin: Stdio, stdout: Stdio) -> Result<Child, End> {
        let (mut command, path) = self.command(tool, stdin, stdout)?;
        let child = command.spawn().map_err(|e| unable(&path, &e))?;
        self.alive.push(child.id());
        Ok(child)
    }

    /// The tool, ready to be started, and its path.
    fn command(&self, tool: &Tool, stdin: Stdio, stdout: Stdio) -> Result<(Command, PathBuf), End> {
        if self.trace {
            let mut line = format!("+ {}", tool.name);
            for word in &tool.words {
                line.push(' ');
                line.push_str(&match word {
                    Word::Tool(name) => (*name).to_owned(),
                    _ => shell::quote(&self.value(word)),
                });
            }
            let _ = writeln!(std::io::stderr(), "{line}");
        }
        let path = if tool.name.starts_with("bocker") { self.tools.join(tool.name) } else { host_program(tool.name)? };
        let mut command = Command::new(&path);
        let stdin = if tool.no_stdin { Stdio::null() } else { stdin };
        let stdin = match &tool.told {
            None => stdin,
            Some((0, words)) => memory(words)?.into(),
            Some((number, words)) => {
                sys::give(&mut command, memory(words)?.into(), *number);
                stdin
            }
        };
        if self.quiet {
            command.stderr(Stdio::null());
        }
        command.args(tool.words.iter().map(|word| self.value(word))).stdin(stdin).stdout(stdout).env_clear();
        let keep =
            |name: &OsString| name.as_bytes().starts_with(b"BOCKER_") || ENVIRONMENT.iter().any(|kept| name == kept);
        command.envs(std::env::vars_os().filter(|(name, _)| keep(name)));
        command.envs(self.plan.env.iter().map(|(name, value)| (name, value)));
        Ok((command, path))
    }

    fn value(&self, word: &Word) -> OsString {
        let of = |var| self.values.get(var).cloned().unwrap_or_default();
        match word {
            Word::Text(text) => text.clone(),
            Word::Tool(name) => self.tools.join(name).into(),
            Word::Var(var) => of(var),
            Word::Me(before) => format!("{before}={}", std::process::id()).into(),
            Word::Between(before, var, rest) => [OsString::from(before), of(var), rest.into()].into_iter().collect(),
            Word::Joined(words) => self.joined(words),
            Word::Last(var) => {
                let path = of(var);
                Path::new(&path).file_name().unwrap_or_default().to_owned()
            }
            Word::VarWith(var, rest) => {
                let mut value = of(var);
                value.push(rest);
                value
            }
        }
    }

    /// Waits for a pipe. The last tool's failure counts, as in a shell.
    fn all_done(&mut self, children: Vec<Running>) -> Result<(), End> {
        let mut result = Ok(());
        let last = children.len().saturating_sub(1);
        for (at, (tool, mut child)) in children.into_iter().enumerate() {
            let verdict = verdict(tool, self.wait(&mut child)?);
            // A tool that was killed could not say so itself, wherever it stood.
            if result.is_ok() && (at == last || matches!(verdict, Err(End::Unable(_)))) {
                result = verdict;
            }
        }
        result
    }

    fn wait(&mut self, child: &mut Child) -> Result<ExitStatus, End> {
        loop {
            match child.try_wait() {
                Ok(Some(status)) => {
                    self.alive.retain(|pid| *pid != child.id());
                    return Ok(status);
                }
                Ok(None) => {}
                Err(e) => return Err(End::Unable(Failure::new(format!("wait: {}", reason(&e))))),
            }
            self.signal_or(None)?;
        }
    }

    /// Waits for a signal, which is passed on, or for something to read; whether there is.
    fn signal_or(&mut self, readable: Option<BorrowedFd>) -> Result<bool, End> {
        let mut fds = vec![PollFd::new(self.signals.0.as_fd(), PollFlags::POLLIN)];
        fds.extend(readable.map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(e) => return Err(End::Unable(Failure::new(format!("poll: {}", e.desc())))),
        }
        let ready = fds.get(1).is_some_and(|fd| fd.any().unwrap_or(false));
        self.pass_on();
        Ok(ready)
    }

    /// Takes the signals that came; those meant for us alone go on to the tools.
    fn pass_on(&mut self) {
        while let Ok(Some(info)) = self.signals.0.read_signal() {
            let signal = info.ssi_signo as i32;
            // A key of the terminal (code SI_KERNEL, above 0) has reached the children, too; a kill(2) has not, nor has
            // an alarm that the caller set.
            let key = info.ssi_code > 0 && KEYS.contains(&signal);
            match (signal, self.handed) {
                (libc::SIGCHLD, _) | (libc::SIGCONT | libc::SIGWINCH | libc::SIGURG | libc::SIGTSTP, false) => {}
                (_, true) => self.send(signal, key),
                (_, false) => {
                    self.interrupted = self.interrupted.or(Some(signal));
                    // Of the others no tool knows what it should clean up.
                    let known = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT].contains(&signal);
                    self.send(if known { signal } else { libc::SIGTERM }, key);
                }
            }
            if signal == libc::SIGTSTP {
                sys::stop_as_a_job();
            }
        }
    }

    fn send(&self, signal: i32, key: bool) {
        for pid in self.alive.iter().filter(|_| !key) {
            let _ = sys::kill(*pid, signal);
        }
    }

    /// Everything that the plan wants done at its end. What fails has said so.
    fn clean_up(&mut self) {
        if !self.on_exit.is_empty() {
            // What takes things down is not to be stopped half-way, nor are the tools that do it: they inherit this.
            sys::ignore_ends();
        }
        for group in std::mem::take(&mut self.on_exit) {
            let mut children = Vec::new();
            for (var, tool) in group {
                if !self.values.contains_key(var) {
                    continue;
                }
                match self.start(tool, Stdio::null(), Stdio::inherit()) {
                    Ok(child) => children.push(child),
                    Err(End::Unable(failure)) => failure.say(),
                    Err(_) => {}
                }
            }
            self.alive.clear();
            for mut child in children {
                let _ = self.wait(&mut child);
            }
        }
    }
}

/// These words, each with a NUL after it, to be read: a file in memory that has no name, `memfd_create(2)`.
fn memory(words: &[OsString]) -> Result<File, End> {
    let make = || {
        let mut file = File::from(memfd_create(c"words", MFdFlags::MFD_CLOEXEC)?);
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.as_bytes().iter().chain(&[0])).copied().collect();
        file.write_all(&bytes).and_then(|()| file.rewind())?;
        Ok(file)
    };
    make().map_err(|e: std::io::Error| End::Unable(Failure::new(format!("memfd_create: {}", reason(&e)))))
}

/// A program that every host has, where such programs are: not by PATH, which is the caller's.
fn host_program(name: &str) -> Result<PathBuf, End> {
    let places = ["/usr/bin", "/bin", "/usr/sbin", "/sbin"].map(|dir| Path::new(dir).join(name));
    let found = places.into_iter().find(|path| path.exists());
    found
        .ok_or_else(|| End::Unable(Failure::new(format!("start {name}: this host has none in /usr/bin, /bin or sbin"))))
}

fn unable(path: &Path, error: &std::io::Error) -> End {
    let reason = reason(error);
    End::Unable(Failure::new(format!("start {}: {reason} (the tools live beside bocker)", path.display())))
}

/// A started tool.
type Running<'a> = (&'a Tool, Child);

/// "No space left on device", not "No space left on device (os error 28)".
pub(crate) fn reason(error: &std::io::Error) -> String {
    error.raw_os_error().map_or_else(|| error.to_string(), |raw| nix::errno::Errno::from_raw(raw).desc().to_owned())
}

/// What the end of a tool means.
fn verdict(tool: &Tool, status: ExitStatus) -> Result<(), End> {
    match (status.code(), status.signal().map(Signal::try_from)) {
        (Some(0), _) => Ok(()),
        (Some(code), _) => Err(End::Failed(code as u8)),
        // The reader went away, and has said why.
        (None, Some(Ok(Signal::SIGPIPE))) => Err(End::Failed(1)),
        (None, Some(Ok(signal))) => Err(End::Unable(Failure::new(format!("{}: killed by {signal}", tool.name)))),
        (None, _) => Err(End::Unable(Failure::new(format!("{}: killed", tool.name)))),
    }
}

/// What a terminal sends to the whole foreground group.
const KEYS: [i32; 5] = [libc::SIGINT, libc::SIGQUIT, libc::SIGTSTP, libc::SIGHUP, libc::SIGWINCH];

/// Left to the kernel: what a fault of our own raises, what cannot be taken, a reader that went away, and a
/// background process that would use the terminal.
const LEFT: [i32; 12] = [
    libc::SIGILL,
    libc::SIGTRAP,
    libc::SIGABRT,
    libc::SIGBUS,
    libc::SIGFPE,
    libc::SIGSEGV,
    libc::SIGSYS,
    libc::SIGKILL,
    libc::SIGSTOP,
    libc::SIGPIPE,
    libc::SIGTTIN,
    libc::SIGTTOU,
];

/// All other signals, held back and read from a descriptor instead: none of them ends us without cleaning up.
/// What the caller ignores stays ignored (`nohup`, a script's `&`).
///
/// Children inherit the mask: the tools clear it when they start, so a signal that comes
/// between is late, not lost.
struct Signals(SignalFd);

impl Signals {
    fn hold() -> nix::Result<Self> {
        sys::default_sigchld();
        let set = sys::signals_but(&LEFT);
        set.thread_block()?;
        SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).map(Self)
    }
}
