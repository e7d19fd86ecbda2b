//! See `entries::hook_requests`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| entries::hook_requests(input));
