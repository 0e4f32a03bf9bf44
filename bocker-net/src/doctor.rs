//! `doctor`: what a network of containers needs of this host, and what stands in its way. Nothing of the host is changed: what can
//! only be found out by doing it is done in a network namespace of our own, which goes with this process.

use std::io::{self, Write};
use std::path::Path;
use std::process::{Command, ExitCode};
use std::rc::Rc;

use bocker_common::diag::printable;
use bocker_common::entry::need_root;
use bocker_common::{Error, Id, Result};
use nix::sched::{CloneFlags, unshare};
use rtnetlink::packet_route::link::{InfoData, InfoKind, InfoVeth};
use rtnetlink::{LinkBridge, LinkMessageBuilder, LinkUnspec, LinkVeth};
use serde_json::Value;
use tokio::runtime::Builder;

use crate::bridge::{self, BRIDGE};
use crate::kernel::Kernel;
use crate::netlink::{Answer, Netlink};
use crate::network::{self, Network};
use crate::subnet::Subnet;
use crate::{namespace, nft, route, state};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Grade {
    Ok,
    Warn,
    Bad,
}

impl Grade {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Bad => "bad",
        }
    }
}

/// Prints `ok|warn|bad`, what, and the state with the way out, a line each. Status 1 where something is bad.
///
/// # Errors
/// Not root; the kernel does not answer; stdout.
pub(crate) fn doctor() -> Result<ExitCode> {
    need_root("doctor")?;
    let mut worst = false;
    let mut say = |grade: Grade, what: &str, detail: &str| {
        worst |= grade == Grade::Bad;
        writeln!(io::stdout(), "{}\t{what}\t{}", grade.word(), printable(detail)).map_err(|e| Error::stdout(&e))
    };
    let subnet = Subnet::from_environment()?;
    let kernel = Kernel::open()?;
    let seen = bridge::see(&kernel, Some(subnet))?;

    let (grade, detail) = match bridge::ready(&kernel, subnet) {
        Ok(Some(mtu)) => (Grade::Ok, format!("{BRIDGE} is there with {}, MTU {mtu}", subnet.gateway_with_prefix())),
        Ok(None) => (Grade::Ok, format!("no {BRIDGE} yet: the first run makes it, or bocker-net setup")),
        Err(e) => (Grade::Bad, e.to_string()),
    };
    let made = grade == Grade::Ok && seen.links.iter().any(|link| link.name == BRIDGE);
    say(grade, "bridge", &detail)?;
    if made {
        let missing = bridge::plan_setup(&seen, subnet).map(|mut plan| {
            plan.extend(network::plan_repair(&seen.world.networks));
            plan
        });
        match missing {
            Ok(plan) if plan.is_empty() => say(Grade::Ok, "setup", "whole")?,
            Ok(_) => say(
                Grade::Bad,
                "setup",
                "something was taken away (bocker-net setup puts it back, --dry-run says what)",
            )?,
            Err(e) => say(Grade::Bad, "setup", &e.to_string())?,
        }
    }
    match (seen.forwarding, made) {
        (true, _) => say(Grade::Ok, "forwarding", "net.ipv4.ip_forward is 1")?,
        (false, false) => say(Grade::Ok, "forwarding", "net.ipv4.ip_forward is 0; setup turns it on")?,
        (false, true) => {
            say(
                Grade::Bad,
                "forwarding",
                "net.ipv4.ip_forward is 0: containers reach this host only (bocker-net setup)",
            )?;
        }
    }
    ipv6(&mut say)?;
    let networks = match network::named() {
        Ok(networks) => networks,
        Err(e) => {
            say(Grade::Bad, "networks", &e.to_string())?;
            Vec::new()
        }
    };
    clashes(&network::default()?, &networks, &mut say)?;
    let bridges: Vec<String> =
        std::iter::once(BRIDGE.to_owned()).chain(networks.iter().map(|network| network.bridge.clone())).collect();
    walls(&bridges, &mut say)?;
    left(&seen, &mut say)?;
    // Last, for there is no way back from it.
    pieces(&mut say)?;
    Ok(ExitCode::from(u8::from(worst)))
}

fn ipv6(say: &mut impl FnMut(Grade, &str, &str) -> Result<()>) -> Result<()> {
    let Some(subnet) = network::default()?.subnet6 else {
        return say(
            Grade::Ok,
            "IPv6",
            "off: containers on bridge0 have none (BOCKER_SUBNET6, network create --subnet6)",
        );
    };
    match network::read_sysctl("all", "forwarding").as_deref() {
        None => {
            say(Grade::Bad, "IPv6", &format!("{subnet} is wanted, and the kernel has no IPv6 (unset BOCKER_SUBNET6)"))
        }
        Some("1") => say(Grade::Ok, "IPv6", &format!("{subnet}, and forwarding is on")),
        Some(_) => say(Grade::Warn, "IPv6", &format!("{subnet}, and forwarding is off (bocker-net setup turns it on)")),
    }
}

/// Routes of the host's that a subnet would hide.
fn clashes(default: &Network, named: &[Network], say: &mut impl FnMut(Grade, &str, &str) -> Result<()>) -> Result<()> {
    let routes = route::all();
    let mut clean = true;
    for network in std::iter::once(default).chain(named) {
        let subnet = network.subnet;
        let others = routes.iter().filter(|route| route.prefix != 0 && route.interface != network.bridge);
        for other in others.filter(|route| subnet.overlaps(route.destination, route.prefix)) {
            clean = false;
            let (to, by) = (format!("{}/{}", other.destination, other.prefix), &other.interface);
            // A narrower route takes from us, a wider one loses to us.
            let grade = if other.prefix >= subnet.prefix() { Grade::Bad } else { Grade::Warn };
            let detail = format!(
                "{subnet} of the network {} overlaps the route to {to} by {by} (BOCKER_SUBNET, network create --subnet)",
                network.name
            );
            say(grade, "subnet", &detail)?;
        }
    }
    if clean { say(Grade::Ok, "subnet", &format!("{} clashes with no route", default.subnet)) } else { Ok(()) }
}

/// Others' rules that drop what is forwarded, and know nothing of our bridges.
fn walls(bridges: &[String], say: &mut impl FnMut(Grade, &str, &str) -> Result<()>) -> Result<()> {
    let ruleset = nft::nft(&["-j", "list", "ruleset"], "").and_then(Result::ok).unwrap_or_default();
    let mut found = dropping(&ruleset, bridges);
    found.extend(legacy(bridges));
    for (chain, way_out) in &found {
        say(Grade::Bad, "firewall", &format!("{chain} drops what is forwarded, containers' packets too ({way_out})"))?;
    }
    if found.is_empty() { say(Grade::Ok, "firewall", "no chain of others drops what we forward") } else { Ok(()) }
}

/// Of nft's JSON: the chains on the forward hook whose policy is drop, without a rule that accepts from one of these bridges.
fn dropping(ruleset: &str, bridges: &[String]) -> Vec<(String, String)> {
    let Ok(Value::Object(all)) = serde_json::from_str(ruleset) else { return Vec::new() };
    let items: Vec<&Value> = all.get("nftables").and_then(Value::as_array).into_iter().flatten().collect();
    let text = |value: &Value, key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let rules: Vec<&Value> = items.iter().filter_map(|item| item.get("rule")).collect();
    let chains = items.iter().filter_map(|item| item.get("chain"));
    let walls = chains.filter(|chain| text(chain, "hook") == "forward" && text(chain, "policy") == "drop");
    let ours = walls.filter(|chain| text(chain, "table") != "bocker" && text(chain, "family") != "bridge");
    let open = |chain: &Value| {
        rules.iter().any(|rule| {
            let same = ["family", "table"].iter().all(|key| text(rule, key) == text(chain, key));
            let said = rule.to_string();
            let is_ours = bridges.iter().any(|bridge| said.contains(&format!("\"{bridge}\"")));
            same && text(rule, "chain") == text(chain, "name") && is_ours && said.contains("\"accept\"")
        })
    };
    ours.filter(|chain| !open(chain))
        .map(|chain| {
            let name = format!("{} {} {}", text(chain, "family"), text(chain, "table"), text(chain, "name"));
            let way_out = format!(
                "nft insert rule {name} iifname {BRIDGE} accept; nft insert rule {name} oifname {BRIDGE} ct state established,related accept"
            );
            (format!("the chain {name}"), way_out)
        })
        .collect()
}

/// What nft does not see: the rules of the old iptables.
fn legacy(bridges: &[String]) -> Vec<(String, String)> {
    let in_use = std::fs::read_to_string("/proc/net/ip_tables_names").is_ok_and(|names| names.contains("filter"));
    let program =
        ["/usr/sbin/iptables-legacy", "/sbin/iptables-legacy"].into_iter().find(|path| Path::new(path).exists());
    let Some(program) = program.filter(|_| in_use) else { return Vec::new() };
    let Ok(output) = Command::new(program).args(["-S", "FORWARD"]).env_clear().output() else { return Vec::new() };
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let open = said
        .lines()
        .any(|line| bridges.iter().any(|bridge| line.contains(bridge.as_str())) && line.ends_with("ACCEPT"));
    if !said.lines().any(|line| line == "-P FORWARD DROP") || open {
        return Vec::new();
    }
    let name = program.rsplit('/').next().unwrap_or(program);
    let way_out = format!(
        "{name} -I FORWARD -i {BRIDGE} -j ACCEPT; {name} -I FORWARD -o {BRIDGE} -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT"
    );
    vec![(format!("the chain FORWARD of {name}"), way_out)]
}

/// What a crash left.
fn left(seen: &bridge::Seen, say: &mut impl FnMut(Grade, &str, &str) -> Result<()>) -> Result<()> {
    let mut found: Vec<(String, String)> = Vec::new();
    let mut down = |what: String, id: Id| found.push((what, format!("bocker-net down {id}")));
    for id in namespace::all()?.into_iter().filter(|id| namespace::open_path(&namespace::path(*id)).is_err()) {
        down(format!("{} is a name without a namespace", id.netns()), id);
    }
    for id in state::all()?.into_iter().filter(|id| !namespace::exists(*id)) {
        down(format!("{} is written down, and {id} is not up", state::directory(id).display()), id);
    }
    for link in seen.links.iter().filter(|link| link.kind == Some(InfoKind::Veth)) {
        let id = link.name.strip_prefix("veth").and_then(|rest| rest.split_once('_')?.1.parse::<Id>().ok());
        if let Some(id) = id.filter(|id| !namespace::exists(*id)) {
            down(format!("{} is a cable, and {id} is not up", link.name), id);
        }
    }
    for link in &seen.links {
        let name = link.alias.as_deref().and_then(|alias| alias.strip_prefix("bocker network ")?.split(' ').next());
        if let Some(name) = name.filter(|name| !network::exists(name)) {
            let what = format!("{} is the bridge of the network {name}, which is no more", link.name);
            found.push((what, format!("ip link delete {}", link.name)));
        }
    }
    for (what, way_out) in &found {
        say(Grade::Warn, "left behind", &format!("{what} ({way_out})"))?;
    }
    if found.is_empty() { say(Grade::Ok, "left behind", "nothing") } else { Ok(()) }
}

/// What the kernel can do, by doing it where nobody sees it.
fn pieces(say: &mut impl FnMut(Grade, &str, &str) -> Result<()>) -> Result<()> {
    if let Err(errno) = unshare(CloneFlags::CLONE_NEWNET) {
        return say(Grade::Bad, "namespaces", &format!("{} (CONFIG_NET_NS)", errno.desc()));
    }
    say(Grade::Ok, "namespaces", "a network namespace can be made")?;
    let runtime = Builder::new_current_thread().enable_io().build().map_err(|e| Error::new("start", "tokio", e))?;
    let netlink = Netlink::open(&Rc::new(runtime)).map_err(|e| Error::new("open", "netlink socket", e))?;
    let veth = || {
        let peer = LinkMessageBuilder::<LinkUnspec>::new().name("b").build();
        let data = InfoData::Veth(InfoVeth::Peer(peer));
        let message = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth).name("a");
        netlink.add_link(message.set_info_data(data).build())
    };
    let mut piece = |what: &str, done: Answer<()>, config: &str| match done {
        Ok(()) => say(Grade::Ok, what, "can be made"),
        Err(errno) => say(Grade::Bad, what, &format!("{} ({config})", errno.desc())),
    };
    piece("link bridge", netlink.add_link(LinkBridge::new("c").build()), "CONFIG_BRIDGE, or modprobe bridge")?;
    piece("link veth", veth(), "CONFIG_VETH, or modprobe veth")?;
    let nat = "add chain FAMILY x a { type nat hook postrouting priority srcnat; }\nadd rule FAMILY x a masquerade\n";
    let filter = "add chain FAMILY x a { type filter hook forward priority 0; }\nadd rule FAMILY x a drop\n";
    for (family, rules, without) in [
        ("ip", nat, "containers will not reach beyond this host: CONFIG_NFT_MASQ"),
        ("ip6", nat, "with BOCKER_SUBNET6 containers will not reach beyond this host by IPv6: CONFIG_NFT_MASQ"),
        (
            "bridge",
            filter,
            "containers on one bridge are not kept from speaking for each other: CONFIG_NF_TABLES_BRIDGE",
        ),
    ] {
        let text = format!("add table FAMILY x\n{rules}").replace("FAMILY", family);
        let what = format!("nft {family}");
        match nft::nft(&["-f", "-"], &text) {
            Some(Ok(_)) => say(Grade::Ok, &what, "takes our rules")?,
            Some(Err(why)) => say(Grade::Warn, &what, &format!("{why} ({without})"))?,
            None => {
                say(Grade::Warn, &what, "no nft on this host (install nftables: without it no NAT, no named networks)")?
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wall_without_a_door_for_us_is_found() {
        let chain = |table: &str, policy: &str| {
            format!(
                r#"{{"chain": {{"family": "ip", "table": "{table}", "name": "FORWARD", "type": "filter", "hook": "forward", "prio": 0, "policy": "{policy}"}}}}"#
            )
        };
        let rule = |interface: &str, verdict: &str| {
            format!(
                r#"{{"rule": {{"family": "ip", "table": "filter", "chain": "FORWARD", "expr": [{{"match": {{"op": "==", "left": {{"meta": {{"key": "iifname"}}}}, "right": "{interface}"}}}}, {{"{verdict}": null}}]}}}}"#
            )
        };
        let found = |items: &[String]| {
            dropping(&format!(r#"{{"nftables": [{}]}}"#, items.join(",")), &[BRIDGE.to_owned(), "bkr_back".to_owned()])
        };
        assert_eq!(found(&[chain("filter", "accept")]), []);
        assert_eq!(found(&[chain("bocker", "drop")]), []);
        let wall = found(&[chain("filter", "drop"), rule("docker0", "accept"), rule("bridge0", "drop")]);
        assert_eq!(wall.len(), 1);
        assert!(wall[0].0.contains("ip filter FORWARD") && wall[0].1.contains("nft insert rule ip filter FORWARD"));
        assert_eq!(found(&[chain("filter", "drop"), rule("bridge0", "accept")]), []);
        assert_eq!(found(&[]), []);
        assert_eq!(dropping("not JSON", &[]), []);
    }
}
