//! Which networks a container is on, and as what: `up` with words, `connect`, `disconnect`.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use bocker_common::diag::USAGE;
use bocker_common::say::Explain;
use bocker_common::{Error, Id, Result};
use nix::fcntl::FlockArg;

use crate::act::Act;
use crate::cable::{self, Cable};
use crate::kernel::Kernel;
use crate::namespace::{self, Directory};
use crate::network::{self, Network};
use crate::nft::Table;
use crate::state::{self, Attachment, Records, Step};
use crate::subnet::Mac;
use crate::words::{self, End, Name, Word, Words};
use crate::{bridge, guard, list, publish};

/// A container on a network.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) network: Network,
    pub(crate) attachment: Attachment,
    /// Something was chosen that does not follow from the id.
    chosen: bool,
}

/// All places that the words name, in the order of their interfaces.
///
/// # Errors
/// A network that is not there, or named twice; an address that is not to be had there.
pub(crate) fn places(id: Id, words: &Words) -> Result<Vec<Place>> {
    let mut places: Vec<Place> = Vec::new();
    let first = (&words.network, &words.end);
    for (word, end) in std::iter::once(first).chain(words.connect.iter().map(|one| (&one.network, &one.end))) {
        if places.iter().any(|place| place.network.name == word.to_string()) {
            return Err(Error::plain(format!("{id}: the network {word} is named twice")).status(USAGE));
        }
        if places.len() >= usize::from(cable::MOST) {
            return Err(Error::plain(format!("{id}: no more than {} networks", cable::MOST)).status(USAGE));
        }
        let number = places.len() as u8;
        places.push(place(id, network::find(word)?, end, words.name.as_ref(), number)?);
    }
    Ok(places)
}

fn place(id: Id, network: Network, end: &End, name: Option<&Name>, number: u8) -> Result<Place> {
    if network.name == network::DEFAULT && !end.aliases.is_empty() {
        return Err(Error::plain(format!("{id}: on the network {} nobody has a name", network.name))
            .hint("bocker-net network create NAME makes one where all have")
            .status(USAGE));
    }
    let address = match end.ip {
        Some(address) => network::within(&network, address)?,
        None => network.subnet.address(id).map_err(|e| match network.name == network::DEFAULT {
            true => e,
            false => {
                Error::plain(format!("{id}: {} of the network {} has no address for it", network.subnet, network.name))
                    .hint("ip= names one, and network create --subnet makes a wider one")
            }
        })?,
    };
    let address6 = match end.ip6 {
        Some(address) => Some(network::within6(&network, address)?),
        None => network.subnet6.map(|subnet| subnet.address(id)),
    };
    let mac = end.mac.unwrap_or_else(|| Mac::from(address));
    if mac == Mac::from(network.subnet.gateway()) {
        return Err(Error::plain(format!("{id}: {mac} is the gateway's on the network {}", network.name)));
    }
    let mut names = Vec::new();
    if network.name != network::DEFAULT {
        for name in name.into_iter().chain(&end.aliases) {
            let name = honest(id, name)?;
            if !names.contains(&name) {
                names.push(name);
            }
        }
    }
    let chosen = network.name != network::DEFAULT || *end != End::default();
    let attachment = Attachment { number, network: network.name.clone(), address, address6, mac, names };
    Ok(Place { network, attachment, chosen })
}

/// A name that means nobody else already.
fn honest(id: Id, name: &Name) -> Result<String> {
    let name = name.to_string();
    let lower = name.to_ascii_lowercase();
    let means = if lower == "localhost" || lower.starts_with("ip6-") {
        "the machine itself"
    } else if name.bytes().all(|c| c.is_ascii_digit() || c == b'.') {
        "an address"
    } else if name.parse::<Id>().is_ok_and(|other| other != id) {
        "another one's id"
    } else {
        return Ok(name);
    };
    Err(Error::plain(format!("{id}: '{name}' is no name for it: it is {means}")).status(USAGE))
}

/// Whether all of it follows from the id: then nothing is written down.
pub(crate) fn is_plain(places: &[Place]) -> bool {
    places.len() == 1 && places.iter().all(|place| !place.chosen)
}

/// Whether an address or a MAC of the default network is chosen: then nobody else may be attached to it meanwhile.
pub(crate) fn chooses_on_default(places: &[Place]) -> bool {
    places.iter().any(|place| place.chosen && place.network.name == network::DEFAULT)
}

pub(crate) fn attachments(places: &[Place]) -> Vec<Attachment> {
    places.iter().map(|place| place.attachment.clone()).collect()
}

/// The MTUs of the bridges, if all are ready. bridge0 is one of them: it is where forwarding is written down.
pub(crate) fn ready(kernel: &Kernel, places: &[Place]) -> Result<Option<Vec<u32>>> {
    let default = network::default()?;
    let Some(first) = bridge::ready(kernel, default.subnet)? else { return Ok(None) };
    let mtu = |place: &Place| {
        if place.network.name == network::DEFAULT { Ok(Some(first)) } else { place.network.ready(kernel) }
    };
    places.iter().map(mtu).collect()
}

/// The MTUs that the bridges would have, for a dry run.
pub(crate) fn mtus(kernel: &Kernel, places: &[Place]) -> Result<Vec<u32>> {
    let seen = bridge::see(kernel, None)?;
    Ok(places.iter().map(|place| place.network.mtu.unwrap_or(seen.mtu)).collect())
}

pub(crate) fn cables(id: Id, places: &[Place], mtus: &[u32]) -> Vec<Cable> {
    let cable = |(place, mtu): (&Place, &u32)| Cable {
        id,
        number: place.attachment.number,
        bridge: place.network.bridge.clone(),
        mac: place.attachment.mac,
        address: (place.attachment.address, place.network.subnet.prefix()),
        address6: place.attachment.address6.zip(place.network.subnet6.map(|subnet| subnet.prefix())),
        mtu: *mtu,
    };
    places.iter().zip(mtus).map(cable).collect()
}

/// The ways out: through the first network that has one.
pub(crate) fn routes<'a>(networks: impl Iterator<Item = &'a Network> + Clone) -> Vec<IpAddr> {
    let mut out = networks.filter(|network| !network.internal);
    let first = out.clone().next().map(|network| IpAddr::V4(network.subnet.gateway()));
    let six = out.find_map(|network| network.subnet6).map(|subnet| IpAddr::V6(subnet.gateway()));
    first.into_iter().chain(six).collect()
}

/// The lines that the container alone is told. The gateway is the first network's.
pub(crate) fn own_hosts(words: &Words, places: &[Place]) -> Vec<String> {
    let gateway = places.first().map(|place| IpAddr::V4(place.network.subnet.gateway()));
    let line = |host: &words::Host| Some(format!("{}\t{}", host.at.or(gateway)?, host.name));
    let named = places.iter().any(|place| crate::hosts::has_names(&place.attachment));
    words.hosts.iter().filter(|_| named).filter_map(line).collect()
}

/// The record of these places, and what the hosts files will say with it.
pub(crate) fn written(id: Id, all: Vec<Attachment>, before: Vec<Attachment>) -> Result<(Step, Option<Step>)> {
    let mut records: Records = state::live()?.into_iter().filter(|(other, _)| *other != id).collect();
    let named = all.iter().chain(&before).any(crate::hosts::has_names);
    records.push((id, all.clone()));
    records.sort_by_key(|(id, _)| *id);
    let hosts = if named { state::hosts_of(&records) } else { None };
    Ok((Step::Record(id, all, before), hosts))
}

/// `up` of one that gets no interface of ours.
///
/// # Errors
/// The other container is not up.
pub(crate) fn plan_elsewhere(id: Id, users: Option<u32>, network: &words::Network) -> Result<Vec<Act>> {
    let mut plan = Vec::new();
    if namespace::directory() == Directory::Plain {
        plan.push(Act::AddNames);
    }
    let address = match network {
        words::Network::Container(other) if *other == id => {
            return Err(Error::plain(format!("{id}: its own network is not there yet")).status(USAGE));
        }
        words::Network::Container(other) => {
            namespace::open(*other)?;
            plan.push(Act::BindNamespace(id, namespace::path(*other)));
            address(*other)
        }
        words::Network::Path(path) => {
            let file = namespace::open_path(path)?;
            plan.push(Act::BindNamespace(id, path.clone()));
            list::address(&file)
        }
        words::Network::Host => {
            plan.push(Act::BindNamespace(id, Path::new(namespace::OWN).into()));
            None
        }
        _ => {
            plan.extend([Act::AddNamespace(id, users), Act::Unprivileged(id), Act::LoopbackUp(id)]);
            None
        }
    };
    plan.push(Act::PrintAddress(address));
    Ok(plan)
}

/// The address that `up` printed.
pub(crate) fn address(id: Id) -> Option<Ipv4Addr> {
    if namespace::is_own(id) {
        return None;
    }
    list::address(&namespace::open(id).ok()?)
}

/// Where a container is now: what is written down, or what follows from its id.
fn now(kernel: &Kernel, id: Id) -> Result<Vec<Attachment>> {
    let written = state::read(id)?;
    if state::has_record(id) || !kernel.has_pair(&id.veth())? {
        return Ok(written);
    }
    let default = network::default()?;
    Ok(vec![place(id, default, &End::default(), None, 0)?.attachment])
}

/// Refuses one whose network is not its own.
fn own_network(id: Id) -> Result<()> {
    namespace::open(id)?;
    if namespace::is_own(id) {
        return Err(Error::plain(format!("{id}: its network is the host's")));
    }
    let cables = (0..cable::MOST).any(|number| Path::new("/sys/class/net").join(cable::outside(id, number)).exists());
    match namespace::shared_with(id).filter(|_| !cables) {
        Some(other) => {
            Err(Error::plain(format!("{id}: its network is shared with {other}")).hint(format!("name {other}")))
        }
        None => Ok(()),
    }
}

/// The networks of these attachments that are still there.
fn networks(all: &[Attachment]) -> Vec<Network> {
    all.iter().filter_map(|one| network::find(&one.network.parse().ok()?).ok()).collect()
}

/// `connect`: a further network for one that runs.
pub(crate) fn connect(
    id: Id,
    to: &words::Network,
    words: Vec<Word>,
    kernel: &mut Kernel,
    explain: Explain,
) -> Result<()> {
    let words = Words::of(words)?;
    if words != (Words { end: words.end.clone(), name: words.name.clone(), ..Words::default() }) {
        return Err(Error::plain("connect: of words there are ip=, ip6=, mac=, alias=, name=").status(USAGE));
    }
    let network = network::find(to)?;
    let _alone = bridge::lock(FlockArg::LockExclusive, explain)?;
    own_network(id)?;
    let before = now(kernel, id)?;
    if before.iter().any(|one| one.network == network.name) {
        return Err(Error::plain(format!("{id} is on the network {} already", network.name)));
    }
    let mut number = 0;
    while before.iter().any(|one| one.number == number) || kernel.has_pair(&cable::outside(id, number))? {
        number += 1;
        if number == cable::MOST {
            return Err(Error::plain(format!("{id}: no more than {number} networks")));
        }
    }
    let place = place(id, network, &words.end, words.name.as_ref(), number)?;
    let places = std::slice::from_ref(&place);
    state::check(id, &attachments(places), &state::live()?)?;
    make_ready(kernel, places, explain)?;
    let mtus = match ready(kernel, places)? {
        Some(mtus) => mtus,
        None => mtus(kernel, places)?,
    };
    if !explain.dry_run {
        kernel.enter(id)?;
    }
    let mut after = before.clone();
    after.push(place.attachment.clone());
    after.sort_by_key(|one| one.number);
    let ways_before = routes(networks(&before).iter());
    let ways = routes(std::iter::once(&place.network)).into_iter();
    let ways = ways.filter(|way| !ways_before.iter().any(|known| known.is_ipv4() == way.is_ipv4()));
    let (record, hosts) = written(id, after, before)?;
    let mut plan = vec![Act::State(record)];
    if explain.dry_run || Table::Bridge.has_elements() {
        plan.push(Act::Admit(id, guard::stations(id, &attachments(places))));
    }
    plan.extend(cables(id, places, &mtus).iter().flat_map(|cable| cable.plan(namespace::has_ipv6())));
    plan.extend(ways.map(|way| Act::DefaultRoute(id, way)));
    plan.extend(hosts.map(Act::State));
    crate::perform(kernel, &plan, explain)
}

/// `disconnect`
pub(crate) fn disconnect(id: Id, from: &words::Network, kernel: &mut Kernel, explain: Explain) -> Result<()> {
    let _alone = bridge::lock(FlockArg::LockExclusive, explain)?;
    own_network(id)?;
    let before = now(kernel, id)?;
    let name = from.to_string();
    let Some(leaves) = before.iter().find(|one| one.network == name).cloned() else {
        return Err(Error::plain(format!("{id} is not on the network {name}")));
    };
    if !explain.dry_run {
        kernel.enter(id)?;
    }
    let after: Vec<Attachment> = before.iter().filter(|one| **one != leaves).cloned().collect();
    let gone = routes(networks(&before).iter());
    let ways = routes(networks(&after).iter()).into_iter().filter(|way| !gone.contains(way));
    let mut plan = Vec::new();
    // Its address may be another's soon.
    if publish::of(id).iter().any(|port| port.to.ip() == leaves.address) {
        plan.extend(publish::plan_down(id, explain.dry_run || Table::Ip.has_elements()));
    }
    plan.push(Act::DeletePair(cable::outside(id, leaves.number)));
    if explain.dry_run || Table::Bridge.has_elements() {
        plan.push(Act::Expel(id, guard::stations(id, std::slice::from_ref(&leaves))));
    }
    plan.extend(ways.map(|way| Act::DefaultRoute(id, way)));
    let (record, hosts) = written(id, after, before)?;
    plan.push(Act::State(record));
    plan.extend(hosts.map(Act::State));
    crate::perform(kernel, &plan, explain)
}

/// Makes the bridges of named networks that are missing; bridge0 must be there.
///
/// # Errors
/// What keeps one from being made.
pub(crate) fn make_ready(kernel: &mut Kernel, places: &[Place], explain: Explain) -> Result<()> {
    for place in places.iter().filter(|place| place.network.name != network::DEFAULT) {
        // It may have been removed while we waited.
        if !network::exists(&place.network.name) {
            return Err(Error::plain(format!("no network {}", place.network.name)));
        }
        let seen = bridge::see(kernel, Some(network::default()?.subnet))?;
        let plan = place.network.plan(&seen)?;
        crate::perform(kernel, &plan, explain)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id() -> Id {
        "ps_42045".parse().unwrap()
    }

    fn back(more: &str) -> Network {
        network::parse("back", &format!("subnet=10.64.0.0/24\n{more}")).unwrap()
    }

    fn end(text: &str) -> End {
        let mut end = End::default();
        for word in text.split_whitespace() {
            let (key, value) = word.split_once('=').unwrap();
            assert!(end.take(key, value).unwrap());
        }
        end
    }

    #[test]
    fn what_is_not_said_follows_from_the_id() {
        let name: Name = "db".parse().unwrap();
        let place = place(id(), back("subnet6=fd00:1::/64"), &end("alias=sql alias=db"), Some(&name), 1).unwrap();
        assert_eq!(place.attachment.to_string(), "eth1\tback\t10.64.0.45\tfd00:1::2d\t02:42:0a:40:00:2d\tdb sql");
    }

    #[test]
    fn addresses_that_are_not_to_be_had_are_refused() {
        let at = |text: &str| place(id(), back("subnet6=fd00:1::/64"), &end(text), None, 0);
        assert_eq!(at("ip=10.64.0.99").unwrap().attachment.mac.to_string(), "02:42:0a:40:00:63");
        for bad in ["ip=10.64.1.45", "ip=10.64.0.0", "ip=10.64.0.1", "ip=10.64.0.255", "ip6=fd00:1::1", "ip6=fd00:2::2"]
        {
            assert!(at(bad).is_err(), "{bad}");
        }
        assert!(at("mac=02:42:0a:40:00:01").unwrap_err().to_string().contains("the gateway's"));
        assert!(place(id(), back(""), &end("ip6=fd00::2"), None, 0).unwrap_err().to_string().contains("has no IPv6"));
    }

    #[test]
    fn names_that_mean_somebody_else_are_refused() {
        for (name, is) in [
            ("web", true),
            ("ps_42045", true),
            ("ps_42046", false),
            ("localhost", false),
            ("LOCALHOST", false),
            ("ip6-localhost", false),
            ("10.0.0.1", false),
            ("1", false),
        ] {
            assert_eq!(honest(id(), &name.parse().unwrap()).is_ok(), is, "{name}");
        }
    }

    #[test]
    fn the_way_out_is_the_first_networks_that_has_one() {
        let (inside, open) = (back("internal=yes\nsubnet6=fd00:1::/64"), back(""));
        let other = network::parse("front", "subnet=10.65.0.0/24\nsubnet6=fd00:2::/64").unwrap();
        let ways = |all: &[&Network]| routes(all.iter().copied()).iter().map(IpAddr::to_string).collect::<Vec<_>>();
        assert!(ways(&[&inside]).is_empty());
        assert_eq!(ways(&[&inside, &open, &other]), ["10.64.0.1", "fd00:2::1"]);
        assert_eq!(ways(&[&other, &open]), ["10.65.0.1", "fd00:2::1"]);
    }
}
