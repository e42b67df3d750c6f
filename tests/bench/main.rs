//! The bench: how long it takes until all ticks are stored, of many definitions that are due in
//! the same second, beside the server's own message schedules for the same load.
//!
//! Times are those at which the server stored each message, so that measuring takes no part in
//! what is measured. Nothing is asserted: what a machine does depends on the machine.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::indexing_slicing,
    clippy::as_conversions,
    reason = "a program for people; JSON values answer null, and counts fit"
)]

mod figures;
mod floor;
mod own;

use std::process::ExitCode;

use clap::Parser;
use floor::Floor;
use own::Own;
use serde::Serialize;

/// Measures the scheduler under load, beside the server's own message schedules.
#[derive(Debug, Parser)]
#[command(name = "tick-bench")]
struct Args {
    /// How many definitions are due at once
    #[arg(long, value_delimiter = ',', default_values_t = [1_000, 10_000, 100_000])]
    definitions: Vec<usize>,
    /// Slots that are measured; the one in the middle is reported
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    runs: u16,
    /// Replicas of the scheduler
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=9))]
    replicas: u16,
    /// Seconds without a slot over which the idle CPU is taken
    #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u64).range(1..=24))]
    idle_seconds: u64,
    /// Report on stdout: table or json
    #[arg(short, long, default_value = "table", value_parser = ["table", "json"])]
    output: String,
}

#[derive(Debug, Serialize)]
struct Row {
    definitions: usize,
    replicas: u16,
    scheduler: Own,
    server_schedules: Floor,
    /// Last tick of the scheduler over last message of the server's schedules.
    last_ratio: f64,
}

// One thread: the kernel ends the children with the thread that started them.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let args = Args::parse();
    match measure(&args).await {
        Ok(rows) => {
            match args.output.as_str() {
                "json" => println!("{:#}", serde_json::json!(rows)),
                _ => print(&rows),
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn measure(args: &Args) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for count in &args.definitions {
        eprintln!("==> {count} definitions");
        let folder = tempfile::Builder::new().prefix("tick-bench-").tempdir()?;
        let server_schedules = floor::measure(args, *count, folder.path()).await?;
        let folder = tempfile::Builder::new().prefix("tick-bench-").tempdir()?;
        let scheduler = own::measure(args, *count, folder.path()).await?;
        rows.push(Row {
            definitions: *count,
            replicas: args.replicas,
            last_ratio: scheduler.lateness.last_ms / server_schedules.lateness.last_ms,
            scheduler,
            server_schedules,
        });
    }
    Ok(rows)
}

fn print(rows: &[Row]) {
    println!("all definitions due in the same second; milliseconds behind the slot, as stored");
    println!(
        "{:>11} {:<18} {:>8} {:>8} {:>8} {:>11} {:>11}",
        "definitions", "who", "p50", "p99", "last", "CPU s/slot", "server CPU"
    );
    for row in rows {
        let (own, floor) = (&row.scheduler, &row.server_schedules);
        let line = |who: &str, late: &figures::Lateness, cpu: String, server_cpu_s: f64| {
            println!(
                "{:>11} {who:<18} {:>8.0} {:>8.0} {:>8.0} {cpu:>11} {server_cpu_s:>11.2}",
                row.definitions, late.p50_ms, late.p99_ms, late.last_ms
            );
        };
        let cpu = format!("{:.2}", own.scheduler_cpu_s);
        line("scheduler", &own.lateness, cpu, own.server_cpu_s);
        line(
            "server's schedules",
            &floor.lateness,
            "-".to_owned(),
            floor.server_cpu_s,
        );
    }
    println!();
    println!(
        "{:>11} {:>10} {:>10} {:>9} {:>13} {:>9}",
        "definitions", "last ratio", "RSS MiB", "idle CPU", "cursors read", "ready"
    );
    for row in rows {
        let own = &row.scheduler;
        println!(
            "{:>11} {:>10.2} {:>10.0} {:>8.2}% {:>10} ms {:>6.0} ms",
            row.definitions,
            row.last_ratio,
            own.scheduler_rss_mib,
            own.idle_cpu_percent,
            own.bootstrap_ms,
            own.ready_ms
        );
    }
}
