//! The basic loop on the server's container image.

use std::process::{Command, Stdio};

use kaizen_tests::{Mesh, Which};
use testcontainers::{
    GenericImage, ImageExt as _,
    core::{IntoContainerPort as _, Mount, WaitFor},
    runners::AsyncRunner as _,
};

use crate::documents::{ENVELOPE, REVIEW, REVIEW_ID};

const IMAGE: (&str, &str) = ("nats", "2.15.1");
/// Set where a skipped test is a failed one.
const REQUIRED: &str = "KAIZEN_REQUIRE_DOCKER";

/// Why there is nothing to run on. Asked first: testcontainers would pull what is not there.
fn missing() -> Option<String> {
    let image = format!("{}:{}", IMAGE.0, IMAGE.1);
    let mut inspect = Command::new("docker");
    inspect
        .args(["image", "inspect", &image])
        .stdin(Stdio::null());
    match inspect.output() {
        Ok(output) if output.status.success() => None,
        Ok(output) => Some(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        Err(error) => Some(format!("cannot run docker: {error}")),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn basic_loop_runs_on_the_container_image() {
    if let Some(reason) = missing() {
        let required = std::env::var(REQUIRED).is_ok_and(|value| value == "1");
        assert!(!required, "{REQUIRED}=1, but {reason}");
        println!("skipped: {reason}");
        return;
    }
    let container = GenericImage::new(IMAGE.0, IMAGE.1)
        .with_exposed_port(4222.tcp())
        .with_wait_for(WaitFor::message_on_stderr("Server is ready"))
        .with_cmd(["-js", "-sd", "/data"])
        .with_mount(Mount::tmpfs_mount("/data"))
        .start()
        .await
        .unwrap();
    let port = container.get_host_port_ipv4(4222).await.unwrap();
    let mut mesh = Mesh::on(&format!("nats://127.0.0.1:{port}")).await;
    for service in Which::ALL {
        mesh.start_service(service).await;
    }
    mesh.apply(REVIEW).await;
    assert_eq!(mesh.post(ENVELOPE.as_bytes()).await.status, 202);
    mesh.stored.settled().await;
    assert_eq!(mesh.stored.tasks(REVIEW_ID).await.len(), 1);
    assert!(mesh.stored.dead().await.is_empty());
    let status = mesh.cli.run(&["mesh", "status", "-o", "json"]).ok().json();
    assert_eq!(status["nats_server"], IMAGE.1);
}
