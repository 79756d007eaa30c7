//! `index.json` as data: foreign entries and fields stay as they are, our tags stand in the order of a serial build.

use std::collections::{BTreeMap, HashMap};
use std::io::ErrorKind;
use std::path::Path;

use oci_spec::image::MediaType;
use serde_json::{Map, Value, json};

use crate::digest::BlobDigest;
use crate::error::{At, Error, Result};
use crate::oci::REF_NAME;

/// The index of a layout.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Index {
    /// All but `manifests`.
    rest: Map<String, Value>,
    /// Descriptors as they stand there.
    pub entries: Vec<Value>,
}

impl Index {
    /// Without an image.
    pub fn empty() -> Index {
        let rest = json!({"schemaVersion": 2, "mediaType": MediaType::ImageIndex});
        Index { rest: rest.as_object().cloned().unwrap_or_default(), entries: Vec::new() }
    }

    /// `None`: there is no such file, or it is empty, as a power cut leaves one that was just replaced.
    pub fn read(path: &Path) -> Result<Option<Index>> {
        let bytes = match std::fs::read(path) {
            Ok(bytes) if bytes.is_empty() => return Ok(None),
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).at("read", path),
        };
        let wrong = |why: String| Error::Machine(format!("{} is no index of an OCI layout: {why}", path.display()));
        let mut rest: Map<String, Value> = serde_json::from_slice(&bytes).map_err(|error| wrong(error.to_string()))?;
        match rest.remove("manifests") {
            Some(Value::Array(entries)) => Ok(Some(Index { rest, entries })),
            None | Some(Value::Null) => Ok(Some(Index { rest, entries: Vec::new() })),
            Some(_) => Err(wrong("its \"manifests\" are not a list".to_owned())),
        }
    }

    /// The bytes of the file.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut json = self.rest.clone();
        json.insert("manifests".into(), Value::Array(self.entries.clone()));
        serde_json::to_vec(&json).expect("JSON values are always JSON")
    }

    /// What each tag leads to; a tag that several entries share leads nowhere. One pass, since a build asks for all.
    pub fn digests(&self) -> HashMap<&str, BlobDigest> {
        let mut digests = HashMap::with_capacity(self.entries.len());
        for entry in &self.entries {
            let Some(tag) = tag_of(entry) else { continue };
            digests.entry(tag).and_modify(|digest| *digest = None).or_insert_with(|| digest_of(entry));
        }
        digests.into_iter().filter_map(|(tag, digest)| Some((tag, digest?))).collect()
    }

    /// Whether those of the tags of `order` that are here stand in that order, each once.
    pub fn is_in(&self, order: &[String]) -> bool {
        let rank: HashMap<&str, usize> = order.iter().enumerate().map(|(rank, tag)| (tag.as_str(), rank)).collect();
        let ours: Vec<usize> = self.entries.iter().filter_map(|entry| rank.get(tag_of(entry)?).copied()).collect();
        ours.is_sorted_by(|one, next| one < next)
    }

    /// With `new` entries by tag, and the tags of `order` in that order. Tags that are neither here nor new are passed
    /// over. What is not in `order` keeps its place; a new tag stands after the one before it in `order`.
    pub fn merged(&self, new: &BTreeMap<String, Value>, order: &[String]) -> Index {
        let mut order: Vec<&str> = order.iter().map(String::as_str).collect();
        order.extend(new.keys().map(String::as_str).filter(|tag| !order.contains(tag)).collect::<Vec<_>>());
        let rank: BTreeMap<&str, usize> = order.iter().enumerate().map(|(rank, tag)| (*tag, rank)).collect();
        let rank_of = |entry: &Value| tag_of(entry).and_then(|tag| rank.get(tag).copied());

        let mut entries = self.replaced(new);
        let mut ours: Vec<Value> = entries.iter().filter(|entry| rank_of(entry).is_some()).cloned().collect();
        ours.sort_by_key(|entry| rank_of(entry));
        let mut ours = ours.into_iter();
        for slot in entries.iter_mut().filter(|entry| rank_of(entry).is_some()) {
            *slot = ours.next().expect("as many as there are slots");
        }
        for (tag, entry) in new_in_order(&order, new) {
            if entries.iter().any(|entry| tag_of(entry) == Some(tag)) {
                continue;
            }
            let before = entries.iter().rposition(|other| rank_of(other).is_some_and(|rank_of| rank_of < rank[tag]));
            let after = entries.iter().position(|other| rank_of(other).is_some_and(|rank_of| rank_of > rank[tag]));
            let place = before.map(|place| place + 1).or(after).unwrap_or(entries.len());
            entries.insert(place, entry.clone());
        }
        Index { rest: self.rest.clone(), entries }
    }

    /// The entries with those of new digests in place of the old ones, one for each tag.
    fn replaced(&self, new: &BTreeMap<String, Value>) -> Vec<Value> {
        let mut seen = Vec::new();
        let mut entries = Vec::with_capacity(self.entries.len());
        for entry in &self.entries {
            let Some((tag, replacement)) = tag_of(entry).and_then(|tag| new.get_key_value(tag)) else {
                entries.push(entry.clone());
                continue;
            };
            if seen.contains(&tag) {
                continue;
            }
            seen.push(tag);
            // What other tools wrote beside an unchanged image stays.
            let same = digest_of(entry).is_some() && digest_of(entry) == digest_of(replacement);
            entries.push(if same { entry.clone() } else { replacement.clone() });
        }
        entries
    }
}

/// The tag of a descriptor.
pub(super) fn tag_of(entry: &Value) -> Option<&str> {
    entry.get("annotations")?.get(REF_NAME)?.as_str()
}

/// The digest of a descriptor, when it is a sha256.
pub(super) fn digest_of(entry: &Value) -> Option<BlobDigest> {
    entry.get("digest")?.as_str()?.parse().ok()
}

fn new_in_order<'a>(
    order: &'a [&'a str],
    new: &'a BTreeMap<String, Value>,
) -> impl Iterator<Item = (&'a str, &'a Value)> {
    order.iter().filter_map(|tag| Some((*tag, new.get(*tag)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(tag: &str, byte: u8) -> Value {
        let digest = BlobDigest([byte; 32]);
        json!({"mediaType": MediaType::ImageManifest, "digest": digest, "size": 1, "annotations": {REF_NAME: tag}})
    }

    fn tags(index: &Index) -> String {
        let tags: Vec<_> = index.entries.iter().map(|entry| tag_of(entry).unwrap_or("-")).collect();
        tags.join(" ")
    }

    #[test]
    fn tags_stand_in_serial_order_and_foreign_ones_keep_their_place() {
        for (have, new, order, want) in [
            ("", "b a", "a b", "a b"),
            ("x y", "a b", "a b", "x y a b"),
            ("x b y a z", "", "a b", "x a y b z"),
            ("x a c", "b", "a b c", "x a b c"),
            ("x b", "a", "a b", "x a b"),
            ("a b c", "b", "b", "a b c"),
            ("a x", "b", "a gone b", "a b x"),
            ("a", "q p", "a", "a p q"),
        ] {
            let mut index = Index::empty();
            index.entries = have.split_whitespace().map(|tag| entry(tag, 1)).collect();
            let new = new.split_whitespace().map(|tag| (tag.to_owned(), entry(tag, 2))).collect();
            let order: Vec<_> = order.split_whitespace().map(str::to_owned).collect();
            let merged = index.merged(&new, &order);
            assert_eq!(tags(&merged), want, "{have:?} + {new:?}");
            let digests = merged.digests();
            assert!(new.keys().all(|tag| digests.get(tag.as_str()) == Some(&BlobDigest([2; 32]))));
        }
    }

    #[test]
    fn an_unchanged_image_keeps_what_others_wrote_beside_it() {
        let mut index = Index::empty();
        let mut foreign = entry("a", 1);
        foreign["annotations"]["note"] = json!("kept");
        index.entries = vec![foreign, json!({"digest": "sha512:00", "odd": [1, 2]})];
        index.rest.insert("annotations".into(), json!({"of": "the index"}));
        let new = BTreeMap::from([("a".to_owned(), entry("a", 1))]);
        assert_eq!(index.merged(&new, &["a".to_owned()]), index);
        let changed = BTreeMap::from([("a".to_owned(), entry("a", 2))]);
        let merged = index.merged(&changed, &[]);
        assert_eq!(merged.entries, [entry("a", 2), index.entries[1].clone()]);
        assert_eq!(merged.rest, index.rest);
    }

    #[test]
    fn a_tag_that_stands_twice_becomes_one() {
        let mut index = Index::empty();
        index.entries = vec![entry("a", 1), entry("b", 1), entry("a", 3)];
        assert_eq!(index.digests().get("a"), None);
        let merged = index.merged(&BTreeMap::from([("a".to_owned(), entry("a", 2))]), &[]);
        assert_eq!(tags(&merged), "a b");
    }
}
