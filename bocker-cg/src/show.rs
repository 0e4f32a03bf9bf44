//! `get`: the limits of a cgroup, in the words in which they are set.

use bocker_common::diag::USAGE;
use bocker_common::{Error, Result};
use serde_json::{Map, Value};

use crate::devices::Devices;
use crate::group;
use crate::key::{IO_WEIGHT, Key, Rate};
use crate::layout::{Controller, Layout};
use crate::limits::{PERIOD, blkio_weight_of, field, io_weight_of, shares_of, weight_of};
use crate::name::Name;

/// `KEY\tVALUE` lines (of one key the values alone), or one JSON object. `KEY=VALUE` is what `set` takes.
///
/// # Errors
/// No such cgroup; a key that was asked for has no file.
pub(crate) fn get(layout: &Layout, name: Name, keys: &[Key], json: bool) -> Result<Vec<String>> {
    group::must_exist(layout, name)?;
    let mut found: Vec<(Key, Vec<String>)> = Vec::new();
    if keys.is_empty() {
        found.extend(Key::shown(layout.v2()).filter_map(|key| Some((key, values(layout, name, key)?))));
        // Of the time of processors only what is not said by `cpus`.
        let is_usual = number(layout, name, Key::Period).is_none_or(|period| period == PERIOD);
        found.retain(|(key, _)| match key {
            Key::Cpus => is_usual,
            Key::Quota | Key::Period => !is_usual,
            _ => true,
        });
        // The default ones and others.
        if let Some((_, rules)) = found.iter_mut().find(|(key, _)| *key == Key::Devices)
            && rules.len() > 1
        {
            let more = rules.split_off(1);
            found.push((Key::Device, more));
        }
    }
    for key in keys {
        if let Some(why) = key.lacks(layout.v2()) {
            return Err(Error::new("get", key, why).status(USAGE));
        }
        found.push((*key, values(layout, name, *key).ok_or_else(|| nothing(layout, name, *key))?));
    }
    if json {
        let mut object = Map::new();
        object.insert("id".to_owned(), name.to_string().into());
        for (key, mut values) in found {
            let many = matches!(key, Key::Rate(_) | Key::Io | Key::Device);
            let value = if many { Value::from(values) } else { values.pop().into() };
            object.insert(key.to_string(), value);
        }
        return Ok(vec![Value::Object(object).to_string()]);
    }
    let alone = keys.len() == 1;
    let line = |key: &Key, value: String| if alone { value } else { format!("{key}\t{value}") };
    Ok(found.into_iter().flat_map(|(key, values)| values.into_iter().map(move |value| line(&key, value))).collect())
}

fn nothing(layout: &Layout, name: Name, key: Key) -> Error {
    let dir = layout.dir_of(key.controller(), name);
    if layout.v2() && key.controller() == Controller::Devices {
        return Error::plain(format!("{}: version 2 has no file that says which devices", dir.display()))
            .hint(format!("bpftool cgroup show {}", dir.display()));
    }
    match layout.top_of(key.controller()) {
        None => layout.lacks(key.controller(), key, ""),
        Some(_) => Error::new("read", dir.join(key.file(layout.v2())).display(), "no such file")
            .hint("bocker-cg doctor says what this host lacks"),
    }
}

fn read(layout: &Layout, name: Name, key: Key) -> Option<(&'static str, String)> {
    let dir = layout.dir_of(key.controller(), name);
    layout.top_of(key.controller())?;
    let read = |file: &&'static str| Some((*file, std::fs::read_to_string(dir.join(file)).ok()?));
    key.files(layout.v2()).iter().find_map(read)
}

/// What the kernel's file has, as a number; none where that is no number.
pub(crate) fn number(layout: &Layout, name: Name, key: Key) -> Option<i64> {
    let (_, text) = read(layout, name, key)?;
    let words: Vec<&str> = text.split_whitespace().collect();
    let word = if key == Key::Period { words.last() } else { words.first() };
    word?.parse().ok()
}

/// A value in the words of the key, or several; none: the kernel does not say.
fn values(layout: &Layout, name: Name, key: Key) -> Option<Vec<String>> {
    let (file, text) = read(layout, name, key)?;
    let text = text.trim_end();
    // Version 1 says "no limit" by -1, or by the highest number of pages that a signed 64-bit number of bytes has.
    let limit = |text: &str| text.parse::<i64>().ok().filter(|n| (0..1 << 62).contains(n));
    let said = |number: Option<i64>| number.map_or_else(|| "max".to_owned(), |n| n.to_string());
    // The first line of weights is the default, those of single disks follow.
    let scaled = |of: fn(i64) -> i64| Some(of(text.lines().next()?.rsplit(' ').next()?.parse().ok()?).to_string());
    let as_is = |n: i64| n;
    let v2 = layout.v2();
    let one = match key {
        // There, what is kept is a limit: none is nothing.
        Key::Reservation if !v2 => limit(text).unwrap_or(0).to_string(),
        Key::Memory | Key::High | Key::Reservation | Key::Pids => said(limit(text)),
        Key::Swap if v2 => {
            let memory = number(layout, name, Key::Memory);
            said(limit(text).and_then(|swap| memory?.checked_add(swap)))
        }
        Key::Swap => said(limit(text)),
        Key::Swappiness | Key::Cpuset | Key::Mems => text.to_owned(),
        Key::OomKillDisable => (field(text, "oom_kill_disable")? == 1).to_string(),
        Key::Quota => said(number(layout, name, key).filter(|n| *n >= 0)),
        Key::Period => number(layout, name, key)?.to_string(),
        Key::Cpus => {
            let quota = number(layout, name, Key::Quota).filter(|n| *n >= 0);
            let period = number(layout, name, Key::Period).filter(|n| *n > 0)?;
            quota.map_or_else(|| "max".to_owned(), |quota| cpus(quota, period))
        }
        Key::Shares => scaled(if v2 { shares_of } else { as_is })?,
        Key::Weight => scaled(if v2 { as_is } else { weight_of })?,
        Key::BlkioWeight => scaled(if file == IO_WEIGHT { blkio_weight_of } else { as_is })?,
        Key::IoWeight => scaled(if file == IO_WEIGHT { as_is } else { io_weight_of })?,
        Key::Rate(rate) => return Some(text.lines().filter_map(|line| rate_of(line, rate, v2)).collect()),
        Key::Io => return Some(text.lines().map(str::to_owned).collect()),
        Key::Devices | Key::Device => return Some(Devices::listed(text)?.values()),
    };
    Some(vec![one])
}

/// As `1.5`; five digits at most.
fn cpus(quota: i64, period: i64) -> String {
    let micro = i128::from(quota) * 100_000 / i128::from(period);
    let text = format!("{}.{:05}", micro / 100_000, micro % 100_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// `8:0:1048576` of a line of `io.max`, or of version 1's file of this rate.
fn rate_of(line: &str, rate: Rate, v2: bool) -> Option<String> {
    let (disk, rest) = line.split_once(' ')?;
    let number =
        if v2 { rest.split(' ').find_map(|word| word.strip_prefix(rate.word())?.strip_prefix('='))? } else { rest };
    (number != "max").then(|| format!("{disk}:{number}"))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::layout::tests::{fake_v1, fake_v2};
    use crate::limits::{Limit, Limits};

    fn name() -> Name {
        "ps_42045".parse().unwrap()
    }

    fn written(root: &std::path::Path, files: &[(&str, &str)]) {
        for (file, text) in files {
            let file = root.join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        }
    }

    /// What is said can be set again.
    fn parses(lines: &[String]) {
        for line in lines {
            let word = line.replacen('\t', "=", 1);
            assert!(word.parse::<Limit>().is_ok(), "{word}");
        }
    }

    #[test]
    fn version_2_in_words() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::among(dir.path(), &fake_v2(dir.path(), "cpu memory io", "cpu memory io")).unwrap();
        written(
            dir.path(),
            &[
                ("ps_42045/memory.max", "1048576\n"),
                ("ps_42045/memory.swap.max", "2097152\n"),
                ("ps_42045/memory.high", "max\n"),
                ("ps_42045/cpu.max", "25000 100000\n"),
                ("ps_42045/cpu.weight", "100\n"),
                ("ps_42045/io.weight", "default 4950\n8:0 7\n"),
                (
                    "ps_42045/io.max",
                    "8:0 rbps=1048576 wbps=max riops=max wiops=9\n7:1 rbps=max wbps=5 riops=max wiops=max\n",
                ),
                ("ps_42045/pids.max", "max\n"),
            ],
        );
        let lines = get(&layout, name(), &[], false).unwrap();
        assert_eq!(
            lines,
            [
                "memory\t1048576",
                "memory-swap\t3145728",
                "memory.high\tmax",
                "cpu.weight\t100",
                "cpus\t0.25",
                "pids\tmax",
                "io.weight\t4950",
                "device-read-bps\t8:0:1048576",
                "device-write-bps\t7:1:5",
                "device-write-iops\t8:0:9",
            ]
        );
        parses(&lines);
        assert_eq!(get(&layout, name(), &[Key::Shares], false).unwrap(), ["1024"]);
        assert_eq!(
            get(&layout, name(), &[Key::Cpus, Key::Rate(Rate::ReadBytes)], true).unwrap(),
            [r#"{"cpus":"0.25","device-read-bps":["8:0:1048576"],"id":"ps_42045"}"#]
        );
        for (key, why) in [
            (Key::Devices, "no file that says which devices"),
            (Key::Swappiness, "version 2"),
            (Key::Reservation, "memory.low: no such file"),
        ] {
            let error = get(&layout, name(), &[key], false).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
        let error = get(&layout, "run_1_2".parse().unwrap(), &[], false).unwrap_err().to_string();
        assert!(error.starts_with("no cgroup /run_1_2"), "{error}");
    }

    #[test]
    fn version_1_in_words() {
        let dir = tempfile::tempdir().unwrap();
        let names = ["cpu,cpuacct", "memory", "devices", "blkio"];
        let layout = Layout::among(dir.path(), &fake_v1(dir.path(), &names)).unwrap();
        written(
            dir.path(),
            &[
                ("memory/ps_42045/memory.limit_in_bytes", "9223372036854771712\n"),
                ("memory/ps_42045/memory.soft_limit_in_bytes", "9223372036854771712\n"),
                ("memory/ps_42045/memory.oom_control", "oom_kill_disable 1\nunder_oom 0\noom_kill 0\n"),
                ("cpu,cpuacct/ps_42045/cpu.cfs_quota_us", "20000\n"),
                ("cpu,cpuacct/ps_42045/cpu.cfs_period_us", "50000\n"),
                ("cpu,cpuacct/ps_42045/cpu.shares", "1024\n"),
                ("blkio/ps_42045/blkio.bfq.weight", "500\n"),
                ("blkio/ps_42045/blkio.throttle.write_iops_device", "8:0 9\n"),
                ("devices/ps_42045/devices.list", "a *:* rwm\n"),
            ],
        );
        let lines = get(&layout, name(), &[], false).unwrap();
        assert_eq!(
            lines,
            [
                "memory\tmax",
                "memory-reservation\t0",
                "oom-kill-disable\ttrue",
                "cpu.shares\t1024",
                "cpu-quota\t20000",
                "cpu-period\t50000",
                "blkio-weight\t500",
                "device-write-iops\t8:0:9",
                "devices\tall",
            ]
        );
        parses(&lines);
        assert_eq!(get(&layout, name(), &[Key::Cpus], false).unwrap(), ["0.4"]);
        assert_eq!(get(&layout, name(), &[Key::Weight], false).unwrap(), ["100"]);
        let rules: Devices = Limits::of(["device=c:10:200:rw".parse().unwrap()]).devices.unwrap();
        fs::write(dir.path().join("devices/ps_42045/devices.list"), rules.list()).unwrap();
        let lines = get(&layout, name(), &[], false).unwrap();
        assert_eq!(lines[lines.len() - 2..], ["devices\tdefault", "device\tc:10:200:rw"]);
    }
}
