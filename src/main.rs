//! Hands over to the command line.

use std::process::ExitCode;

/// It asks for huge pages, by which a session among millions is found sooner: docs/PERFORMANCE.md has the figures.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    latchkey::cli::run()
}
