//! `spoolctl submit`

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use crate::client::cli::Submit;
use crate::client::connection::Control;
use crate::client::failure::Failure;
use crate::client::handover::hand_over;
use crate::client::sendmail::submission;

pub(super) fn run(control: &Control, submit: Submit) -> Result<(), Failure> {
    let message = read(&submit.file)?;
    let mut composed = submission(submit.from, submit.to, submit.read_recipients, message)?;
    composed.submit.envelope.priority = submit.priority;
    composed.submit.as_is = submit.as_is;
    let handed = hand_over(control, &composed.submit, &composed.content)?;
    Ok(writeln!(io::stdout().lock(), "{handed}")?)
}

fn read(file: &Path) -> Result<Vec<u8>, Failure> {
    let mut message = Vec::new();
    let result = if file == Path::new("-") {
        io::stdin().lock().read_to_end(&mut message)
    } else {
        File::open(file).and_then(|mut file| file.read_to_end(&mut message))
    };
    result.map_err(|error| Failure::Input(file.display().to_string(), error))?;
    Ok(message)
}
