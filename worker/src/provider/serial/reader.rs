//! Reads the line: opens the device again and again until it is there, and turns bytes into frames.
//!
//! The path of a byte is short: one read into a buffer that stays, one step of the deframer. Nothing in it waits for the supervisor: the
//! critical section begins beside it, and frames are handed over when the line is silent.
//!
//! ```text
//!   silent ──byte──▶ in a frame ──its end──▶ behind a frame ──LINGER without a byte──▶ silent
//!     ▲                  │                        └──byte──▶ in a frame
//!     └─────── `gap` without a byte ──────────────────────── busy: from the first byte until silent
//! ```

use std::io;
use std::rc::Rc;
use std::time::Duration;

use super::framing::{Deframer, Framing};
use super::line::Line;
use super::port::Port;
use super::settings::CriticalRule;

/// Bytes taken from the kernel in one go.
const BUFFER_BYTES: usize = 64 * 1024;
/// How long after a frame the next one may begin without a new critical section.
const LINGER: Duration = Duration::from_millis(50);
/// Before a device that is not there is looked for again.
const REOPEN_FIRST: Duration = Duration::from_millis(250);
const REOPEN_MAX: Duration = Duration::from_secs(30);

/// Reads as long as the provider lives.
pub(super) async fn run(line: Rc<Line>) {
    let device = line.settings.device.display().to_string();
    let mut pause = REOPEN_FIRST;
    loop {
        let error = match Port::open(&line.settings.device, &line.settings.line) {
            Ok(port) => {
                pause = REOPEN_FIRST;
                let port = Rc::new(port);
                *line.port.borrow_mut() = Some(Rc::clone(&port));
                tracing::info!("{device} is open");
                line.show(None);
                let error = receive(&line, &port).await;
                *line.port.borrow_mut() = None;
                line.answer.take();
                line.set_busy(false);
                line.end_section();
                error
            }
            Err(error) => error,
        };
        line.show(Some(format!("{device} cannot be used: {error}")));
        tracing::warn!("{device} cannot be used: {error}");
        tokio::select! {
            () = tokio::time::sleep(pause) => pause = (pause * 2).min(REOPEN_MAX),
            () = line.nudge.notified() => {}
        }
    }
}

/// Reads until the device has gone.
async fn receive(line: &Line, port: &Port) -> io::Error {
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut deframer = Deframer::new(line.settings.framing, line.settings.frame_max);
    let mut behind = false;
    loop {
        let patience = match (deframer.is_inside(), behind) {
            (true, _) => Some(line.settings.gap),
            (false, true) => Some(LINGER),
            (false, false) => None,
        };
        let read = match patience {
            Some(patience) => tokio::time::timeout(patience, port.read(&mut buffer)).await.ok(),
            None => {
                rest(line).await;
                tokio::select! {
                    biased;
                    read = port.read(&mut buffer) => Some(read),
                    () = line.nudge.notified() => continue,
                    () = line.support.inbound_ended(), if line.answer.borrow().is_none() => continue,
                }
            }
        };
        match read {
            Some(Ok(count)) => {
                take(line, &mut deframer, buffer.get(..count).unwrap_or_default());
                behind = !deframer.is_inside();
                line.set_busy(true);
            }
            Some(Err(error)) => {
                deframer.pause().into_iter().for_each(|frame| line.keep(frame));
                return error;
            }
            None => {
                deframer.pause().into_iter().for_each(|frame| line.keep(frame));
                behind = false;
                line.set_busy(false);
            }
        }
    }
}

/// Between frames: while inbound has ended, the line is read only for the answer to what was sent.
async fn rest(line: &Line) {
    loop {
        let nudged = line.nudge.notified();
        if !line.inbound_has_ended() {
            break;
        }
        line.end_section();
        if line.answer.borrow().is_some() {
            return;
        }
        nudged.await;
    }
    if line.settings.critical == CriticalRule::Always {
        line.begin_section();
    }
}

fn take(line: &Line, deframer: &mut Deframer, bytes: &[u8]) {
    for &byte in bytes {
        if !deframer.is_inside() && is_answer(line, byte) {
            continue;
        }
        if let Some(frame) = deframer.push(byte) {
            line.keep(frame);
        }
    }
}

/// Whether a byte between frames is the answer that somebody waits for.
fn is_answer(line: &Line, byte: u8) -> bool {
    let Some(rule) = line.settings.ack.filter(|rule| byte == rule.ack || byte == rule.nak) else { return false };
    match line.answer.take() {
        Some(waiting) => {
            let _ = waiting.send(byte == rule.ack);
            true
        }
        None => false,
    }
}

/// Whether frames of a kind are told apart by pauses alone, so that what is sent must not stop in between.
pub(super) fn needs_a_gap(framing: Framing) -> bool {
    framing == Framing::Idle
}
