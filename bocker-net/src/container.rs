//! A container's part: namespace, cables, addresses, routes.

use std::net::IpAddr;

use bocker_common::{Id, Result};

use crate::act::Act;
use crate::cable::{self, Cable};
use crate::kernel::Kernel;
use crate::{namespace, state};

/// The script's lines 59 to 68. `users`: the first user id of the container, where the namespace is to belong to its users.
/// `routes`: the gateways of the default routes. `record`: what is written down, where that is more than follows from the id.
pub(crate) fn plan_up(
    id: Id,
    users: Option<u32>,
    cables: &[Cable],
    routes: &[IpAddr],
    ipv6: bool,
    record: Option<state::Step>,
) -> Vec<Act> {
    let mut plan = vec![Act::AddNamespace(id, users)];
    plan.extend(record.map(Act::State));
    plan.extend(cables.iter().flat_map(|cable| cable.plan(ipv6)));
    plan.extend([Act::Unprivileged(id), Act::LoopbackUp(id)]);
    plan.extend(routes.iter().map(|gateway| Act::DefaultRoute(id, *gateway)));
    plan
}

/// Tells the caller, last.
pub(crate) fn print(cables: &[Cable]) -> Act {
    Act::PrintAddress(cables.first().map(|cable| cable.address.0))
}

/// The script's lines 81 and 82, for what is there.
pub(crate) fn plan_down(id: Id, kernel: &Kernel) -> Result<Vec<Act>> {
    let mut plan = Vec::new();
    // The namespace first: a link inside it goes with it, and its other end too, within a millisecond or two.
    if namespace::exists(id) {
        plan.push(Act::DeleteNamespace(id));
    }
    if kernel.has_pair(&id.veth())? {
        plan.push(Act::DeletePair(id.veth()));
    }
    if state::has_record(id) {
        for number in 1..cable::MOST {
            let name = cable::outside(id, number);
            if kernel.has_pair(&name)? {
                plan.push(Act::DeletePair(name));
            }
        }
    }
    plan.extend(state::plan_remove(id)?.into_iter().map(Act::State));
    Ok(plan)
}
