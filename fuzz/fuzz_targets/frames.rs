//! See `entries::frames`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| entries::frames(input));
