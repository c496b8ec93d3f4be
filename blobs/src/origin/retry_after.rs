//! `Retry-After` (RFC 9110 §10.2.3): seconds, or a date. Pure: the time is given.

use std::time::{Duration, SystemTime};

/// How long `text` asks to wait from `now` on; zero for a date that has passed. `None` if it means nothing.
pub(super) fn parse(text: &str, now: SystemTime) -> Option<Duration> {
    let text = text.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than a number has room for mean a long time, too.
        return Some(Duration::from_secs(text.parse().unwrap_or(u64::MAX)));
    }
    let until = httpdate::parse_http_date(text).ok()?;
    Some(until.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_and_dates() {
        // The date of RFC 9110's own example, and its older forms (§5.6.7).
        let date = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        let before = date - Duration::from_secs(90);
        let seconds = |text| parse(text, before).map(|wait| wait.as_secs());
        assert_eq!(seconds("120"), Some(120));
        assert_eq!(seconds(" 0 "), Some(0));
        assert_eq!(seconds("99999999999999999999999"), Some(u64::MAX));
        for text in
            ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"]
        {
            assert_eq!(seconds(text), Some(90), "{text}");
            assert_eq!(parse(text, date + Duration::from_secs(5)), Some(Duration::ZERO), "{text}");
        }
        for text in ["", "-1", "1.5", "soon", "12 s"] {
            assert_eq!(seconds(text), None, "{text:?}");
        }
    }
}
