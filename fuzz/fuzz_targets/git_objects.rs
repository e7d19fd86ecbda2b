//! See `entries::git_objects`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| entries::git_objects(input));
