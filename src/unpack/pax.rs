//! PAX records: `LENGTH name=value` lines, whose values may hold any byte.

use std::collections::BTreeMap;
use std::io;

use super::archive::invalid;
use super::sparse::Segment;
use crate::listing::Time;

/// The records of one header, or of all headers so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Records {
    values: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The pairs of sparse format 0.0, which repeats its names.
    pairs: Vec<u64>,
}

const XATTR: &[u8] = b"SCHILY.xattr.";

impl Records {
    /// Reads the body of an `x` or `g` member.
    pub fn parse(mut body: &[u8]) -> io::Result<Records> {
        let mut records = Records::default();
        while !body.is_empty() {
            let (name, value, rest) = record(body).ok_or_else(|| invalid("a malformed PAX record"))?;
            if name == b"GNU.sparse.offset" || name == b"GNU.sparse.numbytes" {
                records.pairs.push(number(value)?);
            }
            records.values.insert(name.to_vec(), value.to_vec());
            body = rest;
        }
        Ok(records)
    }

    /// Later records replace earlier ones.
    pub fn update(&mut self, later: Records) {
        self.values.extend(later.values);
        self.pairs = later.pairs;
    }

    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Bytes of all names and values.
    pub fn size(&self) -> usize {
        self.values.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>() + 8 * self.pairs.len()
    }

    /// The value of a record; an empty one means that there is none.
    pub fn value(&self, name: &str) -> Option<&[u8]> {
        self.values.get(name.as_bytes()).map(Vec::as_slice).filter(|value| !value.is_empty())
    }

    pub fn number(&self, name: &str) -> io::Result<Option<u64>> {
        self.value(name).map(number).transpose()
    }

    pub fn xattrs(&self) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let named = |(name, value): (&Vec<u8>, &Vec<u8>)| Some((name.strip_prefix(XATTR)?.to_vec(), value.clone()));
        self.values.iter().filter_map(named).collect()
    }

    /// Whether the member is sparse in one of GNU's PAX formats.
    pub fn is_sparse(&self) -> bool {
        self.values.keys().any(|name| name.starts_with(b"GNU.sparse."))
    }

    /// The map of formats 0.0 and 0.1; in format 1.0 it stands before the data.
    pub fn sparse_map(&self) -> io::Result<Option<Vec<Segment>>> {
        if self.value("GNU.sparse.major").is_some_and(|major| major == b"1") {
            return Ok(None);
        }
        let numbers = match self.value("GNU.sparse.map") {
            Some(map) => map.split(|&byte| byte == b',').map(number).collect::<io::Result<Vec<u64>>>()?,
            None => self.pairs.clone(),
        };
        super::sparse::segments(&numbers).map(Some)
    }
}

fn record(body: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let blank = body.iter().take(20).position(|&byte| byte == b' ')?;
    let length: usize = std::str::from_utf8(&body[..blank]).ok()?.parse().ok()?;
    let (line, rest) = body.split_at_checked(length)?;
    let pair = line.get(blank + 1..)?.strip_suffix(b"\n")?;
    let equals = pair.iter().position(|&byte| byte == b'=')?;
    Some((&pair[..equals], &pair[equals + 1..], rest))
}

pub(super) fn number(text: &[u8]) -> io::Result<u64> {
    std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).ok_or_else(|| invalid("not a number in a record"))
}

/// A decimal fraction of a second, perhaps negative; digits beyond the ninth are cut off.
pub(super) fn time(text: &[u8]) -> io::Result<Time> {
    let bad = || invalid("not a time in a record");
    let text = std::str::from_utf8(text).map_err(|_| bad())?;
    let (negative, digits) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) || whole.starts_with(['+', '-']) {
        return Err(bad());
    }
    let seconds: i64 = whole.parse().map_err(|_| bad())?;
    let nanos: u32 = format!("{fraction:0<9}")[..9].parse().map_err(|_| bad())?;
    Ok(match (negative, nanos) {
        (false, nanos) => Time { seconds, nanos },
        (true, 0) => Time::from_seconds(-seconds),
        (true, nanos) => Time { seconds: -seconds - 1, nanos: 1_000_000_000 - nanos },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_may_hold_line_feeds() {
        let records = Records::parse(b"12 path=a\nb\n11 uid=123\n8 gid=\n\n").unwrap();
        assert_eq!(records.value("path"), Some(b"a\nb".as_slice()));
        assert_eq!(records.number("uid").unwrap(), Some(123));
        for bad in ["", "x path=a\n", "99 path=a\n", "9 path=ab", "5 a=b\n"] {
            assert!(bad.is_empty() || Records::parse(bad.as_bytes()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn times() {
        let cases = [("5", 5, 0), ("-1.5", -2, 500_000_000), ("3.0000000019", 3, 1), ("-0.999999995", -1, 5)];
        for (text, seconds, nanos) in cases {
            assert_eq!(time(text.as_bytes()).unwrap(), Time { seconds, nanos }, "{text}");
        }
        for bad in ["", "x", "1.x", "--1", "1.2.3", "1e5"] {
            assert!(time(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
