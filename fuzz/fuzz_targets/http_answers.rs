//! See `entries::http_answers`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| entries::http_answers(input));
