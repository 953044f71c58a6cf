//! Text laid out for a page: words wrapped with hanging indents, tables with aligned columns, colour where the page has it. Pure: how
//! wide a page is, and what time it is, comes from outside.

use unicode_width::UnicodeWidthStr;

/// What a text is laid out for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Page {
    /// Columns of a line; `usize::MAX` where nothing is wrapped.
    pub(super) columns: usize,
    /// Whether ANSI colours are shown.
    pub(super) colour: bool,
}

/// How a text stands out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Tone {
    /// Not at all.
    #[default]
    Plain,
    /// A heading.
    Bold,
    /// Something waits, or is switched off.
    Yellow,
    /// Something failed.
    Red,
}

/// The side on which a column is aligned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// One cell of a table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Cell {
    text: String,
    tone: Tone,
}

/// Rows under headings, each with notes below it.
#[derive(Debug)]
pub(super) struct Table {
    headings: Vec<(&'static str, Side)>,
    rows: Vec<(Vec<Cell>, Vec<String>)>,
}

/// How far notes stand in below their row.
const NOTE_INDENT: usize = 4;
/// The last column is wrapped beside the others if it gets so many columns at least.
const LAST_COLUMNS_MIN: usize = 16;

impl Page {
    /// Neither wrapped nor coloured: for files and pipes.
    pub(super) const PLAIN: Self = Self { columns: usize::MAX, colour: false };

    /// A text with the escape sequences of a tone, where this page shows colours.
    pub(super) fn toned(self, text: &str, tone: Tone) -> String {
        let code = match tone {
            Tone::Bold => "1",
            Tone::Yellow => "33",
            Tone::Red => "31",
            Tone::Plain => return text.to_owned(),
        };
        if self.colour && !text.is_empty() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// A text behind a prefix, wrapped at words; what goes on is indented by `indent` columns.
    pub(super) fn hanging(self, prefix: &str, text: &str, indent: usize) -> String {
        let mut out = String::from(prefix);
        let mut at = prefix.width();
        let mut fresh = true;
        for word in text.split_whitespace() {
            let width = word.width();
            let gap = usize::from(!fresh);
            if !(fresh && at <= indent) && at.saturating_add(gap).saturating_add(width) > self.columns {
                out.truncate(out.trim_end_matches(' ').len());
                out.push('\n');
                out.push_str(&" ".repeat(indent));
                at = indent;
            } else if gap == 1 {
                out.push(' ');
                at += 1;
            }
            at = self.push_word(&mut out, word, at, indent);
            fresh = false;
        }
        out.truncate(out.trim_end_matches(' ').len());
        out
    }

    /// Adds one word, cut where no line could hold it; gives the column behind it.
    fn push_word(self, out: &mut String, word: &str, start: usize, indent: usize) -> usize {
        let mut at = start;
        for character in word.chars() {
            let width = character.to_string().as_str().width();
            if at > indent && at.saturating_add(width) > self.columns {
                out.push('\n');
                out.push_str(&" ".repeat(indent));
                at = indent;
            }
            out.push(character);
            at += width;
        }
        at
    }
}

impl Cell {
    /// A cell of what may come from outside: nothing in it moves the cursor.
    pub(super) fn new(text: &str) -> Self {
        Self { text: super::show::plain(text), tone: Tone::Plain }
    }

    /// The same in a tone.
    pub(super) fn toned(self, tone: Tone) -> Self {
        Self { tone, ..self }
    }
}

impl From<u64> for Cell {
    fn from(number: u64) -> Self {
        Self::new(&number.to_string())
    }
}

impl Table {
    /// An empty table.
    pub(super) fn new(headings: &[(&'static str, Side)]) -> Self {
        Self { headings: headings.to_vec(), rows: Vec::new() }
    }

    /// One row, and the sentences below it.
    pub(super) fn row(&mut self, cells: Vec<Cell>, notes: Vec<String>) {
        self.rows.push((cells, notes));
    }

    /// The whole table: columns as wide as their widest cell, the last one wrapped.
    pub(super) fn lay_out(&self, page: Page) -> String {
        let widths: Vec<usize> = (0..self.headings.len()).map(|place| self.width(place)).collect();
        let headings: Vec<Cell> =
            self.headings.iter().map(|(text, _)| Cell { text: (*text).to_owned(), tone: Tone::Bold }).collect();
        let mut out = self.line(&headings, &widths, page);
        for (cells, notes) in &self.rows {
            out.push_str(&self.line(cells, &widths, page));
            for note in notes {
                let note = super::show::plain(note);
                out.push_str(&page.hanging(&" ".repeat(NOTE_INDENT), &note, NOTE_INDENT));
                out.push('\n');
            }
        }
        out
    }

    fn width(&self, place: usize) -> usize {
        let heading = self.headings.get(place).map_or(0, |(text, _)| text.width());
        let cells = self.rows.iter().filter_map(|(cells, _)| cells.get(place));
        cells.map(|cell| cell.text.width()).max().unwrap_or(0).max(heading)
    }

    fn line(&self, cells: &[Cell], widths: &[usize], page: Page) -> String {
        let mut out = String::new();
        let last = self.headings.len().saturating_sub(1);
        let start: usize = widths.iter().take(last).map(|width| width + 2).sum();
        for ((cell, width), (_, side)) in cells.iter().zip(widths).zip(&self.headings).take(last) {
            let gap = " ".repeat(width.saturating_sub(cell.text.width()));
            let text = page.toned(&cell.text, cell.tone);
            let (before, behind) = if *side == Side::Left { ("", gap.as_str()) } else { (gap.as_str(), "") };
            out.push_str(&format!("{before}{text}{behind}  "));
        }
        let Some(cell) = cells.get(last) else { return format!("{}\n", out.trim_end()) };
        let longest = cell.text.split_whitespace().map(UnicodeWidthStr::width).max().unwrap_or(0);
        let room = page.columns.saturating_sub(start);
        let beside = room >= longest.max(LAST_COLUMNS_MIN.min(cell.text.width()));
        let (prefix, indent) = if beside { (" ".repeat(start), start) } else { (" ".repeat(NOTE_INDENT), NOTE_INDENT) };
        let text = page.hanging(&prefix, &cell.text, indent);
        if beside {
            out.push_str(&page.toned(text.get(start..).unwrap_or_default(), cell.tone));
        } else {
            out.truncate(out.trim_end().len());
            out.push('\n');
            out.push_str(&text);
        }
        format!("{}\n", out.trim_end())
    }
}

/// A number of things: `1 attempt`, `2 attempts`.
pub(super) fn count(number: u64, thing: &str) -> String {
    if number == 1 { format!("1 {thing}") } else { format!("{number} {thing}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(columns: usize) -> Page {
        Page { columns, colour: false }
    }

    #[test]
    fn text_wraps_at_words() {
        assert_eq!(page(20).hanging("  ", "one two three four five", 4), "  one two three four\n    five");
        assert_eq!(page(12).hanging("", "abcdefghijklmnop qr", 2), "abcdefghijkl\n  mnop qr");
        assert_eq!(
            page(10).hanging("", "\u{6f22}\u{5b57}\u{6f22} \u{5b57}\u{6f22}", 0),
            "\u{6f22}\u{5b57}\u{6f22}\n\u{5b57}\u{6f22}"
        );
        assert_eq!(Page::PLAIN.hanging("x ", "a  b\tc", 9), "x a b c");
        assert_eq!(page(9).hanging("12345678 ", "abcdef", 2), "12345678\n  abcdef");
    }

    fn table() -> Table {
        let mut table = Table::new(&[("NAME", Side::Left), ("READY", Side::Right), ("SERVES", Side::Left)]);
        let failed = Cell::new("m\u{fc}\u{6f22}").toned(Tone::Red);
        table.row(
            vec![failed, 12.into(), Cell::new("mail.example.net:587 with TLS")],
            vec!["Connection refused".into()],
        );
        table.row(vec![Cell::new("\u{1b}[31mx"), 0.into(), Cell::new("")], Vec::new());
        table
    }

    #[test]
    fn table_fits_its_page() {
        let expected = "\
NAME    READY  SERVES
m\u{fc}\u{6f22}       12  mail.example.net:587
               with TLS
    Connection refused
 [31mx      0
";
        assert_eq!(table().lay_out(page(36)), expected);
        for line in table().lay_out(page(24)).lines() {
            assert!(line.width() <= 24, "{line:?}");
        }
    }

    #[test]
    fn colours_do_not_count_as_columns() {
        let text = table().lay_out(Page { columns: 36, colour: true });
        assert!(text.contains("\u{1b}[31mm\u{fc}\u{6f22}\u{1b}[0m       12  mail"), "{text:?}");
        assert!(text.starts_with("\u{1b}[1mNAME\u{1b}[0m    \u{1b}[1mREADY\u{1b}[0m  \u{1b}[1mSERVES"), "{text:?}");
    }

    #[test]
    fn counts_have_plurals() {
        assert_eq!([count(0, "message"), count(1, "attempt")], ["0 messages", "1 attempt"]);
    }
}
