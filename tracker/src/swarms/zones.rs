//! Zone names as numbers, because two million members are to name a zone in two bytes.

use std::collections::HashMap;

use crate::select::Zone;

/// Most zone names of one table. A cluster has a handful; whoever invents more is in no known zone. 4096 names of at
/// most 256 bytes are one megabyte.
const MAX_ZONES: usize = 4096;
/// Longest zone name, bytes; longer ones are unknown zones.
const MAX_NAME: usize = 256;

/// The zones heard of so far. Number 0 is the unknown zone.
pub(super) struct Zones(HashMap<Box<str>, u16>);

impl Zones {
    pub(super) fn new() -> Self {
        Self(HashMap::from([(Box::from(""), 0)]))
    }

    pub(super) fn number(&mut self, name: &str) -> Zone {
        if let Some(&number) = self.0.get(name) {
            return Zone(number);
        }
        match u16::try_from(self.0.len()) {
            Ok(number) if self.0.len() < MAX_ZONES && name.len() <= MAX_NAME => {
                self.0.insert(name.into(), number);
                Zone(number)
            }
            _ => Zone(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_stable_numbers_within_bounds() {
        let mut zones = Zones::new();
        assert_eq!(zones.number(""), Zone(0));
        let a = zones.number("a");
        assert_ne!(a, Zone(0));
        assert_eq!(zones.number(&"x".repeat(MAX_NAME + 1)), Zone(0));
        for number in 0..2 * MAX_ZONES {
            zones.number(&number.to_string());
        }
        assert_eq!(zones.number("one too many"), Zone(0));
        assert_eq!(zones.number("a"), a);
        assert_eq!(zones.0.len(), MAX_ZONES);
    }
}
