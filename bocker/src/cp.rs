//! `cp`, by docker's rules: bocker-store has the container's side, tar the host's. From one container to another, which docker's does
//! not, by the same.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use crate::Failure;
use crate::commands::STORE;
use crate::execute::reason;
use crate::plan::{Condition, Job, Step, Tool};
use crate::run::typed;

/// How it is copied.
#[derive(Debug, Clone, Copy)]
pub(crate) struct How {
    /// Owners as they are.
    pub(crate) archive: bool,
    /// A source that is a link: what it leads to.
    pub(crate) follow: bool,
}

/// `CONTAINER:PATH`; what begins with `/` or `.` is a path of the host's, whatever is in it.
fn inside(word: &OsStr) -> Option<(OsString, OsString)> {
    let bytes = word.as_bytes();
    let at = bytes.iter().position(|b| *b == b':').filter(|at| *at > 0)?;
    if matches!(bytes.first(), Some(b'/' | b'.')) {
        return None;
    }
    let own = |bytes: &[u8]| OsString::from_vec(bytes.to_vec());
    Some((own(&bytes[..at]), own(&bytes[at + 1..])))
}

pub(crate) fn cp(source: &OsStr, destination: &OsStr, how: How) -> Result<Vec<Step>, Failure> {
    match (inside(source), inside(destination)) {
        (Some((id, path)), None) => out(&id, &path, destination, how),
        (None, Some((id, path))) => into(source, &id, &path, how),
        (Some((from, path)), Some((to, place))) => Ok(vec![between(&from, &path, &to, &place, how)]),
        (None, None) => Err(Failure::usage("cp: neither is CONTAINER:PATH (a path of the host's may begin with ./)")),
    }
}

/// Under this name, else under its own.
fn cp_out(id: &OsStr, path: &OsStr, name: Option<OsString>, how: How) -> Tool {
    Tool::new(STORE, ["cp-out"])
        .and(how.follow.then_some("--follow-link"))
        .and(typed("name", name))
        .and(["--"])
        .and([id, path].map(OsStr::to_owned))
}

/// `piped`: from cp-out, which says itself why nothing comes.
fn cp_in(id: &OsStr, path: &OsStr, owner: Option<&str>, piped: bool) -> Tool {
    let owner = owner.map(|owner| format!("--owner={owner}"));
    Tool::new(STORE, ["cp-in"])
        .and(piped.then_some("--piped"))
        .and(owner)
        .and(["--"])
        .and([id, path].map(OsStr::to_owned))
}

/// Of `DIR/.` an existing directory takes what is in it; what is not there becomes the directory, which then needs a name.
fn between(from: &OsStr, path: &OsStr, to: &OsStr, place: &OsStr, how: How) -> Step {
    let cp_in = || cp_in(to, place, owner(how), true);
    let whole = Step::pipe(vec![cp_out(from, path, None, how), cp_in()]);
    let Some(name) = Path::new(place).file_name().filter(|_| path == "." || path.as_bytes().ends_with(b"/.")) else {
        return whole;
    };
    let named = Step::pipe(vec![cp_out(from, path, Some(name.to_owned()), how), cp_in()]);
    // Something in it could be made, or is there: of a directory only.
    let within = [place, OsStr::new("/x")].into_iter().collect::<OsString>();
    let is_dir = Job::run(Tool::new(STORE, ["cp-stat", "--"]).and([to.to_owned(), within]));
    Step::If(Condition::Quietly(is_dir), vec![whole], vec![named])
}

/// Whose it becomes in a container; none: as it is.
fn owner(how: How) -> Option<&'static str> {
    (!how.archive).then_some("0:0")
}

fn out(id: &OsStr, path: &OsStr, destination: &OsStr, how: How) -> Result<Vec<Step>, Failure> {
    let cp_out = |name| cp_out(id, path, name, how);
    if destination == "-" {
        return Ok(vec![Step::run(cp_out(None))]);
    }
    let tar = |dir: &Path| {
        // The directory that it comes into keeps its own mode.
        let tar = Tool::new("tar", ["--numeric-owner", "--no-overwrite-dir"]);
        // Without -a what is copied is the caller's, as docker has it.
        let owner = if how.archive { ["--same-owner"] } else { ["--no-same-owner"] };
        tar.and(owner).and(["-p", "-x", "-C"]).and([dir.as_os_str().to_owned()])
    };
    // Else tar would have something to say of an archive that does not come, too.
    let stat = Tool::new(STORE, ["cp-stat", "--existing"]).and(how.follow.then_some("--follow-link"));
    let exists = Step::capture("source", vec![stat.and(["--"]).and([id, path].map(OsStr::to_owned))]);
    let place = Path::new(destination);
    if place.is_dir() {
        return Ok(vec![exists, Step::pipe(vec![cp_out(None), tar(place)])]);
    }
    let (dir, name) = split(place).ok_or_else(|| missing(place))?;
    if !dir.is_dir() {
        return Err(missing(&dir));
    }
    let there = place.symlink_metadata().is_ok();
    let pipe = Step::pipe(vec![cp_out(Some(name)), tar(&dir)]);
    let slash = destination.as_bytes().ends_with(b"/");
    // `PATH/.` leads on from a directory only.
    let contents = [path, OsStr::new("/.")].into_iter().collect::<OsString>();
    let is_dir = Job::run(Tool::new(STORE, ["cp-stat", "--follow-link", "--"]).and([id.to_owned(), contents]));
    let line = |why: &str| vec![Step::Fail(format!("cp {}: {why}", destination.to_string_lossy()))];
    Ok(vec![
        exists,
        match (there, slash) {
            (false, false) => pipe,
            (true, _) => {
                Step::If(Condition::Quietly(is_dir), line("a directory cannot be copied over a file"), vec![pipe])
            }
            (false, true) => Step::If(Condition::Quietly(is_dir), vec![pipe], line("there is no such directory")),
        },
    ])
}

fn missing(path: &Path) -> Failure {
    Failure::new(format!("cp {}: there is no such directory", path.display()))
}

/// The directory, and the name in it.
fn split(path: &Path) -> Option<(PathBuf, OsString)> {
    let name = path.file_name()?.to_owned();
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Some((dir.to_owned(), name))
}

fn into(source: &OsStr, id: &OsStr, path: &OsStr, how: How) -> Result<Vec<Step>, Failure> {
    if source == "-" {
        return Ok(vec![Step::run(cp_in(id, path, None, false))]);
    }
    let typed = Path::new(source);
    let fail = |e: std::io::Error| Failure::new(format!("cp {}: {}", typed.display(), reason(&e)));
    let found = std::fs::symlink_metadata(typed).map_err(fail)?;
    let slash = source.as_bytes().ends_with(b"/");
    if slash && !found.is_dir() && !typed.is_dir() {
        return Err(Failure::new(format!("cp {}: Not a directory", typed.display())));
    }
    let tar = Tool::new("tar", ["--numeric-owner"]);
    let contents = source == "." || source.as_bytes().ends_with(b"/.");
    let tar = if contents {
        tar.and(["-C".into(), source.to_owned(), "-c".into(), ".".into()])
    } else {
        let real;
        // `..` has a name only once it is resolved.
        let (from, name) = match split(typed) {
            Some((dir, name)) if !(how.follow && found.is_symlink()) => (dir, name),
            _ => {
                real = std::fs::canonicalize(typed).map_err(fail)?;
                split(&real).unwrap_or_else(|| (real.clone(), ".".into()))
            }
        };
        let called = typed.file_name().filter(|called| *called != name && name != ".");
        let tar = tar.and(called.map(transform));
        tar.and(["-C".into(), from.into_os_string(), "-c".into(), "--".into(), name])
    };
    Ok(vec![Step::pipe(vec![tar, cp_in(id, path, owner(how), false)])])
}

/// The first part of each name becomes this: not what a link leads to is copied under its name, but under the link's.
fn transform(name: &OsStr) -> OsString {
    let mut word = b"--transform=flags=rh;s,^[^/]*,".to_vec();
    for byte in name.as_bytes() {
        word.extend(b"\\&,".contains(byte).then_some(b'\\'));
        word.push(*byte);
    }
    word.push(b',');
    OsString::from_vec(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script(source: &str, destination: &str, archive: bool, follow: bool) -> String {
        let how = How { archive, follow };
        match cp(OsStr::new(source), OsStr::new(destination), how) {
            Ok(steps) => {
                let plan = crate::plan::Plan { steps, ..Default::default() };
                crate::shell::script(&plan, Path::new("/b")).split_once('\n').unwrap().1.to_owned()
            }
            Err(failure) => format!("{failure:?}"),
        }
    }

    #[test]
    fn out_of_a_container() {
        let cp = |to: &str| script("web:/etc/x", to, false, false);
        assert_eq!(cp("-"), "bocker-store cp-out -- web /etc/x || exit\n");
        let stat = "source=$(bocker-store cp-stat --existing -- web /etc/x) || exit\n";
        let tar = "tar --numeric-owner --no-overwrite-dir --no-same-owner -p -x -C";
        assert_eq!(cp("/tmp"), format!("{stat}bocker-store cp-out -- web /etc/x | {tar} /tmp || exit\n"));
        assert_eq!(
            cp("/tmp/nosuch"),
            format!("{stat}bocker-store cp-out --name=nosuch -- web /etc/x | {tar} /tmp || exit\n")
        );
        assert_eq!(
            cp("/etc/hostname"),
            format!(
                "{stat}if bocker-store cp-stat --follow-link -- web /etc/x/. >/dev/null 2>&1; then\n    \
                 echo 'bocker: cp /etc/hostname: a directory cannot be copied over a file' >&2; exit 1\nelse\n    \
                 bocker-store cp-out --name=hostname -- web /etc/x | {tar} /etc || exit\nfi\n"
            )
        );
        assert!(cp("/nosuch/x").contains("/nosuch: there is no such directory"));
        let followed = script("web:x", "/tmp", true, true);
        assert!(followed.starts_with("source=$(bocker-store cp-stat --existing --follow-link -- web x) || exit\nbocker-store cp-out --follow-link -- web x | tar "), "{followed}");
    }

    #[test]
    fn into_a_container() {
        let end = "| bocker-store cp-in --owner=0:0 -- web /srv || exit\n";
        let cp = |from: &str| script(from, "web:/srv", false, false);
        assert_eq!(cp("/etc/hostname"), format!("tar --numeric-owner -C /etc -c -- hostname {end}"));
        assert_eq!(cp("/etc/"), format!("tar --numeric-owner -C / -c -- etc {end}"));
        assert_eq!(cp("/etc/."), format!("tar --numeric-owner -C /etc/. -c . {end}"));
        assert_eq!(cp("/"), format!("tar --numeric-owner -C / -c -- . {end}"));
        assert_eq!(cp("-"), "bocker-store cp-in -- web /srv || exit\n");
        assert!(cp("/etc/hostname/").contains("Not a directory"));
        assert!(cp("/nosuch").contains("No such file"));
        let link = std::env::temp_dir().join(format!("bocker-cp,{}", std::process::id()));
        std::os::unix::fs::symlink("/etc/hostname", &link).unwrap();
        let followed = script(link.to_str().unwrap(), "web:/srv", true, true);
        std::fs::remove_file(&link).unwrap();
        assert!(followed.contains(" -C /etc -c -- hostname |"), "{followed}");
        assert!(followed.contains("--transform="), "{followed}");
        assert_eq!(transform(OsStr::new("a,b&\\c")), "--transform=flags=rh;s,^[^/]*,a\\,b\\&\\\\c,");
    }

    #[test]
    fn one_side_is_a_container_or_both_are() {
        assert_eq!(inside(OsStr::new("web:/x:y")), Some(("web".into(), "/x:y".into())));
        for host in ["/a:b", "./a:b", "a", ":a", "-"] {
            assert_eq!(inside(OsStr::new(host)), None, "{host}");
        }
        let end = "bocker-store cp-in --piped --owner=0:0 -- c /d || exit\n";
        assert_eq!(script("a:/b", "c:/d", false, false), format!("bocker-store cp-out -- a /b | {end}"));
        let whole = "bocker-store cp-out --follow-link -- a /b | bocker-store cp-in --piped -- c /d || exit\n";
        assert_eq!(script("a:/b", "c:/d", true, true), whole);
        let contents = script("a:/b/.", "c:/d", false, false);
        assert!(contents.starts_with("if bocker-store cp-stat -- c /d/x >/dev/null 2>&1; then\n"), "{contents}");
        assert!(contents.contains("else\n    bocker-store cp-out --name=d -- a /b/. | "), "{contents}");
        assert!(script("a", "b", false, false).contains("neither"));
    }
}
