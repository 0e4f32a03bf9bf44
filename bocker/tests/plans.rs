//! What `bocker` does and what `bocker --dry-run` prints start the same programs with the same words, say the same and end the same:
//! with programs in the tools' places that write down how they were started.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Writes its words to `$BOCKER_TEST_LOG` and prints a line. Where its words hold `$BOCKER_TEST_FAIL` it fails, as often as it is asked.
/// What differs is left out: the directory of the tools, and numbers of processes, which a shell's subshells do not have.
const TOOL: &str = r#"#!/bin/sh
line="${0##*/}"
for word; do
    case $word in
        --holder=* | --die-with-parent=*) word=${word%%=*} ;;
        "$BOCKER_TEST_TOOLS"/*) word=${word##*/} ;;
    esac
    line="$line $word"
done
case "$line " in
    *" --words=- "*) line="$line told $(tr '\\0' '|')" ;;
    *" --env-fd=3 "*) line="$line told $(tr '\\0' '|' <&3)" ;;
esac
[ "$1" = exec ] && [ /dev/stdin -ef /dev/null ] && line="$line <null"
echo "$line" >> "$BOCKER_TEST_LOG"
case $line in
    *"$BOCKER_TEST_FAIL"*) echo "${0##*/}: failed" >&2; exit 7 ;;
esac
echo "of-$1"
"#;

/// One at a time: a program that another test's fork still has open for writing cannot be executed (ETXTBSY).
static ALONE: Mutex<()> = Mutex::new(());

struct Place(PathBuf, #[expect(dead_code, reason = "held")] MutexGuard<'static, ()>);

impl Place {
    fn new(name: &str) -> Self {
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let dir = std::env::temp_dir().join(format!("bocker-plans-{name}-{}", std::process::id()));
        fs::create_dir(&dir).unwrap();
        fs::copy(env!("CARGO_BIN_EXE_bocker"), dir.join("bocker")).unwrap();
        for tool in ["bocker-store", "bocker-pull", "bocker-net", "bocker-cg", "bocker-exec"] {
            fs::write(dir.join(tool), TOOL).unwrap();
            fs::set_permissions(dir.join(tool), fs::Permissions::from_mode(0o755)).unwrap();
        }
        Self(dir, alone)
    }

    /// What the tools were told, what was said on stdout (both sorted: some run at the same time) and stderr, and the status.
    fn ran(&self, mut command: Command, fail: &str) -> (Vec<String>, Vec<String>, String, Option<i32>) {
        let log = self.0.join("log");
        fs::write(&log, "").unwrap();
        let _ = fs::remove_file(self.0.join("cid"));
        let command =
            command.env("BOCKER_TEST_LOG", &log).env("BOCKER_TEST_TOOLS", &self.0).env("BOCKER_TEST_FAIL", fail);
        let Output { status, stdout, stderr } = command.current_dir(&self.0).output().unwrap();
        let sorted = |text: &str| {
            let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
            lines.sort();
            lines
        };
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (sorted(&fs::read_to_string(&log).unwrap()), sorted(&text(stdout)), text(stderr), status.code())
    }

    fn bocker(&self, words: &[&str]) -> Command {
        let mut command = Command::new(self.0.join("bocker"));
        // No null: what gets ours and what does not can be told apart.
        command.args(words).stdin(fs::File::open(self.0.join("bocker")).unwrap());
        command
    }

    fn shell(&self, words: &[&str]) -> Command {
        let printed = Command::new(self.0.join("bocker")).arg("--dry-run").args(words).output().unwrap();
        let mut shell = Command::new("/bin/sh");
        shell.arg("-c").arg(String::from_utf8(printed.stdout).unwrap());
        shell.stdin(fs::File::open(self.0.join("bocker")).unwrap()).stderr(Stdio::piped());
        shell
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

const LINES: &[&str] = &[
    "run img_42150 cat /etc/os-release",
    "run -i img_42150 cat",
    "run -d --rm --name web --cidfile cid -e A=1 debian:12 sh -c x",
    "run --pull always debian true",
    "create --cidfile cid img_42150",
    "create debian",
    "start web ps_42045",
    "start -a web",
    "start -ai ps_42045",
    "stop -t 3 web",
    "restart ps_42045",
    "kill -s INT web",
    "wait web ps_42045",
    "attach web",
    "pause web ps_42045",
    "unpause web",
    "rename web site",
    "run -l a=b -P --net back --link web:store img_42150",
    "run --net container:db img_42150",
    "create -p 80 -e A=a\nb\\c -e B= img_42150",
    "network connect --alias x back web",
    "network disconnect back web",
    "port web 80",
    "exec -i -e A=a\nb\\c web sh",
    "exec -i web sh",
    "exec -d -e A=b ps_42045 sh",
    "ps -aq",
    "logs -f web",
    "top web",
    "stats ps_42045 web",
    "update -m 1g web",
    "rm -fv web ps_42045 debian:12",
    "ended ps_42045",
    "cp web:/x -",
    "pull centos 7",
    "commit web mine:1",
];

#[test]
fn doing_and_saying_come_to_the_same() {
    let place = Place::new("same");
    // Each part fails once, where there is such a part. The second word: bocker starts it together with others, which a shell does not
    // come to.
    let failures = [
        ("nothing-fails", false),
        ("snapshot", false),
        ("have", false),
        ("unpack", false),
        ("cg exec", false),
        ("thaw", false),
        ("--stop ", false),
        ("--stopped", false),
        ("rm --", false),
        ("path", true),
        ("store id", true),
        ("create", true),
        ("net up", true),
        ("down", true),
    ];
    for line in LINES {
        let words: Vec<_> = line.split(' ').collect();
        let mut told = 0;
        let whole = place.ran(place.bocker(&words), "nothing-fails").0;
        for (fail, together) in failures {
            if fail != "nothing-fails" && !whole.iter().any(|line| line.contains(fail)) {
                continue;
            }
            let did = place.ran(place.bocker(&words), fail);
            let cid = fs::read(place.0.join("cid")).ok();
            let said = place.ran(place.shell(&words), fail);
            if together {
                assert!(
                    said.0.iter().all(|line| did.0.contains(line)),
                    "bocker {line}, where '{fail}' fails: {did:?} {said:?}"
                );
                assert_eq!((&did.2, did.3), (&said.2, said.3), "bocker {line}, where '{fail}' fails");
            } else {
                assert_eq!(did, said, "bocker {line}, where '{fail}' fails");
            }
            assert_eq!(cid, fs::read(place.0.join("cid")).ok(), "{line}");
            told += did.0.len();
        }
        assert!(told > 0, "bocker {line}: no tool was started");
    }
}

#[test]
fn a_file_that_is_there_is_refused() {
    let place = Place::new("cid");
    fs::write(place.0.join("there"), "mine").unwrap();
    let words = ["create", "--cidfile", "there", "img_42150"];
    let did = place.ran(place.bocker(&words), "nothing-fails");
    let said = place.ran(place.shell(&words), "nothing-fails");
    assert_eq!(did, said);
    assert_eq!((did.2.as_str(), did.3), ("bocker: make there: File exists\n", Some(125)));
    assert!(did.0.iter().any(|line| line.starts_with("bocker-store rm --unstarted of-snapshot")), "{:?}", did.0);
    assert_eq!(fs::read(place.0.join("there")).unwrap(), b"mine");
    let words = ["create", "--cidfile", "new", "img_42150"];
    let did = place.ran(place.bocker(&words), "nothing-fails");
    assert!(!did.0.iter().any(|line| line.contains("rm")), "{:?}", did.0);
    assert_eq!((did.1, did.3), (vec!["of-snapshot".to_owned()], Some(0)));
    assert_eq!(fs::read(place.0.join("new")).unwrap(), b"of-snapshot");
}
