//! What a registry's answer says, and whether it can be believed. Pure.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use eagle_core::digest::Digest;
use eagle_core::name::Target;
use eagle_core::oci::MAX_MANIFEST;
use eagle_core::range::parse_content_range;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, HeaderMap, RETRY_AFTER};
use http::{HeaderName, StatusCode};
use serde::Deserialize;

use super::{Manifest, ManifestHead, OriginError, content_type, retry_after};

/// Distribution-spec: the digest of what is answered.
const DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

/// The error that a status is, if it is one.
pub(super) fn status_error(status: StatusCode, headers: &HeaderMap, now: SystemTime) -> Option<OriginError> {
    let retry_after = || retry_after::parse(header(headers, &RETRY_AFTER)?, now);
    match status {
        StatusCode::OK | StatusCode::PARTIAL_CONTENT => None,
        StatusCode::NOT_FOUND => Some(OriginError::NotFound),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Some(OriginError::Denied),
        StatusCode::TOO_MANY_REQUESTS => Some(OriginError::Throttled { retry_after: retry_after() }),
        StatusCode::SERVICE_UNAVAILABLE if retry_after().is_some() => {
            Some(OriginError::Throttled { retry_after: retry_after() })
        }
        status => Some(OriginError::Status { status }),
    }
}

fn header<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

fn is_page(headers: &HeaderMap) -> bool {
    content_type(headers).is_some_and(|media_type| media_type.eq_ignore_ascii_case("text/html"))
}

/// The size in an answer with all of a blob, or to HEAD of one.
pub(super) fn whole_blob(headers: &HeaderMap) -> Result<u64, OriginError> {
    refuse_disguised(headers)?;
    let length = header(headers, &CONTENT_LENGTH).and_then(|text| text.parse().ok());
    length.ok_or(OriginError::Invalid("does not say how long the blob is"))
}

/// First byte and whole size in an answer with the part of a blob from `from` on.
pub(super) fn part_of_blob(headers: &HeaderMap, from: u64) -> Result<(u64, u64), OriginError> {
    refuse_disguised(headers)?;
    let (range, size) = header(headers, &CONTENT_RANGE)
        .and_then(parse_content_range)
        .ok_or(OriginError::Invalid("does not say which part of the blob it is"))?;
    if range.start != from || range.end != size {
        return Err(OriginError::Invalid("is another part of the blob than was asked for"));
    }
    Ok((from, size))
}

fn refuse_disguised(headers: &HeaderMap) -> Result<(), OriginError> {
    if is_page(headers) {
        return Err(OriginError::Invalid("is an HTML page"));
    }
    match header(headers, &CONTENT_ENCODING) {
        None | Some("identity" | "") => Ok(()),
        Some(_) => Err(OriginError::Invalid("is encoded though that was not asked for")),
    }
}

/// What the answer to HEAD of a manifest says; `None` if it does not say all of it.
pub(super) fn manifest_head(
    headers: &HeaderMap,
    target: &Target,
) -> Result<Option<ManifestHead>, OriginError> {
    if is_page(headers) {
        return Err(OriginError::Invalid("is an HTML page"));
    }
    let digest: Option<Digest> = header(headers, &DIGEST).and_then(|text| text.parse().ok());
    let size: Option<u64> = header(headers, &CONTENT_LENGTH).and_then(|text| text.parse().ok());
    let media_type = content_type(headers).filter(|text| is_telling(text));
    let (Some(digest), Some(size), Some(media_type)) = (digest, size, media_type) else { return Ok(None) };
    if matches!(target, Target::Digest(asked) if *asked != digest) {
        return Err(OriginError::WrongDigest { found: digest });
    }
    if size == 0 || size > MAX_MANIFEST as u64 {
        return Err(OriginError::Invalid("is no manifest by its length"));
    }
    Ok(Some(ManifestHead { digest, size, media_type: media_type.to_owned(), age: Duration::ZERO }))
}

/// A manifest's bytes, checked.
pub(super) fn manifest(headers: &HeaderMap, target: &Target, bytes: Bytes) -> Result<Manifest, OriginError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Typed {
        media_type: Option<String>,
    }
    refuse_disguised(headers)?;
    let found = Digest::of(&bytes);
    let said: Option<Digest> = match target {
        Target::Digest(digest) => Some(*digest),
        Target::Tag(_) => header(headers, &DIGEST).and_then(|text| text.parse().ok()),
    };
    if said.is_some_and(|digest| digest != found) {
        return Err(OriginError::WrongDigest { found });
    }
    let typed: Typed = serde_json::from_slice(&bytes)
        .map_err(|_| OriginError::Invalid("is no manifest: not a JSON object"))?;
    let media_type = content_type(headers).filter(|text| is_telling(text)).map(str::to_owned);
    let media_type = media_type.or(typed.media_type);
    let media_type = media_type.ok_or(OriginError::Invalid("does not say what kind of manifest it is"))?;
    Ok(Manifest { digest: found, media_type, bytes })
}

/// Whether a media type says more than that there are bytes.
fn is_telling(media_type: &str) -> bool {
    !["application/octet-stream", "application/json", "text/plain", "binary/octet-stream"]
        .contains(&media_type)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    #[test]
    fn statuses() {
        let none = HeaderMap::new();
        let later = headers(&[("retry-after", "7")]);
        let now = SystemTime::now();
        let error = |code: u16, headers| status_error(StatusCode::from_u16(code).unwrap(), headers, now);
        assert!(error(200, &none).is_none());
        assert!(matches!(error(404, &none), Some(OriginError::NotFound)));
        assert!(matches!(error(403, &none), Some(OriginError::Denied)));
        assert!(matches!(error(429, &none), Some(OriginError::Throttled { retry_after: None })));
        let seven = Some(Duration::from_secs(7));
        assert!(
            matches!(error(503, &later), Some(OriginError::Throttled { retry_after }) if retry_after == seven)
        );
        for code in [204, 206 + 10, 301, 304, 400, 500, 503] {
            assert!(error(code, &none).is_some_and(|error| error.is_outage()), "{code}");
        }
    }

    #[test]
    fn pages_and_odd_parts_are_not_blobs() {
        assert!(
            whole_blob(&headers(&[("content-length", "5"), ("content-type", "text/html; charset=x")]))
                .is_err()
        );
        assert!(whole_blob(&headers(&[("content-length", "5"), ("content-encoding", "gzip")])).is_err());
        assert!(whole_blob(&headers(&[])).is_err());
        assert_eq!(whole_blob(&headers(&[("content-length", "5")])).unwrap(), 5);
        let part = |text| part_of_blob(&headers(&[("content-range", text)]), 3);
        assert_eq!(part("bytes 3-9/10").unwrap(), (3, 10));
        assert!(part("bytes 3-8/10").is_err());
        assert!(part("bytes 2-9/10").is_err());
        assert!(part("bytes */10").is_err());
    }

    #[test]
    fn a_manifest_is_known_by_digest_and_type() {
        let body = Bytes::from_static(br#"{"mediaType":"application/x"}"#);
        let digest = Digest::of(&body);
        let tag = Target::Tag("v1".into());
        let typed = manifest(&headers(&[]), &tag, body.clone()).unwrap();
        assert_eq!((typed.digest, typed.media_type.as_str()), (digest, "application/x"));
        let said = headers(&[("content-type", "application/y; q=1")]);
        assert_eq!(
            manifest(&said, &Target::Digest(digest), body.clone()).unwrap().media_type,
            "application/y"
        );
        assert!(manifest(&said, &Target::Digest(Digest::of(b"")), body).is_err());
        assert!(manifest(&said, &tag, Bytes::from_static(b"<html>")).is_err());
        assert!(manifest(&headers(&[]), &tag, Bytes::from_static(b"{}")).is_err());
    }

    #[test]
    fn a_head_that_says_too_little_is_told_from_one_that_lies() {
        let digest = Digest::of(b"x");
        let tag = Target::Tag("v1".into());
        let text = digest.to_string();
        let pairs =
            [("docker-content-digest", text.as_str()), ("content-length", "5"), ("content-type", "a/b")];
        assert_eq!(manifest_head(&headers(&pairs), &tag).unwrap().unwrap().digest, digest);
        for missing in 0..3 {
            let mut some = pairs.to_vec();
            some.remove(missing);
            assert!(manifest_head(&headers(&some), &tag).unwrap().is_none());
        }
        assert!(manifest_head(&headers(&pairs), &Target::Digest(Digest::of(b"y"))).is_err());
    }
}
