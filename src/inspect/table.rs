//! Columns of text, and values as people read them.

use bytesize::ByteSize;
use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, ContentArrangement, Table};

/// What stands in for a value that is not there.
pub(crate) const NOTHING_THERE: &str = "-";

/// Lines with the columns below each other; those named in `right` are aligned to the right. Lines are never wrapped:
/// who reads them with other programs finds one row on each.
pub(crate) fn columns(header: Option<&[&str]>, rows: impl IntoIterator<Item = Vec<String>>, right: &[usize]) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    if let Some(header) = header {
        table.set_header(header.iter().map(|name| name.to_string()));
    }
    table.add_rows(rows);
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        if right.contains(&index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let mut text = String::new();
    for line in table.lines() {
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Lines of names and values; a name with several values stands once, a name without a value not at all.
#[derive(Debug, Default)]
pub(crate) struct Facts(Vec<Vec<String>>);

impl Facts {
    /// Adds a name with its values, each on a line of its own.
    pub fn add(&mut self, name: &str, values: impl IntoIterator<Item = String>) {
        let mut name = name;
        for value in values {
            self.0.push(vec![name.to_owned(), plain(&value)]);
            name = "";
        }
    }

    /// The lines.
    pub fn lines(self) -> String {
        columns(None, self.0, &[])
    }
}

/// `1.5 MiB`.
pub(crate) fn bytes(count: u64) -> String {
    ByteSize::b(count).display().iec().to_string()
}

/// A moment, in UTC as RFC 3339: the same words wherever it is read.
pub(crate) fn moment(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).map_or_else(|_| format!("{seconds} s since 1970"), |time| time.to_string())
}

/// Control characters as `\n`, `\u{1b}`: a label must not move the cursor of who looks at it.
pub(crate) fn plain(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut plain, char| {
        match char.is_control() {
            true => plain.extend(char.escape_debug()),
            false => plain.push(char),
        }
        plain
    })
}
