//! What a container remembers: what it was started with, as text files beside `rootfs`, for whoever starts it again or
//! asks for it.
//!
//! `labels`, `limits` and `network` hold a `KEY=VALUE` a line, `life` a word a line, `words` what `bocker-exec` is told: options, then
//! `--` and the command where there is one, a word a line, `\` as `\\` and a line break as `\n`. `volumes` holds a volume's
//! name a line, a tab, and where it is: `DST[:OPTS]`, written as words are; then a tab and `nameless` if nobody chose the name.

use std::ffi::{OsStr, OsString};
use std::fmt::Display;
use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use bocker_common::diag::{Reason, USAGE};
use bocker_common::say::Explain;
use bocker_common::words::{escape, unescape};
use bocker_common::{Error, Id, Kind, Result};

use clap::Parser;
use serde_json::{Map, Value};

use crate::called::{NAME, Name};
use crate::network;
use crate::store::{NEW, Step, Store, short};
use crate::sys::INLINE;
use crate::volumes::{self, VOLUMES, Volume};

/// The file of the labels.
pub const LABELS: &str = "labels";
/// The file of the limits.
pub const LIMITS: &str = "limits";
/// The file of what bocker-net is told.
pub const NETWORK: &str = "network";
/// What `bocker-cg delete --record` writes when the kernel has killed processes of it for want of memory, a line.
pub const OOM: &str = "oom";
/// The file of the words.
pub const WORDS: &str = "words";
/// The file that says how the container ends.
pub const LIFE: &str = "life";
/// In it: the container goes when it has ended, and its volumes without a chosen name go with it.
pub const AUTO_REMOVE: &str = "rm";
/// After a second tab in `volumes`: nobody chose the volume's name.
const NAMELESS: &str = "nameless";
/// What lies before the command in `words`.
const MARK: &[u8] = b"--";

/// What `snapshot` is told to remember.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct Remembered {
    /// Its name, one of a kind among containers
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// A label; given twice the last one counts
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    labels: Vec<String>,
    /// A limit for bocker-cg
    #[arg(long = "limit", value_name = "KEY=VALUE", value_parser = limit)]
    limits: Vec<String>,
    /// A word for bocker-net, as --net=publish=8080:80
    #[arg(long = "net", value_name = "KEY=VALUE", value_parser = net)]
    network: Vec<String>,
    /// An option for bocker-exec, as --word=--env=A=1
    #[arg(long, value_name = "WORD", allow_hyphen_values = true)]
    word: Vec<OsString>,
    /// A volume, made if it is not there, and where it is inside; without a name it gets one. OPTS: ro, rw, nocopy, z, Z,
    /// shared, slave, private, rshared, rslave, rprivate
    #[arg(long = "volume", value_name = "[NAME:]DST[:OPTS]")]
    volumes: Vec<String>,
    /// The volumes and binds of another container
    #[arg(long, value_name = "CONTAINER[:ro|rw]")]
    volumes_from: Vec<String>,
    /// It goes when it has ended (rm --auto), and its volumes without a chosen name go with it
    #[arg(long)]
    auto_remove: bool,
    /// More of these options from stdin, each with a NUL after it, as if typed first: on a command line all users could read them
    #[arg(long = "words", value_name = "-", value_parser = ["-"], hide_possible_values = true)]
    stdin: Option<String>,
}

/// Those of stdin.
#[derive(Debug, clap::Parser)]
struct Told {
    #[command(flatten)]
    remembered: Remembered,
}

/// More than the kernel takes as arguments, execve(2).
const MOST: u64 = 4 << 20;

fn line(text: &str) -> Result<&str, String> {
    if text.contains('\n') { Err("it is one line, and this has several".into()) } else { Ok(text) }
}

/// `KEY=VALUE`; without `=` the value is empty, as docker has it.
fn label(text: &str) -> Result<String, String> {
    let text = line(text)?;
    if text.is_empty() || text.starts_with('=') {
        return Err("a label has a key".into());
    }
    Ok(if text.contains('=') { text.to_owned() } else { format!("{text}=") })
}

/// `KEY=VALUE`, which bocker-cg knows the meaning of.
pub(crate) fn limit(text: &str) -> Result<String, String> {
    match line(text)?.split_once('=') {
        Some((key, value)) if !key.is_empty() && !value.is_empty() => Ok(text.to_owned()),
        _ => Err("a limit is KEY=VALUE".into()),
    }
}

/// `KEY=VALUE`, which bocker-net knows the meaning of.
fn net(text: &str) -> Result<String, String> {
    limit(text).map_err(|_| "KEY=VALUE on one line is wanted".into())
}

/// A volume in a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mount {
    pub(crate) volume: Volume,
    /// Where, absolute, without `.` and `..`.
    pub(crate) at: String,
    /// As given, `ro,nocopy`.
    pub(crate) options: String,
    /// Nobody chose its name, here or for the container that it is shared with: it goes with the last one that has it.
    pub(crate) nameless: bool,
    /// What it gets if it is empty, a path without links in the image. Of one that is shared nothing is known.
    from: Option<String>,
}

impl Mount {
    /// Reads `[NAME:]DST[:OPTS]`.
    fn read(text: &str) -> Result<Self> {
        let wrong = |why: &str| {
            Error::plain(format!("--volume '{}': {why}", short(text))).hint("as in data:/var/lib/data:ro").status(USAGE)
        };
        // What begins with a slash has no name.
        let (name, rest) = if text.starts_with('/') {
            (None, text)
        } else {
            let (name, rest) = text.split_once(':').ok_or_else(|| wrong("there is no place inside"))?;
            (Some(name), rest)
        };
        let (at, options) = rest.split_once(':').unwrap_or((rest, ""));
        let volume = name.map_or_else(|| Ok(Volume::anonymous()), str::parse)?;
        let at = place(at).map_err(wrong)?;
        if let Some(unknown) = options.split(',').find(|option| !options.is_empty() && !OPTIONS.contains(option)) {
            return Err(wrong(&format!("'{unknown}' is no option of a volume")));
        }
        Ok(Self { volume, at, options: options.to_owned(), nameless: name.is_none(), from: None })
    }

    fn nameless(at: String) -> Self {
        Self { volume: Volume::anonymous(), at, options: String::new(), nameless: true, from: None }
    }

    /// `DST[:OPTS]`
    pub(crate) fn inside(&self) -> String {
        if self.options.is_empty() { self.at.clone() } else { format!("{}:{}", self.at, self.options) }
    }

    pub(crate) fn has(&self, option: &str) -> bool {
        self.options.split(',').any(|one| one == option)
    }
}

/// Options of a volume, as docker and podman have them.
const OPTIONS: [&str; 11] =
    ["ro", "rw", "nocopy", "z", "Z", "shared", "slave", "private", "rshared", "rslave", "rprivate"];

/// The path in its one spelling. A colon would part it from what follows, in a word and in a line.
fn place(path: &str) -> Result<String, &'static str> {
    let parts: Vec<_> = path.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    if !path.starts_with('/') {
        return Err("the place inside is no absolute path");
    }
    // CVE-2022-23648: an image's volume at /../../../etc was filled from the host's /etc.
    if parts.contains(&"..") {
        return Err("a path with '..'");
    }
    if parts.is_empty() {
        return Err("the root directory itself");
    }
    if path.contains([':', '\t', '\0']) || path.len() > 4000 {
        return Err("a path with ':' or a tab, or of more than 4000 bytes");
    }
    Ok(format!("/{}", parts.join("/")))
}

/// Words as the text of a file.
pub(crate) fn text_of<'a>(words: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    words.into_iter().flat_map(|word| [escape(word), vec![b'\n']].concat()).collect()
}

/// Lines of a file without their ends.
pub(crate) fn lines_of(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|b| *b == b'\n').filter(|line| !line.is_empty())
}

/// Words for `bocker-exec`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Words {
    pub(crate) options: Vec<OsString>,
    pub(crate) command: Vec<OsString>,
}

impl Words {
    /// What the file's text says; None if it is no such text.
    fn read(text: &[u8]) -> Option<Self> {
        if text.is_empty() {
            return Some(Self::default());
        }
        let lines = text.strip_suffix(b"\n").unwrap_or(text).split(|b| *b == b'\n');
        let words: Vec<_> = lines.map(|line| unescape(line).map(OsString::from_vec)).collect::<Option<_>>()?;
        let mark = words.iter().position(|word| word.as_bytes() == MARK).unwrap_or(words.len());
        Some(Self { options: words[..mark].to_vec(), command: words.get(mark + 1..).unwrap_or_default().to_vec() })
    }

    fn text(&self) -> Vec<u8> {
        let mark = (!self.command.is_empty()).then_some(MARK);
        let (options, command) = (self.options.iter(), self.command.iter());
        text_of(options.map(|word| word.as_bytes()).chain(mark).chain(command.map(|word| word.as_bytes())))
    }
}

/// Where a word for bocker-exec mounts something, if it does.
fn covered(word: &OsStr) -> Option<String> {
    let word = word.to_str()?;
    if let Some(volume) = word.strip_prefix("--volume=") {
        return place(volume.split(':').nth(1)?).ok();
    }
    if let Some(tmpfs) = word.strip_prefix("--tmpfs=") {
        return place(tmpfs.split(':').next()?).ok();
    }
    let fields = word.strip_prefix("--mount=")?.split(',').filter_map(|field| field.split_once('='));
    let mut at = fields.filter(|(key, _)| matches!(*key, "target" | "dst" | "destination"));
    place(at.next()?.1).ok()
}

/// A bind of another container's, changed by `:ro` or `:rw`; None if the word is none.
fn bind(word: &OsStr, mode: &str) -> Option<OsString> {
    let text = word.to_str()?;
    if let Some(volume) = text.strip_prefix("--volume=") {
        let mut parts = volume.splitn(3, ':');
        let (from, at, options) = (parts.next()?, parts.next()?, parts.next().unwrap_or_default());
        let options = with_mode(options, mode);
        let end = if options.is_empty() { String::new() } else { format!(":{options}") };
        return Some(format!("--volume={from}:{at}{end}").into());
    }
    let mount = text.strip_prefix("--mount=").filter(|mount| mount.split(',').any(|field| field == "type=bind"))?;
    let ro = |field: &&str| {
        let key = field.split('=').next().unwrap_or_default();
        !matches!(key, "readonly" | "ro")
    };
    let mut fields: Vec<_> = mount.split(',').filter(|field| mode.is_empty() || ro(field)).collect();
    fields.extend((mode == "ro").then_some("readonly"));
    Some(format!("--mount={}", fields.join(",")).into())
}

fn with_mode(options: &str, mode: &str) -> String {
    let given = options.split(',').filter(|option| !option.is_empty());
    let kept = given.filter(|option| mode.is_empty() || !matches!(*option, "ro" | "rw"));
    kept.chain((!mode.is_empty()).then_some(mode)).collect::<Vec<_>>().join(",")
}

/// What a container is to remember, thought through.
#[derive(Debug, Default)]
pub(crate) struct Record {
    pub(crate) name: Option<Name>,
    labels: Vec<String>,
    limits: Vec<String>,
    network: network::Words,
    words: Words,
    auto_remove: bool,
    pub(crate) mounts: Vec<Mount>,
    /// Whose volumes it shares.
    pub(crate) shares: Vec<Id>,
}

impl Remembered {
    /// Whether bocker-exec is told nothing else than to give it users of its own.
    pub(crate) fn own_users(&self) -> bool {
        !self.word.iter().any(|word| word == "--userns=host" || word == "--privileged")
    }

    /// With what stdin has, where it was asked for.
    ///
    /// # Errors
    /// One line: it cannot be read, is longer than 4 MiB, or holds what is no option of these.
    pub(crate) fn with_stdin(self) -> Result<Self> {
        if self.stdin.is_none() {
            return Ok(self);
        }
        let fail = |why: Reason| Error::new("read", "--words -", why);
        let mut bytes = Vec::new();
        std::io::stdin().lock().take(MOST + 1).read_to_end(&mut bytes).map_err(|e| fail(e.into()))?;
        if bytes.len() as u64 > MOST {
            return Err(fail("longer than 4 MiB".into()));
        }
        Self::told(&bytes).map(|told| told.and(self))
    }

    fn told(bytes: &[u8]) -> Result<Self> {
        let wrong = |why: &str| Error::plain(format!("--words -: {why}")).status(USAGE);
        let text = bytes.strip_suffix(b"\0").unwrap_or(bytes);
        if text.len() == bytes.len() && !bytes.is_empty() {
            return Err(wrong("cut off: no NUL at the end"));
        }
        let words = text.split(|b| *b == 0).filter(|_| !bytes.is_empty()).map(OsStr::from_bytes);
        let all = std::iter::once(OsStr::new("--words -")).chain(words);
        // Not what was typed: it is not for others to read.
        Told::try_parse_from(all)
            .map(|told| told.remembered)
            .map_err(|_| wrong("that is no option of snapshot's with its value, as --label=a=b"))
    }

    /// Of two that there is one of, the other's.
    fn and(mut self, other: Self) -> Self {
        self.labels.extend(other.labels);
        self.limits.extend(other.limits);
        self.network.extend(other.network);
        self.word.extend(other.word);
        self.volumes.extend(other.volumes);
        self.volumes_from.extend(other.volumes_from);
        Self { name: other.name.or(self.name), auto_remove: self.auto_remove || other.auto_remove, stdin: None, ..self }
    }

    /// What comes of it with the image, the paths of its `Volumes`, and the command as it was typed.
    pub(crate) fn plan(
        self,
        store: &Store,
        image: Id,
        image_volumes: &[String],
        command: &[OsString],
    ) -> Result<Record> {
        let mut record = Record {
            auto_remove: self.auto_remove,
            limits: self.limits,
            network: network::Words(self.network),
            ..Record::default()
        };
        record.name = self.name.map(|name| name.parse()).transpose()?;
        // Said before anything is made, where it is known already.
        if let Some(name) = &record.name
            && let Some(other) = store.called(name)?
        {
            return Err(crate::called::taken(name, other));
        }
        record.name.iter().for_each(|name| record.network.call(name));
        for label in self.labels {
            let key = |label: &str| label.split('=').next().map(str::to_owned);
            record.labels.retain(|one| key(one) != key(&label));
            record.labels.push(label);
        }
        if let Some(word) = self.word.iter().find(|word| word.as_bytes() == MARK || !word.as_bytes().starts_with(b"-"))
        {
            let shown = word.to_string_lossy();
            return Err(Error::plain(format!("--word '{}' is no option", short(&shown)))
                .hint("the command comes after the image's --")
                .status(USAGE));
        }
        record.words = Words { options: self.word, command: command.to_vec() };
        for volume in &self.volumes {
            let mount = Mount::read(volume)?;
            if record.covers(&mount.at) {
                return Err(Error::plain(format!("two mounts at '{}'", short(&mount.at))).status(USAGE));
            }
            record.mounts.push(mount);
        }
        let own = record.mounts.len();
        for other in &self.volumes_from {
            record.share(store, other)?;
        }
        let shared = own..record.mounts.len();
        for path in image_volumes {
            let wrong = |why| Error::plain(format!("the image's volume '{}': {why}", short(path)));
            let at = place(path).map_err(wrong)?;
            if !record.covers(&at) {
                record.mounts.push(Mount::nameless(at));
            }
        }
        if !record.mounts.is_empty() && store.path.as_os_str().as_bytes().contains(&b':') {
            return Err(Error::plain(format!(
                "use {}: there is a ':' in its name, and volumes are told with one",
                store.path.display()
            ))
            .hint("another BOCKER_ROOT"));
        }
        for (at, mount) in record.mounts.iter_mut().enumerate() {
            // Shared ones are as the other container left them, as docker has it.
            if !shared.contains(&at) && !mount.has("nocopy") {
                mount.from = store.real_path(image, &mount.at)?;
            }
        }
        let words: Vec<_> = record.mounts.iter().map(|mount| mount.word(store)).collect();
        record.words.options.extend(words);
        Ok(record)
    }
}

impl Mount {
    fn word(&self, store: &Store) -> OsString {
        let mut word = OsString::from("--volume=");
        word.push(store.mountpoint(&self.volume));
        word.push(":");
        word.push(self.inside());
        word
    }
}

impl Record {
    fn covers(&self, at: &str) -> bool {
        self.mounts.iter().any(|mount| mount.at == at)
            || self.words.options.iter().any(|word| covered(word).as_deref() == Some(at))
    }

    /// The volumes and binds of another container, `CONTAINER[:ro|rw]`, where nothing of its own is.
    fn share(&mut self, store: &Store, other: &str) -> Result<()> {
        let (name, mode) = other.split_once(':').unwrap_or((other, ""));
        if !matches!(mode, "" | "ro" | "rw") {
            return Err(Error::plain(format!("--volumes-from '{}': ro or rw", short(other))).status(USAGE));
        }
        let id = store.find(Kind::Container, name)?;
        self.shares.push(id);
        let theirs = mounts(store, id);
        for mount in &theirs {
            if !self.covers(&mount.at) {
                let options = with_mode(&mount.options, mode);
                self.mounts.push(Mount { options, ..mount.clone() });
            }
        }
        for word in words(store, id).unwrap_or_default().options {
            if let Some(at) = covered(&word)
                && !theirs.iter().any(|mount| mount.at == at)
                && !self.covers(&at)
            {
                self.words.options.extend(bind(&word, mode));
            }
        }
        Ok(())
    }

    /// The steps for a container that is being made: its files, then its volumes, and the name last.
    pub(crate) fn steps(&self, new: &str, id: Id) -> Vec<Step> {
        let file = |file: &str, text: Vec<u8>| Step::Write(format!("{new}/{file}"), text);
        let lines = |lines: &[String]| lines.iter().flat_map(|line| [line.as_bytes(), b"\n"].concat()).collect();
        let mut words = self.words.clone();
        // Whoever starts it again knows no other.
        if !words.options.iter().any(|word| word.as_bytes().starts_with(b"--hostname=")) {
            words.options.push(format!("--hostname={id}").into());
        }
        let mut steps = vec![file(WORDS, words.text())];
        steps.extend(self.name.as_ref().map(|name| file(NAME, format!("{name}\n").into())));
        steps.extend((!self.labels.is_empty()).then(|| file(LABELS, lines(&self.labels))));
        steps.extend((!self.limits.is_empty()).then(|| file(LIMITS, lines(&self.limits))));
        steps.extend((!self.network.0.is_empty()).then(|| file(NETWORK, self.network.text())));
        steps.extend(self.auto_remove.then(|| file(LIFE, format!("{AUTO_REMOVE}\n").into())));
        // Before there are any: they are this container's, and go with it if it is never finished.
        steps.extend((!self.mounts.is_empty()).then(|| file(VOLUMES, volumes_text(&self.mounts))));
        for mount in &self.mounts {
            steps.push(Step::Volume(mount.volume.clone()));
            let fill = |from: &String| Step::Fill(mount.volume.clone(), new.to_owned(), from.clone());
            steps.extend(mount.from.as_ref().map(fill));
        }
        steps.extend(self.name.clone().map(|name| Step::Call(name, id)));
        steps
    }
}

impl Record {
    /// What was made for a container that there is not: its volumes without a chosen name, and its own. As far as nobody has
    /// them, and as well as it can be done: gc and `volume prune` take what is left.
    pub(crate) fn forget(&self, store: &Store) {
        let _ = forget_nameless(store, &self.mounts, Explain::default());
        if let Some(name) = &self.name {
            let _ = store.uncall(name);
        }
    }
}

/// Removes those of these volumes whose name nobody chose, as far as no other container has them.
pub(crate) fn forget_nameless(store: &Store, mounts: &[Mount], explain: Explain) -> Result<()> {
    for mount in mounts.iter().filter(|mount| mount.nameless) {
        match volumes::remove_unused(store, &mount.volume, explain) {
            // Somebody else was faster.
            Err(_) if !store.has_volume(&mount.volume)? => {}
            done => drop(done?),
        }
    }
    Ok(())
}

/// The same when the container goes: in words it is there still.
pub(crate) fn remove_nameless(store: &Store, id: Id, mounts: &[Mount], explain: Explain) -> Result<()> {
    if !explain.dry_run {
        return forget_nameless(store, mounts, explain);
    }
    for mount in mounts.iter().filter(|mount| mount.nameless) {
        if store.has_volume(&mount.volume)? && store.users_of(&mount.volume)? == [id] {
            volumes::remove(store, &mount.volume, explain)?;
        }
    }
    Ok(())
}

/// The same of a container that a crash left half-made and that is gone. The store is locked.
pub(crate) fn sweep_nameless(
    store: &Store,
    mounts: &[Mount],
    explain: Explain,
    mut told: impl FnMut(&str) -> Result<()>,
) -> Result<usize> {
    let mut count = 0;
    for mount in mounts.iter().filter(|mount| mount.nameless) {
        if store.has_volume(&mount.volume)? && store.user_of(&mount.volume)?.is_none() {
            volumes::remove(store, &mount.volume, explain)?;
            told(&mount.volume.subvolume())?;
            count += 1;
        }
    }
    Ok(count)
}

/// The configuration of an image that is made of the container, if it is another one than the container's: with its labels,
/// over those of the image it came from, as docker has it.
pub(crate) fn label_image(store: &Store, container: Id) -> Result<Option<Vec<u8>>> {
    let labels = pairs(store, container, LABELS);
    if labels.is_empty() {
        return Ok(None);
    }
    let text = labelled(&store.text(container, "config"), &labels);
    text.ok_or_else(|| Error::new("label", container, "its configuration is none")).map(Some)
}

/// What writes it.
pub(crate) fn config_steps(new: &str, text: &[u8]) -> Vec<Step> {
    let config = format!("{new}/config");
    let mut steps = vec![Step::Forget(vec![config.clone()]), Step::Write(config, text.to_vec())];
    steps.extend((text.len() > INLINE).then_some(Step::Sync));
    steps
}

fn labelled(config: &[u8], labels: &[(String, String)]) -> Option<Vec<u8>> {
    let mut config: Value = serde_json::from_slice(config).ok()?;
    let inner = config.as_object_mut()?.entry("config").or_insert(Value::Null);
    if inner.is_null() {
        *inner = Map::new().into();
    }
    let all = inner.as_object_mut()?.entry("Labels").or_insert(Value::Null);
    if all.is_null() {
        *all = Map::new().into();
    }
    let all = all.as_object_mut()?;
    for (key, value) in labels {
        all.insert(key.clone(), value.clone().into());
    }
    Some(config.to_string().into_bytes())
}

/// The id in a temporary name.
pub(crate) fn id_of(new: &str) -> Option<Id> {
    new.strip_prefix(NEW)?.parse().ok()
}

fn volumes_text(mounts: &[Mount]) -> Vec<u8> {
    let line = |mount: &Mount| {
        let end = if mount.nameless { format!("\t{NAMELESS}\n") } else { "\n".to_owned() };
        [format!("{}\t", mount.volume).into_bytes(), escape(mount.inside().as_bytes()), end.into()].concat()
    };
    mounts.iter().flat_map(line).collect()
}

/// The volumes of a container, with their places; those of which no place is known are left out.
pub(crate) fn mounts(store: &Store, id: impl Display) -> Vec<Mount> {
    let read = |line: &[u8]| {
        let (volume, inside) = std::str::from_utf8(line).ok()?.split_once('\t')?;
        let nameless = inside.strip_suffix(NAMELESS).and_then(|inside| inside.strip_suffix('\t'));
        let inside = String::from_utf8(unescape(nameless.unwrap_or(inside).as_bytes())?).ok()?;
        let (at, options) = inside.split_once(':').unwrap_or((&inside, ""));
        let (at, options) = (at.to_owned(), options.to_owned());
        Some(Mount { volume: volume.parse().ok()?, at, options, nameless: nameless.is_some(), from: None })
    };
    lines_of(&store.text(id, VOLUMES)).filter_map(read).collect()
}

/// What bocker-exec is told for a container; None if the file says nothing that it could be told.
pub(crate) fn words(store: &Store, id: Id) -> Option<Words> {
    Words::read(&store.bytes(id, WORDS))
}

/// Labels or limits of a container.
pub(crate) fn pairs(store: &Store, id: Id, file: &str) -> Vec<(String, String)> {
    let text = store.text(id, file);
    let pair = |line: &[u8]| {
        let text = String::from_utf8_lossy(line).into_owned();
        text.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned()))
    };
    lines_of(&text).filter_map(pair).collect()
}

/// Whether the container goes when it has ended.
pub(crate) fn removes_itself(store: &Store, id: Id) -> bool {
    lines_of(&store.text(id, LIFE)).any(|line| line == AUTO_REMOVE.as_bytes())
}

/// What is wrong with what a container remembers, for fsck.
pub(crate) fn findings(store: &Store, id: Id) -> Vec<String> {
    let mut found = Vec::new();
    if words(store, id).is_none() {
        found.push(format!("its file {WORDS} holds no words"));
    }
    for file in [LABELS, LIMITS, NETWORK] {
        let text = store.text(id, file);
        if lines_of(&text).any(|line| line.iter().position(|b| *b == b'=').unwrap_or(0) == 0) {
            found.push(format!("its file {file} has a line that is not KEY=VALUE"));
        }
    }
    let name = store.text(id, NAME);
    if !name.is_empty() && store.name_of(id).is_none() {
        found.push(format!("its file {NAME} holds no name"));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_lines_and_back() {
        let all = |words: &[&str]| words.iter().map(OsString::from).collect::<Vec<_>>();
        for (options, command) in [
            (all(&[]), all(&[])),
            (all(&["--env=A=1"]), all(&[])),
            (all(&[]), all(&["sh", "-c", "echo a\necho b", ""])),
            (all(&["--env=A=\\n\n\\", "--user=1"]), all(&["--", "-x", "\\", ""])),
        ] {
            let words = Words { options, command };
            assert_eq!(Words::read(&words.text()), Some(words));
        }
        let words = Words { options: all(&["--env=A=a\nb\\"]), command: all(&["c"]) };
        assert_eq!(words.text(), b"--env=A=a\\nb\\\\\n--\nc\n");
        let bytes = Words { options: vec![OsString::from_vec(b"--env=A=\xff\xfe".to_vec())], command: all(&["c"]) };
        assert_eq!(Words::read(&bytes.text()), Some(bytes));
        for text in [&b"a\\\n"[..], b"a\\x\n", b"\\"] {
            assert_eq!(Words::read(text), None, "{text:?}");
        }
    }

    #[test]
    fn volumes_as_they_are_typed() {
        for (text, name, inside) in [
            ("data:/var//lib/./x/", "data", "/var/lib/x"),
            ("data:/x:ro,nocopy", "data", "/x:ro,nocopy"),
            ("0a.b_c-d:/x:rw", "0a.b_c-d", "/x:rw"),
        ] {
            let mount = Mount::read(text).unwrap();
            assert_eq!((mount.volume.to_string().as_str(), mount.inside().as_str()), (name, inside), "{text}");
        }
        let nameless = Mount::read("/x:ro").unwrap();
        assert!(nameless.volume.is_anonymous() && nameless.has("ro") && !nameless.has("r"));
        for text in [
            "",
            "data",
            "data:",
            "data:x",
            "data:/",
            "data:/.",
            "data:/../x",
            "data:/x/..",
            "/",
            "/..",
            "/x:",
            "/x:y",
            "data:/x:ro,",
            "data:/x:ro:rw",
            "data:/x:suid",
            "a:/x",
            "../x:/x",
            ":/x",
            "/host:/x",
        ] {
            // An empty list of options says nothing wrong.
            if text == "/x:" {
                assert_eq!(Mount::read(text).unwrap().inside(), "/x");
                continue;
            }
            assert_eq!(Mount::read(text).unwrap_err().exit_status(), USAGE, "{text:?}");
        }
    }

    #[test]
    fn what_another_word_mounts_is_covered() {
        for (word, at) in [
            ("--volume=/host:/data/", Some("/data")),
            ("--volume=/host:/data:ro", Some("/data")),
            ("--tmpfs=/run//x:size=1m", Some("/run/x")),
            ("--mount=type=tmpfs,target=/t", Some("/t")),
            ("--mount=type=bind,source=/a,dst=/b,readonly", Some("/b")),
            ("--mount=type=bind,source=/a", None),
            ("--volume=/data", None),
            ("--env=A=/data", None),
        ] {
            assert_eq!(covered(OsStr::new(word)).as_deref(), at, "{word}");
        }
    }

    #[test]
    fn binds_of_another_container() {
        for (word, mode, becomes) in [
            ("--volume=/a:/b", "", Some("--volume=/a:/b")),
            ("--volume=/a:/b:rw,z", "ro", Some("--volume=/a:/b:z,ro")),
            ("--volume=/a:/b:ro", "rw", Some("--volume=/a:/b:rw")),
            ("--mount=type=bind,source=/a,target=/b", "ro", Some("--mount=type=bind,source=/a,target=/b,readonly")),
            ("--mount=type=bind,readonly,source=/a,target=/b", "rw", Some("--mount=type=bind,source=/a,target=/b")),
            ("--mount=type=tmpfs,target=/b", "", None),
            ("--tmpfs=/b", "", None),
            ("--env=A=1", "", None),
        ] {
            assert_eq!(bind(OsStr::new(word), mode).as_deref(), becomes.map(OsStr::new), "{word} {mode}");
        }
    }

    #[test]
    fn labels_go_into_the_configuration() {
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let labels = [pair("a", "new"), pair("c", "x=y")];
        for config in [
            r#"{"os":"linux","config":{"Labels":{"a":"1","b":"2"},"User":"u"}}"#,
            r#"{"os":"linux"}"#,
            r#"{"config":null}"#,
        ] {
            let all: Value = serde_json::from_slice(&labelled(config.as_bytes(), &labels).unwrap()).unwrap();
            assert_eq!((&all["config"]["Labels"]["a"], &all["config"]["Labels"]["c"]), (&"new".into(), &"x=y".into()));
            let kept = config.contains("User");
            assert_eq!((all["config"]["Labels"]["b"] == "2", all["config"]["User"] == "u"), (kept, kept), "{config}");
        }
        for config in ["", "[]", r#"{"config":[]}"#, r#"{"config":{"Labels":"x"}}"#] {
            assert!(labelled(config.as_bytes(), &labels).is_none(), "{config}");
        }
    }

    #[test]
    fn labels_and_limits_are_lines() {
        assert_eq!(label("a").unwrap(), "a=");
        assert_eq!(label("a=b=c").unwrap(), "a=b=c");
        assert_eq!(limit("memory=512M").unwrap(), "memory=512M");
        for text in ["", "=", "=x", "a=b\nc=d"] {
            assert!(label(text).is_err() && limit(text).is_err(), "{text:?}");
        }
        assert!(limit("memory").is_err() && limit("memory=").is_err());
    }

    #[test]
    fn what_stdin_tells_comes_first() {
        let read = |words: &[&str]| Told::try_parse_from(std::iter::once(&"x").chain(words)).unwrap().remembered;
        let told = Remembered::told(b"--label=a=1\0--word=--env=A=x\ny\0--name=one\0--net=publish=80\0").unwrap();
        let both = told.and(read(&["--name=two", "--label=a=2", "--word=--init", "--words=-", "--auto-remove"]));
        assert_eq!(
            (both.labels, both.word),
            (vec!["a=1".into(), "a=2".into()], vec!["--env=A=x\ny".into(), "--init".into()])
        );
        assert_eq!(
            (both.name.as_deref(), both.network, both.auto_remove),
            (Some("two"), vec!["publish=80".into()], true)
        );
        assert!(Remembered::told(b"").unwrap().labels.is_empty());
        for bytes in
            [&b"--label=a=1"[..], b"\0", b"label\0", b"--label=\0", b"--nonsense=secret\0", b"--word\0", b"img_1\0"]
        {
            let error = Remembered::told(bytes).unwrap_err();
            assert!(error.exit_status() == USAGE && !error.to_string().contains("secret"), "{bytes:?}: {error}");
        }
        assert!(net("publish=8080:80").is_ok() && net("publish").is_err() && net("a=b\nc=d").is_err());
    }
}
