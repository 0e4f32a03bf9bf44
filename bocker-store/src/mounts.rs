//! What a container has mounted, as far as its text files tell: `words` (what bocker-exec is told) and `volumes`, whose lines
//! are a name, a tab, `DST[:OPTS]`, and perhaps a tab and more.

use std::path::Path;

use bocker_common::words::unescape;

use crate::volumes::{DATA, PREFIX};

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    /// A volume of the store, by its name.
    Volume(String),
    /// A directory or file of the host.
    Bind(String),
    /// Nothing that is there before or after.
    Tmpfs,
}

/// Something mounted in a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mount {
    pub(crate) source: Source,
    /// The path inside.
    pub(crate) to: String,
    pub(crate) read_only: bool,
}

impl Mount {
    /// What a person calls it: a volume's name, the host's path.
    pub(crate) fn name(&self) -> Option<&str> {
        match &self.source {
            Source::Volume(name) | Source::Bind(name) => Some(name),
            Source::Tmpfs => None,
        }
    }

    /// `volume`, `bind` or `tmpfs`.
    pub(crate) fn kind(&self) -> &'static str {
        match self.source {
            Source::Volume(_) => "volume",
            Source::Bind(_) => "bind",
            Source::Tmpfs => "tmpfs",
        }
    }
}

/// A line of these files as the word that it holds; nothing where it is none.
fn unescaped(line: &str) -> String {
    unescape(line.as_bytes()).and_then(|word| String::from_utf8(word).ok()).unwrap_or_default()
}

/// The options of a file `words`: what stands before the line `--`.
fn options(text: &str) -> Vec<String> {
    text.lines().take_while(|line| *line != "--").map(unescaped).collect()
}

/// A directory of the host, or a volume if that is what lies there.
fn source(store: &Path, from: &str) -> Source {
    let volume = || {
        let name = Path::new(from).strip_prefix(store).ok()?.to_str()?.strip_prefix(PREFIX)?;
        let name = name.strip_suffix(DATA)?.strip_suffix('/')?;
        (!name.contains('/')).then(|| name.to_owned())
    };
    volume().map_or_else(|| Source::Bind(from.to_owned()), Source::Volume)
}

/// `SRC:DST[:OPTS]`
fn volume(store: &Path, text: &str) -> Option<Mount> {
    let (from, rest) = text.split_once(':')?;
    let (to, how) = rest.split_once(':').unwrap_or((rest, ""));
    let read_only = how.split(',').any(|word| word == "ro");
    Some(Mount { source: source(store, from), to: to.to_owned(), read_only })
}

/// `type=bind,source=SRC,target=DST,readonly`
fn mount(store: &Path, text: &str) -> Option<Mount> {
    let (mut kind, mut from, mut to, mut read_only) = ("volume", "", None, false);
    for word in text.split(',') {
        let (key, value) = word.split_once('=').unwrap_or((word, "true"));
        match key {
            "type" => kind = value,
            "source" | "src" => from = value,
            "target" | "destination" | "dst" => to = Some(value),
            "readonly" | "ro" => read_only = matches!(value, "true" | "1"),
            _ => {}
        }
    }
    let source = match kind {
        "tmpfs" => Source::Tmpfs,
        "volume" if !from.starts_with('/') => Source::Volume(from.to_owned()),
        _ => source(store, from),
    };
    Some(Mount { source, to: to?.to_owned(), read_only })
}

/// All that the two files tell; `store` is where volumes lie. What is mounted later covers what was before it.
pub(crate) fn mounts(store: &Path, words: &str, volumes: &str) -> Vec<Mount> {
    let mut all = Vec::new();
    for word in options(words) {
        let Some((option, value)) = word.split_once('=') else { continue };
        all.extend(match option {
            "--volume" => volume(store, value),
            "--mount" => mount(store, value),
            "--tmpfs" => {
                let (to, how) = value.split_once(':').unwrap_or((value, ""));
                let read_only = how.split(',').any(|word| word == "ro");
                Some(Mount { source: Source::Tmpfs, to: to.to_owned(), read_only })
            }
            _ => None,
        });
    }
    for line in volumes.lines() {
        // What follows a second tab is about the name.
        let mut fields = line.split('\t').map(unescaped);
        let (name, rest) = (fields.next().unwrap_or_default(), fields.next().unwrap_or_default());
        let (to, how) = rest.split_once(':').unwrap_or((&rest, ""));
        let read_only = how.split(',').any(|word| word == "ro");
        let named = Mount { source: Source::Volume(name.clone()), to: to.to_owned(), read_only };
        if !name.is_empty()
            && !all.iter().any(|known| known.source == named.source && (known.to == to || to.is_empty()))
        {
            all.push(named);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn words_and_volumes() {
        let words = "--env=A=--volume=/x:/y\n--volume=/s/vol_db/data:/var/db\n--volume=/etc:/host\\\\etc:ro,z\n--tmpfs=/tmp:size=1m\n\
            --mount=type=bind,source=/a,target=/b,readonly\n--mount=type=tmpfs,dst=/run\n--mount=source=named,target=/v\n--volume=/s/vol_x/data/in:/in\n--\n--volume=/no:/no\n";
        let all = mounts(Path::new("/s"), words, "db\t/var/db\nother\t/o:ro\tnameless\nbare\nx\t/a\\\\b\n");
        let shown: Vec<_> = all
            .iter()
            .map(|one| format!("{} {} {} {}", one.kind(), one.name().unwrap_or("-"), one.to, one.read_only))
            .collect();
        assert_eq!(
            shown,
            [
                "volume db /var/db false",
                "bind /etc /host\\etc true",
                "tmpfs - /tmp false",
                "bind /a /b true",
                "tmpfs - /run false",
                "volume named /v false",
                "bind /s/vol_x/data/in /in false",
                "volume other /o true",
                "volume bare  false",
                "volume x /a\\b false",
            ]
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_words(words in "\\PC{0,60}", option in "--(volume|mount|tmpfs)=[a-z=,:/\\\\]{0,30}", volumes in "[a-z/\\t\\n:,]{0,40}") {
            let _ = mounts(Path::new("/s"), &words, &volumes);
            let _ = mounts(Path::new("/s"), &option, "");
        }
    }
}
