//! See `entries::signer_files`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| entries::signer_files(input));
