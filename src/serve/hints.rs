//! What hooks said last, for those who look at the repository: the bell itself carries nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwapOption;

use crate::forge::hooks::Announced;
use crate::time::Timestamp;
use crate::view::LastHook;

/// Slots, each with the latest; clones are the same. Nothing in them is believed: they say when and how often it is worth looking.
#[derive(Clone, Debug, Default)]
pub struct Hints(Arc<Slots>);

#[derive(Debug, Default)]
struct Slots {
    last: ArcSwapOption<LastHook>,
    /// In milliseconds; 0 for never.
    last_push: AtomicU64,
    announced: ArcSwapOption<Announced>,
}

impl Hints {
    /// An authentic delivery came.
    pub fn came(&self, hook: LastHook) {
        self.0.last.store(Some(Arc::new(hook)));
    }

    /// One of them was a push to what is followed, perhaps with the head that is to be found there.
    pub fn pushed(&self, at: Timestamp, announced: Option<Announced>) {
        self.0.last_push.store(at.as_millis(), Ordering::Relaxed);
        if let Some(announced) = announced {
            self.0.announced.store(Some(Arc::new(announced)));
        }
    }

    /// The last authentic delivery.
    pub fn last(&self) -> Option<Arc<LastHook>> {
        self.0.last.load_full()
    }

    /// When a push to what is followed was last told.
    pub fn last_push(&self) -> Option<Timestamp> {
        match self.0.last_push.load(Ordering::Relaxed) {
            0 => None,
            millis => Some(Timestamp::from_millis(millis)),
        }
    }

    /// Takes the head that was announced last, so that it is looked for once.
    pub fn take_announced(&self) -> Option<Arc<Announced>> {
        self.0.announced.swap(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::snapshot::CommitId;

    #[test]
    fn an_announced_head_is_looked_for_once() {
        let (hints, at) = (Hints::default(), Timestamp::from_millis(7));
        assert_eq!((hints.last_push(), hints.take_announced()), (None, None));
        let announced = Announced { branch: "main".to_owned(), commit: CommitId([7; 20]) };
        hints.clone().pushed(at, Some(announced.clone()));
        hints.pushed(at, None);
        assert_eq!(hints.last_push(), Some(at));
        assert_eq!(hints.take_announced().as_deref(), Some(&announced), "a push that names no head takes none back");
        assert_eq!(hints.take_announced(), None);
    }
}
