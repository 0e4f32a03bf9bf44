//! Limits: what is typed, and what the kernel's file gets.

use std::fmt;
use std::io::Read;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::str::FromStr;

use bocker_common::diag::USAGE;
use bocker_common::say::quote;
use bocker_common::{Error, Result};
use parse_size::Config;

use crate::act::Place;
use crate::devices::{Devices, Rule};
use crate::key::{IO_WEIGHT, Key, Rate};
use crate::layout::Controller;

/// What a container gets that was told nothing of processes: enough for anything but a fork bomb. As podman has it.
const DEFAULT_PIDS: i64 = 2048;

/// Microseconds in which the time of `cpus` is counted: the kernel's default, and docker's.
pub(crate) const PERIOD: i64 = 100_000;

/// A limit as typed, in range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Limit {
    pub(crate) key: Key,
    value: Value,
    /// As typed, for errors.
    word: String,
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.word)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Value {
    /// Shares, weight, bytes, microseconds or processes; -1 is no limit.
    Number(i64),
    /// Microseconds of each so many; none: as it was.
    Time {
        quota: Option<i64>,
        period: Option<i64>,
    },
    /// Processors.
    List(String),
    /// What may be had of a disk in a second; -1 is no limit.
    Rates(Disk, Vec<(Rate, i64)>),
    /// Whether all devices may be used.
    AllDevices(bool),
    One(Rule),
}

/// A disk's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Disk(u64, u64);

impl fmt::Display for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.0, self.1)
    }
}

impl Disk {
    /// `8:0`, or a path of a block device.
    fn parse(text: &str) -> std::result::Result<Self, String> {
        let number = |text: &str| text.parse().ok().filter(|_| text.bytes().all(|b| b.is_ascii_digit()));
        let numbers = text.split_once(':').and_then(|(major, minor)| Some(Self(number(major)?, number(minor)?)));
        if let Some(numbers) = numbers {
            return Ok(numbers);
        }
        if !text.starts_with('/') {
            return Err("DEVICE:NUMBER is wanted, as /dev/sda:1M or 8:0:1M".to_owned());
        }
        let meta = std::fs::metadata(text).map_err(|e| format!("{text}: {}", bocker_common::diag::Reason::from(e)))?;
        if !meta.file_type().is_block_device() {
            return Err(format!("{text} is no block device"));
        }
        let device = meta.rdev();
        Ok(Self(nix::sys::stat::major(device), nix::sys::stat::minor(device)))
    }
}

impl Limit {
    /// What a container gets that was told nothing of processes.
    pub(crate) fn default_pids() -> Self {
        Self { key: Key::Pids, value: Value::Number(DEFAULT_PIDS), word: format!("pids={DEFAULT_PIDS}") }
    }

    /// The number that the kernel's file gets; -1 is no limit, and what is no number.
    pub(crate) fn value(&self, v2: bool) -> i64 {
        let Value::Number(value) = self.value else { return -1 };
        match (self.key, v2) {
            (Key::Shares, true) => weight_of(value),
            (Key::Weight, false) => shares_of(value),
            // Version 1's is a limit, though a soft one: 0 would be no memory at all.
            (Key::Reservation, false) if value == 0 => -1,
            _ => value,
        }
    }

    /// The text that the kernel's file gets.
    pub(crate) fn text(&self, v2: bool) -> String {
        self.text_for(self.key.file(v2), v2)
    }

    /// The same, where the key has several files.
    fn text_for(&self, file: &str, v2: bool) -> String {
        let unlimited = |number: i64| if number == -1 { "max".to_owned() } else { number.to_string() };
        match (&self.value, self.value(v2)) {
            (Value::List(list), _) => list.clone(),
            (Value::AllDevices(all), _) => if *all { "all" } else { "default" }.to_owned(),
            (Value::One(rule), _) => rule.to_string(),
            (Value::Time { quota, period }, _) => {
                let quota = unlimited(quota.unwrap_or(-1));
                period.map_or(quota.clone(), |period| format!("{quota} {period}"))
            }
            (Value::Rates(disk, rates), _) if v2 => rates.iter().fold(disk.to_string(), |text, (rate, number)| {
                format!("{text} {}={}", rate.word(), unlimited(*number))
            }),
            // There, nothing is no limit.
            (Value::Rates(disk, rates), _) => {
                format!("{disk} {}", rates.first().map_or(0, |(_, number)| (*number).max(0)))
            }
            (_, value) if self.key == Key::BlkioWeight && file == IO_WEIGHT => io_weight_of(value).to_string(),
            (_, value) if self.key == Key::IoWeight && file != IO_WEIGHT => blkio_weight_of(value).to_string(),
            // Version 1's pids.max knows the word, too, and no -1.
            (_, -1) if v2 || self.key == Key::Pids => "max".to_owned(),
            (_, value) => value.to_string(),
        }
    }

    /// The file that it goes to, of those that are there, and its text.
    pub(crate) fn target(&self, place: &Place) -> (std::path::PathBuf, String) {
        let files = self.key.files(place.v2);
        let there = files.iter().find(|file| place.dir.join(file).exists());
        let file = there.or(files.first()).copied().unwrap_or_default();
        (place.dir.join(file), self.text_for(file, place.v2))
    }

    /// In shell.
    pub(crate) fn shell(&self, place: &Place) -> String {
        let echo = |file: &str| format!("echo {} > {}", self.text_for(file, place.v2), quote(place.dir.join(file)));
        match self.key.files(place.v2) {
            [first, second] => {
                format!("if [ -e {} ]; then {}; else {}; fi", quote(place.dir.join(first)), echo(first), echo(second))
            }
            files => files.first().map(|file| echo(file)).unwrap_or_default(),
        }
    }

    /// What takes it back, from what the file said before.
    pub(crate) fn before(&self, text: &str, v2: bool) -> String {
        let text = text.trim_end();
        match &self.value {
            Value::Rates(disk, rates) => {
                let numbers = disk.to_string();
                let line = text.lines().find(|line| line.split(' ').next() == Some(&numbers));
                let none = Self {
                    value: Value::Rates(*disk, rates.iter().map(|(rate, _)| (*rate, -1)).collect()),
                    ..self.clone()
                };
                line.map_or_else(|| none.text(v2), str::to_owned)
            }
            _ if self.key == Key::OomKillDisable => field(text, "oom_kill_disable").unwrap_or(0).to_string(),
            _ => text.to_owned(),
        }
    }

    /// What it means.
    pub(crate) fn why(&self, v2: bool) -> String {
        let neighbours = "weight against its neighbours when processors are busy";
        match (self.key, &self.value) {
            (Key::Memory, Value::Number(-1)) => "no limit of memory".to_owned(),
            (Key::Memory, _) => "bytes; who needs more is killed".to_owned(),
            (Key::Swap, Value::Number(-1)) => "no limit of swap".to_owned(),
            (Key::Swap, _) if v2 => "bytes of swap: version 2 counts it apart from memory".to_owned(),
            (Key::Swap, _) => "bytes of memory and swap together".to_owned(),
            (Key::Reservation, _) => "bytes that are taken from it last when memory is short".to_owned(),
            (Key::High, _) => "bytes; beyond them its processes wait until some are given back".to_owned(),
            (Key::Swappiness, _) => "0 to 100: how readily it swaps".to_owned(),
            (Key::OomKillDisable, _) => "1: who lacks memory waits and is not killed".to_owned(),
            (Key::Cpus | Key::Quota, Value::Number(-1) | Value::Time { quota: Some(-1), .. }) => {
                "no limit of the processors' time".to_owned()
            }
            (Key::Cpus, Value::Time { period: Some(period), .. }) => {
                format!("microseconds of the processors' time in each {period}")
            }
            (Key::Cpus | Key::Quota, _) => "microseconds of the processors' time in each period".to_owned(),
            (Key::Period, _) => "microseconds of a period".to_owned(),
            (Key::Cpuset, _) => "the processors that it may run on".to_owned(),
            (Key::Mems, _) => "the memory nodes that it may use".to_owned(),
            (Key::Pids, Value::Number(-1)) => "no limit of processes".to_owned(),
            (Key::Pids, _) => "processes and threads; who wants more gets EAGAIN".to_owned(),
            (Key::BlkioWeight, _) if v2 => {
                "weight against its neighbours when a disk is busy: bfq's scale, or from 10-1000 to 1-10000".to_owned()
            }
            (Key::IoWeight, _) => {
                "weight against its neighbours when a disk is busy: from 1-10000 to 10-1000 where the file has that scale".to_owned()
            }
            (Key::BlkioWeight, _) => "weight against its neighbours when a disk is busy".to_owned(),
            (Key::Rate(rate), _) if rate.is_bytes() => "bytes a second of this disk".to_owned(),
            (Key::Rate(_) | Key::Io, _) => "operations a second of this disk".to_owned(),
            (Key::Shares, Value::Number(shares)) if v2 => format!("{neighbours}; {shares} of version 1's shares"),
            (Key::Weight, Value::Number(weight)) if !v2 => format!("{neighbours}; version 2's weight {weight}"),
            _ => neighbours.to_owned(),
        }
    }

    /// Whether the kernel has one place for both.
    fn is_of_the_same(&self, other: &Self) -> bool {
        match (&self.value, &other.value) {
            (Value::Rates(disk, rates), Value::Rates(others, other)) => {
                disk == others && rates.first().map(|(rate, _)| rate) == other.first().map(|(rate, _)| rate)
            }
            (Value::Rates(..), _) | (_, Value::Rates(..)) => false,
            // What is left of disks is their weight, in one scale or the other.
            _ if self.key.controller() == Controller::Blkio => other.key.controller() == Controller::Blkio,
            _ => self.key.file(true) == other.key.file(true),
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
        let (name, text) = word.split_once('=').ok_or_else(|| usage("not KEY=VALUE"))?;
        let key: Key = name.parse()?;
        let number = |text: &str, from: i64, to: i64| {
            let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
            let value = text.parse().ok().filter(|n| digits && (from..=to).contains(n));
            value.ok_or_else(|| usage(&format!("not a number from {from} to {to}")))
        };
        let size = |text: &str, least: i64| {
            let size =
                Config::new().with_binary().parse_size(text).map_err(|_| usage("not a size (as 512M, or bytes)"))?;
            let size = i64::try_from(size).ok().filter(|n| *n >= least);
            size.ok_or_else(|| usage(&format!("out of range ({least} bytes to 8E)")))
        };
        let is_unlimited = |text: &str| matches!(text, "max" | "-1");
        let unlimited = is_unlimited(text);
        let quota_of = |text: &str| if is_unlimited(text) { Ok(-1) } else { number(text, 1000, 8192 * PERIOD) };
        let period_of = |text: &str| number(text, 1000, 1_000_000);
        let rate = |rate: Rate, text: &str| match text {
            // docker's word for no limit is 0.
            "max" | "-1" | "0" => Ok((rate, -1)),
            text if rate.is_bytes() => Ok((rate, size(text, 1)?)),
            text => Ok((rate, number(text, 1, i64::from(u32::MAX))?)),
        };
        let value = match key {
            Key::Shares => Value::Number(number(text, 2, 262_144)?),
            Key::Weight | Key::IoWeight => Value::Number(number(text, 1, 10_000)?),
            Key::BlkioWeight => Value::Number(number(text, 10, 1000)?),
            Key::Swappiness => Value::Number(number(text, 0, 100)?),
            Key::OomKillDisable => Value::Number(match text {
                "1" | "true" => 1,
                "0" | "false" => 0,
                _ => return Err(usage("not true and not false")),
            }),
            Key::Memory | Key::Swap | Key::Pids | Key::High if unlimited => Value::Number(-1),
            Key::Cpus if name == "cpu.max" => {
                let (quota, period) =
                    text.split_once(' ').map_or((text, None), |(quota, period)| (quota, Some(period)));
                Value::Time { quota: Some(quota_of(quota)?), period: period.map(period_of).transpose()? }
            }
            Key::Cpus => {
                let time = if unlimited { Some(-1) } else { quota(text) };
                let time = time.ok_or_else(|| usage("not a number from 0.01 to 8192 (as 1.5), or max"))?;
                Value::Time { quota: Some(time), period: Some(PERIOD) }
            }
            Key::Quota => Value::Time { quota: Some(quota_of(text)?), period: None },
            Key::Period => Value::Time { quota: None, period: Some(period_of(text)?) },
            // The kernel's own most, PID_MAX_LIMIT.
            Key::Pids => Value::Number(number(text, 1, 1 << 22)?),
            Key::Cpuset | Key::Mems => {
                Value::List(cpu_list(text).ok_or_else(|| usage("not a list of numbers (as 0-2,5)"))?.to_owned())
            }
            Key::Devices if matches!(text, "all" | "default") => Value::AllDevices(text == "all"),
            Key::Devices => return Err(usage("not default and not all")),
            Key::Device => Value::One(text.parse().map_err(usage)?),
            // Less than a page is a group in which nothing can run; the kernel counts in signed 64 bits.
            Key::Reservation => Value::Number(size(text, 0)?),
            Key::Memory | Key::Swap | Key::High => Value::Number(size(text, 4096)?),
            Key::Rate(what) => {
                let (disk, number) = text.rsplit_once([':', ' ']).unwrap_or((text, ""));
                let disk = Disk::parse(disk).map_err(|e| usage(&e))?;
                Value::Rates(disk, vec![rate(what, number)?])
            }
            Key::Io => {
                let mut words = text.split([' ', ',']).filter(|word| !word.is_empty());
                let disk = Disk::parse(words.next().unwrap_or_default()).map_err(|e| usage(&e))?;
                let one = |word: &str| {
                    let (name, number) = word.split_once('=')?;
                    Rate::ALL.into_iter().find(|rate| rate.word() == name).map(|what| rate(what, number))
                };
                let wrong = || usage("DEVICE and some of rbps=, wbps=, riops= and wiops= are wanted");
                let rates = words.map(|word| one(word).ok_or_else(wrong)?).collect::<Result<Vec<_>>>()?;
                if rates.is_empty() {
                    return Err(wrong());
                }
                Value::Rates(disk, rates)
            }
        };
        let key = if matches!(value, Value::Time { .. }) { Key::Cpus } else { key };
        Ok(Self { key, value, word: word.to_owned() })
    }
}

/// `1.5` in microseconds of each [`PERIOD`]; the kernel takes no less than a millisecond. Digits, so that 0.29 is 29000.
fn quota(text: &str) -> Option<i64> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if (whole.is_empty() && part.is_empty()) || !digits(whole) || !digits(part) || whole.len() > 4 {
        return None;
    }
    let part = format!("{part:0<5}");
    let micro = format!("{whole}{}", part.get(..5)?).parse::<i64>().ok()?;
    (1000..=8192 * PERIOD).contains(&micro).then_some(micro)
}

/// The text, if it is a list as the kernel's `cpuset.cpus` takes it.
fn cpu_list(text: &str) -> Option<&str> {
    let number = |text: &str| text.parse::<u16>().ok().filter(|_| text.bytes().all(|b| b.is_ascii_digit()));
    let range = |text: &str| match text.split_once('-') {
        Some((from, to)) => Some(number(from)? <= number(to)?),
        None => number(text).map(|_| true),
    };
    text.split(',').all(|part| range(part) == Some(true)).then_some(text)
}

/// All limits of one command: those of a file, then those that were typed, of which the last of a kind counts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Limits {
    /// One for each of the kernel's files.
    pub(crate) files: Vec<Limit>,
    /// `None`: nothing was said.
    pub(crate) devices: Option<Devices>,
    /// `device=` without `devices=`, which [`Limits::devices`] took for the default ones and these.
    pub(crate) only_more: bool,
}

impl Limits {
    /// Puts them in order.
    pub(crate) fn of(words: impl IntoIterator<Item = Limit>) -> Self {
        let mut limits = Self::default();
        let (mut all, mut more) = (None, Vec::new());
        for limit in words {
            match limit.value {
                Value::AllDevices(every) => all = Some(every),
                Value::One(rule) => more.push(rule),
                Value::Rates(disk, rates) => {
                    for (rate, number) in rates {
                        let value = Value::Rates(disk, vec![(rate, number)]);
                        limits.put(Limit { key: Key::Rate(rate), value, word: limit.word.clone() });
                    }
                }
                _ => limits.put(limit),
            }
        }
        limits.only_more = all.is_none() && !more.is_empty();
        limits.devices = match all {
            Some(true) => Some(Devices::All),
            None if more.is_empty() => None,
            _ => Some(Devices::Default(more)),
        };
        // A limit of both counts from the limit of one; version 1 refuses it the other way round.
        limits.files.sort_by_key(|limit| limit.key == Key::Swap);
        limits
    }

    /// In place of those of its kind. Of the time of processors what is not said stays as it was said before.
    fn put(&mut self, mut limit: Limit) {
        let before = self.files.iter().position(|other| other.is_of_the_same(&limit)).map(|at| self.files.remove(at));
        if let (Value::Time { quota, period }, Some(Limit { value: Value::Time { quota: q, period: p }, word, .. })) =
            (&mut limit.value, before)
        {
            if quota.is_none() || period.is_none() {
                limit.word = format!("{word} {}", limit.word);
            }
            (*quota, *period) = (quota.or(q), period.or(p));
        }
        self.files.push(limit);
    }

    /// The number of one of them as typed.
    pub(crate) fn value(&self, key: Key) -> Option<i64> {
        self.files.iter().find(|limit| limit.key == key).map(|limit| limit.value(false))
    }

    /// Brings them into the form of one version. `now` is what the kernel's files say where there are some.
    ///
    /// The limit of memory and swap counts from that of memory, typed or there; version 2 counts swap alone. The time of
    /// processors is two files on version 1, and both of its numbers on version 2.
    ///
    /// # Errors
    /// What makes no sense together, or this version has not, with status 2 or 1.
    pub(crate) fn resolve(&mut self, v2: bool, now: impl Fn(Key) -> Option<i64>) -> Result<()> {
        if let Some((limit, why)) = self.files.iter().find_map(|limit| Some((limit, limit.key.lacks(v2)?))) {
            return Err(Error::plain(format!("limit '{limit}': {why}")));
        }
        if let Some(at) = self.files.iter().position(|limit| limit.key == Key::Cpus) {
            let limit = self.files.remove(at);
            self.files.splice(at..at, time(limit, v2, &now));
        }
        let memory = self.value(Key::Memory).or_else(|| now(Key::Memory));
        let Some(limit) = self.files.iter_mut().find(|limit| limit.key == Key::Swap) else { return Ok(()) };
        match (limit.value(v2), memory) {
            (-1, _) => Ok(()),
            (both, Some(memory)) if (0..=both).contains(&memory) => {
                limit.value = Value::Number(if v2 { both - memory } else { both });
                Ok(())
            }
            _ => {
                let line = format!(
                    "limit '{limit}': memory and swap together, so it needs memory=SIZE, and not less than that"
                );
                Err(Error::plain(line).status(USAGE))
            }
        }
    }
}

/// The files of the time of processors.
fn time(limit: Limit, v2: bool, now: impl Fn(Key) -> Option<i64>) -> Vec<Limit> {
    let Value::Time { quota, period } = limit.value else { return vec![limit] };
    if v2 {
        let quota = Some(quota.or_else(|| now(Key::Quota)).unwrap_or(-1));
        return vec![Limit { value: Value::Time { quota, period }, ..limit }];
    }
    // A new cgroup has the default.
    let period = period.filter(|period| *period != now(Key::Period).unwrap_or(PERIOD));
    let one = |key, number: Option<i64>| Some(Limit { key, value: Value::Number(number?), word: limit.word.clone() });
    [one(Key::Period, period), one(Key::Quota, quota)].into_iter().flatten().collect()
}

/// The number after a key: `inactive_file 4096`.
pub(crate) fn field(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.parse().ok())
}

/// Docker's weight of disks, 10 to 1000, in version 2's scale, 1 to 10000; as runc and crun have it.
pub(crate) fn io_weight_of(blkio: i64) -> i64 {
    1 + (blkio.max(10) - 10) * 9999 / 990
}

/// The inverse.
pub(crate) fn blkio_weight_of(io: i64) -> i64 {
    10 + (io - 1) * 990 / 9999
}

/// The limits that a container remembers: a file with one `KEY=VALUE` a line, as `bocker-store snapshot --limit` writes it.
///
/// # Errors
/// It cannot be read, is no such file, or a line makes no sense.
pub(crate) fn read(file: &Path) -> Result<Vec<Limit>> {
    const MOST: u64 = 1 << 20;
    let mut text = String::new();
    std::fs::File::open(file)
        .and_then(|opened| opened.take(MOST).read_to_string(&mut text))
        .map_err(|e| Error::new("read", file.display(), e))?;
    if text.len() as u64 == MOST {
        return Err(Error::new("read", file.display(), "longer than 1 MiB"));
    }
    let lines = text.lines().enumerate().filter(|(_, line)| !line.is_empty());
    lines
        .map(|(at, line)| {
            line.parse()
                .map_err(|e: Error| Error::plain(format!("{} line {}: {e}", file.display(), at + 1)).status(USAGE))
        })
        .collect()
}

/// Shares to weight as crun and runc do since 2025: the defaults 1024 and 100 meet, and so do both ends of the scales.
///
/// log10 of the weight is (l² + 125 l) / 612 − 7/34, where l is log2 of the shares.
pub(crate) fn weight_of(shares: i64) -> i64 {
    let l = (shares.max(2) as f64).log2();
    let weight = 10_f64.powf((l * l + 125.0 * l) / 612.0 - 7.0 / 34.0);
    // Round up; what lies above an integer by the error of floating point alone is that integer.
    (weight - 1e-9).ceil().clamp(1.0, 10_000.0) as i64
}

/// The inverse: the positive root of the same equation.
pub(crate) fn shares_of(weight: i64) -> i64 {
    let c = 612.0 * ((weight as f64).log10() + 7.0 / 34.0);
    let l = (-125.0 + (125.0_f64 * 125.0 + 4.0 * c).sqrt()) / 2.0;
    l.exp2().round().clamp(2.0, 262_144.0) as i64
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
            "memory-swap=4095",
            "memory-reservation=max",
            "memory-reservation=-1",
            "cpus=",
            "cpus=.",
            "cpus=0",
            "cpus=0.001",
            "cpus=-1.5",
            "cpus=1e3",
            "cpus=9000",
            "cpus=1.5.1",
            "pids=0",
            "pids=-2",
            "pids=4194305",
            "cpuset.cpus=",
            "cpuset.cpus=0,",
            "cpuset.cpus=2-1",
            "cpuset.cpus=0-1-2",
            "cpuset.cpus=+1",
            "cpuset.cpus=all",
            "cpuset.mems=",
            "cpu-quota=999",
            "cpu-period=999",
            "cpu-period=1000001",
            "cpu.max=",
            "cpu.max=5000 x",
            "memory.high=1",
            "memory-swappiness=101",
            "oom-kill-disable=2",
            "blkio-weight=9",
            "blkio-weight=1001",
            "io.weight=0",
            "device-read-bps=1M",
            "device-read-bps=8:0",
            "device-read-bps=8:0:",
            "device-read-bps=8:0:-2",
            "device-read-iops=8:0:1M",
            "device-read-iops=8:0:4294967296",
            "device-read-bps=8:x:1M",
            "device-read-bps=dev/sda:1M",
            "io.max=8:0",
            "io.max=8:0 rbps",
            "io.max=8:0 zbps=1",
            "io.max=rbps=1",
            "devices=",
            "devices=none",
            "device=all",
            "device=c:1:3:rwx",
        ] {
            assert_eq!(word.parse::<Limit>().unwrap_err().exit_status(), USAGE, "{word:?}");
        }
    }

    /// The files and their texts.
    fn files(words: &[&str], v2: bool, now: impl Fn(Key) -> Option<i64>) -> Vec<String> {
        let mut limits = of(words);
        limits.resolve(v2, now).unwrap();
        limits.files.iter().map(|limit| format!("{} {}", limit.key.file(v2), limit.text(v2))).collect()
    }

    #[test]
    fn processors_are_counted_in_digits() {
        let text = |word: &str, v2| files(&[word], v2, |_| None).join(", ");
        for (word, one, two) in [
            ("cpus=1.5", "cpu.cfs_quota_us 150000", "cpu.max 150000 100000"),
            ("cpus=.29", "cpu.cfs_quota_us 29000", "cpu.max 29000 100000"),
            ("cpus=2.", "cpu.cfs_quota_us 200000", "cpu.max 200000 100000"),
            ("cpus=0.333333333", "cpu.cfs_quota_us 33333", "cpu.max 33333 100000"),
            ("cpus=max", "cpu.cfs_quota_us -1", "cpu.max max 100000"),
            ("cpus=-1", "cpu.cfs_quota_us -1", "cpu.max max 100000"),
            ("pids=max", "pids.max max", "pids.max max"),
            ("pids-limit=-1", "pids.max max", "pids.max max"),
            ("cpuset.cpus=0-2,5", "cpuset.cpus 0-2,5", "cpuset.cpus 0-2,5"),
            ("cpuset-mems=0", "cpuset.mems 0", "cpuset.mems 0"),
            ("cpu-quota=5000", "cpu.cfs_quota_us 5000", "cpu.max 5000"),
            ("cpu.max=5000", "cpu.cfs_quota_us 5000", "cpu.max 5000"),
            ("cpu.max=max 50000", "cpu.cfs_period_us 50000, cpu.cfs_quota_us -1", "cpu.max max 50000"),
            ("cpu-period=50000", "cpu.cfs_period_us 50000", "cpu.max max 50000"),
        ] {
            assert_eq!((&*text(word, false), &*text(word, true)), (one, two), "{word}");
        }
    }

    #[test]
    fn time_of_processors_is_said_in_one_or_two_words() {
        let none = |_| None;
        let both = ["cpu-quota=20000", "cpu-period=50000"];
        assert_eq!(files(&both, false, none), ["cpu.cfs_period_us 50000", "cpu.cfs_quota_us 20000"]);
        assert_eq!(files(&both, true, none), ["cpu.max 20000 50000"]);
        // Remembered and typed: the last counts, and what is not said stays.
        assert_eq!(files(&[both[0], both[1], "cpus=1"], true, none), ["cpu.max 100000 100000"]);
        assert_eq!(files(&["cpus=1", both[1]], true, none), ["cpu.max 100000 50000"]);
        // Of a group that is there.
        let now = |key| match key {
            Key::Quota => Some(7000),
            Key::Period => Some(50_000),
            _ => None,
        };
        assert_eq!(files(&["cpu-period=60000"], true, now), ["cpu.max 7000 60000"]);
        assert_eq!(files(&["cpu-period=50000"], false, now), Vec::<String>::new(), "so it is already");
        assert_eq!(files(&["cpus=1"], false, now), ["cpu.cfs_period_us 100000", "cpu.cfs_quota_us 100000"]);
        let mut limits = of(&both);
        limits.resolve(true, none).unwrap();
        assert_eq!(limits.files[0].to_string(), "cpu-quota=20000 cpu-period=50000", "both words are in an error");
    }

    #[test]
    fn what_one_version_lacks_is_said() {
        for (word, v2, why) in [
            ("memory.high=1M", false, "version 1 of control groups has no such limit"),
            ("memory-swappiness=5", true, "vm.swappiness"),
            ("oom-kill-disable=true", true, "no such switch"),
        ] {
            let error = of(&[word]).resolve(v2, |_| None).unwrap_err().to_string();
            assert!(error.starts_with(&format!("limit '{word}': ")) && error.contains(why), "{error}");
            assert!(of(&[word]).resolve(!v2, |_| None).is_ok());
        }
        assert_eq!(files(&["oom-kill-disable=true"], false, |_| None), ["memory.oom_control 1"]);
        assert_eq!(files(&["memory.high=max"], true, |_| None), ["memory.high max"]);
    }

    #[test]
    fn disks() {
        let none = |_| None;
        let words = ["device-read-bps=8:0:1M", "device-write-iops=8:0:100", "device-read-bps=7:1:5"];
        assert_eq!(files(&words, true, none), ["io.max 8:0 rbps=1048576", "io.max 8:0 wiops=100", "io.max 7:1 rbps=5"]);
        assert_eq!(
            files(&words, false, none),
            [
                "blkio.throttle.read_bps_device 8:0 1048576",
                "blkio.throttle.write_iops_device 8:0 100",
                "blkio.throttle.read_bps_device 7:1 5",
            ]
        );
        // Both kernels' words, and the last of a disk and a kind counts.
        let words = ["blkio.throttle.read_bps_device=8:0 1000", "io.max=8:0 rbps=max wbps=2K", "device-read-bps=8:1:9"];
        assert_eq!(files(&words, true, none), ["io.max 8:0 rbps=max", "io.max 8:0 wbps=2048", "io.max 8:1 rbps=9"]);
        assert_eq!(files(&words, false, none)[0], "blkio.throttle.read_bps_device 8:0 0");
        // What takes them back.
        let limit = |word: &str| of(&[word]).files.remove(0);
        let before = |word: &str, text: &str, v2| limit(word).before(text, v2);
        assert_eq!(before("device-read-bps=8:0:5", "7:1 3\n8:0 7\n", false), "8:0 7");
        assert_eq!(before("device-read-bps=8:0:5", "7:1 3\n", false), "8:0 0");
        assert_eq!(before("device-read-bps=8:0:5", "", true), "8:0 rbps=max");
        assert_eq!(before("pids=5", "7\n", true), "7");
        assert_eq!(before("oom-kill-disable=1", "oom_kill_disable 0\nunder_oom 0\n", false), "0");
        let error = "device-read-bps=/dev/null:1M".parse::<Limit>().unwrap_err().to_string();
        assert!(error.ends_with("/dev/null is no block device"), "{error}");
        let error = "device-read-bps=/dev/nosuch:1M".parse::<Limit>().unwrap_err().to_string();
        assert!(error.ends_with("/dev/nosuch: No such file or directory"), "{error}");
    }

    #[test]
    fn weights_of_disks_go_to_the_file_that_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let place = |v2| Place { dir: dir.path().into(), v2 };
        let target = |word: &str, v2| {
            let (file, text) = of(&[word]).files[0].target(&place(v2));
            format!("{} {text}", file.file_name().unwrap().to_string_lossy())
        };
        std::fs::write(dir.path().join("io.weight"), "").unwrap();
        assert_eq!(target("blkio-weight=500", true), "io.weight 4950");
        assert_eq!(target("io.weight=4950", true), "io.weight 4950");
        let shell = of(&["blkio-weight=10"]).files[0].shell(&place(true)).replace(&*dir.path().to_string_lossy(), "D");
        assert_eq!(shell, "if [ -e D/io.bfq.weight ]; then echo 10 > D/io.bfq.weight; else echo 1 > D/io.weight; fi");
        std::fs::remove_file(dir.path().join("io.weight")).unwrap();
        std::fs::write(dir.path().join("io.bfq.weight"), "").unwrap();
        assert_eq!(target("blkio-weight=500", true), "io.bfq.weight 500");
        assert_eq!(target("io.weight=10000", true), "io.bfq.weight 1000");
        std::fs::write(dir.path().join("blkio.bfq.weight"), "").unwrap();
        assert_eq!(target("blkio-weight=1000", false), "blkio.bfq.weight 1000");
        assert_eq!(of(&["blkio-weight=500", "io.weight=7"]).files.len(), 1, "two words for one thing");
        assert_eq!(
            (io_weight_of(10), io_weight_of(1000), blkio_weight_of(1), blkio_weight_of(10_000)),
            (1, 10_000, 10, 1000)
        );
    }

    fn of(words: &[&str]) -> Limits {
        Limits::of(words.iter().map(|word| word.parse().unwrap()))
    }

    #[test]
    fn the_last_of_a_kind_counts() {
        let limits = of(&["memory-swap=2M", "pids=5", "memory=512K", "cpu.weight=7", "memory.max=1M", "cpu.shares=9"]);
        let texts: Vec<_> = limits.files.iter().map(|limit| (limit.key.file(false), limit.text(false))).collect();
        let expected = [
            ("pids.max", "5"),
            ("memory.limit_in_bytes", "1048576"),
            ("cpu.shares", "9"),
            ("memory.memsw.limit_in_bytes", "2097152"),
        ];
        assert_eq!(texts, expected.map(|(file, text)| (file, text.to_owned())));
        assert_eq!((limits.devices, limits.only_more), (None, false));
        assert_eq!(of(&["devices=default", "device=c:1:1:r", "devices=all"]).devices, Some(Devices::All));
        let more = of(&["device=c:1:1:r", "device=b:7:0:r"]);
        let rules = ["c:1:1:r", "b:7:0:r"].map(|rule| rule.parse().unwrap()).to_vec();
        assert_eq!((more.devices, more.only_more), (Some(Devices::Default(rules)), true));
    }

    #[test]
    fn swap_is_counted_from_memory() {
        let swap = |words: &[&str], now: Option<i64>| {
            let mut limits = of(words);
            limits.clone().resolve(false, |key| now.filter(|_| key == Key::Memory))?;
            limits.resolve(true, |key| now.filter(|_| key == Key::Memory))?;
            Ok::<_, Error>(limits.files.iter().find(|limit| limit.key == Key::Swap).map(|limit| limit.text(true)))
        };
        assert_eq!(swap(&["memory=1M", "memory-swap=3M"], None).unwrap().as_deref(), Some("2097152"));
        assert_eq!(swap(&["memory=1M", "memory-swap=1M"], None).unwrap().as_deref(), Some("0"), "none");
        assert_eq!(swap(&["memory=1M", "memory-swap=max"], None).unwrap().as_deref(), Some("max"));
        assert_eq!(swap(&["memory-swap=3M"], Some(1 << 20)).unwrap().as_deref(), Some("2097152"));
        assert_eq!(swap(&["memory=1M"], None).unwrap(), None);
        for (words, now) in [
            (&["memory-swap=3M"][..], None),
            (&["memory-swap=3M"], Some(4 << 20)),
            (&["memory=2M", "memory-swap=1M"], None),
            (&["memory=max", "memory-swap=1M"], None),
        ] {
            assert_eq!(swap(words, now).unwrap_err().exit_status(), USAGE, "{words:?} {now:?}");
        }
    }

    #[test]
    fn reads_a_file_of_limits() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("limits");
        let written = |text: &str| {
            std::fs::write(&file, text).unwrap();
            read(&file)
        };
        assert_eq!(written("memory=1M\n\ndevice=c:1:1:r\n").unwrap().len(), 2);
        assert_eq!(written("").unwrap(), []);
        let error = written("memory=1M\npids=none\n").unwrap_err();
        assert!(error.to_string().contains("limits line 2: limit 'pids=none': not a number"), "{error}");
        assert!(written(&"\n".repeat(1 << 20)).unwrap_err().to_string().contains("longer than"));
        assert!(read(&dir.path().join("nosuch")).unwrap_err().to_string().contains("No such file"));
    }
}
