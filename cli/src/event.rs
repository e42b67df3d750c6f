//! `event publish|dry-run|types`.

use anyhow::{Context as _, bail};
use clap::Subcommand;
use jiff::Timestamp;
use kaizen_proto::{
    admin::{self, DryRunEventRequest, DryRunEventResponse},
    envelope::EventEnvelope,
    from_pb_timestamp,
    id::EventType,
};
use serde::Serialize;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::{
    Exit,
    admin::{Admin, client},
    args, disk,
    output::{self, count, instant, one_line, shortened, table},
    preview::{self, Preview},
    publish::{NotStored, Publisher},
    session::Session,
};

/// `event …`
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  kaizen-agentic event publish -f event.json
  kaizen-agentic event types")]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Publish an event and wait until it is stored
    #[command(after_help = "\
Example:
  kaizen-agentic event publish --type kaizen.metrics.recorded --source demo \\
    --attributes '{\"agent\": \"coach\", \"project\": \"demo\", \"success\": true}'")]
    Publish(PublishArgs),
    /// Show what an event would set off now; nothing is stored
    #[command(after_help = "\
Example:
  kaizen-agentic event dry-run -f event.json
  kaizen-agentic event dry-run -f event.json --all")]
    DryRun {
        /// An EventEnvelope or CloudEvents 1.0 event as JSON, or - for stdin
        #[arg(short, long, value_name = "FILE|-")]
        file: String,
        /// Show every other definition as well, with the first reason that rules it out
        #[arg(long)]
        all: bool,
    },
    /// List the event types that the mesh takes, with how many events of each there were
    #[command(after_help = "\
Example:
  kaizen-agentic event types")]
    Types,
}

#[derive(Debug, clap::Args)]
struct PublishArgs {
    /// An EventEnvelope or CloudEvents 1.0 event as JSON, or - for stdin
    #[arg(short, long, value_name = "FILE|-", conflicts_with_all = ["event_type", "source", "id", "attributes"])]
    file: Option<String>,
    /// Its event type
    #[arg(long = "type", value_name = "TYPE", required_unless_present = "file", requires_all = ["source", "attributes"])]
    event_type: Option<EventType>,
    /// Who says so; source and id together are the event's identity
    #[arg(long, required_unless_present = "file")]
    source: Option<String>,
    /// Unique within the source; without it a new UUIDv7
    #[arg(long)]
    id: Option<String>,
    /// What happened, as a JSON object
    #[arg(long, value_name = "JSON", required_unless_present = "file", value_parser = args::json_object)]
    attributes: Option<Map<String, Value>>,
}

pub(crate) fn run(session: &Session, args: Args) -> anyhow::Result<Exit> {
    match args.verb {
        Verb::Publish(args) => publish(session, args),
        Verb::DryRun { file, all } => dry_run(session, &file, all),
        Verb::Types => types(session),
    }
}

fn publish(session: &Session, args: PublishArgs) -> anyhow::Result<Exit> {
    let (envelope, again) = match &args.file {
        Some(file) => (
            disk::read_input(file)?,
            "publishing it again is safe".to_owned(),
        ),
        None => {
            let envelope = envelope_of(args)?;
            let again = format!("publishing it again with --id {} is safe", envelope.id);
            let json = serde_json::to_vec(&envelope);
            (json.context("cannot write the envelope as JSON")?, again)
        }
    };
    let stored = session.remote("event publish", async {
        let publisher = Publisher::connect(session).await?;
        publisher
            .publish(envelope)
            .await
            .map_err(|error| match error {
                NotStored::Refused(refusal) => anyhow::anyhow!("refused: {}", refusal.text()),
                NotStored::Unavailable(error) => {
                    error.context(format!("not known to be stored; {again}"))
                }
            })
    })?;
    let view = json!({
        "sequence": stored.sequence,
        "duplicate": stored.duplicate,
        "trigger_id": stored.trigger_id,
    });
    session.output.data(&view, |_| {
        let row = [
            stored.sequence.to_string(),
            stored.duplicate.to_string(),
            stored.trigger_id.clone(),
        ];
        table(["SEQUENCE", "DUPLICATE", "TRIGGER ID"], [row])
    })?;
    Ok(Exit::Ok)
}

/// The same flags with the same id always make the same event, so that a retry is a duplicate
/// and no conflict.
fn envelope_of(args: PublishArgs) -> anyhow::Result<EventEnvelope> {
    let (Some(event_type), Some(source), Some(attributes)) =
        (args.event_type, args.source, args.attributes)
    else {
        bail!("give -f FILE, or --type, --source and --attributes");
    };
    let id = args.id.unwrap_or_else(|| Uuid::now_v7().to_string());
    Ok(EventEnvelope {
        time: time_of(&id),
        id,
        event_type,
        source,
        attributes,
        extensions: Map::default(),
    })
}

/// The instant at which a UUIDv7 was made, to the millisecond; any other id tells none.
fn time_of(id: &str) -> Option<Timestamp> {
    let (seconds, nanoseconds) = Uuid::parse_str(id).ok()?.get_timestamp()?.to_unix();
    Timestamp::new(
        i64::try_from(seconds).ok()?,
        i32::try_from(nanoseconds).ok()?,
    )
    .ok()
}

fn dry_run(session: &Session, file: &str, all: bool) -> anyhow::Result<Exit> {
    let request = DryRunEventRequest {
        envelope: disk::read_input(file)?,
        all,
    };
    let response = Admin::run(session, "event dry-run", |admin| async move {
        let mut dry_run = client!(admin, dry_run_client, DryRunClient);
        let response = dry_run.event(request).await;
        response.map_err(|status| admin.refused(&status))
    })?
    .into_inner();
    for warning in &response.warnings {
        session.output.warn(one_line(warning));
    }
    let view = EventView::from(response);
    if view.activations.is_empty() {
        session
            .output
            .say("no enabled definition is triggered by this event");
    }
    if all {
        session.output.data(&view, EventView::for_people)?;
    } else {
        session
            .output
            .data(&view.activations, |previews| preview::for_people(previews))?;
    }
    if view.ruled_out_left_out > 0 {
        session.output.say(format_args!(
            "and {} more that are ruled out",
            view.ruled_out_left_out
        ));
    }
    Ok(preview::exit(&view.activations))
}

/// With `--all`.
#[derive(Serialize)]
struct EventView {
    activations: Vec<Preview>,
    ruled_out: Vec<RuledOut>,
    /// How many more are ruled out.
    ruled_out_left_out: u64,
}

/// A definition that the event does not concern, and the first reason.
#[derive(Serialize)]
struct RuledOut {
    definition: String,
    revision: u64,
    reason: String,
    why: String,
}

impl From<DryRunEventResponse> for EventView {
    fn from(response: DryRunEventResponse) -> Self {
        let activations = response.activations.into_iter().map(Preview::from);
        let ruled_out = response.ruled_out.into_iter().map(|one| RuledOut {
            definition: one.definition,
            revision: one.revision,
            reason: one.reason,
            why: one.why,
        });
        Self {
            activations: activations.collect(),
            ruled_out: ruled_out.collect(),
            ruled_out_left_out: response.ruled_out_left_out,
        }
    }
}

impl EventView {
    fn for_people(&self) -> String {
        let row = |one: &RuledOut| [one.definition.clone(), shortened(&one.why)];
        let ruled_out = table(["DEFINITION", "RULED OUT"], self.ruled_out.iter().map(row));
        let parts = [preview::for_people(&self.activations), ruled_out];
        output::parts(parts)
    }
}

fn types(session: &Session) -> anyhow::Result<Exit> {
    let response = Admin::run(session, "event types", |admin| async move {
        let mut types = client!(admin, event_types_client, EventTypesClient);
        let request = admin::ListEventTypesRequest {
            with_activity: true,
        };
        let response = types.list(request).await;
        response.map_err(|status| admin.refused(&status))
    })?
    .into_inner();
    let types: Vec<_> = response
        .event_types
        .into_iter()
        .map(TypeView::from)
        .collect();
    session.output.data(&types, |types| {
        table(
            [
                "NAME",
                "VERSION",
                "MODE",
                "REVISION",
                "PER MIN (1H)",
                "PER MIN (24H)",
                "LAST SEEN",
                "DESCRIPTION",
            ],
            types.iter().map(TypeView::row),
        )
    })?;
    session.output.say(count(types.len(), "event type"));
    Ok(Exit::Ok)
}

#[derive(Serialize)]
struct TypeView {
    name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    version: String,
    mode: String,
    revision: u64,
    description: String,
    schema: Value,
    /// Events stored in the last hour, and in the last day.
    last_hour: u64,
    last_day: u64,
    /// Absent where the archive holds no event of the type.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_seen: Option<Timestamp>,
}

impl From<admin::EventType> for TypeView {
    fn from(one: admin::EventType) -> Self {
        let activity = one.activity.unwrap_or_default();
        Self {
            schema: serde_json::from_str(&one.schema).unwrap_or(Value::Null),
            name: one.name,
            version: one.version,
            mode: one.mode,
            revision: one.revision,
            description: one.description,
            last_hour: activity.last_hour,
            last_day: activity.last_day,
            last_seen: activity.last_seen.as_ref().and_then(from_pb_timestamp),
        }
    }
}

impl TypeView {
    fn row(&self) -> [String; 8] {
        let version = Some(&self.version).filter(|version| !version.is_empty());
        [
            self.name.clone(),
            version.map_or_else(|| "-".to_owned(), String::clone),
            self.mode.clone(),
            match self.revision {
                0 => "-".to_owned(),
                revision => revision.to_string(),
            },
            rate(self.last_hour, 60),
            rate(self.last_day, 24 * 60),
            instant(self.last_seen),
            self.description.clone(),
        ]
    }
}

/// Events per minute, to two digits that say something.
fn rate(events: u64, minutes: u64) -> String {
    let hundredths = (events * 100).div_ceil(minutes);
    match hundredths {
        0 => "0".to_owned(),
        1_000.. => format!("{}", (events + minutes / 2) / minutes),
        _ => format!("{}.{:02}", hundredths / 100, hundredths % 100),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_is_never_shown_as_none_where_there_was_an_event() {
        for (events, minutes, shown) in [
            (0, 60, "0"),
            (1, 1_440, "0.01"),
            (3, 60, "0.05"),
            (60, 60, "1.00"),
            (599, 60, "9.99"),
            (6_000, 60, "100"),
        ] {
            assert_eq!(rate(events, minutes), shown);
        }
    }

    #[test]
    fn time_is_that_of_the_id_or_none() {
        let id = Uuid::now_v7();
        let made = time_of(&id.to_string()).unwrap();
        assert!(Timestamp::now().duration_since(made).as_secs() < 60);
        assert_eq!(time_of(&id.to_string()), Some(made));
        // Version 4, and no UUID at all.
        assert_eq!(time_of("6fa459ea-ee8a-4ca4-894e-db77e160355e"), None);
        assert_eq!(time_of("1"), None);
    }
}
