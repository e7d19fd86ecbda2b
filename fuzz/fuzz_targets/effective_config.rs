//! See `entries::effective_config`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| entries::effective_config(input));
