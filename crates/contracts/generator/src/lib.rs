//! Turns `proto/` into Rust. Apart from `contracts` so that broken generated code can always be regenerated.

use std::path::{Path, PathBuf};

/// Compiles every `.proto` under `proto` and returns what it declares, imports included, with its comments.
pub fn describe(proto: &Path) -> Result<prost_types::FileDescriptorSet, Box<dyn std::error::Error>> {
    let mut compiler = protox::Compiler::new([proto])?;
    Ok(compiler.include_imports(true).include_source_info(true).open_files(files(proto)?)?.file_descriptor_set())
}

/// Compiles every `.proto` under `proto` and writes messages, clients, servers and the descriptor set into `out`.
pub fn generate(proto: &Path, out: &Path) -> Result<(), Box<dyn std::error::Error>> {
    tonic_prost_build::configure()
        .out_dir(out)
        .btree_map(".")
        .emit_rerun_if_changed(false)
        .compile_fds(describe(proto)?)?;
    // The run-time set keeps our method options (a typed FileDescriptorSet would drop them) and leaves comments out.
    let mut bare = protox::Compiler::new([proto])?;
    bare.include_imports(true).include_source_info(false).open_files(files(proto)?)?;
    std::fs::write(out.join("descriptors.bin"), bare.encode_file_descriptor_set())?;
    let _ = std::fs::remove_file(out.join("google.protobuf.rs"));
    Ok(())
}

fn files(proto: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    collect(proto, &mut files)?;
    files.sort();
    Ok(files)
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|e| e == "proto") {
            files.push(path);
        }
    }
    Ok(())
}
