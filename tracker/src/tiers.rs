//! A vector that never moves what it holds: each further part is twice as large as the one before.
//!
//! Two million records in a few hundred growing `Vec`s leave a third of the heap behind as holes, and every growth
//! copies megabytes while an announce waits. Parts are allocated once; what is not yet used of a large one is not
//! resident.

/// Records in the first part.
const FIRST: usize = 8;

/// Records by number, from 0 without gaps; numbers stay below 2^32.
pub(crate) struct Tiers<T> {
    /// Part k holds `FIRST << k` records, all parts but the last are full.
    parts: Vec<Vec<T>>,
}

impl<T> Tiers<T> {
    pub(crate) const fn new() -> Self {
        Self { parts: Vec::new() }
    }

    pub(crate) fn len(&self) -> usize {
        match self.parts.last() {
            Some(last) => FIRST * ((1 << (self.parts.len() - 1)) - 1) + last.len(),
            None => 0,
        }
    }

    /// Appends `value` and returns its number.
    pub(crate) fn push(&mut self, value: T) -> u32 {
        let number = self.len();
        let (part, _) = place(number);
        if part == self.parts.len() {
            self.parts.reserve_exact(1);
            self.parts.push(Vec::with_capacity(FIRST << part));
        }
        self.parts[part].push(value);
        u32::try_from(number).unwrap_or(u32::MAX)
    }

    pub(crate) fn get(&self, number: u32) -> Option<&T> {
        let (part, at) = place(number as usize);
        self.parts.get(part)?.get(at)
    }

    pub(crate) fn get_mut(&mut self, number: u32) -> Option<&mut T> {
        let (part, at) = place(number as usize);
        self.parts.get_mut(part)?.get_mut(at)
    }
}

/// The part of a number, and its place there: parts begin at 0, 8, 24, 56, …
fn place(number: usize) -> (usize, usize) {
    let part = (number / FIRST + 1).ilog2() as usize;
    (part, number - FIRST * ((1 << part) - 1))
}

impl<T> std::ops::Index<u32> for Tiers<T> {
    type Output = T;

    fn index(&self, number: u32) -> &T {
        let (part, at) = place(number as usize);
        &self.parts[part][at]
    }
}

impl<T> std::ops::IndexMut<u32> for Tiers<T> {
    fn index_mut(&mut self, number: u32) -> &mut T {
        let (part, at) = place(number as usize);
        &mut self.parts[part][at]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_a_vector() {
        let mut tiers = Tiers::new();
        for number in 0..1000_u32 {
            assert_eq!(tiers.len(), number as usize);
            assert!(tiers.get(number).is_none());
            assert_eq!(tiers.push(number), number);
        }
        assert!((0..1000).all(|number| tiers[number] == number));
        tiers[999] = 7;
        *tiers.get_mut(0).unwrap() = 8;
        assert_eq!((tiers[999], tiers.get(0), tiers.get(u32::MAX)), (7, Some(&8), None));
    }

    #[test]
    fn parts_are_never_grown() {
        let mut tiers = Tiers::new();
        for number in 0..1000_u32 {
            tiers.push(number);
        }
        let sizes: Vec<usize> = tiers.parts.iter().map(Vec::capacity).collect();
        assert_eq!(sizes, [8, 16, 32, 64, 128, 256, 512]);
    }
}
