//! The same in curl, jq, sha256sum and tar.

use std::fmt::Write as _;

use bocker_common::say::quote;

use crate::auth::{Form, Login};
use crate::digest::Descriptor;
use crate::layout::MARKER;
use crate::manifest;
use crate::platform::Platform;
use crate::reference::Reference;

/// `$base`, the start of every URL, and the file `$h` with the header that goes with it: neither a login nor a token is ever
/// a word of a command line, which others could read.
fn open(reference: &Reference, logins: &[Login]) -> String {
    let mut lines = format!(
        r#"base={base}
h=$(mktemp)
challenge=$(curl -sS -o /dev/null -D - "$base/manifests/{pointer}" | tr -d '\r' | sed -n 's/^www-authenticate: */ /Ip')
bearer=$(echo "$challenge" | sed -n 's/.* bearer / /Ip')
realm=$(echo "$bearer" | sed -n 's/.* realm="\([^"]*\)".*/\1/p')
service=$(echo "$bearer" | sed -n 's/.*service="\([^"]*\)".*/\1/p')
"#,
        base = quote(reference.endpoint().base()),
        pointer = reference.pointer(),
    );
    let scope = format!("scope=repository:{}:pull", reference.repository());
    let token = |how: &str, header: &str| {
        format!(
            r#"auth=$(curl {how}{header} --data-urlencode "service=$service" --data-urlencode {scope} --url "$realm" | jq -er '"Authorization: Bearer " + (.token // .access_token)')"#
        )
    };
    let get = |header: &str| token("-fsSLG --proto =https,http", header);
    if logins.is_empty() {
        let _ = write!(lines, "[ -z \"$realm\" ] || {{ {}; echo \"$auth\" > \"$h\"; }}", get(""));
        return lines;
    }
    lines.push_str("i=$(mktemp)\nif [ -n \"$challenge\" ]; then\n");
    for (at, login) in logins.iter().enumerate() {
        // The first that has one counts.
        let (open, close) = if at == 0 { ("", "") } else { ("[ -s \"$h\" ] || [ -s \"$i\" ] || {\n", "\n}") };
        let _ = writeln!(lines, "{open}{}{close}", self::login(login));
    }
    let post = token(
        "-fsS --proto =https,http -d grant_type=refresh_token -d client_id=bocker-pull",
        " --data-urlencode refresh_token@\"$i\"",
    );
    let _ = write!(
        lines,
        r#"fi
if [ -n "$realm" ]; then
  if [ -s "$i" ]; then {post}
  else {get}; fi
  echo "$auth" > "$h"
fi
rm "$i""#,
        get = get(" -H @\"$h\""),
    );
    lines
}

/// A login as a header in `$h`, or as an identity token in `$i`.
fn login(login: &Login) -> String {
    match login {
        Login::Kept { file, legacy, key, kept } => {
            let all = if *legacy { "." } else { ".auths" };
            let file = quote(file);
            let key = quote(key);
            match kept.form {
                Form::Auth => {
                    format!(r#"jq -r --arg k {key} '"Authorization: Basic " + {all}[$k].auth' {file} > "$h""#)
                }
                Form::UserAndPassword => format!(
                    r#"jq -r --arg k {key} '"Authorization: Basic " + ({all}[$k] | "\(.username):\(.password)" | @base64)' {file} > "$h""#
                ),
                Form::IdentityToken => format!(r#"jq -j --arg k {key} '{all}[$k].identitytoken' {file} > "$i""#),
            }
        }
        Login::Helper { program, path, server, path_var } => {
            let program = path.as_deref().map_or_else(|| quote(program), quote);
            format!(
                r#"c=$(mktemp)
printf %s {server} | PATH={path_var} {program} get > "$c" 2>/dev/null || : > "$c"
jq -r 'select(.Username != "<token>") | "Authorization: Basic " + ("\(.Username):\(.Secret)" | @base64)' "$c" > "$h"
jq -j 'select(.Username == "<token>") | .Secret' "$c" > "$i"
rm "$c""#,
                server = quote(server),
                path_var = quote(path_var),
            )
        }
    }
}

/// The manifest as the file `$m`.
pub(crate) fn ask(reference: &Reference, logins: &[Login], platform: &Platform) -> String {
    let entries: Vec<String> = platform
        .variants()
        .into_iter()
        .map(|variant| format!(r#"map(select((.platform.variant // "") == "{variant}"))"#))
        .collect();
    let pinned = reference.digest().map(|digest| format!("\n{}", check(&digest.hex(), "$m"))).unwrap_or_default();
    format!(
        r#"{open}
accept={accept}
m=$(mktemp)
curl -fsSL -H @"$h" -H "$accept" -o "$m" "$base/manifests/{pointer}"{pinned}
digest=$(jq -r '[.manifests[]? | select(.platform.os == "{os}" and .platform.architecture == "{arch}")] | ({entries})[0].digest // empty' "$m")
if [ -n "$digest" ]; then
  curl -fsSL -H @"$h" -H "$accept" -o "$m" "$base/manifests/$digest"
  echo "${{digest#sha256:}}  $m" | sha256sum --quiet -c -
fi"#,
        open = open(reference, logins),
        accept = quote(format!("Accept: {}", manifest::ACCEPT.join(", "))),
        pointer = reference.pointer(),
        os = platform.os,
        arch = platform.arch,
        entries = entries.join(" + "),
    )
}

/// The records of the manifest in `$m`.
pub(crate) fn records(reference: &Reference) -> String {
    format!(
        r#"digest=sha256:$(sha256sum < "$m" | cut -d' ' -f1)
printf 'image\t%s@%s\n' {name} "$digest"
printf 'manifest\t%s\t%s\t%s\t%s\n' "$(jq -r '.mediaType // "application/vnd.oci.image.manifest.v1+json"' "$m")" "$digest" "$(wc -c < "$m")" "$(base64 -w 0 "$m")"
jq -r '(["config"] + (.config | [.mediaType, .digest, .size])), (.layers[] | ["layer", .mediaType, .digest, .size]) | @tsv' "$m"
echo end
rm "$m" "$h""#,
        name = quote(reference.name()),
    )
}

/// A layout in the directory `$d`.
pub(crate) fn layout(reference: &Reference, logins: &[Login]) -> String {
    let (name, text) = MARKER;
    format!(
        "{}\nd=$(mktemp -d)\nmkdir -p \"$d/blobs/sha256\"\nprintf %s {} > \"$d/{name}\"",
        open(reference, logins),
        quote(String::from_utf8_lossy(text).as_ref()),
    )
}

/// A blob that we have already.
pub(crate) fn have(bytes: &[u8], hex: &str) -> String {
    let path = format!("$d/blobs/sha256/{hex}");
    format!("printf %s {} > \"{path}\"\n{}", quote(String::from_utf8_lossy(bytes).as_ref()), check(hex, &path))
}

/// A blob from the registry.
pub(crate) fn blob(blob: &Descriptor) -> String {
    let hex = blob.digest.hex();
    let path = format!("$d/blobs/sha256/{hex}");
    format!(
        "curl -fsSL -H @\"$h\" --max-filesize {} -o \"{path}\" \"$base/blobs/{}\"\n{}",
        blob.size,
        blob.digest,
        check(&hex, &path)
    )
}

/// The layout as a tar stream, `names` in this order.
pub(crate) fn finish(index: &[u8], names: &[String]) -> String {
    format!(
        "printf %s {} > \"$d/index.json\"\ntar -C \"$d\" -c -b 1 --format=gnu --hard-dereference --owner=0 --group=0 --numeric-owner --mode=0644 --mtime=@0 {}\nrm -r \"$d\" \"$h\"",
        quote(String::from_utf8_lossy(index).as_ref()),
        names.join(" ")
    )
}

fn check(hex: &str, path: &str) -> String {
    format!("echo \"{hex}  {path}\" | sha256sum --quiet -c -")
}
