//! Amounts of bytes and rates as people write them: `20GiB`, `64MiB`, `25MB/s`, `200mbit`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A number of bytes. Read from `123`, `64KiB`, `20GiB`, `5MB`, `10G` (decimal units are powers of 1,000; a bare
/// letter with `i`, as Kubernetes writes it, is binary: `20Gi`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

/// Bytes per second, or no limit. Read from `25MB/s`, `200Mi`, `200mbit` (bits), `none`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rate(pub Option<std::num::NonZeroU64>);

/// Why a text is no amount.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SizeError {
    /// Not a number with a known unit.
    #[error("{0:?} is no size: write a number and one of B, KB, MB, GB, TB, KiB, MiB, GiB, TiB")]
    Size(String),
    /// Not a rate.
    #[error("{0:?} is no rate: write for example 25MB/s, 100MiB/s, 200mbit or none")]
    Rate(String),
}

fn amount(text: &str) -> Option<(f64, &str)> {
    let end = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let number: f64 = text[..end].parse().ok()?;
    number.is_finite().then(|| (number, text[end..].trim()))
}

fn byte_unit(unit: &str) -> Option<f64> {
    let unit = unit.strip_suffix(['b', 'B']).unwrap_or(unit);
    let (letter, base) = match unit.strip_suffix('i') {
        Some(letter) => (letter, 1024.0_f64),
        None => (unit, 1000.0),
    };
    let power = match letter.to_ascii_lowercase().as_str() {
        "" if base < 1024.0 => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        _ => return None,
    };
    Some(base.powi(power))
}

// Amounts far above 2^53 bytes are no real sizes; below it the conversion is exact.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "range is checked")]
fn whole(value: f64) -> Option<u64> {
    (0.0..9.0e15).contains(&value).then_some(value.round() as u64)
}

impl FromStr for ByteSize {
    type Err = SizeError;

    fn from_str(text: &str) -> Result<Self, SizeError> {
        amount(text.trim())
            .and_then(|(number, unit)| whole(number * byte_unit(unit)?))
            .map(Self)
            .ok_or_else(|| SizeError::Size(text.to_owned()))
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [("TiB", 1_u64 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
        match units.iter().find(|(_, unit)| self.0 >= *unit && self.0.is_multiple_of(*unit)) {
            Some((name, unit)) => write!(f, "{}{name}", self.0 / unit),
            None => write!(f, "{}B", self.0),
        }
    }
}

impl Rate {
    /// No limit.
    pub const NONE: Self = Self(None);

    /// A limit of `bytes` per second; zero means none.
    pub fn per_second(bytes: u64) -> Self {
        Self(std::num::NonZeroU64::new(bytes))
    }

    /// Whether there is no limit.
    pub fn is_none(&self) -> bool {
        self.0.is_none()
    }

    /// Bytes per second; 0 = no limit.
    pub fn bytes_or_zero(self) -> u64 {
        self.0.map_or(0, std::num::NonZeroU64::get)
    }
}

impl FromStr for Rate {
    type Err = SizeError;

    fn from_str(text: &str) -> Result<Self, SizeError> {
        let wrong = || SizeError::Rate(text.to_owned());
        let trimmed = text.trim();
        if trimmed.eq_ignore_ascii_case("none") {
            return Ok(Self::NONE);
        }
        let (number, unit) = amount(trimmed).ok_or_else(wrong)?;
        let lower = unit.to_ascii_lowercase();
        let bytes = match lower.strip_suffix("/s").unwrap_or(&lower).strip_suffix("bit") {
            Some("") => number / 8.0,
            Some("k") => number * 1e3 / 8.0,
            Some("m") => number * 1e6 / 8.0,
            Some("g") => number * 1e9 / 8.0,
            Some(_) => return Err(wrong()),
            None => number * byte_unit(unit.strip_suffix("/s").unwrap_or(unit)).ok_or_else(wrong)?,
        };
        match whole(bytes) {
            Some(bytes) if bytes > 0 => Ok(Self::per_second(bytes)),
            _ => Err(wrong()),
        }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(bytes) => write!(f, "{}/s", ByteSize(bytes.get())),
            None => f.write_str("none"),
        }
    }
}

macro_rules! text_serde {
    ($type:ident) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}
text_serde!(ByteSize);
text_serde!(Rate);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{prop_assert_eq, proptest};

    #[test]
    fn sizes_as_people_write_them() {
        let size = |text: &str| text.parse::<ByteSize>().map(|size| size.0);
        assert_eq!(size("64MiB"), Ok(64 << 20));
        assert_eq!(size("20Gi"), Ok(20 << 30));
        assert_eq!(size("1.5 GB"), Ok(1_500_000_000));
        assert_eq!(size("123"), Ok(123));
        for wrong in ["", "MiB", "1XB", "-1", "1e400", "i", "5iB"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn rates_as_people_write_them() {
        let rate = |text: &str| text.parse::<Rate>().map(Rate::bytes_or_zero);
        assert_eq!(rate("25MB/s"), Ok(25_000_000));
        assert_eq!(rate("200mbit"), Ok(25_000_000));
        assert_eq!(rate("200 Mbit/s"), Ok(25_000_000));
        assert_eq!(rate("500Mi"), Ok(500 << 20));
        assert_eq!(rate("none"), Ok(0));
        for wrong in ["0", "0.1B/s", "fast", "5xbit"] {
            assert!(rate(wrong).is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn printing_loses_nothing(bytes in 0_u64..1 << 52) {
            prop_assert_eq!(ByteSize(bytes).to_string().parse::<ByteSize>(), Ok(ByteSize(bytes)));
            let rate = Rate::per_second(bytes);
            prop_assert_eq!(rate.to_string().parse::<Rate>(), Ok(rate));
        }
    }
}
