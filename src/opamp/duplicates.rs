//! Whether two agents speak with one uid, told from the numbers of their messages.
//!
//! An agent that starts anew, or of whose messages one got lost, jumps to other numbers and goes on there. Two that use one uid go
//! back, again and again, to the number behind the one where the other cut in.

/// How often the numbers of a uid may go back to where they had been left until two agents are told apart. One agent never does
/// that but by requests that overtake each other.
const MOST_CROSSINGS: u8 = 3;

/// So many messages in order clear an agent of that suspicion; two agents cut in on each other sooner.
const ORDERLY: u8 = 32;

/// What the numbers of one uid have looked like.
#[derive(Debug, Default)]
pub(super) struct Suspicion {
    /// The number at which they were left before they jumped.
    left_at: Option<u64>,
    /// How often they went back to where they had been left.
    crossings: u8,
    /// Messages in order since the last jump, as far as they count.
    orderly: u8,
}

impl Suspicion {
    /// Looks at a message with this number behind one with the number `before`. True when it is certain that two agents speak: the
    /// message is of the one that had not spoken before it.
    pub(super) fn is_somebody_else(&mut self, before: u64, number: u64) -> bool {
        if number == before.wrapping_add(1) {
            self.orderly = self.orderly.saturating_add(1);
            if self.orderly >= ORDERLY {
                // What went back before then was a request that came late, now and then over months.
                self.crossings = 0;
            }
            return false;
        }
        self.orderly = 0;
        let goes_back = number.checked_sub(1).is_some_and(|last| self.left_at == Some(last));
        self.left_at = Some(before);
        if !goes_back {
            return false;
        }
        self.crossings += 1;
        let is_certain = self.crossings >= MOST_CROSSINGS;
        if is_certain {
            *self = Self::default();
        }
        is_certain
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// After how many messages somebody else is noticed.
    fn noticed(numbers: &[u64]) -> Option<usize> {
        let mut suspicion = Suspicion::default();
        numbers.windows(2).position(|pair| suspicion.is_somebody_else(pair[0], pair[1])).map(|at| at + 2)
    }

    #[test]
    fn two_are_told_from_one_by_their_numbers() {
        for (what, numbers, expected) in [
            ("in order", &[0, 1, 2, 3, 4, 5, 6][..], None),
            ("never counting", &[1, 1, 1, 1, 1, 1, 1, 1], None),
            ("losing messages", &[0, 2, 4, 6, 8, 10, 20], None),
            ("starting anew", &[5, 0, 1, 0, 1, 0, 1, 2, 0, 0, 0], None),
            ("one late", &[4, 6, 5, 7, 8, 9], None),
            ("the end of numbers", &[u64::MAX, 0, 1, u64::MAX, 0], None),
            ("in turn", &[7, 100, 8, 101, 9, 102, 10], Some(5)),
            ("in turn from the start", &[0, 0, 1, 1, 2, 2, 3, 3], Some(8)),
            ("in bursts", &[1, 2, 3, 50, 51, 4, 5, 52, 53, 6, 7], Some(10)),
        ] {
            assert_eq!(noticed(numbers), expected, "{what}");
        }
    }
}
