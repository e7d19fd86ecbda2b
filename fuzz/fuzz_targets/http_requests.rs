//! See `entries::http_requests`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| entries::http_requests(input));
