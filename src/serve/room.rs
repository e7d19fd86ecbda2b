//! Room that all share, in bytes or in turns: whoever holds much of it gets no more before others have some, and whoever waits for the part
//! of its own makes nobody else wait.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use tokio::sync::oneshot;

use super::links::lock;
use super::quota::Origin;
use super::traffic::Counter;

/// How much of the room one origin may hold, by what is left for everybody else: `times` of `of` parts of that. So `1:3` is a quarter for one
/// that is alone, and less for each that comes after it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Share {
    pub(super) times: usize,
    pub(super) of: usize,
}

impl Share {
    /// Of room for messages: a quarter.
    pub(super) const QUARTER: Self = Self { times: 1, of: 3 };
    /// Of turns that are over soon: three quarters.
    pub(super) const MOST: Self = Self { times: 3, of: 1 };
}

/// The room of one listener.
#[derive(Debug)]
pub(super) struct Rooms {
    most: usize,
    share: Share,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    left: usize,
    /// Who holds how much; those who hold nothing are not there.
    held: HashMap<Origin, usize>,
    /// Who waits, of each origin by the turn in which they came.
    queues: HashMap<Option<Origin>, BTreeMap<u64, Waiter>>,
    /// The first of each queue.
    firsts: BTreeMap<u64, Option<Origin>>,
    turns: u64,
}

#[derive(Debug)]
struct Waiter {
    amount: usize,
    call: oneshot::Sender<Room>,
}

/// Why somebody waits.
enum Obstacle {
    /// Of its own share nothing is left.
    Own,
    /// Of all the room.
    All,
}

impl Rooms {
    /// So much in all.
    pub(super) fn new(most: usize, share: Share) -> Arc<Self> {
        let most = most.max(1);
        let state =
            State { left: most, held: HashMap::new(), queues: HashMap::new(), firsts: BTreeMap::new(), turns: 0 };
        Arc::new(Self { most, share, state: Mutex::new(state) })
    }

    /// Room for so much, or all of it where that is more, once there is some; of nobody in particular when there is no origin. `waits` counts
    /// those for which there was none at once. Those of one origin are served in turn. `None` never comes but when the process ends.
    pub(super) async fn take(self: &Arc<Self>, origin: Option<Origin>, amount: usize, waits: &Counter) -> Option<Room> {
        let (call, mut called) = oneshot::channel();
        let turn = {
            let mut state = lock(&self.state);
            let turn = state.turns;
            state.turns += 1;
            let queue = state.queues.entry(origin).or_default();
            queue.insert(turn, Waiter { amount: amount.min(self.most), call });
            if queue.len() == 1 {
                state.firsts.insert(turn, origin);
            }
            turn
        };
        let _waiting = Waiting { rooms: Arc::clone(self), origin, turn };
        self.serve();
        if let Ok(room) = called.try_recv() {
            return Some(room);
        }
        waits.one();
        called.await.ok()
    }

    /// Gives room to whom there is some for, in the order in which they came.
    fn serve(self: &Arc<Self>) {
        let mut served = Vec::new();
        {
            let mut state = lock(&self.state);
            let mut from = 0;
            while let Some((turn, origin)) = state.firsts.range(from..).next().map(|(turn, origin)| (*turn, *origin)) {
                from = turn + 1;
                let amount = state.queues.get(&origin).and_then(|queue| queue.get(&turn)).map(|waiter| waiter.amount);
                match amount.map(|amount| self.obstacle(&state, origin, amount)) {
                    // Whoever came later waits, too: a large one must not wait for ever behind small ones.
                    Some(Some(Obstacle::All)) => break,
                    Some(Some(Obstacle::Own)) => {}
                    Some(None) | None => served.extend(self.hand_out(&mut state, origin, turn)),
                }
            }
        }
        // Outside, because whoever is gone meanwhile gives the room back at once.
        for (call, room) in served {
            let _gone = call.send(room);
        }
    }

    fn obstacle(&self, state: &State, origin: Option<Origin>, amount: usize) -> Option<Obstacle> {
        if amount > state.left {
            return Some(Obstacle::All);
        }
        let held = state.held.get(&origin?).copied()?;
        let Share { times, of } = self.share;
        let is_within = (held + amount).saturating_mul(of) <= (state.left - amount).saturating_mul(times);
        (!is_within).then_some(Obstacle::Own)
    }

    fn hand_out(
        self: &Arc<Self>,
        state: &mut State,
        origin: Option<Origin>,
        turn: u64,
    ) -> Option<(oneshot::Sender<Room>, Room)> {
        let Waiter { amount, call } = state.leave(origin, turn)?;
        if call.is_closed() {
            return None;
        }
        state.left -= amount;
        if let Some(origin) = origin {
            *state.held.entry(origin).or_default() += amount;
        }
        Some((call, Room { rooms: Arc::clone(self), origin, amount }))
    }
}

impl State {
    /// Takes somebody out of its queue.
    fn leave(&mut self, origin: Option<Origin>, turn: u64) -> Option<Waiter> {
        let queue = self.queues.get_mut(&origin)?;
        let waiter = queue.remove(&turn)?;
        let next = queue.keys().next().copied();
        if next.is_none() {
            self.queues.remove(&origin);
        }
        if self.firsts.remove(&turn).is_some()
            && let Some(next) = next
        {
            self.firsts.insert(next, origin);
        }
        Some(waiter)
    }
}

/// Somebody who waits. Whoever gives up leaves nothing behind, and holds nobody up.
struct Waiting {
    rooms: Arc<Rooms>,
    origin: Option<Origin>,
    turn: u64,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let left = lock(&self.rooms.state).leave(self.origin, self.turn);
        if left.is_some() {
            self.rooms.serve();
        }
    }
}

/// Room that is taken, until it is dropped.
#[derive(Debug)]
pub(super) struct Room {
    rooms: Arc<Rooms>,
    origin: Option<Origin>,
    amount: usize,
}

impl Room {
    /// Gives back all of it but so much.
    pub(super) fn keep(&mut self, amount: usize) {
        let given_back = self.amount.saturating_sub(amount);
        if given_back == 0 {
            return;
        }
        self.amount -= given_back;
        {
            let mut state = lock(&self.rooms.state);
            state.left += given_back;
            if let Some(origin) = self.origin
                && let Some(held) = state.held.get_mut(&origin)
            {
                *held -= given_back;
                if *held == 0 {
                    state.held.remove(&origin);
                }
            }
        }
        self.rooms.serve();
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.keep(0);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn origin(number: u8) -> Option<Origin> {
        Some(Origin::Token([number; 32]))
    }

    fn is_empty(rooms: &Rooms) -> bool {
        let state = lock(&rooms.state);
        state.left == rooms.most && state.held.is_empty() && state.queues.is_empty() && state.firsts.is_empty()
    }

    #[tokio::test]
    async fn one_origin_has_a_quarter_and_waits_alone() {
        let rooms = Rooms::new(100, Share::QUARTER);
        let waits = Counter::default();
        let held = [rooms.take(origin(1), 15, &waits).await, rooms.take(origin(1), 10, &waits).await];
        assert!(held.iter().all(Option::is_some) && waits.get() == 0);
        let mut third = Box::pin(rooms.take(origin(1), 5, &waits));
        assert!(third.as_mut().now_or_never().is_none(), "its quarter is taken");
        assert_eq!(waits.get(), 1);
        let others = [2, 3].map(|number| rooms.take(origin(number), 25, &waits).now_or_never());
        assert!(others.iter().all(Option::is_some), "others have theirs");
        drop(held);
        assert!(third.await.is_some());
        drop(others);
        assert!(is_empty(&rooms), "nobody is remembered for ever");
        let more = rooms.take(origin(1), 1_000, &waits).now_or_never();
        assert!(more.flatten().is_some(), "whatever is announced is all there is at most");
    }

    /// Each takes its part of what is left, and keeps it.
    #[tokio::test]
    async fn fifteen_greedy_ones_leave_something_for_the_next() {
        let rooms = Rooms::new(64_000, Share::QUARTER);
        let waits = Counter::default();
        let mut held = Vec::new();
        for number in 0..15 {
            let before = held.len();
            while let Some(Some(room)) = rooms.take(origin(number), 100, &waits).now_or_never() {
                held.push(room);
            }
            assert!(held.len() > before, "nothing was left for {number}");
        }
        assert!(lock(&rooms.state).left >= 500, "{}", lock(&rooms.state).left);
        drop(held);
        assert!(is_empty(&rooms));
        let turns = Rooms::new(8, Share::MOST);
        let mut held = Vec::new();
        while let Some(Some(turn)) = turns.take(origin(1), 1, &waits).now_or_never() {
            held.push(turn);
        }
        assert_eq!(held.len(), 6, "three quarters of turns");
        assert!(turns.take(origin(2), 1, &waits).now_or_never().flatten().is_some());
    }

    #[tokio::test]
    async fn a_large_one_does_not_wait_behind_small_ones_that_came_later() {
        let rooms = Rooms::new(100, Share::QUARTER);
        let waits = Counter::default();
        let held = rooms.take(None, 60, &waits).await;
        let mut large = Box::pin(rooms.take(origin(1), 50, &waits));
        assert!(large.as_mut().now_or_never().is_none());
        let mut small = Box::pin(rooms.take(origin(2), 10, &waits));
        assert!(small.as_mut().now_or_never().is_none(), "there would be room, and somebody was there before");
        assert_eq!(waits.get(), 2, "each is counted once");
        drop(held);
        assert!(large.now_or_never().flatten().is_some() && small.now_or_never().flatten().is_some());
        assert!(is_empty(&rooms));
    }

    #[tokio::test]
    async fn what_is_not_needed_after_all_is_given_back() {
        let rooms = Rooms::new(100, Share::QUARTER);
        let waits = Counter::default();
        let mut held = rooms.take(origin(1), 25, &waits).await.expect("room");
        let mut more = Box::pin(rooms.take(origin(1), 20, &waits));
        assert!(more.as_mut().now_or_never().is_none());
        held.keep(30);
        assert!(more.as_mut().now_or_never().is_none(), "nobody gets more that way");
        held.keep(2);
        assert!(more.now_or_never().flatten().is_some());
        held.keep(0);
        assert!(is_empty(&rooms));
        drop(held);
        assert!(is_empty(&rooms), "nothing is given back twice");
    }

    #[tokio::test]
    async fn who_gives_up_waiting_leaves_nothing_behind_and_holds_nobody_up() {
        let rooms = Rooms::new(8, Share::QUARTER);
        let waits = Counter::default();
        let held = rooms.take(origin(1), 2, &waits).await;
        let mut all = Box::pin(rooms.take(origin(2), 8, &waits));
        assert!(all.as_mut().now_or_never().is_none(), "a message as large as all the room");
        let mut behind = Box::pin(rooms.take(origin(3), 2, &waits));
        assert!(behind.as_mut().now_or_never().is_none());
        drop(all);
        assert!(behind.as_mut().now_or_never().flatten().is_some(), "who was before it is gone");
        let mut served = Box::pin(rooms.take(origin(1), 8, &waits));
        assert!(served.as_mut().now_or_never().is_none());
        drop(held);
        // Called, and gone before it heard.
        drop(served);
        assert!(is_empty(&rooms), "all of it is free again");
    }
}
