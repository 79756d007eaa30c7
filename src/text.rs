//! Bytes as one word of readable text: what listings, actions and database rows write for paths and other odd bytes.

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_survives() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(unescape(escape(&all).as_bytes()), Some(all));
        assert_eq!(unescape(escape(b"").as_bytes()), Some(vec![]));
        assert_eq!(escape(b"usr/bin/a b%"), "usr/bin/a%20b%25");
        assert_eq!(unescape(b"%z"), None);
    }
}
