//! Addresses and MACs as functions of a container's id.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use bocker_common::diag::USAGE;
use bocker_common::{Error, Id, Result};

/// An IPv4 network, /16 to /29; its first address is the gateway's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Subnet {
    base: Ipv4Addr,
    prefix: u8,
}

impl Default for Subnet {
    /// The script's 10.0.0.0/24.
    fn default() -> Self {
        Self { base: Ipv4Addr::new(10, 0, 0, 0), prefix: 24 }
    }
}

impl Subnet {
    /// `BOCKER_SUBNET`, or the default.
    pub(crate) fn from_environment() -> Result<Self> {
        match std::env::var_os("BOCKER_SUBNET").filter(|text| !text.is_empty()) {
            None => Ok(Self::default()),
            Some(text) => text.to_string_lossy().parse(),
        }
    }

    /// The bridge's address, the first of the subnet.
    pub(crate) fn gateway(self) -> Ipv4Addr {
        self.host(1)
    }

    /// The bridge's address with the prefix length, as `ip` has it: `10.0.0.1/24`.
    pub(crate) fn gateway_with_prefix(self) -> String {
        format!("{}/{}", self.gateway(), self.prefix)
    }

    /// The prefix length in bits.
    pub(crate) fn prefix(self) -> u8 {
        self.prefix
    }

    /// The container's address: base + id − 42000.
    ///
    /// # Errors
    /// The id is beyond the subnet's last host address.
    pub(crate) fn address(self, id: Id) -> Result<Ipv4Addr> {
        // All ones is the broadcast address.
        if id.host() < (1 << (32 - self.prefix)) - 1 {
            return Ok(self.host(id.host()));
        }
        Err(Error::plain(format!("{id}: {self} has no address for it"))
            .hint("BOCKER_SUBNET=10.0.0.0/16 has room for 65,533 containers"))
    }

    /// Whether the two networks share an address.
    pub(crate) fn overlaps(self, address: Ipv4Addr, prefix: u8) -> bool {
        let mask = u32::MAX.checked_shl(32 - u32::from(self.prefix.min(prefix))).unwrap_or(0);
        u32::from(self.base) & mask == u32::from(address) & mask
    }

    fn host(self, number: u32) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.base) | number)
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.prefix)
    }
}

impl FromStr for Subnet {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let usage = |why: &str| {
            let shown: String = text.chars().take(64).collect();
            Error::plain(format!("BOCKER_SUBNET='{shown}': {why} (as in 10.0.0.0/24)")).status(USAGE)
        };
        let (base, prefix) = text.split_once('/').ok_or_else(|| usage("no prefix length"))?;
        let base: Ipv4Addr = base.parse().map_err(|_| usage("not an IPv4 address"))?;
        let prefix = prefix
            .parse()
            .ok()
            .filter(|bits| (16..=29).contains(bits) && prefix.len() == 2)
            .ok_or_else(|| usage("the prefix length is not between 16 and 29"))?;
        if u32::from(base) & (u32::MAX >> prefix) != 0 {
            return Err(usage("bits of the host part are set"));
        }
        if base.is_loopback() || base.is_multicast() || base.octets()[0] == 0 || base.octets()[0] >= 240 {
            return Err(usage("not a network for hosts"));
        }
        Ok(Self { base, prefix })
    }
}

/// A MAC address: `02:42` (locally administered, as docker has it), then the IPv4 address.
///
/// With the address unique, so is this; and no neighbour has a stale entry when an address is used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mac(pub(crate) [u8; 6]);

impl Mac {
    /// Locally administered; then the four bytes of the IPv4 address.
    pub(crate) const PREFIX: [u8; 2] = [0x02, 0x42];
}

impl From<Ipv4Addr> for Mac {
    fn from(address: Ipv4Addr) -> Self {
        let ([x, y], [a, b, c, d]) = (Self::PREFIX, address.octets());
        Self([x, y, a, b, c, d])
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use bocker_common::Kind;
    use bocker_common::id::{FIRST, HIGHEST, LAST};

    use super::*;

    fn id(number: u32) -> Id {
        Id::new(Kind::Container, number).unwrap()
    }

    #[test]
    fn every_id_has_an_address_of_its_own() {
        let subnet = Subnet::default();
        let all: HashSet<_> = (FIRST..=LAST).map(|n| subnet.address(id(n)).unwrap()).collect();
        // The script dropped zeros: 42010 and 42100 were both 10.0.0.1, the gateway.
        assert_eq!(all.len(), 253);
        assert!(!all.contains(&subnet.gateway()));
        assert_eq!(subnet.address(id(42_045)).unwrap(), Ipv4Addr::new(10, 0, 0, 45));
        assert_eq!(subnet.address(id(42_100)).unwrap(), Ipv4Addr::new(10, 0, 0, 100));
    }

    #[test]
    fn an_id_beyond_the_subnet_is_refused() {
        let error = Subnet::default().address(id(LAST + 1)).unwrap_err().to_string();
        assert!(error.contains("ps_42255") && error.contains("10.0.0.0/24") && error.contains("BOCKER_SUBNET"));
        let wide: Subnet = "10.7.0.0/16".parse().unwrap();
        assert_eq!(wide.address(id(LAST + 1)).unwrap(), Ipv4Addr::new(10, 7, 0, 255));
        assert_eq!(wide.address(id(HIGHEST)).unwrap(), Ipv4Addr::new(10, 7, 255, 254));
        let narrow: Subnet = "10.7.0.8/29".parse().unwrap();
        assert_eq!(narrow.address(id(42_006)).unwrap(), Ipv4Addr::new(10, 7, 0, 14));
        assert!(narrow.address(id(42_007)).is_err());
    }

    #[test]
    fn only_networks_are_subnets() {
        for text in [
            "",
            "10.0.0.0",
            "10.0.0.1/24",
            "10.0.0.0/30",
            "10.0.0.0/15",
            "10.0.0.0/024",
            "10.0.0.0/+24",
            "10.0.0/24",
            "::/24",
            "127.0.0.0/24",
            "0.0.0.0/24",
            "224.0.0.0/24",
            "10.0.0.0/24 ",
        ] {
            assert_eq!(text.parse::<Subnet>().unwrap_err().exit_status(), USAGE, "{text:?}");
        }
    }

    #[test]
    fn overlap_is_seen_from_both_sides() {
        let subnet = Subnet::default();
        for (address, prefix) in [([10, 0, 0, 9], 24), ([10, 0, 0, 9], 32), ([10, 200, 0, 1], 8), ([9, 9, 9, 9], 0)] {
            assert!(subnet.overlaps(address.into(), prefix), "{address:?}/{prefix}");
        }
        for (address, prefix) in [([10, 0, 1, 1], 24), ([192, 168, 0, 1], 16)] {
            assert!(!subnet.overlaps(address.into(), prefix), "{address:?}/{prefix}");
        }
    }

    #[test]
    fn a_mac_is_the_address() {
        assert_eq!(Mac::from(Ipv4Addr::new(10, 0, 0, 45)).to_string(), "02:42:0a:00:00:2d");
    }
}
