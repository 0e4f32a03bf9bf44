//! Each subcommand as a plan. The script's functions, by their names.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use clap::CommandFactory;

use crate::Failure;
use crate::cli::{self, Command, Prune, System, Volume};
use crate::plan::{Plan, Step, Tool, Word, becoming};
use crate::{cp, life, net, run};

pub(crate) const STORE: &str = "bocker-store";
pub(crate) const PULL: &str = "bocker-pull";
pub(crate) const NET: &str = "bocker-net";
pub(crate) const CG: &str = "bocker-cg";
pub(crate) const EXEC: &str = "bocker-exec";

/// The payload does not outlive us, nor begin when we have died since.
pub(crate) const PARENT: Word = Word::Me("--die-with-parent");

/// From the snapshot to the end of the clean-up nobody else takes the container apart.
pub(crate) const HOLDER: Word = Word::Me("--holder");

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
        Command::Ps(wanted) => life::ps(wanted),
        Command::Inspect { json, ids } => look("inspect", json, ids),
        Command::Diff { json, container } => look("diff", json, vec![container]),
        Command::History { json, image } => look("history", json, vec![image]),
        Command::Run { detach, flags, words, .. } => {
            let (image, words) = cli::first(words, "run: which image?")?;
            run::run(image, words, detach == Some(true), *flags.0, settings)?
        }
        Command::Create { flags, words, .. } => {
            let (image, words) = cli::first(words, "create: of which image?")?;
            run::create(image, words, *flags.0, settings)?
        }
        Command::Start { attach, interactive, containers } => run::start(containers, attach, interactive)?,
        Command::Stop { how, containers } => life::stop(containers, &how),
        Command::Restart { how, containers } => life::restart(containers, &how),
        Command::Kill { signal, containers } => life::kill(containers, &signal),
        Command::Wait { containers } => life::wait(containers),
        Command::Attach { detach_keys, no_stdin, sig_proxy, container } => {
            life::attach(container, detach_keys, no_stdin, sig_proxy != Some(false))
        }
        Command::Pause { containers } => life::freeze(containers, "freeze"),
        Command::Unpause { containers } => life::freeze(containers, "thaw"),
        Command::Rename { container, name } => life::rename(container, name),
        Command::Exec { flags, words } => match cli::first(words, "exec: in which container?")? {
            (_, words) if words.is_empty() => return Err(Failure::usage("exec: which command?").status(125)),
            (container, words) => life::exec(container, words, *flags)?,
        },
        Command::Logs { follow, tail, since, until, timestamps, container } => {
            let others = [("tail", tail), ("since", since), ("until", until)];
            life::logs(container, follow, timestamps, others)
        }
        Command::Top { json, container } => life::top(container, json),
        Command::Stats { json, no_stream, containers } => life::stats(containers, json, no_stream),
        Command::Update { limits, containers } => life::update(containers, &limits)?,
        Command::Cp { archive, follow_link, source, destination, .. } => {
            cp::cp(&source, &destination, cp::How { archive, follow: follow_link })?
        }
        Command::Ended { container } => run::ended(container),
        Command::Commit { container, image } => commit(container, image),
        Command::Tag { image, name } => vec![Step::run(Tool::new(STORE, ["tag", "--"]).and([image, name]))],
        Command::Rm { force, volumes, ids } => ids.into_iter().flat_map(|id| life::rm(id, force, volumes)).collect(),
        Command::Port { container, port } => net::port(container, port),
        Command::Network(network) => net::networks(network),
        Command::Volume(volume) => vec![Step::run(self::volume(volume))],
        Command::System(System::Df { json }) => list("df", json),
        Command::System(System::Prune(what)) | Command::Prune(what) => prune(what),
        Command::Gc => gc(),
        Command::Doctor => doctor(),
        Command::Setup { undo } => setup(undo),
        Command::Help => help(),
    };
    let steps = if failure.is_none() { becoming(steps) } else { steps };
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
    let said = Step::Say(vec!["Created:".into(), Word::Var("img")]);
    vec![Step::capture("img", pull_image(name, tag, settings)), said]
}

/// The pipe that pulls, and prints the image's id.
pub(crate) fn pull_image(name: OsString, tag: Option<OsString>, settings: Settings) -> Vec<Tool> {
    let mut shown = OsString::from("--source=");
    shown.push(source(&name, tag.as_deref()));
    let manifest = Tool::new(PULL, ["manifest", "--"]).and([name]).and(tag);
    let fetch = Tool::new(PULL, ["fetch", "--cache"]).and([cache(settings)]);
    let unpack = Tool::new(STORE, ["unpack", "--setup"]).and([shown]);
    let have = Tool::new(STORE, ["have"]);
    vec![manifest, have, fetch, unpack]
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
pub(crate) fn is_id(word: &OsStr, prefix: &str) -> bool {
    let number = word.as_bytes().strip_prefix(prefix.as_bytes());
    number.is_some_and(|number| number.iter().all(u8::is_ascii_digit))
}

/// What is there first, then whose it is: what is made meanwhile is not on the list. The store last: an id is free for others when
/// nothing of its names is left.
fn gc() -> Vec<Step> {
    let orphans = || Tool::new(STORE, ["orphans"]);
    vec![
        Step::pipe(vec![Tool::new(NET, ["list", "--busy"]), orphans(), Tool::new(NET, ["down", "-"])]),
        Step::pipe(vec![Tool::new(CG, ["list", "--busy"]), orphans(), Tool::new(CG, ["delete", "--kill", "-"])]),
        Step::run(Tool::new(CG, ["gc"])),
        Step::run(Tool::new(STORE, ["gc"])),
    ]
}

/// What this host has and lacks, each tool of its own concern.
fn doctor() -> Vec<Step> {
    let tools = [(STORE, "doctor"), (NET, "doctor"), (CG, "doctor"), (EXEC, "--doctor")];
    vec![Step::Each(tools.map(|(tool, word)| Tool::new(tool, [word])).to_vec())]
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
pub(crate) fn shell_line(words: Vec<OsString>) -> Vec<OsString> {
    // POSIX.1-2024, XCU 2.2 Quoting: both lists.
    const SHELL: &[u8] = b"|&;<>()$`\\\"' \t\n*?[]^!{},#~=%";
    match words.as_slice() {
        [line] if line.as_bytes().iter().any(|b| SHELL.contains(b)) => {
            vec!["/bin/sh".into(), "-c".into(), line.clone()]
        }
        _ => words,
    }
}

pub(crate) fn number(settings: Settings, name: &str, default: u64) -> Result<u64, Failure> {
    match settings(name) {
        None => Ok(default),
        Some(value) => value
            .to_str()
            .and_then(|v| v.parse().ok())
            .ok_or_else(|| Failure::usage(format!("{name}: '{}' is not a whole number", value.to_string_lossy()))),
    }
}

/// The ids whose addresses fit the subnet, where it is not the default /24: 42002 to 42000 + hosts.
pub(crate) fn ids(subnet: Option<&OsStr>) -> Option<String> {
    let prefix: u32 = subnet?.to_str()?.rsplit_once('/')?.1.parse().ok()?;
    // What makes no sense is bocker-net's to refuse.
    if prefix == 24 || !(16..=29).contains(&prefix) {
        return None;
    }
    Some(format!("42002-{}", 42_000 + (1_u32 << (32 - prefix)) - 2))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    fn words(words: &[&str]) -> Vec<OsString> {
        words.iter().map(OsString::from).collect()
    }

    fn script(command: Command, env: &[(&str, &str)]) -> String {
        let get = |name: &str| env.iter().find(|(n, _)| *n == name).map(|(_, v)| OsString::from(v));
        let plan = plan(command, &get).unwrap();
        crate::shell::script(&plan, Path::new("/usr/bin"))
    }

    /// What `bocker` with these words, parted by blanks, would print, without its first line.
    fn said(line: &str) -> String {
        let cli = cli::Cli::try_parse_from(["bocker"].into_iter().chain(line.split_whitespace())).unwrap();
        let script = script(cli.command.unwrap(), &[]);
        script.split_once('\n').unwrap().1.to_owned()
    }

    fn refused(line: &str) -> String {
        match cli::Cli::try_parse_from(["bocker"].into_iter().chain(line.split_whitespace())) {
            Ok(cli) => plan(cli.command.unwrap(), &|_| None).unwrap_err().line,
            Err(error) => error.to_string().lines().next().unwrap().to_owned(),
        }
    }

    const TRAPS: &str = "trap 'exit 129' HUP; trap 'exit 130' INT; trap 'exit 131' QUIT; trap 'exit 138' USR1; trap 'exit 140' USR2; trap 'exit 142' ALRM; trap 'exit 143' TERM";
    const DOWN: &str = r#"trap "" HUP INT QUIT USR1 USR2 ALRM TERM; [ -z "$addr" ] || bocker-net down "$id"; [ -z "$cg" ] || bocker-cg delete --kill --record "$dir" "$id""#;
    const FILES: &str = r#"--root "$dir/rootfs" --config "$dir/config" --log "$dir/log" --status "$dir/status" --words "$dir/words" --hosts /run/bocker-net/"$id"/hosts"#;
    const KEEP: &str = "trap - EXIT HUP INT QUIT USR1 USR2 ALRM TERM";

    #[test]
    fn run_as_the_documentation_has_it() {
        let expected = format!(
            r#"addr= cg= id=
trap '{DOWN}; [ -z "$id" ] || bocker-store rm --unstarted --holder "$id"' EXIT
{TRAPS}
id=$(bocker-store snapshot --setup --holder --limit=cpu.shares=512 --limit=memory=512000000 -- img_42150 -- cat /etc/os-release) || exit 125
dir=$(bocker-store path "$id") || exit 125
cg=$(bocker-cg create "$id" cpu.shares=512 memory=512000000) || exit 125
addr=$(bocker-net up --setup "$id") || exit 125
trap : HUP INT QUIT USR1 USR2 ALRM TERM
bocker-cg exec "$id" -- bocker-net exec "$id" -- bocker-exec --die-with-parent {FILES} --address "$addr"
"#
        );
        assert_eq!(said("run img_42150 cat /etc/os-release"), expected);
    }

    #[test]
    fn run_in_the_background() {
        let expected = format!(
            r#"addr= cg= id=
trap '{DOWN}; [ -z "$id" ] || bocker-store rm --auto --holder "$id"' EXIT
{TRAPS}
id=$(bocker-store snapshot --setup --holder --name=web --limit=cpu.shares=512 --limit=memory=512000000 --auto-remove -- img_42150 -- sleep 60) || exit 125
(set -C; umask 022; [ ! -e /tmp/cid ] && printf %s "$id" >/tmp/cid) || {{ echo bocker: make /tmp/cid: File exists >&2; exit 125; }}
dir=$(bocker-store path "$id") || exit 125
cg=$(bocker-cg create "$id" cpu.shares=512 memory=512000000) || exit 125
addr=$(bocker-net up --setup "$id") || exit 125
bocker-cg exec "$id" -- bocker-net exec "$id" -- bocker-exec {FILES} --address "$addr" --detach --then bocker --then ended --then "$id" </dev/null || exit
{KEEP}
echo "$id"
"#
        );
        assert_eq!(said("run -d --rm --name web --cidfile /tmp/cid img_42150 sleep 60"), expected);
    }

    #[test]
    fn a_missing_image_is_pulled_once_it_is_known_to_be_missing() {
        let snapshot = "bocker-store snapshot --setup --limit=cpu.shares=512 --limit=memory=512000000 --";
        let pull = "bocker-pull manifest -- a | bocker-store have | bocker-pull fetch --cache /var/bocker.cache | bocker-store unpack --setup --source=a:latest";
        let expected = format!(
            r#"if ! id=$({snapshot} a -- true); then
    if bocker-store id --missing -- a >/dev/null 2>&1; then
        img=$({pull}) || exit 125
        id=$({snapshot} "$img" -- true) || exit 125
    else
        exit 125
    fi
fi
echo "$id"
"#
        );
        assert_eq!(said("create a true"), expected);
        let always = format!("img=$({pull}) || exit 125\nid=$({snapshot} \"$img\") || exit 125\necho \"$id\"\n");
        assert_eq!(said("create --pull=always a"), always);
        assert_eq!(said("create --pull never a"), format!("id=$({snapshot} a) || exit 125\necho \"$id\"\n"));
        assert_eq!(said("create --pull always img_42150"), said("create img_42150"), "nobody has an id to be pulled");
    }

    #[test]
    fn each_flag_reaches_its_tool() {
        for (flags, word) in [
            ("--name web", "--name=web"),
            ("-e A=1", "--word=--env=A=1"),
            ("-l a=b", "--label=a=b"),
            ("-v data:/d:ro", "--volume=data:/d:ro"),
            ("-v /a:/b", "--word=--volume=/a:/b"),
            ("--mount type=tmpfs,target=/t", "--word=--mount=type=tmpfs,target=/t"),
            ("--tmpfs /t:size=1m", "--word=--tmpfs=/t:size=1m"),
            ("--volumes-from web:ro", "--volumes-from=web:ro"),
            ("-w /srv", "--word=--workdir=/srv"),
            ("-u 5:6", "--word=--user=5:6"),
            ("-h box", "--word=--hostname=box"),
            ("--read-only", "--word=--read-only"),
            ("--init", "--word=--init"),
            ("-t", "--word=--tty"),
            ("-i", "--word=--interactive"),
            ("--device /dev/null:/dev/x:r", "--word=--device=/dev/null:/dev/x:r"),
            ("--device /dev/null", "--limit=device=c:1:3:rwm"),
            ("--cap-add NET_ADMIN", "--word=--cap-add=NET_ADMIN"),
            ("--cap-drop ALL", "--word=--cap-drop=ALL"),
            ("--ulimit nofile=5", "--word=--ulimit=nofile=5"),
            ("-m 1g", "--limit=memory=1073741824"),
            ("-m 0", "--limit=memory=max"),
            ("--memory-swap -1", "--limit=memory-swap=max"),
            ("--memory-reservation 1m", "--limit=memory-reservation=1048576"),
            ("--cpus 1.5", "--limit=cpus=1.5"),
            ("-c 700", "--limit=cpu.shares=700"),
            ("--cpuset-cpus 0-1", "--limit=cpuset.cpus=0-1"),
            ("--pids-limit 9", "--limit=pids=9"),
            ("--pids-limit -1", "--limit=pids=max"),
            ("--cpuset-mems 0", "--limit=cpuset.mems=0"),
            ("--cpu-quota 20000", "--limit=cpu-quota=20000"),
            ("--cpu-quota -1", "--limit=cpu-quota=max"),
            ("--cpu-period 50000", "--limit=cpu-period=50000"),
            ("--blkio-weight 500", "--limit=blkio-weight=500"),
            ("--device-read-bps /dev/sda:1mb", "--limit=device-read-bps=/dev/sda:1048576"),
            ("--device-write-bps 8:0:5", "--limit=device-write-bps=8:0:5"),
            ("--device-read-iops /dev/sda:7", "--limit=device-read-iops=/dev/sda:7"),
            ("--device-write-iops /dev/sda:7", "--limit=device-write-iops=/dev/sda:7"),
            ("--memory-swappiness 5", "--limit=memory-swappiness=5"),
            ("--oom-kill-disable", "--limit=oom-kill-disable=true"),
            ("--security-opt seccomp=unconfined", "--word=--seccomp=unconfined"),
            ("--security-opt seccomp=/a.json", "--word=--seccomp=/a.json"),
            ("--security-opt no-new-privileges:true", "--word=--no-new-privileges"),
            ("--userns host", "--word=--userns=host"),
            ("--userns host", "up --setup --userns=host"),
            ("--cgroupns private", "--word=--cgroupns=private"),
            ("--stop-signal INT", "--word=--stop-signal=INT"),
            ("--stop-timeout -1", "--word=--stop-timeout=-1"),
            ("--oom-score-adj -5", "--word=--oom-score-adj=-5"),
            ("--privileged", "--word=--userns=host --word=--privileged"),
            ("--privileged", "memory=512000000 devices=all)"),
            ("-p 8080:80 -p 53:53/udp", "--net=publish=8080:80 --net=publish=53:53/udp"),
            ("-p 8080:80", "up --setup \"$id\" publish=8080:80)"),
            ("-P", "--net=publish-all=yes"),
            ("--expose 9000-9010/udp", "expose=9000-9010/udp)"),
            ("--network none", "network=none)"),
            ("--net ns:/run/netns/a=b", "--net=network=ns:/run/netns/a=b"),
            ("--network default", "network=bridge)"),
            (
                "--net back --net front --network-alias db --ip 10.1.0.9",
                "network=back connect=front alias=db ip=10.1.0.9)",
            ),
            (
                "--net name=back,alias=db --net name=front,ip=10.2.0.9",
                "network=back alias=db connect=front,ip=10.2.0.9)",
            ),
            ("--net back --name web --add-host a=::1", "network=back name=web host=a:::1)"),
            ("--ip6 fd00::9 --mac-address 02:00:00:00:00:09", "ip6=fd00::9 mac=02:00:00:00:00:09)"),
            (
                "--dns 1.1.1.1 --dns-search a.b --dns-opt ndots:2",
                "--word=--nameserver=1.1.1.1 --word=--dns-search=a.b --word=--dns-option=ndots:2",
            ),
            ("--add-host db:10.0.0.5", "--word=--add-host=db:10.0.0.5"),
            ("--add-host gate:host-gateway", "--word=--add-host=gate:host-gateway"),
            ("--net host --add-host gate:host-gateway", "--word=--add-host=gate:127.0.0.1"),
            ("--rm", "--auto-remove"),
            ("--entrypoint sh", "-- img_1 -- sh a"),
        ] {
            let script = said(&format!("run {flags} img_1 a"));
            assert!(script.contains(&format!(" {word}")), "{flags}: {script}");
            assert!(!said("run img_1 a").contains(&format!(" {word}")), "{flags}: also without");
        }
        assert_eq!(said("run --rm --rm=false --init=0 -t=f img_1"), said("run img_1"));
        assert_eq!(said("run --restart=no --pull=missing --detach-keys=ctrl-a img_1"), said("run img_1"));
    }

    #[test]
    fn what_is_not_there_is_refused_in_a_line() {
        for (line, why) in [
            ("run --net container:web -p 80 i", "--publish with --network container:web: the network is the other"),
            ("run --net container:web -h box i", "--hostname with --network container:web"),
            ("run --net container:web --dns 1.1.1.1 i", "--dns with --network container:web"),
            ("run --net container:web --add-host a:1.1.1.1 i", "--add-host with --network container:web"),
            ("run --net container:web --mac-address 2:2:2:2:2:2 i", "--mac-address with --network container:web"),
            ("run --network host -P i", "--publish-all with --network host: the network is the host's"),
            ("run --network host --link a:b i", "--link with --network host"),
            ("run --network alias=x i", "--network 'alias=x': there is no name="),
            ("run --network name=a,driver-opt=x i", "--network 'name=a,driver-opt=x': name=, alias="),
            ("run --link :b i", "--link ':b': CONTAINER or"),
            ("run --link a:b:c i", "--link 'a:b:c'"),
            ("run --dns dns.example i", "--dns 'dns.example': an address"),
            ("run --add-host a i", "--add-host 'a': NAME:IP"),
            ("run --add-host a:b i", "--add-host 'a:b': NAME:IP"),
            ("run --restart always i", "--restart: only with -d"),
            ("run -d --rm --restart always i", "--restart and --rm"),
            ("run -d --restart sometimes i", "--restart 'sometimes'"),
            ("create --restart always i", "create: --restart"),
            ("run -m 5q i", "--memory '5q': a size"),
            ("run --cpus 1 --cpu-quota 5000 i", "--cpus: with --cpu-quota"),
            ("run --device-read-bps sda i", "--device-read-bps 'sda': DISK:NUMBER"),
            ("run --device-read-iops /dev/sda:1m i", "--device-read-iops '/dev/sda:1m': DISK:NUMBER"),
            ("run --userns me i", "--userns 'me'"),
            ("run --privileged --userns private i", "--userns 'private'"),
            ("run --security-opt apparmor=x i", "--security-opt 'apparmor=x'"),
            ("run --nonsense i", "error: unexpected argument '--nonsense'"),
            ("run -dx i", "error: unexpected argument '-x'"),
            ("run --rm=maybe i", "error: invalid value 'maybe'"),
            ("run --name", "error: a value is required"),
            ("start -a a b", "start: several"),
            ("update web", "update: which limit?"),
            ("exec web", "exec: which command?"),
        ] {
            let said = refused(line);
            assert!(said.starts_with(why) && !said.contains('\n') && said.len() < 250, "{line}: {said}");
        }
    }

    #[test]
    fn other_containers_are_asked_for() {
        let script = said("run --net container:db --rm img_1 a");
        assert!(
            script.starts_with("net=$(bocker-store id --container -- db) || exit 125\naddr= cg= id=\n"),
            "{script}"
        );
        assert!(script.contains(" --net=network=container:\"$net\" "), "{script}");
        assert!(script.contains("up --setup \"$id\" network=container:\"$net\")"), "{script}");
        assert!(said("run --net container:ps_42045 img_1").contains(" network=container:ps_42045)"));
        let script = said("create --link db:store --link ps_42045 img_1");
        let asked = r#"link0=$(bocker-store id --container -- db) || exit 125
at0=$(bocker-net address "$link0") || exit 125
at1=$(bocker-net address ps_42045) || exit 125
bocker-net check host=store:"$at0" host=db:"$at0" host="$link0":"$at0" host=ps_42045:"$at1" || exit 125
id=$(bocker-store snapshot"#;
        assert!(script.starts_with(asked), "{script}");
        for host in ["store:\"$at0\"", "db:\"$at0\"", "\"$link0\":\"$at0\"", "ps_42045:\"$at1\""] {
            assert!(script.contains(&format!(" --word=--add-host={host} ")), "{host}: {script}");
        }
        // What create does not use yet is looked at.
        assert!(said("create -p 8080:80 img_1").starts_with("bocker-net check publish=8080:80 || exit 125\nid="));
        // Where the image's configuration says which ports there are.
        let script = said("run -P img_1");
        assert!(script.contains("up --setup \"$id\" publish-all=yes config=\"$dir/config\")"), "{script}");
        let (dir, up) = (script.find("dir=$(").unwrap(), script.find("addr=$(").unwrap());
        assert!(dir < up);
    }

    #[test]
    fn what_is_secret_is_on_no_command_line() {
        let script = said("run -e A=x -l a=b --rm img_1 true");
        let told = r#"me=$(exec sh -c 'echo "$PPID"')
id=$(printf '%s\0' --label=a=b --word=--env=A=x | bocker-store snapshot --setup --holder="$me" "#;
        assert!(script.contains(told), "{script}");
        assert!(script.contains(" --words=- -- img_1 -- true)"), "{script}");
        assert!(!said("run img_1").contains("--words=-"));
    }

    #[test]
    fn start_again() {
        let begin = |id: &str, exit: &str| {
            let (down, files) = (DOWN.replace("\"$id\"", id), FILES.replace("\"$id\"", id));
            format!(
                r#"trap '{down}' EXIT
{TRAPS}
dir=$(bocker-store path --stopped --holder -- {id}) || {exit}
bocker-cg delete --kill {id} || {exit}
bocker-net down {id} || {exit}
cg=$(bocker-cg create --from "$dir/limits" {id}) || {exit}
addr=$(bocker-net up --setup --from "$dir/network" {id} config="$dir/config") || {exit}
bocker-cg exec {id} -- bocker-net exec {id} -- bocker-exec {files} --address "$addr" --detach --then bocker --then ended --then {id} </dev/null || exit
{KEEP}
"#
            )
        };
        let blocks =
            |script: String| script.lines().map(|line| line.trim_start().to_owned() + "\n").collect::<String>();
        let expected = format!(
            r#"id=$(bocker-store id --container -- web) || exit
if dir=$(bocker-store path --running -- "$id" 2>/dev/null); then
echo web
else
if [ -e "/etc/systemd/system/bocker-${{id}}.service" ]; then
if grep -qx X-Restart=unless-stopped "/etc/systemd/system/bocker-${{id}}.service" >/dev/null 2>&1; then
systemctl enable --quiet --now "bocker-${{id}}.service" || exit
else
systemctl start "bocker-${{id}}.service" || exit
fi
echo web
else
addr= cg=
{}echo web
fi
fi
"#,
            begin("\"$id\"", "exit")
        );
        assert_eq!(blocks(said("start web")), expected);
        let expected = format!(
            r#"dir=$(bocker-store path --container -- ps_42045) || exit
if [ -e /etc/systemd/system/bocker-ps_42045.service ]; then
systemctl restart bocker-ps_42045.service || exit
if grep -qx X-Restart=unless-stopped /etc/systemd/system/bocker-ps_42045.service >/dev/null 2>&1; then
systemctl enable --quiet bocker-ps_42045.service || exit
fi
else
bocker-exec --stop "$dir/status" --words "$dir/words" --config "$dir/config" --timeout 3 || exit
addr= cg=
{}fi
echo ps_42045
"#,
            begin("ps_42045", "exit")
        );
        assert_eq!(blocks(said("restart -t 3 ps_42045")), expected);
        let foreground = said("start -ai ps_42045");
        let files = FILES.replace("\"$id\"", "ps_42045");
        let chain = format!("bocker-exec --die-with-parent {files} --address \"$addr\"\nfi\n");
        assert!(foreground.contains("bocker-exec --attach \"$dir/status\"\nelse\n"), "{foreground}");
        assert!(foreground.ends_with(&chain) && foreground.contains("|| exit 125"), "{foreground}");
        assert!(foreground.contains("|| bocker-store rm --auto --holder -- ps_42045' EXIT"), "{foreground}");
        assert!(said("start -a ps_42045").contains("--no-stdin\n"));
    }

    #[test]
    fn life() {
        let dir = "dir=$(bocker-store path --running -- web) || exit\n";
        for (line, expected) in [
            (
                "stop -s INT web",
                r#"dir=$(bocker-store path --container -- web) || exit
id="${dir##*/}"
if [ -e "/etc/systemd/system/bocker-${id}.service" ]; then
    if grep -qx X-Restart=unless-stopped "/etc/systemd/system/bocker-${id}.service" >/dev/null 2>&1; then
        systemctl disable --quiet --now "bocker-${id}.service" || exit
    else
        systemctl stop "bocker-${id}.service" || exit
    fi
    systemctl reset-failed "bocker-${id}.service" >/dev/null 2>&1 || :
fi
bocker-exec --stop "$dir/status" --words "$dir/words" --config "$dir/config" --signal INT || exit
if dir=$(bocker-store path --stopped --holder -- "$id" 2>/dev/null); then
    if [ -e /run/netns/netns_"$id" ] || [ -e /run/bocker-net/"$id" ]; then
        bocker-net down "$id" || exit
    fi
fi
echo web
"#
                .to_owned(),
            ),
            ("kill web", format!("{dir}bocker-exec --kill \"$dir/status\" --signal KILL || exit\necho web\n")),
            ("wait ps_42045", "dir=$(bocker-store path -- ps_42045) || exit\nexec bocker-exec --wait \"$dir/status\"\n".to_owned()),
            (
                "attach --detach-keys=ctrl-a --sig-proxy=false web",
                format!("{dir}bocker-exec --attach \"$dir/status\" --detach-keys=ctrl-a --no-sig-proxy\n"),
            ),
            ("pause ps_42045", "bocker-cg freeze ps_42045 || exit\necho ps_42045\n".to_owned()),
            (
                "unpause web",
                "id=$(bocker-store id --container -- web) || exit\nbocker-cg thaw \"$id\" || exit\necho web\n".to_owned(),
            ),
            ("rename web site", "exec bocker-store rename -- web site\n".to_owned()),
            (
                "exec -it -e A=1 -u 5 -w / web sh -c x",
                r#"dir=$(bocker-store path --running -- web) || exit 125
{ printf '%s\0' A=1 | bocker-cg exec --keep-fd=3 "${dir##*/}" -- bocker-exec --die-with-parent --join "$dir/status" --config "$dir/config" --words "$dir/words" --env-fd=3 --user=5 --workdir=/ --tty -- sh -c x 3<&0 <&9 9<&-; } 9<&0
"#
                .to_owned(),
            ),
            (
                "exec -i web true",
                r#"dir=$(bocker-store path --running -- web) || exit 125
exec bocker-cg exec "${dir##*/}" -- bocker-exec --join "$dir/status" --config "$dir/config" --words "$dir/words" -- true
"#
                .to_owned(),
            ),
            (
                "exec -d -e A=1 ps_42045 true",
                r#"dir=$(bocker-store path --running -- ps_42045) || exit 125
printf '%s\0' A=1 | bocker-cg exec --keep-fd=3 ps_42045 -- bocker-exec --detach --join "$dir/status" --config "$dir/config" --words "$dir/words" --env-fd=3 -- true 3<&0 </dev/null
"#
                .to_owned(),
            ),
            (
                "exec -d --privileged ps_42045 true",
                r#"dir=$(bocker-store path --running -- ps_42045) || exit 125
exec bocker-cg exec ps_42045 -- bocker-exec --detach --join "$dir/status" --config "$dir/config" --words "$dir/words" --privileged -- true </dev/null
"#
                .to_owned(),
            ),
            (
                "ps -aq -n 3 --filter status=running --filter name=x --format json",
                "exec bocker-store ps --all --quiet --last=3 --format=json --filter=status=running --filter=name=x\n".to_owned(),
            ),
            ("logs -ft -n 3 --since 1m web", "exec bocker-store logs --follow --timestamps --tail=3 --since=1m -- web\n".to_owned()),
            ("port web 80/udp", "id=$(bocker-store id --container -- web) || exit\nexec bocker-net port \"$id\" 80/udp\n".to_owned()),
            ("port ps_42045", "exec bocker-net port ps_42045\n".to_owned()),
            (
                "network create --subnet 10.1.0.0/24 --subnet6 fd00::/64 --internal --mtu 1400 back",
                "exec bocker-net network create --subnet=10.1.0.0/24 --subnet6=fd00::/64 --mtu=1400 --internal -- back\n".to_owned(),
            ),
            ("network ls -q", "exec bocker-net network ls --quiet\n".to_owned()),
            ("network rm a b", "exec bocker-net network rm -- a b\n".to_owned()),
            ("network inspect --json a", "exec bocker-net network inspect --json -- a\n".to_owned()),
            ("network prune", "exec bocker-net network prune\n".to_owned()),
            (
                "network connect --ip 10.1.0.9 --alias db --alias sql back web",
                r#"bocker-net check connect=back,ip=10.1.0.9,alias=db,alias=sql || exit
id=$(bocker-store id --container -- web) || exit
if dir=$(bocker-store path --running -- "$id" 2>/dev/null); then
    name=$(bocker-store ps --filter=id="$id" '--format={{.Names}}') || exit
    bocker-net connect "$id" back ip=10.1.0.9 alias=db alias=sql name="$name" || exit
fi
exec bocker-store network -- "$id" +back,ip=10.1.0.9,alias=db,alias=sql
"#
                .to_owned(),
            ),
            (
                "network disconnect back ps_42045",
                r#"if dir=$(bocker-store path --running -- ps_42045 2>/dev/null); then
    bocker-net disconnect ps_42045 back || exit
fi
exec bocker-store network -- ps_42045 -back
"#
                .to_owned(),
            ),
            ("top ps_42045", "exec bocker-cg top ps_42045\n".to_owned()),
            ("stats --no-stream", "exec bocker-cg stats\n".to_owned()),
            ("stats --json ps_42045 ps_42046", "exec bocker-cg stats --stream --json ps_42045 ps_42046\n".to_owned()),
            (
                "stats --no-stream web ps_42045 db",
                r#"id=$(bocker-store id --container -- web) || exit
id2=$(bocker-store id --container -- db) || exit
exec bocker-cg stats "$id" ps_42045 "$id2"
"#
                .to_owned(),
            ),
            (
                "doctor",
                r#"failed=
bocker-store doctor || failed=$?
bocker-net doctor || failed=$?
bocker-cg doctor || failed=$?
bocker-exec --doctor || failed=$?
[ -z "$failed" ] || exit "$failed"
"#
                .to_owned(),
            ),
            (
                "update -m 1g --cpus 2 ps_42045",
                r#"if dir=$(bocker-store path --running -- ps_42045 2>/dev/null); then
    bocker-cg set ps_42045 memory=1073741824 cpus=2 || exit
fi
bocker-store limits -- ps_42045 memory=1073741824 cpus=2 || exit
echo ps_42045
"#
                .to_owned(),
            ),
            (
                "ended ps_42045",
                r#"dir=$(bocker-store path --stopped --wait --holder -- ps_42045) || exit
bocker-net down ps_42045 || exit
bocker-cg delete --kill --record "$dir" ps_42045 || exit
if [ -e "$dir/life" ]; then
    bocker-store rm --auto --holder -- ps_42045 || exit
fi
"#
                .to_owned(),
            ),
        ] {
            assert_eq!(said(line), expected, "{line}");
        }
    }

    #[test]
    fn rm_of_what_runs_and_of_what_has_volumes() {
        let unit = "/etc/systemd/system/bocker-ps_42045.service";
        let expected = format!(
            r#"if bocker-cg thaw ps_42045 >/dev/null 2>&1; then
    dir=$(bocker-store path -- ps_42045) || exit
    bocker-exec --stop "$dir/status" --words "$dir/words" --config "$dir/config" --signal KILL || exit
fi
if [ -e {unit} ]; then
    systemctl disable --quiet --no-reload --now bocker-ps_42045.service || exit
    rm -f {unit} || exit
    systemctl daemon-reload || exit
    systemctl reset-failed bocker-ps_42045.service >/dev/null 2>&1 || :
fi
if dir=$(bocker-store path --stopped --holder -- ps_42045 2>/dev/null); then
    bocker-cg delete --kill ps_42045 || exit
    bocker-net down ps_42045 || exit
    bocker-store rm --holder --volumes -- ps_42045 || exit
else
    if dir=$(bocker-store path -- ps_42045 2>/dev/null); then
        dir=$(bocker-store path --stopped --holder -- ps_42045) || exit
        echo 'bocker: rm: it was in use a moment ago; ask again' >&2; exit 1
    fi
fi
echo Removed: ps_42045
"#
        );
        assert_eq!(said("rm -fv ps_42045"), expected);
        let either = said("rm web");
        assert!(either.starts_with("if id=$(bocker-store id --container -- web 2>/dev/null); then\n"), "{either}");
        assert!(either.ends_with("else\n    bocker-store rm -- web || exit\n    echo Removed: web\nfi\n"), "{either}");
        for image in ["debian:12", "a/b", "img_42150"] {
            assert_eq!(
                said(&format!("rm {image}")),
                format!("bocker-store rm -- {image} || exit\necho Removed: {image}\n")
            );
        }
    }

    #[test]
    fn a_restart_policy_is_a_unit() {
        let script = said("run -d --restart on-failure:3 --name web img_1 true");
        let none =
            "bocker: --restart: systemd does not run on this host, and bocker has no daemon that could start it again";
        assert!(
            script
                .starts_with(&format!("if ! [ -e /run/systemd/system ]; then\n    echo '{none}' >&2; exit 125\nfi\n")),
            "{script}"
        );
        for part in [
            "StartLimitBurst=4\n",
            "\nRestart=on-failure\n",
            "'ExecStart=\"$(command -v bocker)\"' start -a '\"$id\"",
            "\"$dir/status\"",
            "systemctl enable --quiet \"bocker-${id}.service\" || exit 125\ntrap - EXIT ",
        ] {
            assert!(script.contains(part), "{part}: {script}");
        }
        let always = said("run -d --restart always img_1 true");
        assert!(always.contains("\nRestart=always\n") && always.contains("StartLimitIntervalSec=0\n"), "{always}");
    }

    #[test]
    fn settings_reach_the_plan() {
        let run = || cli::Cli::try_parse_from(["bocker", "run", "img_42150"]).unwrap().command.unwrap();
        let text = script(run(), &[("BOCKER_CPU_SHARE", "1024"), ("BOCKER_MEM_LIMIT", "1024")]);
        assert!(text.contains("cpu.shares=1024 memory=1024000000)"), "{text}");
        assert!(!text.contains("--ids"), "{text}");
        // systemd has nothing of the caller's.
        let always = ["bocker", "run", "-d", "--restart", "always", "img_1"];
        for name in ["BOCKER_ROOT", "BOCKER_SUBNET", "BOCKER_SUBNET6", "BOCKER_NETWORKS"] {
            let always = cli::Cli::try_parse_from(always).unwrap().command.unwrap();
            assert!(script(always, &[(name, "/x")]).contains(&format!("Environment=\"{name}=/x\"\n")), "{name}");
        }
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
        let rm = |id: &str| script(Command::Rm { force: true, volumes: false, ids: words(&[id]) }, &[]);
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
