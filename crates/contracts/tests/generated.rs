//! The checked-in code is what `make gen` writes today.

use std::collections::BTreeMap;
use std::path::Path;

fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    std::fs::read_dir(folder)
        .expect("folder of generated code")
        .map(|entry| {
            let path = entry.expect("entry").path();
            let name = path.file_name().expect("name").to_string_lossy().into_owned();
            (name, std::fs::read(&path).expect("file"))
        })
        .collect()
}

#[test]
fn is_current() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let fresh = tempfile::tempdir().expect("temporary folder");
    contracts_generator::generate(&root.join("../../proto"), fresh.path()).expect("proto/ compiles");
    let (have, want) = (contents(&root.join("src/gen")), contents(fresh.path()));
    assert_eq!(have.keys().collect::<Vec<_>>(), want.keys().collect::<Vec<_>>(), "run `make gen`");
    for (name, bytes) in &want {
        assert!(have.get(name) == Some(bytes), "src/gen/{name} is stale: run `make gen`");
    }
}
