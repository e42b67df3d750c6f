//! Orders that nobody took are ended before the ledger forgets them.

use std::time::Duration;

use jiff::Timestamp;
use kaizen_lifecycle::CancellationToken;
use kaizen_messaging::{
    Nats,
    archive::{Archive, Archived},
    chain, clock,
    connection::jittered,
    tasks::{self, Put},
};
use kaizen_proto::{record::TaskRecord, stream, subject};
use kaizen_registry::life::{self, Standing};
use tracing::{info, warn};

/// From one look at the old orders to the next.
const INTERVAL: Duration = Duration::from_secs(60 * 60);
/// How long before the ledger forgets an order it is ended.
const AHEAD: Duration = Duration::from_secs(24 * 60 * 60);

type Failed = Box<dyn std::error::Error + Send + Sync>;

/// Ends what nobody has taken in time, now and then, until `shutdown`. Every replica looks; one
/// of them ends each task.
pub(crate) async fn run(nats: &Nats, ledger_age: Duration, shutdown: &CancellationToken) {
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(jittered(INTERVAL)) => {}
        }
        let swept = async {
            let now = clock::server_time(nats, stream::LEDGER).await?;
            let until = now.checked_sub(ledger_age.saturating_sub(AHEAD))?;
            sweep(nats, until).await
        };
        tokio::select! {
            () = shutdown.cancelled() => return,
            swept = swept => match swept {
                Ok(0) => {}
                Ok(expired) => info!(expired, "tasks have expired: nobody took them"),
                Err(error) => {
                    let error = chain(error.as_ref());
                    warn!(error, "cannot look for tasks that nobody took; trying again");
                }
            },
        }
    }
}

/// Ends every task whose last order was stored before `until`, unless it has ended; answers how
/// many.
///
/// # Errors
/// LEDGER cannot be read or written now. What was ended stays so.
pub async fn sweep(nats: &Nats, until: Timestamp) -> Result<u64, Failed> {
    let filters = vec![subject::TASKS_ALL.to_owned()];
    let window = (Timestamp::UNIX_EPOCH, until);
    let mut orders = Archive::new(nats.clone(), stream::LEDGER, filters, window);
    let mut expired = 0;
    loop {
        let chunk = orders.next().await?;
        if chunk.is_empty() {
            return Ok(expired);
        }
        for order in chunk.iter().filter(|archived| is_order(archived)) {
            expired += u64::from(expire(nats, order).await?);
        }
    }
}

fn is_order(archived: &Archived) -> bool {
    let record = serde_json::from_slice(&archived.payload);
    record.is_ok_and(|record| matches!(record, TaskRecord::Order(_)))
}

/// Ends the task of an order, where that is its last order and it has not ended.
async fn expire(nats: &Nats, order: &Archived) -> Result<bool, Failed> {
    let Some(last) = tasks::last(nats, &order.subject).await? else {
        return Ok(false);
    };
    let headers = tasks::following(&last.headers);
    let standing = Standing {
        sequence: last.sequence,
        record: last.record,
    };
    if standing.order() != order.sequence {
        return Ok(false);
    }
    let Ok(record) = life::expire(&standing, NOTE) else {
        return Ok(false);
    };
    let put = tasks::put(nats, &order.subject, standing.sequence, &record, &headers).await?;
    Ok(matches!(put, Put::Stored(_)))
}

const NOTE: &str = "nobody has finished it before the ledger would have forgotten it";
