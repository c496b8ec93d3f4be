//! HTTP byte ranges (RFC 9110 §14) for a representation whose length is known.
//!
//! Single ranges only: several in one header are ignored, as the RFC allows, and the whole is sent.

use std::ops::Range;

/// What a `Range` header asks of a blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// No range, or one that is to be ignored: 200 and everything.
    Whole,
    /// 206 and these bytes, never empty.
    Part(Range<u64>),
    /// 416: nothing of it exists.
    Unsatisfiable,
}

/// Reads a `Range` header's value for a representation of `size` bytes.
pub fn parse(header: Option<&str>, size: u64) -> Wanted {
    let Some(spec) = header.and_then(|value| value.trim().strip_prefix("bytes=")) else {
        return Wanted::Whole;
    };
    let Some((first, last)) = spec.split_once('-') else { return Wanted::Whole };
    let number = |text: &str| -> Option<Option<u64>> {
        let text = text.trim();
        if text.is_empty() {
            return Some(None);
        }
        // A number too large for u64 lies behind every end.
        text.bytes().all(|b| b.is_ascii_digit()).then(|| Some(text.parse().unwrap_or(u64::MAX)))
    };
    let (Some(first), Some(last)) = (number(first), number(last)) else { return Wanted::Whole };
    match (first, last) {
        (None, None) => Wanted::Whole,
        (Some(first), Some(last)) if last < first => Wanted::Whole,
        (None, Some(0)) => Wanted::Unsatisfiable,
        (None, Some(_)) if size == 0 => Wanted::Unsatisfiable,
        (None, Some(suffix)) => Wanted::Part(size.saturating_sub(suffix)..size),
        (Some(first), _) if first >= size => Wanted::Unsatisfiable,
        (Some(first), last) => {
            Wanted::Part(first..last.map_or(size, |last| last.saturating_add(1).min(size)))
        }
    }
}

/// The `Content-Range` of a 206 with `part` of `size` bytes.
pub fn content_range(part: &Range<u64>, size: u64) -> String {
    format!("bytes {}-{}/{size}", part.start, part.end.saturating_sub(1))
}

/// The `Content-Range` of a 416.
pub fn unsatisfied_range(size: u64) -> String {
    format!("bytes */{size}")
}

/// Start and total length in a server's `Content-Range: bytes a-b/size`.
pub fn parse_content_range(value: &str) -> Option<(Range<u64>, u64)> {
    let (range, size) = value.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last, size): (u64, u64, u64) = (first.parse().ok()?, last.parse().ok()?, size.parse().ok()?);
    (first <= last && last < size).then(|| (first..last + 1, size))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{prop_assert, proptest};

    #[test]
    fn every_form_of_the_rfc() {
        let of_ten = |header| parse(Some(header), 10);
        assert_eq!(parse(None, 10), Wanted::Whole);
        assert_eq!(of_ten("bytes=0-"), Wanted::Part(0..10));
        assert_eq!(of_ten("bytes=3-5"), Wanted::Part(3..6));
        assert_eq!(of_ten("bytes=3-99"), Wanted::Part(3..10));
        assert_eq!(of_ten("bytes=-4"), Wanted::Part(6..10));
        assert_eq!(of_ten("bytes=-99"), Wanted::Part(0..10));
        assert_eq!(of_ten("bytes=10-"), Wanted::Unsatisfiable);
        assert_eq!(of_ten("bytes=-0"), Wanted::Unsatisfiable);
        assert_eq!(of_ten("bytes=99999999999999999999-"), Wanted::Unsatisfiable);
        for ignored in
            ["bytes=5-3", "bytes=1-2,4-5", "items=1-2", "bytes=a-", "bytes=-", "bytes 1-2", "bytes=+1-2"]
        {
            assert_eq!(of_ten(ignored), Wanted::Whole, "{ignored}");
        }
        assert_eq!(parse(Some("bytes=0-"), 0), Wanted::Unsatisfiable);
    }

    #[test]
    fn content_range_round_trips() {
        assert_eq!(content_range(&(3..6), 10), "bytes 3-5/10");
        assert_eq!(parse_content_range("bytes 3-5/10"), Some((3..6, 10)));
        assert_eq!(parse_content_range("bytes 5-3/10"), None);
        assert_eq!(parse_content_range("bytes 3-10/10"), None);
        assert_eq!(unsatisfied_range(10), "bytes */10");
    }

    proptest! {
        #[test]
        fn a_part_always_lies_within(header in "bytes=[0-9]{0,20}-[0-9]{0,20}", size in 0_u64..1 << 40) {
            if let Wanted::Part(part) = parse(Some(&header), size) {
                prop_assert!(part.start < part.end && part.end <= size);
            }
        }
    }
}
