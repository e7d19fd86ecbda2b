//! The places that host repositories: their hooks in.
