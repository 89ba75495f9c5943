//! `lastmile`: see `lastmile help`.

use std::process::ExitCode;

/// Many small allocations a request: the system's allocator costs a tenth of the throughput and keeps more memory.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    lastmile::cli::main(std::env::args_os())
}
