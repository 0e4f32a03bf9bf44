//! What docker's client reads out of the values of its flags: sizes, files of variables, mounts, devices.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use crate::Failure;
use crate::execute::reason;
use crate::flags::bad;

/// Whoever types: its environment, and where it stands.
#[derive(Clone, Copy)]
pub struct Caller<'a> {
    /// A variable of its environment.
    pub env: &'a dyn Fn(&OsStr) -> Option<OsString>,
    /// Its working directory.
    pub dir: &'a Path,
}

impl std::fmt::Debug for Caller<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Caller").field("dir", &self.dir).finish_non_exhaustive()
    }
}

/// As Go's `strconv.ParseBool`.
///
/// # Errors
/// Another word.
pub fn truth(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err("true or false".to_owned()),
    }
}

/// Bytes, as docker's `RAMInBytes` reads them: `512m`, `1.5g`, `1kib`, `64MB`; the letters are powers of 1024.
pub fn size(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(digits)?;
    let unit = unit.strip_prefix(' ').unwrap_or(unit).to_ascii_lowercase();
    let power = match unit.trim_end_matches('b').trim_end_matches('i') {
        "" if matches!(unit.as_str(), "" | "b") => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return None,
    };
    if unit.len() > 3 || unit.ends_with("bb") || unit.ends_with('i') {
        return None;
    }
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    let whole: u64 = if whole.is_empty() && !part.is_empty() { 0 } else { whole.parse().ok()? };
    let unit = 1024_u64.checked_pow(power)?;
    let part = if part.is_empty() { 0.0 } else { format!("0.{part}").parse::<f64>().ok()? };
    whole.checked_mul(unit)?.checked_add((part * unit as f64) as u64)
}

/// `NAME=VALUE` of the files, then of the flags, which say it last. With a caller, a name alone has its value, and is left out if it
/// has none; without one, a name alone stays as it is.
///
/// # Errors
/// A file that cannot be read, or a line or word without a name.
pub fn pairs(
    files: &[OsString],
    typed: Vec<OsString>,
    flag: &str,
    caller: Option<Caller>,
) -> Result<Vec<OsString>, Failure> {
    let mut all = Vec::new();
    for file in files {
        let shown = Path::new(file).display();
        let text = std::fs::read(file).map_err(|e| Failure::new(format!("{flag} {shown}: {}", reason(&e))))?;
        let found = lines(&text).map_err(|(line, why)| Failure::usage(format!("{flag} {shown} line {line}: {why}")))?;
        all.extend(found);
    }
    if let Some(nameless) = typed.iter().find(|pair| pair.is_empty() || pair.as_bytes().starts_with(b"=")) {
        return Err(bad(flag.trim_end_matches("-file"), nameless, "there is no name before the ="));
    }
    all.extend(typed);
    let Some(caller) = caller else { return Ok(all) };
    let resolved = |pair: OsString| {
        if pair.as_bytes().contains(&b'=') {
            return Some(pair);
        }
        let value = (caller.env)(&pair)?;
        Some([pair, "=".into(), value].into_iter().collect())
    };
    Ok(all.into_iter().filter_map(resolved).collect())
}

/// The lines of such a file that say something. As docker's `kvfile` has it: what is white before a line is dropped, what is behind it
/// belongs to the value, quotes mean nothing, `#` begins a comment only where the line does.
fn lines(text: &[u8]) -> Result<Vec<OsString>, (usize, &'static str)> {
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let mut all = Vec::new();
    for (at, line) in text.split(|b| *b == b'\n').enumerate() {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let line = std::str::from_utf8(line).map_err(|_| (at + 1, "it is no UTF-8"))?.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let name = line.split('=').next().unwrap_or_default();
        if name.is_empty() {
            return Err((at + 1, "there is no name before the ="));
        }
        if name.contains(char::is_whitespace) {
            return Err((at + 1, "there is white space in the name"));
        }
        if line.contains('\0') {
            return Err((at + 1, "there is a NUL"));
        }
        all.push(line.into());
    }
    Ok(all)
}

/// Where a mount comes from.
#[derive(Debug, PartialEq, Eq)]
pub enum Mount {
    /// A volume of the store, `[NAME:]DST[:OPTS]`: for bocker-store.
    Volume(OsString),
    /// Of the host or the memory: for bocker-exec.
    Other(OsString),
}

/// The path from the root; one from here is the caller's.
pub fn absolute(path: &OsStr, caller: Caller) -> OsString {
    let bytes = path.as_bytes();
    let mut relative = bytes;
    while let Some(rest) = relative.strip_prefix(b"./") {
        relative = rest;
    }
    match relative {
        b"" | b"." => caller.dir.into(),
        _ => caller.dir.join(OsStr::from_bytes(relative)).into(),
    }
}

/// `-v`: what begins with `/` or `.` is a path of the host's, other words are names of volumes.
///
/// # Errors
/// The place inside is no absolute path.
pub fn volume(text: &OsStr, caller: Caller) -> Result<Mount, Failure> {
    let bytes = text.as_bytes();
    let wrong = |why: &str| bad("--volume", text, why);
    let inside =
        |rest: &[u8]| if rest.starts_with(b"/") { Ok(()) } else { Err(wrong("the place inside is no absolute path")) };
    match bytes.iter().position(|b| *b == b':') {
        None => inside(bytes).map(|()| Mount::Volume(text.into())),
        Some(at) => {
            let (from, rest) = (&bytes[..at], &bytes[at + 1..]);
            inside(rest)?;
            match from.first() {
                None => Err(wrong("there is nothing before the colon")),
                Some(b'/' | b'.') => {
                    let mut bind = absolute(OsStr::from_bytes(from), caller);
                    bind.push(":");
                    bind.push(OsStr::from_bytes(rest));
                    Ok(Mount::Other(bind))
                }
                Some(_) => Ok(Mount::Volume(text.into())),
            }
        }
    }
}

/// `--mount`: fields parted by commas. `type=volume`, the default, is said to bocker-store as `-v` is.
///
/// # Errors
/// A volume with a field that volumes have not; none has a place.
pub fn mount(text: &OsStr, caller: Caller) -> Result<Mount, Failure> {
    let wrong = |why: &str| bad("--mount", text, why);
    let fields: Vec<(&[u8], Option<&[u8]>)> = text
        .as_bytes()
        .split(|b| *b == b',')
        .map(|field| match field.iter().position(|b| *b == b'=') {
            Some(at) => (&field[..at], Some(&field[at + 1..])),
            None => (field, None),
        })
        .collect();
    let last = |keys: &[&[u8]]| fields.iter().rev().find(|(key, _)| keys.contains(key)).and_then(|(_, value)| *value);
    let kind = last(&[b"type"]).unwrap_or(b"volume");
    let target = last(&[b"target", b"dst", b"destination"]).ok_or_else(|| wrong("there is no target=…"))?;
    let source = last(&[b"source", b"src"]).unwrap_or_default();
    if kind != b"volume" {
        let mut all: Vec<Vec<u8>> = Vec::new();
        for (key, value) in &fields {
            let value = match (*key, value) {
                (b"source" | b"src", Some(path)) => Some(absolute(OsStr::from_bytes(path), caller).into_vec()),
                (_, value) => value.map(<[u8]>::to_vec),
            };
            all.push(match value {
                Some(value) => [*key, b"=", &value].concat(),
                None => key.to_vec(),
            });
        }
        return Ok(Mount::Other(OsString::from_vec(all.join(&b","[..]))));
    }
    let mut options: Vec<&[u8]> = Vec::new();
    for (key, value) in &fields {
        let on =
            value.is_none_or(|value| std::str::from_utf8(value).ok().and_then(|text| truth(text).ok()) == Some(true));
        match *key {
            b"readonly" | b"ro" => options.extend(on.then_some(&b"ro"[..])),
            b"volume-nocopy" => options.extend(on.then_some(&b"nocopy"[..])),
            b"type" | b"source" | b"src" | b"target" | b"dst" | b"destination" => {}
            other => return Err(wrong(&format!("a volume has no '{}'", String::from_utf8_lossy(other)))),
        }
    }
    let mut parts = Vec::new();
    parts.extend((!source.is_empty()).then_some(source));
    parts.push(target);
    let options = options.join(&b","[..]);
    parts.extend((!options.is_empty()).then_some(&options[..]));
    // It ends in a name that is none if there is a colon in the middle: bocker-store says so.
    Ok(Mount::Volume(OsString::from_vec(parts.join(&b":"[..]))))
}

/// `--device HOST[:INSIDE[:rwm]]`, or docker's `HOST:rwm`: bocker-exec's word, and the limit of bocker-cg that lets it be used.
///
/// # Errors
/// The host has no such device.
pub fn device(text: &OsStr) -> Result<(OsString, String), Failure> {
    let wrong = |why: &str| bad("--device", text, why);
    let words = text.to_str().ok_or_else(|| wrong("it is no UTF-8"))?;
    let is_mode = |word: &str| !word.is_empty() && word.bytes().all(|b| b"rwm".contains(&b));
    let parts: Vec<&str> = words.split(':').collect();
    let (host, inside, mode) = match parts.as_slice() {
        [host] => (*host, *host, "rwm"),
        [host, mode] if is_mode(mode) => (*host, *host, *mode),
        [host, inside] => (*host, *inside, "rwm"),
        [host, inside, mode] if is_mode(mode) => (*host, *inside, *mode),
        _ => return Err(wrong("as /dev/fuse, /dev/sda:/dev/xvda or /dev/sda:/dev/xvda:r")),
    };
    let found = std::fs::metadata(host).map_err(|e| wrong(&reason(&e)))?;
    let kind = match found.file_type() {
        kind if kind.is_char_device() => 'c',
        kind if kind.is_block_device() => 'b',
        _ => return Err(wrong("it is no device")),
    };
    let (major, minor) = (nix::sys::stat::major(found.rdev()), nix::sys::stat::minor(found.rdev()));
    Ok((format!("{host}:{inside}:{mode}").into(), format!("device={kind}:{major}:{minor}:{mode}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller() -> Caller<'static> {
        Caller {
            env: &|name| (name == "SET").then(|| "it is".into()).or((name == "EMPTY").then(OsString::new)),
            dir: Path::new("/here"),
        }
    }

    #[test]
    fn sizes_as_docker_reads_them() {
        for (text, bytes) in [
            ("512", 512),
            ("512b", 512),
            ("32k", 32 << 10),
            ("512m", 512 << 20),
            ("512MB", 512 << 20),
            ("1GiB", 1 << 30),
            ("1.5g", 3 << 29),
            (".5k", 512),
            ("2t", 2 << 40),
            ("64 mb", 64 << 20),
        ] {
            assert_eq!(size(text), Some(bytes), "{text}");
        }
        for text in ["", "m", "512x", "-1", "1mm", "1ib", "1mbb", "1i", "1.2.3m", "1 0m", "99999999p", "1bm", "é"] {
            assert_eq!(size(text), None, "{text}");
        }
    }

    #[test]
    fn files_of_variables_as_docker_reads_them() {
        let file = "\u{feff}A=1\n  B=two words \n# comment\n\nC=\"quoted\"#x\nD=a=b\r\nSET\nUNSET\n\tE=\n";
        let said: Vec<_> = lines(file.as_bytes()).unwrap();
        assert_eq!(said, ["A=1", "B=two words ", "C=\"quoted\"#x", "D=a=b", "SET", "UNSET", "E="]);
        for (bad, at) in [("A=1\n=x", 2), ("A B=1", 1), ("A =1", 1), ("A=\0", 1)] {
            assert_eq!(lines(bad.as_bytes()).unwrap_err().0, at, "{bad:?}");
        }
        assert_eq!(lines(b"A=1\nB=\xff").unwrap_err().0, 2);
    }

    #[test]
    fn a_name_alone_has_the_callers_value() {
        let typed = || ["SET", "EMPTY", "UNSET", "X=1", "Y="].map(OsString::from).to_vec();
        assert_eq!(pairs(&[], typed(), "--env-file", Some(caller())).unwrap(), ["SET=it is", "EMPTY=", "X=1", "Y="]);
        assert_eq!(pairs(&[], typed(), "--label-file", None).unwrap(), typed());
        let failure = pairs(&[], vec!["=x".into()], "--env-file", Some(caller())).unwrap_err();
        assert!(failure.line.starts_with("--env '=x'"), "{failure:?}");
        let failure = pairs(&["/nonexistent".into()], vec![], "--env-file", None).unwrap_err();
        assert_eq!(failure.line, "--env-file /nonexistent: No such file or directory");
    }

    #[test]
    fn volumes_are_told_from_directories() {
        let other = |text: &str| Mount::Other(text.into());
        let own = |text: &str| Mount::Volume(text.into());
        for (text, expected) in [
            ("data:/d", own("data:/d")),
            ("/d", own("/d")),
            ("/a:/b:ro", other("/a:/b:ro")),
            ("./a:/b", other("/here/a:/b")),
            (".:/b", other("/here:/b")),
            ("../a:/b", other("/here/../a:/b")),
        ] {
            assert_eq!(volume(OsStr::new(text), caller()).unwrap(), expected, "{text}");
        }
        for text in ["", "d", "a:b", "/a:ro", ":/b", "a:"] {
            assert!(volume(OsStr::new(text), caller()).is_err(), "{text}");
        }
        for (text, expected) in [
            ("source=data,target=/d", own("data:/d")),
            ("type=volume,dst=/d,readonly,volume-nocopy=true", own("/d:ro,nocopy")),
            ("type=volume,src=x,dst=/d,readonly=false", own("x:/d")),
            ("type=bind,src=.,target=/d,readonly", other("type=bind,src=/here,target=/d,readonly")),
            ("type=tmpfs,target=/d,tmpfs-size=1m", other("type=tmpfs,target=/d,tmpfs-size=1m")),
        ] {
            assert_eq!(mount(OsStr::new(text), caller()).unwrap(), expected, "{text}");
        }
        for text in ["", "type=bind,source=/a", "source=a,target=/d,volume-opt=x"] {
            assert!(mount(OsStr::new(text), caller()).is_err(), "{text}");
        }
    }

    #[test]
    fn devices_by_their_numbers() {
        let of = |text: &str| device(OsStr::new(text));
        assert_eq!(of("/dev/null").unwrap(), ("/dev/null:/dev/null:rwm".into(), "device=c:1:3:rwm".to_owned()));
        assert_eq!(of("/dev/null:r").unwrap(), ("/dev/null:/dev/null:r".into(), "device=c:1:3:r".to_owned()));
        assert_eq!(of("/dev/null:/dev/x:rw").unwrap(), ("/dev/null:/dev/x:rw".into(), "device=c:1:3:rw".to_owned()));
        for text in ["/nonexistent", "/", "/dev/null:/x:q", "/dev/null:a:b:c"] {
            assert!(of(text).is_err(), "{text}");
        }
    }
}
