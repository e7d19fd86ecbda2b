//! See `entries::transfer_answers`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| entries::transfer_answers(input));
