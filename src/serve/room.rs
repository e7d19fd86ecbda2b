//! Room for the bytes of larger messages: so many in all, and a share of them for each origin, so that one who announces much and sends it
//! slowly makes nobody else wait. Four of them do.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::links::lock;
use super::quota::Origin;
use super::traffic::Counter;

/// What part of the room one origin may take.
const PART: usize = 4;

/// The room of one listener.
#[derive(Debug)]
pub(super) struct Rooms {
    all: Arc<Semaphore>,
    /// Bytes of all, and of one origin.
    most: usize,
    share: usize,
    /// Who has room, or waits for some, and how many of them there are.
    shares: Mutex<HashMap<Origin, (Arc<Semaphore>, usize)>>,
}

impl Rooms {
    /// So many bytes in all. One origin has a quarter of them, but always as many as `largest`, which is one message.
    pub(super) fn new(most: usize, largest: usize) -> Arc<Self> {
        let most = most.clamp(1, Semaphore::MAX_PERMITS.min(u32::MAX as usize));
        let share = (most / PART).max(largest).min(most);
        Arc::new(Self { all: Arc::new(Semaphore::new(most)), most, share, shares: Mutex::default() })
    }

    /// Room for so many bytes, once there is some; of nobody in particular when there is no origin. `waits` counts those for which there was
    /// none at once, each of them once.
    pub(super) async fn take(
        self: &Arc<Self>,
        origin: Option<Origin>,
        bytes: usize,
        waits: &Counter,
    ) -> Option<Box<Room>> {
        let mut waits = Some(waits);
        let within = |most: usize| u32::try_from(bytes.min(most)).unwrap_or(u32::MAX);
        // In a queue of its own first: who waits there keeps nothing from others.
        let own = origin.map(|origin| self.enter(origin));
        let of_share = match &own {
            Some(own) => Some(take(&own.semaphore, within(self.share), &mut waits).await?),
            None => None,
        };
        let of_all = take(&self.all, within(self.most), &mut waits).await?;
        Some(Box::new(Room { _of_share: of_share, _of_all: of_all, _own: own }))
    }

    fn enter(self: &Arc<Self>, origin: Origin) -> Share {
        let mut shares = lock(&self.shares);
        let (semaphore, users) = shares.entry(origin).or_insert_with(|| (Arc::new(Semaphore::new(self.share)), 0));
        *users += 1;
        Share { rooms: Arc::clone(self), origin, semaphore: Arc::clone(semaphore) }
    }
}

async fn take(semaphore: &Arc<Semaphore>, bytes: u32, waits: &mut Option<&Counter>) -> Option<OwnedSemaphorePermit> {
    if let Ok(permit) = Arc::clone(semaphore).try_acquire_many_owned(bytes) {
        return Some(permit);
    }
    if let Some(waits) = waits.take() {
        waits.one();
    }
    Arc::clone(semaphore).acquire_many_owned(bytes).await.ok()
}

/// Room that is taken.
#[derive(Debug)]
pub(super) struct Room {
    _of_share: Option<OwnedSemaphorePermit>,
    _of_all: OwnedSemaphorePermit,
    _own: Option<Share>,
}

/// One of those of an origin who have room, or wait for some.
#[derive(Debug)]
struct Share {
    rooms: Arc<Rooms>,
    origin: Origin,
    semaphore: Arc<Semaphore>,
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut shares = lock(&self.rooms.shares);
        if let Some((_, users)) = shares.get_mut(&self.origin) {
            *users -= 1;
            if *users == 0 {
                shares.remove(&self.origin);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn one_origin_has_a_quarter_and_waits_alone() {
        let rooms = Rooms::new(100, 10);
        let waits = Counter::default();
        let one = Some(Origin::Token([1; 32]));
        let held = [rooms.take(one, 15, &waits).await, rooms.take(one, 10, &waits).await];
        assert!(held.iter().all(Option::is_some) && waits.get() == 0);
        let mut third = Box::pin(rooms.take(one, 5, &waits));
        assert!(third.as_mut().now_or_never().is_none(), "its quarter is taken");
        assert_eq!(waits.get(), 1);
        let others = [2, 3].map(|byte| rooms.take(Some(Origin::Token([byte; 32])), 25, &waits).now_or_never());
        assert!(others.iter().all(Option::is_some), "others have theirs");
        drop(held);
        assert!(third.await.is_some());
        drop(others);
        assert!(lock(&rooms.shares).is_empty(), "nobody is remembered for ever");
        let more = rooms.take(one, 1_000, &waits).now_or_never();
        assert!(more.flatten().is_some(), "whatever is announced takes a share at most");
    }

    #[tokio::test]
    async fn who_waits_for_its_share_and_then_for_all_is_counted_once() {
        let rooms = Rooms::new(100, 10);
        let waits = Counter::default();
        let one = Some(Origin::Token([1; 32]));
        let held = rooms.take(one, 25, &waits).await;
        let mut before = Box::pin(rooms.take(None, 100, &waits));
        assert!(before.as_mut().now_or_never().is_none());
        let mut twice = Box::pin(rooms.take(one, 25, &waits));
        assert!(twice.as_mut().now_or_never().is_none(), "its share is taken");
        assert_eq!(waits.get(), 2);
        drop(held);
        assert!(twice.as_mut().now_or_never().is_none(), "somebody else was there before");
        drop(before.await);
        assert!(twice.await.is_some());
        assert_eq!(waits.get(), 2);
    }

    #[tokio::test]
    async fn who_gives_up_waiting_leaves_nothing_behind() {
        let rooms = Rooms::new(8, 8);
        let waits = Counter::default();
        let (one, other) = (Some(Origin::Token([1; 32])), Some(Origin::Token([2; 32])));
        let held = rooms.take(one, 8, &waits).await;
        assert!(rooms.take(other, 8, &waits).now_or_never().is_none(), "a message as large as all the room");
        drop(held);
        assert!(lock(&rooms.shares).is_empty());
        assert!(rooms.take(None, 8, &waits).now_or_never().flatten().is_some(), "all of it is free again");
    }
}
