//! Compiles the protocol's messages in pure Rust (no `protoc` needed) and keeps their descriptor for the tests.

use std::path::PathBuf;
use std::{env, error, fs};

use prost::Message;

#[expect(clippy::disallowed_methods, reason = "this is how cargo speaks to build scripts")]
fn main() -> Result<(), Box<dyn error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    let descriptors = protox::compile(["opamp/v1/opamp.proto"], ["proto"])?;
    fs::write(out.join("opamp.descriptors"), descriptors.encode_to_vec())?;
    prost_build::Config::new()
        .bytes(["."]) // decoded bodies point into the received message instead of being copied
        .btree_map(["."]) // one order of entries, so that equal messages are equal bytes
        .compile_fds(descriptors)?;
    Ok(())
}
