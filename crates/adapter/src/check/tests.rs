use std::path::PathBuf;

use super::*;

fn departments() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../departments")
}

#[tokio::test]
async fn every_profile_passes_with_its_golden_cases() {
    for name in ["traffic/430100.yaml", "traffic/140100.yaml"] {
        let report = check(&departments().join(name), &departments().join("schemas")).await;
        assert!(report.is_ok(), "{name}\n{report}");
        assert!(report.cases.len() >= 10, "{name} has {} golden cases", report.cases.len());
    }
}
