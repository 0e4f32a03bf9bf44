//! A plan as a POSIX shell script. What it prints does what [`crate::execute`] does.

use std::ffi::OsStr;
use std::fmt::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::plan::{Condition, Job, Plan, Step, Tool, Word};

/// The script; the tools are found in `tools` first.
pub fn script(plan: &Plan, tools: &Path) -> String {
    let mut printer = Printer {
        out: format!("PATH={}:$PATH\n", quote(tools.as_os_str())),
        traps: false,
        depth: 0,
        exit: plan.failure.map_or("exit".to_owned(), |status| format!("exit {status}")),
    };
    for (name, value) in &plan.env {
        let _ = writeln!(printer.out, "export {name}={}", quote(value));
    }
    for step in &plan.steps {
        printer.step(step);
    }
    printer.out
}

/// One tool as a command line, without values of variables.
pub fn command(tool: &Tool) -> String {
    let mut line = tool.name.to_owned();
    for word in &tool.words {
        line.push(' ');
        match word {
            Word::Me(option) if asks_who(tool) => line.push_str(&format!("{option}=\"$me\"")),
            word => line.push_str(&self::word(word)),
        }
    }
    let Some((descriptor, words)) = &tool.told else {
        if tool.no_stdin {
            line.push_str(" </dev/null");
        }
        return line;
    };
    // printf is the shell's own: no other process has the words on its command line.
    let printf = words.iter().fold("printf '%s\\0'".to_owned(), |line, word| line + " " + &quote(word));
    match (descriptor, tool.no_stdin) {
        (0, _) => format!("{printf} | {line}"),
        (n, true) => format!("{printf} | {line} {n}<&0 </dev/null"),
        (n, false) => format!("{{ {printf} | {line} {n}<&0 <&9 9<&-; }} 9<&0"),
    }
}

/// Whether our number is to be said: in a pipe its parent is a subshell that ends at once.
fn asks_who(tool: &Tool) -> bool {
    matches!(tool.told, Some((0, _))) && tool.names_us()
}

/// The word quoted for a shell. The script is text: a word that is not comes out of `printf`, in octal
/// (and without a newline at its very end, which `$(…)` drops).
pub fn quote(word: &OsStr) -> String {
    let bytes = word.as_bytes();
    let plain = |b: &u8| b.is_ascii_alphanumeric() || b"_-./:=@,+%".contains(b);
    // Plain in any shell as an argument; shlex quotes more, such as cpu.shares=512.
    if !bytes.is_empty() && bytes.iter().all(plain) {
        return String::from_utf8_lossy(bytes).into_owned();
    }
    let quoted = shlex::bytes::Quoter::new().allow_nul(true).quote(bytes).unwrap_or(bytes.into());
    String::from_utf8(quoted.into_owned()).unwrap_or_else(|_| {
        let octal = |b: &u8| if b.is_ascii_alphanumeric() { char::from(*b).to_string() } else { format!("\\{b:03o}") };
        format!("\"$(printf '{}')\"", bytes.iter().map(octal).collect::<String>())
    })
}

fn word(word: &Word) -> String {
    match word {
        Word::Text(text) => quote(text),
        Word::Tool(name) => (*name).to_owned(),
        Word::Var(var) => format!("\"${var}\""),
        Word::VarWith(var, rest) => format!("\"${var}{rest}\""),
        Word::Last(var) => format!("\"${{{var}##*/}}\""),
        Word::Between(before, var, rest) => format!("\"{before}${{{var}}}{rest}\""),
        Word::Joined(words) => words.iter().map(self::word).collect(),
        // $$ is another process's number in a subshell: there the option goes without.
        Word::Me(option) => (*option).to_owned(),
    }
}

fn pipe(tools: &[Tool]) -> String {
    tools.iter().map(command).collect::<Vec<_>>().join(" | ")
}

fn done(job: &Job) -> String {
    match job.var {
        Some(var) => format!("{var}=$({})", pipe(&job.pipe)),
        None => pipe(&job.pipe),
    }
}

/// Without what it says.
fn quietly(job: &Job) -> String {
    match job.var {
        Some(var) => format!("{var}=$({} 2>/dev/null)", pipe(&job.pipe)),
        None => format!("{} >/dev/null 2>&1", pipe(&job.pipe)),
    }
}

/// Words as one; a tool by its path.
fn joined(words: &[Word]) -> String {
    let one = |part: &Word| match part {
        Word::Tool(name) => format!("\"$(command -v {name})\""),
        part => word(part),
    };
    words.iter().map(one).collect()
}

/// What may end the script, with numbers as in signal(7). The executor holds more; a shell knows no name for some.
const ENDS: [(&str, i32); 7] =
    [("HUP", 1), ("INT", 2), ("QUIT", 3), ("USR1", 10), ("USR2", 12), ("ALRM", 14), ("TERM", 15)];

struct Printer {
    out: String,
    /// There are traps.
    traps: bool,
    /// Of choices within choices.
    depth: usize,
    /// What follows `||`.
    exit: String,
}

impl Printer {
    fn line(&mut self, text: &str) {
        self.out.push_str(&"    ".repeat(self.depth));
        self.out.push_str(text);
        self.out.push('\n');
    }

    /// Which process this shell is: POSIX has no other word for it that holds in a subshell.
    fn who(&mut self, jobs: &[Job]) {
        if jobs.iter().flat_map(|job| &job.pipe).any(asks_who) {
            self.line("me=$(exec sh -c 'echo \"$PPID\"')");
        }
    }

    fn branch(&mut self, steps: &[Step]) {
        self.depth += 1;
        for step in steps {
            self.step(step);
        }
        self.depth -= 1;
    }

    fn step(&mut self, step: &Step) {
        match step {
            // One after the other: it takes longer, and comes to the same.
            Step::Do(jobs) => {
                self.who(jobs);
                for job in jobs {
                    self.line(&format!("{} || {}", done(job), self.exit.clone()));
                }
            }
            Step::OnExit(groups) => {
                self.traps = true;
                let all: Vec<_> = groups.iter().flatten().collect();
                // Nothing of the caller's environment is taken for ours.
                self.line(&all.iter().map(|(var, _)| format!("{var}=")).collect::<Vec<_>>().join(" "));
                let mut action = format!("trap \"\" {}", ENDS.map(|(name, _)| name).join(" "));
                for (var, tool) in all {
                    let _ = write!(action, "; [ -z \"${var}\" ] || {}", command(tool));
                }
                self.line(&format!("trap {} EXIT", quote(OsStr::new(&action))));
                // A shell that dies of a signal skips its EXIT trap, or does not wait for what it runs; one that exits
                // does neither.
                self.line(&ENDS.map(|(name, number)| format!("trap 'exit {}' {name}", 128 + number)).join("; "));
            }
            Step::Keep => {
                self.traps = false;
                self.line(&format!("trap - EXIT {}", ENDS.map(|(name, _)| name).join(" ")));
            }
            Step::Write(path, content) => {
                let (path, exit) = (joined(path), self.exit.clone());
                // The shell's noclobber opens with O_EXCL, but for what is no regular file.
                self.line(&format!(
                    "(set -C; umask 022; [ ! -e {path} ] && printf %s {} >{path}) || {{ echo bocker: make {path}: File exists >&2; {exit}; }}",
                    joined(content)
                ));
            }
            Step::If(condition, yes, no) => {
                if let Condition::Done(job) | Condition::Quietly(job) = condition {
                    self.who(std::slice::from_ref(job));
                }
                let condition = match condition {
                    Condition::Done(job) => done(job),
                    Condition::Quietly(job) => quietly(job),
                    Condition::There(paths) => {
                        let each: Vec<_> = paths.iter().map(|path| format!("[ -e {} ]", joined(path))).collect();
                        let any = each.join(" || ");
                        if each.len() > 1 && yes.is_empty() { format!("{{ {any}; }}") } else { any }
                    }
                };
                if yes.is_empty() && no.is_empty() {
                    return self.line(&format!("{condition} || :"));
                }
                // An `if` without a branch is no shell.
                let (not, first, second) = if yes.is_empty() { ("! ", no, yes) } else { ("", yes, no) };
                self.line(&format!("if {not}{condition}; then"));
                self.branch(first);
                if !second.is_empty() {
                    self.line("else");
                    self.branch(second);
                }
                self.line("fi");
            }
            Step::Each(tools) => {
                self.line("failed=");
                tools.iter().for_each(|tool| self.line(&format!("{} || failed=$?", command(tool))));
                self.line(&format!(
                    "[ -z \"$failed\" ] || {}",
                    if self.exit == "exit" { "exit \"$failed\"" } else { &self.exit }.to_owned()
                ));
            }
            Step::Fail(line) => {
                let text = quote(OsStr::new(&format!("bocker: {line}")));
                self.line(&format!("echo {text} >&2; {}", if self.exit == "exit" { "exit 1" } else { &self.exit }));
            }
            Step::Stop => self.line(if self.exit == "exit" { "exit 1" } else { &self.exit }.to_owned().as_str()),
            Step::Let(var, value) => self.line(&format!("{var}={}", word(value))),
            Step::Say(words) => {
                self.line(&format!("echo {}", words.iter().map(word).collect::<Vec<_>>().join(" ")));
            }
            Step::Begin(tool) => self.line(&format!("{} || exit", command(tool))),
            Step::Hand(tool) => {
                // From here on signals are the payload's, which gets a terminal's by itself: its status is ours.
                if self.traps {
                    self.line(&format!("trap : {}", ENDS.map(|(name, _)| name).join(" ")));
                }
                self.line(&command(tool));
            }
            // In a pipe it would be a subshell that becomes it.
            Step::Become(tool) if tool.told.is_some() => self.line(&command(tool)),
            Step::Become(tool) => self.line(&format!("exec {}", command(tool))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_bytes_survive_a_shell() {
        use std::os::unix::ffi::OsStrExt;
        for word in [&b"a b"[..], b"it's", b"$x `y` \\ \"z\"", b"-n", b"a\xffb", b"\xff\\ '%s", b"", b"\n", b"!#~*"] {
            let script = format!("printf %s {}", quote(OsStr::from_bytes(word)));
            let out = std::process::Command::new("/bin/sh").arg("-c").arg(&script).output().unwrap();
            assert_eq!(out.stdout, word, "{script}");
        }
    }

    #[test]
    fn prints_every_form() {
        let plan = Plan {
            steps: vec![
                Step::OnExit(vec![
                    vec![("addr", Tool::new("bocker-net", ["down"]).and([Word::Var("id")]))],
                    vec![("id", Tool::new("bocker-store", ["rm"]).and([Word::Var("id")]))],
                ]),
                Step::capture("id", vec![Tool::new("bocker-store", ["snapshot", "img_42150", "--", "it's"])]),
                Step::Do(vec![
                    Job::run(Tool::new("bocker-cg", ["create"]).and([Word::Var("id")])),
                    Job::capture("addr", Tool::new("bocker-net", ["up"]).and([Word::Var("id")])),
                ]),
                Step::pipe(vec![Tool::new("bocker-net", ["list"]), Tool::new("bocker-store", ["orphans"])]),
                Step::Say(vec!["Created:".into(), Word::Var("id")]),
                Step::Hand(
                    Tool::new("bocker-cg", ["exec"])
                        .and([Word::Var("id"), Word::Me("--parent")])
                        .then(Tool::new("bocker-exec", ["--root"]).and([Word::VarWith("id", "/rootfs")])),
                ),
            ],
            env: vec![("BOCKER_SUBNET".into(), "10.1.0.0/16".into())],
            failure: Some(125),
        };
        let expected = r#"PATH=/usr/bin:$PATH
export BOCKER_SUBNET=10.1.0.0/16
addr= id=
trap 'trap "" HUP INT QUIT USR1 USR2 ALRM TERM; [ -z "$addr" ] || bocker-net down "$id"; [ -z "$id" ] || bocker-store rm "$id"' EXIT
trap 'exit 129' HUP; trap 'exit 130' INT; trap 'exit 131' QUIT; trap 'exit 138' USR1; trap 'exit 140' USR2; trap 'exit 142' ALRM; trap 'exit 143' TERM
id=$(bocker-store snapshot img_42150 -- "it's") || exit 125
bocker-cg create "$id" || exit 125
addr=$(bocker-net up "$id") || exit 125
bocker-net list | bocker-store orphans || exit 125
echo Created: "$id"
trap : HUP INT QUIT USR1 USR2 ALRM TERM
bocker-cg exec "$id" --parent -- bocker-exec --root "$id/rootfs"
"#;
        assert_eq!(script(&plan, Path::new("/usr/bin")), expected);
    }
}
