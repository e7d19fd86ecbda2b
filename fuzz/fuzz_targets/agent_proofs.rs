//! See `entries::agent_proofs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| entries::agent_proofs(input));
