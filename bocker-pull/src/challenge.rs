//! `WWW-Authenticate` (RFC 9110, section 11.6.1): how a registry wants to know who asks.

/// The parts of a `Bearer` challenge that a token request needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bearer {
    /// URL of the token server. Not checked yet: it is the registry's word.
    pub realm: String,
    /// The registry's name for itself.
    pub service: Option<String>,
}

/// How a registry wants to know who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Challenge {
    /// A token from the token server.
    Bearer(Bearer),
    /// User and password in each request.
    Basic,
}

/// What several headers' values ask for. A token goes before a password, which would be sent again and again.
pub fn choose(values: &[&str]) -> Option<Challenge> {
    let bearer = values.iter().find_map(|value| bearer(value)).map(Challenge::Bearer);
    bearer.or_else(|| values.iter().any(|value| each(value).0).then_some(Challenge::Basic))
}

/// The first `Bearer` challenge with a realm in one header's value.
pub fn bearer(value: &str) -> Option<Bearer> {
    each(value).1
}

/// Whether there is a `Basic` challenge, and the first `Bearer` one with a realm. What follows a challenge that makes no
/// sense is not read.
///
/// The value is a list of challenges, each `scheme key=value, key="quoted value", …`, with
/// commas between the parameters and between the challenges alike.
fn each(value: &str) -> (bool, Option<Bearer>) {
    let mut rest = value;
    let (mut scheme, mut basic) = ("", false);
    let (mut realm, mut service) = (None, None);
    let mut found = None;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let (word, after) = token(rest);
        let key = after.trim_start_matches([' ', '\t']).strip_prefix('=');
        // A word alone starts the next challenge, key=value belongs to the scheme before it.
        if word.is_empty() || key.is_none() {
            let service = service.take();
            found = found.or(realm.take().map(|realm| Bearer { realm, service }));
        }
        if word.is_empty() {
            return (basic, found);
        }
        let Some(after) = key else {
            (scheme, rest) = (word, after);
            basic |= scheme.eq_ignore_ascii_case("basic");
            continue;
        };
        let Some((text, after)) = parameter(after.trim_start_matches([' ', '\t'])) else {
            return (basic, found);
        };
        if scheme.eq_ignore_ascii_case("bearer") {
            match word.to_ascii_lowercase().as_str() {
                "realm" => drop(realm.get_or_insert(text)),
                "service" => drop(service.get_or_insert(text)),
                _ => {}
            }
        }
        rest = after;
    }
}

/// The longest token at the start of `text`, and what follows it.
fn token(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_alphanumeric() && !"!#$%&'*+-.^_`|~".contains(c)).unwrap_or(text.len());
    text.split_at(end)
}

/// A parameter's value, quoted or not, and what follows it.
fn parameter(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
        return Some((text.get(..end)?.to_owned(), text.get(end..)?));
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, quoted.get(at + 1..)?)),
            '\\' => value.push(chars.next()?.1),
            c => value.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Noise;

    const HUB: &str =
        r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push""#;

    #[test]
    fn reads_what_registries_send() {
        let hub = Bearer { realm: "https://auth.docker.io/token".into(), service: Some("registry.docker.io".into()) };
        assert_eq!(bearer(HUB), Some(hub.clone()));
        assert_eq!(bearer(&format!("Basic realm=\"x\", {HUB}")), Some(hub.clone()));
        assert_eq!(bearer(&format!("{HUB}, Basic realm=\"x\"")), Some(hub.clone()));
        assert_eq!(
            bearer(r#"BEARER service="registry.docker.io" , Realm = "https://auth.docker.io/token""#),
            Some(hub)
        );
        let plain = bearer(r#"bearer realm=https://x/t?a=b"#).unwrap();
        assert_eq!((plain.realm.as_str(), plain.service), ("https://x/t?a=b", None));
        assert_eq!(bearer(r#"Bearer realm="a\"b""#).unwrap().realm, "a\"b");
    }

    #[test]
    fn a_basic_realm_is_not_a_token_server() {
        for value in [
            "",
            "Basic realm=\"https://x\"",
            "Bearer",
            "Bearer realm",
            "Bearer realm=\"open",
            "Bearer service=\"x\"",
            "realm=\"x\"",
            "=",
            "\"",
            "Bearer realm=\"a\\",
        ] {
            assert_eq!(bearer(value), None, "{value}");
        }
    }

    #[test]
    fn a_token_goes_before_a_password() {
        assert_eq!(choose(&["Basic realm=\"x\"", HUB]), bearer(HUB).map(Challenge::Bearer));
        for value in ["Basic", "basic realm=\"x\"", "Digest a=b, Basic realm=x", "Bearer service=\"x\", Basic"] {
            assert_eq!(choose(&[value]), Some(Challenge::Basic), "{value}");
        }
        for value in ["", "Basically", "Digest realm=\"Basic\"", "Bearer realm=\"x, Basic"] {
            assert_eq!(choose(&[value]), None, "{value}");
        }
    }

    #[test]
    fn the_corpus() {
        use bocker_common::corpus;
        // What a realm is said to be stands there, in this order.
        let stands = |realm: &str, value: &str| {
            let mut chars = value.chars();
            realm.chars().all(|c| chars.any(|other| other == c))
        };
        for (file, good, bytes) in corpus::files(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus/challenge").into())
        {
            for value in std::str::from_utf8(&bytes).unwrap().lines() {
                let found = bearer(value);
                assert_eq!(found.is_some(), good, "{file}: {value}");
                assert!(found.is_none_or(|found| found.realm.starts_with("https://")), "{file}: {value}");
            }
            for near in corpus::near(&bytes, 2_000) {
                for value in String::from_utf8_lossy(&near).lines() {
                    if let Some(Bearer { realm, service }) = bearer(value) {
                        assert!(
                            stands(&realm, value) && service.is_none_or(|service| stands(&service, value)),
                            "{value}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn ends_on_any_input() {
        let mut noise = Noise::new(11);
        for _ in 0..20_000 {
            let _ = bearer(&noise.text("Bearer realm=\"\\, é\t/:", 60));
            let _ = bearer(&String::from_utf8_lossy(&noise.spoil(HUB.as_bytes())));
        }
    }
}
