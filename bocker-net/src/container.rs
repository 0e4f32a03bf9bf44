//! A container's part: namespace, veth pair, address, route.

use std::net::Ipv4Addr;

use bocker_common::{Id, Result};

use crate::act::Act;
use crate::kernel::Kernel;
use crate::namespace;
use crate::subnet::{Mac, Subnet};

/// The script's lines 59 to 68.
pub(crate) fn plan_up(id: Id, subnet: Subnet, address: Ipv4Addr, ipv6: bool) -> Vec<Act> {
    let mut plan = vec![Act::AddNamespace(id), Act::AddPair(id, Mac::from(address))];
    if ipv6 {
        // Before there is a carrier, so no address has been made yet.
        plan.extend([Act::NoLinkLocalOutside(id), Act::NoLinkLocalInside(id)]);
    }
    plan.extend([
        Act::LoopbackUp(id),
        Act::AltName(id),
        Act::AddAddress(id, address, subnet.prefix()),
        Act::EthUp(id),
        Act::DefaultRoute(id, subnet.gateway()),
        Act::PrintAddress(address),
    ]);
    plan
}

/// The script's lines 81 and 82, for what is there.
pub(crate) fn plan_down(id: Id, kernel: &Kernel) -> Result<Vec<Act>> {
    let mut plan = Vec::new();
    // The namespace first: a link inside it goes with it, and its other end too, within a millisecond or two.
    if namespace::exists(id) {
        plan.push(Act::DeleteNamespace(id));
    }
    if kernel.pair_of(id)? {
        plan.push(Act::DeletePair(id));
    }
    Ok(plan)
}
