crate::conformance_of!(crate::engines::simulated, #[tokio::test(start_paused = true)]);
