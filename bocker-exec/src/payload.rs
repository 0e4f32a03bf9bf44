//! Finding and executing the command, as `execvp(3)` does, inside the container, with the payload's PATH.

use std::ffi::{CStr, CString, OsStr, OsString};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;

use bocker_common::Error;
use bocker_common::diag::{CANNOT_EXECUTE, NOT_FOUND};
use nix::errno::Errno;

use crate::environment::Environment;
use crate::inroot::shown;

/// Becomes the command. Returns only to say why not: 127 when it was not found, 126 when it cannot be executed.
pub(crate) fn exec(words: &[CString], env: &Environment) -> Error {
    let Some(command) = words.first() else { return Error::plain("no command") };
    let variables = env.to_c();
    let (mut worst, mut broken) = (Errno::ENOENT, None);
    for candidate in candidates(command, env.path()) {
        let Err(errno) = nix::unistd::execve(&candidate, words, &variables);
        match errno {
            // Here but not executable: maybe a later directory has a better one.
            Errno::EACCES => worst = errno,
            // ENOENT for a file that exists: what it needs to be run by does not.
            Errno::ENOENT if broken.is_none() && exists(&candidate) => broken = Some(candidate),
            Errno::ENOENT | Errno::ENOTDIR | Errno::ESTALE | Errno::ENODEV | Errno::ETIMEDOUT => {}
            _ => {
                worst = errno;
                break;
            }
        }
    }
    let name = shown(OsStr::from_bytes(command.to_bytes()));
    if let (Errno::ENOENT, Some(file)) = (worst, broken) {
        return Error::new("exec", name, interpreter(&file)).status(NOT_FOUND);
    }
    let error = Error::new("exec", &name, worst);
    match worst {
        Errno::ENOENT if name == "/bin/sh" && words.get(1).is_some_and(|w| w.as_c_str() == c"-c") => {
            error.hint("the image has no shell: give the command as several words").status(NOT_FOUND)
        }
        Errno::ENOENT if !name.contains('/') => error.hint(format!("PATH is {}", shown(env.path()))).status(NOT_FOUND),
        Errno::ENOENT | Errno::ENOTDIR | Errno::ENAMETOOLONG => error.status(NOT_FOUND),
        _ => error.status(CANNOT_EXECUTE),
    }
}

/// The paths to try, in order: the command itself if it has a `/`, else one for each directory of PATH.
fn candidates(command: &CStr, path: &OsStr) -> Vec<CString> {
    let name = command.to_bytes();
    if name.contains(&b'/') {
        return vec![command.to_owned()];
    }
    // An empty name would find the directories themselves.
    if name.is_empty() {
        return Vec::new();
    }
    let directories = path.as_bytes().split(|&b| b == b':');
    // An empty directory in PATH is the working directory.
    let join = |dir: &[u8]| if dir.is_empty() { [b"./", name].concat() } else { [dir, b"/", name].concat() };
    directories.filter_map(|dir| CString::new(join(dir)).ok()).collect()
}

/// Where the command is in the container, for a script; the bare name if nowhere.
pub(crate) fn find(root: &crate::inroot::Root, command: &OsString, path: &OsStr) -> OsString {
    let Ok(name) = CString::new(command.as_bytes()) else { return command.clone() };
    let is_there = |candidate: &CString| {
        let path = OsStr::from_bytes(candidate.to_bytes());
        root.open(path, rustix::fs::OFlags::PATH)
            .ok()
            .and_then(|fd| rustix::fs::fstat(fd).ok())
            .is_some_and(|stat| stat.st_mode & libc::S_IFMT == libc::S_IFREG && stat.st_mode & 0o111 != 0)
    };
    let found = candidates(&name, path).into_iter().find(is_there);
    found.map_or_else(|| command.clone(), |path| OsStr::from_bytes(path.to_bytes()).to_owned())
}

#[expect(clippy::disallowed_methods, reason = "in the container: / is its own since pivot_root(2)")]
fn exists(path: &CStr) -> bool {
    nix::sys::stat::stat(path).is_ok()
}

/// What is missing for this file to run: the program of its `#!` line, or a binary's dynamic linker.
#[expect(clippy::disallowed_methods, reason = "in the container: / is its own since pivot_root(2)")]
fn interpreter(file: &CStr) -> String {
    let mut head = Vec::new();
    // As much as the kernel looks at, BINPRM_BUF_SIZE.
    if let Ok(opened) = std::fs::File::open(OsStr::from_bytes(file.to_bytes())) {
        let _ = opened.take(256).read_to_end(&mut head);
    }
    match head.strip_prefix(b"#!") {
        Some(line) => {
            let line = line.split(|&b| b == b'\n').next().unwrap_or_default();
            let text = String::from_utf8_lossy(line);
            let program = text.split_whitespace().next().unwrap_or_default().to_owned();
            format!("the file is there, its interpreter '{program}' is not")
        }
        None => "the file is there, the dynamic linker it was built for is not".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tried(command: &str, path: &str) -> Vec<String> {
        let all = candidates(&CString::new(command).unwrap(), OsStr::new(path));
        all.into_iter().map(|c| c.into_string().unwrap()).collect()
    }

    #[test]
    fn looks_where_execvp_looks() {
        assert_eq!(tried("ls", "/a:/b"), ["/a/ls", "/b/ls"]);
        assert_eq!(tried("./ls", "/a:/b"), ["./ls"]);
        assert_eq!(tried("ls", ":/b:"), ["./ls", "/b/ls", "./ls"]);
        assert!(tried("", "/a").is_empty());
    }
}
