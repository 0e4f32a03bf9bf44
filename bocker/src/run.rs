//! How containers begin: `run`, `create`, `start`; and what becomes of a detached one when it has ended.

use std::ffi::{OsStr, OsString};

use crate::Failure;
use crate::commands::{CG, EXEC, HOLDER, NET, PARENT, STORE, Settings, ids, number, pull_image, shell_line};
use crate::flags::{Flags, Pull, Restart, Wanted, option};
use crate::life::{UNLESS_STOPPED, Who};
use crate::plan::{Condition, Job, Step, Tool, Word};
use crate::values::Caller;

/// The command by which the supervisor of a detached container takes down what is left of it.
const ENDED: &str = "ended";

/// Where systemd runs there is this directory, `sd_booted(3)`.
const BOOTED: &str = "/run/systemd/system";

fn id() -> [Word; 1] {
    [Word::Var("id")]
}

/// What the flags mean, with the settings as defaults.
fn meaning(flags: Flags, settings: Settings) -> Result<Wanted, Failure> {
    let shares = number(settings, "BOCKER_CPU_SHARE", 512)?;
    let memory = number(settings, "BOCKER_MEM_LIMIT", 512)?;
    let memory = memory
        .checked_mul(1_000_000)
        .ok_or_else(|| Failure::usage(format!("BOCKER_MEM_LIMIT: {memory} times 1,000,000 bytes is too much")))?;
    let dir = std::env::current_dir().unwrap_or_default();
    flags.meaning(shares, memory, Caller { env: &|name: &OsStr| std::env::var_os(name), dir: &dir })
}

/// The command as the container remembers it; none: the image's own.
fn command(entrypoint: Option<OsString>, words: Vec<OsString>) -> Result<Vec<OsString>, Failure> {
    match entrypoint {
        None => Ok(shell_line(words)),
        Some(none) if none.is_empty() && words.is_empty() => {
            Err(Failure::usage("--entrypoint '': then the command is to be given"))
        }
        // An argument vector: the words are the program's.
        Some(program) => Ok(Some(program).filter(|program| !program.is_empty()).into_iter().chain(words).collect()),
    }
}

/// Keeps the new container's id in `id`; where there is no such image, it is pulled first, if it may be.
fn snapshot(image: OsString, held: bool, wanted: &Wanted, command: &[OsString], settings: Settings) -> Vec<Step> {
    let mut tool = Tool::new(STORE, ["snapshot", "--setup"]).and(held.then_some(HOLDER));
    if let Some(ids) = ids(settings("BOCKER_SUBNET").as_deref()) {
        tool = tool.and(["--ids".to_owned(), ids]);
    }
    let words = (!wanted.told.is_empty()).then_some("--words=-");
    let tool = tool.and(wanted.remembered.clone()).and(words).and(["--"]).told(0, wanted.told.clone());
    let of = |image: Word| {
        let words = (!command.is_empty()).then(|| [&["--".into()], command].concat());
        vec![tool.clone().and([image]).and(words.into_iter().flatten())]
    };
    let pulled = || {
        let pull = Step::Do(vec![Job { var: Some("img"), pipe: pull_image(image.clone(), None, settings) }]);
        vec![pull, Step::capture("id", of(Word::Var("img")))]
    };
    let is_id = ["img_", "ps_"].iter().any(|kind| crate::commands::is_id(&image, kind));
    match wanted.pull {
        Pull::Always if !is_id => pulled(),
        Pull::Missing if !is_id => {
            // Only if that is what was wrong, which has been said.
            let missing = Job::run(Tool::new(STORE, ["id", "--missing", "--"]).and([image.clone()]));
            let no = vec![Step::If(Condition::Quietly(missing), pulled(), vec![Step::Stop])];
            vec![Step::If(Condition::Done(Job { var: Some("id"), pipe: of(image.clone().into()) }), vec![], no)]
        }
        _ => vec![Step::capture("id", of(image.into()))],
    }
}

/// `docker run --cidfile`: the id without a line break.
fn cidfile(wanted: &Wanted) -> Option<Step> {
    wanted.cidfile.clone().map(|file| Step::Write(vec![file.into()], id().to_vec()))
}

/// Where bocker-net writes the names of a network for one that is on it.
fn hosts(id: &Word) -> Word {
    Word::Joined(vec!["/run/bocker-net/".into(), id.clone(), "/hosts".into()])
}

/// The words for bocker-exec that every container gets.
fn payload(id: &Word) -> Tool {
    let mut payload = Tool::new(EXEC, ["--root".into(), Word::VarWith("dir", "/rootfs")]);
    for file in ["config", "log", "status", "words"] {
        let at = match file {
            "config" => "/config",
            "log" => "/log",
            "status" => "/status",
            _ => "/words",
        };
        payload = payload.and([format!("--{file}").into(), Word::VarWith("dir", at)]);
    }
    payload.and(["--hosts".into(), hosts(id), "--address".into(), Word::Var("addr")])
}

/// The three links.
fn chain(id: &Word, payload: Tool) -> Tool {
    Tool::new(CG, ["exec"]).and([id.clone()]).then(Tool::new(NET, ["exec"]).and([id.clone()]).then(payload))
}

/// One small process stays, and becomes `bocker ended ID` in the end.
fn detached(payload: Tool, id: &Word) -> Tool {
    let then = [Word::Tool("bocker"), ENDED.into(), id.clone()];
    then.into_iter().fold(payload.and(["--detach"]), |payload, word| payload.and(["--then".into(), word]))
}

/// Whether it ran out of memory is written down in its directory.
fn record() -> [Word; 2] {
    ["--record".into(), Word::Var("dir")]
}

/// Its network and its cgroup go.
fn take_down(id: &Word) -> Vec<(&'static str, Tool)> {
    vec![
        ("addr", Tool::new(NET, ["down"]).and([id.clone()])),
        ("cg", Tool::new(CG, ["delete", "--kill"]).and(record()).and([id.clone()])),
    ]
}

pub(crate) fn run(
    image: OsString,
    words: Vec<OsString>,
    detach: bool,
    flags: Flags,
    settings: Settings,
) -> Result<Vec<Step>, Failure> {
    let wanted = meaning(flags, settings)?;
    let command = command(wanted.entrypoint.clone(), words)?;
    match &wanted.restart {
        Some(_) if !detach => return Err(Failure::usage("--restart: only with -d")),
        Some(policy) => return Ok(supervised(policy, image, &wanted, &command, settings)),
        None => {}
    }
    // A command that never started leaves no container. Last, for then the id is free for others.
    let undo = if wanted.rm { "--auto" } else { "--unstarted" };
    let remove = vec![("id", Tool::new(STORE, ["rm", undo]).and([HOLDER]).and(id()))];
    let mut steps = wanted.network.asked.clone();
    steps.push(Step::OnExit(vec![take_down(&Word::Var("id")), remove]));
    steps.extend(snapshot(image, true, &wanted, &command, settings));
    steps.extend(cidfile(&wanted));
    let up = Tool::new(NET, ["up", "--setup"]).and(wanted.host_users.then_some("--userns=host")).and(id());
    let up = up.and(wanted.network.words.clone());
    let path = Job::capture("dir", Tool::new(STORE, ["path"]).and(id()));
    let cg = Job::capture("cg", Tool::new(CG, ["create"]).and(id()).and(wanted.limits.clone()));
    if wanted.network.publish_all {
        // Which ports the image serves, its configuration says.
        let up = up.and([Word::VarWith("dir", "/config")].map(|file| Word::Joined(vec!["config=".into(), file])));
        steps.extend([Step::Do(vec![path]), Step::Do(vec![cg, Job::capture("addr", up)])]);
    } else {
        steps.push(Step::Do(vec![path, cg, Job::capture("addr", up)]));
    }
    let payload = payload(&Word::Var("id"));
    if detach {
        steps.push(Step::Begin(chain(&Word::Var("id"), detached(payload, &Word::Var("id"))).stdin(false)));
        steps.extend([Step::Keep, Step::Say(id().to_vec())]);
    } else {
        let payload = Tool { words: [vec![PARENT], payload.words].concat(), ..payload };
        steps.push(Step::Hand(chain(&Word::Var("id"), payload).stdin(wanted.interactive)));
    }
    Ok(steps)
}

pub(crate) fn create(
    image: OsString,
    words: Vec<OsString>,
    flags: Flags,
    settings: Settings,
) -> Result<Vec<Step>, Failure> {
    let wanted = meaning(flags, settings)?;
    if wanted.restart.is_some() {
        return Err(Failure::usage("create: --restart: only with run -d"));
    }
    let command = command(wanted.entrypoint.clone(), words)?;
    let mut steps = wanted.network.asked.clone();
    steps.extend(wanted.network.check());
    let file = cidfile(&wanted);
    if file.is_some() {
        steps.push(Step::OnExit(vec![vec![("id", Tool::new(STORE, ["rm", "--unstarted"]).and(id()))]]));
    }
    steps.extend(snapshot(image, false, &wanted, &command, settings));
    steps.extend(file.into_iter().flat_map(|file| [file, Step::Keep]));
    steps.push(Step::Say(id().to_vec()));
    Ok(steps)
}

/// A container that stands gets a cgroup and a network again, and what it remembers.
pub(crate) fn start(containers: Vec<OsString>, attach: bool, interactive: bool) -> Result<Vec<Step>, Failure> {
    let foreground = attach || interactive;
    if foreground && containers.len() > 1 {
        return Err(Failure::usage("start: several containers are started in the background: without -a and -i"));
    }
    Ok(containers.into_iter().flat_map(|name| start_one(name, foreground, interactive)).collect())
}

fn start_one(name: OsString, foreground: bool, interactive: bool) -> Vec<Step> {
    let who = Who::of(name);
    let mut steps = who.resolve();
    let running =
        Job { var: Some("dir"), pipe: vec![Tool::new(STORE, ["path", "--running", "--"]).and([who.id.clone()])] };
    let yes = if foreground {
        vec![Step::Hand(
            Tool::new(EXEC, ["--attach".into(), Word::VarWith("dir", "/status")])
                .and((!interactive).then_some("--no-stdin")),
        )]
    } else {
        vec![Step::Say(vec![who.name.clone().into()])]
    };
    let mut own = if foreground { begin(&who, Some(interactive)) } else { begin(&who, None) };
    if !foreground {
        own.push(Step::Say(vec![who.name.clone().into()]));
        let start = crate::life::systemctl(&["enable", "--quiet", "--now"], Some("start"), &who);
        own = vec![Step::If(
            Condition::There(vec![who.unit_file()]),
            vec![start, Step::Say(vec![who.name.clone().into()])],
            own,
        )];
    }
    steps.push(Step::If(Condition::Quietly(running), yes, own));
    steps
}

/// In the foreground, with or without our stdin; or in the background.
pub(crate) fn begin(who: &Who, foreground: Option<bool>) -> Vec<Step> {
    let id = || [who.id.clone()];
    let mut groups = vec![take_down(&who.id)];
    if foreground.is_some() {
        groups.push(vec![("dir", Tool::new(STORE, ["rm", "--auto"]).and([HOLDER, "--".into()]).and(id()))]);
    }
    let path = Tool::new(STORE, ["path", "--stopped"]).and([HOLDER, "--".into()]).and(id());
    let from = [Word::VarWith("dir", "/limits")];
    let config = Word::Joined(vec!["config=".into(), Word::VarWith("dir", "/config")]);
    let up = Tool::new(NET, ["up", "--setup", "--from"]).and([Word::VarWith("dir", "/network")]);
    let up = up.and(id()).and([config]);
    let mut steps = vec![
        Step::OnExit(groups),
        Step::capture("dir", vec![path]),
        // Gone already, unless a crash left them, or what takes them down has not come to it yet.
        Step::Do(vec![
            Job::run(Tool::new(CG, ["delete", "--kill"]).and(id())),
            Job::run(Tool::new(NET, ["down"]).and(id())),
        ]),
        Step::Do(vec![
            Job::capture("cg", Tool::new(CG, ["create", "--from"]).and(from).and(id())),
            Job::capture("addr", up),
        ]),
    ];
    let payload = payload(&who.id);
    match foreground {
        None => {
            steps.push(Step::Begin(chain(&who.id, detached(payload, &who.id)).stdin(false)));
            steps.push(Step::Keep);
        }
        Some(interactive) => {
            let payload = Tool { words: [vec![PARENT], payload.words].concat(), ..payload };
            steps.push(Step::Hand(chain(&who.id, payload).stdin(interactive)));
        }
    }
    steps
}

/// What a supervisor becomes: the container is held first, so that nobody starts it while its network goes.
pub(crate) fn ended(container: OsString) -> Vec<Step> {
    let id = || [container.clone()];
    // Who stops several has each until the last one has ended.
    let path = Tool::new(STORE, ["path", "--stopped", "--wait"]).and([HOLDER, "--".into()]).and(id());
    let rm = Tool::new(STORE, ["rm", "--auto"]).and([HOLDER, "--".into()]).and(id());
    // What has nothing remembered of its life stays. Whoever stops it waits for this.
    let life = Condition::There(vec![vec![Word::VarWith("dir", "/life")]]);
    vec![
        Step::capture("dir", vec![path]),
        Step::Do(vec![
            Job::run(Tool::new(NET, ["down"]).and(id())),
            Job::run(Tool::new(CG, ["delete", "--kill"]).and(record()).and(id())),
        ]),
        Step::If(life, vec![Step::run(rm)], vec![]),
    ]
}

/// `--restart`: who starts it again is systemd, by a unit of its own.
fn supervised(
    policy: &Restart,
    image: OsString,
    wanted: &Wanted,
    command: &[OsString],
    settings: Settings,
) -> Vec<Step> {
    let who = Who { name: OsString::new(), id: Word::Var("id"), known: true };
    let none = "--restart: systemd does not run on this host, and bocker has no daemon that could start it again";
    let mut unit: Vec<Word> = vec!["[Unit]\nDescription=bocker container ".into(), Word::Var("id")];
    if *policy == Restart::UnlessStopped {
        unit.push(format!("\n{UNLESS_STOPPED}").into());
    }
    unit.push(match policy {
        Restart::OnFailure(Some(times)) => {
            // The first start counts, too. systemd.unit(5)
            format!("\nStartLimitIntervalSec=infinity\nStartLimitBurst={}\n", u64::from(*times) + 1).into()
        }
        _ => "\nStartLimitIntervalSec=0\n".into(),
    });
    // A start of the machine leaves the store unmounted: scripts/bocker-gc.service is first.
    unit.push("Wants=bocker-gc.service\nAfter=network.target bocker-gc.service\n\n[Service]\n".into());
    for name in ["BOCKER_ROOT", "BOCKER_SUBNET", "BOCKER_SUBNET6", "BOCKER_NETWORKS"] {
        unit.extend(settings(name).map(|value| format!("Environment=\"{name}={}\"\n", escaped(&value)).into()));
    }
    unit.extend(["ExecStart=".into(), Word::Tool("bocker"), " start -a ".into(), Word::Var("id")]);
    unit.extend(["\nExecStop=".into(), Word::Tool(EXEC), " --stop ".into(), Word::VarWith("dir", "/status")]);
    unit.extend([" --words ".into(), Word::VarWith("dir", "/words")]);
    unit.extend([" --config ".into(), Word::VarWith("dir", "/config")]);
    let when = if matches!(policy, Restart::OnFailure(_)) { "on-failure" } else { "always" };
    // 125: ours, not the command's: it is gone, or cannot be set up.
    unit.push(
        format!(
            "\nKillMode=mixed\nTimeoutStopSec=infinity\nRestart={when}\nRestartSec=1\nRestartPreventExitStatus=125\n\n[Install]\nWantedBy=multi-user.target\n"
        )
        .into(),
    );
    let forget = Tool::new("rm", ["-f"]).and([who.unit_path()]);
    let mut steps =
        vec![Step::If(Condition::There(vec![vec![BOOTED.into()]]), vec![], vec![Step::Fail(none.to_owned())])];
    steps.extend(wanted.network.asked.clone());
    steps.extend(wanted.network.check());
    steps.push(Step::OnExit(vec![
        vec![("dir", forget)],
        vec![("id", Tool::new(STORE, ["rm", "--unstarted"]).and([HOLDER]).and(id()))],
    ]));
    steps.extend(snapshot(image, true, wanted, command, settings));
    steps.extend(cidfile(wanted));
    steps.extend([
        // Held once more: from now on it is no run's that could have died before its start, but systemd's to start.
        Step::capture("dir", vec![Tool::new(STORE, ["path", "--stopped"]).and([HOLDER, "--".into()]).and(id())]),
        // Of a container that had this id.
        Step::run(Tool::new("rm", ["-f"]).and([who.unit_path()])),
        Step::Write(who.unit_file(), unit),
        // It reads all units again, systemctl(1).
        Step::run(Tool::new("systemctl", ["enable", "--quiet"]).and([who.unit()])),
        Step::Keep,
        // It waits until we let go of the container.
        Step::run(Tool::new("systemctl", ["start", "--no-block"]).and([who.unit()])),
        Step::Say(id().to_vec()),
    ]);
    steps
}

/// A value in a unit's quotes, systemd.syntax(7); a line break would be another line's.
fn escaped(value: &OsStr) -> String {
    let mut text = String::new();
    for c in value.to_string_lossy().chars() {
        match c {
            '\\' | '"' => text.extend(['\\', c]),
            '%' => text.push_str("%%"),
            '\n' => text.push_str("\\n"),
            c => text.push(c),
        }
    }
    text
}

/// `--name=value`, for those who start with words of their own.
pub(crate) fn typed(name: &str, value: Option<OsString>) -> Option<Word> {
    value.map(|value| option(name, value).into())
}
