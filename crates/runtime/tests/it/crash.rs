//! The kill of a real process: this test binary runs itself again as the victim.

use std::os::unix::process::ExitStatusExt;
use std::process::Command;

const VICTIM: &str = "RUNTIME_TEST_CRASH_VICTIM";
const SIGKILL: i32 = 9;

#[test]
fn an_armed_process_dies_by_sigkill_at_the_named_hit() {
    if let Ok(directory) = std::env::var(VICTIM) {
        victim(&directory);
    }
    let dir = tempfile::tempdir().expect("a directory");
    let output = Command::new(std::env::current_exe().expect("the test binary"))
        .args(["--exact", "crash::an_armed_process_dies_by_sigkill_at_the_named_hit", "--nocapture"])
        .env(VICTIM, dir.path())
        .output()
        .expect("runs");
    assert_eq!(output.status.signal(), Some(SIGKILL), "{output:?}");
    assert_eq!(std::fs::read_dir(dir.path()).expect("lists").count(), 2, "it passed the point twice");
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(words.contains("crash point test.step"), "{words}");
}

/// Leaves a file behind after each time it passed the point.
fn victim(directory: &str) -> ! {
    runtime::crash::arm("test.step:3".parse().expect("a plan"));
    for step in 0.. {
        runtime::crash::point("test.other");
        runtime::crash::point("test.step");
        std::fs::write(format!("{directory}/{step}"), "").expect("writes");
        assert!(step < 10, "the crash point never fired");
    }
    unreachable!("the loop does not end")
}
