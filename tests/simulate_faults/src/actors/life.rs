//! What is put behind what stands of a task: the protocol of `crates/messaging/src/tasks.rs`.

use std::rc::Rc;

use kaizen_proto::{record::TaskRecord, stream};
use kaizen_registry::life::Standing;

use crate::{
    broker::{Draft, Guard, Message},
    client::{self, Committed, Unavailable},
    coverage::Seen,
    world::{MS, Micros, Process},
};

const ATTEMPTS_MAX: u32 = 4;
const RETRY_DELAY: Micros = 100 * MS;

/// What became of a record that was to follow on another.
pub(super) enum Put {
    Stored(u64),
    Overtaken(Option<Standing>),
}

/// What stands of the task with this subject, through the leader.
pub(super) async fn standing(
    process: &Process,
    subject: &str,
) -> Result<Option<Standing>, Unavailable> {
    let last = client::last(process, stream::LEDGER, subject).await?;
    Ok(last.as_ref().and_then(read))
}

fn read(message: &Rc<Message>) -> Option<Standing> {
    Some(Standing {
        sequence: message.sequence,
        record: serde_json::from_slice(&message.payload).ok()?,
    })
}

/// Puts a record behind the message of its task at `after`, or finds that another stands there.
pub(super) async fn put(
    process: &Process,
    subject: &str,
    after: u64,
    record: &TaskRecord,
    guarded: bool,
) -> Result<Put, Unavailable> {
    for _ in 1..=ATTEMPTS_MAX {
        let guard = match guarded {
            true => Guard::Last(after),
            false => Guard::None,
        };
        let payload = serde_json::to_vec(record).unwrap_or_default();
        let draft = Draft::new(subject, payload, guard);
        let stored = client::store(process, stream::LEDGER, vec![draft]).await?;
        if let Committed::Stored(sequence) = stored {
            return Ok(Put::Stored(sequence));
        }
        match standing(process, subject).await? {
            Some(last) if last.sequence <= after => process.sim.saw(Seen::DoubtfulNotStored),
            Some(last) if last.record == *record => {
                process.sim.saw(Seen::DoubtfulStored);
                return Ok(Put::Stored(last.sequence));
            }
            last => return Ok(Put::Overtaken(last)),
        }
        process.sleep(RETRY_DELAY).await;
    }
    Err(Unavailable)
}
