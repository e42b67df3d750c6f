//! Readiness is what the server answers, not what the client believes.

use kaizen_tests::{Cli, MeshUp, signal, until};
use nix::sys::signal::Signal;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// The answer to `/readyz`, head and body; nothing where nobody listens.
pub(crate) async fn readyz(address: &str) -> String {
    let mut answer = String::new();
    let Ok(mut connection) = TcpStream::connect(address).await else {
        return answer;
    };
    let request = "GET /readyz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    connection.write_all(request.as_bytes()).await.unwrap();
    _ = connection.read_to_string(&mut answer).await;
    answer
}

async fn is_ready(address: &str) -> bool {
    readyz(address).await.starts_with("HTTP/1.1 200")
}

/// Waits until the process whose health listens at `host:port` is ready.
pub(crate) async fn becomes_ready(address: &str) {
    until("it is ready", async || {
        if is_ready(address).await {
            Ok(())
        } else {
            Err("unready")
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_hangs_makes_the_mesh_unready_until_it_answers() {
    let dir = tempfile::tempdir().unwrap();
    let mesh = MeshUp::start(&Cli::new(dir.path()), &[]).await;
    let health = mesh.health.strip_prefix("http://").unwrap().to_owned();
    assert!(is_ready(&health).await);
    // Its connections stay open: nothing tells the client.
    signal(mesh.server_pid, Signal::SIGSTOP);
    until("it is unready", async || {
        if is_ready(&health).await {
            Err("ready")
        } else {
            Ok(())
        }
    })
    .await;
    signal(mesh.server_pid, Signal::SIGCONT);
    becomes_ready(&health).await;
    mesh.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mesh_whose_server_has_ended_says_so_and_ends() {
    let dir = tempfile::tempdir().unwrap();
    let mesh = MeshUp::start(&Cli::new(dir.path()), &[]).await;
    signal(mesh.server_pid, Signal::SIGKILL);
    let (well, said) = mesh.ended().await;
    assert!(!well);
    assert!(said.contains("nats-server ended"), "{said}");
}
