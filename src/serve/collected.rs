//! The body of a request as it comes: a little of it without room, and nothing more before there is some.

use bytes::{Bytes, BytesMut};
use tokio::time::Instant;

use super::arrival::Pace;
use super::frames::SMALL_MESSAGE;
use super::room::Room;

/// What is there of a body.
#[derive(Debug)]
pub(super) struct Collected {
    bytes: BytesMut,
    /// How many there will be, where the request says so.
    total: Option<usize>,
    /// Room for it, when it is not small, and since when.
    room: Option<(Room, Instant)>,
}

impl Collected {
    /// Nothing yet.
    pub(super) fn of(total: Option<usize>) -> Self {
        Self { bytes: BytesMut::new(), total, room: None }
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn has_room(&self) -> bool {
        self.room.is_some()
    }

    /// When it is too slow, if nothing more of it comes. `until`: when all of it has to be there.
    pub(super) fn slow_at(&self, pace: Pace, until: Instant) -> Instant {
        self.room.as_ref().map_or(until, |(_, since)| {
            let time = until.saturating_duration_since(*since);
            *since + pace.suffices(self.bytes.len(), self.total, time)
        })
    }

    /// One more part. Where it makes more of it than a small message, `room` is waited for before anything is copied.
    pub(super) async fn take(&mut self, part: Bytes, room: impl Future<Output = Option<Room>>) {
        if self.room.is_none() && self.bytes.len() + part.len() > SMALL_MESSAGE {
            self.room = room.await.map(|room| (room, Instant::now()));
            self.bytes.reserve(self.total.map_or(0, |total| total.saturating_sub(self.bytes.len())));
        }
        self.bytes.extend_from_slice(&part);
    }

    /// All of it, with the room that it holds.
    pub(super) fn whole(self) -> (Bytes, Option<Room>) {
        (self.bytes.freeze(), self.room.map(|(room, _)| room))
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::serve::room::{Rooms, Share};
    use crate::serve::traffic::Counter;

    #[tokio::test]
    async fn nothing_is_copied_before_there_is_room_for_it() {
        let (rooms, waits) = (Rooms::new(1 << 20, Share::QUARTER), Counter::default());
        let mut collected = Collected::of(Some(1 << 20));
        collected.take(vec![1; SMALL_MESSAGE - 1].into(), std::future::pending()).await;
        collected.take(vec![2].into(), std::future::pending()).await;
        assert_eq!((collected.len(), collected.has_room()), (SMALL_MESSAGE, false), "a small message asks for none");
        let waiting = collected.take(vec![3; 16_384].into(), std::future::pending()).now_or_never();
        assert_eq!(waiting, None, "it waits");
        assert_eq!(collected.len(), SMALL_MESSAGE, "and holds no more meanwhile");
        assert!(collected.bytes.capacity() <= 2 * SMALL_MESSAGE, "{}", collected.bytes.capacity());
        collected.take(vec![3; 16_384].into(), rooms.take(None, 1 << 20, &waits)).await;
        assert_eq!((collected.len(), collected.has_room()), (SMALL_MESSAGE + 16_384, true));
        assert!(collected.bytes.capacity() >= 1 << 20, "it is not moved again and again");
        collected.take(vec![4].into(), std::future::pending()).await;
        let (bytes, room) = collected.whole();
        assert!(room.is_some() && bytes[SMALL_MESSAGE - 1..=SMALL_MESSAGE] == [2, 3] && bytes.last() == Some(&4));
    }
}
