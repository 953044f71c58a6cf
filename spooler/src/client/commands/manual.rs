//! `spoolctl completions` and `spoolctl man`: made from the command line's own definition.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use clap_complete::Shell;

use crate::client::cli;
use crate::client::failure::Failure;

pub(super) fn completions(shell: Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut cli::command(), "spoolctl", &mut script);
    Ok(io::stdout().lock().write_all(&script)?)
}

pub(super) fn pages(folder: &Path) -> Result<(), Failure> {
    fs::create_dir_all(folder)?;
    Ok(clap_mangen::generate_to(cli::command(), folder)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_gets_a_page() {
        let folder = tempfile::tempdir().unwrap();
        pages(folder.path()).unwrap();
        for name in ["spoolctl", "spoolctl-queue", "spoolctl-queue-list", "spoolctl-flush", "spoolctl-provider-pause"] {
            let page = fs::read_to_string(folder.path().join(format!("{name}.1"))).unwrap();
            assert!(page.contains(".TH"), "{name}");
        }
    }
}
