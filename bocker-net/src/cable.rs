//! A cable: a veth pair, one end in a bridge, the other the container's interface.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bocker_common::Id;

use crate::act::Act;
use crate::subnet::Mac;

/// As many as there are letters and digits for their names.
pub(crate) const MOST: u8 = 18;

/// What an interface gets when its network says nothing else: Ethernet's 1500 bytes, as the kernel gives a veth.
pub(crate) const MTU: u32 = 1_500;

/// One of a container's cables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cable {
    pub(crate) id: Id,
    /// eth0 is 0.
    pub(crate) number: u8,
    pub(crate) bridge: String,
    pub(crate) mac: Mac,
    pub(crate) address: (Ipv4Addr, u8),
    pub(crate) address6: Option<(Ipv6Addr, u8)>,
    pub(crate) mtu: u32,
}

impl Cable {
    /// The end in the bridge: `veth0_ps_42045`, `veth2_ps_42045`, …
    pub(crate) fn outside(&self) -> String {
        outside(self.id, self.number)
    }

    /// The end in the container: `eth0`, `eth1`, …
    pub(crate) fn inside(&self) -> String {
        inside(self.number)
    }

    /// Its alternative name, which says whose it is: `veth1_ps_42045`, `veth3_ps_42045`, …
    pub(crate) fn altname(&self) -> String {
        end(self.id, 2 * self.number + 1)
    }

    /// Lays it. `ipv6`: whether the kernel has any.
    pub(crate) fn plan(&self, ipv6: bool) -> Vec<Act> {
        let mut plan = vec![Act::AddPair(self.clone())];
        if ipv6 {
            // Before there is a carrier, so no address has been made yet.
            plan.extend([Act::NoIpv6Outside(self.clone()), Act::Ipv6Inside(self.clone())]);
        }
        plan.push(Act::AltName(self.clone()));
        plan.push(Act::AddAddress(self.clone(), IpAddr::V4(self.address.0), self.address.1));
        plan.extend(self.address6.map(|(address, bits)| Act::AddAddress(self.clone(), IpAddr::V6(address), bits)));
        plan.push(Act::EthUp(self.clone()));
        plan
    }
}

pub(crate) fn outside(id: Id, number: u8) -> String {
    end(id, 2 * number)
}

/// How the names of all ends in a bridge begin.
pub(crate) fn all_ends() -> impl Iterator<Item = String> {
    (0..MOST).map(|number| format!("veth{}_ps_", digit(2 * number)))
}

pub(crate) fn inside(number: u8) -> String {
    format!("eth{number}")
}

/// One character, so that it fits an interface's name (15) with the longest id.
fn end(id: Id, number: u8) -> String {
    format!("veth{}_{id}", digit(number))
}

fn digit(number: u8) -> char {
    char::from_digit(u32::from(number), 36).unwrap_or('z')
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use bocker_common::Kind;
    use bocker_common::id::HIGHEST;

    use super::*;

    #[test]
    fn every_end_has_a_name_of_its_own_that_fits() {
        let id = Id::new(Kind::Container, HIGHEST).unwrap();
        let all: HashSet<String> = (0..2 * MOST).map(|number| end(id, number)).collect();
        assert_eq!(all.len(), usize::from(2 * MOST));
        assert!(all.iter().all(|name| name.len() <= 15));
        // The first pair's names are the script's.
        assert_eq!((outside(id, 0), end(id, 1)), (id.veth(), id.veth_peer()));
        assert_eq!(outside(id, 1), "veth2_ps_107534");
    }
}
