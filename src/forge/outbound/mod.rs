//! What goes out to a forge: statuses of commits, a comment on the merged pull request, and the pull request that reverts.
//!
//! What is to be said is computed from the reports that the journal holds ([`statuses`]), never stored: a process that starts anew
//! says it again, and saying the same twice does no harm. [`board`] and [`errands`] decide what comes next and when, [`dialect`] and [`pulls`] put
//! it into a forge's words and read the answers; all of them are pure. [`teller`] is the one task that speaks: rollouts hand their news to a
//! [`feed`] and never wait, whatever the forge does.

pub mod board;
pub mod comment;
pub mod credentials;
pub mod dialect;
pub mod errands;
pub mod feed;
pub mod line;
pub mod pulls;
pub mod statuses;
pub mod teller;

#[cfg(test)]
mod tests;
