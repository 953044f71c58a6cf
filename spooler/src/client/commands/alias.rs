//! `spoolctl alias` and `newaliases`.

use std::io::{self, Write};

use spooler_protocol::aliases::{AliasQuestion, AliasStep, AliasesRead};

use crate::client::connection::{Control, block_on};
use crate::client::failure::Failure;
use crate::client::show;
use crate::config;

/// Shows the way of a name over aliases, a line for each step.
pub(super) fn show_way(control: &Control, name: &str, json: bool) -> Result<(), Failure> {
    let question = AliasQuestion { name: name.to_owned() };
    let steps: Vec<AliasStep> = block_on(control.post("/v1/aliases/way", &question))?;
    if json {
        return super::print_json(&steps);
    }
    let mut out = io::stdout().lock();
    let width = steps.iter().map(|step| 2 * step.depth + step.address.chars().count()).max().unwrap_or_default();
    for step in &steps {
        let address = format!("{:indent$}{}", "", show::plain(&step.address), indent = 2 * step.depth);
        let note = match (&step.written, step.circle) {
            (Some(written), _) => show::plain(written).to_string(),
            (None, true) => "leads back here: stays local".to_owned(),
            (None, false) if step.depth == 0 => "is no alias".to_owned(),
            (None, false) => String::new(),
        };
        writeln!(out, "{}", format!("{address:<width$}  {note}").trim_end())?;
    }
    Ok(())
}

/// `newaliases`: has the spooler read its aliases again, or checks them itself if it does not run.
pub(crate) fn renew(control: &Control) -> Result<(), Failure> {
    match block_on(control.post::<AliasesRead>("/v1/aliases/read", &())) {
        Ok(read) => report(&read, ""),
        Err(Failure::Absent(_)) => {
            let checked = config::find(None).and_then(|path| config::load_unchecked(&path));
            let checked = checked.map_err(|error| Failure::Data(format!("No spooler runs. {error}")))?;
            let (_, files) = checked.aliases.read();
            let in_effect = files.iter().all(|file| file.failure.is_none());
            report(&AliasesRead { files, in_effect }, "; the spooler, which does not run now, reads it when it starts")
        }
        Err(failure) => Err(failure),
    }
}

fn report(read: &AliasesRead, note: &str) -> Result<(), Failure> {
    let mut err = io::stderr().lock();
    for problem in read.files.iter().flat_map(|file| file.problems()) {
        writeln!(err, "{}", show::plain(&problem))?;
    }
    let mut out = io::stdout().lock();
    if read.files.is_empty() {
        writeln!(
            out,
            "No file of aliases is configured; name some in the configuration: files = [\"/etc/aliases\"] below [aliases]"
        )?;
    }
    for file in read.files.iter().filter(|file| !file.missing && file.failure.is_none()) {
        writeln!(out, "{}{note}", show::plain(&file.summary()))?;
    }
    if read.in_effect {
        return Ok(());
    }
    Err(Failure::Data("A file cannot be used, so the aliases stay as they were".to_owned()))
}
