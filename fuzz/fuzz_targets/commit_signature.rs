//! See `entries::commit_signature`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| entries::commit_signature(input));
