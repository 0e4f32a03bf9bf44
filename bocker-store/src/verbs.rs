//! The verbs that work on a store that is there.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use bocker_common::diag::printable;
use bocker_common::entry::Uninterrupted;
use bocker_common::id::{self, FIRST, LAST, Listed};
use bocker_common::say::{Explain, perform, tell};
use bocker_common::{Error, Id, Kind, Result};
use rustix::fs::FlockOperation;
use rustix::io::Errno;

use crate::called::NEW_NAME;
use crate::holder::{HOLDER, Holder};
use crate::import as copier;
use crate::layer;
use crate::names;
use crate::oci::{Config, plain_config};
use crate::partials;
use crate::reference::Reference;
use crate::remember::{self, NETWORK, OOM, Remembered, id_of, label_image, removes_itself};
use crate::signal::Interrupt;
use crate::store::{Building, NEW, Step, Stopped, Store, joined, nested, no_such, short, to_nix};
use crate::sys::INLINE;
use crate::volumes::VOLUMES;

/// Writes to stdout, where only data goes.
pub(crate) fn print(bytes: &[u8]) -> Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).map_err(|e| Error::stdout(&e))
}

fn print_id(id: Id, explain: Explain) -> Result<()> {
    if explain.dry_run { Ok(()) } else { print(format!("{id}\n").as_bytes()) }
}

/// `import`: the directory is looked at before a store is made for it.
pub(crate) fn import(
    open: impl FnOnce() -> Result<Store>,
    dir: &Path,
    source: Option<&str>,
    explain: Explain,
) -> Result<()> {
    let from = copier::open(dir)?;
    let store = open()?;
    let interrupt = Interrupt::listen()?;
    let shown = source.map_or_else(|| dir.to_string_lossy().into_owned(), str::to_owned);
    let plan = |new: &str| {
        vec![
            Step::Subvolume(new.to_owned()),
            Step::Directory(format!("{new}/rootfs")),
            Step::Copy(dir.to_owned(), format!("{new}/rootfs")),
            Step::Write(format!("{new}/source"), (printable(&shown) + "\n").into()),
            Step::Write(format!("{new}/config"), plain_config()),
            Step::Sync,
        ]
    };
    let id = store.create(Kind::Image, (FIRST, LAST), explain, plan, |step, building| {
        interrupt.check()?;
        if !matches!(step, Step::Copy(..)) {
            return Ok(false);
        }
        copier::copy(&from, building.rootfs()?.as_fd(), &store, &interrupt).map(|_| true)
    })?;
    names::name_by_source(&store, id, source, explain)?;
    print_id(id, explain)
}

/// `snapshot`: a container from an image.
pub(crate) fn snapshot(
    store: &Store,
    image: &str,
    ids: (u32, u32),
    words: &[OsString],
    remembered: Remembered,
    holder: Option<Holder>,
    explain: Explain,
) -> Result<()> {
    let image = store.find(Kind::Image, image)?;
    let config = Config::parse(&store.text(image, "config"))?;
    let mut command = if words.is_empty() { config.command.join(" ").into_bytes() } else { joined(words) };
    command.push(b'\n');
    let record = remembered.plan(store, image, &config.volumes, words)?;
    let whole = Uninterrupted::begin();
    let plan = |new: &str| {
        let mut steps = vec![
            Step::Snapshot(image.to_string(), new.to_owned()),
            Step::Write(format!("{new}/image"), format!("{image}\n").into()),
            Step::Write(format!("{new}/cmd"), command.clone()),
            // Empty until something runs; here, so that there is a lock from the beginning.
            Step::Write(format!("{new}/status"), Vec::new()),
        ];
        steps.extend(holder.map(|holder| Step::Write(format!("{new}/{HOLDER}"), holder.text_of_new().into())));
        steps.extend(id_of(new).into_iter().flat_map(|id| record.steps(new, id)));
        // A short one is in the file system's own blocks, which are written before the name is.
        let long = |step: &Step| matches!(step, Step::Write(_, bytes) if bytes.len() > INLINE);
        if let Some(first) = steps.iter().rposition(long) {
            steps.insert(first + 1, Step::Sync);
        }
        steps
    };
    // Nobody removes a volume between the look at who has it and the container's list; from then on the container has it.
    let list = |step: &Step, _: &Building<'_>| {
        let Step::Write(name, _) = step else { return Ok(false) };
        if name.strip_suffix(VOLUMES).is_none_or(|dir| !dir.ends_with('/')) {
            return Ok(false);
        }
        let _stays = store.lock_store(FlockOperation::LockShared)?;
        store.apply(step)?;
        record.shares.iter().try_for_each(|id| store.find(Kind::Container, &id.to_string()).map(drop)).map(|()| true)
    };
    let made = store.create(Kind::Container, ids, explain, plan, list);
    if explain.dry_run {
        return made.map(drop);
    }
    let id = match made {
        Ok(id) => id,
        Err(error) => {
            record.forget(store);
            return Err(error);
        }
    };
    // Once it is printed somebody knows of it.
    let printed = whole.go_on().and_then(|()| print_id(id, explain));
    if printed.is_ok() {
        whole.until_the_end();
    } else {
        store.apply(&Step::Delete(id.to_string(), Vec::new())).and_then(|()| store.apply(&Step::Release(id)))?;
        record.forget(store);
    }
    printed
}

/// The lock of a container that does not run. Who has written down that it has ended has its lock for a moment more.
fn stopped(store: &Store, id: Id) -> Result<Stopped> {
    let mut status = Vec::new();
    for _ in 0..400 {
        if let Some(stopped) = store.stopped(id)? {
            return Ok(stopped);
        }
        status = store.text(id, "status");
        if !status.starts_with(b"exited") {
            break;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let pid = String::from_utf8_lossy(&status).strip_prefix("running ").and_then(|pid| pid.trim().parse::<u32>().ok());
    Err(running(id, pid.map_or_else(|| "it is starting".to_owned(), |pid| format!("kill -KILL {pid} ends it"))))
}

/// As [`stopped`], of a container that is nobody else's to start or to clean up. Who is cleaning up is waited for.
pub(crate) fn free(store: &Store, id: Id, me: Option<Holder>) -> Result<Stopped> {
    free_at_last(store, id, me, false)
}

/// The same; `wait`: however long that takes.
fn free_at_last(store: &Store, id: Id, me: Option<Holder>, wait: bool) -> Result<Stopped> {
    let patience = Instant::now() + Duration::from_secs(10);
    loop {
        let lock = stopped(store, id)?;
        // It may have gone since it was found: while we waited, by the one that we waited for.
        store.find(id.kind(), &id.to_string())?;
        let Some(other) = store.at_work(id, me) else { return Ok(lock) };
        let starting = store.text(id, "status").is_empty();
        let late = Instant::now() > patience;
        if starting || late && !wait {
            let does = if starting { "starting" } else { "in use" };
            let pid = other.pid();
            return Err(Error::plain(format!("Container '{id}' is {does}: process {pid} has it"))
                .hint(format!("wait for it, or kill -KILL {pid}")));
        }
        drop(lock);
        other.end_within(Duration::from_millis(100));
    }
}

fn running(id: Id, way_out: impl std::fmt::Display) -> Error {
    Error::plain(format!("Container '{id}' is running")).hint(way_out)
}

/// What lies beside the root file system of an image; what else a container has is its own.
const OF_AN_IMAGE: [&[u8]; 5] = [b"rootfs", b"source", b"config", b"layers", names::NAMED.as_bytes()];

/// What a container may get at any moment, while it runs.
const OF_A_CONTAINER: [&str; 9] = ["log", "log.1", "log.2", "status", "attach", NETWORK, OOM, HOLDER, NEW_NAME];

/// Files that are the container's and not the image's that is made of it.
fn own_files(store: &Store, container: Id) -> Result<Vec<String>> {
    let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC;
    let dir = rustix::fs::openat(store.dir(), container.to_string(), flags, rustix::fs::Mode::empty());
    let all = dir.and_then(layer::names).map_err(|e| Error::new("look into", container, io::Error::from(e)))?;
    let own = all.into_iter().filter(|name| !OF_AN_IMAGE.contains(&&name[..]));
    let mut own: Vec<_> = own.filter_map(|name| String::from_utf8(name).ok()).collect();
    own.extend(OF_A_CONTAINER.map(str::to_owned));
    own.sort();
    own.dedup();
    Ok(own)
}

/// `commit`: the image of an id is replaced by a snapshot of the container in one step, then the old one goes. A name is
/// given to what the container holds: its image is replaced, if that has no other name and nothing of it runs, else a
/// new one is made.
pub(crate) fn commit(store: &Store, container: &str, image: &str, explain: Explain) -> Result<()> {
    let container = store.find(Kind::Container, container)?;
    if image.parse::<Id>().is_ok() {
        let image = store.find(Kind::Image, image)?;
        return replace(store, container, image, explain);
    }
    let name: Reference = image.parse().map_err(|_| no_such(Kind::Image, image))?;
    let _whole = Uninterrupted::begin();
    let held = if explain.dry_run { None } else { store.hold_names(false)? };
    if let Ok(id) = store.find(Kind::Image, image)
        && store.names_of(id)? == [name.clone()]
        && runs_from(store, id)?.is_none()
    {
        replace(store, container, id, explain)?;
        return if explain.dry_run { tell(&store.act(Step::Print(id)), explain) } else { print_id(id, explain) };
    }
    drop(held);
    refuse_nested(store, container)?;
    let labels = label_image(store, container)?;
    let own = own_files(store, container)?;
    let plan = |new: &str| {
        let forget = own.iter().map(String::as_str).chain([names::NAMED, "source"]);
        let forget = forget.map(|file| format!("{new}/{file}")).collect();
        let mut steps = vec![
            Step::Snapshot(container.to_string(), new.to_owned()),
            Step::Forget(forget),
            Step::Write(format!("{new}/source"), format!("{}\n", name.familiar()).into()),
        ];
        steps.extend(labels.iter().flat_map(|text| remember::config_steps(new, text)));
        steps.push(Step::Sync);
        steps
    };
    let id = store.create(Kind::Image, (FIRST, LAST), explain, plan, |_, _| Ok(false))?;
    names::name_by_source(store, id, Some(image), explain)?;
    print_id(id, explain)
}

/// Refuses a container whose snapshot would not be the whole of it.
fn refuse_nested(store: &Store, container: Id) -> Result<()> {
    let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC;
    let fd = rustix::fs::openat(store.dir(), container.to_string(), flags, rustix::fs::Mode::empty());
    let inside = fd.map_err(to_nix).and_then(|fd| nested(&fd)).map_err(|e| Error::new("look into", container, e))?;
    if !inside.is_empty() {
        let count = inside.len();
        return Err(Error::plain(format!("Container '{container}' holds {count} btrfs subvolumes of its own"))
            .hint("a snapshot would leave them empty; delete them inside it first"));
    }
    Ok(())
}

/// A container that was made from the image and runs.
fn runs_from(store: &Store, image: Id) -> Result<Option<Id>> {
    for id in store.list(Kind::Container)? {
        if store.text(id, "image") == image.to_string().as_bytes() && store.stopped(id)?.is_none() {
            return Ok(Some(id));
        }
    }
    Ok(None)
}

/// The image is replaced by a snapshot of the container in one step, then the old one goes.
fn replace(store: &Store, container: Id, image: Id, explain: Explain) -> Result<()> {
    if let Some(other) = runs_from(store, image)? {
        return Err(running(other, format!("it was made from {image}; stop it first")));
    }
    refuse_nested(store, container)?;
    let _whole = Uninterrupted::begin();
    let new = format!("{NEW}{image}");
    let mut files = own_files(store, container)?;
    // Whether the image has had a name is its own, not the container's.
    let named = !store.names_of(image)?.is_empty();
    if !named {
        files.push(names::NAMED.to_owned());
    }
    let forget: Vec<_> = files.iter().map(|file| format!("{new}/{file}")).collect();
    let labels = label_image(store, container)?;
    let claim = Step::Snapshot(container.to_string(), new.clone());
    tell(&store.act(claim.clone()), explain)?;
    let mut building = None;
    if !explain.dry_run {
        building = store.claim_again(&claim)?;
        if building.is_none() {
            return Err(Error::new("commit to", image, "another commit is under way"));
        }
    }
    let mut rest = vec![Step::Forget(forget)];
    rest.extend(labels.iter().flat_map(|text| remember::config_steps(&new, text)));
    if named && store.open_text(container, names::NAMED).is_err() {
        rest.push(Step::Write(format!("{new}/{}", names::NAMED), Vec::new()));
    }
    rest.extend([Step::Exchange(new.clone(), image.to_string()), Step::Delete(new, Vec::new())]);
    let rest: Vec<_> = rest.into_iter().map(|step| store.act(step)).collect();
    perform(&rest, explain, |act| store.apply(act.step()))?;
    if let Some(building) = building {
        building.keep();
    }
    store.prune(Some((image, Some(if explain.dry_run { container } else { image }))), explain, |_| Ok(())).map(drop)
}

/// What `rm` is to mind.
#[derive(Debug, Clone, Copy, Default, clap::Args)]
pub(crate) struct Removal {
    /// An image with several names, too
    #[arg(long, short)]
    pub(crate) force: bool,
    /// Only a container in which nothing ever ran; else do nothing
    #[arg(long)]
    pub(crate) unstarted: bool,
    /// Only a container that was made with --auto-remove; else do nothing
    #[arg(long)]
    pub(crate) auto: bool,
    /// With a container its volumes go whose name nobody chose and that no other container has. Without being asked where it
    /// was made with --auto-remove, or nothing ever ran in it
    #[arg(long)]
    pub(crate) volumes: bool,
}

/// `rm`: an image, or a container that does not run. By an image's name: the name, and the image if it has no other.
pub(crate) fn rm(store: &Store, name: &str, what: Removal, me: Option<Holder>, explain: Explain) -> Result<()> {
    let Removal { unstarted, force, auto, volumes } = what;
    let id = if unstarted || auto { store.find(Kind::Container, name)? } else { store.find_any(name)? };
    let container = id.kind() == Kind::Container;
    let goes_by_itself = container && removes_itself(store, id);
    if auto && !goes_by_itself {
        return Ok(());
    }
    if container && !unstarted {
        // Waits, and may be interrupted.
        free(store, id, me)?;
    }
    // Nobody names the image meanwhile. Where there are no names none is made: there may be no room for a directory.
    let _whole = Uninterrupted::begin();
    let _held = if explain.dry_run || container { None } else { store.hold_names(false)? };
    let id = if container { store.find(Kind::Container, &id.to_string())? } else { store.find(Kind::Image, name)? };
    // bocker-exec writes it when the payload has been executed, not before.
    if unstarted && (store.stopped(id)?.is_none() || !store.text(id, "status").is_empty()) {
        return Ok(());
    }
    let mut known = Vec::new();
    if id.kind() == Kind::Image {
        known = store.names_of(id)?;
        if let Some(one) = name.parse::<Reference>().ok().filter(|_| name.parse::<Id>().is_err()) {
            if known.len() > 1 {
                return perform(&[store.act(Step::Untie(one))], explain, |act| store.apply(act.step()));
            }
        } else if known.len() > 1 && !force {
            return Err(names::has_several(id, &known));
        }
    }
    // Held while it is deleted: it cannot start meanwhile.
    let _lock = free(store, id, me)?;
    let subvolume = id.to_string();
    let deletion = match explain {
        Explain { explain: false, dry_run: false } => Step::Delete(subvolume, vec![]),
        _ => store.deletion(&subvolume)?,
    };
    let mut acts: Vec<_> = known.into_iter().map(|name| store.act(Step::Untie(name))).collect();
    acts.push(store.act(deletion));
    let mut mounts = Vec::new();
    if container {
        acts.push(store.act(Step::Release(id)));
        acts.extend(store.name_of(id).map(|name| store.act(Step::Uncall(name))));
        if volumes || unstarted || goes_by_itself {
            mounts = remember::mounts(store, id);
        }
    }
    perform(&acts, explain, |act| store.apply(act.step()))?;
    remember::remove_nameless(store, id, &mounts, explain)?;
    if id.kind() == Kind::Image {
        store.prune(Some((id, None)), explain, |_| Ok(()))?;
    }
    Ok(())
}

/// What a container must do for its path to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Must {
    /// Nothing; images have a path, too.
    Be,
    /// Run.
    Run,
    /// Not run, so that its network and cgroup can go: and they must be its own.
    Stand {
        /// However long another process has it.
        wait: bool,
    },
}

/// `path`: where it lies.
pub(crate) fn path(store: &Store, id: Id, must: Must, me: Option<Holder>) -> Result<()> {
    if must == Must::Run && store.stopped(id)?.is_some() {
        return Err(Error::plain(format!("Container '{id}' exists but is not running")));
    }
    if let Must::Stand { wait } = must {
        let mut lock = free_at_last(store, id, me, wait)?;
        if let Some(owner) = store.claims.owner(id)?.filter(|owner| !store.is_at(owner)) {
            return Err(Error::plain(format!("{id} is a container of {}, too", owner.display()))
                .hint("the names on this host are that one's; remove that one first"));
        }
        // From now on nobody else starts it or takes it apart; between the look and this somebody else may have.
        if let Some(me) = me.filter(|_| id.kind() == Kind::Container) {
            while store.hold(id, me)?.is_some() {
                // Not while we wait: that one may be about to start it, for which it needs the lock.
                drop(lock);
                lock = free_at_last(store, id, Some(me), wait)?;
            }
        }
        drop(lock);
    }
    let mut line = store.path.join(id.to_string()).into_os_string().into_encoded_bytes();
    line.push(b'\n');
    print(&line)
}

/// Whether it has run and does not any more, and nobody is cleaning up: one that is about to start is left alone.
pub(crate) fn has_ended(store: &Store, id: Id) -> Result<bool> {
    Ok(store.stopped(id)?.is_some() && !store.text(id, "status").is_empty() && store.held(id, None).is_none())
}

/// Whether the run that made it was killed before anything ran in it, which leaves no container. Not one of `create`, which waits for
/// its start.
fn is_abandoned(store: &Store, id: Id) -> Result<bool> {
    Ok(store.is_forsaken(id) && store.stopped(id)?.is_some() && store.text(id, "status").is_empty())
}

/// `orphans`: of the ids on stdin, those of containers that have ended or were never to be, or that no store of this host has and
/// nothing runs in.
pub(crate) fn orphans(store: &Store) -> Result<()> {
    for Listed { id, busy } in id::read(io::stdin().lock())? {
        let owner = store.claims.owner(id)?;
        let ours = owner.as_ref().is_some_and(|owner| store.is_at(owner));
        let orphan = if owner.is_some() && !ours {
            false
        } else if store.find(Kind::Container, &id.to_string()).is_ok() {
            // Not one that is about to start. Where the link is gone, another store may have one of that id, and it runs.
            (has_ended(store, id)? || is_abandoned(store, id)?) && (ours || !busy)
        } else {
            id.kind() == Kind::Container && !busy
        };
        if orphan {
            print(format!("{id}\n").as_bytes())?;
        }
    }
    Ok(())
}

fn shown(bytes: &[u8]) -> String {
    printable(&String::from_utf8_lossy(bytes))
}

/// `images`: in the original's form, a line for each name; where there is none, what the image came from.
pub(crate) fn images(store: &Store, json: bool) -> Result<()> {
    let mut out = String::new();
    if !json {
        out += "IMAGE_ID\t\tSOURCE\n";
    }
    let mut names: HashMap<Id, Vec<String>> = HashMap::new();
    for (name, id) in store.image_names()? {
        names.entry(id).or_default().push(name.familiar());
    }
    for id in store.list(Kind::Image)? {
        let source = store.text(id, "source");
        let names = names.remove(&id).unwrap_or_default();
        if json {
            let source = String::from_utf8_lossy(&source);
            let line = serde_json::json!({ "id": id.to_string(), "names": names, "source": source });
            out += &format!("{line}\n");
        } else if names.is_empty() {
            out += &format!("{id}\t\t{}\n", shown(&source));
        }
        if !json {
            names.iter().for_each(|name| out += &format!("{id}\t\t{name}\n"));
        }
    }
    print(out.as_bytes())
}

/// `cat`: a text file beside `rootfs`, as it is; on a terminal without what would steer the terminal.
pub(crate) fn cat(store: &Store, name: &str, file: &str) -> Result<()> {
    // Only a container has one, and that of a container which never ran is empty.
    let is_log = file == "log";
    let id = if is_log { store.find(Kind::Container, name)? } else { store.find_any(name)? };
    let none = || Error::plain(format!("'{id}' has no {}", short(file)));
    if file.is_empty() || file.len() > 255 || file.contains('/') || file.contains('\0') || matches!(file, "." | "..") {
        return Err(none());
    }
    let mut from = match store.open_text(id, file) {
        Err(Errno::NOENT) if is_log => return Ok(()),
        Err(Errno::NOENT | Errno::LOOP | Errno::INVAL | Errno::ISDIR) => return Err(none()),
        done => done.map_err(|e| Error::new("open", format_args!("{id}/{file}"), io::Error::from(e)))?,
    };
    let terminal = io::stdout().is_terminal();
    let mut buffer = vec![0; 64 << 10];
    let mut kept = Vec::new();
    loop {
        let read = from.read(&mut buffer).map_err(|e| Error::new("read", format_args!("{id}/{file}"), e))?;
        if !terminal {
            if read == 0 {
                return Ok(());
            }
            print(&buffer[..read])?;
            continue;
        }
        kept.extend_from_slice(&buffer[..read]);
        print(for_terminal(&mut kept, read == 0).as_bytes())?;
        if read == 0 {
            return Ok(());
        }
    }
}

/// Takes whole characters from the front, control characters spelled out except line ends and tabs.
pub(crate) fn for_terminal(bytes: &mut Vec<u8>, last: bool) -> String {
    // A character may be cut at the end of what was read.
    let end = match std::str::from_utf8(bytes) {
        Err(e) if e.error_len().is_none() && !last => e.valid_up_to(),
        _ => {
            let tail = bytes.len() - bytes.len().min(3);
            let cut = (tail..bytes.len()).find(|at| {
                let rest = &bytes[*at..];
                rest[0] >= 0xc2 && matches!(std::str::from_utf8(rest), Err(e) if e.error_len().is_none())
            });
            if last { bytes.len() } else { cut.unwrap_or(bytes.len()) }
        }
    };
    let rest = bytes.split_off(end);
    let text = String::from_utf8_lossy(bytes).into_owned();
    *bytes = rest;
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() && c != '\n' && c != '\t' {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

/// How much [`gc`] would take, but for layers, names and half blobs.
pub(crate) fn leftovers(store: &Store) -> Result<usize> {
    let mut count = store.leftovers()?;
    for id in store.list(Kind::Container)? {
        count += usize::from(is_abandoned(store, id)? || removes_itself(store, id) && has_ended(store, id)?);
    }
    Ok(count)
}

/// `gc`: names of what is gone.
pub(crate) fn gc(store: &Store, explain: Explain) -> Result<()> {
    let _whole = Uninterrupted::begin();
    let told = |name: &str| if explain.dry_run { Ok(()) } else { print(format!("{name}\n").as_bytes()) };
    // Whose bocker was killed before it could do so itself.
    let take = |id: Id| {
        let unstarted = is_abandoned(store, id)?;
        if unstarted || removes_itself(store, id) && has_ended(store, id)? {
            rm(store, &id.to_string(), Removal { unstarted, ..Removal::default() }, None, explain)?;
            told(&id.to_string())?;
        }
        Ok(())
    };
    // It may go meanwhile by whoever ran it.
    let go = |id: Id| match take(id) {
        Err(_) if store.find(Kind::Container, &id.to_string()).is_err() => Ok(()),
        done => done,
    };
    // One that will not go keeps nothing else.
    let gone: Vec<Result<()>> = store.list(Kind::Container)?.into_iter().map(go).collect();
    store.sweep(explain, told)?;
    partials::sweep(&store.path, explain, told)?;
    gone.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_cut_in_two_are_whole_on_a_terminal() {
        let text = "aé\u{1b}[2J\u{9b}ü\n".as_bytes();
        for cut in 0..text.len() {
            let mut kept = text[..cut].to_vec();
            let mut out = for_terminal(&mut kept, false);
            kept.extend_from_slice(&text[cut..]);
            out += &for_terminal(&mut kept, true);
            assert_eq!(out, "aé\\u{1b}[2J\\u{9b}ü\n", "cut at {cut}");
        }
    }

    #[test]
    fn the_originals_lines() {
        assert_eq!(no_such(Kind::Image, "foo").to_string(), "No image named 'foo' exists");
        assert_eq!(no_such(Kind::Container, "..").to_string(), "No container named '..' exists");
        assert!(no_such(Kind::Container, &"x".repeat(10_000)).to_string().len() < 120);
    }
}
