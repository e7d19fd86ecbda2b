//! The places that host repositories, as far as gitamp talks with them: their hooks come in here.

pub mod hooks;
