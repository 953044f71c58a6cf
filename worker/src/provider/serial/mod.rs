//! Provider kind `serial`: a line that cannot wait. Makes each frame that it receives a message, and sends messages to the line.
//!
//! | setting | default | meaning |
//! |---|---|---|
//! | `device` | required | such as `"/dev/ttyS0"`; while it is not there the provider is offline |
//! | `baud`, `data_bits`, `parity`, `stop_bits` | 115200, 8, `"none"`, 1 | as the other end has them; there is no flow control |
//! | `framing` | `"line"` | `"line"`, `"stx-etx"`, `"length"` or `"idle"`, see `framing` |
//! | `gap` | `"2s"`; for `idle` `"100ms"` | silence that ends a frame |
//! | `frame_max` | `"1M"` | longer frames are cut |
//! | `critical` | `"while-receiving"` | when there is a critical section: `"while-receiving"`, `"always"`, `"never"` |
//! | `to` | `[]` | recipients of what comes in; empty: only sends |
//! | `from` | `""` | return path of what comes in |
//! | `subject` | `"Received by {provider}"` | of what comes in |
//! | `content` | `"binary"` | `"binary"`: always base64; `"text"`: as text where it can be |
//! | `send` | `"body"` | what of a message goes out: its `"body"` without base64, or the `"message"` |
//! | `ack`, `ack_byte`, `nak_byte`, `ack_timeout` | `false`, 6, 21, `"5s"` | whether the other end answers what it received |
//!
//! A message that went out is delivered when its last byte has left the machine, or when it is acknowledged; without an answer it is
//! tried again. Frames wait in memory until the spooler has them on disk: a worker that is killed in that moment loses them.

mod framing;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod letter;
mod line;
mod port;
mod reader;
mod settings;

use std::rc::Rc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::Zoned;
use spooler_protocol::from_worker::{LogonError, RowUpdate};
use spooler_protocol::message::{Envelope, Recipient};
use spooler_protocol::notification::{Notification, SystemMessage};
use spooler_protocol::outcome::{Cause, Outcome, Reply, SubmitResult};
use spooler_protocol::settings::Settings as Reader;
use tokio::sync::oneshot;

use self::framing::Frame;
use self::letter::Occasion;
use self::line::Line;
use self::port::Port;
pub use self::settings::SerialSettings;
use crate::contract::{Capacity, Provider};
use crate::delivery::Delivery;
use crate::sandbox::Needs;
use crate::support::Support;

/// How long a logoff waits for the end of a frame and for frames on their way to the spooler.
const LOGOFF_PATIENCE: Duration = Duration::from_secs(20);
/// Before a frame that the spooler refused is offered again.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(60);

/// A serial line.
pub struct Serial {
    line: Rc<Line>,
}

impl Provider for Serial {
    type Settings = SerialSettings;

    fn settings(settings: &mut Reader) -> SerialSettings {
        settings::read(settings)
    }

    fn usual_types() -> Option<&'static [&'static str]> {
        Some(&["SERIAL"])
    }

    fn needs(settings: &SerialSettings) -> Needs {
        settings.needs()
    }

    async fn logon(support: Support, settings: SerialSettings) -> Result<Self, LogonError> {
        let line = Rc::new(Line::new(support.clone(), settings));
        support.spawn(reader::run(Rc::clone(&line)));
        support.spawn(hand_over_all(Rc::clone(&line)));
        Ok(Self { line })
    }

    fn address_types(&self) -> Vec<String> {
        vec!["SERIAL".to_owned()]
    }

    fn identity(&self) -> String {
        let settings = &self.line.settings;
        format!("{}, {} baud", settings.device.display(), settings.line.baud)
    }

    fn capacity(&self) -> Capacity {
        Capacity { credit: 1, ..Capacity::default() }
    }

    async fn submit_message(&self, delivery: &Delivery) -> SubmitResult {
        let _one_at_a_time = self.line.sending.lock().await;
        if delivery.is_cancelled() {
            return SubmitResult::Cancelled;
        }
        delivery.settle_all(&self.send(delivery).await);
        SubmitResult::Done
    }

    async fn notify(&self, notification: &Notification) {
        let device = self.line.settings.device.file_name().and_then(|name| name.to_str());
        let concerns_us = match notification {
            Notification::BeginInbound => true,
            Notification::System(SystemMessage::DeviceAdded(added)) => Some(added.name.as_str()) == device,
            _ => false,
        };
        if concerns_us {
            self.line.nudge.notify_waiters();
        }
    }

    async fn logoff(&self, hurry: bool) {
        self.line.nudge.notify_waiters();
        if !hurry && tokio::time::timeout(LOGOFF_PATIENCE, self.line.settled()).await.is_err() {
            tracing::warn!("logging off although frames are still on their way");
        }
        self.line.end_section();
    }
}

impl Serial {
    async fn send(&self, delivery: &Delivery) -> Outcome {
        let line = &self.line;
        let remote = line.settings.device.display().to_string();
        let deferred = |cause, text: String| {
            Outcome::Deferred(Reply { cause, remote: remote.clone(), ..Reply::local(451, "4.4.1", text) })
        };
        let content = match read_all(delivery).await {
            Ok(message) => letter::content(&message, line.settings.whole_message),
            Err(text) => return Outcome::Deferred(Reply::local(451, "4.3.0", text)),
        };
        let content = match content {
            Ok(content) if content.len() > line.settings.frame_max => {
                let text = format!("{} bytes do not fit into a frame of {}", content.len(), line.settings.frame_max);
                return Outcome::Failed(Reply::local(552, "5.3.4", text));
            }
            Ok(content) => content,
            Err(text) => return Outcome::Failed(Reply::local(554, "5.6.0", text)),
        };
        let Some(port) = line.port.borrow().clone() else {
            return deferred(Cause::Connect, "The device is not there".to_owned());
        };
        match self.send_frame(&port, delivery, &content).await {
            Ok(text) => Outcome::Delivered(Reply { remote, ..Reply::local(250, "2.0.0", text) }),
            Err((cause, text)) => deferred(cause, text),
        }
    }

    /// Sends a frame; what the other end said, or what went wrong.
    async fn send_frame(&self, port: &Port, delivery: &Delivery, content: &[u8]) -> Result<&str, (Cause, String)> {
        let line = &self.line;
        let (sender, answer) = oneshot::channel();
        if line.settings.ack.is_some() {
            *line.answer.borrow_mut() = Some(sender);
            line.nudge.notify_waiters();
        }
        let mut sent = 0;
        let frame = framing::framed(line.settings.framing, content);
        let written = port.write(&frame, |bytes| {
            sent += bytes as u64;
            delivery.progress("sending", sent);
        });
        if let Err(error) = written.await {
            line.answer.take();
            return Err((Cause::Lost, format!("The line broke: {error}")));
        }
        if reader::needs_a_gap(line.settings.framing) {
            tokio::time::sleep(line.settings.gap).await;
        }
        let Some(rule) = line.settings.ack else { return Ok("Sent") };
        match tokio::time::timeout(rule.timeout, answer).await {
            Ok(Ok(true)) => Ok("Acknowledged"),
            Ok(Ok(false)) => Err((Cause::Remote, "The other end refused it (NAK)".to_owned())),
            Ok(Err(_)) => Err((Cause::Lost, "The line broke before an answer".to_owned())),
            Err(_) => {
                line.answer.take();
                Err((Cause::Stalled, format!("No answer within {:?}", rule.timeout)))
            }
        }
    }
}

async fn read_all(delivery: &Delivery) -> Result<Vec<u8>, String> {
    let size = delivery.submission().size;
    let mut message = Vec::with_capacity(usize::try_from(size).unwrap_or_default());
    while (message.len() as u64) < size {
        let piece = delivery.content(message.len() as u64).await?;
        message.extend_from_slice(&piece);
    }
    Ok(message)
}

/// Hands frames to the spooler, one after another, as long as the provider lives.
async fn hand_over_all(line: Rc<Line>) {
    let mut number = 0_u64;
    loop {
        let frame = line.next_frame().await;
        number += 1;
        let mut pause = RETRY_FIRST;
        while let Err(why) = hand_over(&line, &frame, number).await {
            let text = format!("The spooler does not take what was received: {why}");
            tracing::warn!("{text}");
            line.support.modify_status_row(row_text(text));
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETRY_MAX);
        }
        if pause > RETRY_FIRST {
            line.support.modify_status_row(row_text(String::new()));
        }
        line.handed_over(frame.bytes.len());
    }
}

fn row_text(text: String) -> RowUpdate {
    RowUpdate { text: Some(text), ..RowUpdate::default() }
}

async fn hand_over(line: &Line, frame: &Frame, number: u64) -> Result<(), String> {
    let date = jiff::fmt::rfc2822::to_string(&Zoned::now()).unwrap_or_default();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let unique = format!("serial.{}.{}.{number}", now.as_micros(), std::process::id());
    let (provider, hostname) = (line.support.provider_name(), line.support.hostname());
    let occasion = Occasion { provider, hostname, date: &date, unique: &unique };
    let (message, body) = letter::message(frame, &line.settings, &occasion);
    let mut inbound = line.support.inbound();
    inbound.write(&message).await.map_err(|refusal| refusal.text)?;
    let recipients = line.settings.to.iter().cloned().map(Recipient::new).collect();
    let envelope = Envelope { sender: line.settings.from.clone(), recipients, body, ..Envelope::default() };
    inbound.accept(envelope).await.map_err(|refusal| refusal.text)?;
    Ok(())
}
