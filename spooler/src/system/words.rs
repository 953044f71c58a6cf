//! What a worker says, as the loop takes it: words out of packets, a few at a time and never waiting.

use spooler_protocol::codec::Assembler;
use spooler_protocol::from_worker::FromWorker;

use crate::system::packets::{Packets, Taken};

/// A word of a worker, or the last thing that its channel says.
pub enum Word {
    /// It said this.
    Said(FromWorker),
    /// It said what cannot be understood; nothing more is taken from it.
    Garbled(String),
    /// Its channel is closed: nothing more will come.
    Closed,
}

/// The reading end of a worker's channel.
pub struct Words {
    packets: Packets,
    assembler: Assembler,
}

impl Words {
    /// From a worker that has said hello.
    #[must_use]
    pub fn new(packets: Packets) -> Self {
        Self { packets, assembler: Assembler::default() }
    }

    /// Where its packets come from, to be waited for.
    #[must_use]
    pub fn packets(&self) -> &Packets {
        &self.packets
    }

    /// Takes what is there, from up to so many packets. [`Word::Garbled`] and [`Word::Closed`] are the last ever.
    pub fn take(&mut self, packets_max: usize) -> Vec<Word> {
        let mut words = Vec::new();
        for _ in 0..packets_max {
            let word = match self.packets.try_receive() {
                Ok(Taken::Nothing) => break,
                Ok(Taken::End) => Word::Closed,
                Ok(Taken::Packet(frame)) => match self.assembler.push(frame) {
                    Ok(None) => continue,
                    Ok(Some(said)) => Word::Said(said),
                    Err(error) => garbage(&error),
                },
                Err(error) => garbage(&error),
            };
            let is_last = !matches!(word, Word::Said(_));
            words.push(word);
            if is_last {
                break;
            }
        }
        words
    }
}

fn garbage(error: &dyn std::error::Error) -> Word {
    Word::Garbled(format!("the worker talks garbage: {error}"))
}
