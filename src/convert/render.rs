//! The stackerfile as text: the layers in order, what could not be carried over as comments above them.

use super::layer::{Base, Layer, OutImport, Settings};
use super::substitution::guarded;

/// All of it.
pub(super) fn stackerfile(header: &str, layers: &[Layer]) -> String {
    let mut text = header.to_owned();
    for layer in layers {
        text.push('\n');
        text += &one(layer);
    }
    text
}

fn one(layer: &Layer) -> String {
    let mut text: String = layer.comments.iter().flat_map(|comment| comment.lines()).map(comment).collect();
    text += &format!("{}:\n  from:\n{}", scalar(&layer.name), base(&layer.base));
    if layer.build_only {
        text += "  build_only: true\n";
    }
    if let Some((os, arch)) = &layer.platform {
        text += &format!("  os: {}\n  arch: {}\n", scalar(os), scalar(arch));
    }
    if let Some(source) = &layer.overlay {
        text += &format!("  overlay_dirs:\n    - source: {}\n      dest: {}\n", scalar(&source.0), scalar(&source.1));
    }
    if !layer.imports.is_empty() {
        text += "  imports:\n";
        text.extend(layer.imports.iter().map(import));
    }
    if !layer.binds.is_empty() {
        text += "  binds:\n";
        let bind = |(source, dest): &(String, String)| {
            format!("    - source: {}\n      dest: {}\n", scalar(source), scalar(dest))
        };
        text.extend(layer.binds.iter().map(bind));
    }
    if layer.network_none {
        text += "  network: none\n";
    }
    if let Some(run) = &layer.run {
        text += &map("build_env", &layer.build_env);
        text += &script(run, layer.preamble);
    }
    text + &settings(&layer.settings)
}

pub(super) fn comment(line: &str) -> String {
    // Substitution does not spare comments.
    format!("# {}", guarded(line)).trim_end().to_owned() + "\n"
}

fn base(base: &Base) -> String {
    match base {
        Base::Scratch => "    type: scratch\n".to_owned(),
        Base::Docker(url) => format!("    type: docker\n    url: {}\n", scalar(url)),
        Base::Tar(path) => format!("    type: tar\n    url: {}\n", scalar(path)),
        Base::Built(tag) => format!("    type: built\n    tag: {}\n", scalar(tag)),
    }
}

fn import(import: &OutImport) -> String {
    let mut text = format!("    - path: {}\n", scalar(&import.path));
    let mut line = |name: &str, value: &Option<String>| {
        if let Some(value) = value {
            text += &format!("      {name}: {}\n", scalar(value));
        }
    };
    line("dest", &import.dest);
    line("mode", &import.mode);
    line("uid", &import.uid);
    line("gid", &import.gid);
    line("hash", &import.hash);
    text
}

/// A preamble that several scripts share is written once.
fn script(run: &str, preamble: Option<super::layer::Preamble>) -> String {
    let Some(preamble) = preamble else { return format!("  run: {}", block(run, 4)) };
    let shared = match preamble.first {
        true => format!("&{} {}", preamble.name, block(preamble.text, 6)),
        false => format!("*{}\n", preamble.name),
    };
    format!("  run:\n    - {shared}    - {}", block(run, 6))
}

fn settings(settings: &Settings) -> String {
    let mut text = map("environment", &settings.environment);
    text += &map("labels", &settings.labels);
    for (name, words) in [("entrypoint", &settings.entrypoint), ("cmd", &settings.cmd)] {
        if let Some(words) = words {
            text += &list(name, words);
        }
    }
    for (name, value) in [
        ("working_dir", &settings.working_dir),
        ("runtime_user", &settings.user),
        ("stop_signal", &settings.stop_signal),
    ] {
        if let Some(value) = value {
            text += &format!("  {name}: {}\n", scalar(value));
        }
    }
    for (name, values) in [("volumes", &settings.volumes), ("exposed_ports", &settings.exposed_ports)] {
        if !values.is_empty() {
            text += &list(name, values);
        }
    }
    text + &healthcheck(&settings.healthcheck)
}

fn healthcheck(lines: &Option<Vec<(String, Vec<String>)>>) -> String {
    let Some(lines) = lines else { return String::new() };
    if lines.is_empty() {
        return "  healthcheck: none\n".to_owned();
    }
    let line = |(name, words): &(String, Vec<String>)| match name.as_str() {
        "test" => format!("    test: {}\n", flow(words)),
        _ => format!("    {name}: {}\n", scalar(&words.concat())),
    };
    format!("  healthcheck:\n{}", lines.iter().map(line).collect::<String>())
}

fn list(name: &str, words: &[String]) -> String {
    format!("  {name}: {}\n", flow(words))
}

fn flow(words: &[String]) -> String {
    let words: Vec<String> = words.iter().map(|word| quoted(word)).collect();
    format!("[{}]", words.join(", "))
}

fn map(name: &str, pairs: &[(String, String)]) -> String {
    if pairs.is_empty() {
        return String::new();
    }
    let pair = |(name, value): &(String, String)| format!("    {}: {}\n", scalar(name), scalar(value));
    format!("  {name}:\n{}", pairs.iter().map(pair).collect::<String>())
}

/// A text as YAML, without quotes where it needs none.
pub(super) fn scalar(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte);
    let words = ["null", "true", "false", "yes", "no", "on", "off", "y", "n"];
    let safe = text.bytes().all(plain)
        && text.starts_with(|first: char| first.is_ascii_alphabetic() || first == '/')
        && !words.contains(&text.to_ascii_lowercase().as_str());
    if safe { text.to_owned() } else { quoted(text) }
}

/// In single quotes, where what is substituted may hold anything but such; else in double ones.
fn quoted(text: &str) -> String {
    match text.contains('\'') || text.chars().any(char::is_control) {
        true => serde_json::Value::from(text).to_string(),
        false => format!("'{text}'"),
    }
}

/// A script as a block, indented by so many spaces.
fn block(text: &str, indent: usize) -> String {
    let odd = |character: char| character.is_control() && !['\n', '\t'].contains(&character) || character == '\u{feff}';
    if text.contains(odd) || text.starts_with([' ', '\n']) || text.trim().is_empty() {
        return serde_json::Value::from(text).to_string() + "\n";
    }
    let space = " ".repeat(indent);
    let line = |line: &str| if line.is_empty() { "\n".to_owned() } else { format!("{space}{line}\n") };
    format!("|\n{}", text.trim_end_matches('\n').split('\n').map(line).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_quoted_where_they_must_be() {
        let table = [
            ("a/b.c", "a/b.c"),
            ("yes", "'yes'"),
            ("8080", "'8080'"),
            ("", "''"),
            ("a: b", "'a: b'"),
            ("it's \"x\"", "\"it's \\\"x\\\"\""),
            ("a\nb", "\"a\\nb\""),
            ("${{A:b}}", "'${{A:b}}'"),
        ];
        for (text, expected) in table {
            assert_eq!(scalar(text), expected, "{text}");
        }
    }
}
