//! The comparison alone, over events in memory: no server, no client, one thread.

use std::time::Instant;

use anyhow::{anyhow, ensure};
use jiff::{SignedDuration, Timestamp};
use kaizen_proto::stream;
use kaizen_registry::{
    Document, Input, View,
    backtest::{Backtest, Comparison, Window},
    builtin_event_types, parse_documents,
    recall::Nothing,
};

use crate::load::{Change, SUBJECT, event};

/// Events a second.
pub(crate) fn measure(change: &Change, events: usize) -> anyhow::Result<f64> {
    let from = Timestamp::from_second(1_795_000_000)?;
    let window = Window {
        from,
        to: from + SignedDuration::from_hours(24 * 7),
    };
    let view = standing(&change.definition(change.before), from)?;
    let documents = parse(&change.definition(change.after))?;
    let comparison = Comparison::new(&view, &documents, window).map_err(|error| anyhow!(error))?;
    let mut backtest = Backtest::new(&comparison, 3, (Nothing, Nothing));
    let payloads: Vec<String> = (0..events).map(event).collect();
    let started = Instant::now();
    for (sequence, payload) in (1..).zip(&payloads) {
        backtest.event(&comparison.judge(&Input {
            stream: stream::EVENTS,
            subject: SUBJECT,
            sequence,
            stored_at: from + SignedDuration::from_millis(sequence as i64),
            hops: 0,
            payload: payload.as_bytes(),
        }));
    }
    let seconds = started.elapsed().as_secs_f64();
    let followed = backtest.finish(window.to).events;
    ensure!(
        followed == events as u64,
        "{followed} of {events} were followed"
    );
    Ok(events as f64 / seconds)
}

/// A registry with one definition, beside the types that every mesh knows.
fn standing(definition: &str, at: Timestamp) -> anyhow::Result<View> {
    let types = builtin_event_types().into_iter();
    let mut documents: Vec<_> = types.map(Document::EventType).collect();
    documents.extend(parse(definition)?);
    View::of(documents.iter(), at).map_err(|error| anyhow!(error))
}

fn parse(yaml: &str) -> anyhow::Result<Vec<Document>> {
    parse_documents("bench.yaml", yaml).map_err(|error| anyhow!("{error:?}"))
}
