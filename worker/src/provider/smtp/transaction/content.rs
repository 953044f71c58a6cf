//! The content of a message: by DATA in one stream up to the dot, or by BDAT in chunks that are answered one by one.
//!
//! A chunk of BDAT is never sent before the reply to the one before it: that costs a round trip for each 60 KiB, and keeps the state
//! simple. While a piece goes out, the next one is already being read from the supervisor.

use bytes::Bytes;

use super::{Stop, Transaction};
use crate::provider::smtp::dot::WireForm;
use crate::provider::smtp::wire::Broken;

const SENDING: &str = "sending the message";

/// Bytes of content that are written at once.
const WRITE_BYTES: usize = 32 * 1024;

impl Transaction<'_> {
    /// What follows from the replies to the envelope, then the content.
    pub(super) async fn content(&mut self) -> Result<(), Stop> {
        let data = self.data.take();
        let promised = data.as_ref().is_some_and(|reply| reply.code == 354);
        if let Some(refusal) = self.mail_refusal.take() {
            let outcome = self.refused(refusal);
            self.settle_rest(&outcome);
        }
        if self.accepted.is_empty() {
            return if promised { self.empty_data().await } else { Ok(()) };
        }
        if self.delivery.is_cancelled() {
            return Err(Stop::Cancelled);
        }
        match data {
            None => self.send_bdat().await,
            Some(_) if promised => self.send_data().await,
            Some(refusal) if refusal.is_negative() => {
                let outcome = self.refused(refusal);
                self.settle_rest(&outcome);
                Ok(())
            }
            Some(reply) => Err(Broken::OutOfTurn(reply.code).into()),
        }
    }

    /// The server wants content although nobody is to get it: it gets none (RFC 2920 3.1).
    async fn empty_data(&mut self) -> Result<(), Stop> {
        if self.contradicts {
            // A dot would be an empty message to whom it accepted.
            return Err(Broken::OutOfTurn(354).into());
        }
        self.phase = "at the end of an empty message to nobody";
        self.connection.wire.output.extend_from_slice(b".\r\n");
        self.connection.wire.send(self.manner.timeouts.data).await?;
        let reply = self.connection.wire.reply(self.manner.timeouts.data).await?;
        if reply.is_closing() { Err(Broken::Closing(reply).into()) } else { Ok(()) }
    }

    async fn send_data(&mut self) -> Result<(), Stop> {
        (self.phase, self.sending) = ("while sending the message", true);
        self.delivery.phase(SENDING);
        let delivery = self.delivery;
        let mut form = WireForm::for_data();
        let mut piece = self.first.clone();
        let mut offset = 0;
        while !piece.is_empty() {
            offset += length(&piece);
            let both = async { tokio::join!(self.write_content(&mut form, &piece), delivery.content(offset)) };
            let (written, next) = tokio::select! {
                biased;
                both = both => both,
                // A message without its end is none (RFC 5321 4.1.1.4). Behind the dot, only the reply tells what became of it.
                () = delivery.cancelled() => return Err(Stop::Cancelled),
            };
            written?;
            piece = next.map_err(Stop::Unreadable)?;
            delivery.progress(SENDING, offset);
        }
        form.finish(&mut self.connection.wire.output);
        self.connection.wire.send(self.manner.timeouts.data).await?;
        self.last_replies().await
    }

    /// Brings a piece into wire form and sends it, but for a last part that waits for what follows.
    async fn write_content(&mut self, form: &mut WireForm, piece: &[u8]) -> Result<(), Broken> {
        let wire = &mut self.connection.wire;
        for part in piece.chunks(WRITE_BYTES) {
            form.push(part, &mut wire.output);
            if wire.output.len() >= WRITE_BYTES {
                wire.send(self.manner.timeouts.data).await?;
            }
        }
        Ok(())
    }

    /// The content as BDAT chunks, each of them answered before the next.
    async fn send_bdat(&mut self) -> Result<(), Stop> {
        (self.phase, self.sending) = ("while sending the message", true);
        self.delivery.phase(SENDING);
        let mut form = WireForm::for_bdat();
        let mut piece = self.first.clone();
        let mut offset = 0;
        let mut chunk = Vec::new();
        loop {
            offset += length(&piece);
            let next = self.delivery.content(offset).await.map_err(Stop::Unreadable)?;
            let last = next.is_empty();
            chunk.clear();
            form.push(&piece, &mut chunk);
            if last {
                form.finish(&mut chunk);
            }
            let output = &mut self.connection.wire.output;
            let word = if last { " LAST" } else { "" };
            output.extend_from_slice(format!("BDAT {}{word}\r\n", chunk.len()).as_bytes());
            output.extend_from_slice(&chunk);
            self.connection.wire.send(self.manner.timeouts.data).await?;
            self.delivery.progress(SENDING, offset);
            if last {
                return self.last_replies().await;
            }
            let reply = self.connection.wire.reply(self.manner.timeouts.data).await?;
            if reply.is_closing() {
                return Err(Broken::Closing(reply).into());
            }
            if !reply.is_positive() {
                let outcome = self.refused(reply);
                self.settle_rest(&outcome);
                return Ok(());
            }
            piece = next;
        }
    }

    /// The reply, or with LMTP the replies, to the whole message.
    async fn last_replies(&mut self) -> Result<(), Stop> {
        self.phase = "after the whole message was sent; it may arrive twice";
        self.delivery.phase("waiting for the reply to the whole message");
        self.connection.served += 1;
        let mut accepted = std::mem::take(&mut self.accepted).into_iter();
        while let Some(index) = accepted.next() {
            let reply = self.connection.wire.reply(self.manner.timeouts.data).await;
            let reply = match reply {
                Ok(reply) if reply.is_closing() => Err(Broken::Closing(reply)),
                Ok(reply) if !reply.is_positive() && !reply.is_negative() => Err(Broken::OutOfTurn(reply.code)),
                reply => reply,
            };
            match reply {
                Ok(reply) if self.manner.lmtp => self.settle(index, self.answer(reply)),
                Ok(reply) => {
                    let outcome = self.answer(reply);
                    for index in std::iter::once(index).chain(accepted.by_ref()) {
                        self.settle(index, outcome.clone());
                    }
                }
                Err(broken) => {
                    self.accepted = std::iter::once(index).chain(accepted).collect();
                    return Err(broken.into());
                }
            }
        }
        self.connection.needs_reset = false;
        Ok(())
    }
}

fn length(piece: &Bytes) -> u64 {
    u64::try_from(piece.len()).unwrap_or(u64::MAX)
}
