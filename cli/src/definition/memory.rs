//! `definition memory`.

use jiff::Timestamp;
use kaizen_proto::{
    admin::{MemoryCell, MemoryRequest},
    from_pb_timestamp,
    id::DefinitionId,
};
use kaizen_registry::memory::{State, cell::Rate};
use serde::Serialize;
use serde_json::Value;

use crate::{
    Exit,
    admin::{Admin, PAGE_SIZE, client},
    output::{instant, table},
    session::Session,
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Its id
    id: DefinitionId,
    /// Only what has suppressed something
    #[arg(long)]
    suppressed: bool,
    /// How many keys
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    limit: u32,
}

pub(super) fn run(session: &Session, args: Args) -> anyhow::Result<Exit> {
    let limit = usize::try_from(args.limit).unwrap_or(usize::MAX);
    let (cells, more) = Admin::run(session, "definition memory", |admin| async move {
        fetch(&admin, &args, limit).await
    })?;
    if more {
        session.output.say(format_args!(
            "there are more than these {limit}; raise --limit to see them"
        ));
    }
    if cells.is_empty() {
        session.output.say("nothing is kept");
    }
    let cells: Vec<_> = cells.into_iter().map(CellView::from).collect();
    session.output.data(&cells, |cells| {
        table(
            ["RULE", "KEPT", "KEY", "STATE", "SUPPRESSED", "LAST"],
            cells.iter().map(CellView::row),
        )
    })?;
    Ok(Exit::Ok)
}

async fn fetch(
    admin: &Admin,
    args: &Args,
    limit: usize,
) -> anyhow::Result<(Vec<MemoryCell>, bool)> {
    let mut definitions = client!(admin, definitions_client, DefinitionsClient);
    let mut request = MemoryRequest {
        id: args.id.to_string(),
        suppressed_only: args.suppressed,
        page_size: PAGE_SIZE,
        page_token: String::new(),
    };
    let mut cells = Vec::new();
    loop {
        let response = definitions.memory(request.clone()).await;
        let page = response
            .map_err(|status| admin.refused(&status))?
            .into_inner();
        cells.extend(page.cells);
        let ended = page.next_page_token.is_empty();
        if ended || cells.len() > limit {
            let more = cells.len() > limit;
            cells.truncate(limit);
            return Ok((cells, more));
        }
        request.page_token = page.next_page_token;
    }
}

/// What is kept for one key.
#[derive(Serialize)]
pub(crate) struct CellView {
    #[serde(skip_serializing_if = "String::is_empty")]
    rule: String,
    key: String,
    state: Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    touched: Option<Timestamp>,
    suppressed: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    suppressed_at: Option<Timestamp>,
}

impl From<MemoryCell> for CellView {
    fn from(cell: MemoryCell) -> Self {
        Self {
            rule: cell.rule,
            key: cell.key,
            state: serde_json::from_str(&cell.state).unwrap_or_default(),
            touched: cell.touched.as_ref().and_then(from_pb_timestamp),
            suppressed: cell.suppressed,
            suppressed_at: cell.suppressed_at.as_ref().and_then(from_pb_timestamp),
        }
    }
}

impl CellView {
    fn row(&self) -> [String; 6] {
        let or_dash = |text: &str| match text {
            "" => "-".to_owned(),
            text => text.to_owned(),
        };
        let (kept, told) = self.kept();
        let last = match self.suppressed_at {
            Some(at) => instant(Some(at)),
            None => "-".to_owned(),
        };
        [
            or_dash(&self.rule),
            kept.to_owned(),
            or_dash(&self.key),
            told,
            self.suppressed.to_string(),
            last,
        ]
    }
}

impl CellView {
    fn kept(&self) -> (&'static str, String) {
        let state: Option<State> = serde_json::from_value(self.state.clone()).ok();
        state.as_ref().map_or(("?", self.state.to_string()), told)
    }

    /// `all of shop/coach: came: metrics; until 2026-11-22T10:00:00Z`
    pub(crate) fn told(&self) -> String {
        let (kept, told) = self.kept();
        match self.key.as_str() {
            "" => format!("{kept}: {told}"),
            key => format!("{kept} of {key}: {told}"),
        }
    }
}

/// The clause, trigger or source that keeps it, and what that is.
fn told(state: &State) -> (&'static str, String) {
    let at = |at: Timestamp| instant(Some(at));
    match state {
        State::Streak { length } => ("for", format!("{length} in a row")),
        State::Hold { raised: true } => ("until", "held".to_owned()),
        State::Hold { raised: false } => ("until", "free".to_owned()),
        State::Cooldown { until } => ("cooldown", format!("quiet until {}", at(*until))),
        State::Rate(rate) => ("rate_limit", period(rate)),
        State::Overlap(overlap) => {
            let waits = overlap.waiting.is_some();
            let waits = if waits { ", the next waits" } else { "" };
            ("overlap", format!("{} tasks{waits}", overlap.tasks.len()))
        }
        State::Join(join) if join.joined => {
            ("all", format!("joined, again after {}", at(join.until)))
        }
        State::Join(join) => {
            let came: Vec<_> = join.events.keys().map(String::as_str).collect();
            let came = came.join(", ");
            ("all", format!("came: {came}; until {}", at(join.until)))
        }
        State::Silence {
            last, fired: true, ..
        } => ("silence", format!("silent since {}", at(*last))),
        State::Silence { last, due, .. } => {
            let due = due.map_or_else(|| "never".to_owned(), at);
            ("silence", format!("last {}, due {due}", at(*last)))
        }
        State::LastTasks { tasks } => ("last_task", format!("{} values", tasks.len())),
        State::List { look_at, .. } => ("runs", format!("looked at again {}", at(*look_at))),
        State::Summary { runs } => ("metrics_summary", format!("{} runs", runs.len())),
    }
}

fn period(rate: &Rate) -> String {
    let held = match rate.held {
        0 => String::new(),
        held => format!(", {held} held back"),
    };
    let until = instant(Some(rate.until));
    format!("{} ordered{held} until {until}", rate.ordered)
}
