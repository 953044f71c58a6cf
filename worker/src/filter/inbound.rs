//! On the way in: each hook says what is to be done with a message before it is accepted.
//!
//! A hook that ends with 0 may write one line of JSON, all of whose keys may be missing:
//!
//! | key | meaning |
//! |---|---|
//! | `action` | `"continue"`, `"discard"` (taken and forgotten: HOOK_DELETE), `"refuse"`, `"refuse-temporarily"` |
//! | `reason` | what the sender is told if it is refused |
//! | `recipients` | a list of addresses that take the place of the present ones (the redirection of MAPI's hooks) |
//! | `content` | the name of a file in `FOLDER` that takes the place of the message |
//! | `final` | `true`: later hooks do not see it (HOOK_CANCEL) |

use serde::Deserialize;
use spooler_protocol::message::{Address, Envelope, Recipient};
use spooler_protocol::to_worker::Refusal;

use super::artifacts::{Content, Folder, Held};
use super::run::{About, Answer, Source, run};
use super::{Filter, Filters, refusal};
use crate::scratch;
use crate::support::Support;

/// Bytes of an answer.
const ANSWER_BYTES_MAX: u64 = 64 * 1024;
/// Recipients of a redirected message.
const RECIPIENTS_MAX: usize = 1000;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Action {
    #[default]
    Continue,
    Discard,
    Refuse,
    RefuseTemporarily,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Decision {
    action: Action,
    reason: Option<String>,
    recipients: Option<Vec<String>>,
    content: Option<String>,
    r#final: bool,
}

impl Filters {
    /// Lets the inbound hooks see a message, in order. `None`: it was discarded.
    ///
    /// # Errors
    /// If one of them refuses it, or fails.
    pub(crate) async fn receive(
        &self,
        support: &Support,
        mut envelope: Envelope,
        held: Held,
    ) -> Result<Option<(Envelope, Content)>, Refusal> {
        let kept = |error: std::io::Error| refusal(&format!("The message cannot be kept for the hooks: {error}"));
        let mut content = held.into_content().map_err(kept)?;
        let folder = Folder::new(support.scratch()).inspect_err(|_| support.look_at_scratch()).map_err(kept)?;
        for hook in &self.lists.inbound {
            if !hook.is_for(&envelope.recipients) {
                continue;
            }
            let decision = ask(hook, support, &envelope, &content, &folder).await?;
            let reason = decision.reason.clone().unwrap_or_else(|| "The message is not wanted here".to_owned());
            match decision.action {
                Action::Continue => {}
                Action::Discard => return Ok(None),
                Action::Refuse => return Err(refused(false, reason)),
                Action::RefuseTemporarily => return Err(refused(true, reason)),
            }
            if let Some(name) = &decision.content {
                let odd =
                    |error: std::io::Error| trouble(&format!("the content {name:?} of a hook is no file: {error}"));
                let file = folder.left_behind(name).map_err(odd)?;
                content = Content::of_output(&file, support.scratch())
                    .map_err(kept)?
                    .ok_or_else(|| trouble("a hook left an empty content"))?;
            }
            if let Some(addresses) = decision.recipients {
                envelope.recipients = redirected(&envelope.recipients, &addresses)?;
            }
            if decision.r#final {
                break;
            }
        }
        Ok(Some((envelope, content)))
    }
}

/// Runs a hook and reads what it decides.
async fn ask(
    hook: &Filter,
    support: &Support,
    envelope: &Envelope,
    content: &Content,
    folder: &Folder,
) -> Result<Decision, Refusal> {
    let recipients = envelope.recipients.iter().collect();
    let about = About { support, folder, id: None, sender: &envelope.sender, recipients };
    let output = support.scratch().file().map_err(|error| trouble(&format!("no file for a hook: {error}")))?;
    match run(&hook.command, hook.timeout, &about, Source::Content(content), &output).await {
        Answer::Well => {}
        Answer::No(why) => return Err(refused(false, why)),
        Answer::Later(why) => return Err(trouble(&why)),
    }
    let said = scratch::text_of(&output, ANSWER_BYTES_MAX);
    read_decision(&said.map_err(|error| trouble(&format!("a hook's answer cannot be read: {error}")))?)
}

fn read_decision(said: &str) -> Result<Decision, Refusal> {
    if said.trim().is_empty() {
        return Ok(Decision::default());
    }
    serde_json::from_str(said.trim())
        .map_err(|error| trouble(&format!("a hook's answer is not what a hook says: {error}")))
}

/// What an answer of any kind comes to: a refusal, and the recipients from then on.
#[cfg(feature = "fuzzing")]
pub(super) fn judge(said: &str, present: &[Recipient]) -> Result<Vec<Recipient>, Refusal> {
    let decision = read_decision(said)?;
    match decision.action {
        Action::Refuse | Action::RefuseTemporarily => {
            Err(refused(decision.action == Action::RefuseTemporarily, decision.reason.unwrap_or_default()))
        }
        Action::Continue | Action::Discard => {
            decision.recipients.map_or(Ok(present.to_vec()), |addresses| redirected(present, &addresses))
        }
    }
}

/// The recipients that take the place of the present ones. Who stays keeps what was wished for reports.
fn redirected(present: &[Recipient], addresses: &[String]) -> Result<Vec<Recipient>, Refusal> {
    if addresses.is_empty() || addresses.len() > RECIPIENTS_MAX {
        return Err(trouble("a hook redirects to nobody, or to too many; it can discard a message instead"));
    }
    let parse = |text: &String| {
        let address: Address =
            text.parse().map_err(|error| trouble(&format!("a hook redirects to {text:?}: {error}")))?;
        let stays = present.iter().find(|recipient| recipient.address == address);
        Ok(stays.cloned().unwrap_or_else(|| Recipient::new(address)))
    };
    addresses.iter().map(parse).collect()
}

fn refused(temporary: bool, text: String) -> Refusal {
    Refusal { temporary, enhanced: if temporary { "4.7.1" } else { "5.7.1" }.to_owned(), text }
}

/// What goes wrong in a hook is for the log; the sender tries again.
fn trouble(why: &str) -> Refusal {
    tracing::warn!("an inbound hook had trouble: {why}");
    Refusal {
        temporary: true,
        enhanced: "4.3.0".to_owned(),
        text: "A filter of this host failed; try again later".to_owned(),
    }
}
