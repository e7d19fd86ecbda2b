//! Waits for counters: what a peer sees may come a moment before it is counted.

use std::fmt::Debug;
use std::time::{Duration, Instant};

/// Asserts that the value is, or becomes within 30 seconds, what was expected.
#[allow(clippy::disallowed_methods, reason = "a test that waits has a bound")]
pub(crate) async fn counted<T: PartialEq + Debug>(expected: T, mut value: impl FnMut() -> T) {
    let end = Instant::now() + Duration::from_secs(30);
    while value() != expected && Instant::now() < end {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(value(), expected, "(left: counted, right: expected)");
}
