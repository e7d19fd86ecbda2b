//! See `entries::api_requests`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| entries::api_requests(input));
