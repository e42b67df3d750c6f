//! A metrics log on the disk: a line is there whole, or not at all.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use kaizen_engagement::{MetricsRecord, append_bytes};

use crate::disk;

/// A log that this process alone writes for as long as it holds this: recorders that run side by
/// side wait for each other.
pub(crate) struct LockedLog {
    file: File,
    path: PathBuf,
    len: u64,
}

impl LockedLog {
    /// Opens a log, made where there is none, and waits until nobody else writes it.
    pub(crate) fn open(path: &Path) -> anyhow::Result<Self> {
        let open = || -> io::Result<Self> {
            let dir = path.parent().unwrap_or(Path::new("."));
            fs::create_dir_all(dir)?;
            let is_new = !path.exists();
            let file = OpenOptions::new()
                .read(true)
                .append(true)
                .create(true)
                .open(path)?;
            if is_new {
                disk::sync_folder_of(path)?;
            }
            file.lock()?;
            let len = file.metadata()?.len();
            Ok(Self {
                file,
                path: path.to_owned(),
                len,
            })
        };
        open().map_err(|error| disk::cannot_write(path, error))
    }

    /// The log as it stood when it was opened.
    pub(crate) fn read(&self) -> anyhow::Result<Vec<u8>> {
        let read = || -> io::Result<Vec<u8>> {
            let mut bytes = vec![0; usize::try_from(self.len).map_err(io::Error::other)?];
            self.file.read_exact_at(&mut bytes, 0)?;
            Ok(bytes)
        };
        read().with_context(|| format!("cannot read {}", self.path.display()))
    }

    /// Appends a record and brings it to the disk. Where that fails, the log is as it was.
    pub(crate) fn append(&self, record: &MetricsRecord) -> anyhow::Result<()> {
        let Err(error) = self.try_append(record) else {
            return Ok(());
        };
        // Half a line is worse than none: the command is run again.
        let taken_back = self.take_back();
        let error = disk::cannot_write(&self.path, error);
        Err(match taken_back {
            Ok(()) => error.context("nothing was recorded"),
            Err(_) => error.context("half a line was recorded, and cannot be taken back"),
        })
    }

    /// Makes the log as it was when it was opened.
    pub(crate) fn take_back(&self) -> io::Result<()> {
        // A device has no length to go back to.
        if !self.file.metadata()?.is_file() {
            return Ok(());
        }
        self.file.set_len(self.len)
    }

    fn try_append(&self, record: &MetricsRecord) -> io::Result<()> {
        let mut file = &self.file;
        // One write where the disk has room: readers never see half a line then.
        file.write_all(&append_bytes(self.last_byte()?, record))?;
        file.sync_all()
    }

    fn last_byte(&self) -> io::Result<Option<u8>> {
        let Some(last) = self.len.checked_sub(1) else {
            return Ok(None);
        };
        let mut byte = [0];
        self.file.read_exact_at(&mut byte, last)?;
        let [byte] = byte;
        Ok(Some(byte))
    }
}
