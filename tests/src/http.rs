//! `POST /v1/events` by hand: what the gateway is sent and what it answers, byte for byte.

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// What the gateway answered.
#[derive(Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// The body as JSON; null where it is none.
    pub body: Value,
}

/// Posts an envelope to the gateway at `http://host:port`, with further header lines.
pub async fn post_event(gateway: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    let address = gateway.strip_prefix("http://").expect("an http:// address");
    let (mut from, mut to) = TcpStream::connect(address).await.unwrap().into_split();
    let mut head = format!(
        "POST /v1/events HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n",
        body.len()
    );
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    let send = async {
        to.write_all(format!("{head}\r\n").as_bytes()).await?;
        to.write_all(body).await
    };
    let mut answer = Vec::new();
    // A server that refuses a body by its length need not read it, and may hang up on the rest:
    // what it said before that counts.
    _ = tokio::join!(send, from.read_to_end(&mut answer));
    parse(&String::from_utf8_lossy(&answer))
}

fn parse(answer: &str) -> Answer {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((answer, ""));
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    Answer {
        status: status.unwrap_or_else(|| panic!("no HTTP answer: {answer:?}")),
        body: serde_json::from_str(body).unwrap_or(Value::Null),
    }
}
