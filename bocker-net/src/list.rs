//! `list`: the names in /run/netns are the record; the addresses are what the kernel has inside.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::net::Ipv4Addr;
use std::rc::Rc;

use bocker_common::entry::need_root;
use bocker_common::id::BUSY;
use bocker_common::say::Explain;
use bocker_common::{Error, Id, Result};
use serde::Serialize;
use tokio::runtime::{Builder, Runtime};

use crate::act::ETH;
use crate::netlink::{Answer, Netlink};
use crate::publish::Port;
use crate::subnet::Mac;
use crate::words::Ports;
use crate::{guard, namespace, publish, state};

#[derive(Serialize)]
struct Entry {
    id: String,
    address: Option<String>,
    mac: Option<String>,
    /// As `docker ps` has them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ports: Vec<String>,
    /// Whether a process is in it; None: nobody asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    busy: Option<bool>,
}

/// Prints the table.
///
/// # Errors
/// Not root, or stdout cannot be written to; a closed pipe is none.
pub(crate) fn list(json: bool, busy: bool) -> Result<()> {
    need_root("list")?;
    guard::restore(Explain::default())?;
    // Before we look into any of them ourselves.
    let inhabited = if busy { Some(namespace::inhabited()?) } else { None };
    let runtime = Builder::new_current_thread().enable_io().build().map_err(|e| Error::new("start", "tokio", e))?;
    let runtime = Rc::new(runtime);
    let mut out = BufWriter::new(io::stdout().lock());
    let mut print = || -> io::Result<()> {
        // Of what a crash left, only what is written down may be left.
        let mut ids = namespace::all().map_err(io::Error::other)?;
        ids.extend(state::all().map_err(io::Error::other)?);
        ids.sort();
        ids.dedup();
        for id in ids {
            // The host's own namespace has processes in it anyway.
            let busy = |all| !namespace::is_own(id) && namespace::is_among(id, all);
            let entry = Entry { busy: inhabited.as_ref().map(busy), ..look(id, &runtime) };
            if json {
                serde_json::to_writer(&mut out, &entry)?;
                writeln!(out)?;
            } else {
                let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".into());
                let busy = if entry.busy == Some(true) { format!("\t{BUSY}") } else { String::new() };
                let ports = if entry.ports.is_empty() { String::new() } else { format!("\t{}", entry.ports.join(",")) };
                writeln!(out, "{}\t{}\t{}{ports}{busy}", entry.id, or_dash(entry.address), or_dash(entry.mac))?;
            }
        }
        out.flush()
    };
    match print() {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => Err(Error::new("list", "containers", e)),
        _ => Ok(()),
    }
}

/// The address of eth0 in a namespace.
pub(crate) fn address(namespace: &File) -> Option<Ipv4Addr> {
    let runtime = Rc::new(Builder::new_current_thread().enable_io().build().ok()?);
    namespace::visit(namespace, || inside(&runtime)).ok()?.ok()?.0
}

fn inside(runtime: &Rc<Runtime>) -> Answer<(Option<Ipv4Addr>, Option<Mac>)> {
    let netlink = Netlink::open(runtime)?;
    let link = netlink.link(ETH)?;
    let index = link.as_ref().map(|link| link.index);
    let address = netlink.addresses()?.iter().find(|a| Some(a.index) == index).map(|a| a.address);
    Ok((address, link.and_then(|link| <[u8; 6]>::try_from(link.mac).ok()).map(Mac)))
}

/// Without address and MAC where the namespace is not, or no longer, what `up` made.
fn look(id: Id, runtime: &Rc<Runtime>) -> Entry {
    // In the host's own, eth0 is not the container's.
    let (address, mac) = namespace::open(id)
        .ok()
        .filter(|_| !namespace::is_own(id))
        .and_then(|file| namespace::visit(&file, || inside(runtime)).ok()?.ok())
        .unwrap_or_default();
    Entry {
        id: id.to_string(),
        address: address.map(|a| a.to_string()),
        mac: mac.map(|m| m.to_string()),
        ports: publish::of(id).iter().map(Port::arrow).collect(),
        busy: None,
    }
}

/// Where the container's ports are: `80/tcp -> 0.0.0.0:8080` a line, or of those asked for, the address alone.
///
/// # Errors
/// Not root; what is asked for is not published.
pub(crate) fn ports(id: Id, asked: Option<Ports>) -> Result<()> {
    need_root("port")?;
    guard::restore(Explain::default())?;
    let mut out = BufWriter::new(io::stdout().lock());
    let mut any = false;
    for port in publish::of(id) {
        let line = match &asked {
            None => format!("{}/{} -> {}", port.to.port(), port.protocol, port.at),
            Some(asked) if asked.protocol == port.protocol && asked.ports.contains(&port.to.port()) => {
                port.at.to_string()
            }
            Some(_) => continue,
        };
        any = true;
        writeln!(out, "{line}").map_err(|e| Error::stdout(&e))?;
    }
    out.flush().map_err(|e| Error::stdout(&e))?;
    match asked {
        Some(asked) if !any => {
            let (first, last) = (asked.ports.start(), asked.ports.end());
            let which = if first == last { first.to_string() } else { format!("{first}-{last}") };
            Err(Error::plain(format!("{id}: {which}/{} is not published", asked.protocol)))
        }
        _ => Ok(()),
    }
}
