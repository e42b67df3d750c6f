//! What follows from one trigger of one definition, held against what stands of it; and what is
//! left when all triggers were taken.

use std::collections::BTreeSet;

use jiff::SignedDuration;
use kaizen_proto::{
    id::{ActivationId, DefinitionId, TaskId},
    record::{PlannedTask, TaskOrder, TriggerRecord},
    subject::{DeadReason, DeadStage},
};

use super::{
    Cause, Finding, Kind, Ledger, Verify, WHO_WRITES,
    life::{Life, digest, digest_of, digest_planned},
    standing::{DecidedSeen, Entry, Key, Seen, Verdict},
};
use crate::{
    backtest::changes,
    definition::Lane,
    memory::Concluded,
    replay::{Followed, Replayed},
    trigger::Trigger,
};

/// A letter that does not tell what it is of may be of something that was stored so long before.
const LETTER_LAG: SignedDuration = SignedDuration::from_hours(1);

/// What must stand.
struct Wanted<'c> {
    definition: &'c DefinitionId,
    activation: ActivationId,
    lane: Lane,
    revision: u64,
    trigger: &'c TriggerRecord,
    /// Of the trigger's content.
    content: u64,
    tasks: &'c [TaskOrder],
    /// Of the outcomes of all rules.
    rules: u64,
    record: Recorded,
    /// Stage and reason of the dead letter; the reason is left open where context is not bound.
    letter: Option<(DeadStage, Option<DeadReason>)>,
    conclusion: &'static str,
}

/// Whether a decision is recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Recorded {
    /// Beside the tasks, if at all.
    Spare,
    /// It is.
    Needed,
    /// With all tasks in it: they stand nowhere else.
    Planned,
}

impl<'c> Wanted<'c> {
    fn of(concluded: &'c Concluded) -> Self {
        let revision = &concluded.revision;
        let definition = revision.value.id();
        let lane = revision.value.lane();
        let is_bound = match lane {
            Lane::Direct => false,
            Lane::Bound => true,
            Lane::Ordered(reader) => reader.is_bound(),
        };
        let mut wanted = Self {
            definition,
            activation: concluded.activation,
            lane,
            revision: revision.number,
            trigger: &concluded.trigger.record,
            content: digest_of(&concluded.trigger.content_hash),
            tasks: &[],
            rules: 0,
            record: Recorded::Spare,
            letter: Some((DeadStage::Resolve, None)),
            conclusion: "unbound",
        };
        let Ok(decision) = &concluded.decision else {
            return wanted;
        };
        wanted.tasks = &decision.tasks;
        wanted.rules = digest_of(&decision.rules);
        wanted.letter = decision.error().map(|_| {
            let reason = match decision.too_many_tasks {
                true => DeadReason::TooManyTasks,
                false => DeadReason::RuleError,
            };
            (DeadStage::Decide, Some(reason))
        });
        let is_shadow = definition.is_shadow();
        wanted.record = match (is_shadow, is_bound, decision.tasks.is_empty()) {
            (true, true, _) | (true, false, false) => Recorded::Planned,
            (false, true, _) => Recorded::Needed,
            (_, false, _) => Recorded::Spare,
        };
        let mut rules = decision.rules.iter();
        wanted.conclusion = match (decision.tasks.is_empty(), &wanted.letter) {
            (_, Some(_)) => "error",
            (false, None) if is_shadow => "planned",
            (false, None) => "ordered",
            (true, None) if rules.any(|rule| rule.suppressed_by.is_some()) => "suppressed",
            (true, None) => "not_matched",
        };
        wanted
    }

    /// Tasks that stand on subjects of their own.
    fn orders(&self) -> &'c [TaskOrder] {
        match self.record {
            Recorded::Planned => &[],
            Recorded::Spare | Recorded::Needed => self.tasks,
        }
    }

    fn is_nothing(&self) -> bool {
        self.orders().is_empty() && self.record == Recorded::Spare && self.letter.is_none()
    }

    fn finding(&self, kind: Kind, task: Option<u32>, sequence: u64, why: String) -> Finding {
        Finding {
            kind,
            definition: self.definition.to_string(),
            activation: self.activation.to_string(),
            task,
            cause: Cause::of(self.trigger),
            sequence,
            why,
            next: match kind {
                Kind::Missing | Kind::Differs => explain(self.definition.as_str(), self.trigger),
                Kind::Doubled | Kind::Unexplained | Kind::BrokenLife => WHO_WRITES.to_owned(),
            },
        }
    }
}

fn explain(definition: &str, trigger: &TriggerRecord) -> String {
    match trigger {
        TriggerRecord::Event { sequence, .. } => format!(
            "kaizen-agentic explain --event {sequence} --definition {definition}; published again under its id, what is missing is ordered"
        ),
        TriggerRecord::Tick { slot, .. } => format!(
            "kaizen-agentic explain --definition {definition} --slot {slot}; `tick backfill` sets it off again"
        ),
        TriggerRecord::Memory { .. } => format!("kaizen-agentic definition memory {definition}"),
    }
}

/// What was seen of one activation.
#[derive(Default)]
struct Held {
    faults: Vec<Finding>,
    /// Something of it is still to come.
    is_open: bool,
    /// It is another content under an identity that has led to what stands.
    is_conflict: bool,
}

impl Verify<'_> {
    pub(super) fn hold(
        &mut self,
        replayed: &Replayed,
        trigger: Option<&Trigger>,
        is_settled: bool,
        ledger: &mut impl Ledger,
    ) {
        let lane = replayed.revision.value.lane();
        match &replayed.followed {
            Followed::Concluded(concluded) => self.concluded(concluded, is_settled, ledger),
            Followed::Noted => {
                if self.is_asked(trigger) && self.standing.holds(replayed.activation.bits()) {
                    self.tally.activation(lane.as_str(), "noted");
                }
            }
            Followed::Unknown(why) => {
                self.unknown(replayed, trigger, why, is_settled, ledger);
            }
        }
    }

    fn is_asked(&self, trigger: Option<&Trigger>) -> bool {
        trigger.is_some_and(|trigger| self.setup.window.holds(Seen::of(&trigger.record)))
    }

    fn concluded(&mut self, concluded: &Concluded, is_settled: bool, ledger: &mut impl Ledger) {
        let wanted = Wanted::of(concluded);
        if !self.standing.holds(wanted.activation.bits()) {
            return;
        }
        if !self.setup.window.holds(Seen::of(wanted.trigger)) {
            return self.leave_out(wanted.definition, wanted.activation);
        }
        self.tally
            .activation(wanted.lane.as_str(), wanted.conclusion);
        let key = self
            .standing
            .key(wanted.definition.as_str(), wanted.activation);
        let stands = self.standing.entries.get(&key).is_some_and(Entry::stands);
        if wanted.is_nothing() && !stands {
            return;
        }
        if self.came_before(key, &wanted, stands, is_settled, ledger) {
            return;
        }
        let held = self.compare(key, &wanted, is_settled, ledger);
        self.settle(key, &wanted, held);
    }

    /// Whether what stands of it was set off by a copy of its trigger that nobody asks about: the
    /// same event stored earlier, the same slot ticked earlier.
    fn came_before(
        &mut self,
        key: Key,
        wanted: &Wanted<'_>,
        stands: bool,
        is_settled: bool,
        ledger: &mut impl Ledger,
    ) -> bool {
        let entry = self.standing.entries.get(&key);
        let seen = match entry.and_then(|entry| entry.seen) {
            Some(seen) => Some(seen),
            None if stands || !is_settled => None,
            None => {
                let before = ledger.stood_before(wanted.definition, wanted.activation);
                before.map(|at| Seen {
                    at,
                    ..Seen::of(wanted.trigger)
                })
            }
        };
        let is_outside = seen.is_some_and(|seen| !self.setup.window.holds(seen));
        if is_outside {
            self.leave_out(wanted.definition, wanted.activation);
        }
        is_outside
    }

    fn compare(
        &mut self,
        key: Key,
        wanted: &Wanted<'_>,
        is_settled: bool,
        ledger: &mut impl Ledger,
    ) -> Held {
        let nothing = Entry::default();
        let entry = self.standing.entries.get(&key).unwrap_or(&nothing);
        let mut held = Held::default();
        let conflicts =
            matches!(entry.verdict, Verdict::Explained { content } if content != wanted.content);
        if conflicts && (!wanted.tasks.is_empty() || wanted.lane == Lane::Bound) {
            held.is_conflict = true;
            self.conflict(entry, wanted, is_settled, &mut held);
            return held;
        }
        let given_up = self.is_given_up(entry, wanted);
        let absent = Absent {
            is_excused: given_up,
            is_open: !is_settled || (wanted.lane == Lane::Bound && entry.is_pending() && !given_up),
        };
        self.compare_tasks(entry, wanted, absent, &mut held, ledger);
        self.compare_record(entry, wanted, absent, &mut held);
        self.compare_letter(entry, wanted, absent, &mut held);
        held
    }

    /// Two contents under one identity: the later one is buried.
    fn conflict(&self, entry: &Entry, wanted: &Wanted<'_>, is_settled: bool, held: &mut Held) {
        let mut letters = entry.letters.iter();
        if letters.any(|letter| self.is_of_conflict(letter.token)) {
            return;
        }
        if !is_settled {
            held.is_open = true;
            return;
        }
        let why = "its trigger came with two contents, and no dead letter tells of the second";
        held.faults
            .push(wanted.finding(Kind::Missing, None, 0, why.to_owned()));
    }

    fn is_of(&self, token: u32, stage: DeadStage, reason: Option<DeadReason>) -> bool {
        let text = self.standing.names.text(token);
        let Some((of, why)) = text.split_once(' ') else {
            return false;
        };
        of == stage.token() && reason.is_none_or(|reason| reason.token() == why)
    }

    /// Whether a letter tells that the mesh has given up on it, and not what a rule gave.
    fn is_given_up(&self, entry: &Entry, wanted: &Wanted<'_>) -> bool {
        let mut letters = entry.letters.iter();
        letters.any(|letter| self.tells_of_giving_up(letter.token, wanted))
    }

    fn tells_of_giving_up(&self, token: u32, wanted: &Wanted<'_>) -> bool {
        let is_decided = self.is_of(token, DeadStage::Decide, None)
            || self.is_of(token, DeadStage::Admission, None);
        // What is bound from the trigger alone can be bound again.
        let is_inline = match wanted.lane {
            Lane::Direct => true,
            Lane::Bound => false,
            Lane::Ordered(reader) => !reader.is_bound(),
        };
        let is_context = self.is_of(token, DeadStage::Resolve, Some(DeadReason::ContextError));
        let is_final = is_decided || is_inline && is_context || self.is_of_conflict(token);
        !is_final
    }

    fn is_of_conflict(&self, token: u32) -> bool {
        self.is_of(token, DeadStage::Store, Some(DeadReason::IdentityConflict))
    }

    fn compare_tasks(
        &self,
        entry: &Entry,
        wanted: &Wanted<'_>,
        absent: Absent,
        held: &mut Held,
        ledger: &mut impl Ledger,
    ) {
        let orders = wanted.orders();
        for order in orders {
            let of_it = || entry.lives.iter().filter(|life| life.n == order.n);
            let is_right = |life: &&Life| self.queue(life) == order.queue.as_str();
            let Some(life) = of_it().find(is_right).or_else(|| of_it().next()) else {
                let why = format!(
                    "{:?} for queue {} was not ordered",
                    order.title, order.queue
                );
                absent.say(held, || {
                    wanted.finding(Kind::Missing, Some(order.n), 0, why)
                });
                continue;
            };
            if life.digest != digest(order) {
                held.faults.push(differs(wanted, order, life, ledger));
            }
            for other in of_it().filter(|other| other.queue != life.queue) {
                let why = format!(
                    "it stands under queue {} as well as under {}",
                    self.queue(other),
                    self.queue(life)
                );
                held.faults
                    .push(wanted.finding(Kind::Doubled, Some(order.n), other.first, why));
            }
        }
        let known: BTreeSet<u32> = orders.iter().map(|order| order.n).collect();
        for life in entry.lives.iter().filter(|life| !known.contains(&life.n)) {
            let why = match orders.len() {
                0 => "a task stands, and its trigger orders none".to_owned(),
                count => format!("task {} stands, and its trigger orders {count}", life.n),
            };
            held.faults
                .push(wanted.finding(Kind::Unexplained, Some(life.n), life.first, why));
        }
    }

    fn queue(&self, life: &Life) -> &str {
        self.standing.names.text(life.queue)
    }

    fn compare_record(&self, entry: &Entry, wanted: &Wanted<'_>, absent: Absent, held: &mut Held) {
        if wanted.lane != Lane::Bound && entry.pending > 0 {
            let why = "it waits for context, and its definition needs none".to_owned();
            held.faults
                .push(wanted.finding(Kind::Unexplained, None, entry.pending, why));
        }
        if wanted.lane == Lane::Bound && entry.pending == 0 && entry.decided.is_some() {
            let why = "its decision stands, and the record before it does not".to_owned();
            held.faults
                .push(wanted.finding(Kind::Missing, None, 0, why));
        }
        for sequence in &entry.decided_again {
            let why = "it was decided a second time".to_owned();
            held.faults
                .push(wanted.finding(Kind::Doubled, None, *sequence, why));
        }
        match (&entry.decided, wanted.record) {
            (None, Recorded::Spare) => {}
            (None, Recorded::Needed | Recorded::Planned) => {
                let why = "its decision was not recorded".to_owned();
                absent.say(held, || wanted.finding(Kind::Missing, None, 0, why));
            }
            (Some(decided), Recorded::Spare) if wanted.orders().is_empty() => {
                let why = "a decision stands, and its trigger leads to none".to_owned();
                held.faults
                    .push(wanted.finding(Kind::Unexplained, None, decided.sequence, why));
            }
            (Some(decided), _) => {
                if let Some(why) = differs_from(decided, wanted) {
                    held.faults
                        .push(wanted.finding(Kind::Differs, None, decided.sequence, why));
                }
            }
        }
    }

    fn compare_letter(&self, entry: &Entry, wanted: &Wanted<'_>, absent: Absent, held: &mut Held) {
        let Some((stage, reason)) = wanted.letter else {
            return;
        };
        let mut letters = entry.letters.iter();
        if letters.any(|letter| self.is_of(letter.token, stage, reason)) {
            return;
        }
        let reason = reason.map_or("context_error", DeadReason::token);
        let why = format!("it failed ({reason}), and no dead letter tells of it");
        absent.say(held, || wanted.finding(Kind::Missing, None, 0, why));
    }

    /// Takes in what was seen of an activation.
    fn settle(&mut self, key: Key, wanted: &Wanted<'_>, held: Held) {
        let entry = self.standing.entries.get(&key);
        let verdict = entry.map_or(Verdict::Unclaimed, |entry| entry.verdict);
        // The copy that came first may be the one that was buried.
        let is_second = verdict == Verdict::Contradicted && held.faults.is_empty();
        self.explain_letters(key, wanted, held.is_conflict || is_second);
        self.tally.open += u64::from(held.is_open);
        if let Some(why) = self.setup.unsure.get(wanted.definition)
            && !held.faults.is_empty()
        {
            let why = format!("{}: {why}", wanted.definition);
            self.tally.unknown(&why);
            self.standing.entry(key).verdict = Verdict::Unknown;
            return;
        }
        if held.faults.is_empty() {
            if let Some(entry) = self.standing.entries.get_mut(&key) {
                entry.found.clear();
                let content = wanted.content;
                match entry.verdict {
                    Verdict::Explained { .. } => {}
                    _ => entry.verdict = Verdict::Explained { content },
                }
            }
            return;
        }
        let entry = self.standing.entry(key);
        match entry.verdict {
            // A copy of what led to it: what stands followed from the other one.
            Verdict::Explained { content } if content == wanted.content => {}
            Verdict::Contradicted => {}
            _ => {
                entry.verdict = Verdict::Contradicted;
                self.standing.found(key, held.faults);
            }
        }
    }

    fn explain_letters(&mut self, key: Key, wanted: &Wanted<'_>, is_conflict: bool) {
        let Some(entry) = self.standing.entries.get(&key) else {
            return;
        };
        let explained: Vec<bool> = entry
            .letters
            .iter()
            .map(|letter| {
                let is_wanted = wanted
                    .letter
                    .is_some_and(|(stage, reason)| self.is_of(letter.token, stage, reason));
                is_wanted
                    || self.tells_of_giving_up(letter.token, wanted)
                    || (is_conflict && self.is_of_conflict(letter.token))
            })
            .collect();
        let letters = self.standing.entries.get_mut(&key);
        let letters = letters.into_iter().flat_map(|entry| &mut entry.letters);
        for (letter, is_explained) in letters.zip(explained) {
            letter.is_explained |= is_explained;
        }
    }

    /// What follows cannot be told: what was bound is not known.
    fn unknown(
        &mut self,
        replayed: &Replayed,
        trigger: Option<&Trigger>,
        why: &str,
        is_settled: bool,
        ledger: &mut impl Ledger,
    ) {
        let definition = replayed.revision.value.id();
        let (lane, activation) = (replayed.revision.value.lane(), replayed.activation);
        if !self.standing.holds(activation.bits()) {
            return;
        }
        let key = self.standing.key(definition.as_str(), activation);
        let entry = self.standing.entries.get(&key);
        let Some(trigger) = trigger else {
            self.tally.unknown(why);
            if entry.is_some() {
                self.standing.entry(key).verdict = Verdict::Unknown;
            }
            return;
        };
        if !self.is_asked(Some(trigger)) {
            return self.leave_out(definition, activation);
        }
        let verdict = entry.map_or(Verdict::Unclaimed, |entry| entry.verdict);
        if matches!(verdict, Verdict::Contradicted | Verdict::Explained { .. }) {
            return; // A copy of its trigger has told it.
        }
        let stands = entry.is_some_and(Entry::stands);
        let is_pending = entry.is_some_and(Entry::is_pending);
        if is_pending || (!stands && !is_settled) {
            self.tally.activation(lane.as_str(), "open");
            self.tally.open += 1;
            self.explained(key, trigger);
            return;
        }
        let is_recorded = match lane {
            Lane::Bound => true,
            Lane::Ordered(reader) => reader.is_bound() && ledger.is_lacking(activation),
            Lane::Direct => false,
        };
        if !stands && is_recorded {
            let before = ledger.stood_before(definition, activation);
            let before = before.map(|at| Seen {
                at,
                ..Seen::of(&trigger.record)
            });
            if before.is_some_and(|seen| !self.setup.window.holds(seen)) {
                return;
            }
            self.tally.activation(lane.as_str(), "unknown");
            let what = match lane {
                Lane::Bound => "it was not taken up: no record of it stands",
                _ => {
                    "its decision was not recorded, so what its definition keeps is not known from then on"
                }
            };
            let finding = Finding {
                kind: Kind::Missing,
                definition: definition.to_string(),
                activation: activation.to_string(),
                task: None,
                cause: Cause::of(&trigger.record),
                sequence: 0,
                why: what.to_owned(),
                next: explain(definition.as_str(), &trigger.record),
            };
            self.standing.found(key, vec![finding]);
            self.standing.entry(key).verdict = Verdict::Contradicted;
            return;
        }
        self.tally.activation(lane.as_str(), "unknown");
        let number = replayed.revision.number;
        let decided = entry.and_then(|entry| entry.decided.as_deref());
        let other = decided.filter(|decided| decided.revision != number);
        if let Some(DecidedSeen {
            sequence, revision, ..
        }) = other
        {
            let why = format!("it was decided by revision {revision}, in effect was {number}");
            let finding = Finding {
                kind: Kind::Differs,
                definition: definition.to_string(),
                activation: activation.to_string(),
                task: None,
                cause: Cause::of(&trigger.record),
                sequence: *sequence,
                why,
                next: explain(definition.as_str(), &trigger.record),
            };
            self.standing.found(key, vec![finding]);
            self.standing.entry(key).verdict = Verdict::Contradicted;
            return;
        }
        self.tally.unknown(why);
        if stands {
            self.standing.entry(key).verdict = Verdict::Unknown;
        }
    }

    fn explained(&mut self, key: Key, trigger: &Trigger) {
        let content = digest_of(&trigger.content_hash);
        if let Some(entry) = self.standing.entries.get_mut(&key) {
            entry.verdict = Verdict::Explained { content };
        }
    }

    /// What is wrong with the lives of tasks.
    pub(super) fn close_lives(
        &self,
        key: Key,
        entry: &Entry,
        ledger: &mut impl Ledger,
        findings: &mut Vec<Finding>,
    ) {
        for life in entry.lives.iter().filter(|life| !life.faults.is_empty()) {
            let cause = cause_of(life.first, ledger);
            for fault in &life.faults {
                let why = fault.why.clone();
                let mut finding = self.of_task(key, life.n, fault.kind, fault.sequence, why);
                finding.cause = cause.clone();
                findings.push(finding);
            }
        }
        let mut told = BTreeSet::new();
        for orphan in &entry.orphans {
            let is_missing =
                |finding: &Finding| finding.kind == Kind::Missing && finding.task == Some(orphan.n);
            let activation = ActivationId::from_bits(key.bits).to_string();
            let mut known = findings.iter().filter(|one| one.activation == activation);
            if known.any(is_missing) || !told.insert((orphan.n, orphan.queue)) {
                continue;
            }
            let why = "it was taken or has ended, and its order does not stand".to_owned();
            findings.push(self.of_task(key, orphan.n, Kind::BrokenLife, orphan.sequence, why));
        }
    }

    fn of_task(&self, key: Key, n: u32, kind: Kind, sequence: u64, why: String) -> Finding {
        let activation = ActivationId::from_bits(key.bits);
        Finding {
            kind,
            definition: self.standing.definition(key).to_owned(),
            activation: activation.to_string(),
            task: Some(n),
            cause: Cause::default(),
            sequence,
            why,
            next: format!("kaizen-agentic task get {}", TaskId { activation, n }),
        }
    }

    /// Letters that no trigger leads to, of what one does lead to.
    pub(super) fn close_letters(
        &self,
        key: Key,
        entry: &Entry,
        ledger: &mut impl Ledger,
        findings: &mut Vec<Finding>,
    ) {
        let letters = entry.letters.iter().filter(|letter| !letter.is_explained);
        let cause = entry.lives.first().map(|life| cause_of(life.first, ledger));
        for letter in letters {
            let token = self.standing.names.text(letter.token);
            let why = format!("a dead letter ({token}) that nothing leads to");
            let mut finding = self.of_key(key, entry, letter.sequence, why);
            finding.cause = cause.clone().unwrap_or_default();
            findings.push(finding);
        }
    }

    fn of_key(&self, key: Key, entry: &Entry, sequence: u64, why: String) -> Finding {
        let activation = match &entry.identity {
            Some(identity) => identity.to_string(),
            None => ActivationId::from_bits(key.bits).to_string(),
        };
        let definition = match &entry.identity {
            Some(_) => String::new(),
            None => self.standing.definition(key).to_owned(),
        };
        Finding {
            kind: Kind::Unexplained,
            definition,
            activation,
            task: None,
            cause: Cause::default(),
            sequence,
            why,
            next: WHO_WRITES.to_owned(),
        }
    }

    /// What stands and no trigger leads to.
    pub(super) fn left_over(
        &mut self,
        key: Key,
        entry: &Entry,
        ledger: &mut impl Ledger,
        findings: &mut Vec<Finding>,
    ) {
        if let Some(why) = self.unsure_of(key, entry) {
            return self.tally.unknown(&why);
        }
        for life in &entry.lives {
            let order = ledger.order(life.first);
            let cause = order.as_ref().map(|order| Cause::of(&order.trigger));
            let title = order.map_or_else(String::new, |order| format!("{:?}: ", order.title));
            let why = format!("{title}no trigger leads to it");
            let mut finding = self.of_task(key, life.n, Kind::Unexplained, life.first, why);
            finding.cause = cause.unwrap_or_default();
            WHO_WRITES.clone_into(&mut finding.next);
            findings.push(finding);
        }
        let decided = entry.decided.as_ref().map(|decided| decided.sequence);
        let decision = decided.or((entry.pending > 0).then_some(entry.pending));
        for sequence in decision.into_iter().chain(entry.decided_again.clone()) {
            let why = "a decision that no trigger leads to".to_owned();
            findings.push(self.of_key(key, entry, sequence, why));
        }
        self.close_lives(key, entry, ledger, findings);
        self.close_letters(key, entry, ledger, findings);
    }

    fn unsure_of(&self, key: Key, entry: &Entry) -> Option<String> {
        let definition = self.standing.definition(key);
        if let Some(why) = self.setup.unsure.get(definition) {
            return Some(format!("{definition}: {why}"));
        }
        // A letter alone does not tell when its trigger was stored.
        let is_letter =
            entry.seen.is_none() && entry.identity.is_none() && entry.orphans.is_empty();
        let window = self.setup.window;
        let from = window.events_from.max(window.ticks_from);
        let lag = from.checked_add(LETTER_LAG).unwrap_or(from);
        let mut letters = entry.letters.iter();
        let is_early = letters.all(|letter| letter.stored_at < lag);
        (is_letter && is_early && !self.setup.is_from_beginning).then(|| {
            "a dead letter is of something that was stored before what is verified".to_owned()
        })
    }
}

/// What does not stand: whether that is a fault.
#[derive(Debug, Clone, Copy)]
struct Absent {
    is_excused: bool,
    is_open: bool,
}

impl Absent {
    fn say(self, held: &mut Held, finding: impl FnOnce() -> Finding) {
        match self {
            Self {
                is_excused: true, ..
            } => {}
            Self { is_open: true, .. } => held.is_open = true,
            _ => held.faults.push(finding()),
        }
    }
}

impl Entry {
    /// Whether it waits for its context.
    fn is_pending(&self) -> bool {
        self.pending > 0 && self.decided.is_none()
    }
}

fn cause_of(sequence: u64, ledger: &mut impl Ledger) -> Cause {
    let order = ledger.order(sequence);
    order.map_or_else(Cause::default, |order| Cause::of(&order.trigger))
}

/// A task stands with another content than its trigger orders.
fn differs(
    wanted: &Wanted<'_>,
    order: &TaskOrder,
    life: &Life,
    ledger: &mut impl Ledger,
) -> Finding {
    let (n, sequence) = (Some(order.n), life.first);
    if life.content != wanted.content {
        let why = "it was ordered from another content of its trigger than the one that is archived: one activation, two contents";
        return wanted.finding(Kind::Doubled, n, sequence, why.to_owned());
    }
    let mut told = Vec::new();
    if let Some(standing) = ledger.order(sequence) {
        let fields = changes(&standing, order);
        told.extend(fields.into_iter().map(|change| {
            format!(
                "{} is {:?}, computed again it is {:?}",
                change.field, change.before, change.after
            )
        }));
        if standing.revision != order.revision {
            told.push(format!(
                "it was ordered by revision {}, in effect was {}",
                standing.revision, order.revision
            ));
        }
        if standing.why != order.why {
            told.push("what its rule saw differs".to_owned());
        }
    }
    if told.is_empty() {
        told.push("it says something else than what is computed again".to_owned());
    }
    wanted.finding(Kind::Differs, n, sequence, told.join("; "))
}

/// In what a record of a decision differs from the decision.
fn differs_from(decided: &DecidedSeen, wanted: &Wanted<'_>) -> Option<String> {
    if decided.revision != wanted.revision {
        return Some(format!(
            "it was decided by revision {}, in effect was {}",
            decided.revision, wanted.revision
        ));
    }
    let count = wanted.tasks.len();
    if u32::try_from(count) != Ok(decided.tasks) {
        return Some(format!(
            "it tells of {} tasks, computed again there are {count}",
            decided.tasks
        ));
    }
    if decided.rules.is_some_and(|rules| rules != wanted.rules) {
        return Some("what it tells of its rules is not what is computed again".to_owned());
    }
    if wanted.record != Recorded::Planned {
        return None;
    }
    let Some(planned) = &decided.planned else {
        return Some("it tells of no tasks that are planned".to_owned());
    };
    let tasks = wanted.tasks.iter().cloned().map(PlannedTask::from);
    let mut pairs = planned.iter().zip(tasks);
    let other = pairs.find(|(digest, task)| **digest != digest_planned(task));
    other.map(|(_, task)| {
        format!(
            "task {} is planned in another way than it is computed again",
            task.n
        )
    })
}
