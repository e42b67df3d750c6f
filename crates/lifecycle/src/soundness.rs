//! A service is ready while what it works on is: the streams, and its consumers.

use std::time::Duration;

use kaizen_messaging::ailing::{Durable, ailing};
use tokio::time::sleep;
use tracing::{info, warn};

use crate::{Mesh, health::Part};

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(3);

impl Mesh {
    /// The service is ready from now on, while all four streams and these consumers are there and
    /// are led.
    pub fn ready(&self, part: &Part, consumers: &'static [Durable]) {
        part.ready();
        let (mesh, part) = (self.clone(), part.clone());
        tokio::spawn(async move {
            let shutdown = mesh.shutdown.clone();
            shutdown
                .run_until_cancelled(mesh.watch(&part, consumers))
                .await;
        });
    }

    async fn watch(&self, part: &Part, consumers: &[Durable]) {
        let mut before = None;
        loop {
            sleep(LOOK_EVERY).await;
            let ails = ailing(&self.nats, consumers).await;
            if ails == before {
                continue;
            }
            match &ails {
                Some(why) => {
                    warn!(why, "unready");
                    part.unready(why);
                }
                None => {
                    info!("ready again");
                    part.ready();
                }
            }
            before = ails;
        }
    }
}
