//! Here-documents that stand behind other words of a `RUN`. parse-dockerfile knows those of `RUN <<EOF` alone and would
//! take the lines of the others for instructions: it is given them as comments, at the same places.

use std::ops::Range;
use std::sync::LazyLock;

use regex::Regex;

use super::words::{joined, split};

/// A word that begins a here-document, as BuildKit finds it.
static WORD: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r#"^\d*<<(-?)\s*(?:'([^<']+)'|"([^<"]+)"|([^<'"]+))$"#).expect("the pattern is constant")
});

/// The text for the parser, and where the hidden lines are, their ends included.
pub(super) fn hidden(text: &str, escape: char) -> (String, Vec<Range<usize>>) {
    let mut bytes = text.as_bytes().to_vec();
    let mut found = Vec::new();
    let mut lines = Lines { text, at: 0 };
    while let Some(line) = lines.next() {
        let trimmed = text[line.clone()].trim_start();
        if trimmed.starts_with('#') {
            continue;
        }
        let mut end = line.end;
        while continues(&text[line.start..end], escape) {
            match lines.next() {
                Some(more) => end = more.end,
                None => break,
            }
        }
        let whole = joined(&text[line.start..end], escape);
        let words = split(&whole, escape);
        let keyword = words.first().map(|word| word.to_ascii_uppercase()).unwrap_or_default();
        if !["RUN", "COPY", "ADD"].contains(&keyword.as_str()) {
            continue;
        }
        let ends = ends(&whole, escape);
        let body = lines.at;
        ends.iter().for_each(|(tabs, end)| lines.skip_to(*tabs, end));
        let first = words.iter().skip(1).find(|word| !word.starts_with("--"));
        if keyword == "RUN" && !ends.is_empty() && !first.is_some_and(|word| word.starts_with("<<")) {
            hide(&mut bytes[body..lines.at]);
            found.push(body..lines.at);
        }
    }
    // Only whole lines were replaced, by ASCII.
    (String::from_utf8(bytes).unwrap_or_else(|_| text.to_owned()), found)
}

/// Whether tabs are stripped, and the last line, of each here-document of an instruction.
pub(super) fn ends(line: &str, escape: char) -> Vec<(bool, String)> {
    let end = |word: String| {
        let found = WORD.captures(&word)?;
        let name = [2, 3, 4].into_iter().find_map(|index| found.get(index))?;
        Some((!found[1].is_empty(), name.as_str().to_owned()))
    };
    split(line, escape).into_iter().filter_map(end).collect()
}

/// The last line goes on, or is a comment in between.
fn continues(text: &str, escape: char) -> bool {
    let last = text.trim_end_matches(['\n', '\r']).rsplit('\n').next().unwrap_or_default();
    let inner = text.trim_end_matches(['\n', '\r']).contains('\n');
    let skipped = inner && (last.trim().is_empty() || last.trim_start().starts_with('#'));
    skipped || last.trim_end_matches([' ', '\t', '\r']).ends_with(escape)
}

/// Every line becomes a comment of the same length, or stays empty.
fn hide(bytes: &mut [u8]) {
    let mut start = true;
    for byte in bytes {
        match *byte {
            b'\n' => start = true,
            b'\r' => {}
            _ => {
                *byte = if start { b'#' } else { b' ' };
                start = false;
            }
        }
    }
}

struct Lines<'t> {
    text: &'t str,
    at: usize,
}

impl Lines<'_> {
    /// With its end.
    fn next(&mut self) -> Option<Range<usize>> {
        let rest = &self.text[self.at..];
        let length = rest.find('\n').map_or(rest.len(), |end| end + 1);
        let line = self.at..self.at + length;
        self.at = line.end;
        (length > 0).then_some(line)
    }

    fn skip_to(&mut self, tabs: bool, end: &str) {
        while let Some(line) = self.next() {
            let line = self.text[line].trim_end_matches(['\n', '\r']);
            if (if tabs { line.trim_start_matches('\t') } else { line }) == end {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_parser_does_not_know_is_hidden() {
        let text = "FROM a\nRUN x \\\n  <<E > f && y\nRUN z\nä\n\nE\n".to_owned()
            + "COPY <<'F' /g\nRUN no <<H\nF\nRUN <<G\necho <<K\nG\nRUN a << 1\n";
        let (shown, hidden) = hidden(&text, '\\');
        assert_eq!(hidden.len(), 1);
        assert_eq!(&text[hidden[0].clone()], "RUN z\nä\n\nE\n");
        assert_eq!(shown.len(), text.len());
        assert!(shown.contains("y\n#    \n# \n\n#\nCOPY"), "{shown}");
        assert!(parse_dockerfile::parse(&shown).is_ok());
    }
}
