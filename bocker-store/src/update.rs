//! `limits`: a container's file of that name, for its next start.

use std::path::Path;

use bocker_common::entry::Uninterrupted;
use bocker_common::say::{Explain, Said, perform, quote};
use bocker_common::{Id, Kind, Result};

use crate::called::{CONTAINERS, NEW_NAME};
use crate::remember::{LIMITS, limit, pairs};
use crate::store::{Step, Store};
use crate::verbs::print;

/// What is remembered.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Wanted {
    /// Limits for bocker-cg, instead of those with the same key; none: only print what there is
    #[arg(value_name = "KEY=VALUE", value_parser = limit)]
    limits: Vec<String>,
}

/// Of these there may be several: devices, and what may be had of one disk and of another.
fn is_list(key: &str) -> bool {
    key.starts_with("device") && key != "devices" || key.starts_with("blkio.throttle.") || key == "io.max"
}

/// The old limits with the new ones: a key has one value, but there may be many devices.
fn merged(old: Vec<(String, String)>, new: &[String]) -> String {
    let key = |line: &str| line.split('=').next().unwrap_or_default().to_owned();
    let replaced = |old: &str| !is_list(old) && new.iter().any(|line| key(line) == old);
    let kept = old.into_iter().filter(|(key, _)| !replaced(key)).map(|(key, value)| format!("{key}={value}\n"));
    let last = |(at, line): (usize, &String)| {
        let again = !is_list(&key(line)) && new[at + 1..].iter().any(|other| key(other) == key(line));
        (!again).then(|| format!("{line}\n"))
    };
    kept.chain(new.iter().enumerate().filter_map(last)).collect()
}

pub(crate) fn say(root: &Path, id: Id, file: &str, text: &[u8]) -> Said {
    let dir = root.join(id.to_string());
    let new = quote(dir.join(NEW_NAME));
    let shell =
        format!("printf %s {} > {new}\nmv -T {new} {}", quote(&*String::from_utf8_lossy(text)), quote(dir.join(file)));
    Said::new(shell, "for its next start (--from); renamed over the old one")
}

/// `limits CONTAINER [KEY=VALUE...]`
pub(crate) fn limits(store: &Store, container: &str, wanted: &Wanted, explain: Explain) -> Result<()> {
    let id = store.find(Kind::Container, container)?;
    if wanted.limits.is_empty() {
        return print(merged(pairs(store, id, LIMITS), &[]).as_bytes());
    }
    let _whole = Uninterrupted::begin();
    // Two would lose one of their changes.
    let _held = if explain.dry_run { None } else { store.hold_directory(CONTAINERS, true)? };
    let text = merged(pairs(store, id, LIMITS), &wanted.limits).into_bytes();
    perform(&[store.act(Step::Remember(id, LIMITS, text))], explain, |act| store.apply(act.step()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_one_value_and_many_devices() {
        let old = || {
            let pair = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
            [("memory", "1"), ("device", "a"), ("pids", "2")].map(pair).to_vec()
        };
        let new = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        assert_eq!(merged(old(), &[]), "memory=1\ndevice=a\npids=2\n");
        assert_eq!(merged(old(), &new(&["memory=3", "cpus=1", "memory=4"])), "device=a\npids=2\ncpus=1\nmemory=4\n");
        assert_eq!(merged(old(), &new(&["device=b"])), "memory=1\ndevice=a\npids=2\ndevice=b\n");
        let rates = ["device-read-bps=8:0:1", "device-read-bps=8:1:2"];
        assert_eq!(
            merged(old(), &new(&rates)),
            "memory=1\ndevice=a\npids=2\ndevice-read-bps=8:0:1\ndevice-read-bps=8:1:2\n"
        );
    }
}
