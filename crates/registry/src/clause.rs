//! What a rule keeps between triggers: `for`, `until`, `cooldown`, `overlap` and `rate_limit`.

use jiff::SignedDuration;
use kaizen_document::{Fault, Fields, Node, Path, Problems, cut, suggest};
use kaizen_proto::id::{CellId, content_hash};
use serde::Serialize;
use serde_json::Value;

use crate::{
    condition::Condition,
    scope::Names,
    template::{Template, Templates},
};

/// Keys of a rule that keep memory.
pub(crate) const CLAUSE_KEYS: [&str; 5] = ["for", "until", "cooldown", "overlap", "rate_limit"];
/// Longest key in bytes, once rendered.
pub(crate) const KEY_BYTES_MAX: usize = 256;
/// Most triggers in a row that `for` waits for.
pub(crate) const STREAK_MAX: u64 = 1_000;
/// Most tasks of a `rate_limit` in one period.
pub(crate) const RATE_TASKS_MAX: u64 = 1_000;
/// Longest `cooldown.for` and `rate_limit.per`: what is remembered must not outlive the ledger.
const PERIOD_MAX: SignedDuration = SignedDuration::from_hours(24 * 30);
/// Shortest of them.
const PERIOD_MIN: SignedDuration = SignedDuration::from_secs(1);

/// The clauses of a rule, in the order in which a match passes them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct ClausesSpec {
    /// Matches count once so many came in a row.
    #[serde(rename = "for", skip_serializing_if = "Option::is_none")]
    pub streak: Option<StreakSpec>,
    /// After a match, nothing more until another condition holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<UntilSpec>,
    /// After a match, nothing more for a while.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cooldown: Option<CooldownSpec>,
    /// What happens while the previous task is open.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overlap: Option<OverlapSpec>,
    /// At most so many tasks in a period; what exceeds them becomes one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<RateLimitSpec>,
}

/// `for: {consecutive: 3, key: …}`, in short `for: 3`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StreakSpec {
    /// How many triggers in a row must match.
    pub consecutive: u64,
    /// Template of what is counted by itself; absent, the rule has one count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

/// `until: {when: …, key: …}`, in short `until: …`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UntilSpec {
    /// CEL condition that lets the rule match again.
    pub when: String,
    /// Template of what is held by itself; absent, the rule is held as a whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

/// `cooldown: {for: 24h, key: …}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CooldownSpec {
    /// How long it is quiet after a match.
    #[serde(
        rename = "for",
        serialize_with = "jiff::fmt::serde::duration::friendly::compact::required"
    )]
    pub quiet: SignedDuration,
    /// Template of what is quiet by itself; absent, the rule is quiet as a whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

/// `overlap: {policy: skip, key: …}`, in short `overlap: skip`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OverlapSpec {
    /// What happens.
    pub policy: OverlapPolicy,
    /// Template of what overlaps with itself alone; absent, all tasks of the rule do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

/// What happens to a match while the previous task is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum OverlapPolicy {
    /// It orders its tasks all the same.
    Allow,
    /// It orders nothing.
    Skip,
    /// The last one waits, and orders its tasks once the previous one is closed.
    BufferOne,
}

/// `rate_limit: {tasks: 5, per: 1h, key: …}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RateLimitSpec {
    /// How many tasks are ordered in one period.
    pub tasks: u64,
    /// How long a period is. It begins with the first task.
    #[serde(serialize_with = "jiff::fmt::serde::duration::friendly::compact::required")]
    pub per: SignedDuration,
    /// Template of what is limited by itself; absent, the rule as a whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

impl ClausesSpec {
    /// Whether the rule keeps nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether it holds tasks back while what it found goes on.
    #[must_use]
    pub fn holds_back(&self) -> bool {
        self.until.is_some()
            || self.cooldown.is_some()
            || self.rate_limit.is_some()
            || self.looks_at_tasks()
    }

    /// Whether the state of earlier tasks decides.
    #[must_use]
    pub fn looks_at_tasks(&self) -> bool {
        let policy = self.overlap.as_ref().map(|overlap| overlap.policy);
        policy.is_some_and(|policy| policy != OverlapPolicy::Allow)
    }
}

/// The clauses of a rule, compiled.
#[derive(Debug, Default)]
pub(crate) struct Clauses {
    pub(crate) streak: Option<Clause<u64>>,
    pub(crate) until: Option<Clause<Condition>>,
    pub(crate) cooldown: Option<Clause<SignedDuration>>,
    pub(crate) overlap: Option<Clause<OverlapPolicy>>,
    pub(crate) rate_limit: Option<Clause<RateLimit>>,
}

/// A compiled `rate_limit`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RateLimit {
    pub(crate) tasks: u64,
    pub(crate) per: SignedDuration,
}

/// One clause: what it takes, and where it keeps its memory.
#[derive(Debug)]
pub(crate) struct Clause<T> {
    pub(crate) value: T,
    pub(crate) place: Place,
}

/// Where memory is kept: all that gives it its meaning, and the template of its key.
#[derive(Debug)]
pub(crate) struct Place {
    /// Hash of definition, rule, clause and trigger.
    pub(crate) clause: String,
    /// Absent, there is one key: the empty one.
    pub(crate) key: Option<Template>,
}

impl Place {
    /// The cell for a rendered key.
    pub(crate) fn cell(&self, key: &str) -> CellId {
        CellId::new(&self.clause, key)
    }
}

impl Clauses {
    /// Where each clause keeps memory, by its key in the rule.
    pub(crate) fn places(&self) -> impl Iterator<Item = (&'static str, &Place)> {
        let streak = self.streak.as_ref().map(|clause| &clause.place);
        let until = self.until.as_ref().map(|clause| &clause.place);
        let cooldown = self.cooldown.as_ref().map(|clause| &clause.place);
        let overlap = self.overlap.as_ref().map(|clause| &clause.place);
        let rate_limit = self.rate_limit.as_ref().map(|clause| &clause.place);
        let places = [streak, until, cooldown, overlap, rate_limit];
        let named = CLAUSE_KEYS.into_iter().zip(places);
        named.filter_map(|(clause, place)| Some((clause, place?)))
    }
}

/// Decodes the clauses among the keys of a rule.
pub(crate) fn decode(rule: &Fields<'_>) -> Option<ClausesSpec> {
    let streak = clause(rule, "for", decode_streak);
    let until = clause(rule, "until", decode_until);
    let cooldown = clause(rule, "cooldown", decode_cooldown);
    let overlap = clause(rule, "overlap", decode_overlap);
    let rate_limit = clause(rule, "rate_limit", decode_rate_limit);
    let clauses = ClausesSpec {
        streak: streak?,
        until: until?,
        cooldown: cooldown?,
        overlap: overlap?,
        rate_limit: rate_limit?,
    };
    check_keys(rule, &clauses).then_some(clauses)
}

fn clause<T>(
    rule: &Fields<'_>,
    key: &str,
    decode: impl Fn(&Node, &Path, &Problems) -> Option<T>,
) -> Option<Option<T>> {
    match rule.optional(key) {
        None => Some(None),
        Some(node) => decode(node, &rule.path.key(key), rule.problems).map(Some),
    }
}

/// Under `for_each`, the items of one trigger would share a memory without a key: the first would
/// silence the others.
fn check_keys(rule: &Fields<'_>, clauses: &ClausesSpec) -> bool {
    if !rule.has("for_each") {
        return true;
    }
    let lacks = |key: Option<Option<&String>>| key.is_some_and(|key| key.is_none());
    let lacking = [
        ("for", clauses.streak.as_ref().map(|c| c.key.as_ref())),
        ("until", clauses.until.as_ref().map(|c| c.key.as_ref())),
        (
            "cooldown",
            clauses.cooldown.as_ref().map(|c| c.key.as_ref()),
        ),
        ("overlap", clauses.overlap.as_ref().map(|c| c.key.as_ref())),
    ];
    let mut complete = true;
    for (clause, _) in lacking.into_iter().filter(|(_, key)| lacks(*key)) {
        complete = false;
        let hint =
            format!("write {clause}: {{key: \"{{{{ … }}}}\", …}} with what tells items apart");
        rule.report(
            clause,
            "takes a `key` under for_each: without one all items share one memory",
            Some(hint),
        );
    }
    complete
}

fn decode_streak(node: &Node, path: &Path, problems: &Problems) -> Option<StreakSpec> {
    let (consecutive, key) = if node.as_u64().is_some() {
        (whole(node, path, STREAK_MAX, problems), Some(None))
    } else {
        let like = &[("consecutive", "3")];
        let fields = Fields::open_like(node, path.clone(), like, problems)?;
        fields.allow(&["consecutive", "key"], &[]);
        let consecutive = fields
            .required("consecutive")
            .and_then(|n| whole(n, &path.key("consecutive"), STREAK_MAX, problems));
        (consecutive, decode_key(&fields))
    };
    Some(StreakSpec {
        consecutive: consecutive?,
        key: key?,
    })
}

fn decode_until(node: &Node, path: &Path, problems: &Problems) -> Option<UntilSpec> {
    if let Some(when) = node.as_str() {
        return Some(UntilSpec {
            when: when.to_owned(),
            key: None,
        });
    }
    let like = &[("when", "context.metrics.summary.success_rate > 0.9")];
    let fields = Fields::open_like(node, path.clone(), like, problems)?;
    fields.allow(&["when", "key"], &[]);
    let when = fields.text("when");
    let key = decode_key(&fields);
    Some(UntilSpec {
        when: when?.to_owned(),
        key: key?,
    })
}

fn decode_cooldown(node: &Node, path: &Path, problems: &Problems) -> Option<CooldownSpec> {
    let fields = Fields::open_like(node, path.clone(), &[("for", "24h")], problems)?;
    fields.allow(&["for", "key"], &[]);
    let quiet = decode_period(&fields, "for");
    let key = decode_key(&fields);
    Some(CooldownSpec {
        quiet: quiet?,
        key: key?,
    })
}

fn decode_overlap(node: &Node, path: &Path, problems: &Problems) -> Option<OverlapSpec> {
    if let Some(word) = node.as_str() {
        let policy = policy(word, path.clone(), problems);
        return policy.map(|policy| OverlapSpec { policy, key: None });
    }
    let fields = Fields::open_like(node, path.clone(), &[("policy", "skip")], problems)?;
    fields.allow(&["policy", "key"], &[]);
    let policy = fields
        .text("policy")
        .and_then(|word| policy(word, path.key("policy"), problems));
    let key = decode_key(&fields);
    Some(OverlapSpec {
        policy: policy?,
        key: key?,
    })
}

fn policy(word: &str, path: Path, problems: &Problems) -> Option<OverlapPolicy> {
    let known = [
        ("allow", OverlapPolicy::Allow),
        ("skip", OverlapPolicy::Skip),
        ("buffer_one", OverlapPolicy::BufferOne),
        // As a Kubernetes CronJob has them.
        ("Allow", OverlapPolicy::Allow),
        ("Forbid", OverlapPolicy::Skip),
    ];
    let found = known.iter().find(|(name, _)| *name == word);
    if found.is_none() {
        let hint = suggest(word, "policies", &["allow", "skip", "buffer_one"]);
        problems.report(path, format!("unknown policy {:?}", cut(word)), Some(hint));
    }
    found.map(|(_, policy)| *policy)
}

fn decode_rate_limit(node: &Node, path: &Path, problems: &Problems) -> Option<RateLimitSpec> {
    let like = &[("tasks", "5"), ("per", "1h")];
    let fields = Fields::open_like(node, path.clone(), like, problems)?;
    fields.allow(&["tasks", "per", "key"], &[]);
    let tasks = fields
        .required("tasks")
        .and_then(|n| whole(n, &path.key("tasks"), RATE_TASKS_MAX, problems));
    let per = decode_period(&fields, "per");
    let key = decode_key(&fields);
    Some(RateLimitSpec {
        tasks: tasks?,
        per: per?,
        key: key?,
    })
}

fn decode_key(fields: &Fields<'_>) -> Option<Option<String>> {
    Some(fields.text_opt("key")?.map(str::to_owned))
}

/// A whole number from 1 to `most`.
pub(crate) fn whole(node: &Node, path: &Path, most: u64, problems: &Problems) -> Option<u64> {
    let number = node.as_u64().filter(|n| (1..=most).contains(n));
    if number.is_none() {
        let message = format!(
            "takes a whole number from 1 to {most}, got {}",
            node.shown()
        );
        problems.report(path.clone(), message, None);
    }
    number
}

/// A required duration between a second and thirty days.
pub(crate) fn decode_period(fields: &Fields<'_>, key: &str) -> Option<SignedDuration> {
    let text = fields.text(key)?;
    let Ok(period) = text.parse::<SignedDuration>() else {
        let message = format!("{:?} is no duration", cut(text));
        fields.report(
            key,
            message,
            Some("write for example 90m or 24h".to_owned()),
        );
        return None;
    };
    if !(PERIOD_MIN..=PERIOD_MAX).contains(&period) {
        let message = format!("{period:#} is not between {PERIOD_MIN:#} and {PERIOD_MAX:#}");
        fields.report(key, message, None);
        return None;
    }
    Some(period)
}

/// What gives the memory of a rule its meaning, beside the clause.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Meaning<'a> {
    /// Hash of the definition's id and trigger.
    pub(crate) definition: &'a str,
    /// Id of the rule.
    pub(crate) rule: &'a str,
}

impl Meaning<'_> {
    fn clause(&self, name: &str, spec: &impl Serialize) -> String {
        clause_hash(self.definition, &[self.rule, name], spec)
    }
}

/// The hash under which something keeps memory.
pub(crate) fn clause_hash(definition: &str, names: &[&str], spec: &impl Serialize) -> String {
    // Plain data with text keys: serializing cannot fail.
    let spec = serde_json::to_value(spec).unwrap_or_default();
    let names = names.iter().map(|name| Value::from(*name));
    let whole: Value = std::iter::once(Value::from(definition))
        .chain(names)
        .chain([spec])
        .collect();
    content_hash(whole.to_string().as_bytes())
}

/// Compiles the clauses of a rule; what is wrong is reported below `path`, that of the rule.
pub(crate) fn compile(
    spec: &ClausesSpec,
    meaning: Meaning<'_>,
    path: &Path,
    names: &Names<'_>,
    templates: &mut Templates,
    report: &impl Fn(Path, Fault),
) -> Option<Clauses> {
    let mut place = |name: &str, hash: String, key: Option<&String>| {
        let path = path.key(name).key("key");
        let key = match key {
            None => None,
            Some(source) => Some(
                templates
                    .add(path.to_string(), source, names)
                    .map_err(|fault| report(path, fault))
                    .ok()?,
            ),
        };
        Some(Place { clause: hash, key })
    };
    let streak = compiled(spec.streak.as_ref(), |spec| {
        let place = place("for", meaning.clause("for", spec), spec.key.as_ref())?;
        let value = spec.consecutive;
        Some(Clause { value, place })
    });
    let until = compiled(spec.until.as_ref(), |spec| {
        let place = place("until", meaning.clause("until", spec), spec.key.as_ref());
        let value = Condition::compile(&spec.when, names)
            .map_err(|fault| report(path.key("until").key("when"), fault))
            .ok()?;
        place.map(|place| Clause { value, place })
    });
    let cooldown = compiled(spec.cooldown.as_ref(), |spec| {
        let hash = meaning.clause("cooldown", spec);
        let place = place("cooldown", hash, spec.key.as_ref())?;
        let value = spec.quiet;
        Some(Clause { value, place })
    });
    let overlap = compiled(
        spec.overlap
            .as_ref()
            .filter(|overlap| overlap.policy != OverlapPolicy::Allow),
        |spec| {
            let place = place(
                "overlap",
                meaning.clause("overlap", spec),
                spec.key.as_ref(),
            )?;
            let value = spec.policy;
            Some(Clause { value, place })
        },
    );
    let rate_limit = compiled(spec.rate_limit.as_ref(), |spec| {
        let hash = meaning.clause("rate_limit", spec);
        let place = place("rate_limit", hash, spec.key.as_ref())?;
        let (tasks, per) = (spec.tasks, spec.per);
        let value = RateLimit { tasks, per };
        Some(Clause { value, place })
    });
    Some(Clauses {
        streak: streak?,
        until: until?,
        cooldown: cooldown?,
        overlap: overlap?,
        rate_limit: rate_limit?,
    })
}

fn compiled<S, T>(spec: Option<&S>, compile: impl FnOnce(&S) -> Option<T>) -> Option<Option<T>> {
    match spec {
        None => Some(None),
        Some(spec) => compile(spec).map(Some),
    }
}
