//! `inspect` and `history`: what is known of an image or a container, as lines or as JSON.

use bocker_common::diag::printable;
use bocker_common::{Id, Kind, Result};
use serde_json::{Map, Value, json};

use crate::network::Words;
use crate::remember::{self, AUTO_REMOVE, LABELS, LIMITS, Mount, OOM, pairs};
use crate::store::Store;
use crate::verbs::print;

/// What the kernel and the file `status` say of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
struct State {
    running: bool,
    pid: Option<u64>,
    exit: Option<u64>,
}

/// Reads `running PID` or `exited N`. The PID is good only while the lock is held.
fn state(running: bool, status: &str) -> State {
    let number = |word| status.strip_prefix(word)?.trim().parse().ok();
    State { running, pid: number("running ").filter(|_| running), exit: number("exited ").filter(|_| !running) }
}

fn text(store: &Store, id: Id, file: &str) -> String {
    String::from_utf8_lossy(&store.text(id, file)).into_owned()
}

fn config(store: &Store, id: Id) -> Map<String, Value> {
    serde_json::from_slice(&store.text(id, "config")).unwrap_or_default()
}

fn words<'a>(value: Option<&'a Value>) -> impl Iterator<Item = &'a str> + use<'a> {
    value.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
}

/// Key and value of each line that a configuration gives: what decides how a container of it runs, then who made it.
fn config_lines(config: &Map<String, Value>) -> Vec<(&'static str, String)> {
    let mut lines = Vec::new();
    let inner = config.get("config").and_then(Value::as_object);
    let get = |key: &str| inner.and_then(|inner| inner.get(key));
    for (key, line) in [("Entrypoint", "entrypoint"), ("Cmd", "cmd"), ("Env", "env")] {
        lines.extend(words(get(key)).map(|word| (line, word.to_owned())));
    }
    for (key, line) in [("WorkingDir", "workdir"), ("User", "user"), ("StopSignal", "stopsignal")] {
        lines.extend(
            get(key).and_then(Value::as_str).filter(|text| !text.is_empty()).map(|text| (line, text.to_owned())),
        );
    }
    for (key, line) in [("ExposedPorts", "port"), ("Volumes", "volume")] {
        lines.extend(get(key).and_then(Value::as_object).into_iter().flatten().map(|(name, _)| (line, name.clone())));
    }
    for (key, value) in get("Labels").and_then(Value::as_object).into_iter().flatten() {
        lines.push(("label", format!("{key}={}", value.as_str().unwrap_or_default())));
    }
    for key in ["os", "architecture", "variant", "created", "author"] {
        lines.extend(config.get(key).and_then(Value::as_str).map(|text| (key, text.to_owned())));
    }
    lines
}

/// `inspect`: `KEY\tVALUE` lines, a key once for each value; or one JSON object for each id.
pub(crate) fn inspect(store: &Store, all: &[String], json: bool) -> Result<()> {
    // Nothing of some where one is not there.
    let ids = all.iter().map(|name| store.find_any(name)).collect::<Result<Vec<_>>>()?;
    let mut out = String::new();
    for id in ids {
        out += &if json { object(store, id)? } else { lines(store, id)? };
    }
    print(out.as_bytes())
}

fn path(store: &Store, id: Id) -> String {
    store.path.join(id.to_string()).to_string_lossy().into_owned()
}

/// What was written down of the kernel's killing for want of memory, when it ran last: a line, or nothing.
fn oom(store: &Store, id: Id, state: &State) -> Option<String> {
    let text = text(store, id, OOM);
    // While it runs the file is of the time before.
    text.lines().next().filter(|_| !state.running).map(str::to_owned)
}

fn container_state(store: &Store, id: Id) -> Result<State> {
    Ok(state(store.stopped(id)?.is_none(), &text(store, id, "status")))
}

/// The labels of a container: its image's, and its own over them. Of an image none: its configuration has them.
fn labels(store: &Store, id: Id) -> Map<String, Value> {
    if id.kind() == Kind::Image {
        return Map::new();
    }
    let config = config(store, id);
    let inner = config.get("config").and_then(|inner| inner.get("Labels")).and_then(Value::as_object);
    let mut all = inner.cloned().unwrap_or_default();
    all.extend(pairs(store, id, LABELS).into_iter().map(|(key, value)| (key, value.into())));
    all
}

fn lines(store: &Store, id: Id) -> Result<String> {
    let mut lines = vec![("id", id.to_string())];
    if id.kind() == Kind::Image {
        lines.extend(store.names_of(id)?.iter().map(|name| ("name", name.familiar())));
    } else {
        let state = container_state(store, id)?;
        lines.extend(store.name_of(id).map(|name| ("name", name.to_string())));
        lines.push(("image", text(store, id, "image")));
        lines.push(("command", text(store, id, "cmd")));
        lines.push(("running", state.running.to_string()));
        lines.extend(state.pid.map(|pid| ("pid", pid.to_string())));
        lines.extend(state.exit.map(|status| ("exit", status.to_string())));
        lines.extend(oom(store, id, &state).map(|line| ("oom", line)));
        lines.extend(remember::removes_itself(store, id).then(|| ("life", AUTO_REMOVE.to_owned())));
        let mounts = remember::mounts(store, id);
        lines.extend(mounts.iter().map(|mount| ("mount", format!("{}:{}", mount.volume, mount.inside()))));
        lines.extend(pairs(store, id, LIMITS).iter().map(|(key, value)| ("limit", format!("{key}={value}"))));
        lines.extend(Words::of(store, id).0.into_iter().map(|word| ("network", word)));
        let words = remember::words(store, id).unwrap_or_default().options;
        lines.extend(words.iter().map(|word| ("word", word.to_string_lossy().into_owned())));
    }
    lines.push(("source", text(store, id, "source")));
    lines.push(("path", path(store, id)));
    lines.extend(text(store, id, "layers").lines().map(|layer| ("layer", layer.to_owned())));
    let labels = labels(store, id);
    lines.extend(config_lines(&config(store, id)).into_iter().filter(|(key, _)| *key != "label" || labels.is_empty()));
    lines.extend(labels.iter().map(|(key, value)| ("label", format!("{key}={}", value.as_str().unwrap_or_default()))));
    Ok(lines.iter().map(|(key, value)| format!("{key}\t{}\n", printable(value))).collect())
}

fn object(store: &Store, id: Id) -> Result<String> {
    let mut object = json!({
        "id": id.to_string(),
        "kind": id.kind().word(),
        "source": text(store, id, "source"),
        "path": path(store, id),
        "layers": text(store, id, "layers").lines().collect::<Vec<_>>(),
        "config": config(store, id),
    });
    if id.kind() == Kind::Image {
        object["names"] = store.names_of(id)?.iter().map(|name| Value::from(name.familiar())).collect();
    } else {
        let state = container_state(store, id)?;
        object["image"] = text(store, id, "image").into();
        object["command"] = text(store, id, "cmd").into();
        object["running"] = state.running.into();
        object["pid"] = state.pid.into();
        object["exit"] = state.exit.into();
        object["oom_killed"] = oom(store, id, &state).is_some().into();
        object["name"] = store.name_of(id).map(|name| name.to_string()).into();
        object["labels"] = labels(store, id).into();
        object["limits"] = pairs(store, id, LIMITS).iter().map(|(key, value)| format!("{key}={value}")).collect();
        object["network"] = Words::of(store, id).0.into();
        let words = remember::words(store, id).unwrap_or_default();
        object["words"] = words.options.iter().map(|word| word.to_string_lossy()).collect();
        object["args"] = words.command.iter().map(|word| word.to_string_lossy()).collect();
        object["auto_remove"] = remember::removes_itself(store, id).into();
        let mount = |mount: &Mount| {
            json!({
                "volume": mount.volume.to_string(),
                "source": store.mountpoint(&mount.volume),
                "destination": mount.at,
                "options": mount.options,
                "nameless": mount.nameless,
            })
        };
        object["mounts"] = remember::mounts(store, id).iter().map(mount).collect();
    }
    Ok(format!("{object}\n"))
}

/// One step of an image's making.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Made {
    /// The layer's chain id; None for a step that changed no file.
    layer: Option<String>,
    created: String,
    by: String,
    comment: String,
}

/// The steps, last first: those of the configuration, each with its layer; layers that it does not tell of follow.
fn made(config: &Map<String, Value>, layers: &[&str]) -> Vec<Made> {
    let mut layers = layers.iter().map(|layer| (*layer).to_owned());
    let mut all = Vec::new();
    for step in config.get("history").and_then(Value::as_array).into_iter().flatten() {
        let text = |key: &str| step.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let empty = step.get("empty_layer").and_then(Value::as_bool).unwrap_or(false);
        let layer = if empty { None } else { layers.next() };
        all.push(Made { layer, created: text("created"), by: text("created_by"), comment: text("comment") });
    }
    all.extend(layers.map(|layer| Made {
        layer: Some(layer),
        created: String::new(),
        by: String::new(),
        comment: String::new(),
    }));
    all.reverse();
    all
}

/// `history`: `LAYER\tCREATED\tCREATED BY\tCOMMENT` lines, the last step first; `-` where nothing is known.
pub(crate) fn history(store: &Store, image: &str, json: bool) -> Result<()> {
    let id = store.find(Kind::Image, image)?;
    let layers = text(store, id, "layers");
    let layers: Vec<_> = layers.lines().collect();
    let mut out = String::new();
    for Made { layer, created, by, comment } in made(&config(store, id), &layers) {
        if json {
            let line = json!({ "layer": layer, "created": created, "created_by": by, "comment": comment });
            out += &format!("{line}\n");
        } else {
            let shown = |text: &str| if text.is_empty() { "-".to_owned() } else { printable(text) };
            let layer = layer.unwrap_or_default();
            out += &[&layer, &created, &by, &comment].map(|text| shown(text)).join("\t");
            out.push('\n');
        }
    }
    print(out.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn a_pid_counts_while_it_runs_and_a_status_when_it_does_not() {
        assert_eq!(state(true, "running 17"), State { running: true, pid: Some(17), exit: None });
        assert_eq!(state(false, "running 17"), State { running: false, pid: None, exit: None });
        assert_eq!(state(false, "exited 3"), State { running: false, pid: None, exit: Some(3) });
        for text in ["", "running", "exited x", "running 1\n2"] {
            assert_eq!(state(false, text), State { running: false, pid: None, exit: None }, "{text}");
        }
    }

    #[test]
    fn a_configuration_of_any_shape_gives_lines() {
        let config = map(json!({
            "os": "linux",
            "config": {
                "Entrypoint": ["/bin/sh", "-c"], "Cmd": ["a\tb"], "Env": ["A=1", 2], "Labels": { "x": "y=z", "n": 1 },
                "ExposedPorts": { "80/tcp": {} }, "WorkingDir": "", "User": "1:2",
            },
        }));
        let lines: Vec<_> = config_lines(&config).into_iter().map(|(key, value)| format!("{key} {value}")).collect();
        let expected = [
            "entrypoint /bin/sh",
            "entrypoint -c",
            "cmd a\tb",
            "env A=1",
            "user 1:2",
            "port 80/tcp",
            "label n=",
            "label x=y=z",
            "os linux",
        ];
        assert_eq!(lines, expected);
        for odd in [
            json!({}),
            json!({ "config": 1, "os": [] }),
            json!({ "config": { "Cmd": "x", "Labels": [1], "Volumes": null } }),
        ] {
            assert!(config_lines(&map(odd)).is_empty());
        }
    }

    #[test]
    fn each_step_has_its_layer() {
        let config = map(json!({ "history": [
            { "created": "2020", "created_by": "add" },
            { "created_by": "env", "empty_layer": true },
            { "created_by": "run" },
        ] }));
        let layers: Vec<_> = made(&config, &["a", "b", "c"]).into_iter().map(|step| (step.layer, step.by)).collect();
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(
            layers,
            [(some("c"), String::new()), (some("b"), "run".into()), (None, "env".into()), (some("a"), "add".into())]
        );
        assert_eq!(made(&config, &[]).len(), 3);
        assert_eq!(made(&map(json!({ "history": "x" })), &["a"]).len(), 1);
    }
}
