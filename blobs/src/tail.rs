//! Reading a blob, also one that is still arriving.
//!
//! A piece that was stored a moment ago is handed on from memory. A chunk whose bytes are in the page cache is read at
//! once on the caller's thread (`preadv2` with `RWF_NOWAIT`): a copy at memory speed that costs less than handing it to
//! another thread. Only a chunk that has to come from the disk, or a file system without that flag, is read on a thread
//! that may block. A stream has one chunk in memory.
//!
//! Deliberately not here: giving up. A stream waits for the next piece as long as its partial lives; whoever fills the
//! partial fails it when no source is left.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use bytes::Bytes;
use futures::Stream;
use rustix::io::{Errno, ReadWriteFlags};
use tokio::sync::watch;

use crate::cache::{Blob, Failure, Partial, Phase, Progress};

/// Most bytes in one chunk: with it, a stream at 1 GB/s takes 4,000 steps a second.
pub const CHUNK: usize = 256 << 10;

/// Why a stream ends early.
#[derive(Debug, thiserror::Error)]
pub enum TailError {
    /// The range is not within the blob.
    #[error("range {start}..{end} is not within the blob's {size} bytes")]
    Range {
        /// First byte.
        start: u64,
        /// Behind the last byte.
        end: u64,
        /// Bytes in the blob.
        size: u64,
    },
    /// The blob stopped arriving.
    #[error("the blob stopped arriving")]
    Failed(#[source] Failure),
    /// The disk.
    #[error("the blob cannot be read")]
    Io(#[source] io::Error),
}

/// What is read.
#[derive(Clone, Debug)]
pub enum Source {
    /// A blob that is arriving.
    Partial(Arc<Partial>),
    /// A committed one.
    Blob(Arc<Blob>),
}

impl Source {
    /// Fills `buffer` from `offset`, of bytes that can be read now. Blocks for the disk.
    pub fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        match self {
            Self::Partial(partial) => partial.read(offset, buffer),
            Self::Blob(blob) => blob.read(offset, buffer),
        }
    }
}

impl From<Arc<Partial>> for Source {
    fn from(partial: Arc<Partial>) -> Self {
        Self::Partial(partial)
    }
}

impl From<Arc<Blob>> for Source {
    fn from(blob: Arc<Blob>) -> Self {
        Self::Blob(blob)
    }
}

struct Tail {
    source: Source,
    changed: Option<watch::Receiver<Progress>>,
    at: u64,
    end: u64,
    // Bytes before this are known to be readable.
    readable: u64,
}

/// The bytes of `range`, in order, each chunk as soon as it is verified. After an error the stream is over.
pub fn stream(
    source: impl Into<Source>,
    range: Range<u64>,
) -> impl Stream<Item = Result<Bytes, TailError>> + Send {
    let source = source.into();
    let (changed, size) = match &source {
        Source::Partial(partial) => (Some(partial.changed()), partial.layout().size()),
        Source::Blob(blob) => (None, blob.size()),
    };
    let readable = if changed.is_some() { range.start } else { size };
    let wrong = range.end > size || range.start > range.end;
    let first = wrong.then_some(TailError::Range { start: range.start, end: range.end, size });
    let tail = Tail { source, changed, at: range.start, end: range.end, readable };
    futures::stream::unfold((first, Some(tail)), async |(first, tail)| {
        if let Some(error) = first {
            return Some((Err(error), (None, None)));
        }
        let mut tail = tail.filter(|tail| tail.at < tail.end)?;
        match tail.next().await {
            Ok(bytes) => Some((Ok(bytes), (None, Some(tail)))),
            Err(error) => Some((Err(error), (None, None))),
        }
    })
}

impl Tail {
    async fn next(&mut self) -> Result<Bytes, TailError> {
        if self.at >= self.readable {
            self.wait().await?;
        }
        let until = self.readable.min(self.end);
        let length = usize::try_from(until - self.at).unwrap_or(usize::MAX).min(CHUNK);
        let bytes = match self.recent(length) {
            Some(bytes) => bytes,
            None => read(self.file(), self.at, length).await.map_err(TailError::Io)?,
        };
        self.at += bytes.len() as u64;
        Ok(bytes)
    }

    fn file(&self) -> &Arc<File> {
        match &self.source {
            Source::Partial(partial) => partial.file(),
            Source::Blob(blob) => blob.file(),
        }
    }

    /// Up to `length` bytes from here out of a piece that is still in memory.
    fn recent(&self, length: usize) -> Option<Bytes> {
        let Source::Partial(partial) = &self.source else { return None };
        let piece = partial.layout().piece_at(self.at);
        let bytes = partial.recent(piece)?;
        let from = usize::try_from(self.at - partial.layout().range_of(piece).start).ok()?;
        let until = from.saturating_add(length).min(bytes.len());
        (from < until).then(|| bytes.slice(from..until))
    }

    /// Waits until the byte at `at` can be read.
    async fn wait(&mut self) -> Result<(), TailError> {
        let (Source::Partial(partial), Some(changed)) = (&self.source, &mut self.changed) else {
            return Ok(());
        };
        loop {
            let failed = match &changed.borrow_and_update().phase {
                Phase::Failed(failure) => Some(failure.clone()),
                _ => None,
            };
            self.readable = partial.readable_until(self.at);
            if self.readable > self.at {
                return Ok(());
            }
            if let Some(failure) = failed {
                return Err(TailError::Failed(failure));
            }
            // The sender lives in the partial that is held here: it cannot be gone.
            if changed.changed().await.is_err() {
                return Err(TailError::Failed(Failure::Discarded));
            }
        }
    }
}

async fn read(file: &Arc<File>, offset: u64, length: usize) -> io::Result<Bytes> {
    let mut buffer = vec![0; length];
    let flags = ReadWriteFlags::NOWAIT;
    match rustix::io::preadv2(&**file, &mut [io::IoSliceMut::new(&mut buffer)], offset, flags) {
        Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
        // What is in the page cache goes out now; the rest is asked for again.
        Ok(got) => {
            buffer.truncate(got);
            Ok(buffer.into())
        }
        Err(Errno::AGAIN | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL | Errno::INTR) => {
            let file = file.clone();
            let read = move || file.read_exact_at(&mut buffer, offset).map(|()| buffer.into());
            tokio::task::spawn_blocking(read).await.map_err(io::Error::other)?
        }
        Err(error) => Err(error.into()),
    }
}
