//! To be written.

use spooler_protocol::from_worker::LogonError;
use spooler_protocol::settings::Settings;

use crate::contract::Provider;
use crate::support::Support;

/// To be written.
#[derive(Debug)]
pub struct Smtp;

impl Provider for Smtp {
    type Settings = ();

    fn settings(_settings: &mut Settings) {}

    async fn logon(_support: Support, _settings: ()) -> Result<Self, LogonError> {
        Ok(Self)
    }

    fn address_types(&self) -> Vec<String> {
        Vec::new()
    }

    fn identity(&self) -> String {
        String::new()
    }
}
