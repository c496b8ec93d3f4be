//! Start-up: from the files and the index to the books.

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::path::PathBuf;

use eagle_core::config::section;
use eagle_core::digest::Digest;
use eagle_core::name::Repository;

use super::OpenError;
use super::directory::Directory;
use super::index::{Index, Line};
use super::ledger::{Entry, Ledger};
use super::shared::Shared;
use super::sidecar::{self, Sidecar};
use super::trailer::{self, Trailer};

/// Opens the directory and reads the books. Blocks for the disk.
pub(super) fn open(config: &section::Cache, runtime: tokio::runtime::Handle) -> Result<Shared, OpenError> {
    let directory = Directory::open(&config.directory)?;
    let failed = |source| OpenError::Directory { path: config.directory.clone(), source };
    let mut ledger = Ledger::new(config.quota.0);
    let mut unknown: HashSet<Digest> = directory.blobs().map_err(failed)?.into_iter().collect();
    let path = directory.index();
    let index = Index::open(&path, |line| {
        if unknown.remove(&line.blob) || ledger.get(&line.blob).is_some() {
            enter(&mut ledger, line);
        }
    });
    let index = index.map_err(index_failed(&path))?;
    for digest in &unknown {
        enter_unknown(&directory, &mut ledger, *digest).map_err(failed)?;
    }
    for digest in directory.sweep_staged().map_err(failed)? {
        enter_staged(&directory, &mut ledger, digest).map_err(failed)?;
    }
    tracing::info!(directory = %config.directory.display(), blobs = ledger.blobs(), bytes = ledger.bytes(), "cache opened");
    let shared = Shared::new(directory, config.min_free.0, ledger, index, runtime);
    // So that the next start need not open them again.
    for digest in &unknown {
        shared.touched(digest);
    }
    Ok(shared)
}

fn index_failed(path: &std::path::Path) -> impl FnOnce(io::Error) -> OpenError {
    let path: PathBuf = path.to_owned();
    move |source| OpenError::Index { path, source }
}

fn enter(ledger: &mut Ledger, line: Line) {
    let mut entry = Entry::new(line.size, line.footprint, line.piece_length);
    entry.media_type = line.media_type.map(|text| ledger.intern_media_type(&text));
    entry.pinned = line.pinned;
    // A line replaces every earlier one of its blob.
    ledger.remove(&line.blob);
    ledger.commit(line.blob, entry);
    for repository in line.repositories.iter().filter_map(|text| text.parse::<Repository>().ok()) {
        ledger.allow(&line.blob, &repository);
    }
}

/// A blob that the index does not know: its trailer says what must be known. One without a whole trailer was not written
/// by us, and is removed.
fn enter_unknown(directory: &Directory, ledger: &mut Ledger, digest: Digest) -> io::Result<()> {
    match File::open(directory.blob(&digest)).and_then(|file| Trailer::read(&file)) {
        Ok(trailer) => {
            let footprint = trailer.size + trailer.encode().len() as u64;
            let mut entry = Entry::new(trailer.size, footprint, trailer.piece_length);
            entry.media_type = trailer.media_type.as_deref().map(|text| ledger.intern_media_type(text));
            ledger.commit(digest, entry);
            Ok(())
        }
        Err(error) if matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) => {
            tracing::warn!(%digest, %error, "a stored blob is broken: removed");
            directory.remove_blob(&digest)
        }
        Err(error) => Err(error),
    }
}

/// A blob that stopped arriving takes the room it was promised, until somebody goes on with it or it is evicted.
fn enter_staged(directory: &Directory, ledger: &mut Ledger, digest: Digest) -> io::Result<()> {
    match Sidecar::open(&directory.map(&digest)) {
        Ok((_, layout)) if ledger.get(&digest).is_none() => {
            let pieces = layout.pieces();
            ledger.promise(digest, layout.size() + trailer::most(pieces) + sidecar::most(pieces));
            Ok(())
        }
        // Committed already, or torn.
        Ok(_) => directory.remove_staged(&digest),
        Err(error) => {
            tracing::debug!(%digest, %error, "the map of a staged blob is torn");
            directory.remove_staged(&digest)
        }
    }
}
