//! The flags of `docker run` about the network, and `bocker network` and `port`. What ports, addresses and networks look like is
//! bocker-net's to know; here only which word goes to which tool, and what cannot be together.

use std::ffi::{OsStr, OsString};
use std::net::IpAddr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use clap::{Args, Subcommand};

use crate::Failure;
use crate::commands::{NET, STORE};
use crate::flags::{bad, option};
use crate::life::Who;
use crate::plan::{Condition, Job, Step, Tool, Var, Word};
use crate::values::truth;

/// Flags of `run` and `create`.
#[derive(Debug, Clone, Default, Args)]
pub struct NetworkFlags {
    /// A port of the host's that leads to one of the container's; also ranges, as 8000-8010:80-90
    #[arg(long, short = 'p', value_name = "[[IP:][HOST]:]PORT[/udp]", allow_hyphen_values = true)]
    pub publish: Vec<OsString>,
    /// A free port of the host's for each that the image or --expose names
    #[arg(long, short = 'P', num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = truth, value_name = "BOOL")]
    pub publish_all: Option<bool>,
    /// A port that it serves, for -P
    #[arg(long, value_name = "PORT[/udp]", allow_hyphen_values = true)]
    pub expose: Vec<OsString>,
    /// bridge (the default), none, host, container:CONTAINER, ns:PATH, or one made by `network create`; several of those
    #[arg(long, alias = "net", value_name = "NETWORK", allow_hyphen_values = true)]
    pub network: Vec<OsString>,
    /// One more name on its network
    #[arg(long, alias = "net-alias", value_name = "NAME", allow_hyphen_values = true)]
    pub network_alias: Vec<OsString>,
    /// Its address
    #[arg(long, value_name = "ADDRESS", allow_hyphen_values = true)]
    pub ip: Option<OsString>,
    /// Its IPv6 address
    #[arg(long, value_name = "ADDRESS", allow_hyphen_values = true)]
    pub ip6: Option<OsString>,
    /// Its MAC address
    #[arg(long, value_name = "ADDRESS", allow_hyphen_values = true)]
    pub mac_address: Option<OsString>,
    /// Another container by this name, in /etc/hosts
    #[arg(long, value_name = "CONTAINER[:ALIAS]", allow_hyphen_values = true)]
    pub link: Vec<OsString>,
    /// A line in /etc/hosts; host-gateway: the host
    #[arg(long, value_name = "NAME:IP", allow_hyphen_values = true)]
    pub add_host: Vec<OsString>,
    /// A name server [default: 8.8.8.8]
    #[arg(long, value_name = "IP", allow_hyphen_values = true)]
    pub dns: Vec<OsString>,
    /// Where short names are looked for
    #[arg(long, value_name = "DOMAIN", allow_hyphen_values = true)]
    pub dns_search: Vec<OsString>,
    /// An option of resolv.conf
    #[arg(long, alias = "dns-opt", value_name = "OPTION", allow_hyphen_values = true)]
    pub dns_option: Vec<OsString>,
}

/// The flags, as words of the tools.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// What is asked first: ids and addresses of other containers.
    pub asked: Vec<Step>,
    /// For bocker-net, as `KEY=VALUE`.
    pub words: Vec<Word>,
    /// For bocker-exec, as options.
    pub options: Vec<Word>,
    /// -P: bocker-net reads the image's configuration.
    pub publish_all: bool,
}

/// `before` and what the variable holds.
fn with(before: impl Into<Word>, var: Var) -> Word {
    Word::Joined(vec![before.into(), Word::Var(var)])
}

/// A variable of this plan's own. A plan is made once in a process, so its few names may stay.
fn variable(name: &str, number: usize) -> Var {
    Box::leak(format!("{name}{number}").into_boxed_str())
}

/// A word `key=value`.
fn pair(key: &str, value: impl AsRef<OsStr>) -> OsString {
    let mut word = OsString::from(format!("{key}="));
    word.push(value);
    word
}

/// `--network` as docker has it: a name, or `name=NET,alias=A,ip=…`. The name, then the rest.
fn network(text: &OsStr) -> Result<(OsString, Vec<OsString>), Failure> {
    let wrong = |why: &str| bad("--network", text, why);
    let bytes = text.as_bytes();
    // A path may hold what it likes.
    if bytes.starts_with(b"ns:") || !bytes.contains(&b'=') {
        return Ok((if text == "default" { "bridge".into() } else { text.to_owned() }, Vec::new()));
    }
    let (mut name, mut rest) = (None, Vec::new());
    for field in bytes.split(|b| *b == b',') {
        let at = field.iter().position(|b| *b == b'=').ok_or_else(|| wrong("fields are KEY=VALUE"))?;
        let value = OsString::from_vec(field[at + 1..].to_vec());
        match &field[..at] {
            b"name" => name = Some(value),
            b"alias" => rest.push(pair("alias", value)),
            b"ip" => rest.push(pair("ip", value)),
            b"ip6" => rest.push(pair("ip6", value)),
            b"mac-address" => rest.push(pair("mac", value)),
            _ => return Err(wrong("name=, alias=, ip=, ip6= or mac-address= is wanted")),
        }
    }
    Ok((name.ok_or_else(|| wrong("there is no name="))?, rest))
}

/// Whether names count there: not on the default network, nor where there is none of its own.
fn has_names(network: &OsStr) -> bool {
    !network.as_bytes().contains(&b':') && !["bridge", "none", "host"].iter().any(|one| network == *one)
}

impl NetworkFlags {
    /// What cannot be: `mode` is the first network.
    fn refuse(&self, mode: &OsStr, hostname: bool) -> Result<(), Failure> {
        let given = [
            ("--publish", !self.publish.is_empty()),
            ("--publish-all", self.publish_all == Some(true)),
            ("--link", !self.link.is_empty()),
            ("--expose", !self.expose.is_empty()),
            ("--network-alias", !self.network_alias.is_empty()),
            ("--ip", self.ip.is_some()),
            ("--ip6", self.ip6.is_some()),
            ("--mac-address", self.mac_address.is_some()),
            ("--dns", !self.dns.is_empty()),
            ("--dns-search", !self.dns_search.is_empty()),
            ("--dns-option", !self.dns_option.is_empty()),
            ("--add-host", !self.add_host.is_empty()),
            ("--hostname", hostname),
        ];
        let (count, why) = if mode.as_bytes().starts_with(b"container:") {
            (given.len(), "the network is the other container's, which is told")
        } else if mode == "host" {
            (
                3,
                "the network is the host's: its ports are open there as they are, and others have addresses (--add-host)",
            )
        } else {
            return Ok(());
        };
        match given[..count].iter().find(|(_, given)| *given) {
            None => Ok(()),
            Some((flag, _)) => Err(Failure::usage(format!("{flag} with --network {}: {why}", mode.to_string_lossy()))),
        }
    }

    /// What they mean for a container of this name, which may have a host name of its own.
    ///
    /// # Errors
    /// Flags that cannot be together, or what is no address.
    pub fn meaning(self, name: Option<&OsStr>, hostname: bool) -> Result<Wanted, Failure> {
        let networks = self.network.iter().map(|text| network(text)).collect::<Result<Vec<_>, _>>()?;
        let mode = networks.first().map_or(OsStr::new("bridge"), |(name, _)| name).to_owned();
        self.refuse(&mode, hostname)?;
        let mut wanted = Wanted { publish_all: self.publish_all == Some(true), ..Wanted::default() };
        let say = |key: &str, value: &OsStr| Word::from(pair(key, value));
        for (at, (name, rest)) in networks.iter().enumerate() {
            if at > 0 {
                let all = std::iter::once(name).chain(rest).map(OsString::as_os_str).collect::<Vec<_>>();
                wanted.words.push(say("connect", &all.join(OsStr::new(","))));
                continue;
            }
            match name.as_bytes().strip_prefix(b"container:") {
                Some(other) => {
                    let other = Who::of(OsStr::from_bytes(other).to_owned());
                    let id = other.id_in(&mut wanted.asked, "net");
                    wanted.words.push(Word::Joined(vec!["network=container:".into(), id]));
                }
                None => wanted.words.push(say("network", name)),
            }
            wanted.words.extend(rest.iter().cloned().map(Word::from));
        }
        let named = networks.iter().any(|(name, _)| has_names(name));
        wanted.words.extend(name.filter(|_| named).map(|name| say("name", name)));
        for (key, values) in [("alias", &self.network_alias), ("publish", &self.publish), ("expose", &self.expose)] {
            wanted.words.extend(values.iter().map(|value| say(key, value)));
        }
        for (key, value) in [("ip", &self.ip), ("ip6", &self.ip6), ("mac", &self.mac_address)] {
            wanted.words.extend(value.iter().map(|value| say(key, value)));
        }
        wanted.words.extend(wanted.publish_all.then(|| "publish-all=yes".into()));
        let mut hosts = Vec::new();
        for (at, text) in self.link.iter().enumerate() {
            hosts.extend(link(at, text, &mut wanted.asked)?);
        }
        for text in &self.add_host {
            hosts.push(add_host(text, mode == "host")?.into());
        }
        // Where it is on a network with names, now or at a later start, /etc/hosts is bocker-net's.
        for host in hosts {
            wanted.words.push(Word::Joined(vec!["host=".into(), host.clone()]));
            wanted.options.push(Word::Joined(vec!["--add-host=".into(), host]));
        }
        // Whose network it has, his names: a resolver on the host's localhost is its own then.
        wanted.options.extend((mode == "host").then(|| "--host-names".into()));
        for server in &self.dns {
            if server.to_str().is_none_or(|text| text.parse::<IpAddr>().is_err()) {
                return Err(bad("--dns", server, "an address is wanted"));
            }
        }
        for (name, values) in
            [("nameserver", self.dns), ("dns-search", self.dns_search), ("dns-option", self.dns_option)]
        {
            wanted.options.extend(values.into_iter().map(|value| Word::from(option(name, value))));
        }
        Ok(wanted)
    }
}

/// `--link CONTAINER[:ALIAS]`: by its alias, by the name that was typed and by its id, as docker has it.
fn link(at: usize, text: &OsStr, asked: &mut Vec<Step>) -> Result<Vec<Word>, Failure> {
    let mut parts = text.as_bytes().splitn(2, |b| *b == b':').map(|part| OsStr::from_bytes(part).to_owned());
    let name = parts.next().unwrap_or_default();
    let alias = parts.next().unwrap_or_else(|| name.clone());
    // docker's are /NAME:/OTHER/ALIAS where a program prints them.
    if name.is_empty() || alias.is_empty() || alias.as_bytes().iter().any(|b| b":/=".contains(b)) {
        return Err(bad("--link", text, "CONTAINER or CONTAINER:ALIAS is wanted"));
    }
    let who = Who::of(name.clone());
    let id = who.id_in(asked, variable("link", at));
    let address = variable("at", at);
    asked.push(Step::capture(address, vec![Tool::new(NET, ["address"]).and([id.clone()])]));
    let mut names = vec![Word::from(alias.clone())];
    names.extend((alias != name && !who.known).then(|| name.clone().into()));
    names.extend((alias != name || !who.known).then_some(id));
    Ok(names.into_iter().map(|name| Word::Joined(vec![name, with(":", address)])).collect())
}

/// `NAME:IP`. Where the network is the host's, the host is here.
fn add_host(text: &OsStr, on_host: bool) -> Result<OsString, Failure> {
    let wrong = || bad("--add-host", text, "NAME:IP is wanted, as db:10.0.0.5 or gate:host-gateway");
    let (name, at) = text.to_str().and_then(|text| text.split_once([':', '='])).ok_or_else(wrong)?;
    let bare = at.strip_prefix('[').and_then(|at| at.strip_suffix(']')).unwrap_or(at);
    let at = match at {
        "host-gateway" if on_host => "127.0.0.1",
        "host-gateway" => at,
        _ if bare.parse::<IpAddr>().is_ok() => bare,
        _ => return Err(wrong()),
    };
    Ok(format!("{name}:{at}").into())
}

impl Wanted {
    /// Asks bocker-net whether the words make sense, where nothing is done with them yet.
    pub(crate) fn check(&self) -> Option<Step> {
        (!self.words.is_empty()).then(|| Step::run(Tool::new(NET, ["check"]).and(self.words.clone())))
    }
}

/// `bocker network`: options of `bocker-net network`, and networks of a container's.
#[derive(Debug, Subcommand)]
pub enum Network {
    /// Make a network
    Create {
        /// Its addresses, as 10.1.0.0/24 [default: a free range]
        #[arg(long, value_name = "A.B.C.D/N")]
        subnet: Option<OsString>,
        /// Its IPv6 addresses
        #[arg(long, value_name = "A::/N")]
        subnet6: Option<OsString>,
        /// Without a way to other networks
        #[arg(long)]
        internal: bool,
        /// The largest packet, in bytes
        #[arg(long, value_name = "BYTES")]
        mtu: Option<OsString>,
        /// Its name
        name: OsString,
    },
    /// List networks
    #[command(visible_alias = "list")]
    Ls {
        /// One JSON object a line
        #[arg(long, conflicts_with = "quiet")]
        json: bool,
        /// Names only
        #[arg(long, short)]
        quiet: bool,
    },
    /// Delete networks that no container is on
    #[command(visible_alias = "remove")]
    Rm {
        /// As printed by `bocker network ls`
        #[arg(required = true)]
        names: Vec<OsString>,
    },
    /// Print what is known of networks
    Inspect {
        /// One JSON object for each
        #[arg(long)]
        json: bool,
        /// As printed by `bocker network ls`
        #[arg(required = true)]
        names: Vec<OsString>,
    },
    /// Delete all networks that no container is on
    Prune,
    /// Let a container join a network; one that does not run, at its start
    Connect {
        /// Its address there
        #[arg(long, value_name = "ADDRESS")]
        ip: Option<OsString>,
        /// Its IPv6 address there
        #[arg(long, value_name = "ADDRESS")]
        ip6: Option<OsString>,
        /// One more name there
        #[arg(long, value_name = "NAME")]
        alias: Vec<OsString>,
        /// The network
        network: OsString,
        /// By id or name
        container: OsString,
    },
    /// Let a container leave a network
    Disconnect {
        /// The network
        network: OsString,
        /// By id or name
        container: OsString,
    },
}

pub(crate) fn networks(command: Network) -> Vec<Step> {
    let tool = |verb| Tool::new(NET, ["network", verb]);
    let run = |tool| vec![Step::run(tool)];
    match command {
        Network::Create { subnet, subnet6, internal, mtu, name } => {
            let options = [("subnet", subnet), ("subnet6", subnet6), ("mtu", mtu)];
            let options = options.into_iter().filter_map(|(name, value)| Some(option(name, value?)));
            run(tool("create").and(options).and(internal.then_some("--internal")).and(["--"]).and([name]))
        }
        Network::Ls { json, quiet } => run(tool("ls").and(json.then_some("--json")).and(quiet.then_some("--quiet"))),
        Network::Rm { names } => run(tool("rm").and(["--"]).and(names)),
        Network::Inspect { json, names } => run(tool("inspect").and(json.then_some("--json")).and(["--"]).and(names)),
        Network::Prune => run(tool("prune")),
        Network::Connect { ip, ip6, alias, network, container } => {
            let mut options: Vec<_> = [("ip", ip), ("ip6", ip6)]
                .into_iter()
                .filter_map(|(key, value)| Some(pair(key, value?)))
                .chain(alias.into_iter().map(|name| pair("alias", name)))
                .collect();
            options.insert(0, network.clone());
            let joined = options.join(OsStr::new(","));
            let who = Who::of(container);
            let mut steps = vec![Step::run(Tool::new(NET, ["check"]).and([pair("connect", &joined)]))];
            steps.extend(who.resolve());
            let name = Tool::new(STORE, ["ps"])
                .and([Word::Joined(vec!["--filter=id=".into(), who.id.clone()])])
                .and(["--format={{.Names}}"]);
            let words = options.into_iter().skip(1).map(Word::from).chain([with("name=", "name")]);
            let act = Tool::new(NET, ["connect"]).and([who.id.clone(), network.into()]).and(words);
            steps.push(while_it_runs(&who, vec![Step::capture("name", vec![name]), Step::run(act)]));
            steps.push(remember(&who, "+", joined));
            steps
        }
        Network::Disconnect { network, container } => {
            let who = Who::of(container);
            let mut steps = who.resolve();
            let act = Tool::new(NET, ["disconnect"]).and([who.id.clone(), network.clone().into()]);
            steps.push(while_it_runs(&who, vec![Step::run(act)]));
            steps.push(remember(&who, "-", network));
            steps
        }
    }
}

fn while_it_runs(who: &Who, steps: Vec<Step>) -> Step {
    let path = Tool::new(STORE, ["path", "--running", "--"]).and([who.id.clone()]);
    Step::If(Condition::Quietly(Job::capture("dir", path)), steps, vec![])
}

/// For its next start.
fn remember(who: &Who, sign: &str, network: OsString) -> Step {
    let mut change = OsString::from(sign);
    change.push(network);
    Step::run(Tool::new(STORE, ["network", "--"]).and([who.id.clone(), change.into()]))
}

/// `bocker port CONTAINER [PORT[/PROTOCOL]]`
pub(crate) fn port(container: OsString, port: Option<OsString>) -> Vec<Step> {
    let who = Who::of(container);
    let mut steps = who.resolve();
    steps.push(Step::run(Tool::new(NET, ["port"]).and([who.id]).and(port)));
    steps
}
