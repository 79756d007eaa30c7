//! What layers and stages may be called.

/// Letters and digits with single marks between them, as layers are called.
pub(super) fn layer_name(text: &str) -> String {
    let mut name = String::new();
    for character in text.chars() {
        match character {
            'a'..='z' | 'A'..='Z' | '0'..='9' => name.push(character),
            '.' | '_' | '-' if name.ends_with(|last: char| last.is_ascii_alphanumeric()) => name.push(character),
            _ if name.ends_with(|last: char| last.is_ascii_alphanumeric()) => name.push('-'),
            _ => {}
        }
    }
    name.trim_end_matches(['.', '_', '-']).to_owned()
}

/// Whether `AS` may give it: Docker's rule; it does not tell capital letters from small ones.
pub(super) fn is_stage_name(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

/// Whether a shell can refer to it.
pub(super) fn is_variable(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}
