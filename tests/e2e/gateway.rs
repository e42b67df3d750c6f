//! `POST /v1/events`: 2xx for what is stored, and for nothing else.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use futures::future::join_all;
use kaizen_proto::{envelope::EventEnvelope, header};
use kaizen_tests::{Mesh, Server, Which, lasting_port, post_event, until};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::documents::{REVIEW, REVIEW_ID, bad_run, bad_run_bytes};

#[tokio::test(flavor = "multi_thread")]
async fn accepted_means_stored_and_sent_again_it_is_the_same() {
    let mesh = Mesh::start_with(&[Which::Gateway]).await;
    let first = mesh.post(&bad_run_bytes("a")).await;
    assert_eq!(first.status, 202);
    let events = mesh.stored.all("EVENTS", "activity.>").await;
    assert_eq!(events.len(), 1);
    assert_eq!(
        &events[0].payload[..],
        bad_run_bytes("a"),
        "kept byte for byte"
    );
    let trigger = EventEnvelope::parse(&events[0].payload)
        .unwrap()
        .trigger_id();
    assert_eq!(
        first.body,
        json!({"sequence": 1, "duplicate": false, "trigger_id": trigger})
    );
    assert_eq!(
        events[0]
            .headers
            .as_ref()
            .unwrap()
            .get("Nats-Msg-Id")
            .unwrap()
            .as_str(),
        trigger.as_str()
    );

    let again = mesh.post(&bad_run_bytes("a")).await;
    assert_eq!(again.status, 202);
    assert_eq!(
        again.body,
        json!({"sequence": 1, "duplicate": true, "trigger_id": trigger})
    );
    // White space and order make no other event.
    let spaced = serde_json::to_string_pretty(&bad_run("a")).unwrap();
    assert_eq!(mesh.post(spaced.as_bytes()).await.body["duplicate"], true);
    assert_eq!(mesh.stored.events().await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_server_says_stands_and_nobody_shows_is_to_be_sent_again() {
    let mesh = Mesh::start_with(&[Which::Gateway]).await;
    let first = mesh.post(&bad_run_bytes("a")).await;
    assert_eq!(first.status, 202);
    // As a leader shows it that does not have the event yet.
    let events = mesh.jetstream.get_stream("EVENTS").await.unwrap();
    let sequence = first.body["sequence"].as_u64().unwrap();
    assert!(events.delete_message(sequence).await.unwrap());
    let again = mesh.post(&bad_run_bytes("a")).await;
    assert_eq!(again.status, 503, "{}", again.body);
    assert_eq!(again.body["error"]["reason"], "unavailable");
}

#[tokio::test(flavor = "multi_thread")]
async fn other_content_under_the_same_identity_is_a_conflict() {
    let mesh = Mesh::start_with(&[Which::Gateway]).await;
    assert_eq!(mesh.post(&bad_run_bytes("a")).await.status, 202);
    let mut other = bad_run("a");
    other["attributes"]["summary"]["success_rate"] = json!(0.1);
    let answer = mesh.post(other.to_string().as_bytes()).await;
    assert_eq!(answer.status, 409);
    assert_eq!(answer.body["error"]["reason"], "conflict");
    let message = answer.body["error"]["message"].as_str().unwrap();
    assert!(
        message.contains("\"a\"") && message.contains("sequence 1"),
        "{message}"
    );
    assert_eq!(mesh.stored.events().await, 1);
    // Another source may use the same id.
    other["source"] = json!("elsewhere");
    assert_eq!(mesh.post(other.to_string().as_bytes()).await.status, 202);
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_and_too_large_are_refused() {
    let mesh = Mesh::start_with(&[Which::Gateway]).await;
    for body in [&b""[..], b"{", b"[]", b"{\"id\":\"1\"}", b"\xff\xfe"] {
        let answer = mesh.post(body).await;
        assert_eq!(
            (answer.status, &answer.body["error"]["reason"]),
            (400, &json!("malformed"))
        );
    }
    let bytes_max = 1_048_576 - 65_536;
    let padded = |bytes: usize| {
        let mut event = bad_run("large");
        let bare = {
            event["attributes"]["pad"] = json!("");
            event.to_string().len()
        };
        event["attributes"]["pad"] = json!("x".repeat(bytes - bare));
        event.to_string().into_bytes()
    };
    let answer = mesh.post(&padded(bytes_max + 1)).await;
    assert_eq!(
        (answer.status, &answer.body["error"]["reason"]),
        (413, &json!("too_large"))
    );
    assert_eq!(
        answer.body["error"]["message"],
        format!("the envelope exceeds {bytes_max} bytes")
    );
    assert_eq!(mesh.post(&padded(4 * bytes_max)).await.status, 413);
    assert_eq!(mesh.stored.events().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn largest_event_is_stored_or_refused_but_never_lost() {
    let mesh = Mesh::start().await;
    mesh.apply(REVIEW).await;
    // Room for the header that the gateway adds: the server counts it.
    let mut event = bad_run("large");
    event["attributes"]["pad"] = json!("x".repeat(1_048_576 - 65_536 - 1_024));
    let answer = mesh.post(event.to_string().as_bytes()).await;
    assert_eq!(answer.status, 202, "{:?}", answer.body);
    mesh.stored.settled().await;
    let tasks = mesh.stored.tasks(REVIEW_ID).await;
    assert_eq!(tasks.len(), 1);
    assert_eq!(
        tasks[0].order.snapshot, None,
        "larger than an order carries"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn cloud_event_is_taken_as_the_same_event() {
    let mesh = Mesh::start().await;
    mesh.apply(REVIEW).await;
    let native = bad_run("ce");
    let cloud = json!({
        "specversion": "1.0", "id": "ce", "type": native["type"], "source": native["source"],
        "datacontenttype": "application/json", "partition": "7", "data": native["attributes"],
    });
    let first = mesh.post(cloud.to_string().as_bytes()).await;
    assert_eq!(first.status, 202, "{:?}", first.body);
    let again = mesh.post(native.to_string().as_bytes()).await;
    assert_eq!(
        (again.status, &again.body["duplicate"]),
        (202, &json!(true))
    );
    mesh.stored.settled().await;
    let tasks = mesh.stored.tasks(REVIEW_ID).await;
    assert_eq!(tasks.len(), 1);
    assert_eq!(
        tasks[0].order.title,
        "Review coach in demo: success rate 0.5"
    );
}

/// Clients that post at the same time.
const CLIENTS: usize = 64;

/// Events that were stored in a batch with others.
async fn gathered(mesh: &Mesh) -> usize {
    let events = mesh.stored.all("EVENTS", "activity.>").await;
    let headers = events.iter().filter_map(|event| event.headers.as_ref());
    headers
        .filter(|headers| headers.get(header::BATCH_ID).is_some())
        .count()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_of_many_concurrent_callers_is_told_where_its_event_stands() {
    let mesh = Mesh::start_with(&[Which::Gateway]).await;
    let mut round = 0;
    // Until some were on their way while others came.
    until("events are stored together", async || {
        let posts = (0..CLIENTS).map(async |n| {
            let id = format!("{round}-{n}");
            let answer = mesh.post(&bad_run_bytes(&id)).await;
            assert_eq!(answer.status, 202, "{:?}", answer.body);
            assert_eq!(answer.body["duplicate"], false, "{:?}", answer.body);
            (answer.body["sequence"].as_u64().unwrap(), id)
        });
        let answers = join_all(posts).await;
        let events = mesh.stored.all("EVENTS", "activity.>").await;
        for (sequence, id) in answers {
            let event = &events[usize::try_from(sequence).unwrap() - 1];
            let stored: Value = serde_json::from_slice(&event.payload).unwrap();
            assert_eq!(stored["id"], id.as_str(), "at {sequence}");
        }
        round += 1;
        assert_eq!(events.len(), round * CLIENTS);
        match gathered(&mesh).await {
            0 => Err("each was stored alone"),
            _ => Ok(()),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stands_already_among_concurrent_events_is_compared_one_by_one() {
    const IDS: usize = 32;
    let mesh = Mesh::start_with(&[Which::Gateway]).await;
    assert_eq!(mesh.post(&bad_run_bytes("id-0")).await.status, 202);
    let posts = (0..3 * IDS).map(async |n| {
        let (id, copy) = (n % IDS, n / IDS);
        let mut event = bad_run(&format!("id-{id}"));
        if copy == 2 {
            event["attributes"]["summary"]["success_rate"] = json!(0.1);
        }
        let answer = mesh.post(event.to_string().as_bytes()).await;
        (id, copy, answer)
    });
    let answers = join_all(posts).await;
    assert_eq!(mesh.stored.events().await, IDS);
    for id in 0..IDS {
        let of_id = answers.iter().filter(|(of, ..)| *of == id);
        let mut outcomes: Vec<_> = of_id
            .map(|(_, copy, answer)| (*copy, answer.status, answer.body["duplicate"] == false))
            .collect();
        outcomes.sort_unstable();
        let new = outcomes.iter().filter(|(.., is_new)| *is_new).count();
        assert_eq!(new, usize::from(id != 0), "{id}: {outcomes:?}");
        let statuses: Vec<u16> = outcomes.iter().map(|(_, status, _)| *status).collect();
        // Whichever content came first stands; the other is a conflict.
        let either = [[202, 202, 409], [409, 409, 202]];
        assert!(
            either.iter().any(|one| statuses == one),
            "{id}: {outcomes:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn accepted_means_stored_though_the_server_is_killed_under_load() {
    const ROUNDS: usize = 3;
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start_on(dir.path(), lasting_port());
    let mut mesh = Mesh::on(server.url()).await;
    mesh.start_service(Which::Gateway).await;
    let accepted = Arc::new(Mutex::new(BTreeSet::new()));
    let refused = Arc::new(AtomicUsize::new(0));
    let stop = Arc::new(AtomicBool::new(false));
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        let (accepted, refused, stop) = (accepted.clone(), refused.clone(), stop.clone());
        let http = mesh.context.http.clone();
        clients.spawn(async move {
            for n in 0.. {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                let id = format!("{client}-{n}");
                match post_event(&http, &[], &bad_run_bytes(&id)).await.status {
                    202 => _ = accepted.lock().unwrap().insert(id),
                    503 => _ = refused.fetch_add(1, Ordering::Relaxed),
                    status => panic!("{id}: {status}"),
                }
            }
        });
    }
    let count = || accepted.lock().unwrap().len();
    for round in 1..=ROUNDS {
        let before = count();
        until("events are accepted", async || match count() - before {
            accepted if accepted >= 10 * CLIENTS => Ok(()),
            accepted => Err(accepted),
        })
        .await;
        let before = refused.load(Ordering::Relaxed);
        server.crash();
        // The fault is felt: somebody is refused.
        until(
            &format!("events are refused in round {round}"),
            async || match refused.load(Ordering::Relaxed) - before {
                0 => Err("none"),
                _ => Ok(()),
            },
        )
        .await;
        server.come_back();
    }
    let before = count();
    until("events are accepted again", async || {
        match count() - before {
            0 => Err("none"),
            _ => Ok(()),
        }
    })
    .await;
    stop.store(true, Ordering::Relaxed);
    while let Some(ended) = clients.join_next().await {
        ended.unwrap();
    }
    let events = mesh.stored.all("EVENTS", "activity.>").await;
    let stored: BTreeSet<String> = events
        .iter()
        .map(|event| EventEnvelope::parse(&event.payload).unwrap().id)
        .collect();
    let accepted = accepted.lock().unwrap().clone();
    let lost: Vec<_> = accepted.difference(&stored).collect();
    assert!(
        lost.is_empty(),
        "{} of {}: {lost:?}",
        lost.len(),
        accepted.len()
    );
    assert!(gathered(&mesh).await > 0, "none was stored with others");
}
