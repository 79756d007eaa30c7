//! Where two files first differ.

use super::report::ContentDifference;

/// Characters of a line that are shown, at most.
const LINE: usize = 160;

/// Of these, so many before the first that differs.
const BEFORE: usize = 40;

/// Bytes that are shown of something that is no text.
const BYTES: usize = 16;

/// The first difference of two contents that are not equal.
pub fn difference(first: &[u8], second: &[u8]) -> ContentDifference {
    let equal = first.iter().zip(second).take_while(|(a, b)| a == b).count();
    match (text(first), text(second)) {
        (Some(first), Some(second)) => in_text(first, second),
        _ => {
            let from = equal.saturating_sub(BYTES / 4);
            let shown =
                |bytes: &[u8]| crate::digest::hex(&bytes[from.min(bytes.len())..(from + BYTES).min(bytes.len())]);
            ContentDifference::Bytes { offset: equal as u64, first: shown(first), second: shown(second) }
        }
    }
}

/// Colours are part of texts.
fn text(bytes: &[u8]) -> Option<&str> {
    let odd = |c: char| c.is_control() && !matches!(c, '\t' | '\n' | '\r' | '\x0c' | '\x1b');
    std::str::from_utf8(bytes).ok().filter(|text| !text.contains(odd))
}

fn in_text(first: &str, second: &str) -> ContentDifference {
    let (mut left, mut right) = (first.split_inclusive('\n'), second.split_inclusive('\n'));
    let mut line = 1;
    loop {
        match (left.next(), right.next()) {
            (a, b) if a == b && a.is_some() => line += 1,
            (a, b) => {
                let (a, b) = (a.unwrap_or_default(), b.unwrap_or_default());
                let equal = a.chars().zip(b.chars()).take_while(|(a, b)| a == b).count();
                return ContentDifference::Text { line, first: shortened(a, equal), second: shortened(b, equal) };
            }
        }
    }
}

/// A line around a character of it. A missing line feed shows.
fn shortened(line: &str, at: usize) -> String {
    let (text, end) = match line.strip_suffix('\n') {
        Some(text) => (text, ""),
        None if line.is_empty() => ("", ""),
        None => (line, " (without a line feed)"),
    };
    let count = text.chars().count();
    if count <= LINE {
        return format!("{text}{end}");
    }
    let from = at.saturating_sub(BEFORE).min(count - LINE);
    let middle: String = text.chars().skip(from).take(LINE).collect();
    let before = if from > 0 { "…" } else { "" };
    let after = if from + LINE < count { "…" } else { "" };
    format!("{before}{middle}{after}{end}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_text(first: &str, second: &str) -> (u64, String, String) {
        match difference(first.as_bytes(), second.as_bytes()) {
            ContentDifference::Text { line, first, second } => (line, first, second),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn texts_differ_in_a_line() {
        assert_eq!(in_text("a\nb\nc\n", "a\nB\nc\n"), (2, "b".to_owned(), "B".to_owned()));
        assert_eq!(in_text("a\n", "a\nb\n"), (2, String::new(), "b".to_owned()));
        assert_eq!(in_text("a\n", "a"), (1, "a".to_owned(), "a (without a line feed)".to_owned()));
        let long = |end: &str| format!("{}{end}{}\n", "ä".repeat(500), "z".repeat(500));
        let (line, first, second) = in_text(&long("1"), &long("2"));
        assert_eq!((line, first.chars().count(), second.chars().count()), (1, LINE + 2, LINE + 2));
        assert!(first.contains("ä1z") && second.contains("ä2z"), "{first} {second}");
    }

    #[test]
    fn other_contents_differ_at_an_offset() {
        let bytes = |last: u8| [vec![0; 100], vec![last; 3]].concat();
        let expected = |last: &str| format!("{}{}", "00".repeat(4), last.repeat(3));
        let found = difference(&bytes(1), &bytes(0xff));
        let (first, second) = (expected("01"), expected("ff"));
        assert_eq!(found, ContentDifference::Bytes { offset: 100, first, second });
        let shorter = difference(&[0; 5], &[0; 6]);
        assert!(matches!(shorter, ContentDifference::Bytes { offset: 5, .. }), "{shorter:?}");
    }
}
