//! What it costs to ask what if: backtests over an archive and dry-runs, each beside what cannot be
//! done without.
//!
//! Nothing is asserted: what a machine does depends on the machine.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::indexing_slicing,
    clippy::as_conversions,
    reason = "a program for people; counts fit"
)]

mod floor;
mod load;
mod mesh;
mod pure;

use std::process::ExitCode;

use clap::Parser;
use load::CHANGES;
use mesh::Asking;
use serde::Serialize;

/// Measures backtests and dry-runs over a real nats-server.
#[derive(Debug, Parser)]
#[command(name = "what-if-bench")]
struct Args {
    /// Events in the archive
    #[arg(long, default_value_t = 200_000, value_parser = clap::value_parser!(u32).range(1_000..=5_000_000))]
    events: u32,
    /// Dry-runs, and as many calls that read one definition
    #[arg(long, default_value_t = 3_000, value_parser = clap::value_parser!(u32).range(16..))]
    dry_runs: u32,
    /// Report on stdout: table or json
    #[arg(short, long, default_value = "table", value_parser = ["table", "json"])]
    output: String,
}

/// What was measured. Rates are by the second.
#[derive(Debug, Serialize)]
struct Report {
    events: u32,
    /// A consumer of its own that reads and decodes the same events.
    read_and_decoded: f64,
    backtests: Vec<Row>,
    dry_runs: f64,
    /// Calls that read one definition: what a call takes.
    calls: f64,
    /// Evaluations of the same condition by the evaluator alone.
    evaluations: f64,
}

/// One backtest.
#[derive(Debug, Serialize)]
struct Row {
    change: &'static str,
    /// The comparison alone, events being in memory, on one thread.
    in_memory: f64,
    end_to_end: f64,
    /// Reading and decoding alone over the whole: 1 would be for nothing.
    ratio: f64,
    gateway_cpu_us: f64,
    server_cpu_us: f64,
    rss_quarter_mib: f64,
    rss_end_mib: f64,
}

// One thread: the kernel ends the children with the thread that started them.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let args = Args::parse();
    match measure(&args).await {
        Ok(report) => {
            match args.output.as_str() {
                "json" => println!("{:#}", serde_json::json!(report)),
                _ => print(&report),
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn measure(args: &Args) -> anyhow::Result<Report> {
    let folder = tempfile::Builder::new()
        .prefix("what-if-bench-")
        .tempdir()?;
    let asking = Asking::start(folder.path(), args.events).await?;
    eprintln!("==> {} dry-runs", args.dry_runs);
    // Before there are events: a dry-run waits for the router to have dealt with them.
    let dry_runs = asking.dry_runs(args.dry_runs).await?;
    let calls = asking.calls(args.dry_runs).await?;
    asking.store().await?;
    let mut read_and_decoded = Vec::new();
    let mut backtests = Vec::new();
    for change in &CHANGES {
        eprintln!("==> {}", change.name);
        let in_memory = pure::measure(change, args.events as usize)?;
        // Beside each, so that whatever else the machine does meets both.
        let floor = asking.read_and_decoded().await?;
        let measured = asking.backtest(change).await?;
        backtests.push(Row {
            change: change.name,
            in_memory,
            end_to_end: measured.rate,
            ratio: measured.rate / floor,
            gateway_cpu_us: measured.gateway_cpu_us,
            server_cpu_us: measured.server_cpu_us,
            rss_quarter_mib: measured.rss_quarter_mib,
            rss_end_mib: measured.rss_end_mib,
        });
        read_and_decoded.push(floor);
    }
    Ok(Report {
        events: args.events,
        read_and_decoded: median(read_and_decoded),
        backtests,
        dry_runs,
        calls,
        evaluations: floor::evaluations()?,
    })
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

fn print(report: &Report) {
    println!(
        "{} archived events; read and decoded by a consumer of its own: {:.0}/s",
        report.events, report.read_and_decoded
    );
    println!(
        "{:<22}{:>12}{:>13}{:>7}{:>13}{:>12}{:>9}{:>9}",
        "backtest",
        "in memory/s",
        "end to end/s",
        "ratio",
        "gateway us",
        "server us",
        "RSS 1/4",
        "RSS end"
    );
    for row in &report.backtests {
        println!(
            "{:<22}{:>12.0}{:>13.0}{:>7.2}{:>13.1}{:>12.1}{:>9.0}{:>9.0}",
            row.change,
            row.in_memory,
            row.end_to_end,
            row.ratio,
            row.gateway_cpu_us,
            row.server_cpu_us,
            row.rss_quarter_mib,
            row.rss_end_mib
        );
    }
    println!();
    println!(
        "dry-runs {:.0}/s, of calls that read one definition {:.2}; the condition alone {:.0}/s",
        report.dry_runs,
        report.dry_runs / report.calls,
        report.evaluations
    );
}
