//! Dead letters in LEDGER: how one is replaced by itself, with a mark or with another error. What
//! it was made of stays.

use async_nats::{HeaderMap, jetstream::message::StreamMessage};
use kaizen_proto::header;

use crate::{
    commit::{Guard, Message},
    instant,
};

/// Earlier sequences that a letter keeps.
const WAS_MAX: usize = 8;
/// What tells of the original, beside its own headers.
const OF_ORIGINAL: [&str; 5] = [
    header::FIRST_AT,
    header::ORIG_SUBJECT,
    header::ORIG_SEQUENCE,
    header::ORIG_BLOCK,
    header::ORIG_LEFT_OUT,
];
/// Headers that are the server's.
const SERVER_PREFIX: &str = "Nats-";

/// What becomes of a letter that is not open any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// It was set off again.
    Redriven,
    /// Nobody wants it any more.
    Discarded,
}

impl Settled {
    /// As the header has it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Redriven => "redriven",
            Self::Discarded => "discarded",
        }
    }
}

/// The value of a header; empty where there is none.
#[must_use]
pub fn text<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).map_or("", |value| value.as_str())
}

fn number(headers: &HeaderMap, name: &str) -> u64 {
    text(headers, name).parse().unwrap_or(0)
}

/// Whether a letter waits for somebody to look at it.
#[must_use]
pub fn is_open(headers: &HeaderMap) -> bool {
    headers.get(header::SETTLED).is_none()
}

/// Whether a letter takes the place of the one that stands on its subject: a later redrive has
/// failed, or the one that stands is settled and this one is of another message. The same message,
/// delivered once more, says nothing new.
#[must_use]
pub fn replaces(letter: &HeaderMap, standing: &HeaderMap) -> bool {
    let differs = |name| number(letter, name) != number(standing, name);
    number(letter, header::REDRIVE) > number(standing, header::REDRIVE)
        || (!is_open(standing) && differs(header::ORIG_SEQUENCE))
}

/// Earlier sequences of a letter.
#[must_use]
pub fn was(headers: &HeaderMap) -> Vec<u64> {
    let was = text(headers, header::WAS).split(' ');
    was.filter_map(|sequence| sequence.parse().ok()).collect()
}

/// A standing letter, marked by `by`; stored unless it has changed meanwhile.
#[must_use]
pub fn marked(standing: &StreamMessage, settled: Settled, by: &str) -> Message {
    let mut headers = kept(&standing.headers, |_| true);
    if headers.get(header::DIED_AT).is_none() {
        headers.insert(header::DIED_AT, instant(standing.time).to_string());
    }
    headers.insert(header::SETTLED, settled.as_str());
    headers.insert(header::BY, by);
    behind(standing, headers)
}

/// A letter of the same activation that died again: with the original, the first time and the
/// attempts of the one that stands. Where it stands on another subject, it stays there.
#[must_use]
pub fn died_again(standing: &StreamMessage, letter: Message) -> Message {
    let is_original =
        |name: &str| name.starts_with(header::ORIG_PREFIX) || OF_ORIGINAL.contains(&name);
    let attempts = number(&letter.headers, header::ATTEMPT)
        .saturating_add(number(&standing.headers, header::ATTEMPT));
    let mut headers = kept(&letter.headers, |name| !is_original(name));
    for (name, values) in kept(&standing.headers, is_original).iter() {
        for value in values {
            headers.append(name.clone(), value.clone());
        }
    }
    headers.insert(header::ATTEMPT, attempts.to_string());
    if letter.subject == standing.subject.as_str() {
        return behind(standing, headers);
    }
    Message {
        headers,
        payload: standing.payload.clone(),
        ..letter
    }
}

fn behind(standing: &StreamMessage, mut headers: HeaderMap) -> Message {
    let mut was = was(&standing.headers);
    was.push(standing.sequence);
    let first = was.len().saturating_sub(WAS_MAX);
    let was: Vec<String> = was.iter().skip(first).map(u64::to_string).collect();
    headers.insert(header::WAS, was.join(" "));
    headers.insert(header::ROLLUP, "sub");
    Message {
        subject: standing.subject.to_string(),
        guard: Guard::Last(standing.sequence),
        headers,
        payload: standing.payload.clone(),
    }
}

/// The headers of a stored message that are ours, and how long it lives: for who stores it anew.
#[must_use]
pub fn own(headers: &HeaderMap) -> HeaderMap {
    kept(headers, |_| true)
}

/// Headers that are ours, and how long the letter lives.
fn kept(headers: &HeaderMap, keep: impl Fn(&str) -> bool) -> HeaderMap {
    let mut kept = HeaderMap::new();
    for (name, values) in headers.iter() {
        let text: &str = name.as_ref();
        let is_servers = text.starts_with(SERVER_PREFIX) && text != header::TTL;
        if is_servers || !keep(text) {
            continue;
        }
        for value in values {
            kept.append(name.clone(), value.clone());
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use async_nats::datetime;

    use super::*;

    fn standing(headers: &[(&str, &str)]) -> StreamMessage {
        StreamMessage {
            subject: "kaizen.dead.decide.rule_error.d.a".into(),
            sequence: 7,
            headers: map(headers),
            payload: "the original".into(),
            time: datetime::DateTime::UNIX_EPOCH,
        }
    }

    fn map(headers: &[(&str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, *value);
        }
        map
    }

    #[test]
    fn a_mark_keeps_all_but_what_is_the_servers() {
        let standing = standing(&[
            ("Nats-Expected-Last-Subject-Sequence", "0"),
            ("Nats-Batch-Id", "x"),
            ("Nats-TTL", "60"),
            ("Kaizen-Error", "why"),
            ("Kaizen-Orig-Header-a", "b"),
        ]);
        let marked = marked(&standing, Settled::Discarded, "me");
        assert_eq!(marked.guard, Guard::Last(7));
        assert_eq!(marked.payload, "the original");
        let text = |name| text(&marked.headers, name);
        assert_eq!(text("Nats-Expected-Last-Subject-Sequence"), "");
        assert_eq!(text("Nats-Batch-Id"), "");
        assert_eq!((text("Nats-TTL"), text("Nats-Rollup")), ("60", "sub"));
        assert_eq!(text("Kaizen-Error"), "why");
        assert_eq!(text("Kaizen-Orig-Header-a"), "b");
        assert_eq!(text("Kaizen-Died-At"), "1970-01-01T00:00:00Z");
        assert_eq!(
            (text("Kaizen-Settled"), text("Kaizen-By")),
            ("discarded", "me")
        );
        assert_eq!(was(&marked.headers), [7]);
        assert!(!is_open(&marked.headers));
    }

    #[test]
    fn who_died_again_is_open_with_its_first_time_and_all_attempts() {
        let standing = standing(&[
            ("Kaizen-Settled", "redriven"),
            ("Kaizen-Attempt", "3"),
            ("Kaizen-First-At", "then"),
            ("Kaizen-Orig-Subject", "activity.a"),
            ("Kaizen-Was", "5"),
        ]);
        let letter = Message {
            subject: standing.subject.to_string(),
            guard: Guard::Last(0),
            headers: map(&[
                ("Kaizen-Attempt", "2"),
                ("Kaizen-First-At", "now"),
                ("Kaizen-Orig-Subject", "activity.kaizen.redrive.d"),
                ("Kaizen-Error", "again"),
                ("Kaizen-Redrive", "9"),
            ]),
            payload: "the redrive".into(),
        };
        assert!(replaces(&letter.headers, &standing.headers));
        let again = died_again(&standing, letter);
        let text = |name| text(&again.headers, name);
        assert!(is_open(&again.headers));
        assert_eq!(text("Kaizen-Attempt"), "5");
        assert_eq!(text("Kaizen-First-At"), "then");
        assert_eq!(text("Kaizen-Orig-Subject"), "activity.a");
        assert_eq!(text("Kaizen-Error"), "again");
        assert_eq!(again.payload, "the original");
        assert_eq!(again.guard, Guard::Last(7));
        assert_eq!(was(&again.headers), [5, 7]);
    }

    #[test]
    fn the_same_message_delivered_again_opens_no_letter() {
        let standing = map(&[
            ("Kaizen-Settled", "discarded"),
            ("Kaizen-Orig-Sequence", "4"),
        ]);
        assert!(!replaces(&map(&[("Kaizen-Orig-Sequence", "4")]), &standing));
        assert!(replaces(&map(&[("Kaizen-Orig-Sequence", "5")]), &standing));
    }

    #[test]
    fn an_open_letter_is_replaced_by_a_later_redrive_alone() {
        let standing = map(&[("Kaizen-Redrive", "9")]);
        assert!(!replaces(&map(&[]), &standing));
        assert!(!replaces(&map(&[("Kaizen-Redrive", "9")]), &standing));
        assert!(replaces(&map(&[("Kaizen-Redrive", "10")]), &standing));
    }
}
