//! What follows from a trigger, from several together, and from none.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use jiff::{SignedDuration, Timestamp};
use kaizen_proto::{
    id::{ActivationId, CellId, TriggerId, content_hash},
    record::{Conclusion, TaskOrder, TriggerRecord},
    subject,
};
use serde_json::{Map, Value};

use super::{
    Concluded, Lacks, Memory, Outside,
    cell::{Cell, Join, Overlap, Rate, State, Waiting, WatchedRun},
    gate::{HELD_TITLES_MAX, bounded, foreign},
    list::{means, meant_after, silent_since},
    session::Session,
};
use crate::{
    binding::{BindError, bind_inline, insert, leave_out},
    clause::Place,
    condition::json_fits,
    decision::{decide_in, stand_in},
    definition::{Definition, TriggerSpec},
    scope::Facts,
    task::{Draft, TITLE_BYTES_MAX},
    template::Inputs,
    trigger::Trigger,
    view::{Revision, View},
    wire::outside_item,
};

/// Most of one event's attributes that a join keeps, as JSON.
const JOINED_BYTES_MAX: usize = 64 * 1024;
/// Between two looks whether the task that others wait for is closed.
const LOOK_EVERY: SignedDuration = SignedDuration::from_secs(5);

impl Memory {
    /// Binds the context and evaluates the rules, with what they keep.
    pub(super) fn conclude(
        &mut self,
        revision: &Arc<Revision<Definition>>,
        trigger: &Trigger,
        outside: &Outside,
    ) -> Result<Option<Concluded>, Lacks> {
        let attributes = trigger
            .envelope
            .as_ref()
            .map(|envelope| &envelope.attributes);
        let session = self.session(revision, trigger, &outside.open);
        decide(session, revision, trigger, attributes, outside)
    }

    /// Takes in an event of a join; the one that completes it sets the definition off.
    pub(super) fn join(
        &mut self,
        revision: &Arc<Revision<Definition>>,
        place: &Place,
        trigger: &Trigger,
        outside: &Outside,
    ) -> Result<Option<Concluded>, Lacks> {
        let position = self.position;
        let mut session = self.session(revision, trigger, &outside.open);
        match take_in(&mut session, &revision.value, place, trigger) {
            Ok(None) => {
                session.settle();
                Ok(None)
            }
            Ok(Some((key, join))) => {
                let joined = joined(place, key, &join, trigger, position);
                let attributes = attributes_of(join);
                session.becomes(joined.record.trigger_id());
                decide(session, revision, &joined, Some(&attributes), outside)
            }
            Err(error) => {
                session.undo();
                Ok(Some(unbound(revision, trigger, error)))
            }
        }
    }

    /// An event came: whatever silence there was is over.
    pub(super) fn break_silence(
        &mut self,
        revision: &Arc<Revision<Definition>>,
        place: &Place,
        trigger: &Trigger,
    ) -> Option<Concluded> {
        let key = match render_key(&revision.value, place, trigger) {
            Ok(key) => key,
            Err(error) => return Some(unbound(revision, trigger, error)),
        };
        let id = place.cell(&key);
        let (now, TriggerSpec::Silence(silence)) = (self.clock, revision.value.trigger()) else {
            return None;
        };
        // Keys that are not declared are not watched.
        let cell = self.cells.get_mut(&id)?;
        let before = cell.clone();
        if !cell.takes(trigger.record.trigger_id()) {
            return None;
        }
        cell.touched = now;
        cell.revision = revision.number;
        let run = match &cell.state {
            State::Silence { run, .. } => run.clone(),
            _ => None,
        };
        cell.state = silent_since(silence, run, now);
        self.settle(id, Some(&before));
        None
    }

    /// What follows from a cell whose time has come. Its time is another one afterwards, or it is
    /// forgotten.
    pub(super) fn fall_due(
        &mut self,
        view: &View,
        at: Timestamp,
        id: CellId,
        outside: &Outside,
    ) -> Result<Option<Concluded>, Lacks> {
        let Some(cell) = self.cells.get(&id) else {
            return Ok(None);
        };
        let cell = cell.clone();
        let revision = view.definition_in_effect(&cell.definition, at);
        let Some(revision) = revision.filter(|revision| means(revision, &cell)) else {
            self.forget(id);
            // Of a reader that is behind: what begins again later has been begun already.
            if let Some(later) = meant_after(view, &cell, at) {
                self.watch(later);
            }
            return Ok(None);
        };
        match cell.state.clone() {
            State::Silence { last, run, .. } => {
                self.fall_silent(&revision, at, &cell, last, run.as_ref(), outside)
            }
            State::List { whole, .. } => self.look(view, &revision, at, &cell, whole, outside),
            State::Rate(rate) => Ok(Some(self.stand_in(&revision, at, &cell, rate))),
            State::Overlap(overlap) => self.release(&revision, at, &cell, overlap, outside),
            _ => {
                self.forget(id);
                Ok(None)
            }
        }
    }

    fn fall_silent(
        &mut self,
        revision: &Arc<Revision<Definition>>,
        at: Timestamp,
        cell: &Cell,
        last: Timestamp,
        run: Option<&WatchedRun>,
        outside: &Outside,
    ) -> Result<Option<Concluded>, Lacks> {
        let trigger = self.trigger(Conclusion::Silent, cell, last, at, 0);
        let (id, due) = (cell.id(), Some(at));
        let state = |fired| State::Silence {
            last,
            due,
            fired,
            run: run.cloned(),
        };
        self.replace(revision, &trigger, id, state(true));
        // Whatever follows or fails: a silence sets off once.
        let session = self.session(revision, &trigger, &outside.open);
        let concluded = decide(session, revision, &trigger, None, outside);
        if concluded.is_err() {
            self.replace(revision, &trigger, id, state(false));
        }
        concluded
    }

    /// One task for those that a period held back.
    fn stand_in(
        &mut self,
        revision: &Arc<Revision<Definition>>,
        at: Timestamp,
        cell: &Cell,
        rate: Rate,
    ) -> Concluded {
        let trigger = self.trigger(Conclusion::HeldBack, cell, rate.since, at, rate.hops);
        self.replace(revision, &trigger, cell.id(), State::Rate(Rate::default()));
        let rule = cell.rule.clone().unwrap_or_default();
        let drafts = rate.queue.map(|queue| {
            Draft::plain(
                queue,
                held_title(&rule, &rate.titles, rate.held),
                held_body(&rate.titles, rate.held),
            )
        });
        self.ordered(
            revision,
            trigger,
            &rule,
            drafts.into_iter().collect(),
            "held_back",
            rate.held,
        )
    }

    /// The tasks that wait for an earlier one, once that is closed.
    fn release(
        &mut self,
        revision: &Arc<Revision<Definition>>,
        at: Timestamp,
        cell: &Cell,
        overlap: Overlap,
        outside: &Outside,
    ) -> Result<Option<Concluded>, Lacks> {
        let Some(waiting) = overlap.waiting else {
            return Ok(None);
        };
        let trigger = self.trigger(Conclusion::Released, cell, waiting.since, at, waiting.hops);
        let activation = ActivationId::new(revision.value.id(), trigger.record.trigger_id());
        let mut session = self.session(revision, &trigger, &outside.open);
        let open = overlap.tasks.iter().any(|task| session.is_open(task));
        let lacks = session.lacks();
        session.undo();
        if let Some(tasks) = lacks {
            return Err(Lacks::of(revision, &trigger).tasks(tasks));
        }
        if open {
            let look_at = self.clock.checked_add(LOOK_EVERY).unwrap_or(self.clock);
            let waiting = Some(Waiting { look_at, ..waiting });
            let tasks = overlap.tasks;
            let state = State::Overlap(Overlap { tasks, waiting });
            self.replace(revision, &trigger, cell.id(), state);
            return Ok(None);
        }
        let numbered = (0..).zip(&waiting.drafts);
        let tasks = numbered
            .map(|(n, draft)| subject::task(revision.value.id(), activation, n, &draft.queue))
            .collect();
        let released = Overlap {
            tasks,
            waiting: None,
        };
        self.replace(revision, &trigger, cell.id(), State::Overlap(released));
        let rule = cell.rule.clone().unwrap_or_default();
        let count = u64::try_from(waiting.drafts.len()).unwrap_or(u64::MAX);
        Ok(Some(self.ordered(
            revision,
            trigger,
            &rule,
            waiting.drafts,
            "released",
            count,
        )))
    }

    fn ordered(
        &mut self,
        revision: &Arc<Revision<Definition>>,
        trigger: Trigger,
        rule: &str,
        drafts: Vec<Draft>,
        what: &str,
        count: u64,
    ) -> Concluded {
        let activation = ActivationId::new(revision.value.id(), trigger.record.trigger_id());
        let decision = stand_in(revision, activation, &trigger, rule, drafts, what, count);
        let nothing = HashMap::new();
        let mut session = self.session(revision, &trigger, &nothing);
        note(&mut session, &revision.value, &decision.tasks);
        session.settle();
        Concluded {
            revision: revision.clone(),
            activation,
            trigger,
            snapshot: Value::Null,
            open: BTreeMap::new(),
            decision: Ok(decision),
        }
    }

    pub(super) fn replace(
        &mut self,
        revision: &Revision<Definition>,
        trigger: &Trigger,
        id: CellId,
        state: State,
    ) {
        let nothing = HashMap::new();
        let mut session = self.session(revision, trigger, &nothing);
        session.replace(id, state);
        session.settle();
    }

    fn session<'a>(
        &'a mut self,
        revision: &'a Revision<Definition>,
        trigger: &Trigger,
        open: &'a HashMap<String, bool>,
    ) -> Session<'a> {
        let definition = revision.value.id();
        let trigger = trigger.record.trigger_id();
        Session::new(self, definition, revision.number, trigger, open)
    }

    /// What memory concludes at a deadline.
    pub(super) fn trigger(
        &self,
        concluded: Conclusion,
        cell: &Cell,
        since: Timestamp,
        at: Timestamp,
        hops: u32,
    ) -> Trigger {
        let trigger_id = TriggerId::of_memory(concluded.as_str(), &cell.id(), since);
        Trigger {
            content_hash: content_hash(trigger_id.as_str().as_bytes()),
            record: TriggerRecord::Memory {
                trigger_id,
                concluded,
                key: cell.key.clone(),
                since,
                sequence: self.position,
                stored_at: at,
            },
            envelope: None,
            hops,
        }
    }
}

/// Binds the context, evaluates the rules, and settles what both did to memory.
fn decide(
    mut session: Session<'_>,
    revision: &Arc<Revision<Definition>>,
    trigger: &Trigger,
    attributes: Option<&Map<String, Value>>,
    outside: &Outside,
) -> Result<Option<Concluded>, Lacks> {
    let definition = &revision.value;
    let activation = ActivationId::new(definition.id(), trigger.record.trigger_id());
    let context = outside.context.get(&activation);
    if context.is_none()
        && let Some(item) = outside_item(definition, trigger, attributes)
    {
        session.undo();
        return Err(Lacks::of(revision, trigger).context(item));
    }
    let snapshot = match bind(&mut session, definition, attributes, context) {
        Ok(snapshot) => snapshot,
        Err(_) if session.is_repeated() => {
            session.undo();
            return Ok(None);
        }
        Err(error) => {
            session.undo();
            return Ok(Some(unbound(revision, trigger, error)));
        }
    };
    let mut decision = decide_in(revision, activation, trigger, &snapshot, &mut session);
    if session.is_repeated() {
        session.undo();
        return Ok(None);
    }
    if let Some(tasks) = session.lacks() {
        session.undo();
        return Err(Lacks::of(revision, trigger).tasks(tasks));
    }
    let open = session.asked();
    // Too many tasks are none, so nothing is remembered of them.
    if decision.too_many_tasks {
        decision.tasks.clear();
        session.undo();
    } else {
        note(&mut session, definition, &decision.tasks);
        session.settle();
    }
    Ok(Some(Concluded {
        revision: revision.clone(),
        activation,
        trigger: trigger.clone(),
        snapshot,
        open,
        decision: Ok(decision),
    }))
}

/// Has the sources that tell of tasks take note of what was ordered.
fn note(session: &mut Session<'_>, definition: &Definition, ordered: &[TaskOrder]) {
    for last_task in definition.last_tasks() {
        // The cell was made when the context was bound, so there is room for it.
        last_task.note(session, ordered).unwrap_or_default();
    }
}

fn bind(
    session: &mut Session<'_>,
    definition: &Definition,
    attributes: Option<&Map<String, Value>>,
    context: Option<&Result<Map<String, Value>, String>>,
) -> Result<Value, String> {
    let told = |error: BindError| error.to_string();
    // What the resolver bound comes first: bindings lie side by side, and it knows its own alone.
    let mut snapshot = context.cloned().unwrap_or_else(|| Ok(Map::new()))?;
    for source in definition.sources().iter().filter(|s| s.is_inline()) {
        match bind_inline(source, attributes) {
            Ok(value) => insert(&mut snapshot, &source.bind_to, value).map_err(told)?,
            Err(_) if source.optional => {
                leave_out(&mut snapshot, &source.bind_to).map_err(told)?;
            }
            Err(error) => return Err(told(error)),
        }
    }
    for summary in definition.summaries() {
        let nothing = Map::new();
        match summary.bind(session, attributes.unwrap_or(&nothing)) {
            Ok(value) => insert(&mut snapshot, &summary.bind_to, value).map_err(told)?,
            Err(_) if summary.optional => {
                leave_out(&mut snapshot, &summary.bind_to).map_err(told)?;
            }
            Err(error) => return Err(format!("context source metrics_summary: {error}")),
        }
    }
    for last_task in definition.last_tasks() {
        let bound = last_task.bind(session, definition.id());
        let value = bound.map_err(|error| format!("context source last_task: {error}"))?;
        insert(&mut snapshot, &last_task.bind_to, value).map_err(told)?;
    }
    Ok(Value::Object(snapshot))
}

/// An activation whose context cannot be had.
pub(super) fn unbound(
    revision: &Arc<Revision<Definition>>,
    trigger: &Trigger,
    error: String,
) -> Concluded {
    let definition = revision.value.id();
    Concluded {
        revision: revision.clone(),
        activation: ActivationId::new(definition, trigger.record.trigger_id()),
        trigger: trigger.clone(),
        snapshot: Value::Null,
        open: BTreeMap::new(),
        decision: Err(error),
    }
}

/// Takes an event into the window of its key; answers that of a join that is complete now.
fn take_in(
    session: &mut Session<'_>,
    definition: &Definition,
    place: &Place,
    trigger: &Trigger,
) -> Result<Option<(String, Join)>, String> {
    let (Some(envelope), TriggerSpec::All(spec)) = (&trigger.envelope, definition.trigger()) else {
        return Ok(None);
    };
    let mut joined = spec.events.iter();
    let Some(part) = joined.find(|part| part.event_type.matches(&envelope.event_type)) else {
        return Ok(None);
    };
    let attributes = Value::Object(envelope.attributes.clone());
    if !json_fits(&attributes, JOINED_BYTES_MAX) {
        return Err(format!(
            "attributes of event {} exceed {JOINED_BYTES_MAX} bytes, which is the most that a join keeps",
            envelope.id
        ));
    }
    let key = render_key(definition, place, trigger)?;
    let now = session.now();
    let initial = |_| State::Join(Join::default());
    let cell = session.cell(place, None, &key, initial)?;
    let State::Join(join) = &mut cell.state else {
        return Err(foreign(place));
    };
    if now >= join.until {
        *join = Join {
            since: now,
            until: now.checked_add(spec.within).unwrap_or(now),
            ..Join::default()
        };
    }
    join.hops = join.hops.max(trigger.hops);
    if join.joined {
        return Ok(None);
    }
    let attributes = envelope.attributes.clone();
    join.events.insert(part.name.clone(), attributes);
    if join.events.len() < spec.events.len() {
        return Ok(None);
    }
    let whole = join.clone();
    // What it was made of is told by the trigger; for the rest of the window only that it was.
    join.joined = true;
    join.events = BTreeMap::new();
    Ok(Some((key, whole)))
}

fn joined(place: &Place, key: String, join: &Join, last: &Trigger, position: u64) -> Trigger {
    let cell = place.cell(&key);
    let trigger_id = TriggerId::of_memory(Conclusion::Joined.as_str(), &cell, join.since);
    Trigger {
        content_hash: content_hash(trigger_id.as_str().as_bytes()),
        record: TriggerRecord::Memory {
            trigger_id,
            concluded: Conclusion::Joined,
            key,
            since: join.since,
            sequence: position,
            stored_at: last.record.stored_at(),
        },
        envelope: None,
        hops: join.hops,
    }
}

fn attributes_of(join: Join) -> Map<String, Value> {
    let events = join.events.into_iter();
    events
        .map(|(name, attributes)| (name, Value::Object(attributes)))
        .collect()
}

/// The key of a trigger that memory concludes, for one of its events.
fn render_key(definition: &Definition, place: &Place, trigger: &Trigger) -> Result<String, String> {
    let Some(template) = &place.key else {
        return Ok(String::new());
    };
    let facts = Facts::new(trigger);
    let nothing = Value::Object(Map::new());
    let variables = facts.variables(&nothing);
    let input = Inputs::new(&variables, definition.templates()).of(&variables);
    let key = definition
        .templates()
        .render(template, &input, &variables)?;
    bounded(key)
}

fn held_title(rule: &str, titles: &[String], held: u64) -> String {
    let first = titles.first().map_or("", String::as_str);
    let title = match held {
        1 => first.to_owned(),
        held => format!("{held} tasks of rule {rule} held back: {first}, …"),
    };
    let end = (0..=TITLE_BYTES_MAX.min(title.len()))
        .rev()
        .find(|end| title.is_char_boundary(*end));
    title.get(..end.unwrap_or(0)).unwrap_or_default().to_owned()
}

fn held_body(titles: &[String], held: u64) -> String {
    let shown = u64::try_from(titles.len().min(HELD_TITLES_MAX)).unwrap_or(u64::MAX);
    let lines: Vec<_> = titles.iter().map(|title| format!("- {title}")).collect();
    let rest = held.saturating_sub(shown);
    let rest = match rest {
        0 => String::new(),
        rest => format!("\n- and {rest} more"),
    };
    format!("{}{rest}", lines.join("\n"))
}
