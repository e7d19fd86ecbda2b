//! See `entries::yaml_documents`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| entries::yaml_documents(input));
