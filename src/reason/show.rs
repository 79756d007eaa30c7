//! Reasons in a few words.

use std::fmt;

use bytesize::ByteSize;

use super::{Change, Differs, FileChange, FileHow, Files, How, Images, Origin, Reason};
use crate::database::Cause;
use crate::text::span;

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Reason::NeverBuilt => f.write_str("never built"),
            Reason::Forced => f.write_str("forced"),
            Reason::Evicted { evicted: _, cause } => write!(f, "{cause}"),
            Reason::DataMissing => f.write_str("its data is missing"),
            Reason::NotKept { why } => write!(f, "not kept the last time: {why}"),
            Reason::NoResult => f.write_str("no result of the last try"),
            Reason::Changed { earlier: _, changes } => match changes.split_first() {
                None => f.write_str("changed"),
                Some((first, rest)) => {
                    write!(f, "{first}")?;
                    // What only follows from another layer is not told apart.
                    let follows = |change: &&Change| {
                        matches!(change, Change::Time { .. } | Change::Base { .. }) || change.origin().is_some()
                    };
                    let more = rest.iter().filter(|change| !follows(change)).count();
                    if more > 0 { write!(f, ", {more} more") } else { Ok(()) }
                }
            },
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Cause::OlderThan { seconds } => write!(f, "evicted: not used for {}", span(*seconds)),
            Cause::MaxSize { bytes } => {
                write!(f, "evicted: the cache was to be no larger than {}", ByteSize::b(*bytes).display().iec())
            }
            Cause::KeepLast { count: 1 } => f.write_str("evicted: only the last result of the layer was kept"),
            Cause::KeepLast { count } => write!(f, "evicted: only the last {count} results of the layer were kept"),
            Cause::Damaged => f.write_str("its data was damaged"),
            Cause::Missing => f.write_str("its data is missing"),
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Change::Import { place, files, origin } => write!(f, "{}{}", Imported { place, files }, Behind(origin)),
            Change::Bind { place, files } => {
                write!(f, "bind {place}: ")?;
                match files.as_ref().and_then(|files| Some((files.first.first()?, files.count))) {
                    None => f.write_str("its content changed"),
                    Some((first, count)) => write!(f, "{first}{}", more(count - 1)),
                }
            }
            Change::Node { place, how } => write!(f, "bind: socket or device {place} {how}"),
            Change::BindList { place, how } => write!(f, "bind {place} {how}"),
            Change::ImportList { place, how } => write!(f, "import {place} {how}"),
            Change::Order => f.write_str("order of imports or binds changed"),
            Change::Tar { origin, .. } => write!(f, "tar base changed{}", Behind(origin)),
            Change::Script { line, .. } => write!(f, "script changed: line {line}"),
            Change::Variable { name, old: None, .. } => write!(f, "variable {name} added"),
            Change::Variable { name, new: None, .. } => write!(f, "variable {name} removed"),
            Change::Variable { name, .. } => write!(f, "variable {name} changed"),
            Change::Attributes { place, .. } if place.is_empty() => {
                f.write_str("place, mode or owner of the import changed")
            }
            Change::Attributes { place, .. } => write!(f, "mode or owner of {place} changed"),
            Change::Network { .. } => f.write_str("network changed"),
            Change::Platform { .. } => f.write_str("platform changed"),
            Change::Ids { .. } => f.write_str("ids of the sandbox changed"),
            Change::Base { image, origin, .. } => match (origin, image) {
                (None, Some(image)) => write!(f, "base changed: {image}"),
                _ => write!(f, "base changed{}", Behind(origin)),
            },
            Change::Time { .. } => f.write_str("layer time changed"),
            Change::Kind { .. } => f.write_str("steps of the layer changed"),
        }
    }
}

/// An import whose content changed.
struct Imported<'a> {
    place: &'a str,
    files: &'a Option<Files>,
}

impl fmt::Display for Imported<'_> {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Imported { place, files } = self;
        let first = files.as_ref().and_then(|files| Some((files.first.first()?, files.count)));
        let Some((first, count)) = first else {
            return write!(f, "{place} changed");
        };
        let within = |path: &str| match (place.rsplit('/').next().unwrap_or(place), path) {
            ("", "") => "import".to_owned(),
            (name, "") => name.to_owned(),
            ("", path) => path.to_owned(),
            (name, path) => format!("{name}/{path}"),
        };
        let from = first.from.as_deref().map(&within);
        write!(f, "{}{}", FileChange { path: within(&first.path), how: first.how, from }, more(count - 1))
    }
}

/// What began it all, after what came of it.
struct Behind<'a>(&'a Option<Origin>);

impl fmt::Display for Behind<'_> {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        self.0.as_ref().map_or(Ok(()), |origin| write!(f, ": {origin}"))
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}: {}", self.layer, self.why)
    }
}

impl fmt::Display for Images {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let name = |image: &Option<String>| {
            let image = image.as_deref().unwrap_or("another base");
            image.rsplit_once('@').map_or(image, |(name, _)| name).to_owned()
        };
        match (name(&self.old), name(&self.new)) {
            (old, new) if old == new => write!(f, "{new} is another image"),
            (old, new) => write!(f, "{old} to {new}"),
        }
    }
}

impl fmt::Display for Differs {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("came out different")?;
        match self.files.as_ref().and_then(|files| Some((files.first.first()?, files.count))) {
            None => Ok(()),
            Some((first, count)) => write!(f, ": {first}{}", more(count - 1)),
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

impl fmt::Display for How {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            How::Added => "added",
            How::Removed => "removed",
            How::Changed => "changed",
        })
    }
}

impl fmt::Display for FileChange {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let FileChange { path, how, from } = self;
        let path = if path.is_empty() { "it" } else { path };
        match (how, from) {
            (FileHow::Moved, Some(from)) => write!(f, "{path} moved from {from}"),
            _ => write!(f, "{path} {how}"),
        }
    }
}

impl fmt::Display for FileHow {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            FileHow::Added => "added",
            FileHow::Removed => "removed",
            FileHow::Moved => "moved",
            FileHow::Type => "is of another type",
            FileHow::Content => "changed",
            FileHow::Executable => "is executable now",
            FileHow::NotExecutable => "is executable no longer",
            FileHow::Mode => "has another mode",
            FileHow::LinkTarget => "leads elsewhere",
            FileHow::Owner => "has another owner",
            FileHow::Attributes => "has other attributes",
            FileHow::Time => "has another time",
        })
    }
}
