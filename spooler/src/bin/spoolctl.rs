//! The client tools; also answers to the names `sendmail`, `mailq` and `newaliases`.

use std::process::ExitCode;

fn main() -> ExitCode {
    spooler::client::run(std::env::args_os().collect())
}
