//! What a seed has in store: who there is, what is asked of them, and what is done to them. All
//! of it follows from the seed, and any part of it may be left out again: that is how a failing
//! seed is made small.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    ops::Range,
};

use kaizen_proto::stream;
use serde_json::{Map, Value, json};

use crate::{
    documents::{BUILT, DEFINITIONS, SOLD, VERSIONS},
    random::Random,
    world::{MS, Micros, ProcessId, SECOND},
};

/// Whoever may be harmed, by their place among all processes.
pub mod place {
    use std::ops::Range;

    /// Applies, cancels, retries.
    pub const ADMIN: usize = 0;
    /// Publish events, and try again until they are accepted.
    pub const CLIENTS: usize = 1;
    /// Binds what comes from outside.
    pub const RESOLVER: usize = 2;
    /// Gateways.
    pub const GATEWAYS: Range<usize> = 3..5;
    /// Schedulers.
    pub const SCHEDULERS: Range<usize> = 5..8;
    /// Routers.
    pub const ROUTERS: Range<usize> = 8..11;
    /// Workers.
    pub const WORKERS: Range<usize> = 11..14;
    /// All of which there may be several.
    pub const ALL: [Range<usize>; 4] = [GATEWAYS, SCHEDULERS, ROUTERS, WORKERS];
}

/// One thing that happens to one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageFault {
    /// It never arrives.
    RequestLost,
    /// Its answer never arrives.
    AnswerLost,
    /// It arrives again, so much later.
    Doubled(Micros),
    /// It arrives so much later.
    RequestLate(Micros),
    /// Its answer arrives so much later.
    AnswerLate(Micros),
}

impl fmt::Display for MessageFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RequestLost => write!(f, "lost"),
            Self::AnswerLost => write!(f, "its answer is lost"),
            Self::Doubled(by) => write!(f, "arrives again {} ms later", by / MS),
            Self::RequestLate(by) => write!(f, "is {} ms late", by / MS),
            Self::AnswerLate(by) => write!(f, "its answer is {} ms late", by / MS),
        }
    }
}

/// Which messages something happens to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Messages {
    /// As it is drawn.
    ByWeather,
    /// To these, by process and its count of messages.
    These(BTreeMap<(ProcessId, u64), MessageFault>),
}

/// How often something happens to a message, in ten thousand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Weather {
    /// See [`MessageFault`].
    pub request_lost: u64,
    /// See [`MessageFault`].
    pub answer_lost: u64,
    /// See [`MessageFault`].
    pub doubled: u64,
    /// See [`MessageFault`].
    pub request_late: u64,
    /// See [`MessageFault`].
    pub answer_late: u64,
}

/// Something that somebody outside asks for.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// An event, through a gateway.
    Publish(Vec<u8>),
    /// An event, published by a client of NATS that asks nobody, on the subject of a type.
    Raw(&'static str, Vec<u8>),
    /// A version of a definition is applied.
    Apply(&'static str, u64),
    /// Some open task is called off.
    Cancel(u64),
    /// Some ended task is ordered again.
    Retry(u64),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Publish(event) => write!(f, "publish {}", String::from_utf8_lossy(event)),
            Self::Raw(event_type, event) => {
                let event = String::from_utf8_lossy(event);
                write!(f, "publish raw as {event_type}: {event}")
            }
            Self::Apply(id, version) => write!(f, "apply {id} in version {version}"),
            Self::Cancel(_) => write!(f, "cancel a task"),
            Self::Retry(_) => write!(f, "retry a task"),
        }
    }
}

/// Something that is done to a process or a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Harm {
    /// A process dies, and starts again after so long.
    Kill(ProcessId, Micros),
    /// A process is asked to stop, and starts again after so long.
    Drain(ProcessId, Micros),
    /// A process stands still for so long.
    Freeze(ProcessId, Micros),
    /// What streams deliver to a process for so long gets lost.
    Deaf(ProcessId, Micros),
    /// The clock of a process is wrong by so much from now on.
    Clock(ProcessId, i64),
    /// A stream has no leader for so long; whether what was in flight is kept, and whether nobody
    /// answers meanwhile.
    Leader(&'static str, Micros, bool, bool),
    /// The followers of a stream are behind for so long.
    Behind(&'static str, Micros),
    /// A leader that a stream had goes on answering for so long, now and then, with what it knows.
    Deposed(&'static str, Micros),
    /// A stream takes long to store for so long.
    Slow(&'static str, Micros),
    /// EVENTS forgets the ids of its messages.
    ForgetIds,
    /// The resolver fails for so long.
    ResolverFails(Micros),
}

impl fmt::Display for Harm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |id: &ProcessId| name(*id);
        match self {
            Self::Kill(id, down) => write!(f, "kill {} for {} ms", name(id), down / MS),
            Self::Drain(id, down) => write!(f, "stop {} for {} ms", name(id), down / MS),
            Self::Freeze(id, long) => write!(f, "freeze {} for {} ms", name(id), long / MS),
            Self::Deaf(id, long) => {
                write!(f, "{} hears nothing for {} ms", name(id), long / MS)
            }
            Self::Clock(id, ahead) => {
                write!(f, "clock of {} is {} ms ahead", name(id), ahead / 1_000)
            }
            Self::Leader(stream, away, keeps, silent) => {
                let kept = if *keeps { "kept" } else { "lost" };
                let said = if *silent { ", nobody answers" } else { "" };
                let ms = away / MS;
                write!(
                    f,
                    "{stream} without leader for {ms} ms, what is in flight is {kept}{said}"
                )
            }
            Self::Behind(stream, long) => {
                write!(f, "followers of {stream} behind for {} ms", long / MS)
            }
            Self::Deposed(stream, long) => {
                write!(f, "{stream} has a second leader for {} ms", long / MS)
            }
            Self::Slow(stream, long) => write!(f, "{stream} slow for {} ms", long / MS),
            Self::ForgetIds => write!(f, "EVENTS forgets its ids"),
            Self::ResolverFails(long) => write!(f, "the resolver fails for {} ms", long / MS),
        }
    }
}

/// The name of a process.
#[must_use]
pub fn name(id: ProcessId) -> String {
    let ranges = [
        ("gateway", place::GATEWAYS),
        ("scheduler", place::SCHEDULERS),
        ("router", place::ROUTERS),
        ("worker", place::WORKERS),
    ];
    for (name, range) in ranges {
        if range.contains(&id) {
            return format!("{name}-{}", id - range.start);
        }
    }
    match id {
        place::ADMIN => "admin".to_owned(),
        place::CLIENTS => "clients".to_owned(),
        _ => "resolver".to_owned(),
    }
}

/// What a seed has in store.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// The seed.
    pub seed: u64,
    /// Who there is.
    pub processes: BTreeSet<ProcessId>,
    /// The definitions that are applied at the beginning.
    pub definitions: Vec<&'static str>,
    /// Whether routers gather what several inputs lead to.
    pub gathers: bool,
    /// What is asked, and when.
    pub steps: Vec<(Micros, Step)>,
    /// What is done to whom, and when.
    pub harms: Vec<(Micros, Harm)>,
    /// How messages travel.
    pub weather: Weather,
    /// Which of them do not travel well.
    pub messages: Messages,
    /// From when on nothing is harmed any more.
    pub quiet_from: Micros,
}

/// How long something is asked and harmed.
const BUSY: Micros = 22 * SECOND;

impl Plan {
    /// What a seed has in store.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        let mut random = Random::of(&[seed, 0]);
        let draw = &mut random;
        let mut processes = BTreeSet::from([place::ADMIN, place::CLIENTS, place::RESOLVER]);
        for range in place::ALL {
            let most = u64::try_from(range.len()).unwrap_or(1);
            let count = usize::try_from(draw.between(1, most)).unwrap_or(1);
            processes.extend(range.take(count));
        }
        let mut definitions: Vec<_> = DEFINITIONS
            .into_iter()
            .filter(|_| draw.happens(4_000))
            .collect();
        if definitions.is_empty() {
            definitions.extend(draw.one_of(&DEFINITIONS));
        }
        let steps = steps(draw, &definitions);
        let mut harms = harms(draw, &processes);
        harms.extend(outage(seed));
        harms.sort_by_key(|(at, _)| *at);
        Self {
            seed,
            weather: weather(draw),
            gathers: draw.happens(5_000),
            processes,
            definitions,
            steps,
            harms,
            messages: Messages::ByWeather,
            quiet_from: BUSY + 3 * SECOND,
        }
    }
}

/// Now and then the resolver fails for longer than a reader goes on asking, and a router is to stop
/// meanwhile.
fn outage(seed: u64) -> Vec<(Micros, Harm)> {
    let draw = &mut Random::of(&[seed, 7]);
    if !draw.happens(400) {
        return Vec::new();
    }
    let (at, long) = (draw.between(2, 12), draw.between(122, 140));
    let (later, down) = (draw.between(2, 9), draw.between(1, 3));
    vec![
        (at * SECOND, Harm::ResolverFails(long * SECOND)),
        (
            (at + later) * SECOND,
            Harm::Drain(place::ROUTERS.start, down * SECOND),
        ),
    ]
}

fn weather(draw: &mut Random) -> Weather {
    let mut rate = || {
        if draw.happens(5_000) {
            draw.between(20, 300)
        } else {
            0
        }
    };
    Weather {
        request_lost: rate(),
        answer_lost: rate(),
        doubled: rate(),
        request_late: rate(),
        answer_late: rate(),
    }
}

fn steps(draw: &mut Random, definitions: &[&'static str]) -> Vec<(Micros, Step)> {
    let count = draw.between(4, 16);
    let mut steps = Vec::new();
    for number in 0..count {
        let at = SECOND + draw.below(BUSY - SECOND);
        let step = match draw.below(100) {
            0..70 => publish(draw, number),
            70..82 => raw(draw, number),
            82..90 => match draw.one_of(definitions) {
                Some(id) => Step::Apply(id, draw.below(VERSIONS)),
                None => continue,
            },
            90..95 => Step::Cancel(draw.next_number()),
            _ => Step::Retry(draw.next_number()),
        };
        // Now and then several come at once, and one of them twice.
        if draw.happens(1_000) {
            let raw = Step::Raw(SOLD, event(draw, number, SOLD).to_string().into_bytes());
            steps.push((at, raw.clone()));
            steps.push((at + draw.below(2) * MS, raw));
        }
        // Now and then somebody sends the same again.
        if draw.happens(1_500) {
            let again = at + draw.below(6_000) * MS;
            steps.push((again.min(BUSY), step.clone()));
        }
        steps.push((at, step));
    }
    steps.sort_by_key(|(at, _)| *at);
    steps
}

/// An event: mostly one of its own, now and then another under an id that is taken.
fn event(draw: &mut Random, number: u64, event_type: &str) -> Value {
    let id = if draw.happens(1_200) {
        draw.below(number + 1)
    } else {
        number
    };
    let project = draw.one_of(&["a", "b", "c"]).copied().unwrap_or("a");
    let mut attributes = Map::from_iter([("project".to_owned(), json!(project))]);
    // Without a value the rules that ask for it fail.
    if draw.happens(9_300) {
        attributes.insert("value".to_owned(), json!(draw.below(100)));
    }
    if draw.happens(7_000) {
        attributes.insert("odd".to_owned(), json!(draw.below(2)));
    }
    json!({"id": format!("e{id}"), "type": event_type, "source": "shop", "attributes": attributes})
}

fn publish(draw: &mut Random, number: u64) -> Step {
    let event_type = if draw.happens(2_000) { BUILT } else { SOLD };
    Step::Publish(event(draw, number, event_type).to_string().into_bytes())
}

fn raw(draw: &mut Random, number: u64) -> Step {
    let event = event(draw, number, SOLD);
    let with = |key: &str, value: Value| {
        let mut event = event.clone();
        if let Some(fields) = event.as_object_mut() {
            fields.insert(key.to_owned(), value);
        }
        event.to_string().into_bytes()
    };
    match draw.below(6) {
        0 => Step::Raw(SOLD, b"{broken".to_vec()),
        1 => Step::Raw("shop.unknown", with("type", json!("shop.unknown"))),
        2 => Step::Raw(SOLD, with("attributes", json!({"value": "much"}))),
        _ => Step::Raw(SOLD, event.to_string().into_bytes()),
    }
}

fn harms(draw: &mut Random, processes: &BTreeSet<ProcessId>) -> Vec<(Micros, Harm)> {
    let victims: Vec<ProcessId> = processes
        .iter()
        .copied()
        .filter(|id| !matches!(*id, place::CLIENTS | place::RESOLVER))
        .collect();
    let streams = [
        stream::EVENTS,
        stream::TICKS,
        stream::LEDGER,
        stream::LEDGER,
        stream::REGISTRY,
    ];
    let some = |draw: &mut Random, range: Range<ProcessId>| {
        let theirs: Vec<_> = processes.iter().filter(|id| range.contains(*id)).collect();
        draw.one_of(&theirs).map_or(range.start, |id| **id)
    };
    let mut harms = Vec::new();
    for _ in 0..draw.between(1, 7) {
        let at = SECOND / 2 + draw.below(BUSY);
        let victim = draw.one_of(&victims).copied().unwrap_or(place::ADMIN);
        let stream = draw.one_of(&streams).copied().unwrap_or(stream::LEDGER);
        let ms = |draw: &mut Random, least, most| draw.between(least, most) * MS;
        let harm = match draw.below(100) {
            0..20 => Harm::Kill(victim, ms(draw, 10, 6_000)),
            20..28 => {
                let router = some(draw, place::ROUTERS);
                // What takes long to store is being handled when the stop comes.
                harms.push((
                    at.saturating_sub(200 * MS),
                    Harm::Slow(stream::LEDGER, 2 * SECOND),
                ));
                Harm::Drain(router, ms(draw, 10, 2_000))
            }
            28..31 => Harm::Drain(victim, ms(draw, 10, 2_000)),
            31..42 => Harm::Freeze(victim, ms(draw, 100, 9_000)),
            // So long that somebody else is given what it was at.
            42..45 => Harm::Freeze(some(draw, place::WORKERS), ms(draw, 30_000, 40_000)),
            45..53 => {
                let ahead = i64::try_from(draw.between(1, 4_000)).unwrap_or(1) * 1_000_000;
                let sign = if draw.happens(5_000) { 1 } else { -1 };
                Harm::Clock(some(draw, place::SCHEDULERS), sign * ahead)
            }
            53..72 => {
                let (keeps, silent) = (draw.happens(5_000), draw.happens(4_000));
                if draw.happens(5_000) {
                    // Then there is something in flight.
                    harms.push((at.saturating_sub(600 * MS), Harm::Slow(stream, SECOND)));
                }
                if draw.happens(6_000) {
                    harms.push((at, Harm::Deposed(stream, ms(draw, 1_000, 12_000))));
                }
                Harm::Leader(stream, ms(draw, 20, 3_000), keeps, silent)
            }
            72..77 => Harm::Behind(stream, ms(draw, 500, 5_000)),
            77..82 => {
                // Whoever takes over meanwhile may read what was.
                let (router, down) = (some(draw, place::ROUTERS), ms(draw, 500, 6_000));
                harms.push((at + ms(draw, 200, 3_000), Harm::Kill(router, down)));
                Harm::Behind(stream::LEDGER, ms(draw, 6_000, 9_000))
            }
            82..88 => Harm::Slow(stream, ms(draw, 500, 5_000)),
            88..92 => Harm::ForgetIds,
            92..95 => {
                let readers = place::SCHEDULERS.start..place::ROUTERS.end;
                Harm::Deaf(some(draw, readers), ms(draw, 200, 4_000))
            }
            _ => Harm::ResolverFails(ms(draw, 500, 8_000)),
        };
        harms.push((at, harm));
    }
    if draw.happens(400) {
        // So long without a scheduler that slots are missed, not late.
        let (at, down) = (draw.between(2, 6) * SECOND, draw.between(31, 33) * SECOND);
        let theirs = processes
            .iter()
            .filter(|id| place::SCHEDULERS.contains(*id));
        harms.extend(theirs.map(|id| (at, Harm::Kill(*id, down))));
    }
    // A known difference, too: a revision has the time at which its leader took it, and may be
    // seen only after an event with a later time has been decided.
    harms.retain(|(_, harm)| !matches!(harm, Harm::Slow(stream::REGISTRY, _)));
    harms
}
