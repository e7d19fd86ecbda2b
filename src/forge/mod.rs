//! The places that host repositories: their hooks come in, and what becomes of commits goes out.

pub mod hooks;
pub mod outbound;
