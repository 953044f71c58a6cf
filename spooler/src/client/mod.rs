//! The client tools: one program that answers to four names.
//!
//! | called as | is |
//! |---|---|
//! | `spoolctl` | the operator's tool: submit, list, hold, flush, watch |
//! | `sendmail` | what programs call to send mail |
//! | `mailq` | the queue as mail programs print it |
//! | `newaliases` | reads the files of aliases again, and says what is wrong in them |
//!
//! All of them talk to the supervisor over the control socket and hold nothing themselves.

// From address lists to addresses.
mod address_list;
// The command line of `spoolctl`.
mod cli;
// `spoolctl` does what it was told.
mod commands;
// Requests to the control socket.
mod connection;
// Why something could not be done, with exit codes.
mod failure;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
// To the supervisor, or into the pick-up folder.
mod handover;
// Headers of messages.
mod header;
// Who runs the program, and where.
mod identity;
// Text laid out for a page.
mod layout;
// The personalities that mail programs know.
mod sendmail;
// Values as people read them.
mod show;
// Asking a person.
pub(crate) mod terminal;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use connection::Control;
use failure::Failure;
use spooler_protocol::control::Filter;

/// Runs the tool that the program was called as; the first argument is the name.
#[must_use]
pub fn run(arguments: Vec<OsString>) -> ExitCode {
    let mut arguments = arguments.into_iter();
    let called = arguments.next().unwrap_or_default();
    let name = Path::new(&called).file_name().and_then(|name| name.to_str()).unwrap_or("spoolctl").to_owned();
    let rest: Vec<OsString> = arguments.collect();
    let asks_help = rest.first().is_some_and(|first| first == "--help");
    let result = match name.as_str() {
        "sendmail" | "mailq" | "newaliases" if asks_help => sendmail::help(&name),
        "sendmail" => text(rest).and_then(|rest| sendmail::run(&rest, &Control::new(None))),
        "mailq" => sendmail::mailq(&Control::new(None)),
        "newaliases" => commands::alias::renew(&Control::new(None)),
        _ if rest.first().is_some_and(|first| first == "sendmail") => {
            text(rest.into_iter().skip(1).collect()).and_then(|rest| sendmail::run(&rest, &Control::new(None)))
        }
        _ => return cli::run(std::iter::once(called).chain(rest)),
    };
    result.map_or_else(|failure| failure.report(&name), |()| ExitCode::SUCCESS)
}

fn text(arguments: Vec<OsString>) -> Result<Vec<String>, Failure> {
    let read = |argument: OsString| {
        argument.into_string().map_err(|argument| Failure::Usage(format!("{argument:?} is not UTF-8")))
    };
    arguments.into_iter().map(read).collect()
}

/// The path of a listing.
fn queue_path(filter: &Filter) -> Result<String, Failure> {
    let query = serde_urlencoded::to_string(filter).map_err(|error| Failure::Usage(error.to_string()))?;
    Ok(format!("/v1/messages?{query}"))
}
