//! The network of containers: what the script did by `ip link`, `ip netns` and `ip route`.
//!
//! A bridge, `bridge0`, has the first address of the subnet. A container has a named network
//! namespace and a veth pair: one end in the bridge, the other, `eth0`, in the namespace.
//! Every name, address and MAC follows from the container's id, so there is nothing to
//! allocate and nothing to remember: the kernel's own state is the only record.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::fs::File;
use std::io::Write;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use bocker_common::diag::{self, OWN_FAILURE};
use bocker_common::entry::{self, Uninterrupted, need_root};
use bocker_common::id::end_lines;
use bocker_common::say::{self, Explain};
use bocker_common::userns::{Ranges, Userns};
use bocker_common::{Error, Id, Ids, Kind, Result};
use clap::{Parser, Subcommand};
use nix::fcntl::{Flock, FlockArg};

mod act;
mod attach;
mod bridge;
mod cable;
mod chain;
mod container;
mod doctor;
mod guard;
mod hosts;
mod kernel;
mod list;
mod namespace;
mod netfilter;
mod netlink;
mod network;
mod nft;
mod publish;
mod relay;
mod route;
mod state;
mod subnet;
mod tap;
mod words;

use act::Act;
use bridge::Record;
use chain::Place;
use kernel::Kernel;
use nft::Table;
use subnet::{Subnet, Subnet6};
use words::{Name, Ports, Word, Words};

/// Bridge, veth pair, network namespace and NAT of a container
#[derive(Debug, Parser)]
#[command(name = "bocker-net", version, disable_help_subcommand = true)]
#[command(after_help = "Environment:
  BOCKER_SUBNET    addresses of containers, /16 to /29 (default 10.0.0.0/24)
  BOCKER_SUBNET6   their IPv6 addresses, /48 to /112 (default: no IPv6)
  BOCKER_NETWORKS  where networks are written down (default /etc/bocker/networks)")]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make bridge0 with the subnet's first address, forwarding and NAT; what is there already stays
    Setup {
        /// Take all of it back; forwarding becomes what it was
        #[arg(long)]
        undo: bool,
        /// Only see whether it would be refused
        #[arg(long, conflicts_with = "undo")]
        check: bool,
        #[command(flatten)]
        explain: Explain,
    },
    /// Make a container's namespace and veth pair; print its address
    Up {
        /// Make bridge0 first where there is none
        #[arg(long)]
        setup: bool,
        /// Whose it is: users of the container's own, or the caller's
        #[arg(long, value_enum, default_value = "private", value_name = "private|host", hide_possible_values = true)]
        userns: Userns,
        /// The container's id, as ps_42045
        #[arg(value_parser = container_id)]
        id: Id,
        /// How, as network=back publish=8080:80
        #[arg(value_name = "KEY=VALUE")]
        words: Vec<Word>,
        /// Words of this file first, one a line
        #[arg(long, value_name = "FILE")]
        from: Option<PathBuf>,
        #[command(flatten)]
        explain: Explain,
    },
    /// Only see whether `up` would take these words
    Check {
        /// As for up
        #[arg(value_name = "KEY=VALUE")]
        words: Vec<Word>,
    },
    /// Remove both; already gone is no error
    Down {
        /// The container's id; or -: those on stdin, one a line. Then the names of what is gone are printed
        #[arg(value_name = "ID|-")]
        ids: Ids,
        #[command(flatten)]
        explain: Explain,
    },
    /// Join a container's namespace, or anybody's, and become the command
    Exec {
        /// This namespace, as /proc/PID/ns/net or a name in /run/netns; no ID then
        #[arg(long, value_name = "PATH")]
        ns: Option<PathBuf>,
        /// The container's id
        #[arg(required_unless_present = "ns")]
        id: Option<OsString>,
        #[command(flatten)]
        explain: Explain,
        /// The command and its arguments
        #[arg(
            trailing_var_arg = true,
            allow_hyphen_values = true,
            required_unless_present = "ns",
            value_name = "COMMAND"
        )]
        command: Vec<OsString>,
    },
    /// Print where the ports of a container are on the host
    Port {
        /// The container's id
        #[arg(value_parser = container_id)]
        id: Id,
        /// Only of this one, as 80 or 53/udp
        #[arg(value_name = "PORT[/tcp|udp]")]
        port: Option<Ports>,
    },
    /// Started by `up`: holds the published ports that come on stdin, and relays
    #[command(hide = true)]
    Relay {
        /// The container's id
        #[arg(value_parser = container_id)]
        id: Id,
    },
    /// Write what passes a container's interface to stdout, as pcap: for tcpdump -r - or wireshark -ki -
    Tap {
        /// This namespace instead of a container's
        #[arg(long, value_name = "PATH", conflicts_with = "id")]
        ns: Option<PathBuf>,
        /// The interface, or `any`
        #[arg(short, long, default_value = act::ETH, value_name = "NAME")]
        interface: String,
        /// The container's id
        #[arg(value_parser = container_id, required_unless_present = "ns")]
        id: Option<Id>,
    },
    /// Print a container's address, as up does
    Address {
        /// The container's id
        #[arg(value_parser = container_id)]
        id: Id,
    },
    /// Networks with names
    #[command(subcommand, disable_help_subcommand = true)]
    Network(NetworkVerb),
    /// Put a container that is up on a further network
    Connect {
        /// The container's id
        #[arg(value_parser = container_id)]
        id: Id,
        /// The network's name
        network: words::Network,
        /// As what: ip=, ip6=, mac=, alias=, name=
        #[arg(value_name = "KEY=VALUE")]
        words: Vec<Word>,
        #[command(flatten)]
        explain: Explain,
    },
    /// Take a container off a network
    Disconnect {
        /// The container's id
        #[arg(value_parser = container_id)]
        id: Id,
        /// The network's name
        network: words::Network,
        #[command(flatten)]
        explain: Explain,
    },
    /// Say what of this host's network is as it should be, and what to do about the rest
    Doctor,
    /// Print id, address and MAC of each container's namespace, and its published ports
    List {
        /// One JSON object a line
        #[arg(long)]
        json: bool,
        /// Say `busy` after those that a process is in, and `failed` where not all can be told
        #[arg(long)]
        busy: bool,
    },
}

#[derive(Debug, Subcommand)]
enum NetworkVerb {
    /// Write a network down; its bridge is made when a container first needs it
    Create {
        /// Letters, digits, then also _ . -
        name: Name,
        /// Its addresses, /16 to /29 (default: free ones of 10.64.0.0/10)
        #[arg(long)]
        subnet: Option<Subnet>,
        /// Its IPv6 addresses, /48 to /112 (default: no IPv6)
        #[arg(long)]
        subnet6: Option<Subnet6>,
        /// Without a way out
        #[arg(long)]
        internal: bool,
        /// In bytes (default: as the host's way out)
        #[arg(long, value_parser = network::parse_mtu)]
        mtu: Option<u32>,
        #[command(flatten)]
        explain: Explain,
    },
    /// Print name, subnets, bridge, and whether it is internal
    Ls {
        /// One JSON object a line
        #[arg(long)]
        json: bool,
        /// Names only
        #[arg(short, long)]
        quiet: bool,
    },
    /// Remove networks that nobody is on
    Rm {
        /// Their names
        #[arg(required = true, value_name = "NAME")]
        names: Vec<Name>,
        #[command(flatten)]
        explain: Explain,
    },
    /// Print what networks are, and who is on them
    Inspect {
        /// Their names
        #[arg(required = true, value_name = "NAME")]
        names: Vec<words::Network>,
        /// One JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Remove all that nobody is on
    Prune {
        #[command(flatten)]
        explain: Explain,
    },
}

fn container_id(word: &str) -> Result<Id> {
    container(word.parse()?)
}

fn container(id: Id) -> Result<Id> {
    match id.kind() {
        Kind::Container => Ok(id),
        Kind::Image => Err(Error::plain(format!("{id} is an image; only a container has a network (as ps_42045)"))),
    }
}

/// The whole tool.
///
/// # Errors
/// One line for stderr, with its exit status.
pub fn main() -> Result<ExitCode> {
    let runs_a_command = |words: &[OsString]| (words.get(1)? == "exec").then_some(OWN_FAILURE);
    let cli: Cli = entry::parse(runs_a_command)?;
    match cli.verb {
        Verb::Setup { check: true, .. } => check(Subnet::from_environment()?),
        Verb::Setup { undo: false, explain, .. } => setup(Subnet::from_environment()?, explain),
        Verb::Setup { undo: true, explain, .. } => undo(explain),
        Verb::Up { setup, userns, id, words, from, explain } => {
            let remembered = from.map_or_else(|| Ok(Vec::new()), |file| words::read(&file))?;
            let words = Words::of(remembered.into_iter().chain(words))?;
            up(id, userns, &words, setup, explain)
        }
        Verb::Check { words } => Words::of(words).map(drop),
        Verb::Down { ids, explain } => down(ids, explain),
        Verb::Exec { ns, id, explain, command } => {
            let (place, command) = exec_words(ns, id, command).map_err(|e| e.status(OWN_FAILURE))?;
            chain::exec(&place, &command, explain)
        }
        Verb::Tap { ns, interface, id } => match ns.map(Place::Path).or(id.map(Place::Container)) {
            Some(place) => tap::tap(&place, &interface),
            None => Ok(()),
        },
        Verb::Port { id, port } => list::ports(id, port),
        Verb::Relay { id } => relay::run(id),
        Verb::Address { id } => address(id),
        Verb::Network(verb) => network_verb(verb),
        Verb::Connect { id, network, words, explain } => {
            attach::connect(id, &network, words, &mut begin("connect", explain)?, explain)
        }
        Verb::Disconnect { id, network, explain } => {
            attach::disconnect(id, &network, &mut begin("disconnect", explain)?, explain)
        }
        Verb::Doctor => return doctor::doctor(),
        Verb::List { json, busy: true } => end_lines(list::list(json, true)),
        Verb::List { json, busy: false } => list::list(json, false),
    }
    .map(|()| ExitCode::SUCCESS)
}

fn network_verb(verb: NetworkVerb) -> Result<()> {
    match verb {
        NetworkVerb::Create { name, subnet, subnet6, internal, mtu, explain } => {
            network::create(network::Wanted { name, subnet, subnet6, internal, mtu }, explain)
        }
        NetworkVerb::Ls { json, quiet } => network::list(json, quiet),
        NetworkVerb::Rm { names, explain } => network::remove(&names, explain),
        NetworkVerb::Inspect { names, json } => network::inspect(&names, json),
        NetworkVerb::Prune { explain } => network::prune(explain),
    }
}

/// With --ns there is no id, and its word is the command's first.
fn exec_words(ns: Option<PathBuf>, id: Option<OsString>, command: Vec<OsString>) -> Result<(Place, Vec<OsString>)> {
    let Some(path) = ns else {
        let id = id.unwrap_or_default();
        return Ok((Place::Container(container_id(&id.to_string_lossy())?), command));
    };
    let command: Vec<OsString> = id.into_iter().chain(command).collect();
    if command.is_empty() {
        return Err(Error::plain("exec: no command was provided").hint("see --help"));
    }
    Ok((Place::Path(path), command))
}

fn address(id: Id) -> Result<()> {
    need_root("address")?;
    let address = match namespace::exists(id) {
        true => attach::address(id),
        false => Some(Subnet::from_environment()?.address(id)?),
    };
    let line = address.map_or_else(|| "-".to_owned(), |address| address.to_string());
    writeln!(std::io::stdout(), "{line}").map_err(|e| Error::stdout(&e))
}

fn setup(subnet: Subnet, explain: Explain) -> Result<()> {
    let mut kernel = begin("setup", explain)?;
    let _alone = bridge::lock(FlockArg::LockExclusive, explain)?;
    make_bridge(&mut kernel, subnet, explain)
}

fn check(subnet: Subnet) -> Result<()> {
    let kernel = begin("setup", Explain::default())?;
    bridge::plan_setup(&bridge::see(&kernel, Some(subnet))?, subnet).map(drop)
}

/// Makes what is missing, and says so in one line. Silent where nothing is.
fn make_bridge(kernel: &mut Kernel, subnet: Subnet, explain: Explain) -> Result<()> {
    let seen = bridge::see(kernel, Some(subnet))?;
    let mut plan = bridge::plan_setup(&seen, subnet)?;
    plan.extend(network::plan_repair(&seen.world.networks));
    perform(kernel, &plan, explain)?;
    let lacking = std::mem::take(&mut kernel.lacking);
    // What alone was missing and still is, is said below.
    let done = plan.len() > lacking.len();
    if explain.dry_run {
        return Ok(());
    }
    if done {
        let gateway = subnet.gateway_with_prefix();
        let what = if lacks(&lacking, Table::Ip) { " and forwarding" } else { ", forwarding and NAT" };
        let _ = writeln!(
            std::io::stderr(),
            "bocker-net: set up bridge0 with {gateway}{what} (bocker-net setup --undo takes it back)"
        );
    }
    say_lacking(&lacking);
    // `up` does not ask for what this host cannot have.
    if let Some(record) = bridge::record(kernel)? {
        let lacks: Vec<Table> = lacking.into_iter().map(|(table, _)| table).collect();
        if record.lacks != lacks {
            kernel.apply(&Act::Record(Record { lacks, ..record }))?;
        }
    }
    Ok(())
}

fn lacks(lacking: &[(Table, String)], table: Table) -> bool {
    lacking.iter().any(|(one, _)| *one == table)
}

/// One line, whatever is missing.
fn say_lacking(lacking: &[(Table, String)]) {
    let Some((_, why)) = lacking.first() else { return };
    let what: Vec<&str> = lacking.iter().map(|(table, _)| table.what()).collect();
    let means: Vec<&str> = lacking.iter().map(|(table, _)| table.without_it()).collect();
    let (what, why, means) = (what.join(" and no "), diag::printable(why), means.join("; "));
    let _ = writeln!(std::io::stderr(), "bocker-net: no {what}: {why} ({means})");
}

fn undo(explain: Explain) -> Result<()> {
    let mut kernel = begin("setup --undo", explain)?;
    let _alone = bridge::lock(FlockArg::LockExclusive, explain)?;
    let plan = bridge::plan_undo(&bridge::see(&kernel, None)?)?;
    let _whole = Uninterrupted::begin();
    say::perform(&plan, explain, |act| kernel.apply(act))?;
    if !explain.dry_run {
        bridge::remove_lock();
    }
    Ok(())
}

fn up(id: Id, userns: Userns, words: &Words, with_setup: bool, explain: Explain) -> Result<()> {
    let users = match userns {
        Userns::Private => Some(Ranges::read(Path::new("/etc"))?.of(id)?),
        Userns::Host => None,
    };
    let act = format!("up {id}");
    if !words.network.is_ours() {
        let mut kernel = begin(&act, explain)?;
        if !explain.dry_run {
            state::forget_dead(id)?;
        }
        return perform(&mut kernel, &attach::plan_elsewhere(id, users, &words.network)?, explain);
    }
    let places = attach::places(id, words)?;
    let mut kernel = begin(&act, explain)?;
    // A port that is taken fails before there is anything.
    let address = places.first().map_or(Ipv4Addr::UNSPECIFIED, |place| place.attachment.address);
    let claimed = publish::claim(&publish::wanted(words)?, address)?;
    guard::restore(explain)?;
    let (mut mtus, _until_it_is_attached) = get_ready(&mut kernel, id, &places, with_setup, explain)?;
    if mtus.is_empty() {
        mtus = attach::mtus(&kernel, &places)?;
    }
    let all = attach::attachments(&places);
    let own = attach::own_hosts(words, &places);
    let stations = if attach::is_plain(&places) { Vec::new() } else { guard::stations(id, &all) };
    let (record, mut hosts) = if attach::is_plain(&places) {
        if !explain.dry_run {
            all.iter().try_for_each(|own| state::make_way(id, own))?;
        }
        (None, None)
    } else {
        if !explain.dry_run {
            state::forget_dead(id)?;
        }
        // Before anything is made; it is asked again when it is written down.
        state::check(id, &all, &state::live()?)?;
        let (record, hosts) = attach::written(id, all, Vec::new())?;
        (Some(record), hosts)
    };
    let cables = attach::cables(id, &places, &mtus);
    let routes = attach::routes(places.iter().map(|place| &place.network));
    let mut plan = container::plan_up(id, users, &cables, &routes, namespace::has_ipv6(), record);
    // Without the tables the relay does it alone. A dry run speaks of the host that it would have made.
    let has = |table: Table| explain.dry_run || table.has_elements();
    if !stations.is_empty() && has(Table::Bridge) {
        plan.push(Act::Admit(id, stations));
    }
    plan.extend(publish::plan_up(id, &claimed.ports, !claimed.ports.is_empty() && has(Table::Ip)));
    if let Some(state::Step::Hosts(files)) = &mut hosts {
        for (_, lines) in files.iter_mut().filter(|(one, _)| *one == id) {
            *lines = hosts::with(std::mem::take(lines), own.clone());
        }
    }
    plan.extend((!own.is_empty()).then_some(Act::State(state::Step::Own(id, own))));
    plan.extend(hosts.map(Act::State));
    plan.push(container::print(&cables));
    kernel.sockets = claimed.sockets;
    perform(&mut kernel, &plan, explain)
}

/// Sees to the bridges: their MTUs, or nothing where a dry run leaves them to be made, and the lock that they are kept by.
fn get_ready(
    kernel: &mut Kernel,
    id: Id,
    places: &[attach::Place],
    with_setup: bool,
    explain: Explain,
) -> Result<(Vec<u32>, Option<Flock<File>>)> {
    let how = if attach::chooses_on_default(places) { FlockArg::LockExclusive } else { FlockArg::LockShared };
    let lock = bridge::lock(how, explain)?;
    // Two questions to the kernel on a host that is ready. On any other, they are asked again by who is alone: somebody
    // else may be in the middle of making the bridge.
    if let Ok(Some(mtus)) = attach::ready(kernel, places) {
        return Ok((mtus, lock));
    }
    drop(lock);
    let lock = bridge::lock(FlockArg::LockExclusive, explain)?;
    if let Some(mtus) = attach::ready(kernel, places)? {
        return Ok((mtus, lock));
    }
    let subnet = Subnet::from_environment()?;
    if bridge::ready(kernel, subnet)?.is_none() {
        if with_setup {
            make_bridge(kernel, subnet, explain)?;
        } else if !explain.dry_run {
            return Err(Error::plain(format!(
                "up {id}: no bridge0 (bocker-net setup makes it, and so does up --setup)"
            )));
        }
    }
    attach::make_ready(kernel, places, explain)?;
    Ok((attach::ready(kernel, places)?.unwrap_or_default(), lock))
}

/// Takes everything down that is there, whatever fails on the way.
fn down(ids: Ids, explain: Explain) -> Result<()> {
    let all = ids.all()?.into_iter().map(container).collect::<Result<Vec<_>>>()?;
    let mut kernel = begin("down", explain)?;
    // What cannot be protected can be ended all the same.
    let mut failures: Vec<String> = guard::restore(explain).err().map(|e| e.to_string()).into_iter().collect();
    let _whole = Uninterrupted::begin();
    // So that nobody makes the table anew with what is taken out of it here.
    let has_state = all.iter().any(|id| state::is_there(*id));
    let _lock = if has_state { bridge::lock(FlockArg::LockShared, explain)? } else { None };
    for id in all {
        let before = failures.len();
        let mut plan = Vec::new();
        // Unreadable: it goes with the table.
        let stations = guard::stations(id, &state::read(id).unwrap_or_default());
        if !stations.is_empty() && Table::Bridge.has_elements() {
            plan.push(Act::Expel(id, stations));
        }
        plan.extend(publish::plan_down(id, has_state && Table::Ip.has_elements()));
        match container::plan_down(id, &kernel) {
            Ok(more) => plan.extend(more),
            Err(e) => failures.push(e.to_string()),
        }
        // What names rules stays as long as they do: else nobody would ever take them out.
        let mut named = false;
        for act in &plan {
            if named && matches!(act, Act::EndRelay(_) | Act::State(_)) {
                continue;
            }
            say::tell(act, explain)?;
            if !explain.dry_run {
                let failure = kernel.apply(act).err();
                named |= failure.is_some() && matches!(act, Act::Unpublish(..) | Act::Expel(..));
                failures.extend(failure.map(|e| e.to_string()));
            }
        }
        if ids == Ids::Stdin && !plan.is_empty() && failures.len() == before && !explain.dry_run {
            writeln!(std::io::stdout(), "{}", id.netns()).map_err(|e| Error::stdout(&e))?;
        }
    }
    if failures.is_empty() { Ok(()) } else { Err(Error::plain(failures.join("; "))) }
}

fn begin(act: &str, explain: Explain) -> Result<Kernel> {
    if !explain.dry_run {
        need_root(act)?;
    }
    Kernel::open()
}

/// Does the acts, all or none.
pub(crate) fn perform(kernel: &mut Kernel, plan: &[Act], explain: Explain) -> Result<()> {
    say::perform_whole(plan, explain, |act| kernel.apply(act), Act::undo)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn only_containers_have_a_network() {
        assert!(container_id("ps_42045").is_ok());
        assert!(container_id("img_42045").unwrap_err().to_string().contains("is an image"));
        assert!(container_id("ps_1").is_err());
    }

    #[test]
    fn a_command_is_taken_as_it_is() {
        let cli = Cli::try_parse_from(["bocker-net", "exec", "ps_42045", "--", "ls", "--json", "--", "-x"]).unwrap();
        let Verb::Exec { command, .. } = cli.verb else { panic!() };
        assert_eq!(command, ["ls", "--json", "--", "-x"]);
    }
}
