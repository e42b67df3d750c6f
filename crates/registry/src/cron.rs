//! The cron trigger of a document: when, and what becomes of what was missed.

use std::fmt::Display;

use jiff::{SignedDuration, Timestamp, civil::Date, tz};
use kaizen_document::{Fields, Path, Problems, cut, nearest};
use kaizen_schedule::{
    CatchUp, CatchUpPolicy, CronExpr, DstSpec, Exclude, Gap, JITTER_MAX, Overlap, Schedule,
    ScheduleError, ScheduleSpec,
};

/// The zone of a trigger that names none.
pub(crate) const TIMEZONE: &str = "UTC";
/// Most days that a schedule leaves out by date.
const EXCLUDE_DATES_MAX: usize = 1_000;
/// Most expressions that a schedule leaves out; each is asked for each slot.
const EXCLUDE_CRONS_MAX: usize = 16;

const KEYS: [&str; 9] = [
    "type", "cron", "timezone", "dst", "start", "end", "exclude", "jitter", "catchup",
];

/// Reads the keys beside `type: cron`. `seed` is the definition's name: what is hashed
/// may never fire for one id and fire for another, as `0 0 H(29-31) 2 *` does.
pub(crate) fn decode(trigger: &Fields<'_>, seed: &str) -> Option<(ScheduleSpec, CatchUp)> {
    trigger.allow(&KEYS, &[]);
    let cron = decode_expression(trigger, seed);
    let timezone = decode_timezone(trigger);
    let dst = decode_dst(trigger);
    let bounds = decode_bounds(trigger);
    let exclude = decode_exclude(trigger);
    let jitter = decode_jitter(trigger);
    let catchup = decode_catchup(trigger);
    let (start, end) = bounds?;
    let schedule = ScheduleSpec {
        cron: cron?,
        timezone: timezone?,
        dst: dst?,
        start,
        end,
        exclude: exclude?,
        jitter: jitter?,
    };
    // Each key is right by itself: what is left is that together they never fire.
    Schedule::new(&schedule, seed)
        .map_err(|error| report(&error, &trigger.path, trigger.problems))
        .ok()?;
    Some((schedule, catchup?))
}

/// Reports what is wrong with a schedule as a whole, below the path of its trigger.
pub(crate) fn report(error: &ScheduleError, trigger: &Path, problems: &Problems) {
    let key = error.key();
    let names = key.names().iter();
    let path = names.fold(trigger.clone(), |path, name| path.key(name));
    let path = match key.index() {
        Some(index) => path.index(index),
        None => path,
    };
    problems.report(path, error.to_string(), None);
}

/// Tries an expression by itself.
fn try_expression(text: &str, seed: &str) -> Result<Schedule, ScheduleError> {
    let schedule = ScheduleSpec {
        cron: text.to_owned(),
        ..ScheduleSpec::default()
    };
    Schedule::new(&schedule, seed)
}

fn decode_expression(trigger: &Fields<'_>, seed: &str) -> Option<String> {
    let text = trigger.text("cron")?;
    try_expression(text, seed)
        .map_err(|error| report(&error, &trigger.path, trigger.problems))
        .ok()?;
    Some(text.to_owned())
}

/// Those that are compiled in, as the schedule has them, not those of the machine.
fn zones() -> tz::TimeZoneDatabase {
    tz::TimeZoneDatabase::bundled()
}

/// The zone under the name that the database gives it, whatever case it was written in.
fn decode_timezone(trigger: &Fields<'_>) -> Option<String> {
    let Some(text) = trigger.text_opt("timezone")? else {
        return Some(TIMEZONE.to_owned());
    };
    let zone = zones().get(text).ok();
    let name = zone.as_ref().and_then(tz::TimeZone::iana_name);
    if name.is_none() {
        let message = format!("{:?} is no time zone", cut(text));
        trigger.report("timezone", message, Some(zone_hint(text)));
    }
    name.map(str::to_owned)
}

/// People know their city and not its continent: `Berlin` finds Europe/Berlin.
fn zone_hint(text: &str) -> String {
    let names: Vec<String> = zones().available().map(|name| name.to_string()).collect();
    let city = |name: &&String| {
        let last = name.rsplit('/').next();
        last.is_some_and(|last| last.eq_ignore_ascii_case(text))
    };
    let found = names.iter().find(city).map(String::as_str);
    match found.or_else(|| nearest(text, names.iter().map(String::as_str))) {
        Some(name) => format!("did you mean `{name}`?"),
        None => "use an IANA name such as Europe/Berlin".to_owned(),
    }
}

fn decode_dst(trigger: &Fields<'_>) -> Option<DstSpec> {
    let Some(value) = trigger.optional("dst") else {
        return Some(DstSpec::default());
    };
    let fields = Fields::open(value, trigger.path.key("dst"), trigger.problems)?;
    fields.allow(&["gap", "overlap"], &[]);
    let gap = choice(
        &fields,
        "gap",
        &[("shift", Gap::Shift), ("skip", Gap::Skip)],
    );
    let overlap = choice(
        &fields,
        "overlap",
        &[
            ("first", Overlap::First),
            ("last", Overlap::Last),
            ("both", Overlap::Both),
        ],
    );
    Some(DstSpec {
        gap: gap?,
        overlap: overlap?,
    })
}

/// One of a few words, or none.
fn choice<T: Copy>(
    fields: &Fields<'_>,
    key: &str,
    choices: &[(&'static str, T)],
) -> Option<Option<T>> {
    let Some(text) = fields.text_opt(key)? else {
        return Some(None);
    };
    let found = choices.iter().find(|(word, _)| *word == text);
    if found.is_none() {
        let words: Vec<_> = choices.iter().map(|(word, _)| *word).collect();
        let message = format!("unknown {key} {:?}", cut(text));
        fields.report(key, message, Some(format!("use {}", any_of(&words))));
    }
    found.map(|(_, value)| Some(*value))
}

/// `first, last or both`.
fn any_of(words: &[&str]) -> String {
    match words {
        [rest @ .., last] if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        words => words.concat(),
    }
}

type Bounds = (Option<Timestamp>, Option<Timestamp>);

fn decode_bounds(trigger: &Fields<'_>) -> Option<Bounds> {
    let start = decode_instant(trigger, "start");
    let end = decode_instant(trigger, "end");
    let (start, end) = (start?, end?);
    if let (Some(start), Some(end)) = (start, end)
        && end <= start
    {
        let message = format!("{end} is not after start, {start}");
        trigger.report("end", message, None);
        return None;
    }
    Some((start, end))
}

fn decode_instant(fields: &Fields<'_>, key: &str) -> Option<Option<Timestamp>> {
    let Some(text) = fields.text_opt(key)? else {
        return Some(None);
    };
    let instant = text.parse::<Timestamp>();
    if instant.is_err() {
        let message = format!("{:?} is no instant", cut(text));
        let hint = "write date, time and offset, for example 2026-12-01T00:00:00Z or \
            2026-12-01T00:00:00+01:00";
        fields.report(key, message, Some(hint.to_owned()));
    }
    instant.ok().map(Some)
}

fn decode_exclude(trigger: &Fields<'_>) -> Option<Exclude> {
    let Some(value) = trigger.optional("exclude") else {
        return Some(Exclude::default());
    };
    let fields = Fields::open(value, trigger.path.key("exclude"), trigger.problems)?;
    fields.allow(&["dates", "crons"], &[]);
    let dates = decode_texts(&fields, "dates", EXCLUDE_DATES_MAX, date);
    let crons = decode_texts(&fields, "crons", EXCLUDE_CRONS_MAX, |text| {
        CronExpr::parse(text).map(|_| text.to_owned())
    });
    Some(Exclude {
        dates: dates?,
        crons: crons?,
    })
}

fn date(text: &str) -> Result<Date, String> {
    // jiff reads a whole instant as its date as well; that would hide a slip.
    let date = text.parse::<Date>().ok();
    date.filter(|date| date.to_string() == text)
        .ok_or_else(|| format!("{:?} is no date; write for example 2026-12-25", cut(text)))
}

/// A list of texts, each read by `read`; all that are wrong are told.
fn decode_texts<T, E: Display>(
    fields: &Fields<'_>,
    key: &str,
    items_max: usize,
    read: impl Fn(&str) -> Result<T, E>,
) -> Option<Vec<T>> {
    let read_item = |(path, node): (Path, &kaizen_document::Node)| {
        let Some(text) = node.as_str() else {
            let message = format!("takes a text, got {}", node.shown());
            fields.problems.report(path, message, None);
            return None;
        };
        read(text)
            .map_err(|error| fields.problems.report(path, error.to_string(), None))
            .ok()
    };
    let items = fields.list(key, items_max)?;
    let read: Vec<_> = items.into_iter().map(read_item).collect();
    read.into_iter().collect()
}

fn decode_jitter(trigger: &Fields<'_>) -> Option<Option<SignedDuration>> {
    let Some(text) = trigger.text_opt("jitter")? else {
        return Some(None);
    };
    let jitter = decode_duration(trigger, "jitter", text, "30s or 5m")?;
    if jitter > JITTER_MAX {
        let message = format!("{text:?} exceeds {JITTER_MAX:#}");
        trigger.report("jitter", message, None);
        return None;
    }
    Some((!jitter.is_zero()).then_some(jitter))
}

/// Not negative.
pub(crate) fn decode_duration(
    fields: &Fields<'_>,
    key: &str,
    text: &str,
    example: &str,
) -> Option<SignedDuration> {
    let duration = text.parse::<SignedDuration>().ok();
    let duration = duration.filter(|duration| !duration.is_negative());
    if duration.is_none() {
        let hint = Some(format!("write for example {example}"));
        fields.report(key, format!("{:?} is no duration", cut(text)), hint);
    }
    duration
}

fn decode_catchup(trigger: &Fields<'_>) -> Option<CatchUp> {
    let Some(value) = trigger.optional("catchup") else {
        return Some(CatchUp::default());
    };
    let path = trigger.path.key("catchup");
    let fields = Fields::open(value, path, trigger.problems)?;
    fields.allow(&["policy", "window"], &[]);
    let policy = decode_policy(&fields);
    let window = decode_window(&fields);
    Some(CatchUp {
        policy: policy?,
        window: window?,
    })
}

fn decode_policy(fields: &Fields<'_>) -> Option<CatchUpPolicy> {
    let choices = [
        ("all", CatchUpPolicy::All),
        ("last", CatchUpPolicy::Last),
        ("none", CatchUpPolicy::None),
    ];
    let policy = choice(fields, "policy", &choices)?;
    Some(policy.unwrap_or(CatchUp::default().policy))
}

/// Absent, the default; null, no limit.
fn decode_window(fields: &Fields<'_>) -> Option<Option<SignedDuration>> {
    if fields.is_null("window") {
        return Some(None);
    }
    let Some(text) = fields.text_opt("window")? else {
        return Some(CatchUp::default().window);
    };
    decode_duration(fields, "window", text, "90m or 1h").map(Some)
}
