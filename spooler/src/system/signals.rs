//! Signals become letters to the loop.

use nix::libc::SIGPWR;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use spooler_protocol::notification::SystemMessage;

use crate::supervisor::event::Event;
use crate::system::mailbox::{Letter, Mailbox};

/// Catches SIGHUP from now on, to be heard when [`start`] is called: a reload that comes while the supervisor starts must not end it.
///
/// # Errors
/// If the handler cannot be had.
pub fn catch_reloads() -> std::io::Result<Signals> {
    Signals::new([SIGHUP])
}

/// Starts the thread that waits for signals. SIGTERM and SIGINT stop, twice in a hurry; SIGHUP reloads; SIGPWR says that power fails.
///
/// # Errors
/// If the handlers or the thread cannot be had.
pub fn start(mut signals: Signals, mailbox: Mailbox) -> std::io::Result<()> {
    for signal in [SIGTERM, SIGINT, SIGPWR] {
        signals.add_signal(signal)?;
    }
    let wait = move || {
        for signal in signals.forever() {
            mailbox.put(match signal {
                SIGHUP => Letter::Reload,
                SIGPWR => Letter::Event(Event::System(SystemMessage::PowerFailure)),
                _ => Letter::Event(Event::Stop),
            });
        }
    };
    std::thread::Builder::new().name("signals".to_owned()).stack_size(128 * 1024).spawn(wait)?;
    Ok(())
}
