//! Where the maildir of a recipient is: pure.
//!
//! ```text
//!   /srv/mail/{domain}/{local}/Maildir        {home}/Maildir
//!   └─base──┘ └────────below─────────┘        └base┘ └below┘
//! ```
//!
//! The administrator vouches for the base, which is the same for all or the home folder of the recipient. What is below depends on an address, and perhaps on users who own it: it is entered
//! folder by folder and never through a symbolic link. A value that could leave its place in the path is refused here.

use std::path::PathBuf;

use spooler_protocol::message::Address;

use crate::provider::local::parts::Parts;
use crate::provider::local::template::{Template, TemplateError};

/// What may stand in braces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Name {
    Local,
    Domain,
}

/// The home folder of the system user that is named like the local part.
const HOME: &str = "{home}";
/// Where homes usually are.
const HOMES: &str = "/home";

const NAMES: &[(&str, Name)] = &[("local", Name::Local), ("domain", Name::Domain)];

/// The setting `path`, read.
#[derive(Clone, Debug)]
pub(super) struct PathTemplate {
    base: Base,
    below: Vec<Template<Name>>,
}

/// What the path begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Base {
    /// This folder.
    Fixed(PathBuf),
    /// The home folder of the recipient, who has to be a system user.
    Home,
}

/// The maildir of one recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// A folder that must be there.
    pub(super) base: Base,
    /// The folders from there to the maildir itself; at least one.
    pub(super) below: Vec<Step>,
    /// The local part, which may be the name of a system user.
    pub(super) user: String,
}

/// One folder on the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Step {
    /// Its name: no slash, not `.` or `..`.
    pub(super) name: String,
    /// Whether it belongs to the recipient: the first with `{local}` and all below it, or the maildir itself.
    pub(super) own: bool,
}

/// Why the setting `path` is no path of maildirs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum PathError {
    #[error("is {0:?}; give an absolute path such as \"/var/mail/{{local}}\"")]
    Relative(String),
    #[error("holds \"..\"; give the path without it")]
    Parent,
    #[error("names no folder")]
    Root,
    #[error("holds {{home}} in the middle; it can only be the beginning, as in \"{{home}}/Maildir\"")]
    Home,
    #[error("holds a control character")]
    Control,
    #[error(transparent)]
    Template(#[from] TemplateError),
}

/// Why an address has no maildir.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum PlaceError {
    #[error("The address has no local part")]
    NoLocal,
    #[error("The address has no domain, and the path of maildirs needs one")]
    NoDomain,
    #[error("The address cannot be part of a path")]
    Unsafe,
}

/// How local parts become names of folders.
#[derive(Clone, Debug)]
pub(super) struct LocalRule {
    /// Whether letters become lower case.
    pub(super) lower: bool,
    /// The first of these, and what is behind it, is left out.
    pub(super) delimiters: String,
}

impl PathTemplate {
    /// Reads the setting.
    pub(super) fn parse(text: &str) -> Result<Self, PathError> {
        let at_home = text.strip_prefix(HOME).filter(|rest| rest.is_empty() || rest.starts_with('/'));
        let rest = at_home.or_else(|| text.strip_prefix('/')).ok_or_else(|| PathError::Relative(text.to_owned()))?;
        if rest.contains(HOME) {
            return Err(PathError::Home);
        }
        if text.contains(char::is_control) {
            return Err(PathError::Control);
        }
        let names: Vec<&str> = rest.split('/').filter(|name| !name.is_empty() && *name != ".").collect();
        if names.contains(&"..") {
            return Err(PathError::Parent);
        }
        let templates = names.into_iter().map(|name| Template::parse(name, NAMES)).collect::<Result<Vec<_>, _>>()?;
        let last = templates.len().checked_sub(1).ok_or(PathError::Root)?;
        if at_home.is_some() {
            return Ok(Self { base: Base::Home, below: templates });
        }
        let fixed = templates.iter().take_while(|template| template.names().next().is_none()).count().min(last);
        let mut base = PathBuf::from("/");
        base.extend(templates.iter().take(fixed).map(|template| template.fill(|_| "")));
        Ok(Self { base: Base::Fixed(base), below: templates.into_iter().skip(fixed).collect() })
    }

    /// What the path begins with.
    pub(super) fn base(&self) -> &Base {
        &self.base
    }

    /// True where maildirs lie in home folders, so that a recipient who is no system user cannot have one.
    pub(super) fn is_in_homes(&self) -> bool {
        match &self.base {
            Base::Home => true,
            Base::Fixed(base) => {
                let first = self.below.first();
                base.as_os_str() == HOMES && first.is_some_and(|first| first.names().any(|name| name == Name::Local))
            }
        }
    }

    /// The maildir of an address.
    pub(super) fn place(&self, address: &Address, rule: &LocalRule) -> Result<Place, PlaceError> {
        let Parts { mut local, domain } = Parts::of(address);
        if let Some(at) = local.find(|c| rule.delimiters.contains(c)).filter(|at| *at > 0) {
            local.truncate(at);
        }
        if rule.lower {
            local = local.to_lowercase();
        }
        let needs = |name| self.below.iter().any(|template| template.names().any(|found| found == name));
        if local.is_empty() {
            return Err(PlaceError::NoLocal);
        }
        if domain.is_empty() && needs(Name::Domain) {
            return Err(PlaceError::NoDomain);
        }
        if (needs(Name::Local) && !is_safe(&local)) || (needs(Name::Domain) && !is_safe(&domain)) {
            return Err(PlaceError::Unsafe);
        }
        let mut own = false;
        let mut below = Vec::with_capacity(self.below.len());
        for (index, template) in self.below.iter().enumerate() {
            own = own
                || self.base == Base::Home
                || index + 1 == self.below.len()
                || template.names().any(|name| name == Name::Local);
            let name = template.fill(|name| match name {
                Name::Local => &local,
                Name::Domain => &domain,
            });
            below.push(Step { name, own });
        }
        Ok(Place { base: self.base.clone(), below, user: local })
    }
}

/// Whether a value from an address can be (part of) the name of a folder and nothing else.
fn is_safe(value: &str) -> bool {
    !value.is_empty() && !value.starts_with('.') && !value.contains(|c: char| c == '/' || c.is_control())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule() -> LocalRule {
        LocalRule { lower: true, delimiters: "+".to_owned() }
    }

    fn place(path: &str, address: &str) -> Result<Place, PlaceError> {
        PathTemplate::parse(path).unwrap().place(&address.parse().unwrap(), &rule())
    }

    fn steps(place: &Place) -> Vec<(&str, bool)> {
        place.below.iter().map(|step| (step.name.as_str(), step.own)).collect()
    }

    #[test]
    fn the_base_ends_where_the_address_begins() {
        let place = place("/srv//mail/./{domain}/{local}/Maildir", "Bob+list@Example.ORG").unwrap();
        assert_eq!(place.base, Base::Fixed(PathBuf::from("/srv/mail")));
        assert_eq!(steps(&place), [("example.org", false), ("bob", true), ("Maildir", true)]);
        assert_eq!(place.user, "bob");
    }

    #[test]
    fn a_path_without_placeholders_is_one_maildir_for_all() {
        let place = place("/srv/archive", "../x@d").unwrap();
        assert_eq!((place.base.clone(), steps(&place)), (Base::Fixed(PathBuf::from("/srv")), vec![("archive", true)]));
    }

    #[test]
    fn homes_are_recognized() {
        let place = place("{home}/mail/{domain}", "Bob@D").unwrap();
        assert_eq!((&place.base, place.user.as_str()), (&Base::Home, "bob"));
        assert_eq!(steps(&place), [("mail", true), ("d", true)]);
        for (path, in_homes) in [
            ("{home}/Maildir", true),
            ("/home/{local}/Maildir", true),
            ("/home/{local}", true),
            ("/home/mail/{local}", false),
            ("/home/{domain}/{local}", false),
            ("/var/mail/{local}", false),
            ("/home/all", false),
        ] {
            assert_eq!(PathTemplate::parse(path).unwrap().is_in_homes(), in_homes, "{path}");
        }
    }

    #[test]
    fn no_address_leaves_its_place() {
        for address in ["../x@d", ".@d", "..@d", ".bob@d", "a/b@d", "/@d", "\"../x\"@d", "\"\\../x\"@d", "FILE:/etc"] {
            assert_eq!(place("/m/{local}", address), Err(PlaceError::Unsafe), "{address}");
        }
        for address in ["a@..", "a@../../etc", "a@.d"] {
            assert_eq!(place("/m/{domain}/{local}", address), Err(PlaceError::Unsafe), "{address}");
        }
        assert_eq!(place("/m/{local}", "@d"), Err(PlaceError::NoLocal));
        assert_eq!(place("/m/{domain}/{local}", "bob"), Err(PlaceError::NoDomain));
        assert!(place("/m/{local}", "bob").is_ok());
    }

    #[test]
    fn a_tag_alone_is_no_tag() {
        assert_eq!(place("/m/{local}", "+tag@d").unwrap().user, "+tag");
    }

    #[test]
    fn a_bad_path_is_refused() {
        for path in [
            "mail/{local}",
            "/mail/../{local}",
            "/",
            "",
            "/mail/{user}",
            "/mail/{local",
            "/mail/\0/{local}",
            "{home}",
            "{home}/",
            "/x/{home}/y",
            "{home}x/y",
            "{home}/{home}/x",
            "{home}/../x",
        ] {
            assert!(PathTemplate::parse(path).is_err(), "{path:?}");
        }
    }
}
