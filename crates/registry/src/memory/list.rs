//! Whose silence is watched, where that comes from outside: runs of target repos.
//!
//! The list is looked at when a revision comes into effect, and then each hour. A look asks
//! discovery; what it answers is held against the keys that are watched. As memory, a look has a
//! time of its own, and all that follows from it follows from what was answered.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use jiff::{SignedDuration, Timestamp};
use kaizen_engagement::Run;
use kaizen_proto::{
    id::{ActivationId, CellId},
    record::Conclusion,
};
use serde_json::{Map, Value, json};

use super::{
    Concluded, Lacks, Memory, Outside,
    cell::{Cell, State, WatchedRun},
    conclude::unbound,
    gate::bounded,
};
use crate::{
    clause::Place,
    conclusion::{Length, List, RUNS, SILENCE_KEYS_MAX, SilenceSpec, UNREAD, Watch},
    decision::Decision,
    definition::{Definition, TriggerSpec},
    scope::{Facts, RUN},
    template::Inputs,
    trigger::Trigger,
    view::{Revision, View},
    wire::item_of,
};

/// Between two looks at a list.
pub(crate) const REFRESH: SignedDuration = SignedDuration::from_hours(1);
/// Keys that one look begins, changes or forgets, so that a transaction holds them. Where there
/// are more, the next look follows at once.
pub(crate) const CHANGES_MAX: usize = 500;
/// Between two looks that follow each other at once: each has a time, and so an identity, of its
/// own.
const AT_ONCE: SignedDuration = SignedDuration::from_nanos(1);

/// The keys that a list has, each with its run.
type Keys = BTreeMap<String, WatchedRun>;

impl Memory {
    /// Has a list looked at when a revision comes into effect that has not looked at it yet.
    pub(super) fn watch_list(&mut self, revision: &Revision<Definition>, list: &List) {
        let id = list.cell();
        let look_at = revision.at;
        let Some(cell) = self.cells.get_mut(&id) else {
            let whole = false;
            let state = State::List { look_at, whole };
            self.insert(revision, &list.clause, "", state, look_at);
            return;
        };
        let before = cell.clone();
        if let State::List { look_at: next, .. } = &mut cell.state
            && before.revision < revision.number
            && look_at < *next
        {
            *next = look_at;
            self.settle(id, Some(&before));
        }
    }

    /// Looks at a list: begins the keys that are new, forgets those that are gone, and counts
    /// anew those whose schedule has changed. Where the list cannot be had, all stays as it is.
    pub(super) fn look(
        &mut self,
        view: &View,
        revision: &Arc<Revision<Definition>>,
        at: Timestamp,
        cell: &Cell,
        whole: bool,
        outside: &Outside,
    ) -> Result<Option<Concluded>, Lacks> {
        let definition = &revision.value;
        let (Some(Watch::Silence(place, Some(list))), TriggerSpec::Silence(silence)) =
            (definition.watch(), definition.trigger())
        else {
            self.forget(cell.id());
            return Ok(None);
        };
        let trigger = self.trigger(Conclusion::Listed, cell, at, at, 0);
        let activation = ActivationId::new(definition.id(), trigger.record.trigger_id());
        let Some(context) = outside.context.get(&activation) else {
            let item = item_of(definition, &trigger, &list.source);
            return Err(Lacks::of(revision, &trigger).context(item));
        };
        let unread = outside.unread.get(&activation);
        let known = self.known(place);
        let listed = context.clone().and_then(|context| {
            let keys = keys_of(definition, silence, list, &trigger, &context)?;
            let keys = with_unread(keys, &known, unread)?;
            Ok((snapshot(context, unread), keys))
        });
        let next = next_look(view, cell, at);
        // Whether what the last told look found gives what is known: while a definition was
        // disabled, keys may have been forgotten.
        let known_whole = whole && cell.revision == revision.number;
        let (snapshot, listed) = match listed {
            Ok(listed) => listed,
            Err(error) => {
                let state = State::List {
                    look_at: next,
                    whole: known_whole,
                };
                self.replace(revision, &trigger, cell.id(), state);
                return Ok(Some(unbound(revision, &trigger, error)));
            }
        };
        let changes = changes(&known, listed);
        let (none, all) = (changes.is_empty(), changes.len() <= CHANGES_MAX);
        for change in changes.into_iter().take(CHANGES_MAX) {
            self.make(revision, place, silence, change);
        }
        let at_once = at.checked_add(AT_ONCE).unwrap_or(next);
        let state = State::List {
            look_at: if all { next } else { at_once },
            whole: all,
        };
        self.replace(revision, &trigger, cell.id(), state);
        // Otherwise it leaves no trace: what the look before had found gives the same again.
        let is_told = !none || !known_whole;
        Ok(is_told.then(|| told(revision, trigger, snapshot)))
    }

    /// The keys of a silence that are watched.
    fn known(&self, place: &Place) -> Keys {
        let cells = self.cells.values();
        let cells = cells.filter(|cell| cell.clause == place.clause);
        cells
            .filter_map(|cell| match &cell.state {
                State::Silence { run, .. } => Some((cell.key.clone(), run.clone()?)),
                _ => None,
            })
            .collect()
    }

    fn make(
        &mut self,
        revision: &Revision<Definition>,
        place: &Place,
        silence: &SilenceSpec,
        change: Change,
    ) {
        let now = self.clock;
        match change {
            Change::Begin(key, run) => {
                self.begin(revision, place, silence, &key, Some(run), now);
            }
            Change::Revise(key, run) => self.revise(revision, place.cell(&key), silence, run),
            Change::Forget(key) => self.forget(place.cell(&key)),
        }
    }

    /// Goes on with another schedule, from the last event.
    fn revise(
        &mut self,
        revision: &Revision<Definition>,
        id: CellId,
        silence: &SilenceSpec,
        new: WatchedRun,
    ) {
        let now = self.clock;
        let Some(cell) = self.cells.get_mut(&id) else {
            return;
        };
        let before = cell.clone();
        cell.touched = now;
        cell.revision = revision.number;
        if let State::Silence {
            last,
            due,
            fired,
            run,
        } = &mut cell.state
        {
            if !*fired {
                // A silence that has been one for long by the new schedule is one now.
                let counted = silence.length.due(new.cron.as_deref(), *last);
                *due = counted.map(|due| due.max(now));
            }
            *run = Some(new);
        }
        self.settle(id, Some(&before));
    }

    /// Begins to watch a key, where it is not watched yet.
    pub(super) fn begin(
        &mut self,
        revision: &Revision<Definition>,
        place: &Place,
        silence: &SilenceSpec,
        key: &str,
        run: Option<WatchedRun>,
        at: Timestamp,
    ) {
        if !self.cells.contains_key(&place.cell(key)) {
            let state = silent_since(silence, run, at);
            self.insert(revision, &place.clause, key, state, at);
        }
    }

    fn insert(
        &mut self,
        revision: &Revision<Definition>,
        clause: &str,
        key: &str,
        state: State,
        at: Timestamp,
    ) {
        let cell = Cell {
            definition: revision.value.id().clone(),
            revision: revision.number,
            rule: None,
            clause: clause.to_owned(),
            key: key.to_owned(),
            state,
            touched: at,
            seen: [].into(),
            suppressed: 0,
            suppressed_at: None,
        };
        let id: CellId = cell.id();
        self.cells.insert(id, cell);
        self.settle(id, None);
    }
}

/// What stands of a look: what was found, and that it ordered nothing.
fn told(revision: &Arc<Revision<Definition>>, trigger: Trigger, snapshot: Value) -> Concluded {
    Concluded {
        revision: revision.clone(),
        activation: ActivationId::new(revision.value.id(), trigger.record.trigger_id()),
        trigger,
        snapshot,
        open: BTreeMap::new(),
        decision: Ok(Decision {
            rules: Vec::new(),
            tasks: Vec::new(),
            too_many_tasks: false,
        }),
    }
}

/// A silence that begins now, be it that an event came or that it is watched from now on.
pub(super) fn silent_since(
    silence: &SilenceSpec,
    run: Option<WatchedRun>,
    last: Timestamp,
) -> State {
    let cron = run.as_ref().and_then(|run| run.cron.as_deref());
    State::Silence {
        last,
        due: silence.length.due(cron, last),
        fired: false,
        run,
    }
}

/// Whether a revision goes on with what a cell keeps.
pub(super) fn means(revision: &Revision<Definition>, cell: &Cell) -> bool {
    let definition = &revision.value;
    definition.enabled() && definition.keeps(&cell.clause)
}

/// The first revision behind `at` that does.
pub(super) fn meant_after<'a>(
    view: &'a View,
    cell: &Cell,
    at: Timestamp,
) -> Option<&'a Arc<Revision<Definition>>> {
    let mut later = view.definition_after(&cell.definition, at);
    later.find(|revision| means(revision, cell))
}

/// An hour later, or when the next revision comes into effect.
fn next_look(view: &View, cell: &Cell, at: Timestamp) -> Timestamp {
    let refresh = at.checked_add(REFRESH).unwrap_or(Timestamp::MAX);
    let revised = meant_after(view, cell, at).map(|revision| revision.at);
    revised.map_or(refresh, |revised| revised.min(refresh))
}

/// The keys that discovery's answer gives. Of several runs with one key the first one counts.
fn keys_of(
    definition: &Definition,
    silence: &SilenceSpec,
    list: &List,
    trigger: &Trigger,
    context: &Map<String, Value>,
) -> Result<Keys, String> {
    let Some(Value::Array(runs)) = context.get(RUNS) else {
        return Err(format!("discovery gave no list of {RUNS}"));
    };
    let counts_slots = matches!(silence.length, Length::Cadences(_));
    let facts = Facts::new(trigger);
    let nothing = Value::Object(Map::new());
    let variables = facts.variables(&nothing);
    let inputs = Inputs::new(&variables, definition.templates());
    let mut keys = Keys::new();
    for item in runs {
        let run: Run = serde_json::from_value(item.clone())
            .map_err(|error| format!("discovery gave what is no run: {error}"))?;
        let variables = variables.with_item(RUN, item);
        let input = inputs.of(&variables);
        let key = definition
            .templates()
            .render(&list.run_key, &input, &variables)
            .and_then(bounded)?;
        keys.entry(key).or_insert_with(|| WatchedRun {
            cron: counts_slots.then(|| run.effective_cron().to_owned()),
            repo: run.repo,
        });
    }
    Ok(keys)
}

/// With the keys of repos of which nothing is known just now: they are not gone.
fn with_unread(
    mut listed: Keys,
    known: &Keys,
    unread: Option<&BTreeSet<String>>,
) -> Result<Keys, String> {
    for (key, run) in known {
        if unread.is_some_and(|unread| unread.contains(&run.repo)) {
            listed.entry(key.clone()).or_insert_with(|| run.clone());
        }
    }
    match listed.len() {
        count if count > SILENCE_KEYS_MAX => Err(format!(
            "{count} keys exceed {SILENCE_KEYS_MAX}, the most that a silence watches: narrow `runs`"
        )),
        _ => Ok(listed),
    }
}

/// All that the look depended on: what was bound, and whose runs are not known.
fn snapshot(mut context: Map<String, Value>, unread: Option<&BTreeSet<String>>) -> Value {
    if let Some(unread) = unread.filter(|unread| !unread.is_empty()) {
        context.insert(UNREAD.to_owned(), json!(unread));
    }
    Value::Object(context)
}

/// What a look does to a key.
enum Change {
    Begin(String, WatchedRun),
    Revise(String, WatchedRun),
    Forget(String),
}

/// What is gone, then what is new or has changed, each by key.
fn changes(known: &Keys, listed: Keys) -> Vec<Change> {
    let gone = known.keys().filter(|key| !listed.contains_key(*key));
    let mut changes: Vec<_> = gone.map(|key| Change::Forget(key.clone())).collect();
    for (key, run) in listed {
        match known.get(&key) {
            None => changes.push(Change::Begin(key, run)),
            Some(standing) if *standing != run => changes.push(Change::Revise(key, run)),
            Some(_) => {}
        }
    }
    changes
}
