//! See `entries::fleet_files`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| entries::fleet_files(input));
