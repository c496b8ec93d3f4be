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
    use proptest::prelude::{Strategy, any, prop_assert, prop_assert_eq, proptest};

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

    /// Distinct names of 2 to 12 members, and one more.
    fn members() -> impl Strategy<Value = (Vec<String>, String)> {
        proptest::collection::hash_set("[a-z]{1,8}", 3..13).prop_map(|names| {
            let mut names: Vec<String> = names.into_iter().collect();
            let joining = names.pop().unwrap_or_default();
            (names, joining)
        })
    }

    proptest! {
        /// Whoever joins takes what it owns now, and nothing else moves; read backwards: whoever leaves moves only its own.
        #[test]
        fn a_member_that_joins_moves_only_what_it_owns((before, joining) in members(), key in any::<[u8; 32]>()) {
            let mut after = before.clone();
            after.insert(after.len() / 2, joining.clone());
            let (old, new) = (order(&key, &before), order(&key, &after));
            prop_assert!(*new[0] == joining || new[0] == old[0]);
            // The others keep their order, so among the first few at most one is another: who joined, for who was last.
            for copies in 1..=before.len() {
                let left: Vec<_> = old[..copies].iter().filter(|member| !new[..copies].contains(member)).collect();
                let joined = new[..copies].contains(&&joining);
                prop_assert_eq!(left.len(), usize::from(joined));
                prop_assert!(!joined || *left[0] == old[copies - 1]);
            }
        }

        /// The order is everybody's, in whatever order the members are listed.
        #[test]
        fn the_order_of_the_list_does_not_matter((members, _) in members(), key in any::<[u8; 8]>(), turn in 0_usize..12) {
            let mut other = members.clone();
            other.rotate_left(turn % members.len());
            other.reverse();
            prop_assert_eq!(order(&key, &members), order(&key, &other));
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
