//! See `entries::forge_answers`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| entries::forge_answers(input));
