//! Around a delivery: preprocessors before it, their undoing after it, then the outbound hooks.

use spooler_protocol::calls::EndMessage;
use spooler_protocol::outcome::{Outcome, Reply, SubmitResult};

use super::artifacts::{Content, Folder};
use super::run::{About, Answer, Source, run};
use super::{Filter, Filters};
use crate::delivery::Delivery;

/// Why a delivery does not reach the provider.
enum Stopped {
    Refused(String),
    Later(String),
    Cancelled,
}

impl Filters {
    /// Delivers a message through the filters: `submit` sees what they made of it, unless one of them stands against it.
    pub(crate) async fn deliver(
        &self,
        mut delivery: Delivery,
        submit: impl AsyncFnOnce(&Delivery) -> (SubmitResult, EndMessage),
    ) -> (Delivery, SubmitResult, EndMessage) {
        let is_for = |filter: &&Filter| filter.is_for(delivery.recipients());
        let before: Vec<&Filter> = self.lists.preprocess.iter().filter(is_for).collect();
        if before.is_empty() && self.lists.outbound.is_empty() {
            let (result, end) = submit(&delivery).await;
            return (delivery, result, end);
        }
        let folder = match Folder::new(delivery.support().scratch()) {
            Ok(folder) => folder,
            Err(error) => {
                delivery.support().look_at_scratch();
                let stopped = Stopped::Later(format!("there is no folder for the filters: {error}"));
                let result = stopped.settle(&delivery);
                return (delivery, result, EndMessage::Done);
            }
        };
        let mut began = 0;
        let prepared = preprocess(&before, &mut delivery, &folder, &mut began).await;
        let (result, end) = match prepared {
            Ok(()) => submit(&delivery).await,
            Err(stopped) => (stopped.settle(&delivery), EndMessage::Done),
        };
        for filter in before.iter().take(began).rev() {
            undo(filter, &delivery, &folder).await;
        }
        for hook in &self.lists.outbound {
            after(hook, &delivery, &folder).await;
        }
        (delivery, result, end)
    }
}

impl Stopped {
    fn settle(self, delivery: &Delivery) -> SubmitResult {
        match self {
            Self::Refused(why) => delivery.settle_all(&Outcome::Failed(Reply::local(554, "5.7.1", why))),
            Self::Later(why) => delivery.settle_all(&Outcome::Deferred(Reply::local(451, "4.3.0", why))),
            Self::Cancelled => return SubmitResult::Cancelled,
        }
        SubmitResult::Done
    }
}

/// Runs the preprocessors in order, each on what the one before made. `began` counts those that have to be undone.
async fn preprocess(
    filters: &[&Filter],
    delivery: &mut Delivery,
    folder: &Folder,
    began: &mut usize,
) -> Result<(), Stopped> {
    let no_output = |error: std::io::Error| Stopped::Later(format!("there is no file for a filter: {error}"));
    for filter in filters {
        let output = delivery.support().scratch().file().map_err(no_output)?;
        *began += 1;
        let about = about(delivery, folder);
        let running = run(&filter.command, filter.timeout, &about, Source::Delivery(delivery), &output);
        let answer = tokio::select! {
            answer = running => answer,
            () = delivery.cancelled() => return Err(Stopped::Cancelled),
        };
        match answer {
            Answer::Well => {}
            Answer::No(why) => return Err(Stopped::Refused(why)),
            Answer::Later(why) => return Err(Stopped::Later(why)),
        }
        if let Some(content) = Content::of_output(&output, delivery.support().scratch()).map_err(no_output)? {
            delivery.replace_content(content);
        }
    }
    Ok(())
}

fn about<'a>(delivery: &'a Delivery, folder: &'a Folder) -> About<'a> {
    About {
        support: delivery.support(),
        folder,
        id: Some(delivery.submission().message.to_string()),
        sender: &delivery.submission().sender,
        recipients: delivery.recipients().iter().collect(),
    }
}

async fn undo(filter: &Filter, delivery: &Delivery, folder: &Folder) {
    let about = about(delivery, folder);
    silently(&filter.undo, filter, &about, Source::Nothing).await;
}

/// Runs an outbound hook if somebody was served for whom it is.
async fn after(hook: &Filter, delivery: &Delivery, folder: &Folder) {
    let served = delivery.served();
    let owned: Vec<_> = served.iter().map(|recipient| (*recipient).clone()).collect();
    if !served.is_empty() && hook.is_for(&owned) {
        let about = About { recipients: served, ..about(delivery, folder) };
        silently(&hook.command, hook, &about, Source::Delivery(delivery)).await;
    }
}

/// Runs what can change nothing any more: trouble goes to the log.
async fn silently(words: &[String], filter: &Filter, about: &About<'_>, source: Source<'_>) {
    if words.is_empty() {
        return;
    }
    let answer = match about.support.scratch().file() {
        Ok(output) => run(words, filter.timeout, about, source, &output).await,
        Err(error) => Answer::Later(format!("there is no file for its output: {error}")),
    };
    if let Answer::No(why) | Answer::Later(why) = answer {
        tracing::warn!("message {}: a filter had trouble: {why}", about.id.as_deref().unwrap_or_default());
    }
}
