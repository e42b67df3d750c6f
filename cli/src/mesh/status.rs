//! `mesh status`

use kaizen_proto::admin::{MeshStatus, MeshStatusRequest};
use serde_json::{Value, json};

use crate::{
    Exit, Session,
    admin::{Admin, client},
    output::{count, fields, table},
};

pub(super) fn run(session: &Session) -> anyhow::Result<Exit> {
    let status = Admin::run(session, "mesh status", |admin| async move {
        let mut mesh = client!(admin, mesh_client, MeshClient);
        let answer = mesh.status(MeshStatusRequest {}).await;
        answer.map_err(|status| admin.refused(&status))
    })?
    .into_inner();
    session.output.data(&json(&status), |_| people(&status))?;
    Ok(Exit::Ok)
}

fn json(status: &MeshStatus) -> Value {
    let streams = status.streams.iter().map(|stream| {
        json!({
            "name": stream.name, "messages": stream.messages, "bytes": stream.bytes,
            "subjects": stream.subjects, "last_sequence": stream.last_sequence,
        })
    });
    let consumers = status.consumers.iter().map(|consumer| {
        json!({
            "stream": consumer.stream, "name": consumer.name, "pending": consumer.pending,
            "ack_pending": consumer.ack_pending, "redelivered": consumer.redelivered,
        })
    });
    json!({
        "nats_server": status.nats_server,
        "definitions": status.definitions,
        "definitions_enabled": status.definitions_enabled,
        "ledger_subject_bytes": {
            "min": status.ledger_subject_bytes_min, "max": status.ledger_subject_bytes_max,
        },
        "streams": streams.collect::<Vec<_>>(),
        "consumers": consumers.collect::<Vec<_>>(),
    })
}

fn people(status: &MeshStatus) -> String {
    let head = fields([
        ("nats-server", status.nats_server.clone()),
        (
            "definitions",
            format!(
                "{}, {} enabled",
                status.definitions, status.definitions_enabled
            ),
        ),
        (
            "server memory for LEDGER's subjects",
            format!(
                "{} to {} B (350 to 550 B each)",
                status.ledger_subject_bytes_min, status.ledger_subject_bytes_max
            ),
        ),
    ]);
    let streams = table(
        ["STREAM", "MESSAGES", "BYTES", "SUBJECTS", "LAST"],
        status.streams.iter().map(|s| {
            [
                s.name.clone(),
                s.messages.to_string(),
                s.bytes.to_string(),
                s.subjects.to_string(),
                s.last_sequence.to_string(),
            ]
        }),
    );
    let consumers = table(
        ["CONSUMER", "STREAM", "PENDING", "IN WORK", "REDELIVERED"],
        status.consumers.iter().map(|c| {
            [
                c.name.clone(),
                c.stream.clone(),
                c.pending.to_string(),
                c.ack_pending.to_string(),
                c.redelivered.to_string(),
            ]
        }),
    );
    let total = count(status.streams.len(), "stream");
    format!("{}\n\n{total}\n{streams}\n\n{consumers}\n", head.trim_end())
}
