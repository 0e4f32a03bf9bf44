//! The same in curl, jq, sha256sum and tar.

use bocker_common::say::quote;

use crate::digest::Descriptor;
use crate::layout::MARKER;
use crate::manifest;
use crate::platform::Platform;
use crate::reference::Reference;

/// `$base`, the start of every URL, and `$auth`, the header that goes with it.
fn open(reference: &Reference) -> String {
    format!(
        r#"base={base}
challenge=$(curl -sS -o /dev/null -D - "$base/manifests/{pointer}" | tr -d '\r' | sed -n 's/^www-authenticate: *\(.*bearer \)/ /Ip')
realm=$(echo "$challenge" | sed -n 's/.* realm="\([^"]*\)".*/\1/p')
service=$(echo "$challenge" | sed -n 's/.*service="\([^"]*\)".*/\1/p')
auth=
[ -z "$realm" ] || auth="Authorization: Bearer $(curl -fsSLG --data-urlencode "service=$service" --data-urlencode scope=repository:{repository}:pull --proto =https,http --url "$realm" | jq -r '.token // .access_token')""#,
        base = quote(reference.base()),
        pointer = reference.pointer(),
        repository = reference.repository(),
    )
}

/// The manifest as the file `$m`.
pub(crate) fn ask(reference: &Reference, platform: &Platform) -> String {
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
curl -fsSL -H "$auth" -H "$accept" -o "$m" "$base/manifests/{pointer}"{pinned}
digest=$(jq -r '[.manifests[]? | select(.platform.os == "{os}" and .platform.architecture == "{arch}")] | ({entries})[0].digest // empty' "$m")
if [ -n "$digest" ]; then
  curl -fsSL -H "$auth" -H "$accept" -o "$m" "$base/manifests/$digest"
  echo "${{digest#sha256:}}  $m" | sha256sum --quiet -c -
fi"#,
        open = open(reference),
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
rm "$m""#,
        name = quote(reference.name()),
    )
}

/// A layout in the directory `$d`.
pub(crate) fn layout(reference: &Reference) -> String {
    let (name, text) = MARKER;
    format!(
        "{}\nd=$(mktemp -d)\nmkdir -p \"$d/blobs/sha256\"\nprintf %s {} > \"$d/{name}\"",
        open(reference),
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
        "curl -fsSL -H \"$auth\" --max-filesize {} -o \"{path}\" \"$base/blobs/{}\"\n{}",
        blob.size,
        blob.digest,
        check(&hex, &path)
    )
}

/// The layout as a tar stream, `names` in this order.
pub(crate) fn finish(index: &[u8], names: &[String]) -> String {
    format!(
        "printf %s {} > \"$d/index.json\"\ntar -C \"$d\" -c -b 1 --format=gnu --hard-dereference --owner=0 --group=0 --numeric-owner --mode=0644 --mtime=@0 {}\nrm -r \"$d\"",
        quote(String::from_utf8_lossy(index).as_ref()),
        names.join(" ")
    )
}

fn check(hex: &str, path: &str) -> String {
    format!("echo \"{hex}  {path}\" | sha256sum --quiet -c -")
}
