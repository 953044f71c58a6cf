//! Texts with placeholders such as `{local}`: read once at logon, filled in for each delivery.
//!
//! `{{` and `}}` stand for the braces themselves. What is filled in is never read for placeholders again.

/// A text with placeholders of the kinds `N`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::provider) struct Template<N> {
    parts: Vec<Part<N>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part<N> {
    Text(String),
    Value(N),
}

/// Why a text is not a template.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::provider) enum TemplateError {
    /// A placeholder that is not known here.
    #[error("holds the placeholder {{{name}}}; allowed are {allowed} (write {{{{ for a brace)")]
    Unknown { name: String, allowed: String },
    /// A brace without its partner.
    #[error("holds a brace without its partner; write {{{{ or }}}} for a brace")]
    Brace,
}

impl<N: Copy + PartialEq> Template<N> {
    /// Reads a text whose placeholders are among `names`.
    pub(in crate::provider) fn parse(text: &str, names: &[(&str, N)]) -> Result<Self, TemplateError> {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            let (before, brace) = rest.split_at(at);
            literal.push_str(before);
            if let Some(tail) = brace.strip_prefix("{{").or_else(|| brace.strip_prefix("}}")) {
                literal.push_str(brace.get(..1).unwrap_or_default());
                rest = tail;
                continue;
            }
            let (name, tail) =
                brace.strip_prefix('{').and_then(|inner| inner.split_once('}')).ok_or(TemplateError::Brace)?;
            let Some((_, value)) = names.iter().find(|(known, _)| *known == name) else {
                let allowed: Vec<String> = names.iter().map(|(known, _)| format!("{{{known}}}")).collect();
                return Err(TemplateError::Unknown { name: name.to_owned(), allowed: allowed.join(", ") });
            };
            if !literal.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut literal)));
            }
            parts.push(Part::Value(*value));
            rest = tail;
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            parts.push(Part::Text(literal));
        }
        Ok(Self { parts })
    }

    /// Fills in the placeholders.
    pub(in crate::provider) fn fill<'a>(&'a self, value: impl Fn(N) -> &'a str) -> String {
        self.parts
            .iter()
            .map(|part| match part {
                Part::Text(text) => text.as_str(),
                Part::Value(name) => value(*name),
            })
            .collect()
    }

    /// The placeholders, in order.
    pub(in crate::provider) fn names(&self) -> impl Iterator<Item = N> {
        self.parts.iter().filter_map(|part| match part {
            Part::Text(_) => None,
            Part::Value(name) => Some(*name),
        })
    }

    /// The placeholder that the text begins with.
    pub(in crate::provider) fn first(&self) -> Option<N> {
        match self.parts.first() {
            Some(Part::Value(name)) => Some(*name),
            Some(Part::Text(_)) | None => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: &[(&str, char)] = &[("local", 'l'), ("domain", 'd')];

    fn fill(text: &str) -> String {
        let value = |name| if name == 'l' { "{domain}" } else { "example.org" };
        Template::parse(text, NAMES).unwrap().fill(value)
    }

    #[test]
    fn placeholders_are_filled_in_once() {
        assert_eq!(fill("{domain}/x-{local}"), "example.org/x-{domain}");
        assert_eq!(fill("plain"), "plain");
        assert_eq!(fill("{{local}} }}"), "{local} }");
    }

    #[test]
    fn what_is_no_placeholder_says_what_is() {
        let error = Template::parse("{user}", NAMES).unwrap_err();
        assert_eq!(
            error.to_string(),
            "holds the placeholder {user}; allowed are {local}, {domain} (write {{ for a brace)"
        );
        for text in ["{local", "local}", "{", "a}b"] {
            assert_eq!(Template::parse(text, NAMES), Err(TemplateError::Brace), "{text:?}");
        }
    }

    #[test]
    fn names_and_the_first_one_are_known() {
        let template = Template::parse("{local}@{domain}", NAMES).unwrap();
        assert_eq!(template.names().collect::<String>(), "ld");
        assert_eq!(template.first(), Some('l'));
        assert_eq!(Template::parse("-{local}", NAMES).unwrap().first(), None);
    }
}
