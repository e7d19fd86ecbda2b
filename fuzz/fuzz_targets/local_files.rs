//! See `entries::local_files`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| entries::local_files(input));
