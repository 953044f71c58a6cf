//! A notice to the postmaster: messages were set aside because they kill their workers. One part, for people.
//!
//! It quotes what is hostile (addresses, last words of a program that a message has killed), all through `quote`.

use spooler_protocol::control::{Death, MessageDetail};

use super::{date, person, quote};

/// Everything that a notice is made of.
#[derive(Clone, Debug)]
pub struct NoticeInput {
    /// This machine's name in mail.
    pub hostname: String,
    /// Whom it goes to.
    pub postmaster: String,
    /// Now, milliseconds since 1970.
    pub now_ms: u64,
    /// The messages that were set aside; at least one.
    pub messages: Vec<MessageDetail>,
    /// How many more there are that it does not name.
    pub more: u64,
}

/// Builds the notice: a whole message with CRLF line ends, none longer than 998 bytes, all of it ASCII.
#[must_use]
pub fn build(input: &NoticeInput) -> Vec<u8> {
    let host = quote::word(&input.hostname);
    let first = input.messages.first().map(|message| message.summary.id.to_string()).unwrap_or_default();
    let count = input.messages.len() as u64 + input.more;
    let subject =
        if count == 1 { format!("Message {first} was set aside") } else { format!("{count} messages were set aside") };
    let part = person::text_part(&text(input, &host, &first));
    let mut notice = format!(
        "From: Mail Delivery System <MAILER-DAEMON@{host}>\r\n\
         To: <{postmaster}>\r\n\
         Subject: {subject} on {host}\r\n\
         Date: {date}\r\n\
         Message-ID: <quarantine.{first}.{now}@{host}>\r\n\
         Auto-Submitted: auto-generated\r\n\
         MIME-Version: 1.0\r\n",
        postmaster = quote::field(&input.postmaster, false),
        date = date(input.now_ms),
        now = input.now_ms,
    )
    .into_bytes();
    notice.extend_from_slice(part.head.as_bytes());
    notice.extend_from_slice(b"\r\n");
    notice.extend_from_slice(&part.content);
    notice
}

fn text(input: &NoticeInput, host: &str, first: &str) -> String {
    let mut text = format!(
        "This is the mail system at {host}.\n\n\
         What is named below was set aside, because it kept ending the process that was to\n\
         deliver it, or cannot be read. All other messages go on. It stays in the queue until\n\
         somebody decides.\n"
    );
    for message in &input.messages {
        text.push('\n');
        text.push_str(&paragraph(message));
    }
    if input.more > 0 {
        text.push_str(&format!(
            "\nThere are {} more; `spoolctl queue list --state quarantined` names them.\n",
            input.more
        ));
    }
    text.push_str(&format!(
        "\nWhat can be done, here with message {first}:\n\n    \
         spoolctl queue show {first}       what is known of it\n    \
         spoolctl queue cat {first}        the message itself\n    \
         spoolctl queue release {first}    another chance, such as with a repaired program\n    \
         spoolctl queue delete {first}     forget it; its sender is not told\n"
    ));
    text
}

fn paragraph(message: &MessageDetail) -> String {
    let summary = &message.summary;
    let clean = |text: &str| quote::field(text, true);
    let submitted = date(u64::try_from(summary.submitted_ms).unwrap_or_default());
    let mut text = format!("Message {}, {} bytes, of {submitted}\n", summary.id, summary.size);
    text.push_str(&format!("    from <{}> ({})\n", clean(&summary.sender), clean(&message.origin)));
    for recipient in &summary.recipients {
        text.push_str(&format!("    to <{}>\n", clean(recipient)));
    }
    let unnamed = summary.pending.saturating_sub(summary.recipients.len() as u64);
    if unnamed > 0 {
        text.push_str(&format!("    and {unnamed} more\n"));
    }
    text.push_str(&format!("    {}\n", clean(&summary.why)));
    message.deaths.iter().for_each(|death| text.push_str(&death_lines(death)));
    text
}

fn death_lines(death: &Death) -> String {
    let clean = |text: &str| quote::field(text, true);
    let at = date(u64::try_from(death.at_ms).unwrap_or_default());
    let phase = if death.phase.is_empty() { String::new() } else { format!(", while {}", clean(&death.phase)) };
    let mut text = format!("    {at}: {}: {}{phase}\n", clean(&death.provider), clean(&death.cause));
    for line in &death.stderr_tail {
        text.push_str(&format!("        {}\n", clean(line)));
    }
    text
}

#[cfg(test)]
mod tests {
    use spooler_protocol::control::{MessageState, MessageSummary};
    use spooler_protocol::ids::MessageId;

    use super::*;

    fn set_aside(id: u64, stderr_tail: &str) -> MessageDetail {
        let summary = MessageSummary {
            id: MessageId(id),
            state: MessageState::Quarantined,
            why: "its worker died 3 times".to_owned(),
            sender: "a@b".to_owned(),
            recipients: vec!["x@y".to_owned()],
            pending: 3,
            size: 7,
            submitted_ms: 0,
            next_try_ms: None,
            attempts: 0,
        };
        let death = Death {
            at_ms: 0,
            provider: "p".to_owned(),
            cause: "signal 11 (SIGSEGV)".to_owned(),
            phase: "sending".to_owned(),
            bytes: 0,
            company: 0,
            stderr_tail: vec![stderr_tail.to_owned()],
        };
        MessageDetail {
            summary,
            envid: None,
            origin: "uid 1".to_owned(),
            recipient_details: Vec::new(),
            deaths: vec![death],
        }
    }

    fn built(messages: Vec<MessageDetail>, more: u64) -> String {
        let (hostname, postmaster) = ("mx.test".to_owned(), "root@mx.test".to_owned());
        let notice = build(&NoticeInput { hostname, postmaster, now_ms: 0, messages, more });
        assert!(notice.is_ascii());
        let text = String::from_utf8(notice).unwrap();
        assert!(text.split_inclusive("\r\n").all(|line| line.ends_with("\r\n") && line.len() <= 1000), "{text}");
        assert_eq!(text.matches('\n').count(), text.matches("\r\n").count());
        text
    }

    #[test]
    fn it_says_who_died_of_what_and_what_to_do() {
        let text = built(vec![set_aside(42, "out of paper")], 0);
        assert!(text.contains("Subject: Message 42 was set aside on mx.test\r\n"), "{text}");
        for words in ["from <a@b>", "to <x@y>", "and 2 more", "signal 11 (SIGSEGV), while sending", "out of paper"] {
            assert!(text.contains(words), "{words}: {text}");
        }
        assert!(text.contains("spoolctl queue release 42"), "{text}");
    }

    #[test]
    fn many_are_one_notice() {
        let text = built(vec![set_aside(1, "x"), set_aside(2, "y")], 98);
        assert!(text.contains("Subject: 100 messages were set aside"), "{text}");
        assert!(text.contains("There are 98 more"), "{text}");
    }

    #[test]
    fn last_words_are_no_header_and_no_end() {
        let text = built(vec![set_aside(1, &format!("\r\n.\r\nBcc: x@y\u{0}\u{e9}{}", "z".repeat(3000)))], 0);
        assert!(!text.lines().any(|line| line == "." || line.starts_with("Bcc:")), "{text}");
    }
}
