//! Places for what is read, in which whoever has taken longest makes way for who comes: somebody slow never keeps out somebody quick.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use tokio::sync::oneshot;

use super::links::lock;
use super::quota::Origin;

/// So many places in all, and so many of them for one origin.
#[derive(Debug)]
pub(super) struct YieldingPlaces {
    all: usize,
    of_each: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    turns: u64,
    /// In the order in which they came.
    by_turn: BTreeMap<u64, (Origin, oneshot::Sender<()>)>,
}

impl YieldingPlaces {
    pub(super) fn new(all: usize, of_each: usize) -> Arc<Self> {
        Arc::new(Self { all, of_each, taken: Mutex::default() })
    }

    /// A place, until it is dropped or lost. There is always one: of an origin that has as many as it may, the one that came first loses
    /// its place, and when all are taken, the first one of those that have the most.
    pub(super) fn take(self: &Arc<Self>, origin: Origin) -> YieldingPlace {
        let (call, called) = oneshot::channel();
        let mut taken = lock(&self.taken);
        if let Some((_, call)) = taken.who_yields(origin, self).and_then(|turn| taken.by_turn.remove(&turn)) {
            // Whoever is gone already needs no word.
            let _gone = call.send(());
        }
        let turn = taken.turns;
        taken.turns += 1;
        taken.by_turn.insert(turn, (origin, call));
        YieldingPlace { places: Arc::clone(self), turn, called }
    }
}

impl Taken {
    fn who_yields(&self, origin: Origin, places: &YieldingPlaces) -> Option<u64> {
        let held = |origin: &Origin| self.by_turn.values().filter(|(other, _)| other == origin).count();
        if held(&origin) >= places.of_each {
            return self.by_turn.iter().find(|(_, (other, _))| *other == origin).map(|(turn, _)| *turn);
        }
        let is_full = self.by_turn.len() >= places.all;
        let greediest = self.by_turn.iter().max_by_key(|(turn, (origin, _))| (held(origin), Reverse(**turn)));
        greediest.filter(|_| is_full).map(|(turn, _)| *turn)
    }
}

/// A place that may be lost.
#[derive(Debug)]
pub(super) struct YieldingPlace {
    places: Arc<YieldingPlaces>,
    turn: u64,
    called: oneshot::Receiver<()>,
}

impl YieldingPlace {
    /// Waits until it is lost.
    pub(super) async fn lost(&mut self) {
        // The other end is dropped with a word, or with this place.
        let _word = (&mut self.called).await;
    }
}

impl Drop for YieldingPlace {
    fn drop(&mut self) {
        lock(&self.places.taken).by_turn.remove(&self.turn);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn of(last: u8) -> Origin {
        Origin::of([192, 0, 2, last].into())
    }

    fn lost(places: &mut [YieldingPlace]) -> Vec<bool> {
        places.iter_mut().map(|place| place.lost().now_or_never().is_some()).collect()
    }

    #[test]
    fn who_has_taken_longest_makes_way() {
        let places = YieldingPlaces::new(4, 2);
        let mut held: Vec<YieldingPlace> = [1, 1, 2].map(|last| places.take(of(last))).into();
        assert_eq!(lost(&mut held), [false, false, false]);
        held.push(places.take(of(1)));
        assert_eq!(lost(&mut held[1..]), [false, false, false], "the second of this origin, and of the other one");
        held.remove(0);
        held.push(places.take(of(3)));
        // All four are taken, two by the first origin.
        held.push(places.take(of(4)));
        assert_eq!(lost(&mut held[1..]), [false; 4]);
        held.remove(0);
        drop(held);
        assert!(lock(&places.taken).by_turn.is_empty(), "nobody is remembered");
    }

    #[test]
    fn whoever_comes_has_a_place_though_all_are_taken_by_one_each() {
        let places = YieldingPlaces::new(3, 2);
        let mut held: Vec<YieldingPlace> = [1, 2, 3, 4, 5].map(|last| places.take(of(last))).into();
        assert_eq!(lost(&mut held), [true, true, false, false, false], "the first ones");
        assert_eq!(lock(&places.taken).by_turn.len(), 3);
    }
}
