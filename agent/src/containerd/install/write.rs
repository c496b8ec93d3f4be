//! Changes of files that happen at once or not at all.

use std::fs::{self, File, Permissions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, fchown};
use std::path::Path;

use tempfile::{Builder, NamedTempFile, TempDir};

use super::{FILE, Problem};

/// Temporary names begin and end so. containerd and Docker look at no such name.
const TEMPORARY: (&str, &str) = (".eagle-", ".tmp");
/// As other configuration that holds no secret: everybody may read it.
const FILE_MODE: u32 = 0o644;
const DIRECTORY_MODE: u32 = 0o755;

/// Puts `text` in the place of the file at `path`, behind symbolic links, with the same owner and mode.
pub(super) fn replace(path: &Path, text: &str) -> Result<(), Problem> {
    let real = path.canonicalize().map_err(failed("resolve"))?;
    let before = fs::metadata(&real).map_err(failed("read"))?;
    let directory = parent(&real);
    let file = temporary(directory, text)?;
    let mine = file.as_file().metadata().map_err(failed("read"))?;
    if (mine.uid(), mine.gid()) != (before.uid(), before.gid()) {
        fchown(file.as_file(), Some(before.uid()), Some(before.gid()))
            .map_err(failed("give its owner to"))?;
    }
    finish(&file, before.mode() & 0o7777)?;
    file.persist(&real).map_err(|error| failed("rename")(error.error))?;
    sync(directory)
}

/// Creates the file with `text` in `directory`, and with it the directory and those above it that are not there.
pub(super) fn create(directory: &Path, text: &str) -> Result<(), Problem> {
    let missing: Vec<&Path> =
        directory.ancestors().take_while(|path| matches!(path.try_exists(), Ok(false))).collect();
    let Some(top) = missing.last() else {
        return create_in(&directory.canonicalize().map_err(failed("resolve"))?, text);
    };
    let around = parent(top);
    let new = Builder::new().prefix(TEMPORARY.0).suffix(TEMPORARY.1).tempdir_in(around);
    let new = new.map_err(failed("create the directory of"))?;
    let inner = directory.strip_prefix(top).unwrap_or(Path::new(""));
    let deepest = new.path().join(inner);
    fs::create_dir_all(&deepest).map_err(failed("create the directory of"))?;
    create_in(&deepest, text)?;
    for level in deepest.ancestors().take(missing.len()) {
        fs::set_permissions(level, Permissions::from_mode(DIRECTORY_MODE))
            .map_err(failed("set the mode of"))?;
        sync(level)?;
    }
    // A directory of this name that came meanwhile and is not empty makes the rename fail, and the new one goes.
    fs::rename(new.path(), top).map_err(failed("rename the directory of"))?;
    let _ = new.keep();
    sync(around)
}

/// Removes the file in `directory`, and up to `directories` directories from there upwards as far as nothing else is in
/// them, all at once.
pub(super) fn delete(directory: &Path, directories: usize) -> Result<(), Problem> {
    let chain: Vec<&Path> = directory.ancestors().take(directories).collect();
    let empty = chain.iter().take_while(|level| holds_one(level)).count();
    let Some(top) = chain[..empty].last() else {
        // The file may be reached through a link to its directory, but is itself none: Eagle created it.
        fs::remove_file(directory.join(FILE)).map_err(failed("remove"))?;
        return sync(directory);
    };
    let around = parent(top);
    let aside = Builder::new().prefix(TEMPORARY.0).suffix(TEMPORARY.1).tempdir_in(around);
    let aside = aside.map_err(failed("make place beside"))?;
    // Onto an empty directory, which it replaces. From here on it is gone for containerd, and swept if we are killed.
    fs::rename(top, aside.path()).map_err(failed("rename the directory of"))?;
    sync(around)?;
    match remove_chain(&aside, directory.strip_prefix(top).unwrap_or(Path::new("")), empty) {
        Ok(()) => {
            let _ = aside.keep();
            sync(around)
        }
        // Somebody put something into it just now: it goes back, without our file.
        Err(error) => {
            let aside = aside.keep();
            fs::rename(&aside, top).map_err(failed("put back the directory of"))?;
            Err(failed("remove the directory of")(error))
        }
    }
}

/// Removes what was left of earlier writes in `directory`.
pub(super) fn sweep(directory: &Path) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let name = name.as_encoded_bytes();
        if !name.starts_with(TEMPORARY.0.as_bytes()) || !name.ends_with(TEMPORARY.1.as_bytes()) {
            continue;
        }
        let path = entry.path();
        let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
        let removed = if is_directory { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        if let Err(error) = removed {
            tracing::debug!(path = %path.display(), %error, "left a temporary file");
        }
    }
}

fn remove_chain(aside: &TempDir, inner: &Path, levels: usize) -> io::Result<()> {
    let deepest = aside.path().join(inner);
    fs::remove_file(deepest.join(FILE))?;
    deepest.ancestors().take(levels).try_for_each(fs::remove_dir)
}

fn create_in(directory: &Path, text: &str) -> Result<(), Problem> {
    let file = temporary(directory, text)?;
    finish(&file, FILE_MODE)?;
    file.persist_noclobber(directory.join(FILE)).map_err(|error| failed("rename")(error.error))?;
    sync(directory)
}

/// A file in `directory` with `text` in it, read back: a half-written `hosts.toml` would be ignored as a whole.
fn temporary(directory: &Path, text: &str) -> Result<NamedTempFile, Problem> {
    let file = Builder::new().prefix(TEMPORARY.0).suffix(TEMPORARY.1).tempfile_in(directory);
    let mut file = file.map_err(failed("create a file beside"))?;
    let mut written = Vec::with_capacity(text.len());
    file.write_all(text.as_bytes()).map_err(failed("write"))?;
    file.rewind().and_then(|()| file.read_to_end(&mut written)).map_err(failed("read back"))?;
    if written != text.as_bytes() {
        return Err(failed("write")(io::Error::from(io::ErrorKind::InvalidData)));
    }
    Ok(file)
}

fn finish(file: &NamedTempFile, mode: u32) -> Result<(), Problem> {
    file.as_file().set_permissions(Permissions::from_mode(mode)).map_err(failed("set the mode of"))?;
    file.as_file().sync_all().map_err(failed("write"))
}

/// Makes a rename in `directory` last.
fn sync(directory: &Path) -> Result<(), Problem> {
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed("write the directory of"))
}

fn holds_one(directory: &Path) -> bool {
    let is_directory = fs::symlink_metadata(directory).is_ok_and(|metadata| metadata.is_dir());
    is_directory && fs::read_dir(directory).is_ok_and(|entries| entries.count() == 1)
}

fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(path)
}

fn failed(step: &'static str) -> impl FnOnce(io::Error) -> Problem {
    move |source| Problem::Io { step, source }
}
