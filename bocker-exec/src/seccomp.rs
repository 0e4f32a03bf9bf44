//! The system call filter, seccomp(2): what of the kernel a container can reach at all.
//!
//! A profile is a list of rules, ours (as docker's, with fewer doors) or read from a file in docker's format, and is compiled
//! to one BPF program when the container is planned. What looks at arguments is the library's (seccompiler, of the rust-vmm
//! project). It knows programs with two answers only; a profile has more. So each answer is a program of its own, and where
//! it does not match, the next begins:
//!
//! 1. rules with conditions on arguments, the harshest answer first;
//! 2. rules without, and the default: a tree of comparisons with the call's number.
//!
//! The kernel remembers which calls are allowed whatever their arguments are and does not run the program for them
//! (Linux 5.11). To learn that it tries each of them when the filter is set: a list of 300 comparisons, which the library would make of
//! the second part, costs 0.7 ms there, at each start of a container and each join, and a tree nothing that can be measured.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use bocker_common::{Error, Result};
use seccompiler::{
    BpfProgram, SeccompAction as Action, SeccompCmpArgLen as Length, SeccompCmpOp as Op, SeccompCondition as Condition,
    SeccompFilter, SeccompRule, sock_filter,
};
use serde::Deserialize;

use crate::caps::{self, Capabilities};
use crate::syscalls;

/// `--seccomp`
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seccomp {
    /// Ours.
    Default,
    /// None.
    Unconfined,
    /// docker's JSON.
    File(std::path::PathBuf),
}

impl From<&str> for Seccomp {
    fn from(word: &str) -> Self {
        match word {
            "default" => Self::Default,
            "unconfined" => Self::Unconfined,
            file => Self::File(file.into()),
        }
    }
}

/// A compiled profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// For the kernel.
    pub program: Vec<sock_filter>,
    /// Whose it is, in words.
    pub name: String,
}

/// The filter of a container with these capabilities; `None` for `unconfined`.
///
/// # Errors
/// One line: a file that cannot be read, or asks for something that we do not do.
pub fn filter(seccomp: &Seccomp, capabilities: Capabilities) -> Result<Option<Filter>> {
    let (profile, name) = match seccomp {
        Seccomp::Unconfined => return Ok(None),
        Seccomp::Default => (default_profile(capabilities), "the default profile".to_owned()),
        Seccomp::File(file) => (read(file, capabilities)?, file.display().to_string()),
    };
    let program = profile.compile().map_err(|e| Error::new("compile", &name, e))?;
    Ok(Some(Filter { program, name }))
}

/// Rules, and the answer for what none of them is about.
struct Profile {
    default: Action,
    rules: Vec<Rule>,
}

/// These calls get this answer, where the arguments fulfil all conditions.
struct Rule {
    calls: Vec<i64>,
    action: Action,
    conditions: Vec<Condition>,
}

const EPERM: Action = Action::Errno(libc::EPERM as u32);
const ENOSYS: Action = Action::Errno(libc::ENOSYS as u32);
const EAFNOSUPPORT: Action = Action::Errno(libc::EAFNOSUPPORT as u32);

/// Doors that a capability opens; without it EPERM, as the kernel would say.
const WITH_CAPABILITY: [(&[&str], &[&str]); 14] = [
    (&["DAC_READ_SEARCH"], &["open_by_handle_at"]),
    (
        &["SYS_ADMIN"],
        &[
            "fanotify_init",
            "fsconfig",
            "fsmount",
            "fsopen",
            "fspick",
            "lookup_dcookie",
            "lsm_get_self_attr",
            "lsm_list_modules",
            "lsm_set_self_attr",
            "mount",
            "mount_setattr",
            "move_mount",
            "open_tree",
            "open_tree_attr",
            "quotactl",
            "quotactl_fd",
            "setdomainname",
            "sethostname",
            "setns",
            "umount2",
            "unshare",
        ],
    ),
    (&["SYS_ADMIN", "BPF"], &["bpf"]),
    (&["SYS_ADMIN", "PERFMON"], &["perf_event_open"]),
    (&["SYS_ADMIN", "SYSLOG"], &["syslog"]),
    (&["SYS_BOOT"], &["reboot"]),
    (&["SYS_CHROOT"], &["chroot"]),
    (&["SYS_MODULE"], &["delete_module", "finit_module", "init_module"]),
    (&["SYS_NICE"], &["get_mempolicy", "mbind", "set_mempolicy", "set_mempolicy_home_node"]),
    (&["SYS_PACCT"], &["acct"]),
    (&["SYS_PTRACE"], &["kcmp", "pidfd_getfd", "process_madvise"]),
    (&["SYS_RAWIO"], &["ioperm", "iopl"]),
    (&["SYS_TIME"], &["clock_settime", "settimeofday"]),
    (&["SYS_TTY_CONFIG"], &["vhangup"]),
];

/// Doors that nothing but `--seccomp` opens: another kernel, swap, keys (which know no namespaces), and what most ways out of
/// a container in the last ten years went through (io_uring, userfaultfd, vmsplice).
const NEVER: [&str; 16] = [
    "add_key",
    "io_uring_enter",
    "io_uring_register",
    "io_uring_setup",
    "kexec_file_load",
    "kexec_load",
    "keyctl",
    "migrate_pages",
    "move_pages",
    "nfsservctl",
    "pivot_root",
    "request_key",
    "swapoff",
    "swapon",
    "userfaultfd",
    "vmsplice",
];

/// Of Linux 2.4 and before, or never there at all: as if they were unknown.
const GONE: [&str; 18] = [
    "_sysctl",
    "afs_syscall",
    "create_module",
    "epoll_ctl_old",
    "epoll_wait_old",
    "get_kernel_syms",
    "get_thread_area",
    "getpmsg",
    "putpmsg",
    "query_module",
    "remap_file_pages",
    "security",
    "set_thread_area",
    "sysfs",
    "tuxcall",
    "uselib",
    "ustat",
    "vserver",
];

/// All namespaces that clone(2) can make: mount, cgroup, UTS, IPC, user, PID, network. With a new user namespace a process is
/// root in it, and most of the kernel open to it.
const CLONE_NEW: u64 = 0x7e02_0000;

/// personality(2): as it is, Linux on a processor of 32 bits, and `uname -r` of 2.6, each and both; and asking.
const PERSONALITIES: [u64; 5] = [0, 8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// NETLINK_ROUTE, USERSOCK, SOCK_DIAG, NETFILTER, KOBJECT_UEVENT, GENERIC.
const NETLINK: [u64; 6] = [0, 2, 4, 12, 15, 16];
const NETLINK_XFRM: u64 = 6;
const NETLINK_AUDIT: u64 = 9;

/// What is in the table is allowed but for the lists above; a call that is not in it gets ENOSYS, so that a C library
/// newer than this program tries the older one.
fn default_profile(capabilities: Capabilities) -> Profile {
    let mut rules = Vec::new();
    let mut refused: BTreeSet<&str> = NEVER.into();
    for (names, calls) in WITH_CAPABILITY {
        if !names.iter().any(|name| capabilities.has(name)) {
            refused.extend(calls);
        }
    }
    let mut rule = |names: &[&str], action: &Action, conditions: Vec<Condition>| {
        let calls = names.iter().filter_map(|name| syscalls::number(name)).collect();
        rules.push(Rule { calls, action: action.clone(), conditions });
    };
    // Only the lower half of an `int` is the kernel's; the upper one may hold anything.
    let int = |index, value| Condition::new(index, Length::Dword, Op::Eq, value);
    let mut socket = |conditions: &[Option<Condition>]| {
        rule(&["socket"], &Action::Allow, conditions.iter().flatten().cloned().collect());
    };
    for family in [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6] {
        socket(&[int(0, family as u64).ok()]);
    }
    if capabilities.has("NET_RAW") {
        socket(&[int(0, libc::AF_PACKET as u64).ok()]);
    }
    let mut protocols = NETLINK.to_vec();
    protocols.extend(capabilities.has("NET_ADMIN").then_some(NETLINK_XFRM));
    protocols.extend(capabilities.has("AUDIT_WRITE").then_some(NETLINK_AUDIT));
    for protocol in protocols {
        socket(&[int(0, libc::AF_NETLINK as u64).ok(), int(2, protocol).ok()]);
    }
    rule(&["socket"], &EAFNOSUPPORT, Vec::new());
    // The kernel makes the sockets before it finds that a family has no pairs.
    rule(&["socketpair"], &Action::Allow, int(0, libc::AF_UNIX as u64).into_iter().collect());
    rule(&["socketpair"], &EAFNOSUPPORT, Vec::new());
    for personality in PERSONALITIES {
        rule(&["personality"], &Action::Allow, int(0, personality).into_iter().collect());
    }
    rule(&["personality"], &EPERM, Vec::new());
    let mut unknown: BTreeSet<&str> = GONE.into();
    if !capabilities.has("SYS_ADMIN") {
        let no_namespace = Condition::new(0, Length::Qword, Op::MaskedEq(CLONE_NEW), 0);
        rule(&["clone"], &Action::Allow, no_namespace.into_iter().collect());
        rule(&["clone"], &EPERM, Vec::new());
        // Its flags lie in memory, where a filter cannot look: so C libraries have to take clone.
        unknown.insert("clone3");
    }
    rule(&refused.iter().copied().collect::<Vec<_>>(), &EPERM, Vec::new());
    let judged: BTreeSet<i64> = rules.iter().flat_map(|rule| &rule.calls).copied().collect();
    let allowed = syscalls::all().filter(|(name, number)| !judged.contains(number) && !unknown.contains(name));
    let calls = allowed.map(|(_, number)| number).collect();
    rules.push(Rule { calls, action: Action::Allow, conditions: Vec::new() });
    Profile { default: ENOSYS, rules }
}

/// Stands for "go on with the next program" until [`Profile::compile`] has put them together.
const GO_ON: Action = Action::Trace(0xb0c);
const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
const JUMP: u16 = 0x05; // BPF_JMP | BPF_JA
const JUMP_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
const JUMP_NOT_BELOW: u16 = 0x35; // BPF_JMP | BPF_JGE | BPF_K
const RETURN: u16 = 0x06; // BPF_RET | BPF_K

impl Profile {
    fn compile(self) -> std::result::Result<BpfProgram, String> {
        let mut passes: BTreeMap<_, (Action, BTreeMap<i64, Vec<SeccompRule>>)> = BTreeMap::new();
        // By number: the harshest answer.
        let mut answers: BTreeMap<u32, (u8, u32)> = BTreeMap::new();
        for rule in self.rules {
            let key = (rank(&rule.action), u32::from(rule.action.clone()));
            for call in rule.calls {
                if rule.conditions.is_empty() {
                    let number = u32::try_from(call).map_err(|_| format!("{call} is no system call"))?;
                    answers.entry(number).and_modify(|answer| *answer = key.min(*answer)).or_insert(key);
                } else {
                    let (_, calls) = passes.entry(key).or_insert_with(|| (rule.action.clone(), BTreeMap::new()));
                    let way = SeccompRule::new(rule.conditions.clone()).map_err(|e| e.to_string())?;
                    calls.entry(call).or_default().push(way);
                }
            }
        }
        let mut program = prologue();
        for (action, calls) in passes.into_values() {
            let arch = std::env::consts::ARCH.try_into().map_err(|e: seccompiler::BackendError| e.to_string())?;
            let filter = SeccompFilter::new(calls, GO_ON, action, arch).map_err(|e| e.to_string())?;
            let mut pass: BpfProgram = filter.try_into().map_err(|e: seccompiler::BackendError| e.to_string())?;
            let length = pass.len();
            for (at, instruction) in pass.iter_mut().enumerate() {
                if instruction.code == RETURN && instruction.k == u32::from(GO_ON) {
                    *instruction = sock_filter { code: JUMP, jt: 0, jf: 0, k: (length - at - 1) as u32 };
                }
            }
            program.append(&mut pass);
        }
        program.push(sock_filter { code: LOAD, jt: 0, jf: 0, k: 0 }); // seccomp_data.nr
        program.append(&mut tree(&ranges(&answers, self.default.into())));
        // BPF_MAXINSNS
        if program.len() > 4096 {
            Err(format!("{} instructions, the kernel takes 4096", program.len()))
        } else {
            Ok(program)
        }
    }
}

/// Where each range of numbers with one answer begins, from 0 on.
fn ranges(answers: &BTreeMap<u32, (u8, u32)>, default: u32) -> Vec<(u32, u32)> {
    let mut all: Vec<(u32, u32)> = Vec::new();
    let mut next = 0;
    for (number, (_, answer)) in answers {
        if *number > next {
            all.push((next, default));
        }
        all.push((*number, *answer));
        next = number + 1;
    }
    all.push((next, default));
    all.dedup_by_key(|(_, answer)| *answer);
    all
}

/// The answer for the number that is loaded: each comparison leaves half of the ranges.
fn tree(ranges: &[(u32, u32)]) -> BpfProgram {
    let step = |code, k, jt, jf| sock_filter { code, jt, jf, k };
    let (below, above) = ranges.split_at(ranges.len() / 2);
    let [(first, answer), ..] = *above else { return Vec::new() };
    if below.is_empty() {
        return vec![step(RETURN, answer, 0, 0)];
    }
    let (mut below, mut above) = (tree(below), tree(above));
    let mut all = match u8::try_from(below.len()) {
        Ok(over) => vec![step(JUMP_NOT_BELOW, first, over, 0)],
        // Conditional jumps are short.
        Err(_) => vec![step(JUMP_NOT_BELOW, first, 0, 1), step(JUMP, below.len() as u32, 0, 0)],
    };
    all.append(&mut below);
    all.append(&mut above);
    all
}

/// The harshest first, as the kernel has it among several filters.
fn rank(action: &Action) -> u8 {
    match action {
        Action::KillProcess => 0,
        Action::KillThread => 1,
        Action::Trap => 2,
        Action::Errno(_) => 3,
        Action::Trace(_) => 4,
        Action::Log => 5,
        Action::Allow => 6,
    }
}

/// Before all rules: the other ways into the kernel, whose numbers mean something else (x86's `int 0x80` and x32, ARM of 32
/// bits), get ENOSYS. Of those of 32 bits only the ends of a thread and of a process are there, or the program would try
/// for ever.
fn prologue() -> BpfProgram {
    let step = |code, k, jt, jf| sock_filter { code, jt, jf, k };
    // AUDIT_ARCH_*; exit, exit_group of the 32 bits.
    let (own, exit_group) = if cfg!(target_arch = "aarch64") { (0xc000_00b7, 248) } else { (0xc000_003e, 252) };
    let enosys = u32::from(ENOSYS);
    let mut all = vec![
        step(LOAD, 4, 0, 0), // seccomp_data.arch
        step(JUMP_EQUAL, own, 5, 0),
        step(LOAD, 0, 0, 0), // seccomp_data.nr
        step(JUMP_EQUAL, 1, 1, 0),
        step(JUMP_EQUAL, exit_group, 0, 1),
        step(RETURN, u32::from(Action::Allow), 0, 0),
        step(RETURN, enosys, 0, 0),
    ];
    if cfg!(target_arch = "x86_64") {
        // __X32_SYSCALL_BIT. A -1 is no call either: strace(1) and the like write it.
        all.extend([step(LOAD, 0, 0, 0), step(JUMP_NOT_BELOW, 0x4000_0000, 0, 1), step(RETURN, enosys, 0, 0)]);
    }
    all
}

/// docker's and podman's format, <https://docs.docker.com/engine/security/seccomp/>.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Json {
    default_action: String,
    default_errno_ret: Option<u32>,
    // podman's: the same by name
    #[serde(rename = "defaultErrno")]
    _default_errno: Option<String>,
    architectures: Option<Vec<String>>,
    arch_map: Option<Vec<ArchMap>>,
    flags: Option<Vec<String>>,
    syscalls: Option<Vec<JsonRule>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ArchMap {
    architecture: String,
    #[serde(rename = "subArchitectures")]
    _others: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct JsonRule {
    name: Option<String>,
    names: Option<Vec<String>>,
    action: String,
    errno_ret: Option<u32>,
    args: Option<Vec<JsonArgument>>,
    #[serde(rename = "comment")]
    _comment: Option<String>,
    #[serde(default)]
    includes: Option<JsonWhere>,
    #[serde(default)]
    excludes: Option<JsonWhere>,
    #[serde(rename = "errno")]
    _errno: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct JsonArgument {
    index: u8,
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct JsonWhere {
    caps: Option<Vec<String>>,
    arches: Option<Vec<String>>,
    min_kernel: Option<String>,
}

#[expect(clippy::disallowed_methods, reason = "the user's own FILE, before any namespace")]
fn read(file: &Path, capabilities: Capabilities) -> Result<Profile> {
    let text = std::fs::read(file).map_err(|e| Error::new("read", file.display(), e))?;
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    parse(&text, capabilities, &release).map_err(|reason| Error::new("read", file.display(), reason))
}

fn parse(text: &[u8], capabilities: Capabilities, release: &str) -> std::result::Result<Profile, String> {
    let json: Json = serde_json::from_slice(text).map_err(|e| e.to_string())?;
    if let Some(flag) = json.flags.iter().flatten().next() {
        return Err(format!("flags: {flag} is not supported"));
    }
    let own = if cfg!(target_arch = "aarch64") { "SCMP_ARCH_AARCH64" } else { "SCMP_ARCH_X86_64" };
    // The others get ENOSYS in any case.
    let mut known =
        json.architectures.iter().flatten().chain(json.arch_map.iter().flatten().map(|map| &map.architecture));
    let any = json.architectures.iter().flatten().next().is_some() || json.arch_map.iter().flatten().next().is_some();
    if any && !known.any(|arch| arch == own) {
        return Err(format!("it is for other processors than this one ({own})"));
    }
    let default = action(&json.default_action, json.default_errno_ret)?;
    let mut rules = Vec::new();
    for rule in json.syscalls.into_iter().flatten() {
        if !applies(&rule, capabilities, release)? {
            continue;
        }
        let action = action(&rule.action, rule.errno_ret)?;
        let mut calls = Vec::new();
        for name in rule.names.iter().flatten().chain(&rule.name) {
            match syscalls::number(name) {
                Some(number) => calls.push(number),
                // Of another processor, or newer than we: what is not named is refused anyway. Unless it is not.
                None if rank(&action) >= rank(&default) => {}
                None => return Err(format!("syscall {name}: not known, so it cannot be refused")),
            }
        }
        // The default's own answer says nothing new, and must not come before another rule's (libseccomp skips it, too).
        if action == default {
            continue;
        }
        let conditions: Vec<Condition> =
            rule.args.iter().flatten().map(condition).collect::<std::result::Result<_, _>>()?;
        // Several conditions on one argument are alternatives there, as docker and runc have it.
        let twice = (0..6).any(|index| rule.args.iter().flatten().filter(|arg| arg.index == index).count() > 1);
        if twice {
            for condition in conditions {
                rules.push(Rule { calls: calls.clone(), action: action.clone(), conditions: vec![condition] });
            }
        } else {
            rules.push(Rule { calls, action, conditions });
        }
    }
    Ok(Profile { default, rules })
}

fn action(name: &str, errno: Option<u32>) -> std::result::Result<Action, String> {
    Ok(match name {
        "SCMP_ACT_ALLOW" => Action::Allow,
        "SCMP_ACT_LOG" => Action::Log,
        // MAX_ERRNO; more would be no error for the caller.
        "SCMP_ACT_ERRNO" if errno.is_some_and(|errno| errno > 4095) => return Err("errnoRet above 4095".to_owned()),
        "SCMP_ACT_ERRNO" => Action::Errno(errno.unwrap_or(libc::EPERM as u32)),
        "SCMP_ACT_TRAP" => Action::Trap,
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => Action::KillThread,
        "SCMP_ACT_KILL_PROCESS" => Action::KillProcess,
        other => return Err(format!("action {other} is not supported")),
    })
}

fn condition(arg: &JsonArgument) -> std::result::Result<Condition, String> {
    let (op, value) = match arg.op.as_str() {
        "SCMP_CMP_NE" => (Op::Ne, arg.value),
        "SCMP_CMP_LT" => (Op::Lt, arg.value),
        "SCMP_CMP_LE" => (Op::Le, arg.value),
        "SCMP_CMP_EQ" => (Op::Eq, arg.value),
        "SCMP_CMP_GE" => (Op::Ge, arg.value),
        "SCMP_CMP_GT" => (Op::Gt, arg.value),
        "SCMP_CMP_MASKED_EQ" => (Op::MaskedEq(arg.value), arg.value_two),
        other => return Err(format!("comparison {other} is not supported")),
    };
    Condition::new(arg.index, Length::Qword, op, value).map_err(|e| e.to_string())
}

/// Whether a rule is for this processor, this kernel, and a container with these capabilities.
fn applies(rule: &JsonRule, capabilities: Capabilities, release: &str) -> std::result::Result<bool, String> {
    let own = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let has = |name: &String| {
        let plain = name.strip_prefix("CAP_").unwrap_or(name);
        caps::number(plain).map(|_| capabilities.has(plain)).ok_or_else(|| format!("there is no capability {name}"))
    };
    let all = |names: &Option<Vec<String>>| names.iter().flatten().map(has).collect::<std::result::Result<Vec<_>, _>>();
    if let Some(only) = &rule.includes {
        if only.arches.as_ref().is_some_and(|arches| !arches.is_empty() && !arches.iter().any(|arch| arch == own)) {
            return Ok(false);
        }
        if !all(&only.caps)?.iter().all(|has| *has) {
            return Ok(false);
        }
        if let Some(least) = &only.min_kernel {
            let least = version(least).ok_or_else(|| format!("minKernel {least} is no version"))?;
            if version(release).is_some_and(|is| is < least) {
                return Ok(false);
            }
        }
    }
    if let Some(not) = &rule.excludes {
        if not.arches.iter().flatten().any(|arch| arch == own) || all(&not.caps)?.iter().any(|has| *has) {
            return Ok(false);
        }
        if let Some(least) = &not.min_kernel {
            let least = version(least).ok_or_else(|| format!("minKernel {least} is no version"))?;
            if version(release).is_some_and(|is| is >= least) {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

/// The first two numbers of a kernel's release.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const X86_64: u32 = 0xc000_003e;

    /// What the kernel would answer: classic BPF on struct seccomp_data.
    fn answer(program: &[sock_filter], arch: u32, call: i64, args: &[u64]) -> u32 {
        let word = |offset: u32| match offset {
            0 => call as u32,
            4 => arch,
            offset => {
                let arg = args.get((offset as usize - 16) / 8).copied().unwrap_or(0);
                if offset % 8 == 0 { arg as u32 } else { (arg >> 32) as u32 }
            }
        };
        let (mut at, mut a) = (0, 0);
        loop {
            let step = &program[at];
            let yes = match step.code {
                0x20 => {
                    a = word(step.k);
                    at += 1;
                    continue;
                }
                0x54 => {
                    a &= step.k;
                    at += 1;
                    continue;
                }
                0x05 => {
                    at += 1 + step.k as usize;
                    continue;
                }
                0x06 => return step.k,
                0x15 => a == step.k,
                0x25 => a > step.k,
                0x35 => a >= step.k,
                other => panic!("instruction {other:#x}"),
            };
            at += 1 + usize::from(if yes { step.jt } else { step.jf });
        }
    }

    const ALLOW: u32 = 0x7fff_0000;
    fn errno(errno: i32) -> u32 {
        0x5_0000 | errno as u32
    }
    fn own(program: &[sock_filter], name: &str, args: &[u64]) -> u32 {
        answer(program, X86_64, syscalls::number(name).unwrap(), args)
    }
    fn with(add: &[&str]) -> Vec<sock_filter> {
        let add: Vec<_> = add.iter().map(|name| caps::name(name).unwrap()).collect();
        filter(&Seccomp::Default, Capabilities::new(false, &add, &[])).unwrap().unwrap().program
    }
    fn from(json: &str) -> std::result::Result<Vec<sock_filter>, String> {
        parse(json.as_bytes(), Capabilities::new(false, &[], &[]), "6.1.0-x")?.compile()
    }

    proptest::proptest! {
        /// Whatever the ranges are, one or hundreds: each number gets the answer of its rule, or the default.
        #[test]
        fn a_tree_answers_as_a_list(rules in proptest::collection::btree_map(0_u32..600, 0_u32..4, 0..500)) {
            let list: BTreeMap<u32, (u8, u32)> = rules.iter().map(|(call, answer)| (*call, (0, *answer))).collect();
            let mut program = vec![sock_filter { code: LOAD, jt: 0, jf: 0, k: 0 }];
            program.append(&mut tree(&ranges(&list, 9)));
            for call in (0..610).chain([1000, 0x3fff_ffff]) {
                let wanted = rules.get(&call).copied().unwrap_or(9);
                proptest::prop_assert_eq!(answer(&program, X86_64, call.into(), &[]), wanted, "{}", call);
            }
        }
    }

    #[test]
    fn the_harshest_answer_counts_and_conditions_come_first() {
        let program = from(
            r#"{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[
              {"names":["read","kill"],"action":"SCMP_ACT_ALLOW"},
              {"names":["read"],"action":"SCMP_ACT_KILL_PROCESS"},
              {"names":["kill"],"action":"SCMP_ACT_ERRNO","errnoRet":22,"args":[{"index":1,"value":9,"op":"SCMP_CMP_EQ"}]}]}"#,
        )
        .unwrap();
        assert_eq!(own(&program, "read", &[]), 0x8000_0000);
        assert_eq!((own(&program, "kill", &[1, 9]), own(&program, "kill", &[1, 15])), (errno(22), ALLOW));
    }

    #[test]
    fn ours_has_few_doors() {
        let program = with(&[]);
        let allowed = syscalls::all().filter(|(_, number)| answer(&program, X86_64, *number, &[]) == ALLOW).count();
        assert!((250..=310).contains(&allowed), "{allowed}");
        for name in ["read", "execve", "capset", "ptrace", "chroot", "mknod", "landlock_restrict_self", "futex_waitv"] {
            assert_eq!(own(&program, name, &[]), ALLOW, "{name}");
        }
        for name in [
            "mount",
            "unshare",
            "setns",
            "keyctl",
            "bpf",
            "io_uring_setup",
            "userfaultfd",
            "vmsplice",
            "open_by_handle_at",
        ] {
            assert_eq!(own(&program, name, &[]), errno(libc::EPERM), "{name}");
        }
        for number in [syscalls::number("clone3").unwrap(), syscalls::number("uselib").unwrap(), 470, 9999, -1] {
            assert_eq!(answer(&program, X86_64, number, &[]), errno(libc::ENOSYS), "{number}");
        }
    }

    #[test]
    fn arguments_count() {
        let program = with(&[]);
        assert_eq!(own(&program, "clone", &[0x0120_0011]), ALLOW);
        for flag in [0x0002_0000, 0x0200_0000, 0x0400_0000, 0x0800_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000_u64] {
            assert_eq!(own(&program, "clone", &[flag | 17]), errno(libc::EPERM), "{flag:#x}");
        }
        assert_eq!(own(&program, "personality", &[0xffff_ffff]), ALLOW);
        assert_eq!(own(&program, "personality", &[0x0040_0000]), errno(libc::EPERM), "READ_IMPLIES_EXEC");
        // The upper half is not the kernel's, whatever is in it.
        for family in [1, 2, 10, 0xdead_0000_0001] {
            assert_eq!(own(&program, "socket", &[family, 1, 0]), ALLOW, "{family}");
        }
        for family in [0, 3, 4, 15, 17, 21, 30, 33, 38, 40, 44, 0x1_0000_0028] {
            assert_eq!(own(&program, "socket", &[family, 1, 0]), errno(libc::EAFNOSUPPORT), "{family}");
            assert_eq!(own(&program, "socketpair", &[family, 1, 0]), errno(libc::EAFNOSUPPORT), "{family}");
        }
        for (protocol, wanted) in [(0, ALLOW), (12, ALLOW), (15, ALLOW), (6, errno(97)), (9, errno(97)), (5, errno(97))]
        {
            assert_eq!(own(&program, "socket", &[16, 3, protocol]), wanted, "netlink {protocol}");
        }
    }

    #[test]
    fn capabilities_open_doors() {
        assert_eq!(own(&with(&["NET_RAW"]), "socket", &[17, 3, 0]), ALLOW);
        assert_eq!(own(&with(&["NET_ADMIN"]), "socket", &[16, 3, 6]), ALLOW);
        assert_eq!(own(&with(&["SYS_TIME"]), "clock_settime", &[]), ALLOW);
        assert_eq!(own(&with(&["SYS_PTRACE"]), "pidfd_getfd", &[]), ALLOW);
        let admin = with(&["SYS_ADMIN"]);
        for name in ["mount", "unshare", "bpf", "clone3"] {
            assert_eq!(own(&admin, name, &[]), ALLOW, "{name}");
        }
        assert_eq!(own(&admin, "clone", &[0x1000_0000]), ALLOW);
        for name in ["keyctl", "io_uring_setup", "reboot"] {
            assert_eq!(own(&admin, name, &[]), errno(libc::EPERM), "{name}");
        }
    }

    #[test]
    fn other_abis_are_not_there() {
        for program in [with(&["ALL"]), from(r#"{"defaultAction":"SCMP_ACT_ALLOW"}"#).unwrap()] {
            for number in [0, 3, 59, 102, 358] {
                assert_eq!(answer(&program, 0x4000_0003, number, &[]), errno(libc::ENOSYS), "i386 {number}");
                assert_eq!(answer(&program, X86_64, number | 0x4000_0000, &[]), errno(libc::ENOSYS), "x32 {number}");
            }
            assert_eq!(answer(&program, 0x4000_0003, 252, &[]), ALLOW, "i386 exit_group");
            assert_eq!(answer(&program, X86_64, 0, &[]), ALLOW);
        }
    }

    #[test]
    fn dockers_format() {
        let program = from(
            r#"{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":38,"archMap":[{"architecture":"SCMP_ARCH_X86_64","subArchitectures":["SCMP_ARCH_X86"]}],
              "syscalls":[
              {"names":["read","chown32","socket"],"action":"SCMP_ACT_ALLOW","args":[],"comment":"","includes":{},"excludes":{}},
              {"names":["socket"],"action":"SCMP_ACT_ERRNO","errnoRet":22,"args":[{"index":0,"value":16,"op":"SCMP_CMP_EQ"},{"index":2,"value":9,"valueTwo":0,"op":"SCMP_CMP_EQ"}]},
              {"names":["kill"],"action":"SCMP_ACT_ALLOW","args":[{"index":1,"value":9,"op":"SCMP_CMP_EQ"},{"index":1,"value":15,"op":"SCMP_CMP_EQ"}]},
              {"names":["clone"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":2114060288,"op":"SCMP_CMP_MASKED_EQ"}],"excludes":{"caps":["CAP_SYS_ADMIN"],"arches":["s390x"]}},
              {"names":["mount"],"action":"SCMP_ACT_ALLOW","includes":{"caps":["CAP_SYS_ADMIN"]}},
              {"names":["chroot"],"action":"SCMP_ACT_ALLOW","includes":{"caps":["CAP_SYS_CHROOT"],"arches":["amd64"]}},
              {"names":["ptrace"],"action":"SCMP_ACT_ALLOW","includes":{"minKernel":"4.8"}},
              {"names":["bpf"],"action":"SCMP_ACT_ALLOW","includes":{"minKernel":"6.2"}},
              {"names":["reboot"],"action":"SCMP_ACT_KILL_PROCESS"}]}"#,
        )
        .unwrap();
        assert_eq!(own(&program, "read", &[]), ALLOW);
        assert_eq!(own(&program, "socket", &[16, 3, 9]), errno(22));
        assert_eq!(own(&program, "socket", &[16, 3, 0]), ALLOW);
        assert_eq!(own(&program, "kill", &[1, 9]), ALLOW);
        assert_eq!(own(&program, "kill", &[1, 15]), ALLOW);
        assert_eq!(own(&program, "kill", &[1, 2]), errno(38));
        assert_eq!(own(&program, "clone", &[0x1000_0011]), errno(38));
        assert_eq!(own(&program, "clone", &[17]), ALLOW);
        assert_eq!(own(&program, "mount", &[]), errno(38));
        assert_eq!(own(&program, "chroot", &[]), ALLOW);
        assert_eq!(own(&program, "ptrace", &[]), ALLOW);
        assert_eq!(own(&program, "bpf", &[]), errno(38));
        assert_eq!(own(&program, "reboot", &[]), 0x8000_0000);
        let open =
            from(r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"name":"mkdir","action":"SCMP_ACT_ERRNO"}]}"#)
                .unwrap();
        assert_eq!(own(&open, "mkdir", &[]), errno(libc::EPERM));
        assert_eq!(own(&open, "rmdir", &[]), ALLOW);
    }

    #[test]
    fn what_we_cannot_do_is_said() {
        for (json, wanted) in [
            ("{}", "defaultAction"),
            ("nonsense", "expected"),
            (r#"{"defaultAction":"SCMP_ACT_NOTIFY"}"#, "SCMP_ACT_NOTIFY is not supported"),
            (r#"{"defaultAction":"SCMP_ACT_ALLOW","listenerPath":"/x"}"#, "listenerPath"),
            (r#"{"defaultAction":"SCMP_ACT_ALLOW","flags":["SECCOMP_FILTER_FLAG_LOG"]}"#, "FLAG_LOG is not supported"),
            (r#"{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_S390X"]}"#, "other processors"),
            (
                r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdri"],"action":"SCMP_ACT_ERRNO"}]}"#,
                "syscall mkdri",
            ),
            (
                r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir"],"action":"SCMP_ACT_ERRNO","errnoRet":5000}]}"#,
                "4095",
            ),
            (
                r#"{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["kill"],"action":"SCMP_ACT_ALLOW","args":[{"index":7,"value":1,"op":"SCMP_CMP_EQ"}]}]}"#,
                "argument index",
            ),
            (
                r#"{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["kill"],"action":"SCMP_ACT_ALLOW","includes":{"caps":["CAP_FOO"]}}]}"#,
                "CAP_FOO",
            ),
        ] {
            let said = from(json).unwrap_err();
            assert!(said.contains(wanted) && !said.contains('\n'), "{json}: {said}");
        }
    }
}
