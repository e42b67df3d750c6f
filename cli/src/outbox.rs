//! Events that wait for a server: `.kaizen/outbox/`, one file for each, sent in the order of
//! their names.
//!
//! An event is in the outbox before it is sent, and leaves it after its stored ack, so whatever
//! dies in between, it is sent again; the mesh keys on its identity. What the mesh refuses for
//! good moves to `refused/`, so that it never blocks the others.

use std::{
    fs::{self, File, TryLockError},
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context as _, anyhow};
use tokio::time::{Instant, sleep};

use crate::{
    disk::{self, Staged},
    publish::{NotStored, Publisher},
    session::Session,
};

/// How long another process may take to send the outbox before this one leaves it to it.
const LOCK_DEADLINE: Duration = Duration::from_secs(10);
const LOCK_POLL: Duration = Duration::from_millis(20);

/// The outbox of a target repo.
#[derive(Debug, Clone)]
pub(crate) struct Outbox {
    dir: PathBuf,
}

/// What a flush did.
#[derive(Debug, Default)]
pub(crate) struct Flushed {
    /// Ids of events that are stored now.
    pub(crate) stored: Vec<String>,
    /// Events that the mesh refuses for good.
    pub(crate) refused: Vec<RefusedEvent>,
    /// Why the rest still waits.
    pub(crate) stopped: Option<anyhow::Error>,
}

/// An event that the mesh refuses for good.
#[derive(Debug)]
pub(crate) struct RefusedEvent {
    pub(crate) id: String,
    /// Where it is now.
    pub(crate) path: PathBuf,
    pub(crate) reason: String,
}

impl Outbox {
    pub(crate) fn at(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// Puts an event on the disk without its name; [`Staged::commit`] makes it part of the outbox.
    pub(crate) fn stage(&self, id: &str, envelope: &[u8]) -> anyhow::Result<Staged> {
        self.make()?;
        disk::stage(&self.file(id), envelope)
    }

    /// Gives its name to each staged event that `is_recorded`: whoever recorded it was killed
    /// before that. The caller holds the log's lock, so nobody is about to do so.
    pub(crate) fn adopt(&self, is_recorded: impl Fn(&str) -> bool) -> anyhow::Result<()> {
        for id in disk::staged_in(&self.dir, ".json")? {
            if is_recorded(&id.name) {
                let path = self.file(&id.name);
                fs::rename(&id.path, &path).map_err(|error| disk::cannot_write(&path, error))?;
            }
        }
        Ok(())
    }

    /// Ids of the events that wait, oldest first.
    pub(crate) fn waiting(&self) -> anyhow::Result<Vec<String>> {
        disk::names_in(&self.dir, ".json")
    }

    /// How many events were refused for good and are kept.
    pub(crate) fn refused(&self) -> anyhow::Result<usize> {
        Ok(disk::names_in(&self.refused_dir(), ".json")?.len())
    }

    /// Sends what waits, in order, until all is stored or nobody takes more.
    pub(crate) async fn flush(&self, session: &Session) -> anyhow::Result<Flushed> {
        let mut flushed = Flushed::default();
        let publisher = match Publisher::connect(session).await {
            Ok(publisher) => publisher,
            Err(error) => {
                flushed.stopped = Some(error);
                return Ok(flushed);
            }
        };
        let Some(_lock) = self.lock().await? else {
            flushed.stopped = Some(anyhow!("another process is sending the outbox"));
            return Ok(flushed);
        };
        for id in self.waiting()? {
            if let Err(error) = self.send(&publisher, id, &mut flushed).await? {
                flushed.stopped = Some(error);
                break;
            }
        }
        Ok(flushed)
    }

    /// The inner error stops the flush, the outer one fails the verb.
    async fn send(
        &self,
        publisher: &Publisher,
        id: String,
        flushed: &mut Flushed,
    ) -> anyhow::Result<Result<(), anyhow::Error>> {
        let path = self.file(&id);
        let Some(envelope) = disk::read_if_there(&path)? else {
            return Ok(Ok(()));
        };
        match publisher.publish(envelope).await {
            Ok(_) => {
                fs::remove_file(&path).with_context(|| {
                    format!("cannot remove {}, which is stored", path.display())
                })?;
                flushed.stored.push(id);
            }
            Err(NotStored::Refused(refusal)) => {
                flushed.refused.push(self.set_aside(id, refusal.text())?);
            }
            Err(NotStored::Unavailable(error)) => return Ok(Err(error)),
        }
        Ok(Ok(()))
    }

    /// The reason is written before the event moves: an event in `refused/` always has one.
    fn set_aside(&self, id: String, reason: String) -> anyhow::Result<RefusedEvent> {
        let dir = self.refused_dir();
        let path = dir.join(format!("{id}.json"));
        disk::write_whole(
            &dir.join(format!("{id}.reason.txt")),
            format!("{reason}\n").as_bytes(),
        )?;
        fs::rename(self.file(&id), &path).map_err(|error| disk::cannot_write(&path, error))?;
        Ok(RefusedEvent { id, path, reason })
    }

    /// One sender at a time keeps the order. `None` where another is at it for long.
    async fn lock(&self) -> anyhow::Result<Option<File>> {
        self.make()?;
        let path = self.dir.join(".lock");
        let file = File::create(&path).map_err(|error| disk::cannot_write(&path, error))?;
        let deadline = Instant::now() + LOCK_DEADLINE;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Some(file)),
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                    sleep(LOCK_POLL).await;
                }
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => {
                    return Err(error).with_context(|| format!("cannot lock {}", path.display()));
                }
            }
        }
    }

    /// Makes the folder. Events on their way are no part of the repo's history.
    fn make(&self) -> anyhow::Result<()> {
        let ignore = self.dir.join(".gitignore");
        if ignore.exists() {
            return Ok(());
        }
        disk::write_whole(&ignore, b"*\n")
    }

    fn file(&self, id: &str) -> PathBuf {
        self.dir.join(format!("{id}.json"))
    }

    fn refused_dir(&self) -> PathBuf {
        self.dir.join("refused")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_wait_in_the_order_of_their_names() {
        let dir = tempfile::tempdir().unwrap();
        let outbox = Outbox::at(dir.path().join(".kaizen/outbox"));
        assert!(outbox.waiting().unwrap().is_empty());
        for id in ["02", "01", "03"] {
            outbox.stage(id, b"{}").unwrap().commit().unwrap();
        }
        assert_eq!(outbox.waiting().unwrap(), ["01", "02", "03"]);
    }

    #[test]
    fn staged_event_is_not_in_the_outbox() {
        let dir = tempfile::tempdir().unwrap();
        let outbox = Outbox::at(dir.path().to_owned());
        let staged = outbox.stage("01", b"{}").unwrap();
        assert!(outbox.waiting().unwrap().is_empty());
        drop(staged);
        assert!(outbox.waiting().unwrap().is_empty());
        assert_eq!(fs::read(dir.path().join(".gitignore")).unwrap(), b"*\n");
    }

    #[test]
    fn event_of_a_killed_recorder_is_adopted_once_it_is_recorded() {
        let dir = tempfile::tempdir().unwrap();
        let outbox = Outbox::at(dir.path().to_owned());
        // Killed: nobody removed the temporary files.
        for id in ["01", "02"] {
            std::mem::forget(outbox.stage(id, b"{}").unwrap());
        }
        outbox.adopt(|id| id == "01").unwrap();
        assert_eq!(outbox.waiting().unwrap(), ["01"]);
    }

    #[test]
    fn refused_event_is_set_aside_with_its_reason() {
        let dir = tempfile::tempdir().unwrap();
        let outbox = Outbox::at(dir.path().to_owned());
        outbox.stage("01", b"{\"a\":1}").unwrap().commit().unwrap();
        let refused = outbox
            .set_aside("01".into(), "unregistered".into())
            .unwrap();
        assert!(outbox.waiting().unwrap().is_empty());
        assert_eq!(outbox.refused().unwrap(), 1);
        assert_eq!(fs::read(&refused.path).unwrap(), b"{\"a\":1}");
        let reason = fs::read_to_string(dir.path().join("refused/01.reason.txt")).unwrap();
        assert_eq!(reason, "unregistered\n");
    }
}
