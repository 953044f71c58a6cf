//! `spoolctl queue`: see messages and do something with them.

use std::io::{self, Write};

use spooler_protocol::control::{
    Death, Filter, MessageDetail, MessageState, MessageSummary, QueueAction, QueueCommand, QueueCount, QueueDone,
    RecipientState,
};
use spooler_protocol::history::Finished;

use super::{log, print_json};
use crate::client::cli::{Action, Queue};
use crate::client::connection::{Control, block_on};
use crate::client::failure::Failure;
use crate::client::layout::{Page, Tone, count};
use crate::client::queue_path;
use crate::client::show::{self, distance, exact_size, plain, short, size, span, time, upcoming};
use crate::client::terminal;

/// Messages that an answer names.
const NAMED_MAX: usize = 20;

pub(super) fn run(control: &Control, queue: Queue) -> Result<(), Failure> {
    match queue {
        Queue::List { chosen, limit, json } => {
            let filter = Filter { limit, ..chosen.filter().unwrap_or_default() };
            list(control, &filter, json)
        }
        Queue::Count { json } => print_count(control, json),
        Queue::Show { id, json } => show(control, id, json),
        Queue::Cat { id } => block_on(async {
            let mut out = io::stdout().lock();
            control.bytes(&format!("/v1/messages/{id}/content"), &mut out).await?;
            Ok(out.flush()?)
        }),
        Queue::Hold(action) => act(control, QueueAction::Hold, &action),
        Queue::Release(action) => act(control, QueueAction::Release, &action),
        Queue::Retry(action) => act(control, QueueAction::Retry, &action),
        Queue::Delete(action) => act(control, QueueAction::Delete, &action),
    }
}

fn list(control: &Control, filter: &Filter, json: bool) -> Result<(), Failure> {
    block_on(async {
        let mut lines = control.lines(&queue_path(filter)?).await?;
        let mut out = io::BufWriter::new(io::stdout().lock());
        let (mut listed, now_ms, page) = (0_u64, show::now_ms(), terminal::page());
        while let Some(summary) = lines.next::<MessageSummary>().await? {
            if json {
                serde_json::to_writer(&mut out, &summary).map_err(io::Error::from)?;
                writeln!(out)?;
            } else {
                if listed == 0 {
                    out.write_all(heading(page).as_bytes())?;
                }
                out.write_all(entry(&summary, page, now_ms).as_bytes())?;
            }
            listed += 1;
        }
        if listed == 0 && !json {
            writeln!(out, "{}", nothing_listed(*filter == Filter::default(), &count_of(control).await?))?;
        }
        Ok(out.flush()?)
    })
}

/// The numbers of the whole queue.
pub(in crate::client) async fn count_of(control: &Control) -> Result<QueueCount, Failure> {
    control.get("/v1/messages/count").await
}

/// Why a listing has no messages: the queue of others is never called empty.
fn nothing_listed(is_whole: bool, counted: &QueueCount) -> String {
    match counted.total {
        0 => "No messages".to_owned(),
        others if !counted.all_visible => format!("You have no messages here ({others} of others)"),
        _ if is_whole => "No messages".to_owned(),
        _ => "No such messages".to_owned(),
    }
}

fn print_count(control: &Control, json: bool) -> Result<(), Failure> {
    let counted = block_on(count_of(control))?;
    if json {
        return print_json(&counted);
    }
    let oldest = counted.oldest_ms.map(|ms| format!("; the oldest accepted {}", distance(ms, show::now_ms())));
    let QueueCount { total, ready, in_flight, deferred, held, quarantined, .. } = counted;
    let states =
        format!("{ready} ready, {in_flight} in flight, {deferred} deferred, {held} held, {quarantined} quarantined");
    Ok(writeln!(io::stdout().lock(), "{}: {states}{}", count(total, "message"), oldest.unwrap_or_default())?)
}

fn heading(page: Page) -> String {
    page.toned(
        &format!("{:>8}  {:<11} {:>9} {:>7} {:>5}  SENDER > RECIPIENTS", "ID", "STATE", "SIZE", "AGE", "TRIES"),
        Tone::Bold,
    ) + "\n"
}

/// One message: a line, and a second one about when it is tried next and why it waits.
fn entry(summary: &MessageSummary, page: Page, now_ms: i64) -> String {
    let age = span(now_ms.saturating_sub(summary.submitted_ms).max(0).unsigned_abs() / 1000);
    // Unsettled recipients come first; the others are done with.
    let shown = usize::try_from(summary.pending).unwrap_or(usize::MAX).min(3);
    let mut recipients: Vec<String> = summary.recipients.iter().take(shown).map(|r| short(r, 60)).collect();
    let unseen = summary.pending.saturating_sub(recipients.len() as u64);
    if unseen > 0 {
        recipients.push(format!("and {unseen} more"));
    }
    let (state, bytes) = (state_word(summary.state), size(summary.size));
    let prefix = format!("{:>8}  {state:<11} {bytes:>9} {age:>7} {:>5}  ", summary.id.0, summary.attempts);
    let to = format!("{} > {}", short(sender_word(&summary.sender), 60), recipients.join(", "));
    let mut out = page.hanging(&prefix, &to, 12) + "\n";
    let next = summary.next_try_ms.map(|ms| format!("next try {}", upcoming(ms, now_ms)));
    let why = Some(plain(&summary.why)).filter(|why| !why.is_empty());
    let said: Vec<String> = next.into_iter().chain(why).collect();
    if !said.is_empty() {
        out.push_str(&page.hanging(&" ".repeat(10), &said.join("; "), 10));
        out.push('\n');
    }
    out
}

fn sender_word(sender: &str) -> &str {
    if sender.is_empty() { "<>" } else { sender }
}

fn state_word(state: MessageState) -> &'static str {
    match state {
        MessageState::Ready => "ready",
        MessageState::InFlight => "in flight",
        MessageState::Deferred => "deferred",
        MessageState::Held => "held",
        MessageState::Quarantined => "quarantined",
    }
}

fn show(control: &Control, id: u64, json: bool) -> Result<(), Failure> {
    let queued: Result<MessageDetail, Failure> = block_on(control.get(&format!("/v1/messages/{id}")));
    let refused = match queued {
        Ok(detail) if json => return print_json(&detail),
        Ok(detail) => return Ok(describe(&mut io::stdout().lock(), &detail, show::now_ms())?),
        Err(refused @ Failure::Refused { status: 404, .. }) => refused,
        Err(failure) => return Err(failure),
    };
    // It may have left the queue. If the history does not know it either, the first refusal stands.
    let finished: Finished = match block_on(control.get(&format!("/v1/history/{id}"))) {
        Err(Failure::Refused { status: 404, .. }) => return Err(refused),
        finished => finished?,
    };
    if json { print_json(&finished) } else { Ok(log::describe(&mut io::stdout().lock(), &finished, show::now_ms())?) }
}

fn describe(out: &mut dyn Write, detail: &MessageDetail, now_ms: i64) -> io::Result<()> {
    let summary = &detail.summary;
    let when = |ms: i64| format!("{} ({})", time(ms), distance(ms, now_ms));
    let mut facts = vec![
        ("Message", summary.id.to_string()),
        ("State", state_word(summary.state).to_owned()),
        ("Why", summary.why.clone()),
        ("Sender", sender_word(&summary.sender).to_owned()),
        ("Size", exact_size(summary.size)),
        ("Submitted", when(summary.submitted_ms)),
        ("By", detail.origin.clone()),
        ("Attempts", summary.attempts.to_string()),
        ("Next try", summary.next_try_ms.map(when).unwrap_or_default()),
        ("Envelope id", detail.envid.clone().unwrap_or_default()),
    ];
    facts.retain(|(_, value)| !value.is_empty());
    for (name, value) in facts {
        writeln!(out, "{name:<12} {}", plain(&value))?;
    }
    deaths(out, &detail.deaths)?;
    for recipient in &detail.recipient_details {
        let state = match recipient.state {
            RecipientState::Pending => "pending",
            RecipientState::Delivered => "delivered",
            RecipientState::Relayed => "relayed",
            RecipientState::Failed => "failed",
        };
        let by = recipient.provider.as_ref().map(|provider| format!(" through {provider}")).unwrap_or_default();
        let tries = count(u64::from(recipient.attempts), "attempt");
        writeln!(out, "\n  {}\n    {state}{}, {tries}", plain(&recipient.address), plain(&by))?;
        if let Some(reply) = &recipient.reply {
            writeln!(out, "    {}", plain(&reply.to_string()))?;
        }
        if let Some(ms) = recipient.next_try_ms {
            writeln!(out, "    next try {}", when(ms))?;
        }
        if let Some(notify) = recipient.notify {
            writeln!(out, "    report {}", notify.keywords())?;
        }
    }
    Ok(())
}

/// Workers that died while they had the message.
fn deaths(out: &mut dyn Write, deaths: &[Death]) -> io::Result<()> {
    for death in deaths {
        writeln!(out, "\n  worker of {} died {}: {}", plain(&death.provider), time(death.at_ms), plain(&death.cause))?;
        if !death.phase.is_empty() {
            writeln!(out, "    while {}, at byte {}", plain(&death.phase), death.bytes)?;
        }
        match death.company {
            0 => writeln!(out, "    with this message alone")?,
            1 => writeln!(out, "    with one other message in its hands")?,
            others => writeln!(out, "    with {others} other messages in its hands")?,
        }
        for line in &death.stderr_tail {
            writeln!(out, "    | {}", plain(line))?;
        }
    }
    Ok(())
}

fn act(control: &Control, action: QueueAction, chosen: &Action) -> Result<(), Failure> {
    let filter = match (chosen.chosen.filter(), chosen.all) {
        (Some(_), true) => {
            return Err(Failure::Usage("Use either --all or a selection of messages, not both".to_owned()));
        }
        (None, false) => {
            let text = "Which messages? Give numbers, a selection such as --to or --state, or --all for every message";
            return Err(Failure::Usage(text.to_owned()));
        }
        (Some(filter), false) => filter,
        (None, true) => Filter::default(),
    };
    command(control, action, filter, chosen.json)
}

/// Does something with one message.
pub(super) fn act_on(control: &Control, action: QueueAction, id: u64) -> Result<(), Failure> {
    command(control, action, Filter { ids: Some(id.to_string()), ..Filter::default() }, false)
}

fn command(control: &Control, action: QueueAction, filter: Filter, json: bool) -> Result<(), Failure> {
    let done: QueueDone = block_on(control.post("/v1/messages/do", &QueueCommand { action, filter }))?;
    if json {
        print_json(&done)?;
    } else {
        io::stdout().lock().write_all(taken(&done, action, terminal::page()).as_bytes())?;
    }
    if done.refused.is_empty() { Ok(()) } else { Err(Failure::InPart(plain_lines(&done.refused))) }
}

/// How many messages an action took, and which: `2 messages deleted: 7, 9`.
fn taken(done: &QueueDone, action: QueueAction, page: Page) -> String {
    let mut ids: Vec<String> = done.ids.iter().take(NAMED_MAX).map(ToString::to_string).collect();
    let unnamed = done.done.saturating_sub(ids.len() as u64);
    if unnamed > 0 {
        ids.push(format!("and {unnamed} more"));
    }
    let named = if ids.is_empty() { String::new() } else { format!(": {}", ids.join(", ")) };
    page.hanging("", &format!("{} {}{named}", count(done.done, "message"), done_word(action)), 4) + "\n"
}

fn plain_lines(lines: &[String]) -> String {
    lines.iter().map(|line| plain(line)).collect::<Vec<_>>().join("\n")
}

fn done_word(action: QueueAction) -> &'static str {
    match action {
        QueueAction::Hold => "held",
        QueueAction::Release => "released",
        QueueAction::Retry => "to be tried now",
        QueueAction::Delete => "deleted",
        QueueAction::Cancel => "cancelled",
    }
}

#[cfg(test)]
mod tests {
    use spooler_protocol::ids::MessageId;

    use super::*;

    const NOW_MS: i64 = 1_795_356_300_000;

    fn summary() -> MessageSummary {
        MessageSummary {
            id: MessageId(7),
            state: MessageState::Held,
            why: "held by an administrator who wanted to have a look at it first".to_owned(),
            sender: String::new(),
            recipients: vec!["ann@example.org".to_owned(), "b\u{fc}ro@example.org".to_owned()],
            pending: 2,
            size: 263,
            submitted_ms: NOW_MS - 200_000,
            next_try_ms: None,
            attempts: 1,
        }
    }

    #[test]
    fn entry_fits_eighty_columns() {
        let page = Page { columns: 80, colour: false };
        let text = heading(page) + &entry(&summary(), page, NOW_MS);
        let expected = "      ID  STATE            SIZE     AGE TRIES  SENDER > RECIPIENTS
       7  held            263 B   3m20s     1  <> > ann@example.org,
            b\u{fc}ro@example.org
          held by an administrator who wanted to have a look at it first
";
        assert_eq!(text, expected);
    }

    #[test]
    fn action_names_its_messages() {
        let ids = vec![MessageId(7), MessageId(9)];
        let done = QueueDone { done: 3, ids, refused: Vec::new() };
        assert_eq!(taken(&done, QueueAction::Delete, Page::PLAIN), "3 messages deleted: 7, 9, and 1 more\n");
    }

    #[test]
    fn queue_of_others_is_not_empty() {
        let counted = |total, all_visible| QueueCount { total, all_visible, ..QueueCount::default() };
        assert_eq!(nothing_listed(true, &counted(10, false)), "You have no messages here (10 of others)");
        assert_eq!(nothing_listed(true, &counted(0, false)), "No messages");
        assert_eq!(nothing_listed(false, &counted(3, true)), "No such messages");
    }
}
