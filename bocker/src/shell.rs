//! A plan as a POSIX shell script. What it prints does what [`crate::execute`] does.

use std::ffi::OsStr;
use std::fmt::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::plan::{Job, Plan, Step, Tool, Word};

/// The script; the tools are found in `tools` first.
pub fn script(plan: &Plan, tools: &Path) -> String {
    let mut printer = Printer {
        out: format!("PATH={}:$PATH\n", quote(tools.as_os_str())),
        traps: false,
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
        // $$ is another process's number in a subshell: there the option goes without.
        Word::Me(option) => (*option).to_owned(),
    }
}

fn pipe(tools: &[Tool]) -> String {
    tools.iter().map(command).collect::<Vec<_>>().join(" | ")
}

/// What may end the script, with numbers as in signal(7). The executor holds more; a shell knows no name for some.
const ENDS: [(&str, i32); 7] =
    [("HUP", 1), ("INT", 2), ("QUIT", 3), ("USR1", 10), ("USR2", 12), ("ALRM", 14), ("TERM", 15)];

struct Printer {
    out: String,
    /// There are traps.
    traps: bool,
    /// What follows `||`.
    exit: String,
}

impl Printer {
    fn line(&mut self, text: &str) {
        self.out.push_str(text);
        self.out.push('\n');
    }

    fn step(&mut self, step: &Step) {
        match step {
            // One after the other: it takes longer, and comes to the same.
            Step::Do(jobs) => {
                for Job { var, pipe: tools } in jobs {
                    let done = match var {
                        Some(var) => format!("{var}=$({})", pipe(tools)),
                        None => pipe(tools),
                    };
                    self.line(&format!("{done} || {}", self.exit.clone()));
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
            Step::Say(words) => {
                self.line(&format!("echo {}", words.iter().map(word).collect::<Vec<_>>().join(" ")));
            }
            Step::Hand(tool) => {
                // From here on signals are the payload's, which gets a terminal's by itself: its status is ours.
                if self.traps {
                    self.line(&format!("trap : {}", ENDS.map(|(name, _)| name).join(" ")));
                }
                self.line(&command(tool));
            }
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
