//! The flags of `docker run` and `docker create`, and what each of them is told to which tool.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use clap::Args;

use crate::Failure;
use crate::net;
use crate::plan::Word;
use crate::values::{self, Caller, truth};

/// Flags of `run` and `create`. Of those that are no list the last one counts.
#[derive(Debug, Clone, Default, Args)]
pub struct Flags {
    /// Its name, good wherever an id is
    #[arg(long, allow_hyphen_values = true)]
    pub name: Option<OsString>,
    /// In the foreground the command has our stdin, unless this is false; in the background, stdin is kept for `attach`
    #[arg(long, short, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = truth, value_name = "BOOL")]
    pub interactive: Option<bool>,
    /// Give it a terminal
    #[arg(long, short, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = truth, value_name = "BOOL")]
    pub tty: Option<bool>,
    /// Remove it when it has ended
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = truth, value_name = "BOOL")]
    pub rm: Option<bool>,
    /// Environment; without a value: the caller's
    #[arg(long, short, value_name = "NAME[=VALUE]", allow_hyphen_values = true)]
    pub env: Vec<OsString>,
    /// Environment of this file first, one NAME[=VALUE] a line
    #[arg(long, value_name = "FILE", allow_hyphen_values = true)]
    pub env_file: Vec<OsString>,
    /// A volume of the store, or a directory of the host's
    #[arg(long, short, value_name = "[NAME|DIR:]DST[:OPTS]", allow_hyphen_values = true)]
    pub volume: Vec<OsString>,
    /// type=volume|bind|tmpfs,source=…,target=…,readonly,…
    #[arg(long, allow_hyphen_values = true)]
    pub mount: Vec<OsString>,
    /// A file system in memory
    #[arg(long, value_name = "DST[:OPTS]", allow_hyphen_values = true)]
    pub tmpfs: Vec<OsString>,
    /// What another container has mounted
    #[arg(long, value_name = "CONTAINER[:ro|rw]", allow_hyphen_values = true)]
    pub volumes_from: Vec<OsString>,
    /// Its working directory
    #[arg(long, short, value_name = "DIR", allow_hyphen_values = true)]
    pub workdir: Option<OsString>,
    /// Its user
    #[arg(long, short, value_name = "USER[:GROUP]", allow_hyphen_values = true)]
    pub user: Option<OsString>,
    /// Its host name [default: its id]
    #[arg(long, short = 'h', value_name = "NAME", allow_hyphen_values = true)]
    pub hostname: Option<OsString>,
    /// In place of the image's ENTRYPOINT
    #[arg(long, value_name = "PROGRAM", allow_hyphen_values = true)]
    pub entrypoint: Option<OsString>,
    /// The root file system cannot be written to
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = truth, value_name = "BOOL")]
    pub read_only: Option<bool>,
    /// A reaper as process 1
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = truth, value_name = "BOOL")]
    pub init: Option<bool>,
    /// No walls but the namespaces; implies --userns=host and all devices
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = truth, value_name = "BOOL")]
    pub privileged: Option<bool>,
    /// A device of the host's
    #[arg(long, value_name = "HOST[:INSIDE[:rwm]]", allow_hyphen_values = true)]
    pub device: Vec<OsString>,
    /// A capability more
    #[arg(long, value_name = "CAP", allow_hyphen_values = true)]
    pub cap_add: Vec<OsString>,
    /// A capability less
    #[arg(long, value_name = "CAP", allow_hyphen_values = true)]
    pub cap_drop: Vec<OsString>,
    /// A resource limit
    #[arg(long, value_name = "NAME=SOFT[:HARD]", allow_hyphen_values = true)]
    pub ulimit: Vec<OsString>,
    /// seccomp=unconfined|FILE, no-new-privileges
    #[arg(long, value_name = "OPTION", allow_hyphen_values = true)]
    pub security_opt: Vec<OsString>,
    /// host: without users of its own
    #[arg(long, value_name = "host|private", allow_hyphen_values = true)]
    pub userns: Option<String>,
    /// Whether it sees its own cgroup as the root
    #[arg(long, value_name = "host|private", allow_hyphen_values = true)]
    pub cgroupns: Option<String>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub limits: Limits,
    /// -1000 to 1000: how soon it is killed when memory runs out
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub oom_score_adj: Option<OsString>,
    /// A label
    #[arg(long, short, value_name = "KEY[=VALUE]", allow_hyphen_values = true)]
    pub label: Vec<OsString>,
    /// Labels of this file first
    #[arg(long, value_name = "FILE", allow_hyphen_values = true)]
    pub label_file: Vec<OsString>,
    /// What `stop` sends [default: the image's, else TERM]
    #[arg(long, value_name = "SIGNAL", allow_hyphen_values = true)]
    pub stop_signal: Option<OsString>,
    /// How long `stop` waits before it kills [default: 10]
    #[arg(long, value_name = "SECONDS", allow_hyphen_values = true)]
    pub stop_timeout: Option<i64>,
    /// Write the id into this new file
    #[arg(long, value_name = "FILE", allow_hyphen_values = true)]
    pub cidfile: Option<OsString>,
    /// Whether to pull the image: always, missing (the default), never
    #[arg(long, value_name = "WHEN", allow_hyphen_values = true)]
    pub pull: Option<String>,
    /// no, always, unless-stopped, on-failure or on-failure:N, as a systemd unit
    #[arg(long, value_name = "POLICY", allow_hyphen_values = true)]
    pub restart: Option<String>,
    /// For `attach`, which takes it too: in the foreground a container ends with its bocker
    #[arg(long, value_name = "KEYS", allow_hyphen_values = true)]
    pub detach_keys: Option<OsString>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub network: net::NetworkFlags,
}

/// Limits, as docker has them.
#[derive(Debug, Clone, Default, Args)]
pub struct Limits {
    /// Memory, as 512m
    #[arg(long, short, value_name = "SIZE", allow_hyphen_values = true)]
    pub memory: Option<String>,
    /// Memory and swap together; -1: no limit
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    pub memory_swap: Option<String>,
    /// What it keeps when memory is short
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    pub memory_reservation: Option<String>,
    /// Processors' time, as 1.5
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub cpus: Option<String>,
    /// Weight when processors are busy
    #[arg(long, short = 'c', value_name = "N", allow_hyphen_values = true)]
    pub cpu_shares: Option<u64>,
    /// Only these processors, as 0-2,5
    #[arg(long, value_name = "LIST", allow_hyphen_values = true)]
    pub cpuset_cpus: Option<String>,
    /// Only these memory nodes, as 0-1
    #[arg(long, value_name = "LIST", allow_hyphen_values = true)]
    pub cpuset_mems: Option<String>,
    /// Processors' time of each period, in microseconds; -1: no limit
    #[arg(long, value_name = "MICROSECONDS", allow_hyphen_values = true)]
    pub cpu_quota: Option<i64>,
    /// The period, in microseconds
    #[arg(long, value_name = "MICROSECONDS", allow_hyphen_values = true)]
    pub cpu_period: Option<u64>,
    /// Processes and threads; -1: no limit
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub pids_limit: Option<i64>,
    /// Weight when a disk is busy, 10 to 1000
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub blkio_weight: Option<u64>,
    /// Bytes that it may read of a disk in a second, as /dev/sda:1m
    #[arg(long, value_name = "DISK:SIZE", allow_hyphen_values = true)]
    pub device_read_bps: Vec<String>,
    /// Bytes that it may write to a disk in a second
    #[arg(long, value_name = "DISK:SIZE", allow_hyphen_values = true)]
    pub device_write_bps: Vec<String>,
    /// How often it may read of a disk in a second
    #[arg(long, value_name = "DISK:N", allow_hyphen_values = true)]
    pub device_read_iops: Vec<String>,
    /// How often it may write to a disk in a second
    #[arg(long, value_name = "DISK:N", allow_hyphen_values = true)]
    pub device_write_iops: Vec<String>,
    /// 0 to 100: how readily it swaps (cgroup version 1)
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub memory_swappiness: Option<i64>,
    /// Who lacks memory waits and is not killed (cgroup version 1)
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = truth, value_name = "BOOL")]
    pub oom_kill_disable: Option<bool>,
}

/// When an image is pulled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pull {
    /// Each time.
    Always,
    /// When no image has the name.
    Missing,
    /// Never.
    Never,
}

/// What makes a container start again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Restart {
    /// Whatever it ended with.
    Always,
    /// The same, but once it was told to stop it stays so when the machine starts.
    UnlessStopped,
    /// Another status than 0; so often at most.
    OnFailure(Option<u32>),
}

/// The flags, as words of the tools.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// For `bocker-store snapshot`: name, limits, volumes, words.
    pub remembered: Vec<Word>,
    /// More of them, that others have no business to read: labels, and the environment.
    pub told: Vec<OsString>,
    /// For bocker-net.
    pub network: net::Wanted,
    /// For `bocker-cg create`.
    pub limits: Vec<String>,
    /// It has no users of its own.
    pub host_users: bool,
    /// It gets our stdin: in a pipe as any other command.
    pub interactive: bool,
    /// It goes when it has ended.
    pub rm: bool,
    /// In place of the image's.
    pub entrypoint: Option<OsString>,
    /// Where its id is written.
    pub cidfile: Option<OsString>,
    /// When to pull.
    pub pull: Pull,
    /// When to start again.
    pub restart: Option<Restart>,
}

/// `--name=value` as one word.
pub fn option(name: &str, value: impl AsRef<OsStr>) -> OsString {
    let mut word = OsString::from(format!("--{name}="));
    word.push(value);
    word
}

impl Flags {
    /// What they mean; `shares` and `memory` (bytes) are the limits of those that have none.
    ///
    /// # Errors
    /// One line with status 2: a value that makes no sense, a file that cannot be read, flags that cannot be together.
    pub fn meaning(self, shares: u64, memory: u64, caller: Caller) -> Result<Wanted, Failure> {
        let privileged = self.privileged == Some(true);
        let host_users = match self.userns.as_deref() {
            None => privileged,
            Some("host") => true,
            Some("private" | "auto") if !privileged => false,
            Some(other) => return Err(bad("--userns", other, "host or private; with --privileged host")),
        };
        let rm = self.rm == Some(true);
        let restart = self.restart.as_deref().map(restart).transpose()?.flatten();
        if rm && restart.is_some() {
            return Err(Failure::usage("--restart and --rm: what is removed cannot start again"));
        }
        let network = self.network.meaning(self.name.as_deref(), self.hostname.is_some())?;
        let mut all = Remembered::default();
        all.own("name", self.name);
        let labels = values::pairs(&self.label_file, self.label, "--label-file", None)?;
        let env = values::pairs(&self.env_file, self.env, "--env-file", Some(caller))?;
        let env = env.into_iter().map(|pair| option("word", option("env", pair)));
        let told = labels.into_iter().map(|label| option("label", label)).chain(env).collect();
        for (name, value) in [
            ("user", self.user),
            ("workdir", self.workdir),
            ("hostname", self.hostname),
            ("stop-signal", self.stop_signal),
            ("stop-timeout", self.stop_timeout.map(|n| n.to_string().into())),
            ("oom-score-adj", self.oom_score_adj),
            ("cgroupns", self.cgroupns.map(|word| cgroupns(&word)).transpose()?),
            ("userns", host_users.then(|| "host".into())),
        ] {
            value.into_iter().for_each(|value| all.word(name, value));
        }
        let switches = [
            ("tty", self.tty),
            ("interactive", self.interactive),
            ("init", self.init),
            ("read-only", self.read_only),
            ("privileged", self.privileged),
        ];
        switches.iter().filter(|(_, on)| *on == Some(true)).for_each(|(name, _)| all.flag(name));
        for (name, values) in [("cap-add", self.cap_add), ("cap-drop", self.cap_drop), ("ulimit", self.ulimit)] {
            values.into_iter().for_each(|value| all.word(name, value));
        }
        for option in &self.security_opt {
            all.security(option, caller)?;
        }
        for volume in &self.volume {
            match values::volume(volume, caller)? {
                values::Mount::Volume(volume) => all.own("volume", Some(volume)),
                values::Mount::Other(bind) => all.word("volume", bind),
            }
        }
        for mount in &self.mount {
            match values::mount(mount, caller)? {
                values::Mount::Volume(volume) => all.own("volume", Some(volume)),
                values::Mount::Other(mount) => all.word("mount", mount),
            }
        }
        self.tmpfs.into_iter().for_each(|tmpfs| all.word("tmpfs", tmpfs));
        self.volumes_from.into_iter().for_each(|from| all.own("volumes-from", Some(from)));
        let mut limits = self.limits.words(Some((shares, memory)))?;
        if privileged {
            limits.push("devices=all".to_owned());
        }
        for device in &self.device {
            let (word, limit) = values::device(device)?;
            all.word("device", word);
            limits.push(limit);
        }
        limits.iter().for_each(|limit| all.own("limit", Some(limit.into())));
        let joined = |before: &str, word: &Word| Word::Joined(vec![before.into(), word.clone()]);
        all.0.extend(network.options.iter().map(|word| joined("--word=", word)));
        all.0.extend(network.words.iter().map(|word| joined("--net=", word)));
        if rm {
            all.0.push("--auto-remove".into());
        }
        let pull = match self.pull.as_deref() {
            None | Some("missing") => Pull::Missing,
            Some("always") => Pull::Always,
            Some("never") => Pull::Never,
            Some(other) => return Err(bad("--pull", other, "always, missing or never")),
        };
        Ok(Wanted {
            remembered: all.0,
            told,
            network,
            limits,
            host_users,
            interactive: self.interactive != Some(false),
            rm,
            entrypoint: self.entrypoint,
            cidfile: self.cidfile,
            pull,
            restart,
        })
    }
}

impl Limits {
    /// For bocker-cg; with those of who says nothing (shares, bytes), or only what was said.
    ///
    /// # Errors
    /// A size that is none.
    pub fn words(&self, defaults: Option<(u64, u64)>) -> Result<Vec<String>, Failure> {
        let size = |flag: &str, text: &Option<String>| {
            let text = text.as_deref().filter(|text| *text != "0");
            text.map(|text| match text {
                "-1" => Ok("max".to_owned()),
                text => values::size(text).map(|n| n.to_string()).ok_or_else(|| bad(flag, text, "a size, as 512m")),
            })
            .transpose()
        };
        let shares = self.cpu_shares.filter(|n| *n != 0).or(defaults.map(|(shares, _)| shares));
        let memory = match &self.memory {
            // docker's word for no limit.
            Some(text) if text == "0" => Some("max".to_owned()),
            Some(_) => size("--memory", &self.memory)?,
            None => defaults.map(|(_, memory)| memory.to_string()),
        };
        let pids = self.pids_limit.map(|n| if n <= 0 { "max".to_owned() } else { n.to_string() });
        let cpus = self.cpus.clone().filter(|n| n != "0");
        let quota = self.cpu_quota.filter(|n| *n != 0).map(|n| if n < 0 { "max".to_owned() } else { n.to_string() });
        let period = self.cpu_period.filter(|n| *n != 0);
        if cpus.is_some() && (quota.is_some() || period.is_some()) {
            return Err(Failure::usage("--cpus: with --cpu-quota or --cpu-period it would be said twice"));
        }
        let all = [
            ("cpu.shares", shares.map(|n| n.to_string())),
            ("memory", memory),
            ("memory-swap", size("--memory-swap", &self.memory_swap)?),
            ("memory-reservation", size("--memory-reservation", &self.memory_reservation)?),
            ("cpus", cpus),
            ("cpu-quota", quota),
            ("cpu-period", period.map(|n| n.to_string())),
            ("cpuset.cpus", self.cpuset_cpus.clone()),
            ("cpuset.mems", self.cpuset_mems.clone()),
            ("pids", pids),
            ("blkio-weight", self.blkio_weight.filter(|n| *n != 0).map(|n| n.to_string())),
            ("memory-swappiness", self.memory_swappiness.filter(|n| *n != -1).map(|n| n.to_string())),
            ("oom-kill-disable", self.oom_kill_disable.filter(|on| *on).map(|on| on.to_string())),
        ];
        let mut words: Vec<_> = all.into_iter().filter_map(|(key, value)| Some(format!("{key}={}", value?))).collect();
        let rates = [
            ("device-read-bps", &self.device_read_bps),
            ("device-write-bps", &self.device_write_bps),
            ("device-read-iops", &self.device_read_iops),
            ("device-write-iops", &self.device_write_iops),
        ];
        for (key, values) in rates {
            for text in values {
                let wrong = || bad(&format!("--{key}"), text, "DISK:NUMBER, as /dev/sda:1m");
                let (disk, number) = text.rsplit_once(':').ok_or_else(wrong)?;
                let number = if key.ends_with("bps") { values::size(number) } else { number.parse().ok() };
                words.push(format!("{key}={disk}:{}", number.ok_or_else(wrong)?));
            }
        }
        Ok(words)
    }
}

/// Words of `bocker-store snapshot`.
#[derive(Default)]
struct Remembered(Vec<Word>);

impl Remembered {
    /// An option of its own.
    fn own(&mut self, name: &str, value: Option<OsString>) {
        self.0.extend(value.map(|value| option(name, value).into()));
    }

    /// One that it keeps for bocker-exec.
    fn word(&mut self, name: &str, value: impl AsRef<OsStr>) {
        self.own("word", Some(option(name, value)));
    }

    fn flag(&mut self, name: &str) {
        self.own("word", Some(format!("--{name}").into()));
    }

    /// `--security-opt`: `seccomp=…`, `no-new-privileges`, and what docker's scripts switch off that is not on here.
    fn security(&mut self, option: &OsStr, caller: Caller) -> Result<(), Failure> {
        let bytes = option.as_bytes();
        let at = bytes.iter().position(|b| matches!(b, b'=' | b':')).unwrap_or(bytes.len());
        let (key, value) = (&bytes[..at], bytes.get(at + 1..).unwrap_or_default());
        match (key, value) {
            (b"no-new-privileges", b"" | b"true") => self.flag("no-new-privileges"),
            (b"no-new-privileges", b"false") | (b"apparmor", b"unconfined") | (b"label", b"disable") => {}
            (b"seccomp", b"default" | b"unconfined") => self.word("seccomp", OsStr::from_bytes(value)),
            // Docker's client reads the file; a start in another directory finds it by its absolute path.
            (b"seccomp", file) if !file.is_empty() => {
                self.word("seccomp", values::absolute(&OsString::from_vec(file.to_vec()), caller));
            }
            _ => return Err(bad("--security-opt", option, "seccomp=unconfined, seccomp=FILE or no-new-privileges")),
        }
        Ok(())
    }
}

fn cgroupns(word: &str) -> Result<OsString, Failure> {
    match word {
        "host" | "private" => Ok(word.into()),
        other => Err(bad("--cgroupns", other, "host or private")),
    }
}

fn restart(policy: &str) -> Result<Option<Restart>, Failure> {
    let wrong = || bad("--restart", policy, "no, always, unless-stopped or on-failure[:N]");
    Ok(match policy.split_once(':') {
        None if matches!(policy, "" | "no") => None,
        None if policy == "always" => Some(Restart::Always),
        None if policy == "unless-stopped" => Some(Restart::UnlessStopped),
        None if policy == "on-failure" => Some(Restart::OnFailure(None)),
        Some(("on-failure", n)) => Some(Restart::OnFailure(Some(n.parse().map_err(|_| wrong())?).filter(|n| *n > 0))),
        _ => return Err(wrong()),
    })
}

/// `--userns 'x': host or private`
pub(crate) fn bad(flag: &str, value: impl AsRef<OsStr>, way_out: &str) -> Failure {
    Failure::usage(format!("{flag} '{}': {way_out}", value.as_ref().to_string_lossy()))
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use proptest::prelude::*;

    use super::*;
    use crate::cli::{Cli, Command};

    type Read = (Vec<(char, String)>, Vec<String>);

    /// What pflag, docker's parser, makes of words: name and value of each flag in their order, and what is left.
    /// <https://pkg.go.dev/github.com/spf13/pflag>, with SetInterspersed(false).
    fn pflag(words: &[String]) -> Option<Read> {
        const LONG: [(&str, char); 6] =
            [("env", 'e'), ("label", 'l'), ("tty", 't'), ("interactive", 'i'), ("detach", 'd'), ("rm", 'R')];
        let is_switch = |flag: char| "tidR".contains(flag);
        let (mut flags, mut at) = (Vec::new(), 0);
        while let Some(word) = words.get(at) {
            at += 1;
            if word == "--" {
                break;
            }
            if let Some(long) = word.strip_prefix("--") {
                let (name, value) = long.split_once('=').map_or((long, None), |(name, value)| (name, Some(value)));
                let (_, flag) = *LONG.iter().find(|(known, _)| *known == name)?;
                let value = match value {
                    Some(value) => value.to_owned(),
                    None if is_switch(flag) => "true".to_owned(),
                    None => {
                        at += 1;
                        words.get(at - 1)?.clone()
                    }
                };
                flags.push((flag, value));
            } else if word.len() > 1 && word.starts_with('-') {
                let mut rest = &word[1..];
                while let Some(flag) = rest.chars().next() {
                    rest = &rest[flag.len_utf8()..];
                    if !"eltid".contains(flag) {
                        return None;
                    }
                    let value = if let Some(value) = rest.strip_prefix('=').filter(|_| rest.len() > 1) {
                        rest = "";
                        value.to_owned()
                    } else if is_switch(flag) {
                        "true".to_owned()
                    } else if rest.is_empty() {
                        at += 1;
                        words.get(at - 1)?.clone()
                    } else {
                        std::mem::take(&mut rest).to_owned()
                    };
                    flags.push((flag, value));
                }
            } else {
                at -= 1;
                break;
            }
        }
        Some((flags, words.get(at..).unwrap_or_default().to_vec())).filter(|(flags, words)| {
            !words.is_empty() && flags.iter().all(|(flag, value)| !is_switch(*flag) || truth(value).is_ok())
        })
    }

    fn word() -> impl Strategy<Value = String> {
        prop_oneof![
            3 => "-[tide]{1,3}(=?(A=1|true|0|f|-x))?",
            2 => "--(env|label|tty|interactive|detach|rm)(=(A=1|true|false|))?",
            2 => Just("A=1".to_owned()),
            1 => Just("-l".to_owned()),
            1 => Just("-e".to_owned()),
            1 => Just("--".to_owned()),
            1 => Just("img".to_owned()),
            1 => Just("-x".to_owned()),
        ]
    }

    proptest! {
        /// Clusters, `=`, `--`, values that look like flags, the first word that is none: as docker reads them.
        #[test]
        fn flags_are_read_as_docker_reads_them(words in prop::collection::vec(word(), 0..7)) {
            let ours = Cli::try_parse_from(["bocker", "run"].into_iter().map(str::to_owned).chain(words.iter().cloned()));
            let theirs = pflag(&words);
            prop_assert_eq!(ours.is_ok(), theirs.is_some(), "{:?}", ours.err().map(|e| e.to_string()));
            if let (Ok(Cli { command: Some(Command::Run { detach, flags, words, .. }), .. }), Some((known, rest))) = (ours, theirs) {
                let flags = flags.0;
                let list = |name| known.iter().filter(|(flag, _)| *flag == name).map(|(_, value)| value.into()).collect::<Vec<OsString>>();
                let switch = |name| known.iter().rev().find(|(flag, _)| *flag == name).and_then(|(_, value)| truth(value).ok());
                prop_assert_eq!(flags.env, list('e'));
                prop_assert_eq!(flags.label, list('l'));
                prop_assert_eq!(detach, switch('d'));
                prop_assert_eq!((flags.tty, flags.interactive, flags.rm), (switch('t'), switch('i'), switch('R')));
                prop_assert_eq!(words, rest.into_iter().map(OsString::from).collect::<Vec<_>>());
            }
        }
    }
}
