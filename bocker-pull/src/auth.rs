//! Logins: where docker and podman keep them (containers-auth.json(5), docker's config.json), and the programs that keep
//! them for these (`docker-credential-NAME`).

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::io::{ErrorKind, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bocker_common::diag::printable;
use bocker_common::reference::known_host;
use bocker_common::{Error, Result};
use serde::Deserialize;

/// Most bytes of a file of logins, or of a helper's answer.
const SIZE_MAX: u64 = 1 << 20;
/// The name that the hub's logins have in docker's files.
const HUB_KEY: &str = "https://index.docker.io/v1/";
/// The user name that says: the password is an identity token.
const TOKEN_USER: &str = "<token>";

/// The files that may hold a login, and where helpers may lie.
#[derive(Debug, Clone, Default)]
pub(crate) struct Places {
    files: Vec<AuthFile>,
    /// A fixed list: what runs with root's logins is not for `$PATH` to say (and `bocker` hands no `$PATH` on).
    helpers: Vec<PathBuf>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct AuthFile {
    path: PathBuf,
    /// `.dockercfg`: the logins are the whole file.
    legacy: bool,
    /// Named by the user: it has to be there.
    named: bool,
}

impl Places {
    /// Where docker and podman look, best first; `var` gives the environment's variables.
    pub(crate) fn new(var: impl Fn(&str) -> Option<OsString>) -> Self {
        let path = |name: &str| var(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let file = |path: PathBuf| AuthFile { path, legacy: false, named: false };
        let helpers = ["/usr/local/bin", "/usr/bin", "/bin"].map(PathBuf::from).to_vec();
        if let Some(path) = path("REGISTRY_AUTH_FILE") {
            return Self { files: vec![AuthFile { path, legacy: false, named: true }], helpers };
        }
        let home = path("HOME");
        let below = |dir: &Option<PathBuf>, name: &str| dir.as_ref().map(|dir| dir.join(name));
        let runtime = path("XDG_RUNTIME_DIR").map(|dir| dir.join("containers"));
        let runtime =
            runtime.unwrap_or_else(|| format!("/run/containers/{}", rustix::process::geteuid().as_raw()).into());
        let files = [
            Some(runtime.join("auth.json")),
            path("XDG_CONFIG_HOME").or_else(|| below(&home, ".config")).map(|dir| dir.join("containers/auth.json")),
            path("DOCKER_CONFIG").or_else(|| below(&home, ".docker")).map(|dir| dir.join("config.json")),
        ];
        let legacy = below(&home, ".dockercfg").map(|path| AuthFile { legacy: true, ..file(path) });
        Self { files: files.into_iter().flatten().map(file).chain(legacy).collect(), helpers }
    }

    /// The logins that there may be for a repository, best first. No helper is asked yet.
    ///
    /// # Errors
    /// A file that is there but cannot be read.
    pub(crate) fn logins(&self, registry: &str, repository: &str) -> Result<Vec<Login>> {
        let mut found = Vec::new();
        for file in &self.files {
            let wrong = |reason: String| Error::new("read", file.path.display(), reason);
            let bytes = match read(&file.path, SIZE_MAX) {
                Ok(bytes) => bytes,
                Err(e) if e.kind() == ErrorKind::NotFound && !file.named => continue,
                Err(e) => {
                    let error = Error::new("read", file.path.display(), e);
                    return Err(if file.named { error.hint("$REGISTRY_AUTH_FILE names it") } else { error });
                }
            };
            let known = Logins::parse(&bytes, file.legacy).map_err(wrong)?;
            match known.find(registry, repository).map_err(wrong)? {
                Some(Found::Kept { key, kept }) => {
                    found.push(Login::Kept { file: file.path.clone(), legacy: file.legacy, key, kept });
                }
                Some(Found::Helper(name)) => {
                    let server = if host_of(registry) == "docker.io" { HUB_KEY.into() } else { registry.to_owned() };
                    let program = format!("docker-credential-{name}");
                    let path = self.helpers.iter().map(|dir| dir.join(&program)).find(|path| path.is_file());
                    found.push(Login::Helper { program, path, server, path_var: self.path_var() });
                }
                None => {}
            }
        }
        Ok(found)
    }

    fn path_var(&self) -> OsString {
        std::env::join_paths(&self.helpers).unwrap_or_default()
    }
}

/// The file's bytes; a file without end is cut.
pub(crate) fn read(path: &Path, most: u64) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// What proves who we are.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Credential {
    /// `user:password` in base64, as the header has it.
    Basic(String),
    /// To be exchanged for a token at the token server.
    Identity(String),
}

/// Never the secret itself.
impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Basic(_) => "Basic(…)",
            Self::Identity(_) => "Identity(…)",
        })
    }
}

impl Credential {
    fn new(user: &str, password: &str) -> Self {
        match user {
            TOKEN_USER => Self::Identity(password.to_owned()),
            _ => Self::Basic(BASE64.encode(format!("{user}:{password}"))),
        }
    }
}

/// One place that has, or may have, the credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Login {
    /// It is in the file.
    Kept { file: PathBuf, legacy: bool, key: String, kept: Kept },
    /// A program knows.
    Helper { program: String, path: Option<PathBuf>, server: String, path_var: OsString },
}

impl fmt::Display for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kept { file, .. } => write!(f, "{}", file.display()),
            Self::Helper { program, .. } => f.write_str(program),
        }
    }
}

impl Login {
    /// The credential; `None` where the helper knows none.
    ///
    /// # Errors
    /// Why there is none, without the secret.
    pub(crate) fn credential(&self) -> Result<Option<Credential>, String> {
        match self {
            Self::Kept { kept, .. } => Ok(Some(kept.credential.clone())),
            Self::Helper { program, path, server, path_var } => {
                let Some(path) = path else {
                    return Err(format!("{program} is not in {}", path_var.to_string_lossy().replace(':', ", ")));
                };
                ask(path, server, path_var).map_err(|reason| format!("{program}: {reason}"))
            }
        }
    }
}

/// `docker-credential-NAME get`: the server on stdin, JSON on stdout, or a message there and a failing status.
fn ask(program: &Path, server: &str, path_var: &OsString) -> Result<Option<Credential>, String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Answer {
        username: String,
        secret: String,
    }
    let reason = |e: std::io::Error| bocker_common::diag::Reason::from(e).to_string();
    let mut child = Command::new(program)
        .arg("get")
        .env("PATH", path_var)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(reason)?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that does not read has its reasons: its answer counts.
        let _ = stdin.write_all(server.as_bytes());
    }
    let mut bytes = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        stdout.take(SIZE_MAX).read_to_end(&mut bytes).map_err(reason)?;
    }
    let status = child.wait().map_err(reason)?;
    if status.success() {
        let answer: Answer = serde_json::from_slice(&bytes).map_err(|_| "its answer is not a login")?;
        return Ok(Some(Credential::new(&answer.username, &answer.secret)).filter(|_| !answer.secret.is_empty()));
    }
    let said = String::from_utf8_lossy(&bytes);
    if said.contains("credentials not found") {
        return Ok(None);
    }
    let said: String = printable(said.trim()).chars().take(200).collect();
    Err(if said.is_empty() { format!("it fails ({status})") } else { said })
}

/// A file of logins.
#[derive(Debug, Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Logins {
    auths: Option<BTreeMap<String, Entry>>,
    cred_helpers: Option<BTreeMap<String, String>>,
    creds_store: Option<String>,
}

#[derive(Debug, Deserialize, Default)]
#[serde(default)]
struct Entry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
}

/// A credential as a file has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) form: Form,
    credential: Credential,
}

/// Which of an entry's fields hold it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Auth,
    UserAndPassword,
    IdentityToken,
}

enum Found {
    Kept { key: String, kept: Kept },
    Helper(String),
}

impl Logins {
    fn parse(bytes: &[u8], legacy: bool) -> Result<Self, String> {
        // The parser's message would show a piece of the file: say only where.
        let wrong =
            |e: serde_json::Error| format!("it is not a file of logins: line {}, column {}", e.line(), e.column());
        if legacy {
            let auths = serde_json::from_slice(bytes).map_err(wrong)?;
            return Ok(Self { auths: Some(auths), ..Self::default() });
        }
        serde_json::from_slice(bytes).map_err(wrong)
    }

    /// A registry's own helper goes first, then what the file keeps itself, then the store for all registries.
    fn find(&self, registry: &str, repository: &str) -> Result<Option<Found>, String> {
        let registry = host_of(registry);
        let helper = self.cred_helpers.iter().flatten().find(|(key, _)| normal(key) == registry);
        if let Some((_, name)) = helper {
            return helper_name(name).map(|name| Some(Found::Helper(name)));
        }
        let full = format!("{registry}/{repository}");
        let mut wanted = full.as_str();
        loop {
            for (key, entry) in self.auths.iter().flatten().filter(|(key, _)| normal(key) == wanted) {
                if let Some(kept) = entry.kept().map_err(|reason| format!("the login for {key} {reason}"))? {
                    return Ok(Some(Found::Kept { key: key.clone(), kept }));
                }
            }
            match wanted.rsplit_once('/') {
                Some((shorter, _)) => wanted = shorter,
                None => break,
            }
        }
        match self.creds_store.as_deref() {
            None | Some("") => Ok(None),
            Some(name) => helper_name(name).map(|name| Some(Found::Helper(name))),
        }
    }
}

impl Entry {
    fn kept(&self) -> Result<Option<Kept>, &'static str> {
        let given = |field: &Option<String>| field.clone().filter(|text| !text.is_empty());
        if let Some(token) = given(&self.identitytoken) {
            return Ok(Some(Kept { form: Form::IdentityToken, credential: Credential::Identity(token) }));
        }
        if let Some(auth) = given(&self.auth) {
            // Some write it without padding.
            let config = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
            let bytes = GeneralPurpose::new(&base64::alphabet::STANDARD, config)
                .decode(auth.trim())
                .map_err(|_| "is not base64")?;
            let text = String::from_utf8(bytes).map_err(|_| "is not text")?;
            let (user, password) = text.split_once(':').ok_or("is not user:password")?;
            // Old versions of docker padded with NUL.
            let credential = Credential::new(user, password.trim_end_matches('\0'));
            return Ok(Some(Kept { form: Form::Auth, credential }));
        }
        Ok(given(&self.username)
            .zip(self.password.as_ref())
            .map(|(user, password)| Kept { form: Form::UserAndPassword, credential: Credential::new(&user, password) }))
    }
}

/// A registry's name as keys are compared: Docker Hub has one.
pub(crate) fn host_of(registry: &str) -> String {
    known_host(&registry.to_ascii_lowercase()).to_owned()
}

/// A key as we compare it: `host[:port][/path]`. A key that is a URL, as docker writes some, stands for its whole host.
fn normal(key: &str) -> String {
    let bare = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://"));
    let text = bare.unwrap_or(key).trim_end_matches('/');
    let (host, path) = text.split_once('/').unwrap_or((text, ""));
    let host = host_of(host);
    if bare.is_some() || ["", "v1", "v2"].contains(&path) { host } else { format!("{host}/{path}") }
}

/// A helper's name is part of a program's, and no path.
fn helper_name(name: &str) -> Result<String, String> {
    let good = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    if (1..=64).contains(&name.len()) && name.bytes().all(good) {
        return Ok(name.to_owned());
    }
    Err("a credential helper's name is letters, digits, . _ and -".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Noise;
    use std::os::unix::fs::PermissionsExt as _;

    fn auth(login: &str) -> String {
        format!(r#"{{"auth":"{}"}}"#, BASE64.encode(login))
    }

    fn basic(login: &str) -> Credential {
        Credential::Basic(BASE64.encode(login))
    }

    /// What a file of these words has for a name.
    fn has(text: &str, registry: &str, repository: &str) -> Option<Credential> {
        match Logins::parse(text.as_bytes(), false).unwrap().find(registry, repository).unwrap()? {
            Found::Kept { kept, .. } => Some(kept.credential),
            Found::Helper(name) => panic!("helper {name}"),
        }
    }

    #[test]
    fn the_most_specific_key_wins() {
        let text = format!(
            r#"{{"auths":{{"h.example":{},"h.example/a":{},"h.example/a/b":{},"h.example:5000":{},"other.example":{}}}}}"#,
            auth("u:1"),
            auth("u:2"),
            auth("u:3"),
            auth("u:4"),
            auth("u:5"),
        );
        for (registry, repository, password) in [
            ("h.example", "x", "u:1"),
            ("h.example", "ab", "u:1"),
            ("h.example", "a/c", "u:2"),
            ("h.example", "a", "u:2"),
            ("h.example", "a/b", "u:3"),
            ("h.example", "a/b/c/d", "u:3"),
            ("h.example:5000", "a/b", "u:4"),
        ] {
            assert_eq!(has(&text, registry, repository), Some(basic(password)), "{registry}/{repository}");
        }
        assert_eq!(has(&text, "h.example:5001", "a"), None);
        assert_eq!(has(&text, "example", "a"), None);
    }

    #[test]
    fn docker_hub_has_many_names() {
        for key in [HUB_KEY, "docker.io", "index.docker.io", "https://registry-1.docker.io", "index.docker.io/v1/"] {
            let text = format!(r#"{{"auths":{{"{key}":{}}}}}"#, auth("u:p"));
            assert_eq!(has(&text, "registry-1.docker.io", "library/centos"), Some(basic("u:p")), "{key}");
            assert_eq!(has(&text, "docker.io.example", "library/centos"), None);
        }
        let group = format!(r#"{{"auths":{{"docker.io/group":{}}}}}"#, auth("u:p"));
        assert_eq!(has(&group, "registry-1.docker.io", "group/a"), Some(basic("u:p")));
        assert_eq!(has(&group, "registry-1.docker.io", "library/a"), None);
    }

    #[test]
    fn reads_all_forms_of_a_login() {
        let one = |entry: &str| {
            let text = format!(r#"{{"auths":{{"h":{entry}}}}}"#);
            Logins::parse(text.as_bytes(), false)?.find("h", "a").map(|found| match found {
                Some(Found::Kept { kept, .. }) => Some(kept.credential),
                _ => None,
            })
        };
        assert_eq!(one(r#"{"auth":"dTpw"}"#), Ok(Some(basic("u:p"))));
        assert_eq!(one(r#"{"auth":"dTpwOnE"}"#), Ok(Some(basic("u:p:q"))), "no padding, a colon in the password");
        assert_eq!(one(r#"{"username":"u","password":"p"}"#), Ok(Some(basic("u:p"))));
        assert_eq!(one(r#"{"auth":"dTpw","identitytoken":"t"}"#), Ok(Some(Credential::Identity("t".into()))));
        assert_eq!(one(&auth("<token>:t")), Ok(Some(Credential::Identity("t".into()))));
        assert_eq!(one(&auth("u:p\0\0")), Ok(Some(basic("u:p"))));
        assert_eq!(one("{}"), Ok(None));
        assert_eq!(one(r#"{"auth":null,"email":"x"}"#), Ok(None));
        for bad in [r#"{"auth":"*"}"#, r#"{"auth":"dQ=="}"#, r#"{"auth":"/w=="}"#] {
            assert!(one(bad).unwrap_err().starts_with("the login for h is not"), "{bad}");
        }
        let secret = one(r#"{"auth":"dTpw","password":hunter2}"#).unwrap_err();
        assert_eq!(secret, "it is not a file of logins: line 1, column 41");
        let debug = format!("{:?}", one(r#"{"auth":"dTpw"}"#));
        assert!(!debug.contains("dTpw"), "{debug}");
    }

    #[test]
    fn helpers_before_and_after_what_is_kept() {
        let text = format!(
            r#"{{"credsStore":"all","credHelpers":{{"h.example":"own","https://index.docker.io/v1/":"hub"}},"auths":{{"h.example":{},"k.example":{},"e.example":{{}}}}}}"#,
            auth("u:p"),
            auth("u:p")
        );
        let logins = Logins::parse(text.as_bytes(), false).unwrap();
        let helper = |registry: &str| match logins.find(registry, "a").unwrap() {
            Some(Found::Helper(name)) => name,
            _ => "-".into(),
        };
        assert_eq!(helper("h.example"), "own");
        assert_eq!(helper("registry-1.docker.io"), "hub");
        assert_eq!(helper("k.example"), "-");
        assert_eq!(helper("e.example"), "all");
        for name in ["", "../x", "a b", "a/b", &"x".repeat(65)] {
            assert!(helper_name(name).is_err(), "{name}");
        }
    }

    #[test]
    fn files_in_the_order_of_podman_and_docker() {
        let places = |vars: &[(&str, &str)]| {
            let vars: BTreeMap<_, _> =
                vars.iter().map(|(name, value)| (name.to_string(), OsString::from(value))).collect();
            Places::new(|name| vars.get(name).cloned()).files
        };
        let names = |vars: &[(&str, &str)]| {
            places(vars).into_iter().map(|file| file.path.display().to_string()).collect::<Vec<_>>()
        };
        let all = [("HOME", "/h"), ("XDG_RUNTIME_DIR", "/r"), ("XDG_CONFIG_HOME", "/c"), ("DOCKER_CONFIG", "/d")];
        assert_eq!(
            names(&all),
            ["/r/containers/auth.json", "/c/containers/auth.json", "/d/config.json", "/h/.dockercfg"]
        );
        assert_eq!(
            names(&[("HOME", "/h"), ("XDG_RUNTIME_DIR", "/r"), ("DOCKER_CONFIG", "")]),
            ["/r/containers/auth.json", "/h/.config/containers/auth.json", "/h/.docker/config.json", "/h/.dockercfg"]
        );
        assert!(names(&[])[0].starts_with("/run/containers/"));
        assert_eq!(names(&[("REGISTRY_AUTH_FILE", "/x"), ("HOME", "/h")]), ["/x"]);
        assert!(places(&all)[3].legacy);
    }

    #[test]
    fn a_file_that_is_named_has_to_be_there() {
        let none = Places::new(|name| (name == "REGISTRY_AUTH_FILE").then(|| "/none/auth.json".into()));
        assert_eq!(
            none.logins("h", "a").unwrap_err().to_string(),
            "read /none/auth.json: No such file or directory ($REGISTRY_AUTH_FILE names it)"
        );
        let none = Places::new(|name| (name == "HOME").then(|| "/none".into()));
        assert!(none.files.iter().filter(|file| file.path.starts_with("/none")).count() == 3);
    }

    #[test]
    fn asks_helpers_by_their_protocol() {
        let dir = tempfile::tempdir().unwrap();
        let helper = |name: &str, script: &str| {
            let path = dir.path().join(format!("docker-credential-{name}"));
            std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
            let file = dir.path().join("config.json");
            std::fs::write(&file, format!(r#"{{"credsStore":"{name}"}}"#)).unwrap();
            let places = Places {
                files: vec![AuthFile { path: file, legacy: false, named: true }],
                helpers: vec!["/none".into(), dir.path().into(), "/bin".into()],
            };
            places.logins("registry-1.docker.io", "a/b").unwrap()[0].credential()
        };
        let server = r#"read -r s || :; printf '{"ServerURL":"%s","Username":"%s","Secret":"%s"}' "$s" "$1" "$s""#;
        assert_eq!(helper("good", server), Ok(Some(basic(&format!("get:{HUB_KEY}")))));
        let token = r#"cat >/dev/null; echo '{"Username":"<token>","Secret":"t"}'"#;
        assert_eq!(helper("token", token), Ok(Some(Credential::Identity("t".into()))));
        assert_eq!(helper("none", "echo credentials not found in native keychain; exit 1"), Ok(None));
        assert_eq!(helper("bad", "echo no; echo secret >&2; exit 1"), Err("docker-credential-bad: no".into()));
        assert_eq!(helper("mute", "exit 1"), Err("docker-credential-mute: it fails (exit status: 1)".into()));
        assert_eq!(helper("junk", "echo x"), Err("docker-credential-junk: its answer is not a login".into()));
        assert!(helper("endless", "exec yes").unwrap_err().len() < 1000);
        std::fs::remove_file(dir.path().join("docker-credential-good")).unwrap();
        let places = Places {
            files: vec![AuthFile { path: dir.path().join("gone.json"), legacy: false, named: true }],
            helpers: vec!["/a".into(), "/b".into()],
        };
        std::fs::write(dir.path().join("gone.json"), r#"{"credsStore":"good"}"#).unwrap();
        let gone = places.logins("h", "a").unwrap()[0].credential();
        assert_eq!(gone, Err("docker-credential-good is not in /a, /b".into()));
    }

    #[test]
    fn ends_on_any_input() {
        let mut noise = Noise::new(23);
        let good = format!(
            r#"{{"credsStore":"s","credHelpers":{{"g":"x"}},"auths":{{"https://h/v1/":{},"h/a":{{"username":"u","password":"p"}}}}}}"#,
            auth("u:p")
        );
        for _ in 0..10_000 {
            for legacy in [false, true] {
                if let Ok(logins) = Logins::parse(&noise.spoil(good.as_bytes()), legacy) {
                    let _ = logins.find("h", "a/b");
                }
            }
            let key = noise.text("htps:/.dockeri0 é", 24);
            assert!(!normal(&format!("https://{key}")).contains('/'), "{key}: a URL stands for its host");
        }
    }
}
