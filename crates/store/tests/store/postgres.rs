crate::conformance_of!(crate::engines::postgres, #[tokio::test(flavor = "multi_thread", worker_threads = 2)]);
