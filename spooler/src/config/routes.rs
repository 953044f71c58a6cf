//! Routes that are not what they seem: claims that never count, providers that get nothing, mail that has no way out.

use spooler_protocol::claims::{ANY_TYPE, Pattern};
use spooler_protocol::message::SMTP;

use super::notes::Notes;
use super::{Config, Provider};

/// Warns of routes that are not what they seem. Where only a running worker knows what it serves, nothing is said.
pub(super) fn check(config: &Config, notes: &mut Notes) {
    let providers = in_order(config);
    check_claims(&providers, notes);
    check_types(&providers, notes);
    check_mail(&providers, notes);
}

/// Enabled providers in the order in which they are tried.
fn in_order(config: &Config) -> Vec<&Provider> {
    let mut providers: Vec<&Provider> = config.providers.iter().collect();
    if let Some(order) = &config.routing.order {
        providers.sort_by_key(|provider| order.iter().position(|name| *name == provider.name));
    }
    providers.retain(|provider| provider.enabled);
    providers
}

/// The first claim that fits wins, so one further down that it covers has no effect.
fn check_claims(providers: &[&Provider], notes: &mut Notes) {
    let mut claimed: Vec<(&Pattern, &str)> = Vec::new();
    for provider in providers {
        let key = format!("provider.{}.claims", provider.name);
        for pattern in &provider.claims {
            let Some((first, by)) = claimed.iter().find(|(first, _)| first.covers(pattern)) else { continue };
            let what = if *first == pattern { "too".to_owned() } else { format!("with \"{first}\"") };
            let advice =
                if *by == provider.name { "remove it" } else { "move this table before that one, or remove the claim" };
            notes.warn(&key, format!("{key} has \"{pattern}\", which provider.{by} claims before {what}; {advice}"));
        }
        claimed.extend(provider.claims.iter().map(|pattern| (pattern, provider.name.as_str())));
    }
}

/// Of two providers for all mail, the second gets nothing.
fn check_types(providers: &[&Provider], notes: &mut Notes) {
    let mut served: Vec<(&str, &str)> = Vec::new();
    for provider in providers {
        let Some(types) = provider.serves() else { continue };
        let place = format!("provider.{}", provider.name);
        if types.is_empty() && provider.claims.is_empty() && provider.delivers() {
            notes.warn(
                &place,
                format!(
                    "{place} has neither claims nor address_types, so it gets no mail; add the claims of its recipients"
                ),
            );
        }
        let taken =
            |kind: &str| served.iter().find(|(first, _)| *first == ANY_TYPE || *first == kind).map(|(_, by)| *by);
        let by: Vec<Option<&str>> = types.iter().map(|kind| taken(kind)).collect();
        if let (Some(Some(by)), true) = (by.first(), by.iter().all(Option::is_some)) {
            let rest = if provider.claims.is_empty() { "gets no mail" } else { "gets only what it claims" };
            notes.warn(
                &place,
                format!("{place} {rest}: provider.{by} stands before it and gets all mail for {}", types.join(", ")),
            );
        }
        served.extend(types.iter().map(|kind| (kind.as_str(), provider.name.as_str())));
    }
}

/// A spooler of which no part sends mail into the world cannot send its reports either.
fn check_mail(providers: &[&Provider], notes: &mut Notes) {
    let serves_mail = |provider: &&Provider| {
        let claims_all = provider.claims.iter().any(|claim| matches!(claim, Pattern::Any));
        claims_all || provider.serves().is_none_or(|types| types.iter().any(|kind| kind == SMTP || kind == ANY_TYPE))
    };
    if providers.iter().any(|provider| provider.delivers()) && !providers.iter().any(serves_mail) {
        let text = "no provider serves mail that is not claimed: everything else is refused at submission, and senders elsewhere get no \
                    reports; add a [provider.NAME] of kind \"smtp\" without claims if that is not meant";
        notes.warn("provider", text.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    /// The warnings of a configuration, as if its worker had been asked.
    fn warnings(text: &str) -> Vec<String> {
        let usual = |kind: &str| match kind {
            "smtp" => Some(vec!["SMTP".to_owned()]),
            "other" => None,
            _ => Some(Vec::new()),
        };
        let (mut config, mut notes) = super::super::read(text, Path::new("x.toml")).unwrap();
        for provider in &mut config.providers {
            provider.usual_types = usual(&provider.kind);
        }
        super::check(&config, &mut notes);
        let of_routes = |message: &String| !message.starts_with("mail.hostname");
        notes.finish().unwrap().into_iter().map(|problem| problem.message).filter(of_routes).collect()
    }

    fn provider(name: &str, kind: &str, keys: &str) -> String {
        format!("[provider.{name}]\nkind = '{kind}'\n{keys}\n")
    }

    fn one(text: &str) -> String {
        let found = warnings(text);
        assert_eq!(found.len(), 1, "{found:?}");
        found.into_iter().next().unwrap()
    }

    #[test]
    fn covered_claim_is_warned_of() {
        let relay = provider("relay", "smtp", "");
        for (first, second) in [
            ("@x.test", "a@x.test"),
            ("@.x.test", "@a.x.test"),
            ("root@", "root@x.test"),
            ("*", "FAX:1"),
            ("FAX:", "FAX:+49"),
        ] {
            let [a, b] = [("a", first), ("b", second)]
                .map(|(name, claim)| provider(name, "pipe", &format!("claims = ['{claim}']")));
            let text = one(&format!("{a}{b}{relay}"));
            assert!(text.contains(&format!("\"{second}\", which provider.a claims before with \"{first}\"")), "{text}");
            assert_eq!(warnings(&format!("{b}{a}{relay}")), [""; 0], "in this order both count");
            let ordered = format!("[routing]\norder = ['b', 'a', 'relay']\n{a}{b}{relay}");
            assert_eq!(warnings(&ordered), [""; 0]);
        }
    }

    #[test]
    fn second_catch_all_is_warned_of() {
        let text = one(&format!("{}{}", provider("one", "smtp", ""), provider("two", "smtp", "")));
        assert!(text.starts_with("provider.two gets no mail: provider.one stands before it"), "{text}");
        let keys = "claims = ['@x']\naddress_types = ['SMTP']";
        let text = one(&format!("{}{}", provider("one", "smtp", ""), provider("two", "smtp", keys)));
        assert!(text.contains("gets only what it claims"), "{text}");
        let with_claims = provider("part", "smtp", "claims = ['@x']");
        assert_eq!(warnings(&format!("{with_claims}{}", provider("two", "smtp", ""))), [""; 0]);
        let off = provider("one", "smtp", "enabled = false");
        assert_eq!(warnings(&format!("{off}{}", provider("two", "smtp", ""))), [""; 0]);
    }

    #[test]
    fn mail_without_a_way_is_warned_of() {
        let text = one(&provider("part", "smtp", "claims = ['@x']"));
        assert!(text.starts_with("no provider serves mail that is not claimed"), "{text}");
        assert_eq!(warnings(&provider("part", "smtp", "address_types = []")).len(), 2);
        assert_eq!(warnings(&provider("all", "pipe", "claims = ['*']")), [""; 0]);
        assert_eq!(warnings(&provider("who", "other", "")), [""; 0], "only its worker knows");
    }

    #[test]
    fn provider_that_gets_no_mail_is_warned_of() {
        let text = one(&format!("{}{}", provider("home", "maildir", ""), provider("relay", "smtp", "")));
        assert!(text.starts_with("provider.home has neither claims nor address_types"), "{text}");
        let listens = provider("in", "smtp-in", "");
        assert_eq!(warnings(&format!("{listens}{}", provider("relay", "smtp", ""))), [""; 0]);
    }
}
