//! Whether the text of a listing is one that stacker would write of a layer: what others wrote is not believed.

use std::collections::HashMap;
use std::path::Path;

use crate::listing::{Entry, Kind, split};
use crate::record::LayerInfo;
use crate::verify::whole_listing;

/// What it holds, or what is wrong with it.
pub(super) fn sound(path: &Path) -> Result<LayerInfo, String> {
    let Some((entries, info)) = whole_listing(path) else { return Err("it is no listing".to_owned()) };
    let mut seen: HashMap<&[u8], &Kind> = HashMap::new();
    if !entries.first().is_some_and(|root| root.path.is_empty() && is_directory(&root.kind)) {
        return Err("it does not begin with the root".to_owned());
    }
    for entry in &entries {
        if let Some(why) = wrong(entry, &seen) {
            return Err(format!("/{}: {why}", crate::text::escape(&entry.path)));
        }
        if entry.kind != Kind::Whiteout {
            seen.insert(&entry.path, &entry.kind);
        }
    }
    // Sizes that nobody has would come out smaller.
    let size = |entry: &Entry| if let Kind::File { size, .. } = entry.kind { size } else { 0 };
    match entries.iter().try_fold(0u64, |sum, entry| sum.checked_add(size(entry))) {
        Some(bytes) if bytes <= crate::unpack::MAX_LAYER_SIZE => Ok(info),
        _ => Err("its files are larger than a layer can be".to_owned()),
    }
}

fn wrong(entry: &Entry, seen: &HashMap<&[u8], &Kind>) -> Option<&'static str> {
    let odd = |name: &[u8]| matches!(name, b"" | b"." | b"..") || name.contains(&0);
    if !entry.path.is_empty() && entry.path.split(|byte| *byte == b'/').any(odd) {
        return Some("no name of a file");
    }
    let (above, name) = split(&entry.path);
    if name.starts_with(b".wh.") {
        return Some("a name that no layer can hold");
    }
    if !entry.path.is_empty() && !seen.get(above).is_some_and(|kind| is_directory(kind)) {
        return Some("it is in no directory");
    }
    match &entry.kind {
        Kind::HardLink { to } if !matches!(seen.get(to.as_slice()), Some(Kind::File { .. } | Kind::Fifo)) => {
            Some("a link to no file")
        }
        _ => None,
    }
}

fn is_directory(kind: &Kind) -> bool {
    matches!(kind, Kind::Directory { .. })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listings_that_lead_elsewhere_are_refused() {
        let wrong = |lines: &str| {
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), format!("stacker listing 1\n{lines}")).unwrap();
            sound(file.path()).err()
        };
        let (root, file) = ("% d 755 0 0 1 -\n", format!("f 644 0 0 1 1 {}", "07".repeat(32)));
        let root_and = |line: &str| format!("{root}{line}\n");
        assert_eq!(wrong(root), None);
        assert_eq!(wrong(&root_and(&format!("a {file}\nb h 644 0 0 1 a\nc d 755 0 0 1 -\nc/x w 0 0 0 1"))), None);
        for lines in ["", "a d 755 0 0 1 -\n", "% l 777 0 0 1 /\n"] {
            assert!(wrong(lines).is_some(), "{lines}");
        }
        let lines = [
            ".. d 755 0 0 1 -".to_owned(),
            format!("../x {file}"),
            format!("a/../x {file}"),
            format!("a/x {file}"),
            format!("/etc/x {file}"),
            format!("a%00 {file}"),
            format!(".wh.a {file}"),
            "a h 644 0 0 1 b".to_owned(),
            "a h 644 0 0 1 ../b".to_owned(),
            format!("b {file}\na {file}"),
            format!("a {file}\na/b {file}"),
            format!("a f 644 0 0 1 18446744073709551615 {}", "07".repeat(32)),
        ];
        for line in &lines {
            assert!(wrong(&root_and(line)).is_some(), "{line}");
        }
    }
}
