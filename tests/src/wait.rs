//! Waiting for a condition.

use std::{fmt::Display, time::Duration};

use tokio::time::{Instant, sleep};

/// How long a test waits for what takes milliseconds on an idle machine.
pub const DEADLINE: Duration = Duration::from_secs(60);

const POLL: Duration = Duration::from_millis(5);

/// Polls `condition` until it holds; the panic names `what` and what was seen last.
pub async fn until<T, Seen: Display>(
    what: &str,
    mut condition: impl AsyncFnMut() -> Result<T, Seen>,
) -> T {
    let deadline = Instant::now() + DEADLINE;
    let mut pause = POLL;
    loop {
        match condition().await {
            Ok(value) => return value,
            Err(seen) if Instant::now() > deadline => {
                panic!("not within {DEADLINE:?}: {what}; last seen: {seen}")
            }
            Err(_) => sleep(pause).await,
        }
        // Fast where it comes at once, gentle with the machine where it takes its time.
        pause = (pause * 2).min(POLL * 16);
    }
}
