//! The worker program: started by the supervisor with the name of its one-shot server; also checks settings.

use std::process::ExitCode;

fn main() -> ExitCode {
    spooler_worker::program::main()
}
