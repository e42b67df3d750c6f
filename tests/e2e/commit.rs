//! What `kaizen-messaging` promises, on the real server.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use async_nats::HeaderMap;
use futures::{StreamExt as _, future::join_all};
use kaizen_lifecycle::CancellationToken;
use kaizen_messaging::{
    CommitError, Committed, Failure as _, FailureKind, Guard, Message, Nats, Pipeline,
    StreamsConfig,
    follow::follow,
    read::{self, PageStart},
    streams,
    ticks::{self, CursorAt},
};
use kaizen_proto::{
    header,
    id::{ActivationId, DefinitionId, TriggerId},
    record::{Cursor, Paused, TickRecord},
    stream, subject,
};
use kaizen_tests::Mesh;
use serde_json::Value;

async fn streams_alone() -> (Mesh, Nats) {
    let mesh = Mesh::bare().await;
    let nats = Nats::new(mesh.raw.clone());
    streams::ensure(&nats, &StreamsConfig::default())
        .await
        .unwrap();
    (mesh, nats)
}

fn activation(n: u64) -> (DefinitionId, ActivationId) {
    let definition: DefinitionId = "d".parse().unwrap();
    let activation = ActivationId::new(&definition, &TriggerId::of_event("test", &n.to_string()));
    (definition, activation)
}

fn message(subject: String, guard: Guard, payload: impl Into<Vec<u8>>) -> Message {
    Message {
        subject,
        guard,
        headers: HeaderMap::new(),
        payload: payload.into().into(),
    }
}

/// Tasks of one activation, the first guarded by the whole prefix.
fn tasks(activation_number: u64, count: u32) -> Vec<Message> {
    let (definition, activation) = activation(activation_number);
    let filter = subject::activation_tasks(&definition, activation);
    let queue = "q".parse().unwrap();
    let task = |n| {
        let guard = if n == 0 {
            Guard::Vacant {
                filter: filter.clone(),
            }
        } else {
            Guard::None
        };
        message(
            subject::task(&definition, activation, n, &queue),
            guard,
            n.to_string(),
        )
    };
    (0..count).map(task).collect()
}

async fn count(nats: &Nats) -> u64 {
    read::last_sequence(nats, stream::LEDGER).await.unwrap()
}

#[tokio::test]
async fn tasks_of_an_activation_are_stored_once_and_whole() {
    let (_mesh, nats) = streams_alone().await;
    for size in [1, 2, 900] {
        let before = count(&nats).await;
        let stored = nats.commit.store(tasks(size.into(), size)).await.unwrap();
        assert_eq!(stored, Committed::Stored(before + u64::from(size)));
        let again = nats.commit.store(tasks(size.into(), size)).await.unwrap();
        assert_eq!(again, Committed::Doubtful);
        // Fewer or more tasks are the same activation: the guard is its prefix.
        let fewer = nats.commit.store(tasks(size.into(), 1)).await.unwrap();
        assert_eq!(fewer, Committed::Doubtful);
        assert_eq!(count(&nats).await, before + u64::from(size));
    }
}

#[tokio::test]
async fn one_stale_guard_refuses_the_whole_transaction() {
    let (_mesh, nats) = streams_alone().await;
    let (definition, activation) = activation(1);
    let decision = subject::decision(&definition, activation);
    let pending = vec![message(decision.clone(), Guard::Last(0), "pending")];
    let Committed::Stored(pending) = nats.commit.store(pending).await.unwrap() else {
        panic!("the first message on a subject is not stored");
    };
    let decided = |guard| {
        let mut messages = vec![message(decision.clone(), guard, "decided")];
        messages.extend(tasks(1, 3));
        messages
    };
    let stale = nats
        .commit
        .store(decided(Guard::Last(pending + 7)))
        .await
        .unwrap();
    assert_eq!((stale, count(&nats).await), (Committed::Doubtful, 1));
    let stored = nats
        .commit
        .store(decided(Guard::Last(pending)))
        .await
        .unwrap();
    assert_eq!((stored, count(&nats).await), (Committed::Stored(5), 5));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_many_racing_writers_wins_each_activation() {
    let (_mesh, nats) = streams_alone().await;
    for (round, size) in [(1, 1), (2, 3), (3, 1), (4, 3)] {
        let race = (0..12).map(|_| nats.commit.store(tasks(round, size)));
        let outcomes: Vec<Committed> = join_all(race)
            .await
            .into_iter()
            .map(Result::unwrap)
            .collect();
        let won = outcomes
            .iter()
            .filter(|o| matches!(o, Committed::Stored(_)))
            .count();
        assert_eq!(won, 1, "round {round}: {outcomes:?}");
    }
    assert_eq!(count(&nats).await, 8);
}

#[tokio::test]
async fn too_large_is_refused_for_good_wherever_it_stands() {
    let (_mesh, nats) = streams_alone().await;
    let large = || vec![b'x'; nats.client.max_payload() + 1];
    for (size, place) in [(1, 0), (3, 0), (3, 1), (3, 2)] {
        let mut messages = tasks(1, size);
        messages[place].payload = large().into();
        let error = nats.commit.store(messages).await.unwrap_err();
        assert!(
            matches!(error, CommitError::Refused { .. }),
            "{place} of {size}: {error:?}"
        );
        assert_eq!(error.kind(), FailureKind::Permanent);
    }
    let error = nats.commit.store(tasks(1, 1_001)).await.unwrap_err();
    assert!(
        matches!(error, CommitError::TooMany { count: 1_001 }),
        "{error:?}"
    );
    assert_eq!(count(&nats).await, 0);
}

#[tokio::test]
async fn each_message_of_a_pipeline_is_answered_as_it_would_be_alone() {
    const MANY: u64 = 3_000;
    let (mesh, nats) = streams_alone().await;
    let tick = |id: &str| subject::tick(&id.parse().unwrap());
    let mut pipeline = Pipeline::open(&nats).await.unwrap();
    for n in 0..MANY {
        let first = message(tick(&format!("d-{n}")), Guard::Last(0), n.to_string());
        pipeline.send(first, n.to_string()).await;
    }
    let mut sequences = BTreeMap::new();
    while !pipeline.is_empty() {
        for (n, answer) in pipeline.landed().await.unwrap() {
            let Committed::Stored(sequence) = answer.unwrap() else {
                panic!("nobody else writes");
            };
            assert_eq!(sequences.insert(sequence, n), None);
        }
    }
    assert!(sequences.keys().copied().eq(1..=MANY));
    for (sequence, n) in sequences.iter().step_by(500) {
        let stored = read::at(&nats, stream::TICKS, *sequence).await.unwrap();
        assert_eq!(stored.unwrap().payload, n.as_bytes());
    }

    // Somebody listens there, and says nothing.
    let _silent = mesh.raw.subscribe("silent").await.unwrap();
    mesh.raw.flush().await.unwrap();
    let large = vec![b'x'; nats.client.max_payload() + 1];
    let odd = [
        message(tick("d-0"), Guard::Last(0), "stale"),
        message(tick("e"), Guard::Last(0), large),
        message("nowhere".to_owned(), Guard::None, "no stream"),
        message("silent".to_owned(), Guard::None, "no answer"),
    ];
    for message in &odd {
        pipeline
            .send(message.clone(), message.subject.clone())
            .await;
    }
    let mut answers = BTreeMap::new();
    while !pipeline.is_empty() {
        answers.extend(pipeline.landed().await.unwrap());
    }
    for message in odd {
        let subject = message.subject.clone();
        let alone = nats.commit.store(vec![message]).await;
        let answer = answers.remove(&subject).unwrap();
        match (&answer, &alone) {
            (Ok(Committed::Doubtful), Ok(Committed::Doubtful))
            | (Err(CommitError::Unavailable { .. }), Err(CommitError::Unavailable { .. }))
            | (Err(CommitError::Refused { .. }), Err(CommitError::Refused { .. })) => {}
            _ => panic!("{subject}: {answer:?}, but alone {alone:?}"),
        }
    }
    let last = read::last_sequence(&nats, stream::TICKS).await.unwrap();
    assert_eq!(last, MANY);
}

#[tokio::test]
async fn follower_sees_every_message_in_order_and_where_batches_end() {
    let (_mesh, nats) = streams_alone().await;
    nats.commit.store(tasks(1, 3)).await.unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let shutdown = CancellationToken::new();
    let (follower, task) = {
        let seen = seen.clone();
        let apply = move |stored: &[kaizen_messaging::follow::Stored<'_>]| {
            let mut seen = seen.lock().unwrap();
            seen.extend(stored.iter().map(|one| (one.sequence, one.more)));
        };
        follow(&nats, stream::LEDGER, apply, shutdown.clone())
    };
    nats.commit.store(tasks(2, 1)).await.unwrap();
    nats.commit.store(tasks(3, 2)).await.unwrap();
    assert_eq!(follower.catch_up().await.unwrap(), 6);
    let expected = [
        (1, true),
        (2, true),
        (3, false),
        (4, false),
        (5, true),
        (6, false),
    ];
    assert_eq!(*seen.lock().unwrap(), expected);
    shutdown.cancel();
    task.await.unwrap();
}

#[tokio::test]
async fn pages_cover_a_stream_without_gap_or_overlap() {
    let (_mesh, nats) = streams_alone().await;
    nats.commit.store(tasks(1, 7)).await.unwrap();
    let mut start = PageStart::First;
    let mut sequences = Vec::new();
    loop {
        let (page, more) = read::page(&nats, stream::LEDGER, subject::TASKS_ALL, start, false, 3)
            .await
            .unwrap();
        sequences.extend(page.iter().map(|m| m.info().unwrap().stream_sequence));
        if !more {
            break;
        }
        start = PageStart::After(*sequences.last().unwrap());
    }
    assert_eq!(sequences, (1..=7).collect::<Vec<u64>>());
    let none = read::page(
        &nats,
        stream::LEDGER,
        subject::DEAD_ALL,
        PageStart::First,
        false,
        3,
    );
    let (page, more) = none.await.unwrap();
    assert!(page.is_empty() && !more);
}

#[tokio::test]
async fn page_that_does_not_arrive_whole_is_an_error() {
    let (mesh, nats) = streams_alone().await;
    nats.commit.store(tasks(1, 900)).await.unwrap();
    // Its client drops what it has no room for, and tells nobody who waits.
    let url = mesh.context.nats.as_str();
    let options = async_nats::ConnectOptions::new().subscription_capacity(4);
    let forgetful = Nats::new(options.connect(url).await.unwrap());
    let start = PageStart::First;
    let page = read::page(
        &forgetful,
        stream::LEDGER,
        subject::TASKS_ALL,
        start,
        false,
        900,
    );
    let error = anyhow::Error::new(page.await.unwrap_err());
    let said = format!("{error:#}");
    // By the gap, or where nothing came behind it by the count.
    let told = [" was lost", "of 900 messages arrived"];
    assert!(told.iter().any(|told| said.contains(told)), "{said}");
}

#[tokio::test]
async fn all_is_all_that_the_leader_holds_or_an_error() {
    let (_mesh, nats) = streams_alone().await;
    let all = |limit| read::all(&nats, stream::LEDGER, subject::TASKS_ALL, limit);
    assert!(all(10).await.unwrap().is_empty());
    nats.commit.store(tasks(1, 7)).await.unwrap();
    assert_eq!(all(7).await.unwrap().len(), 7);
    let error = anyhow::Error::new(all(6).await.unwrap_err());
    assert!(
        format!("{error:#}").contains("more than 6 messages"),
        "{error:#}"
    );
}

/// A cursor as `why` leaves it.
fn cursor(why: &str, paused: bool) -> Cursor {
    Cursor {
        revision: 1,
        after: "2026-11-22T10:00:00Z".parse().unwrap(),
        why: why.to_owned(),
        by: "alice".to_owned(),
        paused: paused.then(|| Paused {
            since: "2026-11-22T10:00:01Z".parse().unwrap(),
            by: "alice".to_owned(),
            note: String::new(),
        }),
        ..Cursor::default()
    }
}

#[tokio::test]
async fn cursor_record_whose_answer_was_lost_counts_as_stored_and_is_not_stored_again() {
    let (_mesh, nats) = streams_alone().await;
    let definition: DefinitionId = "d".parse().unwrap();
    let created = TickRecord::Cursor(cursor("created", false));
    for why in ["paused", "reset"] {
        let at = ticks::cursor(&nats, &definition).await.unwrap().sequence;
        let stored = ticks::append(&nats.commit, &definition, at, &created).await;
        let Committed::Stored(before) = stored.unwrap() else {
            panic!("nobody else writes");
        };
        // The first try is stored, and its answer does not come.
        let record = cursor(why, why == "paused");
        let first = TickRecord::Cursor(record.clone());
        let stored = ticks::append(&nats.commit, &definition, before, &first).await;
        let Committed::Stored(sequence) = stored.unwrap() else {
            panic!("nobody else writes");
        };
        let at = CursorAt {
            sequence: before,
            record: Some(created.clone()),
        };
        let refused = Mutex::new(false);
        let needed = |last: Option<&TickRecord>| {
            // A second pause is refused, a second reset is not.
            let paused = last.and_then(TickRecord::paused).is_some();
            *refused.lock().unwrap() = paused;
            (!paused).then(|| record.clone())
        };
        let moved = ticks::move_cursor_from(&nats, &definition, at, needed).await;
        assert_eq!(moved.unwrap().sequence, sequence, "{why}");
        assert!(!*refused.lock().unwrap(), "{why}");
        let stands = ticks::cursor(&nats, &definition).await.unwrap();
        assert_eq!(stands.sequence, sequence, "{why}");
    }
}

/// The first message of a batch that is never committed; the server's answer to it.
async fn open_batch(nats: &Nats, id: &str, n: u64) -> Value {
    let (definition, activation) = activation(n);
    let subject = subject::task(&definition, activation, 0, &"q".parse().unwrap());
    let mut headers = HeaderMap::new();
    headers.insert(header::BATCH_ID, id);
    headers.insert(header::BATCH_SEQUENCE, "1");
    let request = async_nats::Request::new().headers(headers);
    let answer = nats.client.send_request(subject, request).await.unwrap();
    serde_json::from_slice(&answer.payload).unwrap_or(Value::Null)
}

/// Ends a batch of one message by a second one.
async fn close_batch(nats: &Nats, id: &str, n: u64) {
    let (definition, activation) = activation(n);
    let subject = subject::task(&definition, activation, 1, &"q".parse().unwrap());
    let mut headers = HeaderMap::new();
    headers.insert(header::BATCH_ID, id);
    headers.insert(header::BATCH_SEQUENCE, "2");
    headers.insert(header::BATCH_COMMIT, "1");
    let request = async_nats::Request::new().headers(headers);
    let answer = nats.client.send_request(subject, request).await.unwrap();
    let answer: Value = serde_json::from_slice(&answer.payload).unwrap();
    assert!(answer["seq"].is_u64(), "{answer}");
}

/// Batches that the server takes at once on one stream.
const BATCHES_IN_FLIGHT: u64 = 50;
const TOO_MANY_BATCHES: u64 = 10_210;

#[tokio::test(flavor = "multi_thread")]
async fn batch_waits_until_the_server_has_room_for_it() {
    let (_mesh, nats) = streams_alone().await;
    for n in 0..BATCHES_IN_FLIGHT {
        let answer = open_batch(&nats, &format!("open-{n}"), 1_000 + n).await;
        assert_eq!(answer, Value::Null, "{n}");
    }
    let refused = open_batch(&nats, "one-more", 2_000).await;
    assert_eq!(refused["error"]["err_code"], TOO_MANY_BATCHES, "{refused}");

    let waiting = {
        let nats = nats.clone();
        tokio::spawn(async move { nats.commit.store(tasks(1, 3)).await })
    };
    // It is told so as well, and tries again: seen on the wire.
    let mut tries = nats.client.subscribe(subject::TASKS_ALL).await.unwrap();
    for _ in 0..2 {
        let message = tries.next().await.unwrap();
        assert_eq!(message.payload, "0");
    }
    assert!(!waiting.is_finished());
    close_batch(&nats, "open-0", 1_000).await;
    let stored = waiting.await.unwrap().unwrap();
    assert_eq!(stored, Committed::Stored(5), "behind those of the other");
}

#[tokio::test(flavor = "multi_thread")]
async fn batch_that_finds_no_room_may_be_tried_again() {
    let (_mesh, nats) = streams_alone().await;
    for n in 0..BATCHES_IN_FLIGHT {
        open_batch(&nats, &format!("open-{n}"), 1_000 + n).await;
    }
    let error = nats.commit.store(tasks(1, 3)).await.unwrap_err();
    assert!(error.kind().is_transient(), "{error:?}");
    assert!(
        kaizen_messaging::chain(&error).contains("too many inflight"),
        "{error:?}"
    );
    for n in 0..BATCHES_IN_FLIGHT {
        close_batch(&nats, &format!("open-{n}"), 1_000 + n).await;
    }
    let stored = nats.commit.store(tasks(1, 3)).await.unwrap();
    assert_eq!(stored, Committed::Stored(2 * BATCHES_IN_FLIGHT + 3));
}

#[tokio::test]
async fn parts_of_an_activation_are_guarded_each_by_its_first_task() {
    let (_mesh, nats) = streams_alone().await;
    let (definition, activation) = activation(1);
    let mut part = tasks(1, 6).split_off(3);
    part[0].guard = Guard::Vacant {
        filter: subject::tasks_part(&definition, activation, 3),
    };
    let first = nats.commit.store(tasks(1, 3)).await.unwrap();
    assert_eq!(first, Committed::Stored(3));
    let second = nats.commit.store(part.clone()).await.unwrap();
    assert_eq!(second, Committed::Stored(6), "beside the first part");
    let again = nats.commit.store(part).await.unwrap();
    assert_eq!((again, count(&nats).await), (Committed::Doubtful, 6));
    // Task 30 is no task of the part that begins with task 3.
    let mut other = tasks(1, 31).split_off(30);
    other[0].guard = Guard::Vacant {
        filter: subject::tasks_part(&definition, activation, 30),
    };
    assert_eq!(
        nats.commit.store(other).await.unwrap(),
        Committed::Stored(7)
    );
}
