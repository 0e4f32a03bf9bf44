//! A container's file `network`: the words that `bocker-net up --from` gets at its next start. What they mean is bocker-net's to
//! know; here only which networks they name, for `bocker network connect` and `disconnect`, `rename` and `ps`.

use std::ffi::OsString;

use bocker_common::diag::USAGE;
use bocker_common::entry::Uninterrupted;
use bocker_common::say::{Explain, perform};
use bocker_common::words::unescape;
use bocker_common::{Error, Id, Kind, Result};

use crate::called::{CONTAINERS, Name};
use crate::remember::{NETWORK, lines_of, text_of};
use crate::store::{Step, Store, short};
use crate::verbs::print;

/// What is remembered.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Wanted {
    /// It joins a network, or leaves one; none: only print what there is
    #[arg(value_name = "+NETWORK[,KEY=VALUE]|-NETWORK", allow_hyphen_values = true)]
    changes: Vec<OsString>,
}

/// The first network's, each on a line of its own; a further one's stand with its name.
const ITS_OWN: [&str; 4] = ["ip", "ip6", "mac", "alias"];

/// The words.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Words(pub(crate) Vec<String>);

impl Words {
    pub(crate) fn of(store: &Store, id: Id) -> Self {
        Self::read(&store.text(id, NETWORK))
    }

    pub(crate) fn read(text: &[u8]) -> Self {
        let word = |line| unescape(line).map(|word| String::from_utf8_lossy(&word).into_owned());
        Self(lines_of(text).filter_map(word).collect())
    }

    pub(crate) fn text(&self) -> Vec<u8> {
        text_of(self.0.iter().map(String::as_bytes))
    }

    /// The values of a key.
    pub(crate) fn values(&self, key: &str) -> impl Iterator<Item = &str> {
        self.0
            .iter()
            .filter_map(move |word| word.split_once('=').filter(|(had, _)| *had == key).map(|(_, value)| value))
    }

    fn drop_all(&mut self, keys: &[&str]) {
        self.0.retain(|word| !keys.contains(&word.split('=').next().unwrap_or_default()));
    }

    /// The first network; of several words the last counts.
    fn first(&self) -> &str {
        self.values("network").last().unwrap_or("bridge")
    }

    /// The networks' names; `host`, `none`, `container:ID` and `ns:PATH` stand alone.
    pub(crate) fn networks(&self) -> impl Iterator<Item = &str> {
        let further = self.values("connect").map(|value| value.split(',').next().unwrap_or_default());
        std::iter::once(self.first()).chain(further)
    }

    /// Whether there is a network on which a container has a name.
    fn has_names(&self) -> bool {
        self.networks().any(|one| !matches!(one, "bridge" | "none" | "host") && !one.contains(':'))
    }

    /// With the container's name, where it counts.
    pub(crate) fn call(&mut self, name: &Name) {
        if self.has_names() || self.values("name").next().is_some() {
            self.drop_all(&["name"]);
            self.0.push(format!("name={name}"));
        }
    }

    fn begin_with(&mut self, network: &str, options: &str) {
        self.drop_all(&["network"]);
        self.drop_all(&ITS_OWN);
        self.0.insert(0, format!("network={network}"));
        self.0.extend(options.split(',').filter(|option| !option.is_empty()).map(str::to_owned));
    }

    /// `NETWORK[,KEY=VALUE]…`; what is joined already gets these options in place of those it had.
    fn join(&mut self, text: &str) -> Result<(), String> {
        let (network, options) = text.split_once(',').unwrap_or((text, ""));
        let first = self.first().to_owned();
        if first == "host" || first.contains(':') {
            return Err(format!("it has no network of its own but {first}"));
        }
        if first == network || first == "none" {
            self.begin_with(network, options);
        } else {
            self.forget(network);
            self.0.push(format!("connect={text}"));
        }
        Ok(())
    }

    /// Whether there was one.
    fn forget(&mut self, network: &str) -> bool {
        let is =
            |word: &String| word.strip_prefix("connect=").is_some_and(|value| value.split(',').next() == Some(network));
        let before = self.0.len();
        self.0.retain(|word| !is(word));
        self.0.len() < before
    }

    /// Where the first one goes, the next takes its place.
    fn leave(&mut self, network: &str) -> Result<(), String> {
        if self.first() != network {
            return if self.forget(network) { Ok(()) } else { Err(format!("it is not on {}", short(network))) };
        }
        if matches!(network, "none" | "host") || network.contains(':') {
            return Err("that is no network that one leaves".to_owned());
        }
        let next = self.values("connect").next().map(str::to_owned);
        match next.as_deref().map(|next| next.split_once(',').unwrap_or((next, ""))) {
            None => self.begin_with("none", ""),
            Some((next, options)) => {
                self.forget(next);
                self.begin_with(next, options);
            }
        }
        Ok(())
    }
}

/// `network CONTAINER [+NETWORK|-NETWORK]…`
pub(crate) fn network(store: &Store, container: &str, wanted: &Wanted, explain: Explain) -> Result<()> {
    let id = store.find(Kind::Container, container)?;
    if wanted.changes.is_empty() {
        return print(&Words::of(store, id).text());
    }
    let _whole = Uninterrupted::begin();
    // Two would lose one of their changes.
    let _held = if explain.dry_run { None } else { store.hold_directory(CONTAINERS, true)? };
    let mut words = Words::of(store, id);
    for change in &wanted.changes {
        let usage = || Error::plain("+NETWORK or -NETWORK is wanted").status(USAGE);
        let change = change.to_str().filter(|change| !change.contains('\n')).ok_or_else(usage)?;
        let done = match change.split_at_checked(1) {
            Some(("+", text)) if !text.is_empty() => words.join(text),
            Some(("-", name)) if !name.is_empty() => words.leave(name),
            _ => return Err(usage()),
        };
        done.map_err(|why| Error::new("change the networks of", id, why))?;
    }
    store.name_of(id).iter().for_each(|name| words.call(name));
    perform(&[store.act(Step::Remember(id, NETWORK, words.text()))], explain, |act| store.apply(act.step()))
}

/// The step that another name takes, if it takes one.
pub(crate) fn renamed(store: &Store, id: Id, name: &Name) -> Option<Step> {
    let old = Words::of(store, id);
    let mut new = old.clone();
    new.call(name);
    (new != old).then(|| Step::Remember(id, NETWORK, new.text()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Words {
        Words(text.split_whitespace().map(str::to_owned).collect())
    }

    #[test]
    fn networks_are_joined_and_left() {
        for (before, change, after) in [
            ("", "+back", "connect=back"),
            ("publish=80", "+back,ip=10.1.0.9,alias=db", "publish=80 connect=back,ip=10.1.0.9,alias=db"),
            ("connect=back,ip=1 connect=b", "+back,ip=2", "connect=b connect=back,ip=2"),
            ("network=back ip=1 alias=x publish=80", "+back,ip=2,mac=m", "network=back publish=80 ip=2 mac=m"),
            ("network=none publish=80", "+back,ip=2", "network=back publish=80 ip=2"),
            ("ip=1", "+bridge", "network=bridge"),
            ("connect=back,ip=1 connect=ba", "-back", "connect=ba"),
            ("ip=1 connect=back,ip=2,alias=db connect=front", "-bridge", "network=back connect=front ip=2 alias=db"),
            ("network=back ip=1 publish=80", "-back", "network=none publish=80"),
            ("network=back", "-bridge", "!"),
            ("", "-back", "!"),
            ("network=none", "-none", "!"),
            ("network=host", "-host", "!"),
            ("network=host", "+back", "!"),
            ("network=container:ps_42045", "+back", "!"),
            ("network=ns:/run/netns/a", "+back", "!"),
        ] {
            let mut now = words(before);
            let (way, rest) = change.split_at(1);
            let done = if way == "+" { now.join(rest) } else { now.leave(rest) };
            let now = if done.is_err() { "!".to_owned() } else { now.0.join(" ") };
            assert_eq!(now, after, "{before} {change}");
        }
    }

    #[test]
    fn a_name_counts_on_networks_with_names() {
        for (before, after) in [
            ("", ""),
            ("publish=80", "publish=80"),
            ("network=host", "network=host"),
            ("network=container:ps_42045", "network=container:ps_42045"),
            ("network=back", "network=back name=web"),
            ("connect=back,ip=1", "connect=back,ip=1 name=web"),
            ("name=old network=back", "network=back name=web"),
        ] {
            let mut now = words(before);
            now.call(&"web".parse().unwrap());
            assert_eq!(now, words(after), "{before}");
        }
    }

    #[test]
    fn which_networks() {
        let all = |text| words(text).networks().collect::<Vec<_>>().join(" ");
        assert_eq!(all(""), "bridge");
        assert_eq!(all("network=back connect=a,ip=1 connect=b"), "back a b");
        assert_eq!(all("network=a network=none"), "none");
        assert_eq!(Words::read(b"publish=80\n\nbad\\x\nns=a\\\\b\n").0, ["publish=80", "ns=a\\b"]);
    }
}
