//! The host's IPv4 routes, /proc/net/route: what a subnet may not hide, and which interface is the way out.

use std::net::Ipv4Addr;

/// A line of it: of the main table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) interface: String,
    pub(crate) destination: Ipv4Addr,
    pub(crate) prefix: u8,
    metric: u32,
}

/// All of them; none where the kernel does not say.
pub(crate) fn all() -> Vec<Route> {
    parse(&std::fs::read_to_string("/proc/net/route").unwrap_or_default())
}

fn parse(text: &str) -> Vec<Route> {
    let line = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [interface, destination, _, _, _, _, metric, mask, ..] = words[..] else { return None };
        // As the bytes lie in memory.
        let address = |hex| Some(Ipv4Addr::from(u32::from_str_radix(hex, 16).ok()?.to_ne_bytes()));
        Some(Route {
            interface: interface.into(),
            destination: address(destination)?,
            prefix: u32::from(address(mask)?).leading_ones() as u8,
            metric: metric.parse().ok()?,
        })
    };
    text.lines().skip(1).filter_map(line).collect()
}

/// The interface of the default route: of several, of the one with the lowest metric.
pub(crate) fn uplink(routes: &[Route]) -> Option<&str> {
    let ways = routes.iter().filter(|route| route.prefix == 0);
    ways.min_by_key(|route| route.metric).map(|route| route.interface.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_table_is_read() {
        let header = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n";
        let text = format!(
            "{header}wlan0\t00000000\t0101A8C0\t0003\t0\t0\t600\t00000000\t0\t0\t0\n\
             eth0\t00000000\t0100A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0\n\
             eth0\t0000A8C0\t00000000\t0001\t0\t0\t100\t00FFFFFF\t0\t0\t0\n"
        );
        let routes = parse(&text);
        assert_eq!(uplink(&routes), Some("eth0"));
        assert_eq!((routes[2].destination, routes[2].prefix), (Ipv4Addr::new(192, 168, 0, 0), 24));
        assert_eq!(uplink(&parse(header)), None);
    }
}
