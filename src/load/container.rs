//! Directives of ours that say how containers of the image are run: `exposed_ports`, `stop_signal`, `healthcheck`.

use std::str::FromStr;
use std::time::Duration;

use jiff::SignedDuration;
use nix::sys::signal::Signal;

use crate::diag::Diagnostic;

use super::layer::Draft;
use super::reader::Reader;
use super::yaml::{Entry, Kind, Node};
use super::{Healthcheck, Probe};

const KEYS: [&str; 7] = ["test", "interval", "timeout", "start_period", "start_interval", "retries", "disable"];

/// What Docker takes for the shortest time that is not "as usual".
const SHORTEST: Duration = Duration::from_millis(1);

/// Reads `exposed_ports`: each becomes `PORT/PROTOCOL`, as image configs have them; of a range each port.
pub(super) fn read_exposed_ports(reader: &mut Reader, draft: &mut Draft, entry: &Entry) {
    let Kind::Sequence(nodes) = &entry.value.kind else {
        return reader.wrong_type("`exposed_ports`", "a list of ports", &entry.value);
    };
    for node in nodes.iter() {
        let Some(text) = reader.text("an entry of `exposed_ports`", node) else { continue };
        match ports(&text) {
            Some(ports) => draft.settings.exposed_ports.extend(ports),
            None => {
                let diagnostic = Diagnostic::error(format!("`{text}` is not a port")).at(reader.place(&node.span), "");
                reader.push(diagnostic.help("write `8080`, `53/udp` or `9000-9005/tcp`: ports are 1 to 65535"));
            }
        }
    }
}

/// `PORT[-PORT][/PROTOCOL]`.
pub(crate) fn ports(text: &str) -> Option<Vec<String>> {
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<u16>().ok().filter(|port| digits && *port != 0)
    };
    let (first, last) = (number(first)?, number(last)?);
    (first <= last && ["tcp", "udp", "sctp"].contains(&protocol.as_str()))
        .then(|| (first..=last).map(|port| format!("{port}/{protocol}")).collect())
}

/// Reads `stop_signal`.
pub(super) fn read_stop_signal(reader: &mut Reader, draft: &mut Draft, entry: &Entry) {
    let Some(text) = reader.text("`stop_signal`", &entry.value) else { return };
    if is_signal(&text) {
        draft.settings.stop_signal = Some(text);
        return;
    }
    let names: Vec<&str> = Signal::iterator().map(Signal::as_str).collect();
    let diagnostic = Diagnostic::error(format!("`{text}` is not a signal"));
    let diagnostic = diagnostic.at(reader.place(&entry.value.span), "");
    reader.push(diagnostic.did_you_mean(&text, names));
}

/// A number, or a name with or without `SIG`: what container engines take.
pub(crate) fn is_signal(text: &str) -> bool {
    if let Ok(number) = text.parse::<u8>() {
        return (1..=64).contains(&number);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let offset = |rest: &str, sign| match rest.strip_prefix(sign) {
        Some(digits) => digits.parse::<u8>().is_ok_and(|offset| offset <= 30),
        None => rest.is_empty(),
    };
    Signal::from_str(&format!("SIG{name}")).is_ok()
        || name.strip_prefix("RTMIN").is_some_and(|rest| offset(rest, '+'))
        || name.strip_prefix("RTMAX").is_some_and(|rest| offset(rest, '-'))
}

/// Reads `healthcheck`.
pub(super) fn read_healthcheck(reader: &mut Reader, draft: &mut Draft, entry: &Entry) {
    draft.settings.healthcheck = match &entry.value.kind {
        Kind::Scalar(text) if &**text == "none" => Some(Healthcheck::None),
        Kind::Mapping(entries) => read_map(reader, &entry.value, entries),
        _ => {
            reader.wrong_type("`healthcheck`", "a map with `test`, or `none`", &entry.value);
            None
        }
    }
}

fn read_map(reader: &mut Reader, node: &Node, entries: &[Entry]) -> Option<Healthcheck> {
    for entry in entries.iter().filter(|entry| !KEYS.contains(&&*entry.key)) {
        reader.unknown_key(entry, "`healthcheck`", KEYS);
    }
    let value = |name: &str| {
        let found = entries.iter().find(|entry| &*entry.key == name).map(|entry| &entry.value);
        found.filter(|node| node.kind != Kind::Blank)
    };
    let disabled = value("disable").and_then(|node| reader.flag("`disable`", node)).unwrap_or_default();
    // All of the map is read before anything can end it, so that everything wrong in it is told.
    let mut time = |name: &str| value(name).and_then(|node| read_time(reader, name, node));
    let [interval, timeout, start_period, start_interval] =
        ["interval", "timeout", "start_period", "start_interval"].map(&mut time);
    let retries = value("retries").and_then(|node| read_retries(reader, node));
    let test = value("test").map(|node| read_test(reader, node));
    match test {
        _ if disabled => Some(Healthcheck::None),
        Some(test) => {
            Some(Healthcheck::Probe(Probe { test: test?, interval, timeout, start_period, start_interval, retries }))
        }
        None => {
            reader.error(&node.span, "`healthcheck` needs a `test`, or `disable: true`");
            None
        }
    }
}

/// As Docker's config has it: first how it is run. A list may say that itself, as in compose files.
fn read_test(reader: &mut Reader, node: &Node) -> Option<Vec<String>> {
    if let Kind::Scalar(text) = &node.kind {
        return Some(vec!["CMD-SHELL".to_owned(), text.to_string()]);
    }
    let Kind::Sequence(_) = node.kind else {
        reader.wrong_type("`test`", "a text or a list of texts", node);
        return None;
    };
    let words = reader.texts("`test`", node)?;
    match (words.first().map(String::as_str), words.len()) {
        (Some("CMD"), 2..) | (Some("CMD-SHELL"), 2) => Some(words),
        (None | Some("CMD" | "CMD-SHELL" | "NONE" | ""), _) => {
            let diagnostic = Diagnostic::error("`test` holds no command").at(reader.place(&node.span), "");
            reader
                .push(diagnostic.help("write a shell's command as a text, or a program with its arguments as a list"));
            None
        }
        _ => Some([vec!["CMD".to_owned()], words].concat()),
    }
}

fn read_time(reader: &mut Reader, name: &str, node: &Node) -> Option<Duration> {
    let text = reader.text(&format!("`{name}`"), node)?;
    let time = time(&text);
    if time.is_none() {
        let diagnostic = Diagnostic::error(format!("`{name}` must be a time of at least 1ms, not `{text}`"));
        reader.push(diagnostic.at(reader.place(&node.span), "").help("write `30s`, `1m30s` or `500ms`"));
    }
    time
}

/// A time as Go writes them, at least a millisecond and short enough to be counted in nanoseconds.
pub(crate) fn time(text: &str) -> Option<Duration> {
    let signed: SignedDuration = text.parse().ok()?;
    let time = Duration::try_from(signed).ok()?;
    (time >= SHORTEST && i64::try_from(time.as_nanos()).is_ok()).then_some(time)
}

fn read_retries(reader: &mut Reader, node: &Node) -> Option<u32> {
    let text = reader.text("`retries`", node)?;
    match text.parse::<u32>() {
        Ok(retries) if (1..=i32::MAX as u32).contains(&retries) => Some(retries),
        _ => {
            reader.error(&node.span, format!("`retries` must be a number from 1, not `{text}`"));
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_get_a_protocol_and_ranges_are_counted_out() {
        let table: [(&str, &[&str]); 4] = [
            ("8080", &["8080/tcp"]),
            ("53/UDP", &["53/udp"]),
            ("9000-9002", &["9000/tcp", "9001/tcp", "9002/tcp"]),
            ("65535/sctp", &["65535/sctp"]),
        ];
        for (text, expected) in table {
            assert_eq!(ports(text).unwrap(), expected, "{text}");
        }
        for text in ["", "0", "65536", "+80", "80/", "80/icmp", "9-8", "80:80", "http", "1-", "-1", " 80"] {
            assert_eq!(ports(text), None, "{text}");
        }
    }

    #[test]
    fn signals_are_what_engines_take() {
        for text in ["SIGTERM", "term", "15", "SIGRTMIN+3", "RTMAX-1", "SIGRTMIN", "64", "SIGWINCH"] {
            assert!(is_signal(text), "{text}");
        }
        for text in ["", "0", "65", "SIG", "TERMINATE", "SIGRTMIN+31", "SIGRTMIN-1", "-9", "SIGSIGTERM"] {
            assert!(!is_signal(text), "{text}");
        }
    }

    #[test]
    fn times_are_those_of_go() {
        let table = [("30s", 30_000), ("1m30s", 90_000), ("1.5s", 1_500), ("500ms", 500), ("1h", 3_600_000)];
        for (text, milliseconds) in table {
            assert_eq!(time(text), Some(Duration::from_millis(milliseconds)), "{text}");
        }
        for text in ["", "30", "-1s", "1us", "soon", "10000000000h", "0s"] {
            assert_eq!(time(text), None, "{text}");
        }
    }
}
