//! Addresses and MACs as functions of a container's id.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use bocker_common::diag::USAGE;
use bocker_common::id::BASE;
use bocker_common::{Error, Id, Kind, Result};

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
            Some(text) => text.to_string_lossy().parse().map_err(|e| of_variable("BOCKER_SUBNET", &e)),
        }
    }

    /// The network of this length around an address.
    pub(crate) fn around(address: Ipv4Addr, prefix: u8) -> Self {
        Self { base: Ipv4Addr::from(u32::from(address) & !(u32::MAX >> prefix)), prefix }
    }

    /// The address itself, if a container may have it: within, and neither the network's, the gateway's nor everybody's.
    pub(crate) fn is_for_a_host(self, address: Ipv4Addr) -> bool {
        let number = u32::from(address) & (u32::MAX >> self.prefix);
        self.overlaps(address, 32) && (2..u32::MAX >> self.prefix).contains(&number)
    }

    /// The bridge's address, the first of the subnet.
    pub(crate) fn gateway(self) -> Ipv4Addr {
        self.host(1)
    }

    /// The last address that a container can have.
    pub(crate) fn last(self) -> Ipv4Addr {
        self.host((1 << (32 - self.prefix)) - 2)
    }

    /// The subnet whose gateway this is, as `10.0.0.1/24`.
    pub(crate) fn of_gateway(text: &str) -> Option<Self> {
        let (address, prefix) = text.split_once('/')?;
        let base = u32::from(address.parse::<Ipv4Addr>().ok()?).checked_sub(1)?;
        format!("{}/{prefix}", Ipv4Addr::from(base)).parse().ok()
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

    /// Whose address it is, if it is that of a container.
    pub(crate) fn id_of(self, address: Ipv4Addr) -> Option<Id> {
        let number = u32::from(address) & (u32::MAX >> self.prefix);
        if self.is_for_a_host(address) { Id::new(Kind::Container, BASE + number) } else { None }
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
            Error::plain(format!("'{shown}': {why} (as in 10.0.0.0/24)")).status(USAGE)
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

/// The error of a parser about what an environment variable says.
fn of_variable(name: &str, error: &Error) -> Error {
    Error::plain(format!("{name}={error}")).status(USAGE)
}

/// An IPv6 network, /48 to /112; its first address is the gateway's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Subnet6 {
    base: Ipv6Addr,
    prefix: u8,
}

impl Subnet6 {
    /// The subnet whose gateway this is, as `fd00::1/64`.
    pub(crate) fn of_gateway(text: &str) -> Option<Self> {
        let (address, prefix) = text.split_once('/')?;
        let base = u128::from(address.parse::<Ipv6Addr>().ok()?).checked_sub(1)?;
        format!("{}/{prefix}", Ipv6Addr::from(base)).parse().ok()
    }

    /// `BOCKER_SUBNET6`: without it bridge0 has no IPv6.
    pub(crate) fn from_environment() -> Result<Option<Self>> {
        let text = std::env::var_os("BOCKER_SUBNET6").filter(|text| !text.is_empty());
        text.map(|text| text.to_string_lossy().parse().map_err(|e| of_variable("BOCKER_SUBNET6", &e))).transpose()
    }

    /// The bridge's address.
    pub(crate) fn gateway(self) -> Ipv6Addr {
        self.host(1)
    }

    /// As `ip` has it: `fd00::1/64`.
    pub(crate) fn gateway_with_prefix(self) -> String {
        format!("{}/{}", self.gateway(), self.prefix)
    }

    /// The prefix length in bits.
    pub(crate) fn prefix(self) -> u8 {
        self.prefix
    }

    /// The container's address: base + id − 42000. Every id has one.
    pub(crate) fn address(self, id: Id) -> Ipv6Addr {
        self.host(id.host())
    }

    /// Whose address it is, if it follows from an id.
    pub(crate) fn id_of(self, address: Ipv6Addr) -> Option<Id> {
        let number = u128::from(address).checked_sub(u128::from(self.base))?;
        Id::new(Kind::Container, BASE.checked_add(u32::try_from(number).ok()?)?)
    }

    /// The address itself, if a container may have it.
    pub(crate) fn is_for_a_host(self, address: Ipv6Addr) -> bool {
        let mask = u128::MAX >> self.prefix;
        (u128::from(address) ^ u128::from(self.base)) & !mask == 0 && u128::from(address) & mask > 1
    }

    /// Whether the two networks share an address.
    pub(crate) fn overlaps(self, other: Self) -> bool {
        (u128::from(self.base) ^ u128::from(other.base)) & !(u128::MAX >> self.prefix.min(other.prefix)) == 0
    }

    fn host(self, number: u32) -> Ipv6Addr {
        Ipv6Addr::from(u128::from(self.base) | u128::from(number))
    }
}

impl fmt::Display for Subnet6 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.prefix)
    }
}

impl FromStr for Subnet6 {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let usage = |why: &str| {
            let shown: String = text.chars().take(64).collect();
            Error::plain(format!("'{shown}': {why} (as in fd00:42::/64)")).status(USAGE)
        };
        let (base, prefix) = text.split_once('/').ok_or_else(|| usage("no prefix length"))?;
        let base: Ipv6Addr = base.parse().map_err(|_| usage("not an IPv6 address"))?;
        let digits = prefix.bytes().all(|c| c.is_ascii_digit()) && !prefix.starts_with('0');
        let prefix = prefix
            .parse()
            .ok()
            .filter(|bits| digits && (48..=112).contains(bits))
            .ok_or_else(|| usage("the prefix length is not between 48 and 112"))?;
        if u128::from(base) & (u128::MAX >> prefix) != 0 {
            return Err(usage("bits of the host part are set"));
        }
        // Loopback and mapped addresses begin with zeros; link-local ones are every link's.
        if base.is_multicast() || base.segments()[0] == 0 || base.segments()[0] & 0xffc0 == 0xfe80 {
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

    /// The address that it follows from, if it is one of ours.
    pub(crate) fn address(self) -> Option<Ipv4Addr> {
        let [x, y, rest @ ..] = self.0;
        ([x, y] == Self::PREFIX).then(|| rest.into())
    }
}

impl From<Ipv4Addr> for Mac {
    fn from(address: Ipv4Addr) -> Self {
        let ([x, y], [a, b, c, d]) = (Self::PREFIX, address.octets());
        Self([x, y, a, b, c, d])
    }
}

impl FromStr for Mac {
    type Err = Error;

    /// Six bytes of two digits; of one station, and not of nobody.
    fn from_str(text: &str) -> Result<Self> {
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        let whole = bytes.iter_mut().all(|byte| {
            let part = parts.next().filter(|part| part.len() == 2 && part.bytes().all(|c| c.is_ascii_hexdigit()));
            part.and_then(|part| u8::from_str_radix(part, 16).ok()).map(|read| *byte = read).is_some()
        });
        match whole && parts.next().is_none() && bytes != [0; 6] && bytes[0] & 1 == 0 {
            true => Ok(Self(bytes)),
            false => {
                let shown: String = text.chars().take(64).collect();
                let line = format!("'{shown}': not the MAC address of a station (as 02:42:0a:00:00:2d)");
                Err(Error::plain(line).status(USAGE))
            }
        }
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
    fn a_gateway_says_its_subnet() {
        for text in ["10.0.0.0/24", "10.7.0.8/29", "10.20.0.0/16"] {
            let subnet: Subnet = text.parse().unwrap();
            assert_eq!(Subnet::of_gateway(&subnet.gateway_with_prefix()), Some(subnet));
        }
        assert_eq!(Subnet::of_gateway("10.0.0.9/24"), None);
        assert_eq!(Subnet::default().last(), Ipv4Addr::new(10, 0, 0, 254));
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
    fn an_address_of_ones_own_is_one_of_a_host() {
        let subnet: Subnet = "10.7.0.8/29".parse().unwrap();
        for (last, is) in [(7, false), (8, false), (9, false), (10, true), (14, true), (15, false), (16, false)] {
            assert_eq!(subnet.is_for_a_host([10, 7, 0, last].into()), is, "{last}");
        }
        let subnet: Subnet6 = "fd00:1::/64".parse().unwrap();
        for (text, is) in [
            ("fd00:1::", false),
            ("fd00:1::1", false),
            ("fd00:1::2", true),
            ("fd00:1::ffff:0:0:1", true),
            ("fd00:1:0:1::2", false),
        ] {
            assert_eq!(subnet.is_for_a_host(text.parse().unwrap()), is, "{text}");
        }
    }

    #[test]
    fn ipv6_is_the_same_function() {
        let subnet: Subnet6 = "fd00:1::/112".parse().unwrap();
        assert_eq!(subnet.address(id(42_045)).to_string(), "fd00:1::2d");
        assert_eq!(subnet.address(id(HIGHEST)).to_string(), "fd00:1::fffe");
        assert_eq!(subnet.gateway_with_prefix(), "fd00:1::1/112");
        assert!(subnet.overlaps("fd00:1::/64".parse().unwrap()));
        assert!(!subnet.overlaps("fd00:2::/64".parse().unwrap()));
        assert_eq!(subnet.id_of("fd00:1::2d".parse().unwrap()), Some(id(42_045)));
        assert_eq!(subnet.id_of("fd00:1::1".parse().unwrap()), None);
        for text in [
            "",
            "fd00::",
            "fd00::1/64",
            "fd00::/113",
            "fd00::/47",
            "fd00::/064",
            "fe80::/64",
            "ff02::/64",
            "::/64",
            "10.0.0.0/24",
            "fd00::/64 ",
        ] {
            assert_eq!(text.parse::<Subnet6>().unwrap_err().exit_status(), USAGE, "{text:?}");
        }
    }

    #[test]
    fn a_mac_is_the_address() {
        let address = Ipv4Addr::new(10, 0, 0, 45);
        assert_eq!(Mac::from(address).to_string(), "02:42:0a:00:00:2d");
        assert_eq!("02:42:0a:00:00:2d".parse::<Mac>().unwrap().address(), Some(address));
        assert_eq!("02:43:0a:00:00:2d".parse::<Mac>().unwrap().address(), None);
        assert_eq!(Subnet::default().id_of(address), Some(id(42_045)));
        assert_eq!(Subnet::default().id_of([10, 0, 0, 1].into()), None);
    }
}
