//! Workers that go wrong before their welcome. Which way is chosen by the content of a file `before-hello` beside the name by which the
//! program was called:
//!
//! | content | what it does |
//! |---|---|
//! | `silent` | never says hello |
//! | `wrong-version` | says hello in another version of the protocol |
//! | `wrong-nonce` | says hello without knowing the secret |
//! | `garbage` | says a good hello, then what nobody can understand |
//! | `deaf` | logs on, then neither reads nor says anything |
//! | `never-reads` | logs on, asks for a lot and reads none of the answers |

use std::error::Error;
use std::io::Read;

use ipc_channel::ipc::{self, IpcBytesSender, IpcSender};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use spooler_protocol::codec;
use spooler_protocol::from_worker::{FromWorker, LoggedOn};
use spooler_protocol::handshake::{Hello, NONCE_BYTES, PROTOCOL_VERSION};
use spooler_protocol::ids::{DeliveryId, RequestId};

/// A worker with a channel of its own making.
pub(crate) fn run(mode: &str, name: &str) -> Result<(), Box<dyn Error>> {
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    if mode == "silent" {
        eprintln!("my lips are sealed");
        wait_for_the_end();
    }
    let mut nonce = [0; NONCE_BYTES];
    std::io::stdin().lock().read_exact(&mut nonce)?;
    let version = if mode == "wrong-version" { PROTOCOL_VERSION + 1 } else { PROTOCOL_VERSION };
    if mode == "wrong-nonce" {
        nonce = nonce.map(|byte| !byte);
    }
    let (to_worker, inbox) = ipc::channel()?;
    let (outbox, from_worker) = ipc::bytes_channel()?;
    IpcSender::connect(name.to_owned())?.send(Hello {
        version,
        pid: std::process::id(),
        nonce,
        to_worker,
        from_worker,
    })?;
    // Held, and never read. Who is not believed does not get it.
    let _unread = inbox.recv();
    match mode {
        "garbage" => outbox.send(&[0, 0xff, 0xfe, 0xfd])?,
        "deaf" => log_on(&outbox)?,
        "never-reads" => ask_without_end(&outbox)?,
        _ => {}
    }
    wait_for_the_end()
}

fn wait_for_the_end() -> ! {
    loop {
        std::thread::park();
    }
}

fn say(outbox: &IpcBytesSender, said: &FromWorker) -> Result<(), Box<dyn Error>> {
    codec::encode(said, |frame| Ok(outbox.send(frame)?))
}

fn log_on(outbox: &IpcBytesSender) -> Result<(), Box<dyn Error>> {
    say(outbox, &FromWorker::LoggedOn(LoggedOn { credit: 5, ..LoggedOn::default() }))
}

fn ask_without_end(outbox: &IpcBytesSender) -> Result<(), Box<dyn Error>> {
    log_on(outbox)?;
    loop {
        say(outbox, &FromWorker::ReadBody { request: RequestId(1), delivery: DeliveryId(1), offset: 0 })?;
    }
}
