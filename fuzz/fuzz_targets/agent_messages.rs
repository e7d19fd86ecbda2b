//! See `entries::agent_messages`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| entries::agent_messages(input));
