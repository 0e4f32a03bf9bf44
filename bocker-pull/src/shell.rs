//! The same in curl, jq, sha256sum and tar.

use std::fmt::Write as _;

use bocker_common::Result;
use bocker_common::say::{Explain, quote};

use crate::auth::{Form, Login};
use crate::config::Config;
use crate::digest::{Descriptor, Digest};
use crate::endpoint::Endpoint;
use crate::layout::MARKER;
use crate::manifest;
use crate::platform::Platform;
use crate::reference::Reference;
use crate::registry::proxies;

/// A place that the shell may ask, with what it needs there.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    endpoint: Endpoint,
    logins: Vec<Login>,
    /// What its variables' names end with: nothing for the registry itself, a number for each mirror.
    mark: String,
    /// curl's options for it.
    options: String,
}

/// The places of the blobs' URLs, each with curl's options for it: `(base, options)` in shell.
pub(crate) type Bases = Vec<(String, String)>;

/// The endpoints as the shell's places where they are to be said, else none: logins are looked up only when a registry asks.
///
/// # Errors
/// A file of logins that makes no sense.
pub(crate) fn places(endpoints: &[Endpoint], config: &Config, explain: Explain) -> Result<Vec<Place>> {
    if !explain.explain && !explain.dry_run {
        return Ok(Vec::new());
    }
    let proxied = !proxies().is_empty();
    let place = |(at, endpoint): (usize, &Endpoint)| {
        let mark = if at + 1 == endpoints.len() { String::new() } else { (at + 1).to_string() };
        let mut options = String::new();
        if !endpoint.roots.is_empty() {
            let _ = write!(options, " --cacert \"$ca{mark}\"");
        }
        if let Some((cert, key)) = &endpoint.identity {
            // curl takes a colon for the start of a password.
            let cert = cert.to_string_lossy().replace('\\', r"\\").replace(':', r"\:");
            let _ = write!(options, " --cert {} --key {}", quote(cert), quote(key));
        }
        if endpoint.insecure {
            options.push_str(" -k");
        }
        if proxied && endpoint.is_loopback() {
            options.push_str(" --noproxy '*'");
        }
        Ok(Place { logins: config.logins(endpoint)?, endpoint: endpoint.clone(), mark, options })
    };
    endpoints.iter().enumerate().map(place).collect()
}

pub(crate) fn bases(places: &[Place]) -> Bases {
    let base = |place: &Place| {
        let Place { mark, options, .. } = place;
        (format!("$base{mark}"), format!("{options} -H @\"$h{mark}\""))
    };
    places.iter().map(base).collect()
}

/// Names of the files that [`open`] makes, as words for rm.
pub(crate) fn temporary(places: &[Place]) -> String {
    places.iter().fold(String::new(), |mut names, Place { mark, endpoint, .. }| {
        let _ = write!(names, " \"$h{mark}\"");
        if !endpoint.roots.is_empty() {
            let _ = write!(names, " \"$ca{mark}\"");
        }
        names
    })
}

/// `$base`, the start of every URL, and the file `$h` for the header that goes with it, for each place.
fn open(places: &[Place]) -> String {
    let one = |Place { endpoint, mark, options, .. }: &Place| {
        let mut lines = format!("base{mark}={}\nh{mark}=$(mktemp)\n", quote(endpoint.base()));
        if !endpoint.roots.is_empty() {
            let files = endpoint.roots.iter().map(quote).collect::<Vec<_>>().join(" ");
            let _ = writeln!(
                lines,
                "ca{mark}=$(mktemp)\ncat \"${{SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}}\" {files} > \"$ca{mark}\""
            );
        }
        if endpoint.insecure {
            let probe = quote(format!("{}v2/", endpoint.origin));
            let plain = quote(endpoint.plain().base());
            let _ = writeln!(lines, "curl -s{options} -o /dev/null {probe} || base{mark}={plain}");
        }
        lines
    };
    places.iter().map(one).collect()
}

/// The header in `$h`: neither a login nor a token is ever a word of a command line, which others could read.
fn authorize(reference: &Reference, pointer: &str, Place { logins, mark, options, .. }: &Place) -> String {
    let h = format!("\"$h{mark}\"");
    let mut lines = format!(
        r#"challenge=$(curl -sS{options} -o /dev/null -D - "$base{mark}/manifests/{pointer}" | tr -d '\r' | sed -n 's/^www-authenticate: */ /Ip')
bearer=$(echo "$challenge" | sed -n 's/.* bearer / /Ip')
realm=$(echo "$bearer" | sed -n 's/.* realm="\([^"]*\)".*/\1/p')
service=$(echo "$bearer" | sed -n 's/.*service="\([^"]*\)".*/\1/p')
"#
    );
    let scope = format!("scope=repository:{}:pull", reference.repository());
    let token = |how: &str, header: &str| {
        format!(
            r#"auth=$(curl {how}{options}{header} --data-urlencode "service=$service" --data-urlencode {scope} --url "$realm" | jq -er '"Authorization: Bearer " + (.token // .access_token)')"#
        )
    };
    let get = |header: &str| token("-fsSLG --proto =https,http", header);
    if logins.is_empty() {
        let _ = write!(lines, "[ -z \"$realm\" ] || {{ {}; echo \"$auth\" > {h}; }}", get(""));
        return lines;
    }
    lines.push_str("i=$(mktemp)\nif [ -n \"$challenge\" ]; then\n");
    for (at, login) in logins.iter().enumerate() {
        // The first that has one counts.
        let (open, close) =
            if at == 0 { (String::new(), "") } else { (format!("[ -s {h} ] || [ -s \"$i\" ] || {{\n"), "\n}") };
        let _ = writeln!(lines, "{open}{}{close}", self::login(login, &h));
    }
    let form = "-fsS --proto =https,http -d grant_type=refresh_token -d client_id=bocker-pull";
    let post = token(form, " --data-urlencode refresh_token@\"$i\"");
    let _ = write!(
        lines,
        r#"fi
if [ -n "$realm" ]; then
  if [ -s "$i" ]; then {post}
  else {get}; fi
  echo "$auth" > {h}
fi
rm "$i""#,
        get = get(&format!(" -H @{h}")),
    );
    lines
}

/// The headers for all places: a mirror that is away is no reason to stop.
fn authorize_all(reference: &Reference, places: &[Place]) -> String {
    let one = |place: &Place| match authorize(reference, &reference.pointer(), place) {
        lines if places.len() == 1 => lines,
        lines => or_else(&lines, ":"),
    };
    places.iter().map(one).collect::<Vec<_>>().join("\n")
}

/// `first`; if that fails, `next`.
fn or_else(first: &str, next: &str) -> String {
    format!("set +e\n( set -e\n{first} )\nok=$?\nset -e\nif [ $ok != 0 ]; then\n{next}\nfi")
}

/// A login as a header in the file `h`, or as an identity token in `$i`.
fn login(login: &Login, h: &str) -> String {
    match login {
        Login::Kept { file, legacy, key, kept } => {
            let all = if *legacy { "." } else { ".auths" };
            let file = quote(file);
            let key = quote(key);
            match kept.form {
                Form::Auth => {
                    format!(r#"jq -r --arg k {key} '"Authorization: Basic " + {all}[$k].auth' {file} > {h}"#)
                }
                Form::UserAndPassword => format!(
                    r#"jq -r --arg k {key} '"Authorization: Basic " + ({all}[$k] | "\(.username):\(.password)" | @base64)' {file} > {h}"#
                ),
                Form::IdentityToken => format!(r#"jq -j --arg k {key} '{all}[$k].identitytoken' {file} > "$i""#),
            }
        }
        Login::Helper { program, path, server, path_var } => {
            let program = path.as_deref().map_or_else(|| quote(program), quote);
            format!(
                r#"c=$(mktemp)
printf %s {server} | PATH={path_var} {program} get > "$c" 2>/dev/null || : > "$c"
jq -r 'select(.Username != "<token>") | "Authorization: Basic " + ("\(.Username):\(.Secret)" | @base64)' "$c" > {h}
jq -j 'select(.Username == "<token>") | .Secret' "$c" > "$i"
rm "$c""#,
                server = quote(server),
                path_var = quote(path_var),
            )
        }
    }
}

/// The manifest as the file `$m`, from the first of the places that has it.
///
/// With a platform, the image for it; else whatever the name stands for.
pub(crate) fn ask(reference: &Reference, places: &[Place], platform: Option<&Platform>) -> String {
    let pinned = reference.digest().map(|digest| format!("\n{}", check(&digest.hex(), "$m"))).unwrap_or_default();
    let pointer = reference.pointer();
    let one = |place: &Place| {
        let Place { mark, options, .. } = place;
        let get = format!("curl -fsSL{options} -H @\"$h{mark}\" -H \"$accept\" -o \"$m\" \"$base{mark}/manifests");
        let authorize = authorize(reference, &pointer, place);
        let choose = platform.map(|platform| choose(platform, &get)).unwrap_or_default();
        format!("{authorize}\n{get}/{pointer}\"{pinned}{choose}")
    };
    let all = places.iter().map(one).rev().reduce(|next, first| or_else(&first, &next)).unwrap_or_default();
    let accept = quote(format!("Accept: {}", manifest::ACCEPT.join(", ")));
    format!("{}accept={accept}\nm=$(mktemp)\n{all}", open(places))
}

/// If `$m` is an index, the platform's manifest instead.
fn choose(platform: &Platform, get: &str) -> String {
    let entries: Vec<String> = platform
        .variants()
        .into_iter()
        .map(|variant| format!(r#"map(select((.platform.variant // "") == "{variant}"))"#))
        .collect();
    format!(
        r#"
for depth in 1 2; do
  digest=$(jq -r '[.manifests[]? | select(.platform.os == "{os}" and .platform.architecture == "{arch}")] | ({entries})[0].digest // empty' "$m")
  [ -n "$digest" ] || break
  {get}/$digest"
  echo "${{digest#sha256:}}  $m" | sha256sum --quiet -c -
done"#,
        os = platform.os,
        arch = platform.arch,
        entries = entries.join(" + "),
    )
}

/// What the name stands for, after [`ask`].
pub(crate) fn digest(reference: &Reference, places: &[Place], platform: Option<&Platform>) -> String {
    format!(
        "{}\necho {}@sha256:\"$(sha256sum < \"$m\" | cut -d' ' -f1)\"\nrm \"$m\"{}",
        ask(reference, places, platform),
        quote(reference.logical_name()),
        temporary(places)
    )
}

/// The configuration of the image whose manifest is `$m`.
pub(crate) fn config(bases: &Bases, temporary: &str) -> String {
    let get = |(base, options): &(String, String)| format!("curl -fsSL{options} -o \"$c\" \"{base}/blobs/$digest\"");
    format!(
        r#"digest=$(jq -r .config.digest "$m")
c=$(mktemp)
{}
echo "${{digest#sha256:}}  $c" | sha256sum --quiet -c -
cat "$c"
rm "$c" "$m"{temporary}"#,
        bases.iter().map(get).collect::<Vec<_>>().join(" ||\n")
    )
}

/// One blob to stdout, from the first of the places that has it.
pub(crate) fn one_blob(reference: &Reference, digest: Digest, places: &[Place]) -> String {
    let get = |(base, options): (String, String)| format!("curl -fsSL{options} -o \"$b\" \"{base}/blobs/{digest}\"");
    format!(
        "{}{}\nb=$(mktemp)\n{}\n{}\ncat \"$b\"\nrm \"$b\"{}",
        open(places),
        authorize_all(reference, places),
        bases(places).into_iter().map(get).collect::<Vec<_>>().join(" ||\n"),
        check(&digest.hex(), "$b"),
        temporary(places)
    )
}

/// The tags, page by page, from the first of the places that has them.
pub(crate) fn tags(reference: &Reference, places: &[Place]) -> String {
    let one = |place: &Place| {
        let Place { mark, options, .. } = place;
        format!(
            r#"{authorize}
page=$base{mark}/tags/list?n=1000
while [ -n "$page" ]; do
  curl -fsSL{options} -H @"$h{mark}" -D "$l" -o "$t" "$page"
  jq -r '.tags[]?' "$t"
  next=$(tr -d '\r' < "$l" | sed -n 's/^link:.*<\([^>]*\)>; *rel="*next.*/\1/Ip')
  case $next in /*) page=${{base{mark}%%/v2/*}}$next ;; *) page=$next ;; esac
done"#,
            authorize = authorize(reference, &reference.pointer(), place),
        )
    };
    let all = places.iter().map(one).rev().reduce(|next, first| or_else(&first, &next)).unwrap_or_default();
    format!("{}t=$(mktemp)\nl=$(mktemp)\n{all}\nrm \"$t\" \"$l\"{}", open(places), temporary(places))
}

/// The records of the manifest in `$m`.
pub(crate) fn records(reference: &Reference, temporary: &str) -> String {
    let tag =
        reference.logical_tag().map(|name| format!("\nprintf 'name\\t%s\\n' {}", quote(name))).unwrap_or_default();
    format!(
        r#"digest=sha256:$(sha256sum < "$m" | cut -d' ' -f1)
printf 'image\t%s@%s\n' {name} "$digest"{tag}
printf 'manifest\t%s\t%s\t%s\t%s\n' "$(jq -r '.mediaType // "application/vnd.oci.image.manifest.v1+json"' "$m")" "$digest" "$(wc -c < "$m")" "$(base64 -w 0 "$m")"
jq -r '(["config"] + (.config | [.mediaType, .digest, .size])), (.layers[] | ["layer", .mediaType, .digest, .size]) | @tsv' "$m"
echo end
rm "$m"{temporary}"#,
        name = quote(reference.name()),
    )
}

/// A layout in the directory `$d`.
pub(crate) fn layout(reference: &Reference, places: &[Place]) -> String {
    let (name, text) = MARKER;
    format!(
        "{}{}\nd=$(mktemp -d)\nmkdir -p \"$d/blobs/sha256\"\nprintf %s {} > \"$d/{name}\"",
        open(places),
        authorize_all(reference, places),
        quote(String::from_utf8_lossy(text).as_ref()),
    )
}

/// A blob that we have already.
pub(crate) fn have(bytes: &[u8], hex: &str) -> String {
    let path = format!("$d/blobs/sha256/{hex}");
    format!("printf %s {} > \"{path}\"\n{}", quote(String::from_utf8_lossy(bytes).as_ref()), check(hex, &path))
}

/// A blob from the first of the places that has it.
pub(crate) fn blob(blob: &Descriptor, bases: &Bases) -> String {
    let hex = blob.digest.hex();
    let path = format!("$d/blobs/sha256/{hex}");
    let get = |(base, options): &(String, String)| {
        format!("curl -fsSL{options} --max-filesize {} -o \"{path}\" \"{base}/blobs/{}\"", blob.size, blob.digest)
    };
    format!("{}\n{}", bases.iter().map(get).collect::<Vec<_>>().join(" ||\n"), check(&hex, &path))
}

/// The layout as a tar stream, `names` in this order.
pub(crate) fn finish(index: &[u8], names: &[String], temporary: &str) -> String {
    format!(
        "printf %s {} > \"$d/index.json\"\ntar -C \"$d\" -c -b 1 --format=gnu --hard-dereference --owner=0 --group=0 --numeric-owner --mode=0644 --mtime=@0 {}\nrm -r \"$d\"{temporary}",
        quote(String::from_utf8_lossy(index).as_ref()),
        names.join(" ")
    )
}

fn check(hex: &str, path: &str) -> String {
    format!("echo \"{hex}  {path}\" | sha256sum --quiet -c -")
}
