crate::conformance_of!(crate::engines::sqlite, #[tokio::test(flavor = "multi_thread", worker_threads = 2)]);
