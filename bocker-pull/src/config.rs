//! Where an image's content is, as the machine's owner has it: containers-registries.conf(5), containers-certs.d(5) and
//! docker's certs.d, beside the logins.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use bocker_common::{Error, Result};
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::auth::{self, Login, Places};
use crate::endpoint::{Endpoint, split};
use crate::origin::{self, Allowed};
use crate::reference::{Reference, ShortNames};

/// Most bytes of a file of configuration.
const SIZE_MAX: u64 = 1 << 20;

/// All that files and environment say about registries.
#[derive(Debug, Default)]
pub(crate) struct Config {
    /// The logins' files.
    pub(crate) places: Places,
    /// What a name without a registry stands for.
    pub(crate) short: ShortNames,
    /// Where a registry may lead inside this network.
    pub(crate) inside: Allowed,
    registries: Vec<Registry>,
    /// Trees of `HOST:PORT/*.crt`, best first.
    certs: Vec<PathBuf>,
}

/// What the reference says of the content, for `pull-from-mirror`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Want {
    /// Something by its tag: only a mirror that is trusted with tags may answer.
    Tag,
    /// Something by its digest: it cannot be anything else.
    Digest,
    /// Blobs: by their digests, from wherever the manifest may have come from.
    Blobs,
}

impl Want {
    /// What `reference` itself wants.
    pub(crate) fn of(reference: &Reference) -> Self {
        if reference.digest().is_some() { Self::Digest } else { Self::Tag }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct File {
    unqualified_search_registries: Option<Vec<String>>,
    registry: Vec<Registry>,
    aliases: BTreeMap<String, String>,
    /// The first version of the format had this table.
    registries: Option<IgnoredAny>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct Registry {
    prefix: String,
    location: String,
    insecure: Option<bool>,
    blocked: bool,
    mirror: Vec<Mirror>,
    mirror_by_digest_only: bool,
    /// Which file says so.
    #[serde(skip)]
    file: PathBuf,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct Mirror {
    location: String,
    insecure: Option<bool>,
    pull_from_mirror: Option<PullFrom>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum PullFrom {
    All,
    DigestOnly,
    TagOnly,
}

impl Config {
    /// What this process's environment and `/etc` say.
    ///
    /// # Errors
    /// A file that is there but makes no sense.
    pub(crate) fn from_env() -> Result<Self> {
        Self::load(|name| std::env::var_os(name), Path::new("/etc"))
    }

    /// The same with other variables and another `/etc`.
    fn load(var: impl Fn(&str) -> Option<OsString>, etc: &Path) -> Result<Self> {
        let path = |name: &str| var(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let home = path("HOME");
        let user = path("XDG_CONFIG_HOME").or_else(|| home.as_ref().map(|home| home.join(".config")));
        let user = user.map(|dir| dir.join("containers"));
        let system = etc.join("containers");
        let mut config = Self { places: Places::new(&var), ..Self::default() };
        // Of the main files one counts, of the drop-ins all.
        let mains = user.iter().chain([&system]).map(|dir| dir.join("registries.conf"));
        for main in mains {
            if let Some(file) = read(&main)? {
                config.add(file, &main)?;
                break;
            }
        }
        for dir in [&system].into_iter().chain(&user) {
            for path in drop_ins(&dir.join("registries.conf.d"))? {
                if let Some(file) = read(&path)? {
                    config.add(file, &path)?;
                }
            }
        }
        config.certs = user.iter().chain([&system]).map(|dir| dir.join("certs.d")).collect();
        config.certs.push(etc.join("docker/certs.d"));
        let inside = var(origin::ALLOWED).unwrap_or_default();
        let wrong = |reason| Error::new("read", origin::ALLOWED, reason).hint("HOST or HOST,HOST, without ports");
        config.inside = Allowed::parse(&inside.to_string_lossy()).map_err(wrong)?;
        Ok(config)
    }

    /// Takes a file over what is there: an entry for the same prefix replaces the one before.
    fn add(&mut self, file: File, path: &Path) -> Result<()> {
        let wrong = |reason: String| Error::new("read", path.display(), reason);
        if file.registries.is_some() {
            return Err(wrong("it is in the first version of its format, which has no [[registry]]".into()));
        }
        for mut registry in file.registry {
            path.clone_into(&mut registry.file);
            let tidy = |text: &str| text.trim_end_matches('/').to_owned();
            (registry.prefix, registry.location) = (tidy(&registry.prefix), tidy(&registry.location));
            if registry.prefix.is_empty() {
                registry.prefix.clone_from(&registry.location);
            }
            let wild = registry.prefix.starts_with("*.");
            if registry.prefix.is_empty() || registry.location.is_empty() && !wild {
                return Err(wrong("a [[registry]] has no location".into()));
            }
            let mirrors = registry.mirror.iter().map(|mirror| &mirror.location);
            for location in mirrors.chain(Some(&registry.location).filter(|text| !text.is_empty())) {
                split(location.trim_end_matches('/'))
                    .map_err(|reason| wrong(format!("the location '{location}' is none: {reason}")))?;
            }
            self.registries.retain(|other| other.prefix != registry.prefix);
            self.registries.push(registry);
        }
        if let Some(names) = file.unqualified_search_registries {
            // Asking several in turn would take whichever a stranger put first.
            let one = Some(&names).filter(|names| names.len() == 1).and_then(|names| names.first());
            self.short.registry = one.map(|name| (name.clone(), path.to_owned()));
        }
        for (name, full) in file.aliases {
            if full.is_empty() {
                self.short.aliases.remove(&name)
            } else {
                self.short.aliases.insert(name, (full, path.to_owned()))
            };
        }
        Ok(())
    }

    /// Where what `reference` names may be, best first; the last is the registry itself.
    ///
    /// # Errors
    /// It is blocked, or its certificates make no sense.
    pub(crate) fn endpoints(&self, reference: &Reference, want: Want) -> Result<Vec<Endpoint>> {
        let name = reference.logical_name();
        let best = self.registries.iter().filter_map(|one| Some((matched(&one.prefix, &name)?, one)));
        // The longest prefix; at the same length, the one without a star is the longer word.
        let Some((length, registry)) = best.max_by_key(|(length, one)| (*length, one.prefix.len())) else {
            return Ok(vec![self.with_certs(reference.endpoint(None))?]);
        };
        let wrong = |reason: String| Error::new("pull", reference.typed(), reason);
        if registry.blocked {
            return Err(wrong(format!("{} blocks {}", registry.file.display(), registry.prefix)));
        }
        let rest = name.get(length..).unwrap_or_default();
        let at = |location: &str, insecure: Option<bool>| {
            let location = location.trim_end_matches('/');
            let endpoint = Endpoint::parse(&format!("{location}{rest}"), insecure);
            let file = registry.file.display();
            self.with_certs(endpoint.map_err(|reason| wrong(format!("{file} sends it to {location}{rest}: {reason}")))?)
        };
        let good = |mirror: &&Mirror| match (want, mirror.pull_from_mirror) {
            (Want::Blobs, _) | (_, Some(PullFrom::All)) => true,
            (Want::Tag, None) => !registry.mirror_by_digest_only,
            (Want::Digest, None) => true,
            (Want::Tag, Some(from)) => from == PullFrom::TagOnly,
            (Want::Digest, Some(from)) => from == PullFrom::DigestOnly,
        };
        let mirrors = registry.mirror.iter().filter(good);
        let mut endpoints = mirrors.map(|mirror| at(&mirror.location, mirror.insecure)).collect::<Result<Vec<_>>>()?;
        endpoints.push(match registry.location.as_str() {
            "" => self.with_certs(reference.endpoint(registry.insecure))?,
            location => at(location, registry.insecure)?,
        });
        Ok(endpoints)
    }

    /// The endpoint with the authorities and our own certificate for its host. The first tree that knows the host counts.
    fn with_certs(&self, mut endpoint: Endpoint) -> Result<Endpoint> {
        let host = auth::host_of(&endpoint.registry);
        let Some(dir) = self.certs.iter().map(|tree| tree.join(&host)).find(|dir| dir.is_dir()) else {
            return Ok(endpoint);
        };
        let files = entries(&dir)?;
        let ends = |extension: &'static str| {
            files.iter().filter(move |path| path.extension().is_some_and(|found| found == extension))
        };
        endpoint.roots = ends("crt").cloned().collect();
        // A pair has one name; as elsewhere, half of one is a mistake.
        for (half, other) in [("cert", "key"), ("key", "cert")] {
            if let Some(lonely) = ends(half).find(|path| !files.contains(&path.with_extension(other))) {
                let name = lonely.with_extension(other);
                return Err(Error::new("read", lonely.display(), format!("there is no {}", name.display())));
            }
        }
        endpoint.identity = ends("cert").next().map(|cert| (cert.clone(), cert.with_extension("key")));
        Ok(endpoint)
    }

    /// The logins for an endpoint where they are to be said.
    pub(crate) fn logins(&self, endpoint: &Endpoint) -> Result<Vec<Login>> {
        self.places.logins(&endpoint.registry, &endpoint.repository)
    }
}

/// How many bytes of `name` a prefix covers: whole parts only. `*.` stands for any subdomains, of any port if it names none.
fn matched(prefix: &str, name: &str) -> Option<usize> {
    let end = match prefix.strip_prefix('*') {
        None => name.starts_with(prefix).then_some(prefix.len())?,
        Some(suffix) => {
            let (ending, path) = suffix.split_once('/').map_or((suffix, None), |(ending, path)| (ending, Some(path)));
            let (host, rest) = name.split_once('/')?;
            let bare = if ending.contains(':') { host } else { host.split(':').next()? };
            if bare.len() <= ending.len() || !bare.ends_with(ending) {
                return None;
            }
            match path {
                None => host.len(),
                Some(path) => rest.starts_with(path).then_some(host.len() + 1 + path.len())?,
            }
        }
    };
    matches!(name.as_bytes().get(end), None | Some(b'/')).then_some(end)
}

fn read(path: &Path) -> Result<Option<File>> {
    let bytes = match auth::read(path, SIZE_MAX) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::new("read", path.display(), e)),
    };
    parse(&bytes).map(Some).map_err(|reason| Error::new("read", path.display(), reason))
}

fn parse(bytes: &[u8]) -> Result<File, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "it is not text")?;
    toml::from_str(text).map_err(|e| {
        let start = e.span().map_or(0, |span| span.start);
        let line = text.get(..start).map_or(1, |before| before.matches('\n').count() + 1);
        format!("line {line}: {}", e.message())
    })
}

/// The files of a directory in the order of their names; none where it is not there.
fn entries(dir: &Path) -> Result<Vec<PathBuf>> {
    let wrong = |e: std::io::Error| Error::new("read", dir.display(), e);
    let entries = match std::fs::read_dir(dir) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(wrong)?,
    };
    let mut paths = entries.map(|entry| Ok(entry.map_err(wrong)?.path())).collect::<Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}

fn drop_ins(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut paths = entries(dir)?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "conf"));
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Noise;
    use tempfile::TempDir;

    /// A machine with these files below `/etc` (`etc/…`) and `$HOME` (`home/…`).
    fn machine(files: &[(&str, &str)]) -> (TempDir, Result<Config>) {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let home = dir.path().join("home");
        let config = Config::load(|name| (name == "HOME").then(|| home.clone().into()), &dir.path().join("etc"));
        (dir, config)
    }

    const MAIN: &str = "etc/containers/registries.conf";

    fn config(text: &str) -> Config {
        machine(&[(MAIN, text)]).1.unwrap()
    }

    /// The bases of a name's endpoints.
    fn bases(config: &Config, name: &str, want: Want) -> Vec<String> {
        let reference = Reference::parse(name, None).unwrap();
        config.endpoints(&reference, want).unwrap().iter().map(Endpoint::base).collect()
    }

    fn failure(files: &[(&str, &str)]) -> String {
        let (dir, config) = machine(files);
        config.unwrap_err().to_string().replace(dir.path().to_str().unwrap(), "")
    }

    #[test]
    fn without_files_a_name_is_itself() {
        let (_dir, none) = machine(&[]);
        let none = none.unwrap();
        assert_eq!(bases(&none, "centos", Want::Tag), ["https://registry-1.docker.io/v2/library/centos"]);
        assert_eq!(bases(&none, "localhost:5000/a", Want::Tag), ["http://localhost:5000/v2/a"]);
        assert!(none.short.registry.is_none() && none.short.aliases.is_empty());
    }

    #[test]
    fn the_longest_prefix_counts() {
        let config = config(
            r#"
            [[registry]]
            location = "h.example"
            [[registry]]
            prefix = "h.example/a"
            location = "one.example/x/"
            [[registry]]
            prefix = "h.example/a/b"
            location = "two.example"
            [[registry]]
            prefix = "*.wild.example"
            location = "three.example/wild"
            [[registry]]
            prefix = "*.b.wild.example"
            insecure = true
            [[registry]]
            prefix = "docker.io"
            location = "four.example/hub"
            "#,
        );
        for (name, base) in [
            ("h.example/c", "https://h.example/v2/c"),
            ("h.example/a/c", "https://one.example/v2/x/c"),
            ("h.example/ab", "https://h.example/v2/ab"),
            ("h.example/a/b/c", "https://two.example/v2/c"),
            ("h.example:5000/a/b", "https://h.example:5000/v2/a/b"),
            ("wild.example/a", "https://wild.example/v2/a"),
            ("a.wild.example/a", "https://three.example/v2/wild/a"),
            ("a.a.wild.example/a/b", "https://three.example/v2/wild/a/b"),
            ("a.wild.example:5000/a", "https://three.example/v2/wild/a"),
            ("a.b.wild.example/a", "https://a.b.wild.example/v2/a"),
            ("a.wild.example.b.wild.example/a", "https://a.wild.example.b.wild.example/v2/a"),
            ("a.wild.example.com/a", "https://a.wild.example.com/v2/a"),
            ("centos", "https://four.example/v2/hub/library/centos"),
            ("index.docker.io/group/a", "https://four.example/v2/hub/group/a"),
        ] {
            assert_eq!(bases(&config, name, Want::Tag), [base], "{name}");
        }
        // A location that is a registry alone leaves no name for the prefix itself.
        let exact = Reference::parse("h.example/a/b", None).unwrap();
        assert!(config.endpoints(&exact, Want::Tag).unwrap_err().to_string().contains("two.example"));
        let secure =
            |name: &str| config.endpoints(&Reference::parse(name, None).unwrap(), Want::Tag).unwrap()[0].insecure;
        assert!(secure("a.b.wild.example/a") && !secure("a.wild.example/a"));
    }

    #[test]
    fn mirrors_go_first_where_they_may() {
        let config = config(
            r#"
            [[registry]]
            location = "h.example"
            [[registry.mirror]]
            location = "all.example/m"
            [[registry.mirror]]
            location = "digest.example"
            pull-from-mirror = "digest-only"
            [[registry.mirror]]
            location = "tag.example:5000"
            pull-from-mirror = "tag-only"
            insecure = true
            [[registry]]
            location = "old.example"
            mirror-by-digest-only = true
            [[registry.mirror]]
            location = "digest.example"
            "#,
        );
        let hosts = |name: &str, want| -> Vec<String> {
            bases(&config, name, want).iter().map(|base| base.split('/').nth(2).unwrap().to_owned()).collect()
        };
        assert_eq!(hosts("h.example/a", Want::Tag), ["all.example", "tag.example:5000", "h.example"]);
        assert_eq!(hosts("h.example/a", Want::Digest), ["all.example", "digest.example", "h.example"]);
        assert_eq!(hosts("h.example/a", Want::Blobs).len(), 4);
        assert_eq!(hosts("old.example/a", Want::Tag), ["old.example"]);
        assert_eq!(hosts("old.example/a", Want::Digest), ["digest.example", "old.example"]);
        assert_eq!(bases(&config, "h.example/a", Want::Tag)[0], "https://all.example/v2/m/a");
    }

    #[test]
    fn later_files_go_over_earlier_ones() {
        let files = [
            (
                MAIN,
                "unqualified-search-registries = ['a.example']\n[[registry]]\nlocation = 'h.example'\nblocked = true\n",
            ),
            ("etc/containers/registries.conf.d/2.conf", "[aliases]\na = 'x.example/a'\nb = 'x.example/b'\n"),
            ("etc/containers/registries.conf.d/1.conf", "[aliases]\na = 'y.example/a'\n"),
            ("etc/containers/registries.conf.d/3.txt", "junk ["),
            (
                "home/.config/containers/registries.conf.d/1.conf",
                "[aliases]\nb = ''\n[[registry]]\nlocation = 'h.example'\n",
            ),
        ];
        let config = machine(&files).1.unwrap();
        assert_eq!(bases(&config, "h.example/a", Want::Tag), ["https://h.example/v2/a"]);
        let alias = |name: &str| config.short.aliases.get(name).map(|(full, _)| full.as_str());
        assert_eq!((alias("a"), alias("b")), (Some("x.example/a"), None));
        assert_eq!(config.short.registry.as_ref().unwrap().0, "a.example");
        // The user's main file replaces the system's.
        let config = machine(&[files[0], ("home/.config/containers/registries.conf", "")]).1.unwrap();
        assert!(config.registries.is_empty() && config.short.registry.is_none());
    }

    #[test]
    fn only_one_registry_is_searched() {
        for (list, registry) in [
            ("[]", None),
            ("['a.example']", Some("a.example")),
            ("['docker.io']", Some("docker.io")),
            ("['a.example', 'docker.io']", None),
            ("['a.example', 'b.example']", None),
        ] {
            let config = config(&format!("unqualified-search-registries = {list}"));
            assert_eq!(config.short.registry.as_ref().map(|(name, _)| name.as_str()), registry, "{list}");
        }
    }

    #[test]
    fn says_what_is_wrong_and_where() {
        for (text, reason) in [
            ("a = [", "line 1: "),
            ("\n\n[[registry]]\ninsecure = 'yes'\nlocation = 'h'", "line 4: invalid type: string"),
            ("[registries.search]\nregistries = ['docker.io']", "first version"),
            ("[[registry]]\nblocked = true", "has no location"),
            ("[[registry]]\nlocation = 'https://h.example'", "the location 'https://h.example' is none"),
            ("[[registry]]\nlocation = 'h.example'\n[[registry.mirror]]\nlocation = '-x'", "the location '-x' is none"),
            (
                "[[registry]]\nlocation = 'h'\n[[registry.mirror]]\nlocation = 'm'\npull-from-mirror = 'x'",
                "unknown variant",
            ),
        ] {
            let error = failure(&[(MAIN, text)]);
            assert!(error.starts_with("read /etc/containers/registries.conf: ") && error.contains(reason), "{error}");
            assert_eq!(error.lines().count(), 1);
        }
        let (dir, blocked) = machine(&[(MAIN, "[[registry]]\nlocation = 'h.example/a'\nblocked = true")]);
        let error = blocked.unwrap().endpoints(&Reference::parse("h.example/a/b:1", None).unwrap(), Want::Tag);
        let error = error.unwrap_err().to_string().replace(dir.path().to_str().unwrap(), "");
        assert_eq!(error, "pull h.example/a/b:1: /etc/containers/registries.conf blocks h.example/a");
    }

    #[test]
    fn certificates_by_host_and_port() {
        let (dir, config) = machine(&[
            ("etc/containers/certs.d/h.example:5000/b.crt", ""),
            ("etc/containers/certs.d/h.example:5000/a.crt", ""),
            ("etc/containers/certs.d/h.example:5000/me.cert", ""),
            ("etc/containers/certs.d/h.example:5000/me.key", ""),
            ("etc/docker/certs.d/h.example:5000/c.crt", ""),
            ("etc/docker/certs.d/docker.io/c.crt", ""),
            ("home/.config/containers/certs.d/half.example/me.cert", ""),
        ]);
        let config = config.unwrap();
        let of = |name: &str| {
            config.endpoints(&Reference::parse(name, None).unwrap(), Want::Tag).map(|mut all| all.remove(0))
        };
        let names = |paths: Vec<PathBuf>| -> Vec<String> {
            paths.iter().map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect()
        };
        let own = of("h.example:5000/a").unwrap();
        assert_eq!(names(own.roots), ["a.crt", "b.crt"]);
        let (cert, key) = own.identity.unwrap();
        assert_eq!(names(vec![cert, key]), ["me.cert", "me.key"]);
        assert_eq!(names(of("centos").unwrap().roots), ["c.crt"]);
        assert!(of("h.example/a").unwrap().roots.is_empty());
        let half = of("half.example/a").unwrap_err().to_string();
        assert!(half.contains("me.cert: there is no ") && half.ends_with("me.key"), "{half}");
        drop(dir);
    }

    #[test]
    fn ends_on_any_input() {
        let mut noise = Noise::new(31);
        let good = "unqualified-search-registries = ['a']\n[[registry]]\nprefix = '*.a.b'\nlocation = 'c.d/e'\n[[registry.mirror]]\nlocation = 'f.g:5'\n[aliases]\na = 'b.c/d'\n";
        let names: Vec<Reference> =
            ["x.a.b/c", "a.b:5/c", "centos"].iter().map(|name| Reference::parse(name, None).unwrap()).collect();
        let mut good_ones = 0;
        for _ in 0..5_000 {
            let Ok(file) = parse(&noise.spoil(good.as_bytes())) else { continue };
            let mut config = Config::default();
            if config.add(file, Path::new("x")).is_ok() {
                good_ones += 1;
                for name in &names {
                    let _ = config.endpoints(name, Want::Tag);
                }
            }
            let (prefix, name) = (noise.text("*.ab:/", 8), noise.text("ab.:/", 12));
            if let Some(end) = matched(&prefix, &name) {
                assert!(end <= name.len() && matches!(name.as_bytes().get(end), None | Some(b'/')), "{prefix} {name}");
            }
        }
        assert!(good_ones > 100, "{good_ones}");
    }
}
