//! The bell: "there may be something new, look now". It carries no content, and ringing it a thousand times is ringing it once.

use std::sync::Arc;

use tokio::sync::Notify;

/// A bell that anybody may ring and one waits for. Clones are the same bell.
#[derive(Clone, Debug, Default)]
pub struct Bell(Arc<Notify>);

impl Bell {
    /// Rings. A ring that nobody waits for is kept for the next wait; more of them are one.
    pub fn ring(&self) {
        self.0.notify_one();
    }

    /// Waits for a ring.
    pub async fn wait(&self) {
        self.0.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn rings_coalesce_and_are_kept() {
        let bell = Bell::default();
        for _ in 0..1000 {
            bell.clone().ring();
        }
        bell.wait().await;
        let again = tokio::time::timeout(std::time::Duration::from_millis(20), bell.wait()).await;
        assert!(again.is_err(), "a thousand rings are one");
    }
}
