//! See `entries::orders`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| entries::orders(input));
