//! `make gen`: writes `crates/contracts/src/gen` from `proto/`, without protoc and without a build script.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    contracts_generator::generate(&root.join("../../../proto"), &root.join("../src/gen"))
}
