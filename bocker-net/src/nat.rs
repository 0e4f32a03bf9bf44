//! Source NAT by the `nft` tool, in a table of our own: what we make can be read and removed by hand.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::bridge::BRIDGE;
use crate::subnet::Subnet;

/// Family and name of the table.
pub(crate) const TABLE: &str = "ip bocker";

/// Whether the rules are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Nat {
    /// There is no nft on this host.
    NoTool,
    /// The table is not there.
    Absent,
    /// The table is there, with these rules or others.
    Present {
        /// It masquerades the subnet that bridge0 has.
        complete: bool,
    },
}

/// One transaction; says the same however often it is run, and leaves other chains of the table alone.
pub(crate) fn rules(subnet: Subnet) -> String {
    format!(
        "add table {TABLE}\n\
         add chain {TABLE} postrouting {{ type nat hook postrouting priority srcnat; policy accept; }}\n\
         flush chain {TABLE} postrouting\n\
         add rule {TABLE} postrouting {}\n",
        rule(subnet)
    )
}

fn rule(subnet: Subnet) -> String {
    format!("ip saddr {subnet} oifname != \"{BRIDGE}\" masquerade")
}

/// Looks for the table.
pub(crate) fn see(subnet: Option<Subnet>) -> Nat {
    match nft(&["list", "table", "ip", "bocker"], "") {
        None => Nat::NoTool,
        Some(Err(_)) => Nat::Absent,
        Some(Ok(text)) => Nat::Present { complete: subnet.is_some_and(|subnet| text.contains(&rule(subnet))) },
    }
}

/// Gives nft the rules; its complaint, if it has one.
pub(crate) fn masquerade(subnet: Subnet) -> Result<(), String> {
    nft(&["-f", "-"], &rules(subnet)).unwrap_or_else(|| Err("no nft".into())).map(drop)
}

/// Deletes the table.
pub(crate) fn delete() -> Result<(), String> {
    nft(&["delete", "table", "ip", "bocker"], "").unwrap_or(Ok(String::new())).map(drop)
}

/// Runs nft: its stdout, or the first line of its complaint; `None` where there is no nft.
fn nft(arguments: &[&str], input: &str) -> Option<Result<String, String>> {
    // Never by PATH: this runs as root.
    let program = ["/usr/sbin/nft", "/sbin/nft"].into_iter().find(|path| std::path::Path::new(path).exists())?;
    let run = || {
        let mut child = Command::new(program)
            .args(arguments)
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            // nft that ends early says why on stderr.
            let _ = stdin.write_all(input.as_bytes());
        }
        child.wait_with_output()
    };
    Some(match run() {
        Err(e) => Err(e.to_string()),
        Ok(output) if output.status.success() => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            let line = said.lines().next().unwrap_or("failed");
            Err(line.rsplit("Error: ").next().unwrap_or(line).to_owned())
        }
    })
}
