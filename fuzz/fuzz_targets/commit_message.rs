//! See `entries::commit_message`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| entries::commit_message(input));
