//! Addresses and the places of maildirs: no address leads out of its place.

use spooler_protocol::fuzzing::sections;
use spooler_protocol::message::Address;

use super::place::{Base, LocalRule, PathTemplate};

/// Input: the path and the delimiters (a line each), then the address.
pub(crate) fn place(input: &[u8]) {
    let [setting, address] = sections(input);
    let setting = String::from_utf8_lossy(setting);
    let (path, delimiters) = setting.split_once('\n').unwrap_or((&setting, ""));
    let Ok(template) = PathTemplate::parse(path) else { return };
    let Ok(address) = String::from_utf8_lossy(address).parse::<Address>() else { return };
    for lower in [true, false] {
        let rule = LocalRule { lower, delimiters: delimiters.to_owned() };
        let Ok(place) = template.place(&address, &rule) else { continue };
        assert!(place.base == *template.base());
        let levels = path.split('/').filter(|name| !name.is_empty() && *name != ".").count();
        let in_base = match &place.base {
            Base::Home => 1,
            Base::Fixed(base) => base.components().count() - 1,
        };
        assert_eq!(in_base + place.below.len(), levels);
        assert!(!place.user.is_empty());
        for step in &place.below {
            let name = step.name.as_str();
            assert!(!name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\0']), "{place:?}");
        }
        assert!(place.below.last().is_some_and(|step| step.own));
    }
}
