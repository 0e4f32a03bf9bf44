//! What is done to containers that are there.

use std::ffi::{OsStr, OsString};

use crate::Failure;
use crate::cli::{ExecFlags, Ps, Stopping};
use crate::commands::{CG, EXEC, HOLDER, NET, PARENT, STORE};
use crate::flags::Limits;
use crate::plan::{Condition, Job, Step, Tool, Var, Word};
use crate::run::{begin, typed};
use crate::values::{self, Caller};

/// A container as it was typed, and its id. The store knows names; control groups and networks only ids.
#[derive(Debug, Clone)]
pub(crate) struct Who {
    pub(crate) name: OsString,
    pub(crate) id: Word,
    /// What was typed is the id.
    pub(crate) known: bool,
}

impl Who {
    pub(crate) fn of(name: OsString) -> Self {
        let known = is_whole_id(&name);
        let id = if known { name.clone().into() } else { Word::Var("id") };
        Self { name, id, known }
    }

    fn job(&self) -> Option<Job> {
        let ask = || Tool::new(STORE, ["id", "--container", "--"]).and([self.name.clone()]);
        (!self.known).then(|| Job::capture("id", ask()))
    }

    /// Its id, kept in a variable of that name where it has to be asked for.
    pub(crate) fn id_in(&self, steps: &mut Vec<Step>, var: Var) -> Word {
        match self.job() {
            None => self.id.clone(),
            Some(job) => {
                steps.push(Step::Do(vec![Job { var: Some(var), ..job }]));
                Word::Var(var)
            }
        }
    }

    /// Its id, where it is not known yet.
    pub(crate) fn resolve(&self) -> Vec<Step> {
        self.job().into_iter().map(|job| Step::Do(vec![job])).collect()
    }

    /// Its path, and of that its id.
    fn and_path(&self) -> Vec<Step> {
        let path = Step::capture("dir", vec![Tool::new(STORE, ["path", "--container", "--"]).and([self.name.clone()])]);
        let id = (!self.known).then_some(Step::Let("id", Word::Last("dir")));
        std::iter::once(path).chain(id).collect()
    }

    /// The unit of one with `--restart`.
    pub(crate) fn unit(&self) -> Word {
        match &self.id {
            Word::Text(id) => format!("bocker-{}.service", id.to_string_lossy()).into(),
            _ => Word::Between("bocker-", "id", ".service"),
        }
    }

    /// The unit's file, as one word.
    pub(crate) fn unit_path(&self) -> Word {
        match &self.id {
            Word::Text(id) => format!("/etc/systemd/system/bocker-{}.service", id.to_string_lossy()).into(),
            _ => Word::Between("/etc/systemd/system/bocker-", "id", ".service"),
        }
    }

    pub(crate) fn unit_file(&self) -> Vec<Word> {
        vec![self.unit_path()]
    }

    fn say(&self) -> Step {
        Step::Say(vec![self.name.clone().into()])
    }
}

/// Whether no more than this id is meant. Ids have five digits and, where the subnet is wide, six; no five are the beginning of six.
fn is_whole_id(word: &OsStr) -> bool {
    let number = word.to_str().and_then(|word| word.strip_prefix("ps_"));
    number.is_some_and(|number| matches!(number.len(), 5 | 6) && number.bytes().all(|b| b.is_ascii_digit()))
}

fn file(name: &'static str) -> Word {
    Word::VarWith("dir", name)
}

fn exec_stop(how: &Stopping) -> Tool {
    let words =
        ["--stop".into(), file("/status"), "--words".into(), file("/words"), "--config".into(), file("/config")];
    let signal = how.signal.clone().map(|signal| ["--signal".into(), signal]);
    let time = how.time.map(|time| ["--timeout".to_owned(), time.to_string()]);
    Tool::new(EXEC, words).and(signal.into_iter().flatten()).and(time.into_iter().flatten())
}

/// Whether systemd starts it again.
fn has_unit(who: &Who) -> Condition {
    Condition::There(vec![who.unit_file()])
}

/// In the unit of a container that is to stay stopped over a start of the machine. systemd.unit(5): what begins with X- is ours.
pub(crate) const UNLESS_STOPPED: &str = "X-Restart=unless-stopped";

/// Of one with `--restart unless-stopped` the first, which says as well what happens when the machine starts; of others the second.
pub(crate) fn systemctl(stays: &[&str], other: Option<&str>, who: &Who) -> Step {
    let run = |verb: &[&str]| Step::run(Tool::new("systemctl", verb.iter().copied()).and([who.unit()]));
    let is = Job::run(Tool::new("grep", ["-qx", UNLESS_STOPPED]).and([who.unit_path()]));
    Step::If(Condition::Quietly(is), vec![run(stays)], other.map(|verb| run(&[verb])).into_iter().collect())
}

/// One that was killed, or left with what is no success, has failed in systemd's eyes, and would make the whole system `degraded`; if it has
/// not, systemctl says so, and that is an answer.
fn not_failed(who: &Who) -> Step {
    let reset = Job::run(Tool::new("systemctl", ["reset-failed"]).and([who.unit()]));
    Step::If(Condition::Quietly(reset), vec![], vec![])
}

pub(crate) fn stop(containers: Vec<OsString>, how: &Stopping) -> Vec<Step> {
    let one = |name| {
        let who = Who::of(name);
        // Else it would be started again. What is stopped already is no error.
        let end = vec![systemctl(&["disable", "--quiet", "--now"], Some("stop"), &who), not_failed(&who)];
        let unit = Step::If(has_unit(&who), end, vec![]);
        // Whoever asks for its ports next is to get them: what takes it down has done so, or it is done here. One with --rm may be gone.
        let path = Tool::new(STORE, ["path", "--stopped"]).and([HOLDER, "--".into()]).and([who.id.clone()]);
        // Most often nothing is left, for whoever watched it has seen to that.
        let down = Step::run(Tool::new(NET, ["down"]).and([who.id.clone()]));
        let places = ["/run/netns/netns_", "/run/bocker-net/"].map(|place| vec![place.into(), who.id.clone()]);
        let down = Step::If(Condition::There(places.into()), vec![down], vec![]);
        let down = Step::If(Condition::Quietly(Job::capture("dir", path)), vec![down], vec![]);
        let mut steps = who.and_path();
        steps.extend([unit, Step::run(exec_stop(how)), down, who.say()]);
        steps
    };
    containers.into_iter().flat_map(one).collect()
}

pub(crate) fn restart(containers: Vec<OsString>, how: &Stopping) -> Vec<Step> {
    let one = |name| {
        let who = Who::of(name);
        let mut own = vec![Step::run(exec_stop(how))];
        own.extend(begin(&who, None));
        let mut steps = who.and_path();
        let restart = Step::run(Tool::new("systemctl", ["restart"]).and([who.unit()]));
        // It may have been stopped.
        let enable = systemctl(&["enable", "--quiet"], None, &who);
        steps.extend([Step::If(has_unit(&who), vec![restart, enable], own), who.say()]);
        steps
    };
    containers.into_iter().flat_map(one).collect()
}

pub(crate) fn kill(containers: Vec<OsString>, signal: &OsStr) -> Vec<Step> {
    let one = |name| {
        let who = Who::of(name);
        let path = Tool::new(STORE, ["path", "--running", "--"]).and([who.name.clone()]);
        let kill = Tool::new(EXEC, ["--kill".into(), file("/status"), "--signal".into(), signal.to_owned().into()]);
        [Step::capture("dir", vec![path]), Step::run(kill), who.say()]
    };
    containers.into_iter().flat_map(one).collect()
}

pub(crate) fn wait(containers: Vec<OsString>) -> Vec<Step> {
    let one = |name: OsString| {
        let path = Tool::new(STORE, ["path", "--"]).and([name]);
        [Step::capture("dir", vec![path]), Step::run(Tool::new(EXEC, ["--wait".into(), file("/status")]))]
    };
    containers.into_iter().flat_map(one).collect()
}

pub(crate) fn attach(name: OsString, keys: Option<OsString>, no_stdin: bool, sig_proxy: bool) -> Vec<Step> {
    let attach = Tool::new(EXEC, ["--attach".into(), file("/status")])
        .and(typed("detach-keys", keys))
        .and(no_stdin.then_some("--no-stdin"))
        .and((!sig_proxy).then_some("--no-sig-proxy"));
    let path = Tool::new(STORE, ["path", "--running", "--"]).and([name]);
    vec![Step::capture("dir", vec![path]), Step::Hand(attach)]
}

/// `freeze` or `thaw`.
pub(crate) fn freeze(containers: Vec<OsString>, verb: &str) -> Vec<Step> {
    let one = |name| {
        let who = Who::of(name);
        let mut steps = who.resolve();
        steps.extend([Step::run(Tool::new(CG, [verb]).and([who.id.clone()])), who.say()]);
        steps
    };
    containers.into_iter().flat_map(one).collect()
}

pub(crate) fn rename(container: OsString, name: OsString) -> Vec<Step> {
    vec![Step::run(Tool::new(STORE, ["rename", "--"]).and([container, name]))]
}

pub(crate) fn exec(container: OsString, words: Vec<OsString>, flags: ExecFlags) -> Result<Vec<Step>, Failure> {
    let who = Who::of(container);
    let on = |switch: Option<bool>| switch == Some(true);
    let dir = std::env::current_dir().unwrap_or_default();
    let caller = Caller { env: &|name: &OsStr| std::env::var_os(name), dir: &dir };
    let env = values::pairs(&flags.env_file, flags.env, "--env-file", Some(caller))?;
    let detach = on(flags.detach);
    // A terminal is put back by whoever is left; without one nobody has to stay beside it.
    let stays = on(flags.tty) && !detach;
    let mut payload = Tool::new(EXEC, detach.then_some("--detach"))
        .and(stays.then_some(PARENT))
        .and(["--join".into(), file("/status"), "--config".into(), file("/config")])
        .and(["--words".into(), file("/words")])
        .and((!env.is_empty()).then_some("--env-fd=3"))
        .and(typed("user", flags.user))
        .and(typed("workdir", flags.workdir));
    for (name, switch) in [("--privileged", flags.privileged), ("--tty", flags.tty)] {
        payload = payload.and(on(switch).then_some(name));
    }
    payload = payload.and(["--"]).and(words).told(3, env);
    // One question for the name: the path has the id.
    let path = Tool::new(STORE, ["path", "--running", "--"]).and([who.name]);
    let id = if who.known { who.id } else { Word::Last("dir") };
    let keep = payload.told.is_some().then_some("--keep-fd=3");
    let chain =
        Tool::new(CG, ["exec"]).and(keep).and([id]).then(payload).stdin(!detach && flags.interactive != Some(false));
    Ok(vec![Step::capture("dir", vec![path]), if stays { Step::Hand(chain) } else { Step::Become(chain) }])
}

pub(crate) fn ps(wanted: Ps) -> Vec<Step> {
    let mut ps = Tool::new(STORE, ["ps"]);
    let flags = [
        ("--all", wanted.all),
        ("--quiet", wanted.quiet),
        ("--latest", wanted.latest),
        ("--no-trunc", wanted.no_trunc),
        ("--json", wanted.json),
    ];
    ps = ps.and(flags.into_iter().filter(|(_, on)| *on).map(|(flag, _)| flag));
    ps = ps.and(typed("last", wanted.last)).and(typed("format", wanted.format));
    vec![Step::run(ps.and(wanted.filter.into_iter().filter_map(|filter| typed("filter", Some(filter)))))]
}

pub(crate) fn logs(
    container: OsString,
    follow: bool,
    timestamps: bool,
    others: [(&str, Option<OsString>); 3],
) -> Vec<Step> {
    let logs = Tool::new(STORE, ["logs"])
        .and(follow.then_some("--follow"))
        .and(timestamps.then_some("--timestamps"))
        .and(others.into_iter().filter_map(|(name, value)| typed(name, value)));
    vec![Step::run(logs.and(["--"]).and([container]))]
}

pub(crate) fn top(container: OsString, json: bool) -> Vec<Step> {
    let who = Who::of(container);
    let mut steps = who.resolve();
    steps.push(Step::run(Tool::new(CG, ["top"]).and(json.then_some("--json")).and([who.id])));
    steps
}

/// All in one table.
pub(crate) fn stats(containers: Vec<OsString>, json: bool, once: bool) -> Vec<Step> {
    let mut stats = Tool::new(CG, ["stats"]).and((!once).then_some("--stream")).and(json.then_some("--json"));
    let mut steps = Vec::new();
    for (at, name) in containers.into_iter().enumerate() {
        let Who { name, id, known } = Who::of(name);
        if known {
            stats = stats.and([id]);
            continue;
        }
        // A variable for each; there are as many of them as words on the command line.
        let var: Var = if at == 0 { "id" } else { Box::leak(format!("id{at}").into_boxed_str()) };
        steps.push(Step::capture(var, vec![Tool::new(STORE, ["id", "--container", "--"]).and([name])]));
        stats = stats.and([Word::Var(var)]);
    }
    steps.push(Step::run(stats));
    steps
}

/// One that runs has them at once; all have them from their next start on.
pub(crate) fn update(containers: Vec<OsString>, limits: &Limits) -> Result<Vec<Step>, Failure> {
    let limits = limits.words(None)?;
    if limits.is_empty() {
        return Err(Failure::usage("update: which limit? as --memory 512m"));
    }
    let one = |name| {
        let who = Who::of(name);
        let mut steps = who.resolve();
        let running = Job::capture("dir", Tool::new(STORE, ["path", "--running", "--"]).and([who.id.clone()]));
        let set = Step::run(Tool::new(CG, ["set"]).and([who.id.clone()]).and(limits.clone()));
        steps.push(Step::If(Condition::Quietly(running), vec![set], vec![]));
        let remember = Tool::new(STORE, ["limits", "--"]).and([who.id.clone()]).and(limits.clone());
        steps.extend([Step::run(remember), who.say()]);
        steps
    };
    Ok(containers.into_iter().flat_map(one).collect())
}

/// Containers and images, by id or name. What has a colon or a slash, and what looks like an image's id, is no container.
pub(crate) fn rm(word: OsString, force: bool, volumes: bool) -> Vec<Step> {
    let image = || {
        let rm = Tool::new(STORE, ["rm"]).and(force.then_some("--force")).and(["--"]).and([word.clone()]);
        vec![Step::run(rm), Step::Say(vec!["Removed:".into(), word.clone().into()])]
    };
    if crate::commands::is_id(&word, "img_") || word.to_string_lossy().contains([':', '/', '@']) {
        return image();
    }
    let who = Who::of(word.clone());
    match who.job() {
        None => rm_container(&who, force, volumes),
        Some(job) => {
            vec![Step::If(Condition::Quietly(job), rm_container(&who, force, volumes), image())]
        }
    }
}

fn rm_container(who: &Who, force: bool, volumes: bool) -> Vec<Step> {
    let id = || [who.id.clone()];
    let mut steps = Vec::new();
    // systemd would start it again, or look for it at each boot.
    let now = force.then_some("--now");
    let forget = vec![
        Step::run(Tool::new("systemctl", ["disable", "--quiet", "--no-reload"]).and(now).and([who.unit()])),
        Step::run(Tool::new("rm", ["-f"]).and([who.unit_path()])),
        Step::run(Tool::new("systemctl", ["daemon-reload"])),
        not_failed(who),
    ];
    let unit = Step::If(has_unit(who), forget, vec![]);
    let hold = || vec![Tool::new(STORE, ["path", "--stopped"]).and([HOLDER, "--".into()]).and(id())];
    let held = Step::capture("dir", hold());
    if force {
        // What is frozen takes no signal on cgroup v1; who has no cgroup does not run.
        let thaw = Job::run(Tool::new(CG, ["thaw"]).and(id()));
        let kill = Stopping { signal: Some("KILL".into()), time: None };
        let path = Step::capture("dir", vec![Tool::new(STORE, ["path", "--"]).and(id())]);
        steps.push(Step::If(Condition::Quietly(thaw), vec![path, Step::run(exec_stop(&kill))], vec![]));
        steps.push(unit);
    } else {
        steps.extend([held.clone(), unit]);
    }
    // Gone already, unless a crash left them; processes, too, where bocker-exec was killed by force. Before the container: whoever is
    // interrupted here can ask again.
    let take_down = Step::Do(vec![
        Job::run(Tool::new(CG, ["delete", "--kill"]).and(id())),
        Job::run(Tool::new(NET, ["down"]).and(id())),
    ]);
    let rm = Tool::new(STORE, ["rm"]).and([HOLDER]).and(volumes.then_some("--volumes")).and(["--"]).and(id());
    let removal = vec![take_down, Step::run(rm)];
    if force {
        // One of --rm is gone by now, or about to go, by its own supervisor.
        let there = Job::capture("dir", Tool::new(STORE, ["path", "--"]).and(id()));
        let why = vec![held, Step::Fail("rm: it was in use a moment ago; ask again".to_owned())];
        let gone = Step::If(Condition::Quietly(there), why, vec![]);
        let held = Job { var: Some("dir"), pipe: hold() };
        steps.push(Step::If(Condition::Quietly(held), removal, vec![gone]));
    } else {
        steps.extend(removal);
    }
    steps.push(Step::Say(vec!["Removed:".into(), who.name.clone().into()]));
    steps
}
