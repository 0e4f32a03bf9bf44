//! `ps`: the containers.
//!
//! Whether one runs is what the kernel says: the lock on `status`; whether it is frozen, the cgroup of its id. Each container's
//! directory is opened once, and of its files only those are read that what was asked for needs.

use std::cell::OnceCell;
use std::collections::{BTreeMap, HashMap};
use std::mem::discriminant;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use bocker_common::diag::printable;
use bocker_common::{Id, Kind, Result};
use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags, StatxFlags};
use rustix::io::Errno;
use serde_json::{Map, Value, json};

use crate::export::DIRECTORY;
use crate::mounts::{Mount, mounts};
use crate::network::Words;
use crate::remember::{NETWORK, OOM, WORDS};
use crate::store::{Store, no_such, to_nix};
use crate::template::{Piece, Template, columns, parse};
use crate::usage::Usage;
use crate::verbs::print;
use crate::volumes::{VOLUMES, date};
use crate::when::{Moment, human};

/// Bytes read of a text file, at most.
const MAX_TEXT: usize = 4 << 20;

/// Which containers, and how.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Wanted {
    /// All of them, as is the default
    #[arg(long, short)]
    all: bool,
    /// Ids only
    #[arg(long, short, conflicts_with = "json")]
    quiet: bool,
    /// The N that were made last, the newest first
    #[arg(long, short = 'n', value_name = "N")]
    last: Option<usize>,
    /// The one that was made last
    #[arg(long, short, conflicts_with = "last")]
    latest: bool,
    /// With --format: commands and mounts in full
    #[arg(long)]
    no_trunc: bool,
    /// Only those for which it holds, as status=running: id, name, label, exited, status, ancestor, before, since, volume
    #[arg(long, short, value_name = "KEY=VALUE", value_parser = filter)]
    filter: Vec<Filter>,
    /// docker's: json, table, 'table TEMPLATE' or TEMPLATE, as '{{.ID}}\t{{.Status}}'
    #[arg(long, value_name = "FORMAT", conflicts_with = "json")]
    format: Option<String>,
    /// One JSON object a line: id, name, image, command, created, state, status, labels, mounts, pid, exit, oom_killed, running
    #[arg(long)]
    json: bool,
    /// Where the control groups are; which containers are paused is read there
    #[arg(long, value_name = "DIR", default_value = "/sys/fs/cgroup", hide = true)]
    cgroups: PathBuf,
}

/// docker's words for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Created,
    Running,
    Paused,
    Exited,
}

impl State {
    fn word(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Exited => "exited",
        }
    }
}

/// What must hold.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Filter {
    Id(String),
    Name(String),
    Label(String, Option<String>),
    Exited(u64),
    /// None: a state that docker has and we do not.
    Status(Option<State>),
    Ancestor(String),
    Before(String),
    Since(String),
    Volume(String),
}

/// `KEY=VALUE`
fn filter(text: &str) -> std::result::Result<Filter, String> {
    let known = "id, name, label, exited, status, ancestor, before, since, volume";
    let (key, value) = text.split_once('=').ok_or_else(|| format!("KEY=VALUE is wanted; the keys: {known}"))?;
    let owned = value.to_owned();
    Ok(match key {
        "id" => Filter::Id(owned),
        "name" => {
            let plain = value.strip_prefix('^').unwrap_or(value);
            let plain = plain.strip_suffix('$').unwrap_or(plain);
            let plain = plain.strip_prefix('/').unwrap_or(plain);
            if !plain.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b)) {
                return Err("a part of a name; ^ before it and $ after it mean the begin and the end".to_owned());
            }
            Filter::Name(owned)
        }
        "label" => match value.split_once('=') {
            Some((key, value)) => Filter::Label(key.to_owned(), Some(value.to_owned())),
            None => Filter::Label(owned, None),
        },
        "exited" => Filter::Exited(value.parse().map_err(|_| "the number that it exited with is wanted")?),
        "status" => match value {
            "created" => Filter::Status(Some(State::Created)),
            "running" => Filter::Status(Some(State::Running)),
            "paused" => Filter::Status(Some(State::Paused)),
            "exited" => Filter::Status(Some(State::Exited)),
            "restarting" | "removing" | "dead" => Filter::Status(None),
            _ => return Err("created, running, paused or exited is wanted".to_owned()),
        },
        "ancestor" => Filter::Ancestor(owned),
        "before" => Filter::Before(owned),
        "since" => Filter::Since(owned),
        "volume" => Filter::Volume(owned),
        _ => return Err(format!("there is no such key; those: {known}")),
    })
}

/// A part of the name, or with docker's `^` and `$` all of it. docker's names begin with a slash.
fn name_matches(name: &str, pattern: &str) -> bool {
    let (at_begin, rest) = pattern.strip_prefix('^').map_or((false, pattern), |rest| (true, rest));
    let (at_end, rest) = rest.strip_suffix('$').map_or((false, rest), |rest| (true, rest));
    let (at_begin, rest) = rest.strip_prefix('/').map_or((at_begin, rest), |rest| (true, rest));
    match (at_begin, at_end) {
        (true, true) => name == rest,
        (true, false) => name.starts_with(rest),
        (false, true) => name.ends_with(rest),
        (false, false) => name.contains(rest),
    }
}

/// docker's placeholders.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Id,
    Image,
    Command,
    CreatedAt,
    RunningFor,
    Ports,
    State,
    Status,
    Size,
    Names,
    Labels,
    Mounts,
    Networks,
}

/// The field, its name in a template and over its column.
const FIELDS: [(Field, &str, &str); 13] = [
    (Field::Command, "Command", "COMMAND"),
    (Field::CreatedAt, "CreatedAt", "CREATED AT"),
    (Field::Id, "ID", "CONTAINER ID"),
    (Field::Image, "Image", "IMAGE"),
    (Field::Labels, "Labels", "LABELS"),
    (Field::Mounts, "Mounts", "MOUNTS"),
    (Field::Names, "Names", "NAMES"),
    (Field::Networks, "Networks", "NETWORKS"),
    (Field::Ports, "Ports", "PORTS"),
    (Field::RunningFor, "RunningFor", "CREATED"),
    (Field::Size, "Size", "SIZE"),
    (Field::State, "State", "STATE"),
    (Field::Status, "Status", "STATUS"),
];

/// docker's own table.
const TABLE: &str = "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}";

fn field(name: &str) -> Option<Field> {
    FIELDS.iter().find(|(_, known, _)| *known == name).map(|(field, ..)| *field)
}

fn heading(template: &Template<Field>) -> String {
    let of = |field: &Field| FIELDS.iter().find(|(known, ..)| known == field).map_or("", |(.., heading)| heading);
    let mut out = String::new();
    for piece in template {
        match piece {
            Piece::Text(text) => out += text,
            Piece::Field(field) | Piece::Json(field) => out += of(field),
            // The last word of the key, as docker has it.
            Piece::Label(key) => out += &key.rsplit('.').next().unwrap_or_default().replace(['-', '_'], " "),
            Piece::JsonAll => {}
        }
    }
    printable_line(&out)
}

/// A line of a template may hold tabs and line breaks of the template's own.
fn printable_line(text: &str) -> String {
    text.split('\n')
        .map(|line| line.split('\t').map(printable).collect::<Vec<_>>().join("\t"))
        .collect::<Vec<_>>()
        .join("\n")
}

/// How the lines look.
enum Form {
    /// The original's two columns.
    Original,
    Ids,
    Json,
    Docker {
        template: Template<Field>,
        table: bool,
    },
}

impl Form {
    fn of(wanted: &Wanted) -> Result<Self> {
        let Some(text) = &wanted.format else {
            return Ok(match (wanted.json, wanted.quiet) {
                (true, _) => Self::Json,
                (_, true) => Self::Ids,
                _ => Self::Original,
            });
        };
        let text = text.trim_start();
        if text == "json" {
            return Ok(Self::Docker { template: vec![Piece::JsonAll], table: false });
        }
        match text.strip_prefix("table").map(str::trim_start) {
            Some("") if wanted.quiet => Ok(Self::Ids),
            Some("") => Ok(Self::Docker { template: parse(TABLE, field)?, table: true }),
            Some(template) => Ok(Self::Docker { template: parse(template, field)?, table: true }),
            None => Ok(Self::Docker { template: parse(text, field)?, table: false }),
        }
    }
}

/// What the lock and the file `status` say.
#[derive(Debug, Clone, Copy)]
struct Life {
    created: Moment,
    /// When it began, or ended.
    changed: Moment,
    state: State,
    locked: bool,
    pid: Option<u64>,
    exit: Option<u64>,
}

impl Life {
    /// docker's text.
    fn status(&self, now: Moment) -> String {
        let since = human(now.seconds - self.changed.seconds);
        match (self.state, self.exit) {
            (State::Created, _) => "Created".to_owned(),
            (State::Running, _) => format!("Up {since}"),
            (State::Paused, _) => format!("Up {since} (Paused)"),
            (State::Exited, Some(status)) => format!("Exited ({status}) {since} ago"),
            // Whoever would have written it down was killed, or the machine stopped: when is not known either.
            (State::Exited, None) => "Exited (unknown)".to_owned(),
        }
    }
}

/// What is read once for all containers, when it is needed.
struct Listing<'a> {
    store: &'a Store,
    wanted: &'a Wanted,
    now: Moment,
    images: OnceCell<HashMap<Id, String>>,
    sizes: OnceCell<HashMap<String, (u64, u64)>>,
    freezer: OnceCell<Option<(OwnedFd, &'static str, &'static str)>>,
    buffer: std::cell::RefCell<Vec<u8>>,
}

/// A container, as far as it has been looked at.
struct Row {
    id: Id,
    dir: OwnedFd,
    life: OnceCell<Life>,
    config: OnceCell<Map<String, Value>>,
}

/// docker's `%.3g` of a size, in thousands.
fn human_size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["B", "kB", "MB", "GB", "TB", "PB"];
    let (mut size, mut unit) = (bytes as f64, 0);
    while size >= 1000.0 && unit + 1 < UNITS.len() {
        size /= 1000.0;
        unit += 1;
    }
    let digits = if size < 10.0 { 2 } else { usize::from(size < 100.0) };
    let text = format!("{size:.digits$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{}", UNITS[unit])
}

/// At most so many characters, the last of them a mark that there are more.
fn ellipsis(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most - 1).chain(['…']).collect()
}

/// As Go quotes it: control characters spelled out.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out += "\\n",
            '\t' => out += "\\t",
            '\r' => out += "\\r",
            c if c.is_control() && c.is_ascii() => out += &format!("\\x{:02x}", u32::from(c)),
            c if c.is_control() => out += &format!("\\u{:04x}", u32::from(c)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

impl<'a> Listing<'a> {
    fn new(store: &'a Store, wanted: &'a Wanted) -> Self {
        Self {
            store,
            wanted,
            now: Moment::now(),
            images: OnceCell::new(),
            sizes: OnceCell::new(),
            freezer: OnceCell::new(),
            buffer: std::cell::RefCell::new(vec![0; 4096]),
        }
    }

    /// None: it is gone meanwhile.
    fn row(&self, id: Id) -> Result<Option<Row>> {
        match rustix::fs::openat(self.store.dir(), id.to_string(), DIRECTORY, Mode::empty()) {
            Ok(dir) => Ok(Some(Row { id, dir, life: OnceCell::new(), config: OnceCell::new() })),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            Err(e) => Err(self.store.fail("open", &id.to_string())(to_nix(e))),
        }
    }

    /// All that an open file has, most often by one call.
    fn content(&self, file: &OwnedFd) -> rustix::io::Result<Vec<u8>> {
        let mut buffer = self.buffer.borrow_mut();
        let mut all = Vec::new();
        loop {
            match rustix::io::read(file, &mut buffer[..]) {
                Ok(read) => {
                    all.extend_from_slice(&buffer[..read]);
                    if read < buffer.len() || all.len() >= MAX_TEXT {
                        return Ok(all);
                    }
                }
                Err(Errno::INTR) => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// A file beside `rootfs` without its last line break; empty if there is none, or it is no file.
    fn text(&self, row: &Row, name: &str) -> String {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let bytes = rustix::fs::openat(&row.dir, name, flags, Mode::empty()).and_then(|file| self.content(&file));
        let mut text = String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned();
        if text.ends_with('\n') {
            text.pop();
        }
        text
    }

    fn life(&self, row: &Row) -> Result<Life> {
        if let Some(life) = row.life.get() {
            return Ok(*life);
        }
        let fail = |e| self.store.fail("look at", &format!("{}/status", row.id))(to_nix(e));
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let times = |file: &OwnedFd| {
            let stat = rustix::fs::statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::BTIME | StatxFlags::MTIME)?;
            let moment = |time: rustix::fs::StatxTimestamp| Moment { seconds: time.tv_sec, nanos: time.tv_nsec };
            Ok((moment(stat.stx_btime), moment(stat.stx_mtime)))
        };
        let life = match rustix::fs::openat(&row.dir, "status", flags, Mode::empty()) {
            // Of an older bocker, and never started.
            Err(Errno::NOENT) => {
                let (created, changed) = times(&row.dir).map_err(&fail)?;
                Life { created, changed, state: State::Created, locked: false, pid: None, exit: None }
            }
            file => {
                let file = file.map_err(fail)?;
                // Made with the container, and written when it begins and when it ends.
                let (created, changed) = times(&file).map_err(fail)?;
                let locked = match rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared) {
                    Ok(()) => false,
                    Err(Errno::WOULDBLOCK) => true,
                    Err(e) => return Err(fail(e)),
                };
                let text = String::from_utf8_lossy(&self.content(&file).map_err(fail)?).into_owned();
                let number = |word| text.strip_prefix(word)?.trim().parse().ok();
                let (pid, exit) = (number("running ").filter(|_| locked), number("exited ").filter(|_| !locked));
                let state = match (locked, text.is_empty()) {
                    (true, _) if self.is_frozen(row.id) => State::Paused,
                    (true, _) => State::Running,
                    (false, true) => State::Created,
                    (false, false) => State::Exited,
                };
                Life { created, changed, state, locked, pid, exit }
            }
        };
        let _ = row.life.set(life);
        Ok(life)
    }

    /// Whether the cgroup of this id is frozen: `freezer.state` of version 1, `cgroup.events` of version 2. Where neither is
    /// to be read it is not.
    #[expect(clippy::disallowed_methods, reason = "the kernel's own directory, and names that are ours")]
    fn is_frozen(&self, id: Id) -> bool {
        let freezer = self.freezer.get_or_init(|| {
            let open = |dir| rustix::fs::open(dir, DIRECTORY, Mode::empty()).ok();
            let one = open(self.wanted.cgroups.join("freezer")).map(|dir| (dir, "freezer.state", "FROZEN"));
            one.or_else(|| open(self.wanted.cgroups.clone()).map(|dir| (dir, "cgroup.events", "frozen 1")))
        });
        let Some((dir, file, word)) = freezer else { return false };
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let bytes =
            rustix::fs::openat(dir, format!("{id}/{file}"), flags, Mode::empty()).and_then(|file| self.content(&file));
        String::from_utf8_lossy(&bytes.unwrap_or_default()).lines().any(|line| line == *word)
    }

    fn name(&self, row: &Row) -> String {
        let name = self.text(row, "name");
        if name.is_empty() { row.id.to_string() } else { name }
    }

    /// A name of the image, else its id.
    fn image(&self, row: &Row) -> Result<String> {
        if self.images.get().is_none() {
            let mut names = HashMap::new();
            for (name, id) in self.store.image_names()? {
                names.entry(id).or_insert_with(|| name.familiar());
            }
            let _ = self.images.set(names);
        }
        let image = self.text(row, "image");
        let known = image.parse().ok().and_then(|id: Id| self.images.get()?.get(&id).cloned());
        Ok(known.unwrap_or(image))
    }

    fn config<'b>(&self, row: &'b Row, key: &str) -> Option<&'b Map<String, Value>> {
        let config = row.config.get_or_init(|| serde_json::from_str(&self.text(row, "config")).unwrap_or_default());
        config.get("config")?.get(key)?.as_object()
    }

    /// The image's, and those that were given.
    fn labels(&self, row: &Row) -> BTreeMap<String, String> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let images = self.config(row, "Labels").into_iter().flatten().map(|(key, value)| (key.clone(), text(value)));
        let mut labels: BTreeMap<_, _> = images.collect();
        for line in self.text(row, "labels").lines() {
            let (key, value) = line.split_once('=').unwrap_or((line, ""));
            labels.insert(key.to_owned(), value.to_owned());
        }
        labels
    }

    fn mounts(&self, row: &Row) -> Vec<Mount> {
        mounts(&self.store.path, &self.text(row, WORDS), &self.text(row, VOLUMES))
    }

    /// Bytes of its own, and those with what it shares.
    fn size(&self, row: &Row) -> Result<String> {
        if self.sizes.get().is_none() {
            let usage = Usage::of(self.store)?;
            let sizes = usage.each().into_iter().map(|(name, alone, shared)| (name.to_owned(), (alone, shared)));
            let _ = self.sizes.set(sizes.collect());
        }
        let (alone, shared) =
            self.sizes.get().and_then(|sizes| sizes.get(&row.id.to_string())).copied().unwrap_or_default();
        Ok(format!("{} (virtual {})", human_size(alone), human_size(alone + shared)))
    }

    fn value(&self, row: &Row, field: Field) -> Result<String> {
        let full = self.wanted.no_trunc;
        Ok(match field {
            Field::Id => row.id.to_string(),
            Field::Names => self.name(row),
            Field::Image => self.image(row)?,
            Field::Command => {
                let command = self.text(row, "cmd");
                quoted(&if full { command } else { ellipsis(&command, 20) })
            }
            Field::CreatedAt => {
                let date = date(self.life(row)?.created.seconds).replace('T', " ");
                format!("{} +0000 UTC", date.trim_end_matches('Z'))
            }
            Field::RunningFor => format!("{} ago", human(self.now.seconds - self.life(row)?.created.seconds)),
            Field::Ports => {
                if self.life(row)?.locked {
                    self.ports(row)
                } else {
                    String::new()
                }
            }
            Field::State => self.life(row)?.state.word().to_owned(),
            Field::Status => self.life(row)?.status(self.now),
            Field::Size => self.size(row)?,
            Field::Labels => {
                self.labels(row).iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
            }
            Field::Mounts => {
                let mounts = self.mounts(row);
                let names = mounts.iter().filter_map(Mount::name);
                names.map(|name| if full { name.to_owned() } else { ellipsis(name, 15) }).collect::<Vec<_>>().join(",")
            }
            // docker lists none for one that shares another's.
            Field::Networks if has_namespace(row.id) => {
                let words = self.network(row);
                words.networks().filter(|one| !one.contains(':')).collect::<Vec<_>>().join(",")
            }
            Field::Networks => String::new(),
        })
    }

    fn network(&self, row: &Row) -> Words {
        Words::read(self.text(row, NETWORK).as_bytes())
    }

    /// As docker: where it is published, then what else the image or `--expose` says that it listens on.
    fn ports(&self, row: &Row) -> String {
        let lines = live_ports(row.id);
        let published = published(&lines);
        let image = self.config(row, "ExposedPorts").into_iter().flatten().map(|(port, _)| port.clone());
        let own = self.network(row);
        let own =
            own.values("expose").map(|port| if port.contains('/') { port.to_owned() } else { format!("{port}/tcp") });
        let mut all: Vec<String> = published.iter().map(|(at, port)| format!("{at}->{port}")).collect();
        for port in image.chain(own) {
            if !all.contains(&port) && !published.iter().any(|(_, one)| *one == port) {
                all.push(port);
            }
        }
        all.join(", ")
    }

    /// docker's object. Without sizes: for those all metadata of the store is read.
    fn docker_object(&self, row: &Row) -> Result<Value> {
        let mut object = Map::new();
        for (field, name, _) in FIELDS.iter().filter(|(field, ..)| *field != Field::Size) {
            object.insert((*name).to_owned(), self.value(row, *field)?.into());
        }
        Ok(object.into())
    }

    fn object(&self, row: &Row) -> Result<Value> {
        let life = self.life(row)?;
        let mounts: Vec<_> = self
            .mounts(row)
            .iter()
            .map(|one| json!({ "type": one.kind(), "source": one.name(), "destination": one.to, "readonly": one.read_only }))
            .collect();
        Ok(json!({
            "id": row.id.to_string(),
            "name": self.name(row),
            "image": self.text(row, "image"),
            "command": self.text(row, "cmd"),
            "created": date(life.created.seconds),
            "state": life.state.word(),
            "status": life.status(self.now),
            "running": life.locked,
            "pid": life.pid,
            "exit": life.exit,
            "oom_killed": !life.locked && !self.text(row, OOM).is_empty(),
            "labels": self.labels(row),
            "mounts": mounts,
        }))
    }

    fn render(&self, row: &Row, template: &Template<Field>) -> Result<String> {
        let mut out = String::new();
        for piece in template {
            match piece {
                Piece::Text(text) => out += text,
                Piece::Field(field) => out += &printable(&self.value(row, *field)?),
                Piece::Label(key) => out += &printable(&self.labels(row).remove(key).unwrap_or_default()),
                Piece::Json(field) => out += &Value::from(self.value(row, *field)?).to_string(),
                Piece::JsonAll => out += &self.docker_object(row)?.to_string(),
            }
        }
        out.push('\n');
        Ok(out)
    }
}

/// What bocker-net has written down while it publishes ports, `tcp\t0.0.0.0:8080\t10.0.0.45:80` each.
#[expect(clippy::disallowed_methods, reason = "a name that follows from the id, in the host's own directory")]
fn live_ports(id: Id) -> String {
    std::fs::read_to_string(format!("/run/bocker-net/{id}/ports")).unwrap_or_default()
}

/// The host's address, and the container's port as docker has it.
fn published(lines: &str) -> Vec<(&str, String)> {
    let all = lines.lines().map(|line| line.split('\t').collect::<Vec<_>>());
    all.filter_map(|words| match words[..] {
        [protocol, at, to] => Some((at, format!("{}/{protocol}", to.rsplit_once(':')?.1))),
        _ => None,
    })
    .collect()
}

/// Whether bocker-net has given it a network: the namespace's name is there.
#[expect(clippy::disallowed_methods, reason = "a name that follows from the id, in the host's own directory")]
fn has_namespace(id: Id) -> bool {
    std::path::Path::new("/run/netns").join(id.netns()).exists()
}

/// What the filters compare with, looked up once.
#[derive(Debug, Default)]
struct Known {
    /// When containers that were named were made.
    made: HashMap<String, Moment>,
    /// Images that were named, and their uppermost layers.
    ancestors: HashMap<String, (Id, Option<String>)>,
}

impl Known {
    fn of(listing: &Listing<'_>, filters: &[Filter]) -> Result<Self> {
        let mut known = Self::default();
        for filter in filters {
            match filter {
                Filter::Ancestor(name) => {
                    // As docker: of an image that is not there comes nothing.
                    let Ok(id) = listing.store.find(Kind::Image, name) else { continue };
                    let layers = listing.store.text(id, "layers");
                    let top = String::from_utf8_lossy(&layers).lines().last().map(str::to_owned);
                    known.ancestors.insert(name.clone(), (id, top));
                }
                Filter::Before(name) | Filter::Since(name) => {
                    let id = listing.store.find(Kind::Container, name)?;
                    let row = listing.row(id)?.ok_or_else(|| no_such(Kind::Container, name))?;
                    known.made.insert(name.clone(), listing.life(&row)?.created);
                }
                _ => {}
            }
        }
        Ok(known)
    }

    fn holds(&self, listing: &Listing<'_>, row: &Row, filter: &Filter) -> Result<bool> {
        Ok(match filter {
            Filter::Id(part) => row.id.to_string().contains(part),
            Filter::Name(pattern) => name_matches(&listing.name(row), pattern),
            Filter::Label(key, None) => listing.labels(row).contains_key(key),
            Filter::Label(key, Some(value)) => listing.labels(row).get(key) == Some(value),
            Filter::Exited(status) => listing.life(row)?.exit == Some(*status),
            Filter::Status(state) => Some(listing.life(row)?.state) == *state,
            Filter::Volume(volume) => {
                listing.mounts(row).iter().any(|one| one.name() == Some(volume) || one.to == *volume)
            }
            Filter::Ancestor(name) => self.ancestors.get(name).is_some_and(|(id, top)| {
                let has = |top| listing.text(row, "layers").lines().any(|layer| layer == top);
                listing.text(row, "image") == id.to_string() || top.as_deref().is_some_and(has)
            }),
            Filter::Before(name) => {
                let created = listing.life(row)?.created;
                self.made.get(name).is_some_and(|made| created < *made)
            }
            Filter::Since(name) => {
                let created = listing.life(row)?.created;
                self.made.get(name).is_some_and(|made| created > *made)
            }
        })
    }

    /// The values of one key are alternatives, but each label and each time must hold; and so must all keys.
    fn takes(&self, listing: &Listing<'_>, row: &Row, filters: &[Filter]) -> Result<bool> {
        for filter in filters {
            let each = matches!(filter, Filter::Label(..) | Filter::Before(_) | Filter::Since(_));
            let mut holds = false;
            for other in filters.iter().filter(|other| discriminant(*other) == discriminant(filter)) {
                holds |= (!each || other == filter) && self.holds(listing, row, other)?;
            }
            if !holds {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// `ps`.
pub(crate) fn ps(store: &Store, wanted: &Wanted) -> Result<()> {
    let form = Form::of(wanted)?;
    let listing = Listing::new(store, wanted);
    let known = Known::of(&listing, &wanted.filter)?;
    let last = if wanted.latest { Some(1) } else { wanted.last };
    let mut out = match &form {
        Form::Original => "CONTAINER_ID\t\tCOMMAND\n".to_owned(),
        Form::Docker { template, table: true } => heading(template) + "\n",
        _ => String::new(),
    };
    let show = |row: &Row| -> Result<String> {
        Ok(match &form {
            Form::Ids => format!("{}\n", row.id),
            Form::Original => format!("{}\t\t{}\n", row.id, printable(&listing.text(row, "cmd"))),
            Form::Json => format!("{}\n", listing.object(row)?),
            Form::Docker { template, .. } => listing.render(row, template)?,
        })
    };
    let mut made = Vec::new();
    for id in store.list(Kind::Container)? {
        if matches!(form, Form::Ids) && wanted.filter.is_empty() && last.is_none() {
            out += &format!("{id}\n");
            continue;
        }
        // One at a time: each has a descriptor.
        let Some(row) = listing.row(id)? else { continue };
        if !known.takes(&listing, &row, &wanted.filter)? {
            continue;
        }
        if last.is_some() {
            made.push((listing.life(&row)?.created, id));
        } else {
            out += &show(&row)?;
        }
    }
    made.sort_unstable();
    for (_, id) in made.iter().rev().take(last.unwrap_or_default()) {
        if let Some(row) = listing.row(*id)? {
            out += &show(&row)?;
        }
    }
    if matches!(form, Form::Docker { table: true, .. }) {
        out = columns(&out);
    }
    print(out.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters() {
        for (text, expected) in [
            ("id=ps_4", Filter::Id("ps_4".into())),
            ("name=^/web$", Filter::Name("^/web$".into())),
            ("label=a", Filter::Label("a".into(), None)),
            ("label=a=b=c", Filter::Label("a".into(), Some("b=c".into()))),
            ("exited=137", Filter::Exited(137)),
            ("status=paused", Filter::Status(Some(State::Paused))),
            ("status=dead", Filter::Status(None)),
            ("volume=/data", Filter::Volume("/data".into())),
        ] {
            assert_eq!(filter(text), Ok(expected), "{text}");
        }
        for text in ["", "x", "x=y", "exited=", "exited=x", "status=up", "name=a.*b", "name=(a)", "ID=x"] {
            assert!(filter(text).is_err_and(|error| !error.contains('\n')), "{text}");
        }
    }

    #[test]
    fn names_as_dockers_patterns() {
        for (pattern, matches) in [
            ("web", [true, true, true]),
            ("^web", [true, true, false]),
            ("^/web$", [true, false, false]),
            ("/web", [true, true, false]),
            ("web$", [true, false, true]),
            ("", [true, true, true]),
        ] {
            assert_eq!(["web", "web2", "myweb"].map(|name| name_matches(name, pattern)), matches, "{pattern}");
        }
    }

    #[test]
    fn published_ports_as_dockers() {
        let lines = "tcp\t0.0.0.0:8080\t10.0.0.45:80\nudp\t[::1]:53\t[fd00::2d]:53\n\nx\ty\n";
        let expected = [("0.0.0.0:8080", "80/tcp".to_owned()), ("[::1]:53", "53/udp".to_owned())];
        assert_eq!(published(lines), expected);
    }

    #[test]
    fn sizes_and_quotes_as_dockers() {
        for (bytes, text) in [
            (0, "0B"),
            (999, "999B"),
            (1090, "1.09kB"),
            (1000, "1kB"),
            (4_260_000, "4.26MB"),
            (12_340_000, "12.3MB"),
            (126_000_000, "126MB"),
            (1 << 60, "1153PB"),
        ] {
            assert_eq!(human_size(bytes), text);
        }
        assert_eq!(quoted("a\"b\\\n\u{1b}\u{9b}é"), "\"a\\\"b\\\\\\n\\x1b\\u009bé\"");
        assert_eq!(ellipsis("12345678901234567890", 20), "12345678901234567890");
        assert_eq!(ellipsis("123456789012345678901", 20), "1234567890123456789…");
    }

    #[test]
    fn headings_are_dockers() {
        let of = |text| heading(&parse(text, field).unwrap());
        assert_eq!(of(TABLE), "CONTAINER ID\tIMAGE\tCOMMAND\tCREATED\tSTATUS\tPORTS\tNAMES");
        assert_eq!(of("{{.Label \"com.example.my-key\"}} {{.CreatedAt}}"), "my key CREATED AT");
    }

    #[test]
    fn what_is_known_of_a_life() {
        let now = Moment { seconds: 1000, nanos: 0 };
        let then = Moment { seconds: 880, nanos: 0 };
        let life = |state, exit| Life { created: then, changed: then, state, locked: false, pid: None, exit };
        assert_eq!(life(State::Created, None).status(now), "Created");
        assert_eq!(life(State::Running, None).status(now), "Up 2 minutes");
        assert_eq!(life(State::Paused, None).status(now), "Up 2 minutes (Paused)");
        assert_eq!(life(State::Exited, Some(3)).status(now), "Exited (3) 2 minutes ago");
        assert_eq!(life(State::Exited, None).status(now), "Exited (unknown)");
    }
}
