//! A gateway for tests: as much of a NATS server as one request needs, and an answer to each
//! envelope.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

use kaizen_proto::{
    envelope::EventEnvelope,
    gateway::{
        PublishRequest, PublishResponse, RefusalReason, Refused, Stored,
        publish_response::Result as Outcome,
    },
    id::TriggerId,
    subject,
};
use prost::Message as _;

type Answer = dyn Fn(&EventEnvelope) -> Option<PublishResponse> + Send + Sync;

pub(crate) struct Gateway {
    pub(crate) url: String,
    seen: Arc<Mutex<Vec<Seen>>>,
}

/// One request.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) envelope: EventEnvelope,
    pub(crate) headers: String,
}

impl Gateway {
    /// `None` as an answer is what a server says where nobody serves the subject.
    pub(crate) fn start(
        answer: impl Fn(&EventEnvelope) -> Option<PublishResponse> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("nats://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (kept, answer): (_, Arc<Answer>) = (seen.clone(), Arc::new(answer));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (kept, answer) = (kept.clone(), answer.clone());
                thread::spawn(move || serve(stream.unwrap(), &kept, &*answer));
            }
        });
        Self { url, seen }
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// Ids of all envelopes, in the order in which they came.
    pub(crate) fn ids(&self) -> Vec<String> {
        self.seen()
            .into_iter()
            .map(|seen| seen.envelope.id)
            .collect()
    }
}

pub(crate) fn stored(envelope: &EventEnvelope) -> Option<PublishResponse> {
    let stored = Stored {
        sequence: 7,
        duplicate: false,
        trigger_id: TriggerId::of_event(&envelope.source, &envelope.id).to_string(),
    };
    Some(PublishResponse {
        result: Some(Outcome::Stored(stored)),
    })
}

pub(crate) fn refused(reason: RefusalReason, message: &str, hint: &str) -> Option<PublishResponse> {
    let refused = Refused {
        reason: reason.into(),
        message: message.into(),
        hint: hint.into(),
    };
    Some(PublishResponse {
        result: Some(Outcome::Refused(refused)),
    })
}

/// The client's side of a connection until it hangs up.
fn serve(stream: TcpStream, seen: &Mutex<Vec<Seen>>, answer: &Answer) {
    let mut to_client = stream.try_clone().unwrap();
    let mut from_client = BufReader::new(stream);
    let info = r#"INFO {"server_id":"test","server_name":"test","version":"2.15.1","go":"go","host":"127.0.0.1","port":4222,"headers":true,"max_payload":1048576,"proto":1,"client_id":1,"jetstream":true}"#;
    write!(to_client, "{info}\r\n").unwrap();
    let mut sid = String::new();
    let mut line = String::new();
    while from_client.read_line(&mut line).is_ok_and(|read| read > 0) {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["PING"] => to_client.write_all(b"PONG\r\n").unwrap(),
            ["SUB", _, id] => sid = (*id).to_owned(),
            ["HPUB", to, reply, head, total] => {
                assert_eq!(*to, subject::PUBLISH);
                let head: usize = head.parse().unwrap();
                let mut bytes = vec![0; total.parse::<usize>().unwrap() + 2];
                from_client.read_exact(&mut bytes).unwrap();
                let request = PublishRequest::decode(&bytes[head..bytes.len() - 2]).unwrap();
                let envelope = EventEnvelope::parse(&request.envelope).unwrap();
                let answer = answer(&envelope);
                let headers = String::from_utf8(bytes[..head].to_vec()).unwrap();
                seen.lock().unwrap().push(Seen { envelope, headers });
                to_client.write_all(&response(reply, &sid, answer)).unwrap();
            }
            _ => {}
        }
        line.clear();
    }
}

fn response(reply: &str, sid: &str, answer: Option<PublishResponse>) -> Vec<u8> {
    let Some(answer) = answer else {
        let head = "NATS/1.0 503\r\n\r\n";
        return format!("HMSG {reply} {sid} {0} {0}\r\n{head}\r\n", head.len()).into_bytes();
    };
    let payload = answer.encode_to_vec();
    let mut bytes = format!("MSG {reply} {sid} {}\r\n", payload.len()).into_bytes();
    bytes.extend(payload);
    bytes.extend(b"\r\n");
    bytes
}
