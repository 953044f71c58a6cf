//! A new configuration, while everything runs. Where messages and the control socket are, and what of root's power is kept, was decided at the
//! start.

use std::sync::Arc;

use nix::unistd::geteuid;
use spooler_protocol::aliases::{AliasFile, AliasesRead};
use tokio::sync::oneshot;

use super::Driver;
use crate::config::Config;
use crate::daemon;
use crate::supervisor::event::Event;
use crate::system::mailbox::{AliasNews, Letter};
use crate::system::service_manager;

impl Driver {
    /// Reads the configuration on a thread of its own, because it asks the worker program about its settings.
    pub(super) fn reload(&mut self) {
        self.reloads.0 += 1;
        let number = self.reloads.0;
        service_manager::reloading();
        let (path, mailbox) = (self.config.source.clone(), self.equipment.mailbox.clone());
        let old = daemon::running(&self.config);
        let refused = format!("{old}; the new configuration is refused, see the log");
        let read = move || match crate::config::load(&path) {
            Ok(config) => {
                tracing::info!("configuration {} reloaded", path.display());
                mailbox.put(Letter::Reloaded(number, Box::new(config)));
            }
            Err(error) => {
                tracing::error!("configuration refused, the old one stays in effect: {error}");
                service_manager::ready(&refused);
            }
        };
        if let Err(error) = std::thread::Builder::new().name("reload".to_owned()).spawn(read) {
            tracing::error!("the configuration cannot be read: {error}");
            service_manager::ready(&old);
        }
    }

    /// Takes a new configuration, unless it was read before the one in effect: a reading that took longer is out of date.
    pub(super) fn reloaded(&mut self, number: u64, config: Config) {
        if number > self.reloads.1 {
            self.reloads.1 = number;
            self.adopt(config);
        }
        service_manager::ready(&daemon::running(&self.config));
    }

    fn adopt(&mut self, mut config: Config) {
        if config.spool != self.config.spool || config.control != self.config.control {
            tracing::warn!("changes of [spool] and [control] take effect at the next start");
        }
        for provider in &mut config.providers {
            let missed = self.equipment.reduced.missed_by(&daemon::uses_of(provider, geteuid().is_root()));
            if !missed.is_empty() {
                let missed = missed.join("; ");
                tracing::warn!(
                    "provider {} needs {missed}, which the spooler gave up at its start: restart the spooler",
                    provider.name
                );
                provider.lacks = Some(missed);
            }
        }
        let config = Config { spool: self.config.spool.clone(), control: self.config.control.clone(), ..config };
        self.equipment.mail_log.set_format(config.log.format);
        self.equipment.addressing.set(Arc::clone(&config.addressing));
        self.config = config.clone();
        self.hear(Event::Reload(Box::new(config)));
    }

    /// Reads the files of aliases again, on a thread of its own, and nothing else of the configuration.
    pub(super) fn read_aliases(&mut self, answer: oneshot::Sender<AliasesRead>) {
        let (sources, mailbox) = (self.config.aliases.clone(), self.equipment.mailbox.clone());
        let read = move || {
            let (aliases, files) = sources.read();
            mailbox.put(Letter::AliasesRead(Box::new(AliasNews { sources, aliases, files, answer })));
        };
        if let Err(error) = std::thread::Builder::new().name("aliases".to_owned()).spawn(read) {
            tracing::error!("cannot reload the aliases: {error}");
        }
    }

    /// Takes new aliases, unless a file could not be used, or a new configuration has other files.
    pub(super) fn aliases_read(&mut self, news: AliasNews) {
        let AliasNews { sources, aliases, files, answer } = news;
        let in_effect = sources == self.config.aliases && files.iter().all(|file| file.failure.is_none());
        for problem in files.iter().flat_map(AliasFile::problems) {
            tracing::warn!("{problem}");
        }
        if in_effect {
            tracing::info!("{} aliases reloaded", aliases.len());
            let addressing = Arc::new(self.config.addressing.with_aliases(aliases));
            self.equipment.addressing.set(Arc::clone(&addressing));
            self.config.addressing = addressing;
            self.hear(Event::Reload(Box::new(self.config.clone())));
        }
        // Nobody may be there any more to be told.
        let _ = answer.send(AliasesRead { files, in_effect });
    }
}
