//! A right that is missing is an error that names it, not a time-out.

use std::{
    fs,
    path::{Path, PathBuf},
};

use kaizen_tests::Cli;

use crate::shipped_config::{CONFIG, Shipped};

/// The shipped configuration, but one user lacks one right.
fn config_without(dir: &Path, user: &str, right: &str) -> PathBuf {
    let shipped = Path::new(CONFIG);
    let folder = dir.join("nats");
    fs::create_dir_all(&folder).unwrap();
    let config = folder.join("nats-server.conf");
    fs::copy(shipped, &config).unwrap();
    let users = fs::read_to_string(shipped.with_file_name("users.conf")).unwrap();
    let (before, of_user) = users.split_once(&format!("user: {user}\n")).unwrap();
    let right = format!("\"{right}\"");
    assert!(of_user.contains(&right), "{user} has {right}");
    let of_user = of_user.replacen(&right, "\"nothing\"", 1);
    let users = format!("{before}user: {user}\n{of_user}");
    fs::write(folder.join("users.conf"), users).unwrap();
    config
}

/// Starts a service whose user lacks a right, beside a gateway that makes the streams, and
/// asserts that it ends with an error which says so.
async fn ends_without(service: &'static str, right: &str, says: &str) {
    let dir = tempfile::tempdir().unwrap();
    let cli = Cli::new(dir.path());
    let user = service.strip_prefix("kaizen-").unwrap();
    let server = Shipped::start_on(dir.path(), &config_without(dir.path(), user, right)).await;
    let mut gateway = None;
    if user != "metrics-gateway" {
        let mut running = server.service(&cli, "kaizen-metrics-gateway");
        let _ = running.logs("serving").await;
        gateway = Some(running);
    }
    let (code, said) = server.service(&cli, service).ended().await;
    assert_eq!(code, Some(1), "{said}");
    let last = said.lines().last().unwrap();
    let error = format!("{user}: NATS user {user} may not {says}");
    assert!(last.starts_with(&error), "{said}");
    assert!(
        last.contains("give it this right") && last.contains("users.conf"),
        "{said}"
    );
    if let Some(gateway) = gateway {
        gateway.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn gateway_without_a_right_names_it_and_ends() {
    let says = "publish to $JS.API.";
    ends_without("kaizen-metrics-gateway", "$JS.API.>", says).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn router_without_a_right_names_it_and_ends() {
    let right = "$JS.API.CONSUMER.INFO.*.*";
    let says = "publish to $JS.API.CONSUMER.INFO.";
    ends_without("kaizen-router", right, says).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn resolver_without_a_right_names_it_and_ends() {
    let right = "kaizen.rpc.resolver.> resolver";
    let says = "subscribe to kaizen.rpc.resolver.v1.resolve";
    ends_without("kaizen-resolver", right, says).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn scheduler_without_a_right_names_it_and_ends() {
    let says = "publish to kaizen.scheduler.alive";
    ends_without("kaizen-scheduler", "kaizen.scheduler.alive", says).await;
}
