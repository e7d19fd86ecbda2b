//! See `entries::hooks`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| entries::hooks(input));
