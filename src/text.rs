//! Bytes as one word of readable text: what listings, actions and database rows write for paths and other odd bytes. And
//! text of others as it may be printed.

use std::borrow::Cow;

use serde::Serialize;

/// Printable ASCII but `%` stays; every other byte, blanks too, becomes `%XX`. The empty text is `%`.
pub fn escape(bytes: &[u8]) -> String {
    use std::fmt::Write;
    if bytes.is_empty() {
        return "%".to_owned();
    }
    bytes.iter().fold(String::with_capacity(bytes.len()), |mut text, &byte| {
        if byte.is_ascii_graphic() && byte != b'%' {
            text.push(byte as char);
        } else {
            let _ = write!(text, "%{byte:02x}");
        }
        text
    })
}

/// The inverse of [`escape`]; `None` for what it never writes.
pub fn unescape(text: &[u8]) -> Option<Vec<u8>> {
    if text == b"%" {
        return Some(Vec::new());
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, tail)) = rest.split_first() {
        rest = tail;
        if first == b'%' {
            let digits = std::str::from_utf8(tail.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &tail[2..];
        } else {
            bytes.push(first);
        }
    }
    Some(bytes)
}

/// Text that may come from anybody, for a terminal: colours stay (and end with the line), everything else that a
/// terminal would act on is shown as `\x1b` instead. Lines and tabs stay. Overrides of the writing direction, which show
/// a text in another order than it is in, are taken for control characters too.
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.chars().any(acts) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for (number, line) in text.split('\n').enumerate() {
        if number > 0 {
            shown.push('\n');
        }
        printable_line(line, &mut shown);
    }
    Cow::Owned(shown)
}

/// `3 days`, `5 hours`, `40 minutes`, `7 seconds`: one number, rounded down.
pub fn span(seconds: u64) -> String {
    let units = [(86_400, "day"), (3600, "hour"), (60, "minute"), (1, "second")];
    let (length, unit) = units.into_iter().find(|(length, _)| seconds >= *length).unwrap_or((1, "second"));
    match seconds / length {
        1 => format!("1 {unit}"),
        count => format!("{count} {unit}s"),
    }
}

/// Text that may come from anybody, for pages and drawings: as [`printable`], but colours are shown as what they are too.
pub fn visible(text: &str) -> Cow<'_, str> {
    if !text.chars().any(acts) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    text.chars().for_each(|c| show(c, &mut shown));
    Cow::Owned(shown)
}

/// A value as JSON that a terminal may get: what it would act on is escaped as JSON has it.
pub fn json(value: &impl Serialize) -> String {
    use std::fmt::Write;
    let text = serde_json::to_string_pretty(value).expect("it is made of JSON values");
    // All of that stands in strings, where it may be escaped.
    let mut shown = String::with_capacity(text.len() + 1);
    for c in text.chars() {
        if !acts(c) {
            shown.push(c);
            continue;
        }
        for unit in c.encode_utf16(&mut [0; 2]) {
            // Writing to a String cannot fail.
            let _ = write!(shown, "\\u{unit:04x}");
        }
    }
    shown + "\n"
}

fn printable_line(line: &str, shown: &mut String) {
    let (mut rest, mut coloured) = (line, false);
    while let Some(first) = rest.chars().next() {
        let length = colour(rest).unwrap_or(first.len_utf8());
        let (piece, tail) = rest.split_at(length);
        rest = tail;
        if length > first.len_utf8() {
            coloured = !matches!(piece, "\x1b[m" | "\x1b[0m");
            shown.push_str(piece);
        } else {
            show(first, shown);
        }
    }
    if coloured {
        shown.push_str("\x1b[0m");
    }
}

/// A character, or what it is where a terminal would do something else with it than show it.
fn show(c: char, shown: &mut String) {
    use std::fmt::Write;
    // Writing to a String cannot fail.
    let _ = match (acts(c), u32::from(c)) {
        (false, _) => write!(shown, "{c}"),
        (true, code @ ..=0xff) => write!(shown, "\\x{code:02x}"),
        (true, code) => write!(shown, "\\u{{{code:x}}}"),
    };
}

/// The length of a colour or of another look of letters (SGR) at the beginning of a text.
fn colour(text: &str) -> Option<usize> {
    let parameters = text.strip_prefix("\x1b[")?;
    let end = parameters.find(|c: char| !c.is_ascii_digit() && c != ';' && c != ':')?;
    parameters[end..].starts_with('m').then_some(end + 3)
}

/// Whether a terminal may do something else with a character than show it.
fn acts(c: char) -> bool {
    c.is_control() && c != '\n' && c != '\t' || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_gets_nothing_but_text_and_colours() {
        let table = [
            ("plain\ttext, é 日本\n", "plain\ttext, é 日本\n"),
            ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
            ("\x1b[2J\x1b[10;10H\x1b[1A", "\\x1b[2J\\x1b[10;10H\\x1b[1A"),
            ("10%\r20%\x08\x00\x7f", "10%\\x0d20%\\x08\\x00\\x7f"),
            ("\u{9b}2J\u{85}", "\\x9b2J\\x85"),
            ("\x1b[1;31mred\x1b[0m", "\x1b[1;31mred\x1b[0m"),
            ("\x1b[31mred\nplain", "\x1b[31mred\x1b[0m\nplain"),
            ("\x1b[31\x1b[32m", "\\x1b[31\x1b[32m\x1b[0m"),
            ("\x1b[?25l\x1b[31", "\\x1b[?25l\\x1b[31"),
            ("\u{202e}gpj.exe", "\\u{202e}gpj.exe"),
            ("\x1b", "\\x1b"),
        ];
        for (text, expected) in table {
            assert_eq!(printable(text), expected, "{text:?}");
            assert!(!visible(text).contains('\x1b'), "{text:?}");
        }
    }

    #[test]
    fn json_for_a_terminal_is_json() {
        let text = "\u{9b}2J\u{202e}\x7f\x1b[31m é\n\"";
        let shown = json(&[text]);
        assert_eq!(printable(&shown), shown);
        assert_eq!(serde_json::from_str::<Vec<String>>(&shown).unwrap(), [text]);
    }

    #[test]
    fn every_byte_survives() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(unescape(escape(&all).as_bytes()), Some(all));
        assert_eq!(unescape(escape(b"").as_bytes()), Some(vec![]));
        assert_eq!(escape(b"usr/bin/a b%"), "usr/bin/a%20b%25");
        assert_eq!(unescape(b"%z"), None);
    }
}
