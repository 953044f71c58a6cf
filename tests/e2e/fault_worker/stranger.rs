//! Workers that go wrong before their welcome. Which way is chosen by the content of a file `before-hello` beside the name by which the
//! program was called:
//!
//! | content | what it does |
//! |---|---|
//! | `silent` | never says hello |
//! | `wrong-version` | says hello in another version of the protocol |
//! | `wrong-pid` | says hello in somebody else's name |
//! | `wrong-folder` | wants its channel sent where it has no business |
//! | `lost-server` | says hello, and where it is to be answered there is nobody |
//! | `garbage` | says a good hello, then what nobody can understand |
//! | `deaf` | logs on, then neither reads nor says anything |
//! | `never-reads` | logs on, asks for a lot and reads none of the answers |
//! | `packets-…` | logs on, then sends packets that are none; see `packets` |

use std::error::Error;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use ipc_channel::ipc::IpcOneShotServer;
use nix::sys::prctl;
use nix::sys::signal::Signal;
use rustix::net::{SendFlags, send};
use spooler_protocol::codec;
use spooler_protocol::from_worker::{FromWorker, LoggedOn};
use spooler_protocol::handshake::{Bootstrap, Hello, NONCE_BYTES, PROTOCOL_VERSION};
use spooler_protocol::ids::{DeliveryId, RequestId};

use crate::packets;

/// A worker that does its own handshake.
pub(crate) fn run(mode: &str) -> Result<(), Box<dyn Error>> {
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    if mode == "silent" {
        eprintln!("my lips are sealed");
        wait_for_the_end();
    }
    let outbox = std::io::stdin().as_fd().try_clone_to_owned()?;
    let (server, name) = IpcOneShotServer::<Bootstrap>::new()?;
    let folder = Path::new(&name).parent().and_then(Path::file_name).and_then(|folder| folder.to_str());
    let mut hello = Hello {
        version: PROTOCOL_VERSION,
        pid: std::process::id(),
        nonce: [1; NONCE_BYTES],
        folder: folder.unwrap_or_default().to_owned(),
    };
    match mode {
        "wrong-version" => hello.version += 1,
        "wrong-pid" => hello.pid = 1,
        "wrong-folder" => hello.folder = "../run".to_owned(),
        "lost-server" => hello.folder = "nowhere".to_owned(),
        _ => {}
    }
    send(&outbox, &hello.encode(), SendFlags::NOSIGNAL)?;
    // Held, and never read. Who is not believed does not get it.
    let _unread = server.accept();
    match mode {
        "garbage" => drop(send(&outbox, &[0, 0xff, 0xfe, 0xfd], SendFlags::NOSIGNAL)?),
        "deaf" => log_on(&outbox)?,
        "never-reads" => ask_without_end(&outbox)?,
        mode if mode.starts_with("packets-") => packets::send_all(mode, &outbox)?,
        _ => {}
    }
    wait_for_the_end()
}

fn wait_for_the_end() -> ! {
    loop {
        std::thread::park();
    }
}

pub(crate) fn say(outbox: &OwnedFd, said: &FromWorker) -> Result<(), Box<dyn Error>> {
    codec::encode(said, |frame| Ok(send(outbox, frame, SendFlags::NOSIGNAL).map(drop)?))
}

pub(crate) fn log_on(outbox: &OwnedFd) -> Result<(), Box<dyn Error>> {
    say(outbox, &FromWorker::LoggedOn(LoggedOn { credit: 5, ..LoggedOn::default() }))
}

fn ask_without_end(outbox: &OwnedFd) -> Result<(), Box<dyn Error>> {
    log_on(outbox)?;
    loop {
        say(outbox, &FromWorker::ReadBody { request: RequestId(1), delivery: DeliveryId(1), offset: 0 })?;
    }
}
