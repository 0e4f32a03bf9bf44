//! Each subcommand as a plan. The script's functions, by their names.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use clap::CommandFactory;

use crate::Failure;
use crate::cli::{self, Command, Prune, System, Volume};
use crate::plan::{Job, Plan, Step, Tool, Word};

const STORE: &str = "bocker-store";
const PULL: &str = "bocker-pull";
const NET: &str = "bocker-net";
const CG: &str = "bocker-cg";
const EXEC: &str = "bocker-exec";

/// The payload does not outlive us, nor begin when we have died since.
const PARENT: Word = Word::Me("--die-with-parent");

/// From the snapshot to the end of the clean-up nobody else takes the container apart.
const HOLDER: Word = Word::Me("--holder");

/// What the environment says, the leading options included; what is empty counts as not there, as in `${NAME:=…}`.
pub type Settings<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// The plan of a command.
///
/// # Errors
/// A setting that is no number.
pub fn plan(command: Command, settings: Settings) -> Result<Plan, Failure> {
    let failure = command.runs_a_command().then_some(125);
    let steps = match command {
        Command::Pull { name, tag } => pull(name, tag, settings),
        Command::Init { directory } => init(directory),
        Command::Import { from, name } => import(from, name),
        Command::Export { id } => vec![Step::run(Tool::new(STORE, ["export", "--"]).and([id]))],
        Command::Save { output, images } => vec![Step::run(save(output, images))],
        Command::Load { input } => load(input),
        Command::Images { json } => list("images", json),
        Command::Ps { json } => list("ps", json),
        Command::Inspect { json, ids } => look("inspect", json, ids),
        Command::Diff { json, container } => look("diff", json, vec![container]),
        Command::History { json, image } => look("history", json, vec![image]),
        Command::Run { words } => {
            let (image, words) = cli::first(words, "run: which image?")?;
            run(image, words, settings)?
        }
        Command::Exec { words } => match cli::first(words, "exec: in which container?")? {
            (_, words) if words.is_empty() => return Err(Failure::usage("exec: which command?").status(125)),
            (container, words) => exec(container, words),
        },
        Command::Logs { container } => vec![Step::run(Tool::new(STORE, ["cat", "--"]).and([container]).and(["log"]))],
        Command::Commit { container, image } => commit(container, image),
        Command::Tag { image, name } => vec![Step::run(Tool::new(STORE, ["tag", "--"]).and([image, name]))],
        Command::Rm { force, ids } => ids.into_iter().flat_map(|id| rm(id, force)).collect(),
        Command::Volume(volume) => vec![Step::run(self::volume(volume))],
        Command::System(System::Df { json }) => list("df", json),
        Command::System(System::Prune(what)) | Command::Prune(what) => prune(what),
        Command::Gc => gc(),
        Command::Setup { undo } => setup(undo),
        Command::Help => help(),
    };
    Ok(Plan { steps, env: Vec::new(), failure })
}

/// Where an interrupted pull's blobs wait for the next: beside the store, whose own path may not be there yet.
fn cache(settings: Settings) -> OsString {
    let root = settings("BOCKER_ROOT").unwrap_or_else(|| "/var/bocker".into());
    // `x/` and `x` are one store.
    let mut cache = Path::new(&root).components().collect::<PathBuf>().into_os_string();
    cache.push(".cache");
    cache
}

fn pull(name: OsString, tag: Option<OsString>, settings: Settings) -> Vec<Step> {
    let mut shown = OsString::from("--source=");
    shown.push(source(&name, tag.as_deref()));
    let manifest = Tool::new(PULL, ["manifest", "--"]).and([name]).and(tag);
    let fetch = Tool::new(PULL, ["fetch", "--cache"]).and([cache(settings)]);
    let unpack = Tool::new(STORE, ["unpack", "--setup"]).and([shown]);
    let have = Tool::new(STORE, ["have"]);
    vec![
        Step::capture("img", vec![manifest, have, fetch, unpack]),
        Step::Say(vec!["Created:".into(), Word::Var("img")]),
    ]
}

/// `centos:7`, as `bocker images` lists it.
fn source(name: &OsStr, tag: Option<&OsStr>) -> OsString {
    let mut source = name.to_owned();
    let last = name.as_bytes().rsplit(|b| *b == b'/').next().unwrap_or_default();
    match tag {
        Some(tag) => {
            source.push(":");
            source.push(tag);
        }
        None if !last.contains(&b':') && !last.contains(&b'@') => source.push(":latest"),
        None => {}
    }
    source
}

fn init(directory: OsString) -> Vec<Step> {
    import(directory, None)
}

fn import(from: OsString, name: Option<OsString>) -> Vec<Step> {
    let source = name.map(|name| {
        let mut source = OsString::from("--source=");
        source.push(name);
        source
    });
    let import = Tool::new(STORE, ["import", "--setup"]).and(source).and(["--"]).and([from]);
    vec![Step::capture("img", vec![import]), Step::Say(vec!["Created:".into(), Word::Var("img")])]
}

fn save(output: Option<OsString>, images: Vec<OsString>) -> Tool {
    let output = output.map(|output| [OsString::from("--output"), output]);
    Tool::new(STORE, ["save"]).and(output.into_iter().flatten()).and(["--"]).and(images)
}

fn load(input: Option<OsString>) -> Vec<Step> {
    let archive = Tool::new(PULL, ["archive", "--"]).and([input.unwrap_or_else(|| "-".into())]);
    vec![Step::pipe(vec![archive, Tool::new(STORE, ["load", "--setup"])])]
}

fn list(what: &str, json: bool) -> Vec<Step> {
    vec![Step::run(Tool::new(STORE, [what]).and(json.then_some("--json")))]
}

fn look(what: &str, json: bool, of: Vec<OsString>) -> Vec<Step> {
    vec![Step::run(Tool::new(STORE, [what]).and(json.then_some("--json")).and(["--"]).and(of))]
}

fn run(image: OsString, words: Vec<OsString>, settings: Settings) -> Result<Vec<Step>, Failure> {
    let shares = number(settings, "BOCKER_CPU_SHARE", 512)?;
    let memory = number(settings, "BOCKER_MEM_LIMIT", 512)?;
    let memory = memory
        .checked_mul(1_000_000)
        .ok_or_else(|| Failure::usage(format!("BOCKER_MEM_LIMIT: {memory} times 1,000,000 bytes is too much")))?;
    let id = || [Word::Var("id")];

    let mut snapshot = Tool::new(STORE, ["snapshot", "--setup"]).and([HOLDER]);
    if let Some(ids) = ids(settings("BOCKER_SUBNET").as_deref()) {
        snapshot = snapshot.and(["--ids".to_owned(), ids]);
    }
    snapshot = snapshot.and(["--".into(), image]);
    if !words.is_empty() {
        snapshot = snapshot.and(["--"]).and(words.clone());
    }
    let limits = [format!("cpu.shares={shares}"), format!("memory={memory}")];

    let mut payload = Tool::new(EXEC, [PARENT, "--root".into(), Word::VarWith("dir", "/rootfs")]);
    for file in [("--config", "/config"), ("--log", "/log"), ("--status", "/status")] {
        payload = payload.and([Word::from(file.0), Word::VarWith("dir", file.1)]);
    }
    payload = payload.and(["--hostname"]).and(id()).and(["--address"]).and([Word::Var("addr")]);
    if !words.is_empty() {
        payload = payload.and(["--"]).and(shell_line(words));
    }

    Ok(vec![
        Step::OnExit(vec![
            vec![("addr", Tool::new(NET, ["down"]).and(id())), ("cg", Tool::new(CG, ["delete", "--kill"]).and(id()))],
            // A command that never started leaves no container. Last, for then the id is free for others.
            vec![("id", Tool::new(STORE, ["rm", "--unstarted"]).and([HOLDER]).and(id()))],
        ]),
        Step::capture("id", vec![snapshot]),
        Step::Do(vec![
            Job::capture("dir", Tool::new(STORE, ["path"]).and(id())),
            Job::capture("cg", Tool::new(CG, ["create"]).and(id()).and(limits)),
            Job::capture("addr", Tool::new(NET, ["up", "--setup"]).and(id())),
        ]),
        Step::Hand(Tool::new(CG, ["exec"]).and(id()).then(Tool::new(NET, ["exec"]).and(id()).then(payload))),
    ])
}

fn exec(container: OsString, words: Vec<OsString>) -> Vec<Step> {
    let payload = Tool::new(EXEC, [PARENT, "--join".into(), Word::VarWith("dir", "/status"), "--config".into()])
        .and([Word::VarWith("dir", "/config"), "--".into()])
        .and(words);
    vec![
        Step::capture("dir", vec![Tool::new(STORE, ["path", "--running", "--"]).and([container.clone()])]),
        Step::Hand(Tool::new(CG, ["exec"]).and([container]).then(payload)),
    ]
}

fn commit(container: OsString, image: OsString) -> Vec<Step> {
    let commit = Tool::new(STORE, ["commit", "--"]).and([container, image.clone()]);
    if !is_id(&image, "img_") {
        return vec![Step::capture("img", vec![commit]), Step::Say(vec!["Created:".into(), Word::Var("img")])];
    }
    vec![
        Step::run(commit),
        Step::Say(vec!["Removed:".into(), image.clone().into()]),
        Step::Say(vec!["Created:".into(), image.into()]),
    ]
}

/// Whether the word is an id and no name; which ids there are is bocker-store's to know.
fn is_id(word: &OsStr, prefix: &str) -> bool {
    let number = word.as_bytes().strip_prefix(prefix.as_bytes());
    number.is_some_and(|number| number.iter().all(u8::is_ascii_digit))
}

fn rm(id: OsString, force: bool) -> Vec<Step> {
    let mut steps = Vec::new();
    let container = is_id(&id, "ps_");
    if container {
        let id = || [id.clone()];
        // Gone already, unless a crash left them; processes, too, where bocker-exec was killed by force. Before the container: whoever is interrupted here can ask again.
        steps.push(Step::capture(
            "dir",
            vec![Tool::new(STORE, ["path", "--stopped"]).and([HOLDER, "--".into()]).and(id())],
        ));
        steps.push(Step::Do(vec![
            Job::run(Tool::new(CG, ["delete", "--kill"]).and(id())),
            Job::run(Tool::new(NET, ["down"]).and(id())),
        ]));
    }
    let word = if container { Some(HOLDER) } else { force.then_some(Word::from("--force")) };
    steps.push(Step::run(Tool::new(STORE, ["rm"]).and(word).and(["--"]).and([id.clone()])));
    steps.push(Step::Say(vec!["Removed:".into(), id.into()]));
    steps
}

/// What is there first, then whose it is: what is made meanwhile is not on the list.
fn gc() -> Vec<Step> {
    let orphans = || Tool::new(STORE, ["orphans"]);
    vec![
        Step::run(Tool::new(STORE, ["gc"])),
        Step::pipe(vec![Tool::new(NET, ["list", "--busy"]), orphans(), Tool::new(NET, ["down", "-"])]),
        Step::pipe(vec![Tool::new(CG, ["list", "--busy"]), orphans(), Tool::new(CG, ["delete", "--kill", "-"])]),
    ]
}

fn prune(what: Prune) -> Vec<Step> {
    let flags = [(what.force, "--force"), (what.all, "--all"), (what.volumes, "--volumes")];
    let flags = flags.into_iter().filter(|(wanted, _)| *wanted).map(|(_, flag)| flag);
    let mut steps = vec![Step::run(Tool::new(STORE, ["prune", "--containers"]).and(flags))];
    if what.force {
        // Where a run was killed, its network and its cgroup are left.
        steps.extend(gc());
    }
    steps
}

fn volume(volume: Volume) -> Tool {
    let store = |verb, flag: Option<&str>| Tool::new(STORE, ["volume", verb]).and(flag.map(str::to_owned));
    match volume {
        Volume::Create { name } => store("create", Some("--setup")).and(["--"]).and(name),
        Volume::Ls { json, quiet } => store("ls", json.then_some("--json").or_else(|| quiet.then_some("--quiet"))),
        Volume::Rm { force, names } => store("rm", force.then_some("--force")).and(["--"]).and(names),
        Volume::Prune { all, force } => store("prune", all.then_some("--all")).and(force.then_some("--force")),
        Volume::Inspect { json, names } => store("inspect", json.then_some("--json")).and(["--"]).and(names),
    }
}

fn setup(undo: bool) -> Vec<Step> {
    let (net, store) = (|word| Step::run(Tool::new(NET, ["setup"]).and(word)), Tool::new(STORE, ["init"]));
    if undo {
        // Either may be refused: the store is asked before the bridge goes.
        let undo = || store.clone().and(["--undo"]);
        vec![Step::run(undo().and(["--check"])), net(Some("--undo")), Step::run(undo())]
    } else {
        // The network is what may be refused: asked before anything is made.
        vec![net(Some("--check")), Step::run(store), net(None)]
    }
}

fn help() -> Vec<Step> {
    vec![Step::Say(vec![cli::Cli::command().render_help().to_string().trim_end().into()])]
}

/// One word that a shell would read as more than a word is a line for the image's shell,
/// as the original had it; else the words are the command.
fn shell_line(words: Vec<OsString>) -> Vec<OsString> {
    // POSIX.1-2024, XCU 2.2 Quoting: both lists.
    const SHELL: &[u8] = b"|&;<>()$`\\\"' \t\n*?[]^!{},#~=%";
    match words.as_slice() {
        [line] if line.as_bytes().iter().any(|b| SHELL.contains(b)) => {
            vec!["/bin/sh".into(), "-c".into(), line.clone()]
        }
        _ => words,
    }
}

fn number(settings: Settings, name: &str, default: u64) -> Result<u64, Failure> {
    match settings(name) {
        None => Ok(default),
        Some(value) => value
            .to_str()
            .and_then(|v| v.parse().ok())
            .ok_or_else(|| Failure::usage(format!("{name}: '{}' is not a whole number", value.to_string_lossy()))),
    }
}

/// The ids whose addresses fit the subnet, where it is not the default /24: 42002 to 42000 + hosts.
fn ids(subnet: Option<&OsStr>) -> Option<String> {
    let prefix: u32 = subnet?.to_str()?.rsplit_once('/')?.1.parse().ok()?;
    // What makes no sense is bocker-net's to refuse.
    if prefix == 24 || !(16..=29).contains(&prefix) {
        return None;
    }
    Some(format!("42002-{}", 42_000 + (1_u32 << (32 - prefix)) - 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Vec<OsString> {
        words.iter().map(OsString::from).collect()
    }

    fn script(command: Command, env: &[(&str, &str)]) -> String {
        let get = |name: &str| env.iter().find(|(n, _)| *n == name).map(|(_, v)| OsString::from(v));
        let plan = plan(command, &get).unwrap();
        crate::shell::script(&plan, Path::new("/usr/bin"))
    }

    #[test]
    fn run_as_the_documentation_has_it() {
        let run = Command::Run { words: words(&["img_42150", "cat", "/etc/os-release"]) };
        let expected = r#"PATH=/usr/bin:$PATH
addr= cg= id=
trap 'trap "" HUP INT QUIT USR1 USR2 ALRM TERM; [ -z "$addr" ] || bocker-net down "$id"; [ -z "$cg" ] || bocker-cg delete --kill "$id"; [ -z "$id" ] || bocker-store rm --unstarted --holder "$id"' EXIT
trap 'exit 129' HUP; trap 'exit 130' INT; trap 'exit 131' QUIT; trap 'exit 138' USR1; trap 'exit 140' USR2; trap 'exit 142' ALRM; trap 'exit 143' TERM
id=$(bocker-store snapshot --setup --holder -- img_42150 -- cat /etc/os-release) || exit 125
dir=$(bocker-store path "$id") || exit 125
cg=$(bocker-cg create "$id" cpu.shares=512 memory=512000000) || exit 125
addr=$(bocker-net up --setup "$id") || exit 125
trap : HUP INT QUIT USR1 USR2 ALRM TERM
bocker-cg exec "$id" -- bocker-net exec "$id" -- bocker-exec --die-with-parent --root "$dir/rootfs" --config "$dir/config" --log "$dir/log" --status "$dir/status" --hostname "$id" --address "$addr" -- cat /etc/os-release
"#;
        assert_eq!(script(run, &[]), expected);
    }

    #[test]
    fn settings_reach_the_plan() {
        let run = || Command::Run { words: words(&["img_42150"]) };
        let text = script(run(), &[("BOCKER_CPU_SHARE", "1024"), ("BOCKER_MEM_LIMIT", "1024")]);
        assert!(text.contains("cpu.shares=1024 memory=1024000000)"), "{text}");
        assert!(!text.contains("--ids"), "{text}");
        let text = script(run(), &[("BOCKER_SUBNET", "10.1.0.0/16")]);
        assert!(text.contains("--ids 42002-107534 "), "{text}");
        for (name, bad) in
            [("BOCKER_CPU_SHARE", "x"), ("BOCKER_MEM_LIMIT", "-1"), ("BOCKER_MEM_LIMIT", "99999999999999")]
        {
            let get = |asked: &str| (asked == name).then(|| OsString::from(bad));
            assert!(plan(run(), &get).is_err(), "{name}={bad}");
        }
    }

    #[test]
    fn one_word_with_shell_characters_is_a_line() {
        assert_eq!(shell_line(words(&["true"])), words(&["true"]));
        assert_eq!(shell_line(words(&["/usr/bin/g++-12"])), words(&["/usr/bin/g++-12"]));
        assert_eq!(shell_line(words(&["a b"])), words(&["/bin/sh", "-c", "a b"]));
        assert_eq!(shell_line(words(&["exit$x"])), words(&["/bin/sh", "-c", "exit$x"]));
        assert_eq!(shell_line(words(&["echo", "a b;c"])), words(&["echo", "a b;c"]));
        assert_eq!(shell_line(vec![]), words(&[]));
    }

    #[test]
    fn an_id_is_told_from_a_name() {
        for (word, is) in [("img_42150", true), ("img_1", true), ("img_42150:1", false), ("img_x", false), ("a", false)]
        {
            assert_eq!(is_id(OsStr::new(word), "img_"), is, "{word}");
        }
        let commit = |image: &str| script(Command::Commit { container: "ps_42045".into(), image: image.into() }, &[]);
        assert!(commit("img_42150").contains("echo Removed: img_42150\necho Created: img_42150\n"));
        assert!(
            commit("a:1").ends_with("img=$(bocker-store commit -- ps_42045 a:1) || exit\necho Created: \"$img\"\n")
        );
        let rm = |id: &str| script(Command::Rm { force: true, ids: words(&[id]) }, &[]);
        assert!(
            rm("ps_tools:1")
                .ends_with(":$PATH\nbocker-store rm --force -- ps_tools:1 || exit\necho Removed: ps_tools:1\n")
        );
        assert!(rm("ps_42045").contains("bocker-store rm --holder -- ps_42045"), "containers know no --force here");
    }

    #[test]
    fn what_an_interrupted_pull_had_lies_beside_the_store() {
        let pull = |env: &[_]| script(Command::Pull { name: "centos:7".into(), tag: None }, env);
        for (root, cache) in [("", "/var/bocker.cache"), ("/srv/a b/", "'/srv/a b.cache'"), ("x//y", "x/y.cache")] {
            let env = [("BOCKER_ROOT", root)];
            let text = pull(if root.is_empty() { &[] } else { &env });
            assert!(text.contains(&format!(" | bocker-pull fetch --cache {cache} | ")), "{text}");
        }
    }

    #[test]
    fn the_source_is_what_the_user_means() {
        for (name, tag, expected) in [
            ("centos", Some("7"), "centos:7"),
            ("centos", None, "centos:latest"),
            ("centos:7", None, "centos:7"),
            ("localhost:5000/a", None, "localhost:5000/a:latest"),
            ("a@sha256:0", None, "a@sha256:0"),
        ] {
            assert_eq!(source(OsStr::new(name), tag.map(OsStr::new)), expected, "{name}");
        }
    }
}
