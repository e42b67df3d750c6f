//! `tick describe`: an expression in plain English, without a server.

use anyhow::anyhow;
use jiff::{Timestamp, tz::TimeZone};
use kaizen_schedule::{Schedule, ScheduleSpec};
use serde_json::json;

use super::local;
use crate::{
    Exit, args,
    output::{fields, instant, length, table},
    session::Session,
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The expression: five fields, six with seconds, or a name such as @daily
    expression: String,
    /// The zone that it is meant in
    #[arg(long, value_name = "ZONE", value_parser = zone_name, default_value = "UTC")]
    zone: String,
    /// What `H` is hashed from: the id of the definition
    #[arg(long, value_name = "DEFINITION", default_value = "")]
    seed: String,
    /// How many slots to show
    #[arg(short = 'n', long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1000))]
    count: u16,
}

fn zone_name(text: &str) -> Result<String, String> {
    args::zone(text).map(|_| text.to_owned())
}

pub(super) fn run(session: &Session, args: &Args, now: Timestamp) -> anyhow::Result<Exit> {
    let spec = ScheduleSpec {
        cron: args.expression.clone(),
        timezone: args.zone.clone(),
        ..ScheduleSpec::default()
    };
    let schedule = Schedule::new(&spec, &args.seed).map_err(|error| anyhow!("{error}"))?;
    let zone = TimeZone::get(&args.zone)?;
    let slots: Vec<_> = schedule
        .slots_after(now)
        .take(usize::from(args.count))
        .collect();
    let view = json!({
        "expression": args.expression,
        "timezone": args.zone,
        "description": schedule.describe(),
        "slots": slots,
    });
    session.output.data(&view, |_| {
        let head = fields([
            ("Expression", args.expression.clone()),
            ("Fires", schedule.describe()),
        ]);
        let rows = slots.iter().map(|slot| {
            let seconds = slot.duration_since(now).as_secs();
            [instant(Some(*slot)), local(*slot, &zone), length(seconds)]
        });
        format!("{head}\n{}", table(["SLOT (UTC)", "LOCAL", "IN"], rows))
    })?;
    Ok(Exit::Ok)
}
