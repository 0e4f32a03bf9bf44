//! Whether the rules are still there: `nft flush ruleset`, a firewall that starts anew, or a hand may have taken them away while
//! containers run. Then they come back before anything else is done, with all that is published, or that is an error.

use std::io::Write;

use bocker_common::say::{self, Explain};
use bocker_common::{Error, Id, Result};
use nix::fcntl::FlockArg;

use crate::act::Act;
use crate::kernel::Kernel;
use crate::nft::{Station, Table, World};
use crate::state::Attachment;
use crate::subnet::Subnet6;
use crate::{bridge, cable, netfilter, network, nft, publish, state};

/// Looks, by two questions to the kernel, and makes again what is gone.
///
/// # Errors
/// Rules are gone and cannot be made: containers are not protected.
pub(crate) fn restore(explain: Explain) -> Result<()> {
    if Table::ALL.into_iter().all(Table::is_whole) && !lacks_ipv6()? {
        return Ok(());
    }
    let mut kernel = Kernel::open()?;
    if plan(&kernel)?.is_empty() {
        return Ok(());
    }
    // Somebody may have been in the middle of setting up, or of taking it back.
    let _alone = bridge::lock(FlockArg::LockExclusive, explain)?;
    let plan = plan(&kernel)?;
    say::perform(&plan, explain, |act| kernel.apply(act))?;
    if let Some((table, why)) = kernel.lacking.first() {
        let error = Error::plain(format!("the rules of table {table} are gone, and cannot be made again: {why}"));
        return Err(error.hint(format!("{}; bocker-net setup tries again", table.without_it())));
    }
    for act in plan.iter().filter(|_| !explain.dry_run) {
        let (table, ports) = match act {
            Act::Rules(Table::Ip, world) => (Table::Ip.to_string(), nft::elements("add", &world.ports).lines().count()),
            Act::Rules(table, _) => (table.to_string(), 0),
            _ => ("ip6 bocker".to_owned(), 0),
        };
        let with = if ports > 0 { format!(", with {ports} published ports") } else { String::new() };
        let _ = writeln!(std::io::stderr(), "bocker-net: the rules of table {table} were gone: made again{with}");
    }
    Ok(())
}

/// Whether there is a network with IPv6, and no rule at all for that. Single chains of it are seen when the other tables go.
fn lacks_ipv6() -> Result<bool> {
    if netfilter::rules(10, "bocker").is_ok_and(|rules| rules > 0) {
        return Ok(false);
    }
    // Most hosts have none of it.
    let has_it = |network: &network::Network| network.subnet6.is_some();
    Ok(Subnet6::from_environment()?.is_some() || network::named().is_ok_and(|all| all.iter().any(has_it)))
}

/// What ought to be there and is not.
fn plan(kernel: &Kernel) -> Result<Vec<Act>> {
    let Some(record) = bridge::record(kernel)? else { return Ok(Vec::new()) };
    let Some(default) = record.network() else { return Ok(Vec::new()) };
    let expected = Table::ALL.into_iter().filter(|table| !record.lacks.contains(table));
    let missing: Vec<Table> = expected.filter(|table| !table.is_whole()).collect();
    if missing.is_empty() && !lacks_ipv6()? {
        return Ok(Vec::new());
    }
    let world = world(kernel)?.with(default);
    let mut plan: Vec<Act> = missing.into_iter().map(|table| Act::Rules(table, world.clone())).collect();
    plan.extend(network::plan_repair(&world.networks));
    Ok(plan)
}

/// Networks with names, and what belongs to containers that run.
///
/// # Errors
/// What is written down cannot be read.
pub(crate) fn world(kernel: &Kernel) -> Result<World> {
    let ports = state::all()?.into_iter().flat_map(publish::of).collect();
    let stations = state::live()?.iter().flat_map(|(id, all)| stations(*id, all)).collect();
    Ok(World { networks: network::made(kernel)?, stations, ports })
}

/// As whom a container may speak, but for what follows from its id on the default network: that is in the set for good.
pub(crate) fn stations(id: Id, all: &[Attachment]) -> Vec<Station> {
    let default = network::default().ok();
    let known: Vec<Station> = default.iter().flat_map(|network| nft::by_function(network, id)).collect();
    let of = |one: &Attachment| nft::of_end(&cable::outside(id, one.number), one.mac, one.address, one.address6);
    all.iter().flat_map(of).filter(|station| !known.contains(station)).collect()
}
