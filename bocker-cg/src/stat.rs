//! `stat`: all figures of one cgroup, from the kernel's files: what it uses, used at most, may use, waits for, and what befell it.

use std::path::PathBuf;

use bocker_common::diag::USAGE;
use bocker_common::{Error, Result};
use serde_json::{Map, Value};

use crate::freeze;
use crate::group;
use crate::layout::{Controller, Layout};
use crate::limits::field;
use crate::name::Name;
use crate::stats;

/// A figure: what it is called, and the number. Bytes, microseconds, processes, times that something happened; of pressure
/// percent of the time, and microseconds in all.
type Figure = (String, Value);

/// Lines `FIGURE\tVALUE`, or one JSON object. What the kernel does not say is left out; a limit that is none is `max`, in JSON null.
///
/// # Errors
/// No such cgroup.
pub(crate) fn stat(layout: &Layout, name: Name, json: bool) -> Result<Vec<String>> {
    group::must_exist(layout, name)?;
    let figures = figures(layout, name);
    if json {
        let mut object = Map::new();
        object.insert("id".to_owned(), name.to_string().into());
        object.extend(figures);
        return Ok(vec![Value::Object(object).to_string()]);
    }
    let line = |(figure, value): Figure| match value {
        Value::Null => format!("{figure}\tmax"),
        value => format!("{figure}\t{value}"),
    };
    Ok(figures.into_iter().map(line).collect())
}

/// A file, and the key of the line in it.
type Source = (&'static str, &'static str);

/// Where a figure is: the controller, version 1's file and line, version 2's. Without a line the file is the number. Version 1's
/// `cpuacct.usage` counts nanoseconds: see [`figures`].
const FIGURES: [(&str, Controller, Source, Source); 24] = [
    ("memory.current", Controller::Memory, ("memory.usage_in_bytes", ""), ("memory.current", "")),
    ("memory.peak", Controller::Memory, ("memory.max_usage_in_bytes", ""), ("memory.peak", "")),
    ("memory.limit", Controller::Memory, ("memory.limit_in_bytes", ""), ("memory.max", "")),
    ("memory.swap", Controller::Memory, ("memory.stat", "total_swap"), ("memory.swap.current", "")),
    ("memory.anon", Controller::Memory, ("memory.stat", "total_rss"), ("memory.stat", "anon")),
    ("memory.file", Controller::Memory, ("memory.stat", "total_cache"), ("memory.stat", "file")),
    (
        "memory.inactive_file",
        Controller::Memory,
        ("memory.stat", "total_inactive_file"),
        ("memory.stat", "inactive_file"),
    ),
    ("memory.events.high", Controller::Memory, ("", ""), ("memory.events", "high")),
    ("memory.events.max", Controller::Memory, ("memory.failcnt", ""), ("memory.events", "max")),
    ("memory.events.oom", Controller::Memory, ("", ""), ("memory.events", "oom")),
    ("memory.events.oom_kill", Controller::Memory, ("memory.oom_control", "oom_kill"), ("memory.events", "oom_kill")),
    ("pids.current", Controller::Pids, ("pids.current", ""), ("pids.current", "")),
    ("pids.peak", Controller::Pids, ("pids.peak", ""), ("pids.peak", "")),
    ("pids.limit", Controller::Pids, ("pids.max", ""), ("pids.max", "")),
    ("pids.events.max", Controller::Pids, ("pids.events", "max"), ("pids.events", "max")),
    ("cpu.usage_usec", Controller::Cpuacct, ("cpuacct.usage", ""), ("cpu.stat", "usage_usec")),
    ("cpu.user_usec", Controller::Cpuacct, ("cpuacct.usage_user", ""), ("cpu.stat", "user_usec")),
    ("cpu.system_usec", Controller::Cpuacct, ("cpuacct.usage_sys", ""), ("cpu.stat", "system_usec")),
    ("cpu.nr_periods", Controller::Cpu, ("cpu.stat", "nr_periods"), ("cpu.stat", "nr_periods")),
    ("cpu.nr_throttled", Controller::Cpu, ("cpu.stat", "nr_throttled"), ("cpu.stat", "nr_throttled")),
    ("cpu.throttled_usec", Controller::Cpu, ("cpu.stat", "throttled_time"), ("cpu.stat", "throttled_usec")),
    ("cgroup.descendants", Controller::Memory, ("", ""), ("cgroup.stat", "nr_descendants")),
    ("cgroup.populated", Controller::Memory, ("", ""), ("cgroup.events", "populated")),
    ("cgroup.frozen", Controller::Memory, ("", ""), ("cgroup.events", "frozen")),
];

fn figures(layout: &Layout, name: Name) -> Vec<Figure> {
    let v2 = layout.v2();
    let read = |controller: Controller, file: &str| {
        layout.top_of(controller)?;
        let path: PathBuf = layout.dir_of(controller, name).join(file);
        std::fs::read_to_string(path).ok()
    };
    let mut all: Vec<Figure> = Vec::new();
    for (figure, controller, one, two) in FIGURES {
        let (file, line) = if v2 { two } else { one };
        if file.is_empty() {
            continue;
        }
        let Some(text) = read(controller, file) else { continue };
        let text = text.trim_end();
        let number = if line.is_empty() { text.parse().ok() } else { field(text, line) };
        // Where there is no limit: version 2's word, version 1's highest number of pages.
        let is_limit = figure.ends_with(".limit");
        let number = number.filter(|n| !is_limit || *n < 1 << 62);
        let nanoseconds = file.starts_with("cpuacct.") || line == "throttled_time";
        match number {
            Some(n) => all.push((figure.to_owned(), (if nanoseconds { n / 1000 } else { n }).into())),
            None if is_limit => all.push((figure.to_owned(), Value::Null)),
            None => {}
        }
    }
    if !v2 && let Some(top) = layout.top_of(Controller::Freezer) {
        let frozen = freeze::is_frozen(&top.join(name.to_string()), false);
        all.push(("cgroup.frozen".to_owned(), u64::from(frozen).into()));
    }
    let (bytes_read, written) = stats::disks(layout, name);
    all.extend(bytes_read.map(|n| ("io.read_bytes".to_owned(), n.into())));
    all.extend(written.map(|n| ("io.written_bytes".to_owned(), n.into())));
    for resource in ["cpu", "memory", "io"] {
        // Where the kernel counts it, PSI, and only on version 2.
        let text = read(Controller::Memory, &format!("{resource}.pressure")).filter(|_| v2).unwrap_or_default();
        for (kind, word, number) in pressure(&text) {
            all.push((format!("{resource}.pressure.{kind}.{word}"), number));
        }
    }
    all
}

/// `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`, psi(7); the total in microseconds.
fn pressure(text: &str) -> impl Iterator<Item = (&str, &str, Value)> {
    text.lines().flat_map(|line| {
        let mut words = line.split(' ');
        let kind = words.next().unwrap_or_default();
        words.filter_map(move |word| {
            let (word, number) = word.split_once('=')?;
            let number = serde_json::from_str::<serde_json::Number>(number).ok()?;
            Some((kind, word, Value::Number(number)))
        })
    })
}

/// The kernel's word for how much memory was waited for in the last ten seconds, in percent.
pub(crate) fn memory_pressure(text: &str) -> Option<f64> {
    pressure(text)
        .find(|(kind, word, _)| (*kind, *word) == ("some", "avg10"))
        .and_then(|(_, _, number)| number.as_f64())
}

/// Why the kernel killed processes of a cgroup: how many, and the limit of memory that stood then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Killed {
    count: u64,
    /// The kernel's file, and bytes; none: the cgroup has no limit.
    limit: (&'static str, Option<u64>),
}

impl Killed {
    /// Those of a cgroup and of all below it; none: nobody was killed, or the kernel does not say.
    pub(crate) fn of(layout: &Layout, name: Name) -> Option<Self> {
        let dir = layout.top_of(Controller::Memory)?.join(name.to_string());
        let read = |file: &str| std::fs::read_to_string(dir.join(file)).ok();
        let (count, file) = if layout.v2() {
            // Counts what is below, too.
            (field(&read("memory.events")?, "oom_kill")?, "memory.max")
        } else {
            let mut dirs = Vec::new();
            group::leaves_first(&dir, &mut dirs).ok()?;
            let text = |dir: &PathBuf| std::fs::read_to_string(dir.join("memory.oom_control")).ok();
            let count = dirs.iter().filter_map(|dir| field(&text(dir)?, "oom_kill")).sum();
            (count, "memory.limit_in_bytes")
        };
        let limit = read(file).and_then(|text| text.trim_end().parse().ok()).filter(|n: &u64| *n < 1 << 62);
        (count > 0).then_some(Self { count, limit: (file, limit) })
    }

    /// `2 processes killed at memory.max 64 MiB`
    pub(crate) fn line(&self) -> String {
        let processes = if self.count == 1 { "process" } else { "processes" };
        let limit = match self.limit {
            (file, Some(bytes)) => format!("at {file} {}", size(bytes)),
            // That of one below it, of one above it, or all memory of the host.
            (file, None) => format!("with no {file} of its own"),
        };
        format!("{} {processes} killed {limit}", self.count)
    }
}

/// `64 MiB`; bytes where it is no whole number of a larger unit.
fn size(bytes: u64) -> String {
    let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
    let whole = units.iter().find(|(shift, _)| bytes > 0 && bytes.trailing_zeros() >= *shift);
    whole.map_or_else(|| format!("{bytes} bytes"), |(shift, unit)| format!("{} {unit}", bytes >> shift))
}

/// Writes down in the container's directory what became of it, as a file `oom`: a line, or no file.
///
/// # Errors
/// The file and the kernel's reason.
pub(crate) fn record(dir: &std::ffi::OsStr, killed: Option<&Killed>) -> Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    // Who asks may not know where it is yet.
    if dir.is_empty() {
        return Ok(());
    }
    let file = PathBuf::from(dir).join("oom");
    if !file.is_absolute() {
        return Err(Error::new("record in", file.display(), "not an absolute path").status(USAGE));
    }
    let done = match killed {
        None => std::fs::remove_file(&file).or_else(|e| match e.kind() {
            std::io::ErrorKind::NotFound => Ok(()),
            _ => Err(e),
        }),
        Some(killed) => std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o644)
            .custom_flags(libc::O_NOFOLLOW)
            .open(&file)
            .and_then(|mut opened| writeln!(opened, "{}", killed.line())),
    };
    done.map_err(|e| Error::new("write", file.display(), e))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::layout::tests::{fake_v1, fake_v2};

    fn name() -> Name {
        "ps_42045".parse().unwrap()
    }

    #[test]
    fn figures_of_version_2() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::among(dir.path(), &fake_v2(dir.path(), "cpu memory", "cpu memory")).unwrap();
        let group = dir.path().join("ps_42045");
        fs::create_dir(&group).unwrap();
        for (file, text) in [
            ("memory.current", "10000\n"),
            ("memory.peak", "20000\n"),
            ("memory.max", "max\n"),
            ("memory.events", "low 0\nhigh 3\nmax 7\noom 5\noom_kill 2\n"),
            ("pids.events", "max 4\n"),
            ("pids.max", "9\n"),
            ("cpu.stat", "usage_usec 1234\nnr_periods 5\nnr_throttled 4\nthrottled_usec 99\n"),
            (
                "memory.pressure",
                "some avg10=1.50 avg60=0.00 avg300=0.00 total=77\nfull avg10=0.25 avg60=0.00 avg300=0.00 total=7\n",
            ),
            ("cgroup.events", "populated 1\nfrozen 0\n"),
        ] {
            fs::write(group.join(file), text).unwrap();
        }
        let lines = stat(&layout, name(), false).unwrap();
        for line in [
            "memory.peak\t20000",
            "memory.limit\tmax",
            "memory.events.max\t7",
            "memory.events.oom_kill\t2",
            "pids.limit\t9",
            "pids.events.max\t4",
            "cpu.usage_usec\t1234",
            "cpu.nr_throttled\t4",
            "memory.pressure.some.avg10\t1.5",
            "memory.pressure.full.total\t7",
            "cgroup.frozen\t0",
        ] {
            assert!(lines.iter().any(|is| is == line), "{line}: {lines:?}");
        }
        let json: Value = serde_json::from_str(&stat(&layout, name(), true).unwrap()[0]).unwrap();
        assert_eq!((&json["id"], &json["memory.limit"]), (&Value::from("ps_42045"), &Value::Null));
        assert_eq!(json["memory.pressure.some.avg10"].as_f64(), Some(1.5));
        let killed = Killed::of(&layout, name()).unwrap();
        assert_eq!(killed.line(), "2 processes killed with no memory.max of its own");
        fs::write(group.join("memory.max"), "67108864\n").unwrap();
        fs::write(group.join("memory.events"), "oom_kill 1\n").unwrap();
        assert_eq!(Killed::of(&layout, name()).unwrap().line(), "1 process killed at memory.max 64 MiB");
        fs::write(group.join("memory.events"), "oom_kill 0\n").unwrap();
        assert_eq!(Killed::of(&layout, name()), None);
    }

    #[test]
    fn figures_of_version_1() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::among(dir.path(), &fake_v1(dir.path(), &["cpu,cpuacct", "memory", "freezer"])).unwrap();
        for (file, text) in [
            ("memory/ps_42045/memory.max_usage_in_bytes", "20000\n"),
            ("memory/ps_42045/memory.limit_in_bytes", "512000000\n"),
            ("memory/ps_42045/memory.failcnt", "3\n"),
            ("memory/ps_42045/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n"),
            ("memory/ps_42045/below/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"),
            ("cpu,cpuacct/ps_42045/cpuacct.usage", "1234567\n"),
            ("cpu,cpuacct/ps_42045/cpu.stat", "nr_periods 5\nnr_throttled 4\nthrottled_time 99000\n"),
            ("freezer/ps_42045/freezer.state", "FROZEN\n"),
        ] {
            let file = dir.path().join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        }
        let lines = stat(&layout, name(), false).unwrap();
        assert_eq!(
            lines,
            [
                "memory.peak\t20000",
                "memory.limit\t512000000",
                "memory.events.max\t3",
                "memory.events.oom_kill\t1",
                "cpu.usage_usec\t1234",
                "cpu.nr_periods\t5",
                "cpu.nr_throttled\t4",
                "cpu.throttled_usec\t99",
                "cgroup.frozen\t1",
            ]
        );
        let killed = Killed::of(&layout, name()).unwrap();
        assert_eq!(killed.line(), "3 processes killed at memory.limit_in_bytes 500000 KiB");
    }

    #[test]
    fn what_is_recorded_is_of_the_last_time() {
        let dir = tempfile::tempdir().unwrap();
        let killed = Killed { count: 2, limit: ("memory.max", Some(1 << 30)) };
        record(dir.path().as_os_str(), Some(&killed)).unwrap();
        assert_eq!(fs::read_to_string(dir.path().join("oom")).unwrap(), "2 processes killed at memory.max 1 GiB\n");
        record(dir.path().as_os_str(), None).unwrap();
        record(dir.path().as_os_str(), None).unwrap();
        assert!(!dir.path().join("oom").exists());
        record("".as_ref(), Some(&killed)).unwrap();
        assert!(record("relative".as_ref(), None).is_err());
        std::os::unix::fs::symlink("/dev/null", dir.path().join("oom")).unwrap();
        assert!(record(dir.path().as_os_str(), Some(&killed)).is_err(), "no link is followed");
    }
}
