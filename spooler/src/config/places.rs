//! Where in the file each key stands, so that a mistake can name its line.
//!
//! Keys are dotted paths as [`spooler_protocol::settings`] writes them: `provider.relay.tls`. The values of a list have their number
//! as last part: `provider.relay.claims.0`.

use std::collections::HashMap;

use toml::de::{DeTable, DeValue};

/// The place of every key of one file.
#[derive(Debug)]
pub(super) struct Places {
    /// Byte offset of each key; of a table, of its name in the header.
    offsets: HashMap<String, usize>,
    /// Byte offset at which each line starts.
    line_starts: Vec<usize>,
}

impl Places {
    /// The places of all keys of `table`, which was parsed from `text`.
    pub(super) fn new(text: &str, table: &DeTable<'_>) -> Self {
        let mut offsets = HashMap::new();
        note_table("", table, &mut offsets);
        Self { offsets, line_starts: line_starts(text) }
    }

    /// The line of a key; if it is not in the file, the line of the innermost table around it that is.
    pub(super) fn line(&self, key: &str) -> Option<usize> {
        let mut key = key;
        loop {
            if let Some(offset) = self.offsets.get(key) {
                return Some(line_at(&self.line_starts, *offset));
            }
            key = key.rsplit_once('.')?.0;
        }
    }

    /// Whether the file has this key.
    pub(super) fn has(&self, key: &str) -> bool {
        self.offsets.contains_key(key)
    }

    /// Something to order keys by as they stand in the file.
    pub(super) fn offset(&self, key: &str) -> usize {
        self.offsets.get(key).copied().unwrap_or(usize::MAX)
    }
}

fn note_table(prefix: &str, table: &DeTable<'_>, offsets: &mut HashMap<String, usize>) {
    for (key, value) in table {
        let path = format!("{prefix}{}", key.get_ref());
        note_value(&path, value.get_ref(), offsets);
        offsets.insert(path, key.span().start);
    }
}

fn note_value(path: &str, value: &DeValue<'_>, offsets: &mut HashMap<String, usize>) {
    match value {
        DeValue::Table(table) => note_table(&format!("{path}."), table, offsets),
        DeValue::Array(values) => {
            for (index, value) in values.iter().enumerate() {
                let path = format!("{path}.{index}");
                note_value(&path, value.get_ref(), offsets);
                offsets.insert(path, value.span().start);
            }
        }
        DeValue::String(_) | DeValue::Integer(_) | DeValue::Float(_) | DeValue::Boolean(_) | DeValue::Datetime(_) => {}
    }
}

fn line_starts(text: &str) -> Vec<usize> {
    let after_newlines = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1);
    std::iter::once(0).chain(after_newlines).collect()
}

fn line_at(line_starts: &[usize], offset: usize) -> usize {
    line_starts.partition_point(|start| *start <= offset)
}

/// The line, counted from 1, in which a byte of a text stands.
pub(super) fn line_of(text: &str, offset: usize) -> usize {
    line_at(&line_starts(text), offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
[spool]
path = '/s'

[provider.b]
claims = [
  '@x',
  '@y',
]
auth.user = 'u'
[provider.a]
env = { A = '1',
        B = '2' }
";

    fn places() -> Places {
        Places::new(TEXT, DeTable::parse(TEXT).unwrap().get_ref())
    }

    #[test]
    fn every_key_has_its_line() {
        let places = places();
        for (key, line) in [
            ("spool", 1),
            ("spool.path", 2),
            ("provider.b", 4),
            ("provider.b.claims", 5),
            ("provider.b.claims.0", 6),
            ("provider.b.claims.1", 7),
            ("provider.b.auth.user", 9),
            ("provider.a.env.A", 11),
            ("provider.a.env.B", 12),
        ] {
            assert_eq!(places.line(key), Some(line), "{key}");
        }
    }

    #[test]
    fn a_missing_key_has_the_line_of_its_table() {
        let places = places();
        assert_eq!(places.line("provider.b.kind"), Some(4));
        assert_eq!(places.line("provider.b.auth.password"), Some(9));
        assert_eq!(places.line("spool.deep.deeper"), Some(1));
        assert_eq!(places.line("retry.first"), None);
    }

    #[test]
    fn offsets_keep_the_order_of_the_file() {
        let places = places();
        assert!(places.offset("provider.b") < places.offset("provider.a"));
        assert_eq!(places.offset("provider.c"), usize::MAX);
    }

    #[test]
    fn lines_count_from_one() {
        assert_eq!((line_of("a\nb", 0), line_of("a\nb", 1), line_of("a\nb", 2)), (1, 1, 2));
        assert_eq!(line_of("", 0), 1);
    }
}
