//! Files written whole or not at all, and errors that say which file and what to do.

use std::{
    fs, io,
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::Context as _;

/// Writes a file whole or not at all, with its folders; on return it is on the disk.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    stage(path, bytes)?.commit()
}

/// What the temporary names begin with; the name to be follows.
pub(crate) const STAGED: &str = ".staged-";

/// A file that is on the disk under a temporary name; dropped, it is gone.
pub(crate) struct Staged {
    file: tempfile::NamedTempFile,
    path: PathBuf,
}

/// Writes a file under a temporary name beside `path`. After this, only a name is to be changed,
/// which takes no space.
pub(crate) fn stage(path: &Path, bytes: &[u8]) -> anyhow::Result<Staged> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let write = || -> io::Result<tempfile::NamedTempFile> {
        fs::create_dir_all(dir)?;
        let mut file = tempfile::Builder::new()
            .prefix(&format!("{STAGED}{name}-"))
            .tempfile_in(dir)?;
        // Temporary files are private; these are part of a repo.
        file.as_file()
            .set_permissions(fs::Permissions::from_mode(0o644))?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        Ok(file)
    };
    let file = write().map_err(|error| cannot_write(path, error))?;
    Ok(Staged {
        file,
        path: path.to_owned(),
    })
}

impl Staged {
    /// Gives the file its name, in place of what stood there.
    pub(crate) fn commit(self) -> anyhow::Result<()> {
        let Self { file, path } = self;
        file.persist(&path)
            .map_err(|error| cannot_write(&path, error.error))?;
        sync_folder_of(&path).map_err(|error| cannot_write(&path, error))
    }
}

/// A new or renamed file survives a power cut only once its folder is on the disk too.
pub(crate) fn sync_folder_of(path: &Path) -> io::Result<()> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    fs::File::open(dir.unwrap_or(Path::new(".")))?.sync_all()
}

/// `cannot write FILE, so …: cause`, with what to do where space is the cause.
pub(crate) fn cannot_write(path: &Path, error: io::Error) -> anyhow::Error {
    let advice = match error.kind() {
        io::ErrorKind::StorageFull => "; free some space there and run the command again",
        io::ErrorKind::QuotaExceeded => "; free some of your quota there and run the command again",
        io::ErrorKind::FileTooLarge => {
            "; the file has reached the size limit of this process (ulimit -f) or of the file \
             system: raise it, or move the file away, and run the command again"
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            "; check who owns the folder and whether it may be written"
        }
        _ => "",
    };
    let what = format!("cannot write {}{advice}", path.display());
    anyhow::Error::new(error).context(what)
}

/// Reads a file; `None` where there is none.
pub(crate) fn read_if_there(path: &Path) -> anyhow::Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// Reads a file that somebody named, or stdin for `-`.
pub(crate) fn read_input(name: &str) -> anyhow::Result<Vec<u8>> {
    if name != "-" {
        return fs::read(name).with_context(|| format!("cannot read {name}"));
    }
    let mut bytes = Vec::new();
    io::Read::read_to_end(&mut io::stdin().lock(), &mut bytes).context("cannot read stdin")?;
    Ok(bytes)
}

/// A file that was staged and never got its name.
pub(crate) struct Leftover {
    /// The name that it was to get, without its suffix.
    pub(crate) name: String,
    /// Where it is.
    pub(crate) path: PathBuf,
}

/// Staged files in a folder whose names were to end with `suffix`.
pub(crate) fn staged_in(dir: &Path, suffix: &str) -> anyhow::Result<Vec<Leftover>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", dir.display())),
    };
    let leftover = |entry: fs::DirEntry| {
        let file_name = entry.file_name();
        let staged = file_name.to_str()?.strip_prefix(STAGED)?;
        let (name, _) = staged.split_once(&format!("{suffix}-"))?;
        Some(Leftover {
            name: name.to_owned(),
            path: entry.path(),
        })
    };
    Ok(entries.flatten().filter_map(leftover).collect())
}

/// Names in a folder that end with `suffix`, without it, sorted; hidden ones are left out. A folder
/// that is not there is empty.
pub(crate) fn names_in(dir: &Path, suffix: &str) -> anyhow::Result<Vec<String>> {
    let reading = || format!("cannot read {}", dir.display());
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(reading),
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry.with_context(reading)?.file_name();
        let name = name.to_str().and_then(|name| name.strip_suffix(suffix));
        names.extend(
            name.filter(|name| !name.starts_with('.'))
                .map(str::to_owned),
        );
    }
    names.sort();
    Ok(names)
}
