//! One stream: what its leader takes, refuses and tells.

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt,
    ops::Bound,
    rc::Rc,
};

use crate::world::{MS, Micros};

/// What must hold for a message to be stored: as `kaizen_messaging::Guard`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Guard {
    /// Nothing.
    None,
    /// The last message on the subject has this sequence; 0 means that there is none.
    Last(u64),
    /// Nothing stands on any subject that this filter matches.
    Vacant(Rc<str>),
}

/// A message to be stored.
#[derive(Debug, Clone)]
pub struct Draft {
    /// Its subject.
    pub subject: Rc<str>,
    /// Its bytes.
    pub payload: Rc<[u8]>,
    /// What must hold.
    pub guard: Guard,
    /// Its id, where the server is to tell it from others.
    pub id: Option<Rc<str>>,
    /// How many tasks and events lie between it and the first trigger.
    pub hops: u32,
    /// It replaces what stands on its subject.
    pub rolls_up: bool,
    /// How long it is kept.
    pub ttl: Option<Micros>,
}

impl Draft {
    /// A message with nothing but a guard.
    #[must_use]
    pub fn new(subject: &str, payload: Vec<u8>, guard: Guard) -> Self {
        Self {
            subject: subject.into(),
            payload: payload.into(),
            guard,
            id: None,
            hops: 0,
            rolls_up: false,
            ttl: None,
        }
    }
}

/// A message, as it is stored.
#[derive(Debug)]
pub struct Message {
    /// Its sequence.
    pub sequence: u64,
    /// Its subject.
    pub subject: Rc<str>,
    /// Its bytes.
    pub payload: Rc<[u8]>,
    /// When the leader stamped it.
    pub stored_at: Micros,
    /// As in [`Draft`].
    pub hops: u32,
    /// Further messages of the same batch follow.
    pub more: bool,
    /// Which write it came with: all messages of a batch share it.
    pub write: u64,
    /// From when on it is kept no more.
    expires_at: Option<Micros>,
    /// The message that replaced it.
    replaced_by: Cell<Option<u64>>,
}

impl Message {
    /// For the history: where it is, and how it begins.
    #[must_use]
    pub fn told(&self) -> String {
        let text = String::from_utf8_lossy(&self.payload);
        let begin: String = text.chars().take(110).collect();
        format!("{} on {}: {begin}", self.sequence, self.subject)
    }

    fn stands(&self, at: u64, now: Micros) -> bool {
        self.sequence <= at
            && self.replaced_by.get().is_none_or(|by| by > at)
            && self.expires_at.is_none_or(|expires| expires > now)
    }
}

/// Why a stream does not take something, by the code of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// 10071
    WrongLastSequence,
    /// 10164
    InFlight,
    /// 10158
    SameIdInProcess,
    /// 503
    NoLeader,
    /// 10176
    BatchIncomplete,
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::WrongLastSequence => "10071, wrong last sequence",
            Self::InFlight => "10164, another write in flight",
            Self::SameIdInProcess => "10158, same id in process",
            Self::NoLeader => "503, no leader",
            Self::BatchIncomplete => "10176, batch incomplete",
        })
    }
}

/// What a stream says of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Published {
    /// All of it is stored; the last message has this sequence.
    Stored(u64),
    /// A message with this id stands there.
    Duplicate(u64),
    /// Nothing is stored.
    Refused(Code),
}

/// What becomes of a write that has arrived.
#[derive(Debug)]
pub enum Judged {
    /// Nobody answers.
    Silent,
    /// That much can be said at once.
    Answer(Published),
    /// It is on its way to the followers, and is stored then, if no leader is lost before.
    Proposed(u64, Micros),
}

struct Proposal {
    number: u64,
    drafts: Rc<Vec<Draft>>,
    stored_at: Micros,
    keys: Vec<Rc<str>>,
}

/// A stream, as its leader holds it.
#[derive(Default)]
pub struct Stream {
    log: Vec<Rc<Message>>,
    subjects: BTreeMap<Rc<str>, Vec<u64>>,
    proposals: VecDeque<Proposal>,
    /// Guards of writes that are on their way, by their text.
    in_flight: BTreeSet<Rc<str>>,
    ids: BTreeMap<Rc<str>, u64>,
    ids_in_process: BTreeSet<Rc<str>>,
    proposed: u64,
    last_commit: Micros,
    /// How often its leader has changed.
    pub leader: u64,
    /// Until when it has no leader.
    pub away_until: Micros,
    /// Whether nobody answers meanwhile, rather than that there is no leader.
    is_silent: bool,
    /// Until when its followers are behind.
    pub behind_until: Micros,
    /// Up to where they have come.
    pub behind_at: u64,
    /// Until when a leader that it had answers, too.
    pub deposed_until: Micros,
    /// Up to where that one has come.
    pub deposed_at: u64,
    /// Until when commits take long.
    pub slow_until: Micros,
}

impl Stream {
    /// An empty stream.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// All that was ever stored, in order.
    #[must_use]
    pub fn all(&self) -> &[Rc<Message>] {
        &self.log
    }

    /// Sequence of the last message.
    #[must_use]
    pub fn last_sequence(&self) -> u64 {
        self.log.last().map_or(0, |message| message.sequence)
    }

    /// Whether it has a leader; `None` where nobody would answer.
    #[must_use]
    pub fn answers(&self, now: Micros) -> Option<bool> {
        match (self.away_until > now, self.is_silent) {
            (false, _) => Some(true),
            (true, false) => Some(false),
            (true, true) => None,
        }
    }

    /// The message at a sequence.
    #[must_use]
    pub fn at(&self, sequence: u64) -> Option<&Rc<Message>> {
        let index = usize::try_from(sequence.checked_sub(1)?).ok()?;
        self.log.get(index)
    }

    /// Every message that stands and that a filter matches, as a replica holds them that has come
    /// up to a sequence; by subject.
    fn matching<'a>(
        &'a self,
        filter: &'a str,
        at: u64,
        now: Micros,
    ) -> impl Iterator<Item = Vec<&'a Rc<Message>>> {
        let prefix = filter.find(['*', '>']).map_or(filter, |end| &filter[..end]);
        let from = (Bound::Included(prefix), Bound::Unbounded);
        self.subjects
            .range::<str, _>(from)
            .take_while(move |(subject, _)| subject.starts_with(prefix))
            .filter(move |(subject, _)| matches(filter, subject))
            .map(move |(_, sequences)| {
                let messages = sequences.iter().filter_map(|sequence| self.at(*sequence));
                messages.filter(|message| message.stands(at, now)).collect()
            })
    }

    /// The last message that stands where a filter matches, as a replica holds them that has come
    /// up to a sequence.
    #[must_use]
    pub fn last(&self, filter: &str, at: u64, now: Micros) -> Option<Rc<Message>> {
        let lasts = self.matching(filter, at, now);
        let lasts = lasts.filter_map(|messages| messages.last().copied());
        lasts.max_by_key(|message| message.sequence).cloned()
    }

    /// The first message that stands where a filter matches, as above.
    #[must_use]
    pub fn first(&self, filter: &str, at: u64, now: Micros) -> Option<Rc<Message>> {
        let firsts = self.matching(filter, at, now);
        let firsts = firsts.filter_map(|messages| messages.first().copied());
        firsts.min_by_key(|message| message.sequence).cloned()
    }

    /// The last message on each subject that a filter matches, as a replica holds them that has
    /// come up to a sequence, in order.
    #[must_use]
    pub fn latest(&self, filter: &str, at: u64, now: Micros) -> Vec<Rc<Message>> {
        let lasts = self.matching(filter, at, now);
        let lasts = lasts.filter_map(|messages| messages.last().copied().cloned());
        let mut lasts: Vec<_> = lasts.collect();
        lasts.sort_by_key(|message| message.sequence);
        lasts
    }

    /// What becomes of a write that arrives now. Guards see what is committed, and what is in
    /// flight by the text of the guard alone.
    pub(super) fn judge(&mut self, drafts: &Rc<Vec<Draft>>, now: Micros) -> Judged {
        if self.away_until > now {
            return match self.is_silent {
                true => Judged::Silent,
                false => Judged::Answer(Published::Refused(Code::NoLeader)),
            };
        }
        if let Some(answer) = self.refuses(drafts, now) {
            return Judged::Answer(answer);
        }
        self.proposed += 1;
        let number = self.proposed;
        let mut keys = Vec::new();
        for draft in drafts.iter() {
            keys.extend(key(draft));
            self.ids_in_process.extend(draft.id.clone());
        }
        self.in_flight.extend(keys.iter().cloned());
        let takes = match self.slow_until > now {
            true => 700 * MS,
            false => 200,
        };
        self.last_commit = self.last_commit.max(now + takes);
        self.proposals.push_back(Proposal {
            number,
            drafts: drafts.clone(),
            stored_at: now,
            keys,
        });
        Judged::Proposed(number, self.last_commit)
    }

    fn refuses(&self, drafts: &[Draft], now: Micros) -> Option<Published> {
        for draft in drafts {
            if let Some(id) = &draft.id {
                if let Some(sequence) = self.ids.get(id) {
                    return Some(Published::Duplicate(*sequence));
                }
                if self.ids_in_process.contains(id) {
                    return Some(Published::Refused(Code::SameIdInProcess));
                }
            }
            if key(draft).is_some_and(|key| self.in_flight.contains(&key)) {
                return Some(Published::Refused(Code::InFlight));
            }
            let holds = match &draft.guard {
                Guard::None => true,
                Guard::Last(expected) => {
                    let last = self.last(&draft.subject, u64::MAX, now);
                    last.map_or(0, |message| message.sequence) == *expected
                }
                Guard::Vacant(filter) => self.last(filter, u64::MAX, now).is_none(),
            };
            if !holds {
                return Some(Published::Refused(Code::WrongLastSequence));
            }
        }
        None
    }

    /// Stores a write; `None` where it was lost with a leader.
    pub(super) fn commit(&mut self, number: u64) -> Option<Vec<Rc<Message>>> {
        let place = self.proposals.iter().position(|p| p.number == number)?;
        let proposal = self.proposals.remove(place)?;
        for key in &proposal.keys {
            self.in_flight.remove(key);
        }
        Some(self.append(&proposal))
    }

    fn append(&mut self, proposal: &Proposal) -> Vec<Rc<Message>> {
        let count = proposal.drafts.len();
        let drafts = proposal.drafts.iter().enumerate();
        drafts
            .map(|(index, draft)| {
                let more = index + 1 < count;
                self.append_one(draft, proposal, more)
            })
            .collect()
    }

    fn append_one(&mut self, draft: &Draft, proposal: &Proposal, more: bool) -> Rc<Message> {
        let sequence = self.last_sequence() + 1;
        let message = Rc::new(Message {
            sequence,
            subject: draft.subject.clone(),
            payload: draft.payload.clone(),
            stored_at: proposal.stored_at,
            hops: draft.hops,
            more,
            write: proposal.number,
            expires_at: draft.ttl.map(|ttl| proposal.stored_at + ttl),
            replaced_by: Cell::new(None),
        });
        if let Some(id) = &draft.id {
            self.ids_in_process.remove(id);
            self.ids.insert(id.clone(), sequence);
        }
        let before = self.subjects.entry(draft.subject.clone()).or_default();
        let replaced = if draft.rolls_up {
            before.last().copied()
        } else {
            None
        };
        before.push(sequence);
        if let Some(replaced) = replaced.and_then(|sequence| self.at(sequence)) {
            replaced.replaced_by.set(Some(sequence));
        }
        self.log.push(message.clone());
        message
    }

    /// The leader is lost. What it had proposed goes on to its followers, or is lost with it;
    /// answers how many writes were lost.
    pub(super) fn change_leader(&mut self, until: Micros, keeps: bool, silent: bool) -> usize {
        self.leader += 1;
        self.away_until = self.away_until.max(until);
        self.is_silent = silent;
        if keeps {
            return 0;
        }
        let lost = self.proposals.len();
        self.proposals.clear();
        self.in_flight.clear();
        self.ids_in_process.clear();
        lost
    }

    pub(super) fn forget_ids(&mut self) {
        self.ids.clear();
    }
}

/// By what the server tells writes in flight apart.
fn key(draft: &Draft) -> Option<Rc<str>> {
    match &draft.guard {
        Guard::None => None,
        Guard::Last(_) => Some(draft.subject.clone()),
        Guard::Vacant(filter) => Some(filter.clone()),
    }
}

/// Whether a filter matches a subject.
#[must_use]
pub fn matches(filter: &str, subject: &str) -> bool {
    let mut tokens = subject.split('.');
    for part in filter.split('.') {
        if part == ">" {
            return tokens.next().is_some();
        }
        match tokens.next() {
            Some(token) if part == "*" || part == token => {}
            _ => return false,
        }
    }
    tokens.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(stream: &mut Stream, drafts: Vec<Draft>) -> Result<u64, Published> {
        match stream.judge(&Rc::new(drafts), 0) {
            Judged::Proposed(number, _) => {
                let stored = stream.commit(number).unwrap();
                Ok(stored.last().unwrap().sequence)
            }
            Judged::Answer(answer) => Err(answer),
            Judged::Silent => panic!("nobody answers"),
        }
    }

    fn draft(subject: &str, guard: Guard) -> Draft {
        Draft::new(subject, Vec::new(), guard)
    }

    const WRONG: Published = Published::Refused(Code::WrongLastSequence);

    #[test]
    fn a_batch_is_stored_whole_or_not_at_all() {
        let mut stream = Stream::new();
        let vacant = |subject| draft(subject, Guard::Vacant("t.a.>".into()));
        assert_eq!(stored(&mut stream, vec![vacant("t.a.0")]), Ok(1));
        let batch = vec![draft("x", Guard::Last(0)), vacant("t.a.1")];
        assert_eq!(stored(&mut stream, batch), Err(WRONG));
        assert_eq!(stream.last_sequence(), 1);
    }

    #[test]
    fn guards_of_one_batch_see_what_is_committed_alone() {
        let mut stream = Stream::new();
        let vacant = |subject| draft(subject, Guard::Vacant("t.a.>".into()));
        let batch = vec![vacant("t.a.0"), vacant("t.a.0")];
        assert_eq!(stored(&mut stream, batch), Ok(2));
    }

    #[test]
    fn a_write_in_flight_is_known_by_the_text_of_its_guard() {
        let mut stream = Stream::new();
        let vacant = |filter: &str| vec![draft("t.a.0", Guard::Vacant(filter.into()))];
        let first = stream.judge(&Rc::new(vacant("t.a.>")), 0);
        let Judged::Proposed(..) = first else {
            panic!("{first:?}");
        };
        let in_flight = Err(Published::Refused(Code::InFlight));
        assert_eq!(stored(&mut stream, vacant("t.a.>")), in_flight);
        assert!(stored(&mut stream, vacant("t.*.*")).is_ok());
    }

    #[test]
    fn a_replica_that_is_behind_holds_what_was_replaced() {
        let mut stream = Stream::new();
        let state = || Draft {
            rolls_up: true,
            ..draft("s.a", Guard::None)
        };
        for _ in 0..2 {
            stored(&mut stream, vec![state()]).unwrap();
        }
        let latest = |at| stream.latest("s.>", at, 0).last().unwrap().sequence;
        assert_eq!((latest(1), latest(2)), (1, 2));
    }
}
