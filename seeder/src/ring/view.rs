//! What is known of all seeders at one moment, and what follows from it for one blob. Pure.
//!
//! A blob's owner is the first in its rendezvous order that answers; only the owner asks a registry for it. Copies belong to
//! the first few of the order whether they answer or not, so that a seeder that is away for a moment moves nothing; one that
//! has been away for long does not count.

use std::net::SocketAddr;
use std::time::Duration;

use eagle_core::ring;
use eagle_core::swarm_id::PeerId;
use tokio::time::Instant;

/// A seeder that has not answered for this long does not count among those that keep copies: longer than a Pod takes to be
/// scheduled anew, its image pulled and its volume moved.
pub(crate) const GONE: Duration = Duration::from_mins(10);

/// What is known of one seeder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Not asked yet.
    Unknown,
    /// It is this process.
    Own,
    /// It answers.
    Up {
        /// Its id in all swarms.
        id: PeerId,
        /// Where it takes peer connections.
        peer: Option<SocketAddr>,
    },
    /// It does not.
    Down {
        /// Since when.
        since: Instant,
    },
}

/// One seeder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its base URL: its name in the ring.
    pub url: String,
    /// What is known of it.
    pub state: State,
}

impl AsRef<str> for Member {
    fn as_ref(&self) -> &str {
        &self.url
    }
}

/// From whom a blob is to be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source<'a> {
    /// From its registry: this seeder owns it.
    Origin,
    /// From the seeder at this base URL.
    Seeder(&'a str),
}

/// All seeders.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    members: Vec<Member>,
}

impl View {
    /// These members, what was known of those that were there before kept.
    #[must_use]
    pub fn with(&self, urls: &[String]) -> Self {
        let state = |url: &String| self.member(url).map_or(State::Unknown, |member| member.state.clone());
        Self { members: urls.iter().map(|url| Member { url: url.clone(), state: state(url) }).collect() }
    }

    /// The members, in no order.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    fn member(&self, url: &str) -> Option<&Member> {
        self.members.iter().find(|member| member.url == url)
    }

    /// Takes note of what a member has turned out to be; whether that is news.
    pub fn learn(&mut self, url: &str, state: State) -> bool {
        let Some(member) = self.members.iter_mut().find(|member| member.url == url) else { return false };
        let is_news = match (&member.state, &state) {
            // Down since the first time that it was.
            (State::Down { .. }, State::Down { .. }) => false,
            (old, new) => old != new,
        };
        if is_news {
            member.state = state;
        }
        is_news
    }

    /// Whether every member has been asked.
    pub fn is_settled(&self) -> bool {
        self.members.iter().all(|member| member.state != State::Unknown)
    }

    /// Whether the member answers, or is this one.
    pub fn is_up(&self, url: &str) -> bool {
        self.member(url).is_some_and(|member| matches!(member.state, State::Up { .. } | State::Own))
    }

    /// Members that answer, this one among them.
    pub fn up(&self) -> usize {
        self.members.iter().filter(|member| matches!(member.state, State::Up { .. } | State::Own)).count()
    }

    /// Where the seeder with this id takes peer connections.
    pub fn peer_of(&self, seeder: PeerId) -> Option<SocketAddr> {
        self.members.iter().find_map(|member| match member.state {
            State::Up { id, peer } if id == seeder => peer,
            _ => None,
        })
    }

    /// From whom the blob `key` is taken that is not here, on behalf of the seeders `via`, when those at the URLs `failed`
    /// cannot give it. A seeder that is not in its own list owns nothing while another one answers.
    pub fn source(&self, key: &[u8], via: &[PeerId], failed: &[String]) -> Source<'_> {
        let able = |member: &&Member| match &member.state {
            State::Own => true,
            State::Up { id, .. } => !via.contains(id) && !failed.contains(&member.url),
            State::Unknown | State::Down { .. } => false,
        };
        match ring::order(key, &self.members).into_iter().find(able) {
            Some(Member { state: State::Up { .. }, url }) => Source::Seeder(url),
            _ => Source::Origin,
        }
    }

    /// Other seeders that answer, in the order in which they own `key`; none of `via` and `failed`.
    pub fn others(&self, key: &[u8], via: &[PeerId], failed: &[String]) -> Vec<&str> {
        let able = |member: &Member| match &member.state {
            State::Up { id, .. } => !via.contains(id) && !failed.contains(&member.url),
            _ => false,
        };
        let order = ring::order(key, &self.members).into_iter();
        order.filter(|member| able(member)).map(|member| member.url.as_str()).collect()
    }

    /// The other seeders that are to keep `key` too, if this one is among its `copies` keepers.
    pub fn keepers(&self, key: &[u8], copies: usize, now: Instant) -> Vec<&Member> {
        let counts = |member: &&Member| match member.state {
            State::Down { since } => now.duration_since(since) < GONE,
            _ => true,
        };
        let keepers: Vec<&Member> =
            ring::order(key, &self.members).into_iter().filter(counts).take(copies).collect();
        let own = |member: &&Member| member.state == State::Own;
        if !keepers.iter().any(own) {
            return Vec::new();
        }
        keepers.into_iter().filter(|member| !own(member)).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop_assert, prop_assert_eq, proptest};

    use super::*;

    fn id(number: u8) -> PeerId {
        PeerId([number; 20])
    }

    fn up(number: u8) -> State {
        State::Up { id: id(number), peer: None }
    }

    /// Seeders `http://0`, `http://1` …, as the one with number `own` sees them.
    fn view(count: u8, own: u8, down: &[u8]) -> View {
        let urls: Vec<String> = (0..count).map(|number| format!("http://{number}")).collect();
        let mut view = View::default().with(&urls);
        for number in 0..count {
            let state = match number {
                number if number == own => State::Own,
                number if down.contains(&number) => State::Down { since: Instant::now() },
                number => up(number),
            };
            view.learn(&urls[usize::from(number)], state);
        }
        view
    }

    fn number(url: &str) -> u8 {
        url.rsplit('/').next().unwrap().parse().unwrap()
    }

    proptest! {
        /// Whatever some of them cannot reach, questions end at one seeder, and it is one that considers itself the owner.
        #[test]
        fn questions_that_are_passed_on_end(key: [u8; 8], start in 0_u8..6, dead in proptest::collection::vec((0_u8..6, 0_u8..6), 0..8)) {
            let (mut at, mut via) = (start, Vec::new());
            loop {
                prop_assert!(via.len() < 6, "they go round: {via:?}");
                let down: Vec<u8> = dead.iter().filter(|(who, _)| *who == at).map(|(_, whom)| *whom).collect();
                let view = view(6, at, &down);
                let Source::Seeder(url) = view.source(&key, &via, &[]) else { break };
                via.push(id(at));
                at = number(url);
            }
        }

        /// All who see the same seeders name the same owner, and only that one asks the registry.
        #[test]
        fn one_of_all_asks_the_registry(key: [u8; 8], down in proptest::collection::vec(0_u8..6, 0..5)) {
            let living: Vec<u8> = (0..6).filter(|number| !down.contains(number)).collect();
            let asking: Vec<u8> = living
                .iter()
                .copied()
                .filter(|own| view(6, *own, &down).source(&key, &[], &[]) == Source::Origin)
                .collect();
            prop_assert_eq!(asking.len(), 1);
        }

        /// Every blob has as many keepers as it should, and they all know each other.
        #[test]
        fn keepers_know_each_other(key: [u8; 8], copies in 1_usize..5) {
            let now = Instant::now();
            let mut keepers = Vec::new();
            for own in 0..6 {
                let view = view(6, own, &[]);
                let others: Vec<u8> = view.keepers(&key, copies, now).iter().map(|member| number(&member.url)).collect();
                if !others.is_empty() {
                    prop_assert_eq!(others.len(), copies - 1);
                    keepers.push((own, others));
                }
            }
            prop_assert_eq!(keepers.len(), if copies == 1 { 0 } else { copies });
            for (own, others) in &keepers {
                prop_assert!(keepers.iter().all(|(other, _)| other == own || others.contains(other)));
            }
        }
    }

    #[test]
    fn a_seeder_that_cannot_give_it_is_passed_over() {
        let view = view(3, 0, &[]);
        let Some(key) = (0_u8..100).find(|key| view.source(&[*key], &[], &[]) != Source::Origin) else {
            panic!("one of three owns everything");
        };
        let Source::Seeder(owner) = view.source(&[key], &[], &[]) else { panic!("checked") };
        assert_ne!(view.source(&[key], &[], &[owner.to_owned()]), Source::Seeder(owner));
        assert_ne!(view.source(&[key], &[id(number(owner))], &[]), Source::Seeder(owner));
        assert!(!view.others(&[key], &[], &[owner.to_owned()]).contains(&owner));
    }

    #[test]
    fn a_short_absence_moves_no_copies_and_a_long_one_does() {
        let now = Instant::now();
        let all = view(3, 0, &[]);
        let key = (0_u8..100).find(|key| !all.keepers(&[*key], 2, now).is_empty()).unwrap();
        let keeper = all.keepers(&[key], 2, now)[0].url.clone();
        let away = view(3, 0, &[number(&keeper)]);
        assert_eq!(away.keepers(&[key], 2, Instant::now())[0].url, keeper);
        assert_ne!(away.keepers(&[key], 2, Instant::now() + GONE)[0].url, keeper);
    }

    #[test]
    fn what_is_known_outlives_a_new_list() {
        let old = view(3, 0, &[2]);
        let urls = ["http://0", "http://2", "http://7"].map(str::to_owned);
        let new = old.with(&urls);
        assert!(!new.is_settled());
        assert_eq!(new.members()[0].state, State::Own);
        assert!(!new.is_up("http://2") && !new.is_up("http://1") && new.is_up("http://0"));
        assert_eq!(new.up(), 1);
    }

    #[test]
    fn who_is_not_in_the_list_owns_nothing_while_another_answers() {
        let mut view = View::default().with(&["http://0".to_owned()]);
        view.learn("http://0", up(0));
        assert_eq!(view.source(b"x", &[], &[]), Source::Seeder("http://0"));
        view.learn("http://0", State::Down { since: Instant::now() });
        assert_eq!(view.source(b"x", &[], &[]), Source::Origin);
        assert_eq!(View::default().source(b"x", &[], &[]), Source::Origin);
    }
}
