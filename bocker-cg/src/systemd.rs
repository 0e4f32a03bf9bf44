//! Where systemd runs, version 2 has one writer, <https://systemd.io/CGROUP_DELEGATION>: at its top it hands down the controllers that its
//! units need and no other, and looks through them again at each `systemctl daemon-reload`. Containers would lose what `create` has
//! handed down, and with it their limits: so there is a unit that needs them all.

use std::path::Path;
use std::process::{Command, Stdio};

use bocker_common::say::{Said, quote};

/// Where systemd runs there is this directory, `sd_booted(3)`.
const BOOTED: &str = "/run/systemd/system";

/// Of the unit, as long as it is there.
const UNIT: &str = "/run/systemd/transient/bocker-controllers.service";

/// A unit without a process, and so without a control group, that stays: systemd.service(5), systemd.resource-control(5). It waits for no
/// other: whoever starts a container while the machine starts would wait with it.
const RUN: [&str; 7] = [
    "--quiet",
    "--unit=bocker-controllers",
    "--description=bocker: controllers for the control groups of containers",
    "--property=Type=oneshot",
    "--property=RemainAfterExit=yes",
    "--property=Delegate=yes",
    "--property=DefaultDependencies=no",
];

/// Whether systemd has this hierarchy, and no such unit yet, and we are who may make it.
pub(crate) fn is_to_be_told(top: &Path) -> bool {
    is_its(top, Path::new(BOOTED)) && !Path::new(UNIT).exists() && nix::unistd::geteuid().is_root()
}

/// Whether it has, and knows.
pub(crate) fn knows(top: &Path) -> bool {
    is_its(top, Path::new(BOOTED)) && Path::new(UNIT).exists()
}

/// It sits in a cgroup of this name.
fn is_its(top: &Path, booted: &Path) -> bool {
    booted.is_dir() && top.join("init.scope").is_dir()
}

/// The same in shell.
pub(crate) fn say() -> Said {
    let words: Vec<String> = RUN.iter().map(quote).collect();
    let shell = format!("systemd-run {} true", words.join(" "));
    Said::new(shell, "at its next look systemd would take back what no unit of its own needs")
}

/// Makes the unit.
///
/// # Errors
/// systemd's complaint.
pub(crate) fn tell() -> Result<(), String> {
    // Never by PATH: this runs as root.
    let mut run = Command::new("/usr/bin/systemd-run");
    let said = run.args(RUN).arg("/bin/true").env_clear().stdin(Stdio::null()).output();
    let said = said.map_err(|e| format!("systemd-run: {e}"))?;
    // Somebody else may have been faster.
    if said.status.success() || Path::new(UNIT).exists() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&said.stderr);
    Err(text.lines().next().unwrap_or("systemd-run failed").to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_hierarchy_of_systemds() {
        let dir = tempfile::tempdir().unwrap();
        let (top, booted) = (dir.path().join("top"), dir.path().join("booted"));
        std::fs::create_dir_all(top.join("init.scope")).unwrap();
        assert!(!is_its(&top, &booted), "it does not run");
        std::fs::create_dir(&booted).unwrap();
        assert!(is_its(&top, &booted));
        assert!(!is_its(&booted, &booted), "another hierarchy, or part of one");
    }
}
