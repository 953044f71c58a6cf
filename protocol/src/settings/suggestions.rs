//! What to write in place of a key that is not known.

/// Columns of a list of keys.
const COLUMNS_MAX: usize = 100;
/// Below the mistake that it belongs to.
const INDENT: &str = "    ";

/// Says that a key is not known: with the known one that it resembles, else with all of them, wrapped.
pub(super) fn unknown(key: &str, known: &[String]) -> String {
    match nearest(key, known) {
        Some(near) => format!("is not known here; did you mean `{near}`?"),
        None => format!("is not known here; allowed are{}", wrapped(known)),
    }
}

/// The known key that is closest to this one, if it is close: a letter in three may differ, and two letters swapped are one slip.
fn nearest<'a>(key: &str, known: &'a [String]) -> Option<&'a str> {
    let slips_max = (key.chars().count() / 3).clamp(1, 3);
    let slips = |candidate: &String| strsim::damerau_levenshtein(key, candidate);
    let by_slips = known.iter().map(|candidate| (slips(candidate), candidate.as_str()));
    by_slips.min().filter(|(slips, _)| *slips <= slips_max).map(|(_, candidate)| candidate)
}

/// The words in lines of their own, indented.
fn wrapped(words: &[String]) -> String {
    let mut text = String::new();
    let mut column = COLUMNS_MAX;
    for (index, word) in words.iter().enumerate() {
        let separator = if index == 0 { "" } else { "," };
        if column + word.len() + 2 > COLUMNS_MAX {
            text.push_str(&format!("{separator}\n{INDENT}{word}"));
            column = INDENT.len() + word.len();
        } else {
            text.push_str(&format!("{separator} {word}"));
            column += word.len() + 2;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> Vec<String> {
        ["claims", "host", "hostname", "max", "password_file", "port", "tls", "tls_ca_file", "username"]
            .map(str::to_owned)
            .to_vec()
    }

    #[test]
    fn misspelt_key_names_the_right_one() {
        for (slip, meant) in [
            ("hosts", "host"),
            ("hots", "host"),
            ("pasword_file", "password_file"),
            ("password-file", "password_file"),
            ("tls_cafile", "tls_ca_file"),
            ("claim", "claims"),
            ("user_name", "username"),
        ] {
            assert_eq!(unknown(slip, &keys()), format!("is not known here; did you mean `{meant}`?"));
        }
    }

    #[test]
    fn strange_key_is_answered_with_all_keys_wrapped() {
        let text = unknown("smarthost", &keys());
        assert!(text.starts_with("is not known here; allowed are\n    claims, host, hostname, max,"), "{text}");
        let many: Vec<String> = (0..60).map(|number| format!("some_key_{number}")).collect();
        let text = unknown("x", &many);
        assert!(text.lines().all(|line| line.len() <= COLUMNS_MAX), "{text}");
        assert!(text.lines().count() > 5 && text.ends_with("some_key_59"), "{text}");
    }
}
