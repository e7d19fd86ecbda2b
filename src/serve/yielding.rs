//! Places for what is read, in which whoever takes long, or has the most of them, makes way for who comes: somebody slow does not keep out somebody quick.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::links::lock;
use super::quota::Origin;

/// So long a place is safe from those who have about as many, which is enough for most bodies: otherwise whoever came often enough would take it
/// from everybody.
pub(super) const SAFE: Duration = Duration::from_secs(1);

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
    by_turn: BTreeMap<u64, Held>,
}

#[derive(Debug)]
struct Held {
    origin: Origin,
    since: Instant,
    /// The word that it is lost; `None`: it makes way for nobody any more.
    call: Option<oneshot::Sender<()>>,
}

impl YieldingPlaces {
    pub(super) fn new(all: usize, of_each: usize) -> Arc<Self> {
        Arc::new(Self { all, of_each, taken: Mutex::default() })
    }

    /// A place, until it is dropped or lost. Where there is none, and whoever comes `may_evict`, another one makes way: of an origin that has as
    /// many as it may, its first, when that was held for [`SAFE`]; when all are taken, the first of those that have the most, when that was, or
    /// when they would still have more than whoever comes. `None`: nobody makes way.
    pub(super) fn take(self: &Arc<Self>, origin: Origin, may_evict: bool) -> Option<YieldingPlace> {
        let (call, called) = oneshot::channel();
        let mut taken = lock(&self.taken);
        let is_spent = taken.held_by(&origin) >= self.of_each;
        if is_spent || taken.by_turn.len() >= self.all {
            let turn = taken.who_yields(origin, is_spent).filter(|_| may_evict)?;
            if let Some(call) = taken.by_turn.remove(&turn).and_then(|held| held.call) {
                // Whoever is gone already needs no word.
                let _gone = call.send(());
            }
        }
        let turn = taken.turns;
        taken.turns += 1;
        taken.by_turn.insert(turn, Held { origin, since: Instant::now(), call: Some(call) });
        Some(YieldingPlace { places: Arc::clone(self), turn, called })
    }
}

impl Taken {
    fn held_by(&self, origin: &Origin) -> usize {
        self.by_turn.values().filter(|held| held.origin == *origin).count()
    }

    /// Who makes way for this origin; `is_spent`: one of its own.
    fn who_yields(&self, comer: Origin, is_spent: bool) -> Option<u64> {
        let (now, own) = (Instant::now(), self.held_by(&comer));
        let may_go = self.by_turn.iter().filter(|(_, held)| {
            let is_old = now.duration_since(held.since) >= SAFE;
            let makes_way =
                if is_spent { is_old && held.origin == comer } else { is_old || self.held_by(&held.origin) >= own + 2 };
            held.call.is_some() && makes_way
        });
        may_go.max_by_key(|(turn, held)| (self.held_by(&held.origin), Reverse(**turn))).map(|(turn, _)| *turn)
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

    /// Makes way for nobody any more: what is done now is over soon, and goes on whoever comes. False: it is lost already.
    pub(super) fn keep(&self) -> bool {
        lock(&self.places.taken).by_turn.get_mut(&self.turn).map(|held| held.call = None).is_some()
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
    use tokio::time::advance;

    use super::*;

    fn of(last: u8) -> Origin {
        Origin::of([192, 0, 2, last].into())
    }

    fn lost(places: &mut [YieldingPlace]) -> Vec<bool> {
        places.iter_mut().map(|place| place.lost().now_or_never().is_some()).collect()
    }

    fn take<const COUNT: usize>(places: &Arc<YieldingPlaces>, origins: [u8; COUNT]) -> Vec<YieldingPlace> {
        origins.map(|last| places.take(of(last), true).expect("a place")).into()
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_taken_longest_makes_way() {
        let places = YieldingPlaces::new(4, 2);
        let mut held = take(&places, [1, 1, 2]);
        advance(SAFE).await;
        assert_eq!(lost(&mut held), [false, false, false]);
        held.extend(take(&places, [1]));
        assert_eq!(lost(&mut held), [true, false, false, false], "the first of this origin");
        held.remove(0);
        held.extend(take(&places, [3]));
        // All four are taken, two by the first origin.
        held.extend(take(&places, [4]));
        assert_eq!(lost(&mut held), [true, false, false, false, false]);
        held.remove(0);
        assert_eq!(lost(&mut held), [false; 4]);
        drop(held);
        assert!(lock(&places.taken).by_turn.is_empty(), "nobody is remembered");
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_comes_has_a_place_though_all_are_taken_by_one_each() {
        let places = YieldingPlaces::new(3, 2);
        let mut held = take(&places, [1, 2, 3]);
        advance(SAFE).await;
        held.extend(take(&places, [4, 5]));
        assert_eq!(lost(&mut held), [true, true, false, false, false], "the first ones");
        assert_eq!(lock(&places.taken).by_turn.len(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn who_just_came_makes_way_for_nobody() {
        let places = YieldingPlaces::new(3, 2);
        let mut held = take(&places, [1, 1]);
        advance(SAFE - Duration::from_millis(1)).await;
        assert!(places.take(of(1), true).is_none(), "its origin has its two");
        held.extend(take(&places, [2, 3]));
        assert_eq!(lost(&mut held), [true, false, false, false], "but of one who has two more");
        held.remove(0);
        assert!(places.take(of(4), true).is_none(), "all are taken, by one each");
        advance(Duration::from_millis(1)).await;
        assert!(places.take(of(1), false).is_none() && places.take(of(4), false).is_none(), "it may evict nobody");
        assert_eq!(lost(&mut held), [false; 3]);
        held.extend(take(&places, [4]));
        assert_eq!(lost(&mut held), [true, false, false, false], "who had its time");
        assert!(places.take(of(5), true).is_none(), "those who are there came just now");
    }

    #[tokio::test(start_paused = true)]
    async fn who_comes_again_and_again_from_a_few_networks_keeps_nobody_out() {
        let places = YieldingPlaces::new(16, 4);
        let mut held: Vec<YieldingPlace> = Vec::new();
        for round in 0..20_u8 {
            // Each of four networks lets its own first one go, whenever that may.
            held.extend([1, 2, 3, 4].into_iter().filter_map(|last| places.take(of(last), true)));
            let _forge = places.take(of(9), true).unwrap_or_else(|| panic!("a place in round {round}"));
            advance(SAFE / 4).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_keeps_its_place_does_not_lose_it() {
        let places = YieldingPlaces::new(2, 2);
        let mut held = take(&places, [1, 2]);
        assert!(held[0].keep());
        advance(SAFE).await;
        held.extend(take(&places, [3]));
        assert_eq!(lost(&mut held[1..]), [true, false], "the one that may be lost");
        assert!(!held[1].keep(), "too late");
        advance(SAFE).await;
        assert!(held[2].keep());
        assert!(places.take(of(4), true).is_none(), "all that are left are kept");
        held.remove(0);
        assert!(places.take(of(4), true).is_some(), "it is given back");
    }
}
