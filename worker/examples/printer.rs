//! Provider kind `printer`: sends messages to a network printer. Addresses look like `PRINT:office`.

use std::process::ExitCode;

use spooler_protocol::from_worker::LogonError;
use spooler_protocol::outcome::{Outcome, Reply, SubmitResult};
use spooler_protocol::settings::Settings;
use spooler_worker::{Capacity, Delivery, Needs, Ports, Provider, Support, program};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

/// The provider; its settings are the printer's address.
struct Printer(String);

impl Provider for Printer {
    type Settings = String;

    fn settings(settings: &mut Settings) -> String {
        settings.required_string("host", "the printer, such as \"printer.example:9100\"")
    }

    fn needs(_: &String) -> Needs {
        Needs { connect: Ports::Any, ..Needs::default() } // everything else is closed
    }

    async fn logon(_: Support, host: String) -> Result<Self, LogonError> {
        Ok(Self(host))
    }

    fn address_types(&self) -> Vec<String> {
        vec!["PRINT".to_owned()]
    }

    fn identity(&self) -> String {
        self.0.clone()
    }

    fn capacity(&self) -> Capacity {
        Capacity { credit: 1, ..Capacity::default() } // one message after another
    }

    async fn submit_message(&self, delivery: &Delivery) -> SubmitResult {
        delivery.settle_all(&match self.print(delivery).await {
            Ok(()) => Outcome::Delivered(Reply::local(250, "2.0.0", "Printed")),
            Err(error) => Outcome::Deferred(Reply::local(451, "4.4.1", error)),
        });
        SubmitResult::Done
    }
}

impl Printer {
    async fn print(&self, delivery: &Delivery) -> Result<(), String> {
        let in_words = |error: std::io::Error| error.to_string();
        let mut printer = TcpStream::connect(&self.0).await.map_err(in_words)?;
        let mut sent = 0;
        while sent < delivery.submission().size {
            let piece = delivery.content(sent).await?;
            printer.write_all(&piece).await.map_err(in_words)?;
            sent += piece.len() as u64;
            delivery.progress("printing", sent);
        }
        printer.shutdown().await.map_err(in_words)
    }
}

fn main() -> ExitCode {
    program::main_with::<Printer>("printer")
}
