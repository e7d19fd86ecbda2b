//! What is said when something goes wrong that must not: where, and what is known to hold nothing of anybody.

use std::any::Any;
use std::panic::Location;

use anstream::eprintln;

/// Has panics told in a line of the log, or to standard error where there is none. Words that were made at that moment are left out: they may
/// repeat a text that was worked on, and with it a secret.
pub(super) fn be_discreet() {
    std::panic::set_hook(Box::new(|panic| {
        let words = words(panic.payload(), panic.location());
        if tracing::dispatcher::has_been_set() {
            tracing::error!("{words}");
        } else {
            eprintln!("{words}");
        }
    }));
}

fn words(payload: &dyn Any, location: Option<&Location<'_>>) -> String {
    let place = location.map_or_else(|| "an unknown place".to_owned(), ToString::to_string);
    // Text that stands in the program, unlike text that was put together.
    let what = payload.downcast_ref::<&'static str>().map_or_else(String::new, |text| format!(" ({text})"));
    format!("a fault of gitamp itself at {place}{what}: please report it")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_tells_its_place_and_no_text_that_was_worked_on() {
        let said = |payload: Box<dyn Any + Send>| words(payload.as_ref(), Some(Location::caller()));
        let caught = |work: fn()| said(std::panic::catch_unwind(work).expect_err("it fails"));
        let of_token = caught(|| {
            // Such messages repeat the text.
            let token = std::hint::black_box("ghp_secr\u{e9}t".to_owned());
            std::hint::black_box(&token[..9]);
        });
        assert!(of_token.contains("src/cli/panics.rs:") && !of_token.contains("ghp_"), "{of_token}");
        let of_ours = caught(|| panic!("nobody comes here"));
        assert!(of_ours.contains("(nobody comes here): please report it"), "{of_ours}");
        assert!(words(&7, None).contains("an unknown place"));
    }
}
