//! See `entries::journal_records`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| entries::journal_records(input));
