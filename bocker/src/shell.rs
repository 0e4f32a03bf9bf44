//! A plan as a POSIX shell script. What it prints does what [`crate::execute`] does.

use std::ffi::OsStr;
use std::fmt::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::plan::{Plan, Step, Tool, Word};

/// The script; the tools are found in `tools` first.
pub fn script(plan: &Plan, tools: &Path) -> String {
    let mut printer = Printer {
        out: format!("PATH={}:$PATH\n", quote(tools.as_os_str())),
        exit: plan.failure.map_or("exit".to_owned(), |status| format!("exit {status}")),
        jobs: 0,
    };
    for (name, value) in &plan.env {
        let _ = writeln!(printer.out, "export {name}={}", quote(value));
    }
    printer.steps(&plan.steps);
    printer.out
}

/// One tool as a command line, without values of variables.
pub fn command(tool: &Tool) -> String {
    let mut line = tool.name.to_owned();
    for word in &tool.words {
        line.push(' ');
        line.push_str(&self::word(word));
    }
    line
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
    }
}

fn pipe(tools: &[Tool]) -> String {
    tools.iter().map(command).collect::<Vec<_>>().join(" | ")
}

struct Printer {
    out: String,
    /// What follows `||`.
    exit: String,
    jobs: usize,
}

impl Printer {
    fn line(&mut self, text: &str) {
        self.out.push_str(text);
        self.out.push('\n');
    }

    fn steps(&mut self, steps: &[Step]) {
        for step in steps {
            self.step(step);
        }
    }

    fn step(&mut self, step: &Step) {
        let exit = self.exit.clone();
        match step {
            Step::Run(tool) => self.line(&format!("{} || {exit}", command(tool))),
            Step::Capture(var, tools) => self.line(&format!("{var}=$({}) || {exit}", pipe(tools))),
            Step::Together(beside, steps) => {
                let first = self.jobs + 1;
                for tool in beside {
                    self.jobs += 1;
                    let job = self.jobs;
                    self.line(&format!("{} & job{job}=$!", command(tool)));
                }
                let last = self.jobs;
                self.steps(steps);
                for job in first..=last {
                    self.line(&format!("wait \"$job{job}\" || {exit}"));
                }
            }
            Step::OnExit(tools) => {
                // The first wait: a job of ours may still be at work on what is now taken down.
                let tools = tools.iter().map(command).collect::<Vec<_>>().join(" & ");
                self.line(&format!("trap {} EXIT", quote(OsStr::new(&format!("wait; {tools} & wait")))));
                // A shell that dies of a signal skips its EXIT trap; one that exits does not.
                self.line("trap 'exit 129' HUP; trap 'exit 130' INT; trap 'exit 143' TERM");
            }
            Step::Say(words) => {
                self.line(&format!("echo {}", words.iter().map(word).collect::<Vec<_>>().join(" ")));
            }
            Step::Hand(tool) => self.line(&command(tool)),
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
                Step::Capture("id", vec![Tool::new("bocker-store", ["snapshot", "img_42150", "--", "it's"])]),
                Step::OnExit(vec![
                    Tool::new("bocker-net", ["down"]).and([Word::Var("id")]),
                    Tool::new("bocker-cg", ["delete"]).and([Word::Var("id")]),
                ]),
                Step::Together(
                    vec![Tool::new("bocker-cg", ["create"]).and([Word::Var("id")])],
                    vec![Step::Run(Tool::new("bocker-net", ["up"]).and([Word::Var("id")]))],
                ),
                Step::Say(vec!["Created:".into(), Word::Var("id")]),
                Step::Hand(
                    Tool::new("bocker-cg", ["exec"])
                        .and([Word::Var("id")])
                        .then(Tool::new("bocker-exec", ["--root"]).and([Word::VarWith("id", "/rootfs")])),
                ),
            ],
            env: vec![("BOCKER_SUBNET".into(), "10.1.0.0/16".into())],
            failure: Some(125),
        };
        let expected = r#"PATH=/usr/bin:$PATH
export BOCKER_SUBNET=10.1.0.0/16
id=$(bocker-store snapshot img_42150 -- "it's") || exit 125
trap 'wait; bocker-net down "$id" & bocker-cg delete "$id" & wait' EXIT
trap 'exit 129' HUP; trap 'exit 130' INT; trap 'exit 143' TERM
bocker-cg create "$id" & job1=$!
bocker-net up "$id" || exit 125
wait "$job1" || exit 125
echo Created: "$id"
bocker-cg exec "$id" -- bocker-exec --root "$id/rootfs"
"#;
        assert_eq!(script(&plan, Path::new("/usr/bin")), expected);
    }
}
