//! `stats`: what containers use at this moment, from the kernel's files: one sample of each, or one each second; as lines for a
//! pipe, as a table with docker's columns on a terminal.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{IsTerminal, Write, stdout};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use bocker_common::{Error, Result};
use serde::Serialize;

use crate::group;
use crate::layout::{Controller, Layout};
use crate::limits::field as field_of;
use crate::name::Name;
use crate::stat;

/// One container's sample. `None`: the kernel does not say.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Sample {
    id: String,
    /// Bytes, without those of files that the kernel can drop at once (`inactive_file`), as docker has it.
    memory: Option<u64>,
    /// Bytes; none: no limit.
    memory_limit: Option<u64>,
    /// Microseconds, of all processors together.
    cpu_usec: Option<u64>,
    /// Processes and threads.
    pids: Option<u64>,
    /// Bytes from disks.
    io_read: Option<u64>,
    /// Bytes to disks.
    io_written: Option<u64>,
    /// How often the kernel has killed a process because of the limit of memory.
    oom_kills: Option<u64>,
    /// Bytes, the most that it ever used, files included.
    memory_peak: Option<u64>,
    /// Percent of the last ten seconds in which a process of it waited for memory.
    memory_pressure: Option<f64>,
}

impl Sample {
    /// As `--json` or as words parted by tabs, in the order above.
    ///
    /// # Errors
    /// None that could be; serde's own.
    pub(crate) fn line(&self, json: bool) -> Result<String> {
        if json {
            return serde_json::to_string(self).map_err(|e| Error::new("write", "JSON", e.to_string()));
        }
        let word = |number: Option<u64>| number.map_or_else(|| "-".to_owned(), |n| n.to_string());
        let limit = self.memory_limit.map_or_else(|| "max".to_owned(), |n| n.to_string());
        let rest = [self.cpu_usec, self.pids, self.io_read, self.io_written, self.oom_kills].map(word);
        Ok(format!("{}\t{}\t{limit}\t{}", self.id, word(self.memory), rest.join("\t")))
    }
}

/// Those of `ids`, or of all containers, which may come and go meanwhile.
///
/// # Errors
/// One of `ids` has no cgroup; the samples of the others come with it.
pub(crate) fn samples(layout: &Layout, ids: &[Name]) -> (Vec<Sample>, Result<()>) {
    let (wanted, named) = if ids.is_empty() { (group::all(layout), false) } else { (Ok(ids.to_vec()), true) };
    let wanted = match wanted {
        Ok(wanted) => wanted,
        Err(e) => return (Vec::new(), Err(e)),
    };
    let (mut samples, mut failures) = (Vec::new(), Vec::new());
    for id in wanted {
        match group::must_exist(layout, id) {
            Ok(()) => samples.push(sample(layout, id)),
            Err(e) if named => failures.push(e.to_string()),
            Err(_) => {}
        }
    }
    (samples, if failures.is_empty() { Ok(()) } else { Err(Error::plain(failures.join("; "))) })
}

fn sample(layout: &Layout, id: Name) -> Sample {
    // What has gone since, and what a hierarchy does not have, is not known.
    let read = |controller: Controller, name: &str| {
        let file: PathBuf = layout.dir_of(controller, id).join(name);
        std::fs::read_to_string(file).ok()
    };
    let number = |controller, name: &str| read(controller, name)?.trim_end().parse::<u64>().ok();
    let field = |controller, name: &str, key: &str| field_of(&read(controller, name)?, key);
    let memory = |usage: Option<u64>, inactive: Option<u64>| {
        let (usage, inactive) = (usage?, inactive.unwrap_or(0));
        // Read one after the other, so it may be more by now.
        Some(usage.checked_sub(inactive).unwrap_or(usage))
    };
    // Version 1 says "no limit" by the highest number of pages that a signed 64-bit number of bytes has.
    let limit = |name| number(Controller::Memory, name).filter(|n| *n < 1 << 62);
    let (io_read, io_written) = disks(layout, id);
    let id = id.to_string();
    if layout.v2() {
        Sample {
            id,
            memory: memory(
                number(Controller::Memory, "memory.current"),
                field(Controller::Memory, "memory.stat", "inactive_file"),
            ),
            memory_limit: limit("memory.max"),
            cpu_usec: field(Controller::Cpu, "cpu.stat", "usage_usec"),
            pids: number(Controller::Pids, "pids.current"),
            io_read,
            io_written,
            oom_kills: field(Controller::Memory, "memory.events", "oom_kill"),
            memory_peak: number(Controller::Memory, "memory.peak"),
            memory_pressure: read(Controller::Memory, "memory.pressure").and_then(|text| stat::memory_pressure(&text)),
        }
    } else {
        Sample {
            id,
            memory: memory(
                number(Controller::Memory, "memory.usage_in_bytes"),
                field(Controller::Memory, "memory.stat", "total_inactive_file"),
            ),
            memory_limit: limit("memory.limit_in_bytes"),
            cpu_usec: number(Controller::Cpuacct, "cpuacct.usage").map(|nanoseconds| nanoseconds / 1000),
            pids: number(Controller::Pids, "pids.current"),
            io_read,
            io_written,
            oom_kills: field(Controller::Memory, "memory.oom_control", "oom_kill"),
            memory_peak: number(Controller::Memory, "memory.max_usage_in_bytes"),
            memory_pressure: None,
        }
    }
}

/// Bytes from and to disks.
pub(crate) fn disks(layout: &Layout, name: Name) -> (Option<u64>, Option<u64>) {
    let read = |file: &str| {
        layout.top_of(Controller::Blkio)?;
        std::fs::read_to_string(layout.dir_of(Controller::Blkio, name).join(file)).ok()
    };
    if layout.v2() {
        let text = read("io.stat");
        let sum = |key| Some(sum_of_keys(text.as_ref()?, key));
        return (sum("rbytes"), sum("wbytes"));
    }
    let text = read("blkio.throttle.io_service_bytes_recursive");
    let sum = |operation| Some(sum_of_lines(text.as_ref()?, operation));
    (sum("Read"), sum("Write"))
}

/// How they are printed.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct How {
    /// One JSON object a line
    #[arg(long)]
    json: bool,
    /// A new sample each second, until interrupted, or until all that were named are gone
    #[arg(long)]
    stream: bool,
}

/// Time from one sample to the next.
const PAUSE: Duration = Duration::from_secs(1);
/// Where there is only one table: how long processors are looked at.
const LOOK: Duration = Duration::from_millis(500);

/// Prints samples of those of `ids`, or of all: once, or until interrupted.
///
/// # Errors
/// One of `ids` has no cgroup; stdout cannot be written to.
pub(crate) fn print(layout: &Layout, ids: &[Name], how: How) -> Result<()> {
    // A reader that has gone away is no error.
    print_all(layout, ids, how).or_else(|e| if e.is_explained_elsewhere() { Ok(()) } else { Err(e) })
}

fn print_all(layout: &Layout, ids: &[Name], how: How) -> Result<()> {
    let on_a_terminal = stdout().is_terminal() && !how.json;
    let mut screen = Screen::default();
    let mut before = Moment { at: Instant::now(), cpu: HashMap::new() };
    let mut first = true;
    loop {
        let at = Instant::now();
        let (samples, result) = samples(layout, ids);
        let now = Moment { at, cpu: samples.iter().map(|one| (one.id.clone(), one.cpu_usec)).collect() };
        // Named ones may end while we look; at first they have to be there.
        let missing = if first { result } else { Ok(()) };
        if !first && !ids.is_empty() && samples.is_empty() {
            return Ok(());
        }
        if !on_a_terminal {
            let lines = samples.iter().map(|sample| Ok(sample.line(how.json)? + "\n")).collect::<Result<String>>()?;
            write(&lines)?;
        } else if !first {
            let rows: Vec<_> = samples.iter().map(|sample| row(sample, &before, &now)).collect();
            write(&screen.draw(&rows))?;
        }
        missing?;
        if !how.stream && (!on_a_terminal || !first) {
            return Ok(());
        }
        before = now;
        std::thread::sleep(if on_a_terminal && first { LOOK } else { PAUSE });
        first = false;
    }
}

/// A reader that has gone ends it in silence.
fn write(text: &str) -> Result<()> {
    stdout().write_all(text.as_bytes()).and_then(|()| stdout().flush()).map_err(|e| Error::stdout(&e))
}

/// When, and the microseconds of each until then.
struct Moment {
    at: Instant,
    cpu: HashMap<String, Option<u64>>,
}

const HEADINGS: [&str; 6] = ["CONTAINER ID", "CPU %", "MEM USAGE / LIMIT", "MEM %", "BLOCK I/O", "PIDS"];

/// docker's columns, but for its names and networks, which others know.
fn row(sample: &Sample, before: &Moment, now: &Moment) -> [String; 6] {
    let unknown = || "--".to_owned();
    let earlier = before.cpu.get(&sample.id).copied().flatten();
    let cpu = sample.cpu_usec.zip(earlier).map(|(now, before)| now.saturating_sub(before));
    let passed = now.at.saturating_duration_since(before.at).as_micros().max(1) as f64;
    let percent = |part: f64| format!("{:.2}%", part * 100.0);
    let limit = sample.memory_limit.map_or_else(|| "max".to_owned(), binary);
    let share = sample.memory.zip(sample.memory_limit).map(|(used, limit)| used as f64 / limit.max(1) as f64);
    [
        sample.id.clone(),
        cpu.map_or_else(unknown, |used| percent(used as f64 / passed)),
        format!("{} / {limit}", sample.memory.map_or_else(unknown, binary)),
        share.map_or_else(unknown, percent),
        format!(
            "{} / {}",
            sample.io_read.map_or_else(unknown, decimal),
            sample.io_written.map_or_else(unknown, decimal)
        ),
        sample.pids.map_or_else(unknown, |n| n.to_string()),
    ]
}

/// Memory, as docker has it: `1.5GiB`.
fn binary(bytes: u64) -> String {
    scaled(bytes, 1024.0, ["B", "KiB", "MiB", "GiB", "TiB", "PiB"])
}

/// What goes over wires and to disks, as docker has it: `1.5GB`.
fn decimal(bytes: u64) -> String {
    scaled(bytes, 1000.0, ["B", "kB", "MB", "GB", "TB", "PB"])
}

/// Four digits, as Go's `%.4g`.
fn scaled(bytes: u64, base: f64, units: [&str; 6]) -> String {
    let (mut size, mut unit) = (bytes as f64, 0);
    while size >= base && unit + 1 < units.len() {
        size /= base;
        unit += 1;
    }
    let digits = if size < 10.0 { 3 } else { 2 - usize::from(size >= 100.0) - usize::from(size >= 1000.0) };
    let text = format!("{size:.digits$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{}", units.get(unit).copied().unwrap_or_default())
}

/// A table that is drawn over the one before.
#[derive(Default)]
struct Screen {
    lines: usize,
}

impl Screen {
    fn draw(&mut self, rows: &[[String; 6]]) -> String {
        // Up to the first line, and all that is below goes: ECMA-48, CUU and ED.
        let mut out = if self.lines > 0 { format!("\x1b[{}A\x1b[J", self.lines) } else { String::new() };
        let cells = || std::iter::once(HEADINGS.map(str::to_owned)).chain(rows.iter().cloned());
        let width = |at: usize| cells().map(|row| row[at].chars().count()).max().unwrap_or(0);
        let widths: [usize; 6] = std::array::from_fn(width);
        for row in cells() {
            let line = row.iter().zip(widths).fold(String::new(), |mut line, (cell, width)| {
                let _ = write!(line, "{cell:width$}   ");
                line
            });
            out += line.trim_end();
            out.push('\n');
        }
        self.lines = rows.len() + 1;
        out
    }
}

/// Version 2, a line for each disk: `8:0 rbytes=1 wbytes=2 rios=3`.
fn sum_of_keys(text: &str, key: &str) -> u64 {
    let numbers =
        text.split_whitespace().filter_map(|word| word.strip_prefix(key)?.strip_prefix('=')?.parse::<u64>().ok());
    numbers.fold(0, u64::saturating_add)
}

/// Version 1, a line for each disk and operation: `8:0 Read 1`.
fn sum_of_lines(text: &str, operation: &str) -> u64 {
    let number = |line: &str| {
        let mut words = line.split_whitespace().skip(1);
        (words.next()? == operation).then(|| words.next()?.parse::<u64>().ok())?
    };
    text.lines().filter_map(number).fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::layout::tests::{fake_v1, fake_v2};

    fn id() -> Name {
        "ps_42045".parse().unwrap()
    }

    #[test]
    fn reads_version_2() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::among(dir.path(), &fake_v2(dir.path(), "cpu memory", "cpu memory")).unwrap();
        let group = dir.path().join("ps_42045");
        fs::create_dir(&group).unwrap();
        let nothing = samples(&layout, &[]).0;
        assert_eq!(nothing[0].line(false).unwrap(), "ps_42045\t-\tmax\t-\t-\t-\t-\t-");
        for (name, text) in [
            ("memory.current", "10000\n"),
            ("memory.stat", "anon 1\ninactive_file 4096\nactive_file 7\n"),
            ("memory.max", "max\n"),
            ("memory.peak", "20000\n"),
            ("memory.pressure", "some avg10=0.25 avg60=0.00 avg300=0.00 total=7\n"),
            ("cpu.stat", "usage_usec 1234\nuser_usec 5\n"),
            ("pids.current", "3\n"),
            ("io.stat", "8:0 rbytes=100 wbytes=7 rios=3 wios=4\n7:0 rbytes=1 wbytes=0 dbytes=9\n"),
            ("memory.events", "low 0\noom 5\noom_kill 2\noom_group_kill 1\n"),
        ] {
            fs::write(group.join(name), text).unwrap();
        }
        let (all, result) = samples(&layout, &[id()]);
        result.unwrap();
        assert_eq!(all[0].line(false).unwrap(), "ps_42045\t5904\tmax\t1234\t3\t101\t7\t2");
        assert_eq!(
            all[0].line(true).unwrap(),
            r#"{"id":"ps_42045","memory":5904,"memory_limit":null,"cpu_usec":1234,"pids":3,"io_read":101,"io_written":7,"oom_kills":2,"memory_peak":20000,"memory_pressure":0.25}"#
        );
    }

    #[test]
    fn a_table_as_dockers() {
        for (bytes, expected) in
            [(0, "0B"), (1023, "1023B"), (1536, "1.5KiB"), (512_000_000, "488.3MiB"), (20 << 30, "20GiB")]
        {
            assert_eq!(binary(bytes), expected);
        }
        for (bytes, expected) in [(999, "999B"), (1000, "1kB"), (123_456_789, "123.5MB")] {
            assert_eq!(decimal(bytes), expected);
        }
        let sample = Sample {
            id: "ps_42045".to_owned(),
            memory: Some(16 << 20),
            memory_limit: Some(64 << 20),
            cpu_usec: Some(1_500_000),
            pids: Some(3),
            io_read: Some(1000),
            io_written: None,
            oom_kills: None,
            memory_peak: None,
            memory_pressure: None,
        };
        let start = Instant::now();
        let before = Moment { at: start, cpu: [("ps_42045".to_owned(), Some(1_000_000))].into() };
        let now = Moment { at: start + PAUSE, cpu: HashMap::new() };
        let row = row(&sample, &before, &now);
        assert_eq!(row, ["ps_42045", "50.00%", "16MiB / 64MiB", "25.00%", "1kB / --", "3"].map(str::to_owned));
        let mut screen = Screen::default();
        let table = "CONTAINER ID   CPU %    MEM USAGE / LIMIT   MEM %    BLOCK I/O   PIDS\n\
                     ps_42045       50.00%   16MiB / 64MiB       25.00%   1kB / --    3\n";
        assert_eq!(screen.draw(&[row]), table);
        assert!(screen.draw(&[]).starts_with("\x1b[2A\x1b[JCONTAINER ID"), "over the one before");
    }

    #[test]
    fn reads_version_1() {
        let dir = tempfile::tempdir().unwrap();
        let layout =
            Layout::among(dir.path(), &fake_v1(dir.path(), &["cpu,cpuacct", "memory", "pids", "blkio"])).unwrap();
        for (name, text) in [
            ("memory/ps_42045/memory.usage_in_bytes", "4096\n"),
            ("memory/ps_42045/memory.stat", "inactive_file 1\ntotal_inactive_file 5000\n"),
            ("memory/ps_42045/memory.limit_in_bytes", "512000000\n"),
            ("memory/ps_42045/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n"),
            ("cpu,cpuacct/ps_42045/cpuacct.usage", "1234567\n"),
            ("pids/ps_42045/pids.current", "3\n"),
            (
                "blkio/ps_42045/blkio.throttle.io_service_bytes_recursive",
                "8:0 Read 100\n8:0 Write 7\n8:0 Total 107\n7:0 Read 1\nTotal 108\n",
            ),
        ] {
            let file = dir.path().join(name);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        }
        let (all, result) = samples(&layout, &[id(), "ps_42046".parse().unwrap()]);
        assert_eq!(all[0].line(false).unwrap(), "ps_42045\t4096\t512000000\t1234\t3\t101\t7\t1");
        let error = result.unwrap_err().to_string();
        assert!(all.len() == 1 && error.starts_with("no cgroup /ps_42046"), "{error}");
        fs::write(dir.path().join("memory/ps_42045/memory.limit_in_bytes"), "9223372036854771712\n").unwrap();
        assert_eq!(samples(&layout, &[]).0[0].memory_limit, None);
    }
}
