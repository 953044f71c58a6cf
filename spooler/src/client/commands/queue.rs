//! `spoolctl queue`: see messages and do something with them.

use std::io::{self, Write};

use spooler_protocol::control::{
    Death, Filter, MessageDetail, MessageState, MessageSummary, QueueAction, QueueCommand, QueueDone, RecipientState,
};
use spooler_protocol::history::Finished;

use super::{log, print_json};
use crate::client::cli::{Action, Queue};
use crate::client::connection::{Control, block_on};
use crate::client::failure::Failure;
use crate::client::queue_path;
use crate::client::show::{self, distance, plain, short, size, span, time};

pub(super) fn run(control: &Control, queue: Queue) -> Result<(), Failure> {
    match queue {
        Queue::List { chosen, limit, json } => {
            let filter = Filter { limit, ..chosen.filter().unwrap_or_default() };
            list(control, &filter, json)
        }
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
        let (mut count, now_ms) = (0_u64, show::now_ms());
        while let Some(summary) = lines.next::<MessageSummary>().await? {
            if json {
                serde_json::to_writer(&mut out, &summary).map_err(io::Error::from)?;
                writeln!(out)?;
            } else {
                if count == 0 {
                    writeln!(
                        out,
                        "{:>8}  {:<11} {:>9} {:>7} {:>5}  SENDER > RECIPIENTS",
                        "ID", "STATE", "SIZE", "AGE", "TRIES"
                    )?;
                }
                line(&mut out, &summary, now_ms)?;
            }
            count += 1;
        }
        if count == 0 && !json {
            writeln!(out, "No messages")?;
        }
        Ok(out.flush()?)
    })
}

/// One line, and a second one if there is something to say about why it waits.
fn line(out: &mut dyn Write, summary: &MessageSummary, now_ms: i64) -> io::Result<()> {
    let age = span(now_ms.saturating_sub(summary.submitted_ms).max(0).unsigned_abs() / 1000);
    // Unsettled recipients come first; the others are done with.
    let shown = usize::try_from(summary.pending).unwrap_or(usize::MAX).min(3);
    let mut recipients: Vec<String> = summary.recipients.iter().take(shown).map(|r| short(r, 60)).collect();
    let unseen = summary.pending.saturating_sub(recipients.len() as u64);
    if unseen > 0 {
        recipients.push(format!("and {unseen} more"));
    }
    let (state, bytes) = (state_word(summary.state), size(summary.size));
    write!(out, "{:>8}  {state:<11} {bytes:>9} {age:>7} {:>5}  ", summary.id.0, summary.attempts)?;
    writeln!(out, "{} > {}", short(sender_word(&summary.sender), 60), recipients.join(", "))?;
    let next = summary.next_try_ms.map(|ms| format!("next try {}", distance(ms, now_ms)));
    let why = Some(plain(&summary.why)).filter(|why| !why.is_empty());
    let said: Vec<String> = why.into_iter().chain(next).collect();
    if said.is_empty() { Ok(()) } else { writeln!(out, "{:>8}  {}", "", said.join("; ")) }
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
        ("Size", format!("{} ({} bytes)", size(summary.size), summary.size)),
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
        let tries = format!("{} attempts", recipient.attempts);
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
        (Some(_), true) => return Err(Failure::Usage("Either --all or a choice of messages, not both".to_owned())),
        (None, false) => {
            let text = "Which messages? Give numbers, a choice such as --to or --state, or --all for every message";
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
        let messages = if done.done == 1 { "1 message".to_owned() } else { format!("{} messages", done.done) };
        writeln!(io::stdout().lock(), "{messages} {}", done_word(action))?;
    }
    if done.refused.is_empty() { Ok(()) } else { Err(Failure::InPart(plain_lines(&done.refused))) }
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
