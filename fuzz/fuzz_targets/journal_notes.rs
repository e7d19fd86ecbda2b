//! See `entries::journal_notes`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| entries::journal_notes(input));
