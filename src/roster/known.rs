//! Who was here before, in two bytes an agent: a set of ids that never takes one of them for a stranger, and a stranger for one of them
//! once in two thousand times.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::agent::AgentId;

/// Bytes an agent.
const BYTES_OF_AN_AGENT: usize = 2;

/// Bits that an agent sets: as many as tell most, where there are sixteen for each.
const PROBES: u64 = 11;

/// Agents that even the smallest set has room for.
const LEAST_AGENTS: usize = 64;

/// The largest set that is read: of a million agents.
const MOST_BYTES: usize = 2 << 20;

/// A set of agents: a Bloom filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    bits: Vec<u8>,
}

impl Known {
    /// A set with room for so many agents.
    pub fn with_room_for(agents: usize) -> Self {
        Self { bits: vec![0; agents.max(LEAST_AGENTS).saturating_mul(BYTES_OF_AN_AGENT).min(MOST_BYTES)] }
    }

    /// The set with these agents in it, and with those of `before` as long as both together fill it no more than twofold: one set
    /// is enough for a fleet that comes back, and not for another one that takes its place. A set that is three quarters full, by the agents
    /// of many processes, knows everybody, and is left behind.
    pub fn of(agents: impl ExactSizeIterator<Item = AgentId>, before: Option<&Self>) -> Self {
        let before = before.filter(|before| before.bits.len() * 2 >= agents.len() * BYTES_OF_AN_AGENT);
        let before = before.filter(|before| !before.is_worn_out());
        let mut known = before.cloned().unwrap_or_else(|| Self::with_room_for(agents.len()));
        for id in agents {
            known.insert(id);
        }
        known
    }

    /// True when it takes one stranger in thirty for somebody it knows, or more of them.
    fn is_worn_out(&self) -> bool {
        let ones: usize = self.bits.iter().map(|byte| byte.count_ones() as usize).sum();
        ones > self.bits.len() * 6
    }

    /// Puts an agent into it.
    pub fn insert(&mut self, id: AgentId) {
        for (byte, mask) in self.places(id) {
            if let Some(byte) = self.bits.get_mut(byte) {
                *byte |= mask;
            }
        }
    }

    /// True when the agent was put into it, and once in two thousand times when it was not.
    pub fn contains(&self, id: AgentId) -> bool {
        self.places(id).all(|(byte, mask)| self.bits.get(byte).is_some_and(|byte| byte & mask != 0))
    }

    /// The bits of an agent, as byte and mask. FNV-1a, of which two halves are mixed anew; frozen, because records outlive releases.
    fn places(&self, id: AgentId) -> impl Iterator<Item = (usize, u8)> + use<> {
        let hash = id.as_bytes().iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        let mix = |hash: u64| {
            let mixed = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
            mixed ^ (mixed >> 33)
        };
        let (first, step) = (mix(hash), mix(hash.rotate_left(32)) | 1);
        let size = self.bits.len().saturating_mul(8).max(1) as u64;
        (0..PROBES).map(move |probe| {
            let bit = first.wrapping_add(probe.wrapping_mul(step)) % size;
            (usize::try_from(bit / 8).unwrap_or(usize::MAX), 1 << (bit % 8))
        })
    }

    /// The set as text.
    pub fn to_text(&self) -> String {
        STANDARD.encode(&self.bits)
    }

    /// The set of [`Known::to_text`]; `None` when it is none.
    pub fn from_text(text: &str) -> Option<Self> {
        let is_small = text.len() <= MOST_BYTES / 3 * 4 + 4;
        let bits = is_small.then(|| STANDARD.decode(text).ok()).flatten()?;
        (!bits.is_empty()).then_some(Self { bits })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent(number: u32) -> AgentId {
        let mut bytes = [7; 16];
        bytes[12..].copy_from_slice(&number.to_be_bytes());
        AgentId::new(&bytes).expect("a uid")
    }

    #[test]
    fn members_are_always_known_and_strangers_hardly_ever() {
        for count in [1, 64, 1_000, 19_000] {
            let known = Known::of((0..count).map(agent).collect::<Vec<_>>().into_iter(), None);
            assert!((0..count).all(|number| known.contains(agent(number))), "{count}: all of them");
            let mistaken = (100_000..120_000).filter(|number| known.contains(agent(*number))).count();
            assert!(mistaken <= 40, "{count}: {mistaken} of 20,000 strangers are taken for members");
            assert_eq!(Known::from_text(&known.to_text()), Some(known), "{count}: as text");
        }
    }

    #[test]
    fn those_of_before_stay_known_until_others_are_many_more() {
        let of = |numbers: std::ops::Range<u32>, before: Option<&Known>| {
            Known::of(numbers.map(agent).collect::<Vec<_>>().into_iter(), before)
        };
        let before = of(0..200, None);
        let some_are_back = of(150..260, Some(&before));
        assert!((0..260).all(|number| some_are_back.contains(agent(number))));
        let another_fleet = of(1_000..2_000, Some(&before));
        assert!((1_000..2_000).all(|number| another_fleet.contains(agent(number))));
        assert!((0..200).filter(|number| another_fleet.contains(agent(*number))).count() < 10);
    }

    #[test]
    fn a_set_that_knows_everybody_is_left_behind() {
        let mut known = Known::of(std::iter::empty(), None);
        for process in 0..40 {
            let agents: Vec<AgentId> = (process * 20..process * 20 + 20).map(agent).collect();
            known = Known::of(agents.iter().copied(), Some(&known));
            assert!(agents.iter().all(|id| known.contains(*id)));
            let mistaken = (100_000..101_000).filter(|number| known.contains(agent(*number))).count();
            assert!(mistaken < 200, "{mistaken} of 1,000 strangers after {process} processes");
        }
    }

    #[test]
    fn what_is_no_set_is_none() {
        let long = "A".repeat(MOST_BYTES * 2);
        for text in ["", "no base64!", &long] {
            assert_eq!(Known::from_text(text), None, "{} characters", text.len());
        }
        let empty = Known::with_room_for(0);
        assert!(!empty.contains(agent(1)));
    }
}
