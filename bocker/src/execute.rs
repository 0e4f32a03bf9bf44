//! Carries a plan out: starts the tools, waits, passes signals on, and always cleans up.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Pid;

use crate::Failure;
use crate::plan::{Plan, Step, Tool, Var, Word};
use crate::shell;

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
    Interrupted(Signal),
    /// A tool could not be started or was killed; nobody has said so yet.
    Unable(Failure),
}

struct Run<'a> {
    plan: &'a Plan,
    tools: &'a Path,
    trace: bool,
    signals: Signals,
    values: HashMap<Var, OsString>,
    on_exit: Vec<&'a Tool>,
    /// Started and not waited for: who signals are passed on to.
    alive: Vec<u32>,
    interrupted: Option<Signal>,
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
            Step::Run(tool) => {
                let child = self.start(tool, Stdio::inherit(), Stdio::inherit())?;
                self.all_done(vec![(tool, child)], false)
            }
            Step::Capture(var, tools) => self.capture(var, tools),
            Step::Together(beside, steps) => {
                let mut children = Vec::new();
                let mut result = Ok(());
                for tool in beside {
                    match self.start(tool, Stdio::null(), Stdio::inherit()) {
                        Ok(child) => children.push((tool, child)),
                        Err(end) => result = Err(end),
                    }
                }
                let result = result.and_then(|()| self.steps(steps));
                // Whatever happened: none of them may still be at work when cleaning up begins.
                let beside = self.all_done(children, false);
                result.and(beside)
            }
            Step::OnExit(tools) => {
                self.on_exit.extend(tools);
                Ok(())
            }
            Step::Say(words) => {
                let mut line = words.iter().map(|word| self.value(word)).collect::<Vec<_>>().join(&OsString::from(" "));
                line.push("\n");
                match std::io::stdout().write_all(line.as_bytes()) {
                    Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => {
                        Err(End::Unable(Failure::new(format!("write stdout: {e}"))))
                    }
                    _ => Ok(()),
                }
            }
            Step::Hand(tool) => {
                let mut child = self.start(tool, Stdio::inherit(), Stdio::inherit())?;
                let status = self.wait(&mut child)?;
                Err(End::Payload(status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)) as u8))
            }
        }
    }

    /// `var=$(tool | tool)`: the line that the last one prints.
    fn capture(&mut self, var: Var, tools: &'a [Tool]) -> Result<(), End> {
        let mut children = Vec::new();
        let mut stdin = Stdio::inherit();
        let mut read = Ok(Vec::new());
        for (at, tool) in tools.iter().enumerate() {
            let mut child = match self.start(tool, stdin, Stdio::piped()) {
                Ok(child) => child,
                Err(end) => {
                    // Those before it end by themselves: their pipe is closed.
                    let _ = self.all_done(children, true);
                    return Err(end);
                }
            };
            let out = child.stdout.take();
            children.push((tool, child));
            if at + 1 < tools.len() {
                stdin = out.map_or_else(Stdio::null, Stdio::from);
                continue;
            }
            stdin = Stdio::null();
            read = self.read_line(out.map(|out| File::from(std::os::fd::OwnedFd::from(out))));
        }
        drop(stdin);
        self.all_done(children, true)?;
        let mut line = read?;
        while line.last() == Some(&b'\n') {
            line.pop();
        }
        self.values.insert(var, std::os::unix::ffi::OsStringExt::from_vec(line));
        Ok(())
    }

    /// Reads to the end, passing signals on meanwhile.
    fn read_line(&mut self, out: Option<File>) -> Result<Vec<u8>, End> {
        let Some(mut out) = out else { return Ok(Vec::new()) };
        let mut line = Vec::new();
        let mut chunk = [0_u8; 1024];
        loop {
            if self.signal_or(Some(out.as_fd()))? {
                let n = out.read(&mut chunk).map_err(|e| End::Unable(Failure::new(format!("read: {e}"))))?;
                line.extend_from_slice(chunk.get(..n).unwrap_or_default());
                if n == 0 || line.len() as u64 > LINE {
                    return Ok(line);
                }
            }
        }
    }

    fn start(&mut self, tool: &Tool, stdin: Stdio, stdout: Stdio) -> Result<Child, End> {
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
        let path = self.tools.join(tool.name);
        let mut command = Command::new(&path);
        command.args(tool.words.iter().map(|word| self.value(word))).stdin(stdin).stdout(stdout).env_clear();
        let keep =
            |name: &OsString| name.as_bytes().starts_with(b"BOCKER_") || ENVIRONMENT.iter().any(|kept| name == kept);
        command.envs(std::env::vars_os().filter(|(name, _)| keep(name)));
        command.envs(self.plan.env.iter().map(|(name, value)| (name, value)));
        let child = command.spawn().map_err(|e| {
            let reason = nix::errno::Errno::from_raw(e.raw_os_error().unwrap_or(0)).desc();
            End::Unable(Failure::new(format!("start {}: {reason} (the tools live beside bocker)", path.display())))
        })?;
        self.alive.push(child.id());
        Ok(child)
    }

    fn value(&self, word: &Word) -> OsString {
        let of = |var| self.values.get(var).cloned().unwrap_or_default();
        match word {
            Word::Text(text) => text.clone(),
            Word::Tool(name) => self.tools.join(name).into(),
            Word::Var(var) => of(var),
            Word::VarWith(var, rest) => {
                let mut value = of(var);
                value.push(rest);
                value
            }
        }
    }

    /// Waits for all. The first failure counts, or in a pipe only the last tool's, as in a shell.
    fn all_done(&mut self, children: Vec<(&Tool, Child)>, pipe: bool) -> Result<(), End> {
        let mut result = Ok(());
        let last = children.len().saturating_sub(1);
        for (at, (tool, mut child)) in children.into_iter().enumerate() {
            let verdict = verdict(tool, self.wait(&mut child)?);
            // A tool that was killed could not say so itself, wherever it stood.
            let counts = !pipe || at == last || matches!(verdict, Err(End::Unable(_)));
            if counts && result.is_ok() {
                result = verdict;
            }
        }
        match (result, self.interrupted) {
            (Err(_), Some(signal)) => Err(End::Interrupted(signal)),
            (result, _) => result,
        }
    }

    fn wait(&mut self, child: &mut Child) -> Result<ExitStatus, End> {
        loop {
            match child.try_wait() {
                Ok(Some(status)) => {
                    self.alive.retain(|pid| *pid != child.id());
                    return Ok(status);
                }
                Ok(None) => {}
                Err(e) => return Err(End::Unable(Failure::new(format!("wait: {e}")))),
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
            let Ok(signal) = Signal::try_from(info.ssi_signo as i32) else { continue };
            if signal == Signal::SIGCHLD {
                continue;
            }
            self.interrupted = self.interrupted.or(Some(signal));
            // A terminal's Ctrl-C (code SI_KERNEL, above 0) has reached the children too; a kill(1) has not.
            if info.ssi_code <= 0 {
                for pid in &self.alive {
                    let _ = kill(Pid::from_raw(*pid as i32), signal);
                }
            }
        }
    }

    /// Everything that the plan wants done at its end, at the same time. What fails has said so.
    fn clean_up(&mut self) {
        let tools = std::mem::take(&mut self.on_exit);
        let mut children = Vec::new();
        for tool in tools {
            match self.start(tool, Stdio::null(), Stdio::inherit()) {
                Ok(child) => children.push(child),
                Err(End::Unable(failure)) => failure.say(),
                Err(_) => {}
            }
        }
        // What takes things down is not to be stopped half-way.
        self.alive.clear();
        for mut child in children {
            let _ = self.wait(&mut child);
        }
    }
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

/// The signals that end a program, and SIGCHLD, held back and read from a descriptor instead.
///
/// Children inherit the mask: the tools clear it when they start, so a signal that comes
/// between is late, not lost.
struct Signals(SignalFd);

impl Signals {
    fn hold() -> nix::Result<Self> {
        let mut set = SigSet::empty();
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGCHLD] {
            set.add(signal);
        }
        set.thread_block()?;
        SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).map(Self)
    }
}
