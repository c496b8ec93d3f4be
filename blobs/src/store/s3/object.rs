//! A blob in a bucket: its bytes and, behind them in the same object, its trailer (`crate::cache::trailer`).
//!
//! One request gets the object's end, which is the trailer and, of a small blob, all of it. Whatever does not hold
//! together was not written by us, and is not there.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use eagle_core::digest::Digest;
use eagle_core::name::Repository;
use eagle_core::piece::PieceLayout;

use super::bucket::Bucket;
use super::error::RequestError;
use crate::cache::trailer::{FOOTER, Footer, Trailer, take};
use crate::store::{Extra, Stat};

/// Bytes of an object's end that are asked for at once: the trailer of a blob of up to some 3,000 pieces (12 GiB) with a
/// few repositories, and all of a manifest.
const TAIL: u64 = 64 << 10;

/// What is known of an object.
#[derive(Clone, Debug)]
pub(super) struct Object {
    pub(super) layout: PieceLayout,
    pub(super) extra: Extra,
    /// Bytes of the whole object.
    pub(super) length: u64,
    // The object's end, from `tail_start` on: read already.
    tail: Bytes,
    tail_start: u64,
}

impl Object {
    /// Looks for a blob. `None` if it is not there, or is not whole.
    pub(super) async fn find(bucket: &Bucket, digest: &Digest) -> Result<Option<Self>, RequestError> {
        let Some((mut tail, length)) = bucket.get_end(digest, TAIL).await? else {
            return Ok(None);
        };
        let mut tail_start = length.saturating_sub(tail.len() as u64);
        let footer = match footer(&tail, length) {
            Ok(footer) => footer,
            Err(error) => return Ok(broken(digest, &error)),
        };
        if footer.start() < tail_start {
            let range = format!("bytes={}-{}", footer.start(), length - 1);
            let Some((more, again)) = bucket.get(digest, Some(range)).await? else { return Ok(None) };
            if again != length {
                // Written anew in between, with other repositories: whoever asks again finds the new one.
                return Ok(None);
            }
            (tail, tail_start) = (more, footer.start());
        }
        let start = usize::try_from(footer.start() - tail_start).unwrap_or(usize::MAX);
        let body = tail.get(start..tail.len().saturating_sub(FOOTER)).unwrap_or_default();
        match Trailer::parse(&footer, body).and_then(|trailer| Self::new(trailer, length, tail.clone())) {
            Ok(object) => Ok(Some(object)),
            Err(error) => Ok(broken(digest, &error)),
        }
    }

    fn new(trailer: Trailer, length: u64, tail: Bytes) -> io::Result<Self> {
        let layout = PieceLayout::new(trailer.size, trailer.piece_length)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        let whole = trailer.hashes.len() == layout.pieces() as usize;
        let extra = Extra {
            piece_hashes: whole.then(|| Arc::from(trailer.hashes)),
            media_type: trailer.media_type,
            repositories: trailer
                .repositories
                .iter()
                .filter_map(|text| text.parse::<Repository>().ok())
                .collect(),
        };
        Ok(Self { layout, extra, length, tail_start: length - tail.len() as u64, tail })
    }

    pub(super) fn stat(&self, digest: &Digest) -> Stat {
        Stat { digest: *digest, size: self.layout.size(), media_type: self.extra.media_type.clone() }
    }

    /// The bytes of a range if they came with the object's end.
    pub(super) fn at_hand(&self, range: &Range<u64>) -> Option<Bytes> {
        let from = range.start.checked_sub(self.tail_start)?;
        let from = usize::try_from(from).ok()?;
        let length = usize::try_from(range.end - range.start).ok()?;
        (from + length <= self.tail.len()).then(|| self.tail.slice(from..from + length))
    }
}

fn footer(tail: &[u8], length: u64) -> io::Result<Footer> {
    let start = tail.len().checked_sub(FOOTER).ok_or(io::ErrorKind::UnexpectedEof)?;
    Footer::parse(&take(tail, start), length)
}

fn broken<T>(digest: &Digest, error: &io::Error) -> Option<T> {
    tracing::warn!(%digest, %error, "an object in the bucket is not a whole blob: as if it were not there");
    None
}

/// The trailer of a blob that is about to be written.
pub(super) fn trailer(layout: PieceLayout, extra: &Extra) -> Vec<u8> {
    let hashes = extra.piece_hashes.as_deref().unwrap_or_default();
    let whole = hashes.len() == layout.pieces() as usize;
    let trailer = Trailer {
        size: layout.size(),
        piece_length: layout.piece_length(),
        hashes: if whole { hashes.to_vec() } else { Vec::new() },
        media_type: extra
            .media_type
            .clone()
            .filter(|text| text.len() <= crate::cache::trailer::MAX_MEDIA_TYPE),
        repositories: extra.repositories.iter().map(ToString::to_string).collect(),
    };
    trailer.encode()
}

/// Bytes that an object takes at most before its repositories are known.
pub(super) fn most(layout: PieceLayout) -> u64 {
    layout.size() + crate::cache::trailer::most(layout.pieces())
}
