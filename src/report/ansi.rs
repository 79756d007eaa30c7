//! Output of scripts in a page: colours as colours, whatever else would act on a terminal left out.

use maud::{Markup, html};

use crate::text::visible;

/// How letters look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Look {
    /// One of the 16 colours.
    colour: Option<u8>,
    bold: bool,
    faint: bool,
}

impl Look {
    fn class(self) -> String {
        let mut words = Vec::new();
        words.extend(self.colour.map(|colour| format!("a{colour}")));
        words.extend(self.bold.then(|| "bold".to_owned()));
        words.extend(self.faint.then(|| "soft".to_owned()));
        words.join(" ")
    }

    /// What an SGR sequence with these parameters makes of it.
    fn take(&mut self, parameters: &str) {
        let mut numbers = parameters.split([';', ':']).map(|number| number.parse::<u16>().unwrap_or_default());
        while let Some(number) = numbers.next() {
            match number {
                0 => *self = Look::default(),
                1 => self.bold = true,
                2 => self.faint = true,
                22 => (self.bold, self.faint) = (false, false),
                30..=37 => self.colour = Some(number as u8 - 30),
                90..=97 => self.colour = Some(number as u8 - 82),
                39 => self.colour = None,
                38 | 48 => match numbers.next() {
                    // Of 256 colours only those that have names, of all others none.
                    Some(5) => {
                        let colour = numbers.next().unwrap_or_default();
                        if number == 38 {
                            self.colour = (colour < 16).then_some(colour as u8);
                        }
                    }
                    Some(2) => drop(numbers.by_ref().take(3).count()),
                    _ => {}
                },
                _ => {}
            }
        }
    }
}

/// Text as it was printed.
pub(super) fn coloured(text: &str) -> Markup {
    html! {
        @for (look, piece) in pieces(text) {
            @if look == Look::default() { (visible(&piece)) } @else { span class=(look.class()) { (visible(&piece)) } }
        }
    }
}

/// The text in pieces that look alike.
fn pieces(text: &str) -> Vec<(Look, String)> {
    let mut pieces = vec![(Look::default(), String::new())];
    for line in text.split_inclusive('\n') {
        let mut rest = overwritten(line);
        while let Some(start) = rest.find('\x1b') {
            push(&mut pieces, &rest[..start]);
            let (length, look) = sequence(&rest[start..]);
            if let Some(parameters) = look {
                let mut look = pieces.last().map_or(Look::default(), |(look, _)| *look);
                look.take(parameters);
                pieces.push((look, String::new()));
            }
            rest = &rest[start + length..];
        }
        push(&mut pieces, rest);
        push(&mut pieces, if line.ends_with('\n') { "\n" } else { "" });
    }
    pieces.retain(|(_, piece)| !piece.is_empty());
    pieces
}

fn push(pieces: &mut [(Look, String)], text: &str) {
    if let Some((_, piece)) = pieces.last_mut() {
        piece.push_str(text);
    }
}

/// What is seen of a line in the end: programs that show progress go back to its beginning.
fn overwritten(line: &str) -> &str {
    let seen = line.trim_end_matches(['\r', '\n']);
    &seen[seen.rfind('\r').map_or(0, |at| at + 1)..]
}

/// The length of an escape sequence at the beginning of a text, and its parameters if it changes how letters look.
fn sequence(text: &str) -> (usize, Option<&str>) {
    let rest = &text[1..];
    match rest.chars().next() {
        Some('[') => match rest[1..].find(|c| matches!(c, '\x40'..='\x7e')) {
            Some(end) => (end + 3, (rest[1 + end..].starts_with('m')).then(|| &rest[1..1 + end])),
            None => (2, None),
        },
        // Titles, links: until a bell or a string terminator.
        Some(']') => match rest.find(['\x07', '\x1b', '\n']) {
            Some(end) if rest[end..].starts_with("\x1b\\") => (end + 3, None),
            Some(end) if rest[end..].starts_with('\x07') => (end + 2, None),
            _ => (2, None),
        },
        Some(c) if c.is_ascii_graphic() => (2, None),
        _ => (1, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_shown_and_nothing_else_acts() {
        let table = [
            ("plain <b>&\n", "plain &lt;b&gt;&amp;\n"),
            (
                "</pre></script><script>alert(1)</script>",
                "&lt;/pre&gt;&lt;/script&gt;&lt;script&gt;alert(1)&lt;/script&gt;",
            ),
            ("\x1b[31mred\x1b[0m plain", "<span class=\"a1\">red</span> plain"),
            ("\x1b[1;92mok\x1b[m", "<span class=\"a10 bold\">ok</span>"),
            ("\x1b[38;5;200mx\x1b[38;2;1;2;3my\x1b[38;5;4mz", "xy<span class=\"a4\">z</span>"),
            ("10%\r20%\r100%\ndone\r\n", "100%\ndone\n"),
            ("\x1b[2J\x1b[?25la\x1b]0;title\x07b\x1b]8;;x\x1b\\c\x1b(Bd", "abcBd"),
            ("a\x00\x08\u{202e}b", "a\\x00\\x08\\u{202e}b"),
            ("\x1b", ""),
            ("\x1b[", ""),
            ("\x1b[31", "31"),
        ];
        for (text, expected) in table {
            assert_eq!(coloured(text).into_string(), expected, "{text:?}");
        }
    }
}
