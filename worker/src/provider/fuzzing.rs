//! The tables of providers in a configuration: whatever stands there, mistakes are sentences and what is in effect can be used again.

use spooler_protocol::fuzzing::sections;
use spooler_protocol::settings::{Findings, Settings};
use toml::Table;

use super::{KINDS, check};

/// Input: the kind, then its table as TOML.
pub(crate) fn settings(input: &[u8]) {
    let [kind, text] = sections(input);
    let (kind, text) = (String::from_utf8_lossy(kind), String::from_utf8_lossy(text));
    let Some(kind) = KINDS.iter().find(|known| **known == kind) else { return };
    let Ok(table) = text.parse::<Table>() else { return };
    let findings = read(kind, table);
    for mistake in &findings.mistakes {
        assert!(!mistake.message.trim().is_empty() && !mistake.message.contains('\n'), "{mistake:?}");
    }
    if !findings.mistakes.is_empty() || text.contains("(secret)") {
        return;
    }
    // Secrets are left out, and what users name freely may need quotes that only a whole configuration has.
    let shown = findings.effective.iter().filter(|setting| setting.value != "\"(secret)\"");
    for setting in shown.clone() {
        let line = format!("key = {}", setting.value);
        assert!(line.parse::<Table>().is_ok(), "{line:?} is no TOML");
    }
    let bare = |key: &str| key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte));
    let has_secret = shown.clone().count() < findings.effective.len();
    if has_secret || !findings.effective.iter().all(|setting| bare(&setting.key)) {
        return;
    }
    let again: String = shown.map(|setting| format!("{} = {}\n", setting.key, setting.value)).collect();
    let again = read(kind, again.parse().expect("what is in effect is TOML"));
    assert!(again.mistakes.is_empty(), "{:?}", again.mistakes);
    assert_eq!(again.effective, findings.effective);
}

fn read(kind: &str, table: Table) -> Findings {
    check(kind, Settings::new(table)).expect("a kind that is known")
}
