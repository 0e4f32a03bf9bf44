//! The network of containers: what the script did by `ip link`, `ip netns` and `ip route`.
//!
//! A bridge, `bridge0`, has the first address of the subnet. A container has a named network
//! namespace and a veth pair: one end in the bridge, the other, `eth0`, in the namespace.
//! Every name, address and MAC follows from the container's id, so there is nothing to
//! allocate and nothing to remember: the kernel's own state is the only record.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use bocker_common::diag::OWN_FAILURE;
use bocker_common::entry::{self, Uninterrupted, need_root};
use bocker_common::id::end_lines;
use bocker_common::say::{self, Explain};
use bocker_common::{Error, Id, Ids, Kind, Result};
use clap::{Parser, Subcommand};
use nix::fcntl::FlockArg;

mod act;
mod bridge;
mod chain;
mod container;
mod kernel;
mod list;
mod namespace;
mod nat;
mod netlink;
mod subnet;

use act::Act;
use kernel::Kernel;
use subnet::Subnet;

/// Bridge, veth pair, network namespace and NAT of a container
#[derive(Debug, Parser)]
#[command(name = "bocker-net", version, disable_help_subcommand = true)]
#[command(after_help = "Environment:\n  BOCKER_SUBNET  addresses of containers, /16 to /29 (default 10.0.0.0/24)")]
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
        /// The container's id, as ps_42045
        #[arg(value_parser = container_id)]
        id: Id,
        #[command(flatten)]
        explain: Explain,
    },
    /// Remove both; already gone is no error
    Down {
        /// The container's id; or -: those on stdin, one a line. Then the names of what is gone are printed
        #[arg(value_name = "ID|-")]
        ids: Ids,
        #[command(flatten)]
        explain: Explain,
    },
    /// Join a container's namespace and become the command
    Exec {
        /// The container's id
        #[arg(value_parser = container_id)]
        id: Id,
        #[command(flatten)]
        explain: Explain,
        /// The command and its arguments
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true, value_name = "COMMAND")]
        command: Vec<OsString>,
    },
    /// Print id, address and MAC of each container's namespace
    List {
        /// One JSON object a line
        #[arg(long)]
        json: bool,
        /// Say `busy` after those that a process is in, and `failed` where not all can be told
        #[arg(long)]
        busy: bool,
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
        Verb::Up { setup, id, explain } => up(id, setup, Subnet::from_environment()?, explain),
        Verb::Down { ids, explain } => down(ids, explain),
        Verb::Exec { id, explain, command } => chain::exec(id, &command, explain),
        Verb::List { json, busy: true } => end_lines(list::list(json, true)),
        Verb::List { json, busy: false } => list::list(json, false),
    }
    .map(|()| ExitCode::SUCCESS)
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
    let plan = bridge::plan_setup(&bridge::see(kernel, Some(subnet))?, subnet)?;
    perform(kernel, &plan, explain)?;
    // Where NAT alone was missing and still is, that has been said.
    let done = plan.len() > usize::from(kernel.no_nat);
    if !explain.dry_run && done {
        let gateway = subnet.gateway_with_prefix();
        let what = if kernel.no_nat { " and forwarding" } else { ", forwarding and NAT" };
        let _ = writeln!(
            std::io::stderr(),
            "bocker-net: set up bridge0 with {gateway}{what} (bocker-net setup --undo takes it back)"
        );
    }
    Ok(())
}

fn undo(explain: Explain) -> Result<()> {
    let mut kernel = begin("setup --undo", explain)?;
    let _alone = bridge::lock(FlockArg::LockExclusive, explain)?;
    let plan = bridge::plan_undo(&bridge::see(&kernel, None)?)?;
    let _whole = Uninterrupted::begin();
    say::perform(&plan, explain, |act| kernel.apply(act))
}

fn up(id: Id, with_setup: bool, subnet: Subnet, explain: Explain) -> Result<()> {
    let address = subnet.address(id)?;
    let mut kernel = begin(&format!("up {id}"), explain)?;
    let mut lock = bridge::lock(FlockArg::LockShared, explain)?;
    // Two questions to the kernel on a host that is ready. On any other, they are asked again by who is alone: somebody
    // else may be in the middle of making the bridge.
    if with_setup && !bridge::ready(&kernel, subnet).is_ok_and(|ready| ready) {
        drop(lock);
        lock = bridge::lock(FlockArg::LockExclusive, explain)?;
        if !bridge::ready(&kernel, subnet)? {
            make_bridge(&mut kernel, subnet, explain)?;
        }
    } else if !with_setup && !explain.dry_run && !bridge::ready(&kernel, subnet)? {
        return Err(Error::plain(format!("up {id}: no bridge0 (bocker-net setup makes it, and so does up --setup)")));
    }
    let _until_it_is_attached = lock;
    perform(&mut kernel, &container::plan_up(id, subnet, address, namespace::has_ipv6()), explain)
}

/// Takes everything down that is there, whatever fails on the way.
fn down(ids: Ids, explain: Explain) -> Result<()> {
    let all = ids.all()?.into_iter().map(container).collect::<Result<Vec<_>>>()?;
    let mut kernel = begin("down", explain)?;
    let _whole = Uninterrupted::begin();
    let mut failures = Vec::new();
    for id in all {
        let before = failures.len();
        let plan = container::plan_down(id, &kernel)?;
        for act in &plan {
            say::tell(act, explain)?;
            if !explain.dry_run {
                failures.extend(kernel.apply(act).err().map(|e| e.to_string()));
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
fn perform(kernel: &mut Kernel, plan: &[Act], explain: Explain) -> Result<()> {
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
