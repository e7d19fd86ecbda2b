//! See `entries::revocations`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| entries::revocations(input));
