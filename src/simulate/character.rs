//! Which agents misbehave, and how: drawn once from the seed, with exact numbers.

use crate::fleet::strategy::Amount;
use crate::simulate::Options;

/// How one agent misbehaves. An agent may have several faults.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Character {
    /// Its collector cannot run any configuration it is offered.
    pub fails: bool,
    /// Its collector starts to crash a while after it took a configuration.
    pub crashes: bool,
    /// It reads nothing after the first exchange.
    pub deaf: bool,
    /// It never says what became of an offer.
    pub silent: bool,
    /// It cannot run a second configuration and goes back to the first.
    pub rolls_back: bool,
    /// It is never well.
    pub unhealthy: bool,
}

/// The characters of all agents, by number. Shares round up, so that `1%` of sixty agents is one; who it is depends on
/// the seed alone.
pub fn cast(options: &Options) -> Vec<Character> {
    type Fault = fn(&mut Character);
    let mut characters = vec![Character::default(); options.agents as usize];
    let faults: [(Amount, Fault); 6] = [
        (options.fail, |character| character.fails = true),
        (options.crash, |character| character.crashes = true),
        (options.deaf, |character| character.deaf = true),
        (options.silent, |character| character.silent = true),
        (options.rollback, |character| character.rolls_back = true),
        (options.unhealthy, |character| character.unhealthy = true),
    ];
    for (index, (amount, afflict)) in (1..).zip(faults) {
        let mut random = fastrand::Rng::with_seed(options.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(index));
        let wanted = amount.round_up(characters.len()).min(characters.len());
        for chosen in random.choose_multiple(characters.iter_mut(), wanted) {
            afflict(chosen);
        }
    }
    characters
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulate::Endpoint;

    #[test]
    fn shares_are_exact_and_follow_the_seed() {
        let server = Endpoint::resolve("ws://127.0.0.1:4320/", false).expect("loopback");
        let mut options = Options::new(server, 60);
        options.fail = Amount::Share(100);
        options.deaf = Amount::Share(1_000);
        options.silent = Amount::Count(200);
        let characters = cast(&options);
        let count = |has: fn(&Character) -> bool| characters.iter().filter(|character| has(character)).count();
        assert_eq!(count(|character| character.fails), 1, "one percent of sixty, rounded up");
        assert_eq!(count(|character| character.deaf), 6);
        assert_eq!(count(|character| character.silent), 60, "never more than there are");
        assert_eq!(count(|character| character.crashes), 0);
        assert_eq!(cast(&options), characters, "the same seed, the same agents");
        options.seed += 1;
        assert_ne!(cast(&options), characters, "another seed, other agents");
    }
}
