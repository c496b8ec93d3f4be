//! Rendezvous hashing: who of several seeders or trackers owns a digest or a swarm.
//!
//! Each member's weight for a key is a hash of both; the highest weight owns. A member that leaves moves only what it
//! owned, and everybody who knows the same members computes the same order without asking anyone.

use sha2::{Digest as _, Sha256};

/// The members in the order in which they own `key`: the owner first, then who takes over.
pub fn order<'a, M: AsRef<str>>(key: &[u8], members: &'a [M]) -> Vec<&'a M> {
    let mut weighed: Vec<_> = members.iter().map(|member| (weight(key, member.as_ref()), member)).collect();
    weighed.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.as_ref().cmp(b.1.as_ref())));
    weighed.into_iter().map(|(_, member)| member).collect()
}

fn weight(key: &[u8], member: &str) -> u64 {
    let mut hasher = Sha256::new();
    hasher.update(key);
    hasher.update([0]);
    hasher.update(member.as_bytes());
    let mut first = [0; 8];
    first.copy_from_slice(&hasher.finalize()[..8]);
    u64::from_be_bytes(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMBERS: [&str; 5] = ["a", "b", "c", "d", "e"];

    #[test]
    fn a_member_that_leaves_moves_only_its_own_keys() {
        for key in 0_u32..500 {
            let key = key.to_be_bytes();
            let before = order(&key, &MEMBERS);
            let left: Vec<&str> = MEMBERS.into_iter().filter(|member| *member != "c").collect();
            let after = order(&key, &left);
            let expected: Vec<&str> = before.into_iter().copied().filter(|member| *member != "c").collect();
            assert_eq!(after.into_iter().copied().collect::<Vec<_>>(), expected);
        }
    }

    #[test]
    fn keys_are_spread_evenly() {
        let mut owned = [0_u32; 5];
        for key in 0_u32..5_000 {
            let first = order(&key.to_be_bytes(), &MEMBERS)[0].as_bytes()[0];
            owned[usize::from(first - b'a')] += 1;
        }
        assert!(owned.iter().all(|count| (850..1150).contains(count)), "{owned:?}");
    }
}
