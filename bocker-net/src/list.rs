//! `list`: the names in /run/netns are the record; the addresses are what the kernel has inside.

use std::io::{self, BufWriter, Write};
use std::rc::Rc;

use bocker_common::entry::need_root;
use bocker_common::id::BUSY;
use bocker_common::{Error, Id, Result};
use serde::Serialize;
use tokio::runtime::{Builder, Runtime};

use crate::act::ETH;
use crate::namespace;
use crate::netlink::{Answer, Netlink};
use crate::subnet::Mac;

#[derive(Serialize)]
struct Entry {
    id: String,
    address: Option<String>,
    mac: Option<String>,
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
    // Before we look into any of them ourselves.
    let inhabited = if busy { Some(namespace::inhabited()?) } else { None };
    let runtime = Builder::new_current_thread().enable_io().build().map_err(|e| Error::new("start", "tokio", e))?;
    let runtime = Rc::new(runtime);
    let mut out = BufWriter::new(io::stdout().lock());
    let mut print = || -> io::Result<()> {
        for id in namespace::all().map_err(io::Error::other)? {
            let entry =
                Entry { busy: inhabited.as_ref().map(|all| namespace::is_among(id, all)), ..look(id, &runtime) };
            if json {
                serde_json::to_writer(&mut out, &entry)?;
                writeln!(out)?;
            } else {
                let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".into());
                let busy = if entry.busy == Some(true) { format!("\t{BUSY}") } else { String::new() };
                writeln!(out, "{}\t{}\t{}{busy}", entry.id, or_dash(entry.address), or_dash(entry.mac))?;
            }
        }
        out.flush()
    };
    match print() {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => Err(Error::new("list", "containers", e)),
        _ => Ok(()),
    }
}

/// Without address and MAC where the namespace is not, or no longer, what `up` made.
fn look(id: Id, runtime: &Rc<Runtime>) -> Entry {
    let inside = || -> Answer<_> {
        let netlink = Netlink::open(runtime)?;
        let link = netlink.link(ETH)?;
        let index = link.as_ref().map(|link| link.index);
        let address = netlink.addresses()?.iter().find(|a| Some(a.index) == index).map(|a| a.address);
        let mac = link.and_then(|link| <[u8; 6]>::try_from(link.mac).ok()).map(Mac);
        Ok((address, mac))
    };
    let (address, mac) = namespace::visit(id, inside).ok().and_then(Result::ok).unwrap_or_default();
    Entry { id: id.to_string(), address: address.map(|a| a.to_string()), mac: mac.map(|m| m.to_string()), busy: None }
}
