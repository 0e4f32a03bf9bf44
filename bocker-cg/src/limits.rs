//! Limits: what is typed, and what the kernel's file gets.

use std::str::FromStr;

use bocker_common::diag::USAGE;
use bocker_common::{Error, Id, Result};
use parse_size::Config;

use crate::layout::{Controller, Layout};

/// The keys, for `--help`.
pub(crate) const HELP: &str = "\
Keys:
  cpu.shares=N       weight when processors are busy, 2 to 262144 (default 1024)
  cpu.weight=N       the same in the words of version 2, 1 to 10000 (default 100)
  memory=SIZE        bytes, or 512M (M = 1024*1024); max: no limit
  memory.limit_in_bytes, memory.max   the kernel's own names of the same";

const KNOWN: &str = "cpu.shares, cpu.weight, memory, memory.limit_in_bytes, memory.max";

/// What can be limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Key {
    /// Version 1's scale, 2 to 262144.
    Shares,
    /// Version 2's scale, 1 to 10000.
    Weight,
    /// Bytes.
    Memory,
}

impl Key {
    /// The controller that does it.
    pub(crate) fn controller(self) -> Controller {
        match self {
            Self::Shares | Self::Weight => Controller::Cpu,
            Self::Memory => Controller::Memory,
        }
    }

    /// The kernel's file.
    pub(crate) fn file(self, v2: bool) -> &'static str {
        match (self.controller(), v2) {
            (Controller::Memory, false) => "memory.limit_in_bytes",
            (Controller::Memory, true) => "memory.max",
            (_, false) => "cpu.shares",
            (_, true) => "cpu.weight",
        }
    }
}

impl FromStr for Key {
    type Err = Error;

    fn from_str(word: &str) -> Result<Self> {
        match word {
            "cpu.shares" => Ok(Self::Shares),
            "cpu.weight" => Ok(Self::Weight),
            "memory" | "memory.limit_in_bytes" | "memory.max" => Ok(Self::Memory),
            _ => {
                let shown: String = word.chars().take(64).collect();
                Err(Error::plain(format!("unknown limit '{shown}' (known: {KNOWN})")).status(USAGE))
            }
        }
    }
}

/// A limit as typed, in range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limit {
    pub(crate) key: Key,
    /// Shares, weight or bytes; -1 is no limit.
    value: i64,
}

impl Limit {
    /// The number that the kernel's file gets; -1 is no limit.
    pub(crate) fn value(self, v2: bool) -> i64 {
        match (self.key, v2) {
            (Key::Shares, true) => weight_of(self.value),
            (Key::Weight, false) => shares_of(self.value),
            _ => self.value,
        }
    }

    /// The same as text.
    pub(crate) fn text(self, v2: bool) -> String {
        match self.value(v2) {
            -1 if v2 => "max".to_owned(),
            value => value.to_string(),
        }
    }

    /// What the number means.
    pub(crate) fn why(self, v2: bool) -> String {
        match (self.key, v2) {
            (Key::Memory, _) if self.value == -1 => "no limit of memory".to_owned(),
            (Key::Memory, _) => "bytes; who needs more is killed".to_owned(),
            (Key::Shares, true) => {
                format!("weight against its neighbours when processors are busy; {} of version 1's shares", self.value)
            }
            (Key::Weight, false) => {
                format!("weight against its neighbours when processors are busy; version 2's weight {}", self.value)
            }
            _ => "weight against its neighbours when processors are busy".to_owned(),
        }
    }
}

impl FromStr for Limit {
    type Err = Error;

    fn from_str(word: &str) -> Result<Self> {
        let usage = |why: &str| {
            let shown: String = word.chars().take(64).collect();
            Error::plain(format!("limit '{shown}': {why}")).status(USAGE)
        };
        let (key, text) = word.split_once('=').ok_or_else(|| usage("not KEY=VALUE"))?;
        let key: Key = key.parse()?;
        let number = |from: i64, to: i64| {
            let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
            let value = text.parse().ok().filter(|n| digits && (from..=to).contains(n));
            value.ok_or_else(|| usage(&format!("not a number from {from} to {to}")))
        };
        let value = match key {
            Key::Shares => number(2, 262_144)?,
            Key::Weight => number(1, 10_000)?,
            Key::Memory if matches!(text, "max" | "-1") => -1,
            Key::Memory => {
                let size = Config::new()
                    .with_binary()
                    .parse_size(text)
                    .map_err(|_| usage("not a size (as 512M, or bytes)"))?;
                // Less than a page is a group in which nothing can run; the kernel counts in signed 64 bits.
                i64::try_from(size)
                    .ok()
                    .filter(|n| *n >= 4096)
                    .ok_or_else(|| usage("out of range (4096 bytes to 8E)"))?
            }
        };
        Ok(Self { key, value })
    }
}

/// Shares to weight as crun and runc do since 2025: the defaults 1024 and 100 meet, and so do both ends of the scales.
///
/// log10 of the weight is (l² + 125 l) / 612 − 7/34, where l is log2 of the shares.
fn weight_of(shares: i64) -> i64 {
    let l = (shares.max(2) as f64).log2();
    let weight = 10_f64.powf((l * l + 125.0 * l) / 612.0 - 7.0 / 34.0);
    // Round up; what lies above an integer by the error of floating point alone is that integer.
    (weight - 1e-9).ceil().clamp(1.0, 10_000.0) as i64
}

/// The inverse: the positive root of the same equation.
fn shares_of(weight: i64) -> i64 {
    let c = 612.0 * ((weight as f64).log10() + 7.0 / 34.0);
    let l = (-125.0 + (125.0_f64 * 125.0 + 4.0 * c).sqrt()) / 2.0;
    l.exp2().round().clamp(2.0, 262_144.0) as i64
}

/// What the kernel's file says.
///
/// # Errors
/// No such cgroup.
pub(crate) fn get(layout: &Layout, id: Id, key: Key) -> Result<String> {
    let path = layout.dir_of(key.controller(), id).join(key.file(layout.v2()));
    let text = std::fs::read_to_string(&path).map_err(|e| {
        let missing = e.kind() == std::io::ErrorKind::NotFound;
        let error = Error::new("read", path.display(), e);
        if missing { error.hint(format!("bocker-cg create {id} makes it")) } else { error }
    })?;
    Ok(text.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_and_weight_meet_where_they_should() {
        for (shares, weight) in [(2, 1), (512, 59), (1024, 100), (262_144, 10_000)] {
            assert_eq!(weight_of(shares), weight, "{shares} shares");
        }
        for (weight, shares) in [(1, 2), (100, 1024), (10_000, 262_144)] {
            assert_eq!(shares_of(weight), shares, "weight {weight}");
        }
        let mut last = 0;
        for shares in 2..=262_144 {
            let weight = weight_of(shares);
            assert!((1..=10_000).contains(&weight) && weight >= last);
            last = weight;
        }
        // There and back, but for rounding up.
        assert!((1..=10_000).all(|weight| (0..=1).contains(&(weight_of(shares_of(weight)) - weight))));
    }

    #[test]
    fn reads_sizes_in_powers_of_two() {
        let value = |word: &str| word.parse::<Limit>().unwrap().value(true);
        assert_eq!(value("memory=512000000"), 512_000_000);
        assert_eq!(value("memory=512M"), 512 << 20);
        assert_eq!(value("memory=512MiB"), 512 << 20);
        assert_eq!(value("memory.limit_in_bytes=1g"), 1 << 30);
        assert_eq!(value("memory.max=1.5G"), 3 << 29);
        assert_eq!("memory=max".parse::<Limit>().unwrap().text(true), "max");
        assert_eq!("memory.max=max".parse::<Limit>().unwrap().text(false), "-1");
    }

    #[test]
    fn each_version_gets_its_own_file_and_number() {
        let shares: Limit = "cpu.shares=512".parse().unwrap();
        assert_eq!((shares.key.file(false), shares.value(false)), ("cpu.shares", 512));
        assert_eq!((shares.key.file(true), shares.value(true)), ("cpu.weight", 59));
        let weight: Limit = "cpu.weight=100".parse().unwrap();
        assert_eq!((weight.key.file(false), weight.value(false)), ("cpu.shares", 1024));
    }

    #[test]
    fn refuses_what_makes_no_sense() {
        for word in [
            "cpu.shares",
            "cpu.shares=",
            "cpu.shares=1",
            "cpu.shares=262145",
            "cpu.shares=-5",
            "cpu.shares=+5",
            "cpu.shares=5x",
            "cpu.weight=0",
            "cpu.weight=10001",
            "memory=",
            "memory=0",
            "memory=4095",
            "memory=-2",
            "memory=9E",
            "memory=99999999999999999999",
            "memory=much",
            "memroy=1M",
            "=1",
            "../cpu.shares=5",
        ] {
            assert_eq!(word.parse::<Limit>().unwrap_err().exit_status(), USAGE, "{word:?}");
        }
        assert!("pids=5".parse::<Limit>().unwrap_err().to_string().contains("memory.limit_in_bytes"));
    }
}
