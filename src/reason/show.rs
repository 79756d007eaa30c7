//! Reasons in a few words.

use std::fmt;

use super::{Change, FileChange, FileHow, Reason};

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Reason::NeverBuilt => f.write_str("never built"),
            Reason::Forced => f.write_str("forced"),
            Reason::Evicted => f.write_str("evicted: its data is gone"),
            Reason::NotKept(why) => write!(f, "not kept the last time: {why}"),
            Reason::NoResult => f.write_str("no result of the last try"),
            Reason::Changed(changes) => match changes.split_first() {
                None => f.write_str("changed"),
                Some((first, rest)) => {
                    write!(f, "{first}")?;
                    // What only follows from a changed base is not told apart.
                    let more =
                        rest.iter().filter(|change| **change != Change::Time && **change != Change::Base).count();
                    if more > 0 { write!(f, ", {more} more") } else { Ok(()) }
                }
            },
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Change::Import { place, files } => match files.split_first() {
                None if place.is_empty() => f.write_str("import changed"),
                None => write!(f, "{place} changed"),
                Some((first, rest)) => {
                    let name = place.rsplit('/').next().unwrap_or(place);
                    let path = match (name, first.path.as_str()) {
                        (name, "") => name.to_owned(),
                        ("", path) => path.to_owned(),
                        (name, path) => format!("{name}/{path}"),
                    };
                    match (path.as_str(), first.how) {
                        ("", _) => f.write_str("import changed")?,
                        (path, FileHow::Added) => write!(f, "{path} added")?,
                        (path, FileHow::Removed) => write!(f, "{path} removed")?,
                        (path, FileHow::Changed) => write!(f, "{path} changed")?,
                    }
                    f.write_str(&more(rest.len()))
                }
            },
            Change::Bind { place, files } => {
                write!(f, "bind {place}: ")?;
                match files.split_first() {
                    None => f.write_str("its content changed"),
                    Some((first, rest)) => write!(f, "{first}{}", more(rest.len())),
                }
            }
            Change::Node(place) => write!(f, "bind: socket or device {place} changed"),
            Change::Binds => f.write_str("list of binds changed"),
            Change::Imports => f.write_str("list of imports changed"),
            Change::Tar => f.write_str("tar base changed"),
            Change::Script => f.write_str("script changed"),
            Change::Variable(name) => write!(f, "variable {name} changed"),
            Change::Attributes(place) if place.is_empty() => f.write_str("place, mode or owner of the import changed"),
            Change::Attributes(place) => write!(f, "mode or owner of {place} changed"),
            Change::Network => f.write_str("network changed"),
            Change::Platform => f.write_str("platform changed"),
            Change::Ids => f.write_str("ids of the sandbox changed"),
            Change::Base => f.write_str("base changed"),
            Change::Time => f.write_str("layer time changed"),
            Change::Kind => f.write_str("steps of the layer changed"),
        }
    }
}

/// How many files differ beside the one that is named.
fn more(count: usize) -> String {
    match count {
        0 => String::new(),
        1 => " (+1 file)".to_owned(),
        count => format!(" (+{count} files)"),
    }
}

impl fmt::Display for FileChange {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let path = if self.path.is_empty() { "it" } else { &self.path };
        match self.how {
            FileHow::Added => write!(f, "{path} added"),
            FileHow::Removed => write!(f, "{path} removed"),
            FileHow::Changed => write!(f, "{path} changed"),
        }
    }
}
