//! Reports are built on a reader's thread, because they quote the message.

use spooler_protocol::control::{MessageDetail, MessageState};
use spooler_protocol::ids::MessageId;
use spooler_protocol::international::wire_form;
use spooler_protocol::limits::BODY_CHUNK_BYTES_MAX;
use spooler_protocol::message::{Address, BodyType, Envelope, Recipient};

use super::Driver;
use super::bodies::Unread;
use crate::record::{NewMessage, ORIGIN_REPORT, Scanned, ScannedMessage, StoredContent};
use crate::report::notice::{self, NoticeInput};
use crate::report::{self, Action, ReportInput};
use crate::supervisor::event::{Event, NoticeOrder, Reading, ReportKind, ReportOrder};
use crate::system::mailbox::Letter;
use crate::system::store::{StoreError, StoreReader};

/// Bytes at the begin of a message in which its header must end to be quoted whole.
const HEADER_BYTES_MAX: u64 = 64 * 1024;

/// What a report needs besides the message.
#[derive(Clone)]
struct Frame {
    hostname: String,
    postmaster: Option<Address>,
    max_returned_size: u64,
    now_ms: i64,
}

impl Driver {
    fn frame(&self) -> Frame {
        Frame {
            hostname: self.config.hostname.clone(),
            postmaster: self.config.postmaster.clone(),
            max_returned_size: self.config.reports.max_returned_size,
            now_ms: self.equipment.clock.now().wall_ms,
        }
    }

    /// Builds a notice to the postmaster. The supervisor hears of it either way.
    pub(super) fn notice(&mut self, order: NoticeOrder) {
        let frame = self.frame();
        let mailbox = self.equipment.mailbox.clone();
        self.equipment.readers.run(Box::new(move |reader| {
            let event = match build_notice(reader, &order, frame) {
                Ok(built) => Event::ReportBuilt(order.ticket, built.map(Box::new)),
                Err(Unread::Now(why)) => Event::NotRead(Reading::Notice(order), why),
                Err(Unread::Ever(why)) => {
                    tracing::error!("no notice about messages in quarantine: {why}");
                    Event::ReportBuilt(order.ticket, None)
                }
            };
            mailbox.put(Letter::Event(event));
        }));
    }

    /// Builds a report, if anybody wants it. The supervisor hears of it either way.
    pub(super) fn report(&mut self, order: ReportOrder) {
        let frame = self.frame();
        let mailbox = self.equipment.mailbox.clone();
        self.equipment.readers.run(Box::new(move |reader| {
            let event = match build(reader, &order, frame) {
                Ok(built) => Event::ReportBuilt(order.ticket, built.map(Box::new)),
                Err(Unread::Now(why)) => Event::NotRead(Reading::Report(order), why),
                Err(Unread::Ever(why)) => {
                    tracing::error!("no report about message {}: {why}", order.id);
                    Event::ReportBuilt(order.ticket, None)
                }
            };
            mailbox.put(Letter::Event(event));
        }));
    }
}

/// A notice about messages in quarantine; `None` if there is none left to be told of.
fn build_notice(reader: &mut dyn StoreReader, order: &NoticeOrder, frame: Frame) -> Result<Option<NewMessage>, Unread> {
    let Some(postmaster) = frame.postmaster else { return Ok(None) };
    let mut messages = Vec::new();
    for id in &order.ids {
        let found = reader.detail(*id, frame.now_ms)?;
        messages.extend(found.map(|(detail, _)| detail).filter(|detail| is_worth_a_notice(detail, &postmaster)));
    }
    if messages.is_empty() {
        return Ok(None);
    }
    let content = notice::build(&NoticeInput {
        hostname: frame.hostname,
        postmaster: postmaster.text().to_owned(),
        now_ms: unsigned(frame.now_ms),
        messages,
        more: order.more,
    });
    let envelope = Envelope { recipients: vec![Recipient::new(postmaster)], ..Envelope::default() };
    Ok(Some(of_our_own(envelope, content, frame.now_ms)))
}

/// Whether a message is still in quarantine and is none that was made here for the postmaster: nothing may report in circles.
fn is_worth_a_notice(detail: &MessageDetail, postmaster: &Address) -> bool {
    let summary = &detail.summary;
    let to_postmaster = detail.recipient_details.iter().any(|recipient| recipient.address == postmaster.to_string());
    summary.state == MessageState::Quarantined && !(summary.sender.is_empty() && to_postmaster)
}

/// A message made here; the supervisor gives it its number.
fn of_our_own(envelope: Envelope, content: Vec<u8>, now_ms: i64) -> NewMessage {
    NewMessage {
        id: MessageId(0),
        envelope,
        submitted_ms: now_ms,
        origin: ORIGIN_REPORT.to_owned(),
        owner_uid: None,
        content: StoredContent::Inline(content.into()),
    }
}

fn build(reader: &mut dyn StoreReader, order: &ReportOrder, frame: Frame) -> Result<Option<NewMessage>, Unread> {
    let message = match reader.get(order.id)? {
        Some(Scanned::Message(message)) => message,
        Some(Scanned::Damaged { why, .. }) => return Err(Unread::Ever(why)),
        None => return Err(Unread::Ever("it is not in the store".to_owned())),
    };
    let Some(reader_of_report) = addressee(order, &message, frame.postmaster.as_ref()) else { return Ok(None) };
    let Some(input) = input(reader, order, &message, &reader_of_report, frame)? else { return Ok(None) };
    let content = report::build(&input);
    let body = if content.is_ascii() { BodyType::SevenBit } else { BodyType::EightBit };
    let envelope = Envelope {
        sender: String::new(),
        recipients: vec![Recipient::new(reader_of_report)],
        body,
        smtputf8: input.is_utf8(),
        ..Envelope::default()
    };
    Ok(Some(of_our_own(envelope, content, input.now_ms.try_into().unwrap_or(i64::MAX))))
}

/// Who is told: the sender; or, if there is none, the postmaster of what failed, unless it was for the postmaster: nothing may report
/// in circles.
fn addressee(order: &ReportOrder, message: &ScannedMessage, postmaster: Option<&Address>) -> Option<Address> {
    let envelope = &message.envelope;
    if !envelope.sender.is_empty() {
        return Address::smtp(&envelope.sender).ok();
    }
    let postmaster = postmaster.filter(|_| order.kind == ReportKind::Failed)?;
    let to_postmaster = envelope.recipients.iter().any(|recipient| recipient.address == *postmaster);
    (!to_postmaster).then(|| postmaster.clone())
}

/// What the report is made of; `None` if none of its recipients wants it.
fn input(
    reader: &mut dyn StoreReader,
    order: &ReportOrder,
    message: &ScannedMessage,
    addressee: &Address,
    frame: Frame,
) -> Result<Option<ReportInput>, Unread> {
    let envelope = &message.envelope;
    let kind = match order.kind {
        ReportKind::Failed => report::ReportKind::Failed,
        ReportKind::Delayed { max_age_ms } => report::ReportKind::Delayed { max_age_ms: unsigned(max_age_ms) },
        ReportKind::Sent | ReportKind::SentAsAsked => report::ReportKind::Delivered,
    };
    let mut recipients = Vec::new();
    for reported in &order.recipients {
        let place = usize::try_from(reported.index).unwrap_or(usize::MAX);
        let Some(recipient) = envelope.recipients.get(place) else { continue };
        // Whether delays are told at all was decided by the configuration: the order would not be here otherwise.
        // The postmaster did not ask for anything and gets what is left over.
        let from_sender = !envelope.sender.is_empty();
        let wanted = match order.kind {
            // The provider asks for it, whatever the sender did; but a sender that never wants any gets none.
            ReportKind::SentAsAsked => recipient.notify.is_none_or(|notify| !notify.is_never()),
            _ => report::wanted(kind, recipient.notify, false, true),
        };
        if from_sender && !wanted {
            continue;
        }
        let action = match kind {
            report::ReportKind::Failed => Action::Failed,
            report::ReportKind::Delayed { .. } => Action::Delayed,
            report::ReportKind::Delivered if reported.relayed => Action::Relayed,
            report::ReportKind::Delivered => Action::Delivered,
        };
        recipients.push(report::ReportedRecipient {
            address: recipient.address.clone(),
            orcpt: recipient.orcpt.clone(),
            action,
            reply: reported.reply.clone(),
            attempts: message.recipients.get(place).map_or(0, |update| update.attempts),
            last_attempt_ms: Some(unsigned(frame.now_ms)),
        });
    }
    if recipients.is_empty() {
        return Ok(None);
    }
    let whole = message.size <= frame.max_returned_size;
    let bytes = if whole { message.size } else { message.size.min(HEADER_BYTES_MAX) };
    let content = match read(reader, message, bytes) {
        Err(error) if error.is_passing() => return Err(error.into()),
        // The sender is to know all the same; there is nothing to quote.
        Err(error) => {
            tracing::error!("a report about message {} quotes nothing of it: {error}", message.id);
            Vec::new()
        }
        Ok(content) => content,
    };
    let split = memchr::memmem::find(&content, b"\r\n\r\n").map_or(content.len(), |at| at + 2);
    let (header, rest) = content.split_at(split);
    Ok(Some(ReportInput {
        hostname: frame.hostname,
        sender: wire_form(addressee.text()).into_owned(),
        envid: envelope.envid.clone(),
        ret: envelope.ret,
        message: message.id,
        submitted_ms: unsigned(message.submitted_ms),
        now_ms: unsigned(frame.now_ms),
        kind,
        recipients,
        header: header.to_vec().into(),
        body: whole.then(|| rest.get(2..).unwrap_or_default().to_vec().into()),
        original_smtputf8: envelope.smtputf8,
    }))
}

fn read(reader: &mut dyn StoreReader, message: &ScannedMessage, bytes: u64) -> Result<Vec<u8>, StoreError> {
    let mut content = Vec::new();
    while (content.len() as u64) < bytes {
        let left = usize::try_from(bytes).unwrap_or(usize::MAX) - content.len();
        let piece = reader.content(message.id, content.len() as u64, left.min(BODY_CHUNK_BYTES_MAX))?;
        if piece.is_empty() {
            break;
        }
        content.extend_from_slice(&piece);
    }
    Ok(content)
}

fn unsigned(ms: i64) -> u64 {
    u64::try_from(ms).unwrap_or_default()
}
