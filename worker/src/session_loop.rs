//! A provider's own loop: logs on, takes orders, logs off.
//!
//! ```text
//!   logging on ──▶ serving ──Logoff──▶ draining: what is under way ends ──▶ logoff(false) ──▶ gone
//!       │              │                  │                                     │
//!       │              └──────────────────┴───Logoff in a hurry─────────────────┘
//!       │                                 ▼
//!       └──any Logoff──▶ gone ◀── logoff(true) ◀── what is under way is dropped
//! ```

use std::rc::Rc;
use std::time::Duration;

use spooler_protocol::from_worker::{FromWorker, LogonError};
use spooler_protocol::settings::Settings;
use spooler_protocol::to_worker::{ToWorker, Welcome};

use crate::calls::{Calls, announcement};
use crate::contract::Provider;
use crate::filter::Filters;
use crate::orders::{Leave, Orders};
use crate::runtime::Ended;
use crate::support::Support;

/// How long `logoff` may take in a hurry. A provider that waits for ever there is left as it is.
const HURRY_MAX: Duration = Duration::from_secs(3);

/// Runs a provider from logon to logoff.
pub(crate) async fn session<P: Provider>(support: Support, welcome: Welcome, orders: Rc<Orders>) -> Ended {
    let logged_on = tokio::select! {
        biased;
        logged_on = logon::<P>(&support, &welcome) => logged_on,
        () = orders.left() => {
            support.tell_everything();
            support.send(&FromWorker::LoggedOff);
            return Ended::LoggedOff;
        }
    };
    let provider = match logged_on {
        Ok(provider) => Rc::new(provider),
        Err(error) => {
            support.tell_everything();
            support.send(&FromWorker::LogonFailed(error.in_plain_words()));
            return Ended::LogonFailed;
        }
    };
    support.send(&FromWorker::LoggedOn(announcement(&*provider)));
    let calls = Calls::new(Rc::clone(&provider), support.clone());
    let leave = serve(&calls, &orders, Leave::Softly).await;
    support.directions().end();
    calls.close();
    let softly = async {
        calls.running().finish().await;
        provider.logoff(false).await;
    };
    let in_a_hurry = leave == Leave::InAHurry
        || tokio::select! {
            biased;
            _ = serve(&calls, &orders, Leave::InAHurry) => true,
            () = softly => false,
        };
    if in_a_hurry {
        calls.running().stop().await;
        if tokio::time::timeout(HURRY_MAX, provider.logoff(true)).await.is_err() {
            tracing::warn!("the provider does not log off; leaving without it");
        }
    }
    support.tell_everything();
    support.send(&FromWorker::LoggedOff);
    Ended::LoggedOff
}

/// Acts on orders until the session is to end in this way, or more urgently. Whoever is in a hurry leaves orders undone.
async fn serve<P: Provider>(calls: &Calls<P>, orders: &Orders, until: Leave) -> Leave {
    loop {
        if orders.leave() == Some(Leave::InAHurry) {
            return Leave::InAHurry;
        }
        match orders.next() {
            Some(ToWorker::Logoff { .. }) if until == Leave::Softly => return Leave::Softly,
            // It is leaving.
            Some(ToWorker::Logoff { .. }) => {}
            Some(order) => calls.take(order),
            None => orders.arrived().await,
        }
    }
}

async fn logon<P: Provider>(support: &Support, welcome: &Welcome) -> Result<P, LogonError> {
    let table =
        welcome.settings.parse().map_err(|error: toml::de::Error| LogonError::Unconfigured(error.to_string()))?;
    let mut reader = Settings::new(table);
    let settings = P::settings(&mut reader);
    support.set_filters(Filters::read(&mut reader));
    let mistakes = reader.finish().mistakes;
    if !mistakes.is_empty() {
        let lines: Vec<String> = mistakes.into_iter().map(|wrong| format!("{} {}", wrong.key, wrong.message)).collect();
        return Err(LogonError::Unconfigured(lines.join("; ")));
    }
    P::logon(support.clone(), settings).await
}
