//! Which devices a container may use: version 1's `devices.allow`, version 2's BPF program.
//!
//! A second wall: without it whoever gets CAP_MKNOD, or finds a node on a volume, has the host's disks.

use std::fmt;
use std::io::Write;
use std::path::Path;
use std::str::FromStr;

use bocker_common::say::{Said, quote};
use bocker_common::{Error, Result};
use nix::errno::Errno;

use crate::act::Place;
use crate::sys::{self, Insn};

/// What may be used, nothing else: null, zero, full, random, urandom, tty; ptmx and the terminals of devpts.
///
/// `m` (mknod) for the six nodes of a container's own /dev only: bocker-exec makes them when it is in the cgroup already,
/// and a node of what may be used anyway gives nobody anything. The nodes of devpts are the kernel's own.
const DEFAULT: [Rule; 8] = [
    Rule::char(1, Some(3), ALL),
    Rule::char(1, Some(5), ALL),
    Rule::char(1, Some(7), ALL),
    Rule::char(1, Some(8), ALL),
    Rule::char(1, Some(9), ALL),
    Rule::char(5, Some(0), ALL),
    Rule::char(5, Some(2), READ | WRITE),
    Rule::char(136, None, READ | WRITE),
];

// BPF_DEVCG_ACC_* of <linux/bpf.h>.
const MKNOD: u8 = 1;
const READ: u8 = 2;
const WRITE: u8 = 4;
const ALL: u8 = MKNOD | READ | WRITE;

/// One kind of devices, and what may be done with them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rule {
    block: bool,
    /// `None`: all of them.
    major: Option<u32>,
    minor: Option<u32>,
    access: u8,
}

impl Rule {
    const fn char(major: u32, minor: Option<u32>, access: u8) -> Self {
        Self { block: false, major: Some(major), minor, access }
    }

    /// As version 1's file has it: `c 1:3 rwm`; with other separators, as it is typed: `c:1:3:rwm`.
    fn text(self, separator: char) -> String {
        let number = |number: Option<u32>| number.map_or_else(|| "*".to_owned(), |n| n.to_string());
        let access: String = [('r', READ), ('w', WRITE), ('m', MKNOD)]
            .iter()
            .filter(|(_, bit)| self.access & bit != 0)
            .map(|(c, _)| c)
            .collect();
        let kind = if self.block { 'b' } else { 'c' };
        format!("{kind}{separator}{}:{}{separator}{access}", number(self.major), number(self.minor))
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text(' '))
    }
}

/// `c:1:3:rwm`, or with spaces as docker's `--device-cgroup-rule` and the kernel's own list have it.
impl FromStr for Rule {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WRONG: &str = "not TYPE:MAJOR:MINOR:ACCESS (as c:10:200:rwm; b: block device, *: all numbers)";
        let parts: Vec<&str> = text.split([':', ' ']).collect();
        let &[kind, major, minor, access] = parts.as_slice() else { return Err(WRONG) };
        let number = |text: &str| match text {
            "*" => Ok(None),
            _ if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) => Err(WRONG),
            // What a device number has room for, makedev(3): 12 and 20 bits.
            _ => text.parse().ok().filter(|n| *n < 1 << 20).map(Some).ok_or(WRONG),
        };
        let mut bits = 0;
        for letter in access.chars() {
            bits |= match letter {
                'r' => READ,
                'w' => WRITE,
                'm' => MKNOD,
                _ => return Err(WRONG),
            };
        }
        if bits == 0 || !matches!(kind, "b" | "c") {
            return Err(WRONG);
        }
        Ok(Self { block: kind == "b", major: number(major)?, minor: number(minor)?, access: bits })
    }
}

/// All that a container is told of devices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Devices {
    /// No rules: whatever the cgroup above allows.
    All,
    /// Only the default ones and these.
    Default(Vec<Rule>),
    /// Only these: what was there before.
    Only(Vec<Rule>),
}

impl Devices {
    fn rules(&self) -> Vec<Rule> {
        match self {
            Self::All => Vec::new(),
            Self::Default(more) => DEFAULT.iter().chain(more).copied().collect(),
            Self::Only(rules) => rules.clone(),
        }
    }

    /// What version 1's `devices.list` says. `None`: words that no rule of ours has.
    pub(crate) fn listed(text: &str) -> Option<Self> {
        if text.starts_with("a *:*") {
            return Some(Self::All);
        }
        text.lines().map(|line| line.parse().ok()).collect::<Option<_>>().map(Self::Only)
    }

    /// As typed, value by value: `all` or `default`, then the rules beyond these.
    pub(crate) fn values(&self) -> Vec<String> {
        let rules = self.rules();
        match self {
            Self::All => vec!["all".to_owned()],
            _ if rules.starts_with(&DEFAULT) => {
                let more = rules.iter().skip(DEFAULT.len()).map(|rule| rule.text(':'));
                std::iter::once("default".to_owned()).chain(more).collect()
            }
            // Not of our making.
            _ => rules.iter().map(|rule| rule.text(':')).collect(),
        }
    }

    /// As version 1's file has it.
    #[cfg(test)]
    pub(crate) fn list(&self) -> String {
        self.rules().iter().map(|rule| format!("{rule}\n")).collect()
    }

    /// As typed, for `set`.
    pub(crate) fn words(&self) -> String {
        match self {
            Self::All => "devices=all".to_owned(),
            _ => self.rules().iter().skip(DEFAULT.len()).fold("devices=default".to_owned(), |words, rule| {
                format!("{words} {}", quote(format!("device={}", rule.text(':'))))
            }),
        }
    }

    /// The same in shell.
    pub(crate) fn say(&self, place: &Place) -> Said {
        let (deny, allow) = (quote(place.dir.join("devices.deny")), quote(place.dir.join("devices.allow")));
        match self {
            _ if place.v2 => {
                let (top, id) = (place.dir.parent().unwrap_or(&place.dir), place.dir.file_name().unwrap_or_default());
                let shell = format!("bocker-cg --root {} set {} {}", quote(top), quote(id), self.words());
                let why = match self {
                    Self::All => "no program is asked any more whether a device may be used".to_owned(),
                    _ => format!(
                        "no file says this on version 2: a BPF program of {} instructions, attached by bpf(2), is asked at each open and mknod of a device",
                        self.program().len()
                    ),
                };
                Said::new(shell, why)
            }
            Self::All => Said::new(format!("echo a > {allow}"), "every device that the cgroup above has"),
            _ => {
                let rules: Vec<String> = self.rules().iter().map(|rule| quote(rule.to_string())).collect();
                let allowed = format!("for rule in {}; do echo \"$rule\" > {allow}; done", rules.join(" "));
                let shell =
                    if rules.is_empty() { format!("echo a > {deny}") } else { format!("echo a > {deny}\n{allowed}") };
                Said::new(
                    shell,
                    "no device, then null zero full random urandom tty and terminals; r w m: read, write, mknod",
                )
            }
        }
    }

    /// Makes it so.
    ///
    /// # Errors
    /// The rule, the kernel's reason. On version 1 the group may have too few devices then, on version 2 it has those of before.
    pub(crate) fn apply(&self, place: &Place) -> Result<()> {
        if place.v2 {
            return self.attach(&place.dir).map_err(|e| {
                let error = Error::new("attach the rules for devices to", place.dir.display(), e);
                if *self == Self::All { error } else { error.hint("devices=all goes without") }
            });
        }
        let (deny, allow) = (place.dir.join("devices.deny"), place.dir.join("devices.allow"));
        let wrong = |what: &str, file: &Path, e: std::io::Error| {
            let refused = e.raw_os_error() == Some(Errno::EPERM as i32);
            let error = Error::new(&format!("write {what} to"), file.display(), e);
            if refused { error.hint("the cgroup above does not have it, or we are not root") } else { error }
        };
        let open = |file: &Path| std::fs::OpenOptions::new().write(true).open(file);
        if *self == Self::All {
            return open(&allow).and_then(|mut file| file.write_all(b"a")).map_err(|e| wrong("a", &allow, e));
        }
        open(&deny).and_then(|mut file| file.write_all(b"a")).map_err(|e| wrong("a", &deny, e))?;
        let mut file = open(&allow).map_err(|e| Error::new("open", allow.display(), e))?;
        for rule in self.rules() {
            // Each write is one rule.
            let rule = rule.to_string();
            file.write_all(rule.as_bytes()).map_err(|e| wrong(&rule, &allow, e))?;
        }
        Ok(())
    }

    /// Version 2.
    fn attach(&self, dir: &Path) -> std::io::Result<()> {
        let cgroup = std::fs::File::open(dir)?;
        if *self == Self::All {
            return match sys::detach_device_program(&cgroup) {
                Err(Errno::ENOENT) => Ok(()),
                detached => Ok(detached?),
            };
        }
        let program = sys::load_device_program(&self.program())?;
        Ok(sys::attach_device_program(&cgroup, &program)?)
    }

    /// The program: 1 for what a rule allows, else 0, which is EPERM to whoever asked.
    ///
    /// Its argument r1 points to a `struct bpf_cgroup_dev_ctx`: the access (upper 16 bits) and the type (lower), the major and
    /// the minor number, 32 bits each.
    pub(crate) fn program(&self) -> Vec<Insn> {
        const BLOCK: i32 = 1;
        const CHAR: i32 = 2;
        let (kind, access, major, minor, scratch) = (2, 3, 4, 5, 0);
        let mut program = vec![
            load(kind, 0),
            copy(access, kind),
            and(kind, 0xffff),
            shift_right(access, 16),
            load(major, 4),
            load(minor, 8),
        ];
        for rule in self.rules() {
            // Each test leads to the next rule when it fails: by as many instructions as are left of this one.
            let mut tests = vec![vec![jump_unless(kind, if rule.block { BLOCK } else { CHAR })]];
            if rule.access != ALL {
                // What is asked for beyond what is allowed must be nothing.
                let beyond = i32::from(ALL & !rule.access);
                tests.push(vec![copy(scratch, access), and(scratch, beyond), jump_unless(scratch, 0)]);
            }
            let numbers = [(major, rule.major), (minor, rule.minor)];
            tests.extend(numbers.iter().filter_map(|(register, n)| Some(vec![jump_unless(*register, (*n)? as i32)])));
            let mut lines: Vec<Insn> = tests.concat();
            lines.extend([set(0, 1), EXIT]);
            let len = lines.len();
            for (at, line) in lines.iter_mut().enumerate().filter(|(_, line)| line.code == JUMP_UNLESS) {
                line.off = (len - at - 1) as i16;
            }
            program.extend(lines);
        }
        program.extend([set(0, 0), EXIT]);
        program
    }
}

// The few instructions that are needed, <linux/bpf_common.h> and bpf(2): class, operation, where the operand is.
const LOAD_WORD: u8 = 0x61; // LDX | MEM | W
const MOVE_REGISTER: u8 = 0xbc; // ALU | MOV | X, 32 bits
const MOVE: u8 = 0xb4; // ALU | MOV | K
const AND: u8 = 0x54; // ALU | AND | K
const SHIFT_RIGHT: u8 = 0x74; // ALU | RSH | K
const JUMP_UNLESS: u8 = 0x55; // JMP | JNE | K
const EXIT: Insn = insn(0x95, 0, 0, 0, 0);

const fn insn(code: u8, target: u8, source: u8, off: i16, imm: i32) -> Insn {
    Insn { code, regs: source << 4 | target, off, imm }
}
fn load(target: u8, at: i16) -> Insn {
    insn(LOAD_WORD, target, 1, at, 0)
}
fn copy(target: u8, source: u8) -> Insn {
    insn(MOVE_REGISTER, target, source, 0, 0)
}
fn set(target: u8, number: i32) -> Insn {
    insn(MOVE, target, 0, 0, number)
}
fn and(target: u8, number: i32) -> Insn {
    insn(AND, target, 0, 0, number)
}
fn shift_right(target: u8, number: i32) -> Insn {
    insn(SHIFT_RIGHT, target, 0, 0, number)
}
fn jump_unless(register: u8, number: i32) -> Insn {
    insn(JUMP_UNLESS, register, 0, 0, number)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a program as the kernel does: what it leaves in r0.
    fn run(program: &[Insn], context: [u32; 3]) -> u64 {
        let (mut registers, mut at) = ([0_u64; 10], 0);
        loop {
            let Insn { code, regs, off, imm } = program[at];
            let (target, source) = (usize::from(regs & 15), usize::from(regs >> 4));
            at += 1;
            match code {
                LOAD_WORD => registers[target] = u64::from(context[off as usize / 4]),
                MOVE_REGISTER => registers[target] = registers[source],
                MOVE => registers[target] = u64::from(imm as u32),
                AND => registers[target] &= u64::from(imm as u32),
                SHIFT_RIGHT => registers[target] >>= imm,
                JUMP_UNLESS if registers[target] != imm as u64 => at += off as usize,
                JUMP_UNLESS => {}
                _ => {
                    assert_eq!(code, EXIT.code);
                    return registers[0];
                }
            }
        }
    }

    #[test]
    fn the_program_says_what_the_rules_say() {
        let more = ["b:7:*:r", "c:10:200:rw", "c:*:5:m", "c:*:*:m"];
        let some = |n: usize| Devices::Default(more[..n].iter().map(|word| word.parse().unwrap()).collect());
        for devices in [Devices::Only(Vec::new()), some(0), some(2), some(3), some(4)] {
            let (program, rules) = (devices.program(), devices.rules());
            for block in [true, false] {
                for major in [0, 1, 5, 7, 10, 136, 1 << 19] {
                    for minor in [0, 1, 2, 3, 4, 5, 7, 8, 9, 200, 1 << 19] {
                        for access in 1..=ALL {
                            let matches = |rule: &Rule| {
                                rule.block == block
                                    && rule.major.is_none_or(|n| n == major)
                                    && rule.minor.is_none_or(|n| n == minor)
                                    && access & !rule.access == 0
                            };
                            let context = [u32::from(access) << 16 | if block { 1 } else { 2 }, major, minor];
                            let expected = u64::from(rules.iter().any(matches));
                            assert_eq!(
                                run(&program, context),
                                expected,
                                "{block} {major}:{minor} {access} of {rules:?}"
                            );
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn rules_are_read_as_they_are_written() {
        for word in ["c:1:3:rwm", "b:8:*:r", "c:*:*:m", "b:259:1048575:wm"] {
            assert_eq!(word.parse::<Rule>().unwrap().text(':'), word);
        }
        assert_eq!("c 42:* mwr".parse::<Rule>().unwrap().to_string(), "c 42:* rwm");
        for word in [
            "",
            "c",
            "a:*:*:rwm",
            "c:1:3",
            "c:1:3:",
            "c:1:3:x",
            "c:1:3:rwm:",
            "c::3:r",
            "c:-1:3:r",
            "c:+1:3:r",
            "c:1:1048576:r",
            "d:1:3:r",
        ] {
            assert!(word.parse::<Rule>().is_err(), "{word:?}");
        }
    }

    #[test]
    fn what_the_kernel_lists_is_understood() {
        assert_eq!(Devices::listed("a *:* rwm\n"), Some(Devices::All));
        let text: String = DEFAULT.iter().map(|rule| format!("{rule}\n")).collect();
        assert_eq!(Devices::listed(&text), Some(Devices::Only(DEFAULT.to_vec())));
        assert_eq!(Devices::listed(""), Some(Devices::Only(Vec::new())));
        assert_eq!(Devices::listed("c 1:3 rwm\nnonsense\n"), None);
    }
}
