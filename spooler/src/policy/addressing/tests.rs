//! Envelopes on their way in.

use super::aliases::Spot;
use super::rewrite::{Map, Scope};
use super::*;

fn addressing(aliases: &[(&str, &[&str])]) -> Addressing {
    let mut known = Aliases::default();
    let source = known.add_source("aliases".to_owned(), aliases.len());
    for (line, (name, targets)) in (1..).zip(aliases) {
        let targets: Vec<Address> = targets.iter().map(|target| target.parse().unwrap()).collect();
        assert!(known.add(name, &targets, Spot { source, line }));
    }
    Addressing {
        origin: "here.test".to_owned(),
        hostname: "box.here.test".to_owned(),
        aliases: known,
        ..Addressing::default()
    }
}

fn envelope(sender: &str, recipients: &[&str]) -> Envelope {
    let recipients = recipients.iter().map(|text| Recipient::new(text.parse().unwrap())).collect();
    Envelope { sender: sender.to_owned(), recipients, ..Envelope::default() }
}

fn admitted(addressing: &Addressing, recipients: &[&str]) -> Vec<String> {
    let mut envelope = envelope("s@x.test", recipients);
    addressing.admit(&mut envelope, true).unwrap();
    envelope.recipients.iter().map(|recipient| recipient.address.to_string()).collect()
}

#[test]
fn unqualified_addresses_get_the_origin() {
    let mut envelope = envelope("cron", &["root", "\"a@b\"", "a@b", "FAX:+1"]);
    addressing(&[]).admit(&mut envelope, false).unwrap();
    let recipients: Vec<String> = envelope.recipients.iter().map(|recipient| recipient.address.to_string()).collect();
    assert_eq!(recipients, ["root@here.test", "\"a@b\"@here.test", "a@b", "FAX:+1"]);
    assert_eq!(envelope.sender, "cron@here.test");
    assert!(envelope.recipients.iter().all(|recipient| recipient.orcpt.is_none()), "nobody was sent elsewhere");
}

#[test]
fn the_null_sender_stays_null() {
    let mut envelope = envelope("", &["a@b"]);
    let rewrite = Rewrite {
        sender: Map::new(vec![("*".to_owned(), "x@y".to_owned())], "here.test", Scope::Both),
        ..Rewrite::default()
    };
    Addressing { rewrite, ..addressing(&[]) }.admit(&mut envelope, true).unwrap();
    assert_eq!(envelope.sender, "");
}

#[test]
fn each_recipient_is_kept_once() {
    let once = admitted(&addressing(&[]), &["a@B.test", "a@b.test", "A@b.test", "root", "root@HERE.test"]);
    assert_eq!(once, ["a@B.test", "A@b.test", "root@here.test"]);
}

#[test]
fn aliases_lead_from_any_local_domain() {
    let known = addressing(&[("root", &["ann", "admin@x.test"]), ("ann", &["ann@x.test"]), ("fax", &["FAX:+1"])]);
    for address in ["root", "Root@here.test", "root@BOX.here.test", "root@localhost", "root+cron"] {
        assert_eq!(admitted(&known, &[address]), ["ann@x.test", "admin@x.test"], "{address}");
    }
    assert_eq!(admitted(&known, &["root@x.test", "fax"]), ["root@x.test", "FAX:+1"]);
    assert_eq!(admitted(&known, &["root", "ann@x.test"]), ["ann@x.test", "admin@x.test"], "each once");
}

#[test]
fn circles_end_and_lose_no_mail() {
    let known = addressing(&[("me", &["me", "copy@x.test"]), ("a", &["b"]), ("b", &["a"]), ("c", &["c+more"])]);
    assert_eq!(admitted(&known, &["me"]), ["me@here.test", "copy@x.test"]);
    assert_eq!(admitted(&known, &["a"]), ["a@here.test"]);
    assert_eq!(admitted(&known, &["c"]), ["c+more@here.test"]);
}

#[test]
fn too_many_recipients_of_aliases_are_refused() {
    let members: Vec<String> = (0..=RECIPIENTS_MAX).map(|number| format!("m{number}@x.test")).collect();
    let members: Vec<&str> = members.iter().map(String::as_str).collect();
    let known = addressing(&[("list", &members), ("most", members.get(1..).unwrap())]);
    assert_eq!(admitted(&known, &["most"]).len(), RECIPIENTS_MAX);
    assert_eq!(known.admit(&mut envelope("", &["list"]), true), Err(TooMany));
    // Breadth does not explode: every name leads to all the others.
    let names: Vec<String> = (0..15).map(|number| format!("n{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let clique: Vec<(&str, &[&str])> = names.iter().map(|name| (*name, names.as_slice())).collect();
    assert!(admitted(&addressing(&clique), &["n0"]).len() <= names.len());
}

#[test]
fn the_original_recipient_is_kept_for_reports() {
    let known = addressing(&[("root", &["ann@x.test"])]);
    let mut given = envelope("s@x.test", &["root", "ROOT+a=b", "other@x.test"]);
    given.recipients[2].orcpt = Some("rfc822;given".to_owned());
    known.admit(&mut given, true).unwrap();
    assert_eq!(given.recipients[0].orcpt.as_deref(), Some("rfc822;root@here.test"));
    assert_eq!(given.recipients[1].orcpt.as_deref(), Some("rfc822;given"));
    let mut odd = envelope("s@x.test", &["root+a=b"]);
    known.admit(&mut odd, true).unwrap();
    assert_eq!(odd.recipients[0].orcpt.as_deref(), Some("rfc822;root+2Ba+3Db@here.test"));
}

#[test]
fn rewriting_is_for_submissions() {
    let map = |from: &str, to: &str| Map::new(vec![(from.to_owned(), to.to_owned())], "here.test", Scope::Both);
    let rewrite = Rewrite {
        sender: map("root", "alerts@example.org"),
        recipient: map("@old.test", "@new.test"),
        ..Rewrite::default()
    };
    let known = Addressing { rewrite, ..addressing(&[]) };
    let of = |submission| {
        let mut given = envelope("root", &["a@old.test"]);
        known.admit(&mut given, submission).unwrap();
        (given.sender, given.recipients[0].address.to_string(), given.recipients[0].orcpt.clone())
    };
    let original = Some("rfc822;a@old.test".to_owned());
    assert_eq!(of(true), ("alerts@example.org".to_owned(), "a@new.test".to_owned(), original));
    assert_eq!(of(false), ("root@here.test".to_owned(), "a@old.test".to_owned(), None));
}

#[test]
fn a_copy_goes_along_without_reports() {
    let known = Addressing { always_bcc: vec!["archive@x.test".parse().unwrap()], ..addressing(&[]) };
    let mut given = envelope("s@x.test", &["a@b"]);
    known.admit(&mut given, false).unwrap();
    assert_eq!(given.recipients[1].address.text(), "archive@x.test");
    assert!(given.recipients[1].notify.unwrap().is_never());
    assert_eq!(admitted(&known, &["archive@x.test"]), ["archive@x.test"]);
}

#[test]
fn way_of_a_name_is_shown() {
    let known = addressing(&[("root", &["ann", "admin@x.test"]), ("ann", &["root"])]);
    let steps = known.aliases.trace("root", &known);
    let shown: Vec<(usize, &str, Option<&str>, bool)> =
        steps.iter().map(|step| (step.depth, step.address.as_str(), step.written.as_deref(), step.circle)).collect();
    let expected = [
        (0, "root@here.test", Some("aliases:1"), false),
        (1, "ann@here.test", Some("aliases:2"), false),
        (2, "root@here.test", None, true),
        (1, "admin@x.test", None, false),
    ];
    assert_eq!(shown, expected);
}
