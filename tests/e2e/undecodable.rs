//! Events with headers that no NATS client can decode: they harm nobody but themselves.

use std::net::{Ipv4Addr, TcpListener};

use async_nats::{Client, Event, Subscriber, jetstream::Message};
use futures::StreamExt as _;
use kaizen_messaging::raw::decodable;
use kaizen_proto::{header, stream, subject};
use kaizen_tests::{Binary, Cli, Mesh, MeshUp, Stored, Which, until};
use proptest::{
    prelude::{Just, Strategy, prop_oneof},
    strategy::ValueTree as _,
    test_runner::TestRunner,
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
    sync::watch,
};

use crate::{
    documents::{RECORDED, REVIEW, REVIEW_ID, bad_run_bytes},
    readiness::becomes_ready,
};

/// What a client in any language may send: subject, header block, and what is said of it.
fn broken() -> Vec<(Vec<u8>, Vec<u8>, &'static str)> {
    let on = |subject: &[u8], block: &[u8], error| (subject.to_vec(), block.to_vec(), error);
    let recorded = RECORDED.as_bytes();
    vec![
        on(
            recorded,
            b"NATS/1.0\r\nx: one\rtwo\r\n\r\n",
            "header line 2 has a carriage return inside the value of \"x\"",
        ),
        on(
            recorded,
            b"NATS/1.0\r\nmy name: x\r\n\r\n",
            "header line 2 has the invalid name \"my name\"",
        ),
        on(
            recorded,
            b"NATS/1.0\r\nx: \xff\r\n\r\n",
            "not UTF-8 at byte 13",
        ),
        on(recorded, b"NATS/1.0\r\nx\r\n\r\n", "no colon"),
        on(recorded, b"HTTP/1.1\r\nx: y\r\n\r\n", "NATS/1.0"),
        on(
            "activity.a\u{a0}b".as_bytes(),
            b"NATS/1.0\r\n\r\n",
            "the subject",
        ),
        on(b"activity.\xff", b"NATS/1.0\r\n\r\n", "the subject"),
    ]
}

/// A connection that sends what it is told, byte for byte.
struct Wire(BufReader<TcpStream>);

impl Wire {
    async fn open(url: &str) -> Self {
        let address = url.strip_prefix("nats://").unwrap();
        let mut wire = Self(BufReader::new(TcpStream::connect(address).await.unwrap()));
        wire.line().await;
        let login = r#"{"verbose":false,"pedantic":false,"headers":true,"no_responders":true}"#;
        wire.send(format!("CONNECT {login}\r\n").as_bytes()).await;
        wire
    }

    async fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).await.unwrap();
        line
    }

    /// Returns once the server has taken it without complaint.
    async fn send(&mut self, bytes: &[u8]) {
        let all = [bytes, b"PING\r\n"].concat();
        self.0.get_mut().write_all(&all).await.unwrap();
        assert_eq!(self.line().await, "PONG\r\n");
    }

    async fn publish(&mut self, subject: &[u8], block: &[u8], payload: &[u8]) {
        let sizes = format!(" {} {}\r\n", block.len(), block.len() + payload.len());
        let all = [b"HPUB ", subject, sizes.as_bytes(), block, payload, b"\r\n"].concat();
        self.send(&all).await;
    }
}

/// Publishes each broken message between two good ones; answers how many of each.
async fn publish_both(wire: &mut Wire, run: &str) -> (usize, usize) {
    let broken = broken();
    for (n, (subject, block, error)) in broken.iter().enumerate() {
        let payload = format!("{run} {error}");
        wire.publish(subject, block, payload.as_bytes()).await;
        let good = bad_run_bytes(&format!("{run}-{n}"));
        wire.publish(RECORDED.as_bytes(), b"NATS/1.0\r\n\r\n", &good)
            .await;
    }
    (broken.len(), broken.len())
}

/// Waits until every good event has its task and every broken one is buried.
async fn routed(stored: &Stored, tasks: usize, letters: usize) {
    until("all events are routed or buried", async || {
        let found = (
            stored.tasks(REVIEW_ID).await.len(),
            stored.dead().await.len(),
        );
        if found == (tasks, letters) {
            Ok(())
        } else {
            Err(format!("tasks and dead letters: {found:?}"))
        }
    })
    .await;
    stored.settled().await;
    assert_eq!(stored.tasks(REVIEW_ID).await.len(), tasks);
}

/// Each letter keeps what was published, and EVENTS keeps none of it.
async fn assert_letters(stored: &Stored, run: &str) {
    let letters = stored.all(stream::LEDGER, subject::DEAD_ALL).await;
    for (_, _, error) in broken() {
        let payload = format!("{run} {error}");
        let same = |letter: &&Message| letter.payload == payload.as_bytes();
        let letter = letters.iter().find(same).expect("a letter of its own");
        let parsed = subject::parse_dead(&letter.subject).unwrap();
        assert_eq!((parsed.stage, parsed.reason), ("admission", "malformed"));
        let headers = letter.headers.as_ref().unwrap();
        let said = headers.get(header::ERROR).unwrap().as_str();
        assert!(said.contains(error), "{error}: {said}");
        let block = headers.get(header::ORIG_BLOCK).unwrap().as_str();
        assert!(block.starts_with("TkFUUy8x") || block.starts_with("SFRUUC8x"));
    }
    // Whoever reads the archive can.
    assert!(stored.events().await >= broken().len());
}

#[tokio::test(flavor = "multi_thread")]
async fn mesh_up_outlives_events_that_no_client_can_decode() {
    let dir = tempfile::tempdir().unwrap();
    let cli = Cli::new(dir.path());
    let mesh = MeshUp::start(&cli, &[]).await;
    let review = cli.folder().join("review.yaml");
    std::fs::write(&review, REVIEW).unwrap();
    let review = review.to_str().unwrap();
    cli.run(&["definition", "apply", "-f", review]).ok();
    let (_, stored) = mesh.connect().await;
    let mut wire = Wire::open(&mesh.nats).await;
    let (good, bad) = publish_both(&mut wire, "first").await;
    routed(&stored, good, bad).await;
    assert_letters(&stored, "first").await;
    let health = mesh.health.strip_prefix("http://").unwrap();
    becomes_ready(health).await;

    // And again: it has not used up its lives.
    let mut wire = Wire::open(&mesh.nats).await;
    let (subject, block, _) = &broken()[0];
    wire.publish(subject, block, b"second").await;
    routed(&stored, good, bad + 1).await;
    becomes_ready(health).await;
    let listed = cli.run(&["dead", "list", "-o", "json"]).ok().json();
    let listed = listed.as_array().unwrap();
    assert_eq!(listed.len(), bad + 1);
    let sequence = listed[0]["sequence"].to_string();
    let shown = cli.run(&["dead", "show", sequence.trim_matches('"')]).ok();
    assert!(
        shown.stdout.contains("no client can decode it"),
        "{shown:?}"
    );
    // The ports that it told are still the ones.
    assert_eq!(
        kaizen_tests::post_event(&mesh.http, &[], &bad_run_bytes("late"))
            .await
            .status,
        202
    );
    routed(&stored, good + 1, bad + 1).await;
    mesh.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_router_of_its_own_outlives_events_that_no_client_can_decode() {
    let mesh = Mesh::start_with(&[Which::Gateway]).await;
    mesh.apply(REVIEW).await;
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let health = free.local_addr().unwrap().to_string();
    drop(free);
    let router = Binary::start(
        &mesh.cli,
        "kaizen-router",
        &mesh.context.nats,
        &[("KAIZEN_HEALTH__LISTEN", &health)],
    );
    becomes_ready(&health).await;
    // What was on its way beside a broken one comes again soon.
    mesh.stored.end_leases().await;
    let mut wire = Wire::open(&mesh.context.nats).await;
    let (good, bad) = publish_both(&mut wire, "own").await;
    routed(&mesh.stored, good, bad).await;
    assert_letters(&mesh.stored, "own").await;
    becomes_ready(&health).await;
    let died = "the NATS client has died";
    assert!(!router.lines_with(died).is_empty(), "the fault took effect");
    router.stop().await;
}

/// A client that hears everything, until it cannot decode something.
struct Ear {
    client: Client,
    heard: Subscriber,
    interrupted: watch::Receiver<bool>,
}

impl Ear {
    async fn open(url: &str) -> Self {
        let (tell, interrupted) = watch::channel(false);
        let client = async_nats::ConnectOptions::new()
            .event_callback(move |event| {
                if matches!(event, Event::Disconnected) {
                    tell.send_replace(true);
                }
                std::future::ready(())
            })
            .connect(url)
            .await
            .unwrap();
        let heard = client.subscribe("fuzz.>").await.unwrap();
        // The server has the subscription once it has answered.
        let answer = client.request("nobody.is.here", "".into()).await;
        answer.unwrap_err();
        Self {
            client,
            heard,
            interrupted,
        }
    }

    /// Whether a message arrives, rather than the end of the connection or of the client.
    async fn hears(&mut self) -> bool {
        let mut interrupted = self.interrupted.clone();
        tokio::select! {
            message = self.heard.next() => message.is_some(),
            _ = interrupted.wait_for(|interrupted| *interrupted) => false,
            () = async {
                while self.client.flush().await.is_ok() {
                    tokio::task::yield_now().await;
                }
            } => false,
        }
    }
}

/// Header lines, most of them wrong somewhere.
fn blocks() -> impl Strategy<Value = Vec<u8>> {
    let part = prop_oneof![
        4 => Just(&b"\r\n"[..]),
        4 => Just(&b": "[..]),
        4 => Just(&b"name"[..]),
        2 => Just(&b":"[..]),
        2 => Just(&b"one two"[..]),
        1 => Just(&b"\r"[..]),
        1 => Just(&b"\n"[..]),
        1 => Just(&b" "[..]),
        1 => Just(&b"\t"[..]),
        1 => Just(&b"\x0b"[..]),
        1 => Just(&b"\0"[..]),
        1 => Just(&b"\xff"[..]),
        1 => Just("\u{85}".as_bytes()),
        1 => Just("\u{a0}".as_bytes()),
        1 => Just("\u{e9}".as_bytes()),
    ];
    let line_by_line = proptest::collection::vec(part, 0..12);
    (line_by_line, proptest::bool::weighted(0.95)).prop_map(|(parts, versioned)| {
        let version: &[u8] = if versioned { b"NATS/1.0\r\n" } else { b"" };
        [version, &parts.concat(), b"\r\n\r\n"].concat()
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_taken_for_decodable_is_what_the_client_decodes() {
    const CASES: u32 = 300;
    let mesh = Mesh::bare().await;
    let mut wire = Wire::open(&mesh.context.nats).await;
    let mut ear = Ear::open(&mesh.context.nats).await;
    let mut runner = TestRunner::deterministic();
    let mut decoded = 0;
    for _ in 0..CASES {
        let block = blocks().new_tree(&mut runner).unwrap().current();
        wire.publish(b"fuzz.x", &block, b"payload").await;
        let heard = ear.hears().await;
        let shown = String::from_utf8_lossy(&block);
        assert_eq!(decodable("fuzz.x", &block).is_ok(), heard, "{shown:?}");
        if heard {
            decoded += 1;
        } else {
            ear = Ear::open(&mesh.context.nats).await;
        }
    }
    assert!((CASES / 10..CASES * 9 / 10).contains(&decoded), "{decoded}");
    let subject = "fuzz.a\u{a0}b";
    wire.publish(subject.as_bytes(), b"NATS/1.0\r\n\r\n", b"payload")
        .await;
    assert!(!ear.hears().await && decodable(subject, b"").is_err());
}
