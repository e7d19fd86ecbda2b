//! The fleet simulator: agents good and bad that speak OpAMP over real sockets.
//!
//! ```text
//!  Options ─> Profile, Characters ─> Agent (pure: what one supervisor says, and when)
//!                                      ^ │ messages
//!                                      │ v
//!                     websocket, polling (one task a connection) ─> Tally ─> Counts
//!                                      ^                                       │
//!                             Fleet (one thread, one runtime) <── handle ──────┘
//! ```
//!
//! What an agent does is decided in [`Agent`] alone, with time as an argument: it follows the collector's supervisor, warts
//! included, because those are what a server has to withstand. The transports only carry. Everything runs on one thread
//! that shares its buffers, so that 19,000 agents cost a few megabytes and are never what a measurement waits for.
//!
//! Deliberately absent: compression, packages, connection settings. An agent that is asked for one of these does what a
//! supervisor without the capability does: nothing.

mod agent;
mod character;
mod connect;
mod conversation;
mod fleet;
mod offered;
mod options;
mod polling;
mod profile;
mod tally;
mod trust;
mod websocket;

pub use agent::{Agent, Heard};
pub use character::{Character, cast};
pub use fleet::{Fleet, NotReached, StartError};
pub use offered::{Bodies, OfferedConfig};
pub use options::{Attribute, DelayRange, Endpoint, EndpointError, OptionError, Options, parse_amount};
pub use profile::Profile;
pub use tally::{Counts, Holding};
pub use trust::{TrustError, client_config};
