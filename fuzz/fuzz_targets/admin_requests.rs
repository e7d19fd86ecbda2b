//! See `entries::admin_requests`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| entries::admin_requests(input));
