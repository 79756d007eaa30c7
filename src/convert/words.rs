//! Words of a Dockerfile: joined lines, `NAME=VALUE` lists, quotes and variables, by the rules of its reference.

use super::substitution::guarded;

/// What a name stands for; `None`: it is not set.
pub(super) type Lookup<'a> = dyn FnMut(&str) -> Option<String> + 'a;

/// Takes out line continuations, with the comments and empty lines between them.
pub(super) fn joined(text: &str, escape: char) -> String {
    let mut result = String::with_capacity(text.len());
    let mut continued = false;
    for line in text.split('\n') {
        let line = line.strip_suffix('\r').unwrap_or(line);
        if continued && (line.trim().is_empty() || line.trim_start().starts_with('#')) {
            continue;
        }
        let end = line.trim_end_matches([' ', '\t']);
        match end.strip_suffix(escape) {
            Some(start) => {
                result.push_str(start);
                continued = true;
            }
            None => {
                result.push_str(line);
                continued = false;
                result.push('\n');
            }
        }
    }
    result.truncate(result.trim_end_matches('\n').len());
    result
}

/// Splits at white space that no quote and no escape protects; quotes stay.
pub(super) fn split(text: &str, escape: char) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), String::new(), None);
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match (character, quote) {
            (_, None) if character.is_whitespace() => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                continue;
            }
            ('\'' | '"', None) => quote = Some(character),
            (_, Some(open)) if open == character => quote = None,
            _ => {}
        }
        word.push(character);
        if character == escape && quote != Some('\'') {
            word.extend(characters.next());
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

/// `NAME=VALUE …`, or the old `NAME VALUE` of `ENV` and `LABEL`. Quotes stay.
pub(super) fn pairs(text: &str, escape: char) -> Result<Vec<(String, String)>, String> {
    let text = text.trim();
    let words = split(text, escape);
    let first = words.first().map_or("", String::as_str);
    if !first.contains('=') {
        let (name, value) = text.split_once(char::is_whitespace).ok_or_else(|| format!("`{text}` has no value"))?;
        return Ok(vec![(name.to_owned(), value.trim().to_owned())]);
    }
    let pair = |word: &String| {
        let pair = word.split_once('=').filter(|(name, _)| !name.is_empty());
        let pair = pair.map(|(name, value)| (name.to_owned(), value.to_owned()));
        pair.ok_or_else(|| format!("`{word}` is not NAME=VALUE"))
    };
    words.iter().map(pair).collect()
}

/// A word without its quotes, variables replaced. Literal text is guarded against substitution.
pub(super) fn expand(word: &str, escape: char, lookup: &mut Lookup) -> Result<String, String> {
    let mut expansion = Expansion { text: word.chars().collect(), at: 0, depth: 0, escape, lookup };
    expansion.until(None)
}

/// Bytes that a word may have when variables are replaced; what they hold has no more than that.
const LONGEST: usize = 64 << 10;

/// How deep alternatives may lie in each other.
const DEPTH: usize = 50;

struct Expansion<'l, 'a> {
    text: Vec<char>,
    at: usize,
    /// Of alternatives in each other, which are read by recursion.
    depth: usize,
    escape: char,
    lookup: &'l mut Lookup<'a>,
}

impl Expansion<'_, '_> {
    fn next(&mut self) -> Option<char> {
        let character = self.text.get(self.at).copied();
        self.at += 1;
        character
    }

    fn peek(&self) -> Option<char> {
        self.text.get(self.at).copied()
    }

    /// Up to the closing brace of an alternative, or to the end.
    fn until(&mut self, end: Option<char>) -> Result<String, String> {
        let (mut result, mut literal) = (String::new(), String::new());
        let mut double = false;
        loop {
            let Some(character) = self.next() else {
                return match (end, double) {
                    (Some(_), _) => Err("a `${` is not closed".to_owned()),
                    (None, true) => Err("a quote is not closed".to_owned()),
                    (None, false) => Ok(result + &guarded(&literal)),
                };
            };
            match character {
                _ if Some(character) == end && !double => return Ok(result + &guarded(&literal)),
                '\'' if !double => loop {
                    match self.next().ok_or("a quote is not closed")? {
                        '\'' => break,
                        inner => literal.push(inner),
                    }
                },
                '"' => double = !double,
                _ if character == self.escape => self.escaped(double, &mut literal),
                '$' if self.names_follow() => {
                    result += &guarded(&std::mem::take(&mut literal));
                    result += &self.variable()?;
                    // `A=$A$A` doubles each time.
                    if result.len() > LONGEST {
                        return Err(format!("with its variables it has more than {} KiB", LONGEST >> 10));
                    }
                }
                other => literal.push(other),
            }
        }
    }

    /// In double quotes an escape counts only where it changes something.
    fn escaped(&mut self, double: bool, literal: &mut String) {
        match self.next() {
            Some(next) if double && !['"', '$', self.escape].contains(&next) => literal.extend([self.escape, next]),
            Some(next) => literal.push(next),
            None => literal.push(self.escape),
        }
    }

    fn names_follow(&self) -> bool {
        self.peek().is_some_and(|next| next == '{' || next == '_' || next.is_ascii_alphanumeric())
    }

    fn name(&mut self) -> String {
        let mut name = String::new();
        while let Some(next) = self.peek().filter(|next| *next == '_' || next.is_ascii_alphanumeric()) {
            name.push(next);
            self.at += 1;
        }
        name
    }

    fn variable(&mut self) -> Result<String, String> {
        if self.peek() != Some('{') {
            let name = self.name();
            return Ok((self.lookup)(&name).unwrap_or_default());
        }
        self.at += 1;
        let name = self.name();
        if name.is_empty() {
            return Err("`${` without a name".to_owned());
        }
        let mut operator = self.next().ok_or("a `${` is not closed")?;
        let colon = operator == ':';
        if colon {
            operator = self.next().ok_or("a `${` is not closed")?;
        }
        let value = (self.lookup)(&name);
        if operator == '}' && !colon {
            return Ok(value.unwrap_or_default());
        }
        if !['-', '+', '?'].contains(&operator) {
            return Err(format!("`${{{name}…}}` with `{operator}` is not understood: write the value out"));
        }
        self.depth += 1;
        if self.depth > DEPTH {
            return Err(format!("`${{` lies in another more than {DEPTH} deep"));
        }
        let word = self.until(Some('}'))?;
        self.depth -= 1;
        let given = value.filter(|value| !colon || !value.is_empty());
        match (operator, given) {
            ('-', Some(value)) => Ok(super::substitution::with_default(&value, &word)),
            ('-', None) => Ok(word),
            ('+', Some(_)) => Ok(word),
            ('+', None) => Ok(String::new()),
            (_, Some(value)) => Ok(value),
            (_, None) => Err(format!("`{name}` must be set: {word}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lookup(name: &str) -> Option<String> {
        let table = [("X", "x"), ("EMPTY", ""), ("A_1", "a b"), ("ARG", "${{ARG_ARG:1}}"), ("NONE", "${{ARG_NONE:}}")];
        table.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
    }

    #[test]
    fn variables_follow_the_rules_of_dockerfiles() {
        let table = [
            ("$X/${X}y$X-z", "x/xyx-z"),
            ("\\$X \\${X} '$X' \"$X\"", "$X ${X} $X x"),
            ("${MISSING}${MISSING:-d}${EMPTY:-e}${EMPTY-f}${X:-g}", "dex"),
            ("${X:+yes}${MISSING:+no}${EMPTY:+no}${EMPTY+set}", "yesset"),
            ("${MISSING:-$X-${A_1}}", "x-a b"),
            ("\"a \\\" \\n \\\\\" b\\ c", "a \" \\n \\ b c"),
            ("$", "$"),
            ("$.", "$."),
            ("${ARG}-${ARG:-2}-${NONE:-3}", "${{ARG_ARG:1}}-${{ARG_ARG:1}}-${{ARG_NONE:3}}"),
            ("'${{ x }}'", "${{DOLLAR:$}}{{ x }}"),
        ];
        for (text, expected) in table {
            assert_eq!(expand(text, '\\', &mut lookup).as_deref(), Ok(expected), "{text}");
        }
        assert_eq!(expand("`$X\\$X", '`', &mut lookup).as_deref(), Ok("$X\\x"));
        let deep = "${X:-".repeat(100_000);
        for text in [&deep, "${X", "'x", "\"x", "${}", "${X#a}", "${X:}", "${MISSING:?must}", "${X:-"] {
            assert!(expand(text, '\\', &mut lookup).is_err(), "{text}");
        }
    }

    #[test]
    fn pairs_and_their_old_form() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let table = [
            ("A=1 B='x y' C=a\\ b", vec![pair("A", "1"), pair("B", "'x y'"), pair("C", "a\\ b")]),
            ("A  one two=three ", vec![pair("A", "one two=three")]),
            ("A=", vec![pair("A", "")]),
        ];
        for (text, expected) in table {
            assert_eq!(pairs(text, '\\'), Ok(expected), "{text}");
        }
        assert!(pairs("A", '\\').is_err());
        assert!(pairs("A=1 B", '\\').is_err());
    }

    #[test]
    fn continued_lines_become_one() {
        assert_eq!(joined("a \\\n  # no\n\n  b \\  \n c\n", '\\'), "a   b  c");
        assert_eq!(joined("a `\r\nb\\\n", '`'), "a b\\");
    }
}
