//! `set`: other limits for a cgroup that is there, its processes in it.

use bocker_common::say::{self, Explain};
use bocker_common::{Error, Result};

use crate::act::{Act, Place};
use crate::devices::Devices;
use crate::group;
use crate::key::Key;
use crate::layout::{Controller, Layout};
use crate::limits::Limits;
use crate::name::Name;
use crate::show;

/// All or nothing, as far as the kernel lets us put back what was there.
///
/// # Errors
/// No such cgroup; the limit that the kernel refuses; then all others are as they were before, or the line says which are not.
pub(crate) fn set(layout: &Layout, id: Name, limits: Limits, explain: Explain) -> Result<()> {
    let plan = plan(layout, id, limits)?;
    let acts: Vec<Act> = plan.iter().map(|(act, _)| act.clone()).collect();
    let before = |act: &Act| plan.iter().find(|(done, _)| done == act).and_then(|(_, before)| before.clone());
    let (mut refused, mut stuck) = (None, Vec::new());
    let apply = |act: &Act| {
        let result = act.apply(layout, id);
        let mut note = |act: &Act, result: &Result<()>| {
            if let (Act::Restore(file, _), Err(_)) = (act, result) {
                stuck.push(file.display().to_string());
            }
        };
        note(act, &result);
        if result.is_err() && refused.is_none() {
            refused = match act {
                Act::Limit(limit, _) => Some(limit.to_string()),
                // Version 1 has taken some devices away by now.
                Act::Devices(devices, _) => {
                    if let Some(back) = before(act) {
                        note(&back, &back.apply(layout, id));
                    }
                    Some(devices.words())
                }
                _ => None,
            };
        }
        result
    };
    let result = say::perform_whole(&acts, explain, apply, before);
    result.map_err(|error| match (refused, stuck.is_empty()) {
        (None, _) => error,
        (Some(limit), true) => error.hint(format!("{limit} was refused, all is as before")),
        (Some(limit), false) => error.hint(format!("{limit} was refused; not as before: {}", stuck.join(" "))),
    })
}

/// Each act with the one that takes it back.
fn plan(layout: &Layout, id: Name, mut limits: Limits) -> Result<Vec<(Act, Option<Act>)>> {
    group::must_exist(layout, id)?;
    if limits.only_more {
        let way_out = "devices=default or devices=all says what it is added to";
        return Err(Error::plain("limit 'device'").hint(way_out).status(bocker_common::diag::USAGE));
    }
    let number = |key: Key| -> Option<i64> { show::number(layout, id, key) };
    limits.resolve(layout.v2(), number)?;
    if !layout.v2() && limits.value(Key::Memory).is_some_and(|new| new == -1 || Some(new) > number(Key::Swap)) {
        // Version 1 keeps the limit of both above the limit of memory at every moment: what grows beyond it comes after it.
        limits.files.sort_by_key(|limit| limit.key != Key::Swap);
    }
    let mut plan = Vec::new();
    for limit in limits.files {
        let place = place(layout, limit.key.controller(), id, &limit)?;
        let (file, _) = limit.target(&place);
        // What cannot be read cannot be written either, and writing says why.
        let was = std::fs::read_to_string(&file).ok().map(|text| Act::Restore(file, limit.before(&text, place.v2)));
        plan.push((Act::Limit(limit, place), was));
    }
    // Last: on version 2 nobody can read them back, but what replaces them does it in one step.
    if let Some(devices) = limits.devices {
        let place = place(layout, Controller::Devices, id, &devices.words())?;
        let was = std::fs::read_to_string(place.dir.join("devices.list")).ok();
        let was = was.and_then(|text| Devices::listed(&text)).map(|devices| Act::Devices(devices, place.clone()));
        plan.push((Act::Devices(devices, place), was));
    }
    Ok(plan)
}

/// Where the controller's files of this container are.
fn place(layout: &Layout, controller: Controller, id: Name, limit: &dyn std::fmt::Display) -> Result<Place> {
    layout.top_of(controller).ok_or_else(|| layout.lacks(controller, limit, ""))?;
    let dir = layout.dir_of(controller, id);
    if !dir.is_dir() {
        return Err(Error::plain(format!("{limit}: no cgroup {}", dir.display())).hint(match controller {
            // On version 1 it must be there before the first process.
            Controller::Cpuset => format!("bocker-cg create {id} cpuset.cpus=LIST makes it"),
            _ => format!("{id} was made without it"),
        }));
    }
    Ok(Place { dir, v2: layout.v2() })
}
