//! Where an image comes from, as annotations of its manifest: `--provenance` (stackerfile.md, "Image config").
//!
//! Nothing of it is in an action, so no step runs for it. It says nothing of the host: built-in directories stand as
//! placeholders in the stackerfile's text, and git is asked only about the checkout that the file lies in.

mod git;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use crate::load::{Layer, Loaded};

use git::Versions;

pub(crate) use git::commit;

/// What the annotations' names begin with where nothing else is said.
pub const NAMESPACE: &str = "io.stackeroci";

/// How the names end, whatever the namespace is.
const STACKERFILE: &str = ".stacker.stacker_yaml";
const STACKER: &str = ".stacker.stacker_version";
const GIT: &str = ".stacker.git_version";

/// Registries take manifests of 4 MiB, and as JSON a text may double.
const LONGEST_TEXT: usize = 1 << 20;

/// The annotations of each stackerfile's images. The default has none.
#[derive(Debug, Default)]
pub struct Provenance(HashMap<PathBuf, BTreeMap<String, String>>);

/// Whether an annotation tells how the image itself was made, which is untrue for an image on top of it.
pub fn is_of_one_image(name: &str) -> bool {
    [STACKERFILE, STACKER, GIT].iter().any(|end| name.ends_with(end))
}

impl Provenance {
    /// For the stackerfiles of these layers; the second is what to warn of. `loaded` must have been read with
    /// [`portable`](crate::load::Options::portable) texts.
    pub fn of<'a>(
        namespace: &str,
        loaded: &Loaded,
        layers: impl Iterator<Item = &'a Layer>,
    ) -> (Provenance, Vec<String>) {
        let mut versions = Versions::default();
        let mut warnings = Vec::new();
        let mut files: HashMap<PathBuf, BTreeMap<String, String>> = HashMap::new();
        let texts: HashMap<&Path, &str> =
            loaded.stackerfiles.iter().map(|file| (&*file.path, &*file.portable)).collect();
        for layer in layers {
            let path = &*layer.place.path;
            if files.contains_key(path) {
                continue;
            }
            let mut of_file = BTreeMap::from([(STACKER, env!("CARGO_PKG_VERSION").to_owned())]);
            match texts.get(path) {
                Some(text) if text.len() > LONGEST_TEXT => warnings.push(too_long(&loaded.texts.shown(path))),
                text => drop(text.map(|text| of_file.insert(STACKERFILE, (*text).to_owned()))),
            }
            match versions.of(path) {
                Ok(version) => drop(version.map(|version| of_file.insert(GIT, version))),
                Err(why) => warnings.push(why),
            }
            let named = of_file.into_iter().map(|(end, value)| (format!("{namespace}{end}"), value));
            files.insert(path.to_path_buf(), named.collect());
        }
        (Provenance(files), warnings)
    }

    /// The annotations of a layer's image. Its own of the same name win.
    pub fn annotations(&self, layer: &Layer) -> BTreeMap<String, String> {
        let mut annotations = self.0.get(&*layer.place.path).cloned().unwrap_or_default();
        annotations.extend(layer.settings.annotations.clone());
        annotations
    }
}

fn too_long(file: &str) -> String {
    let most = LONGEST_TEXT >> 20;
    format!("{file} has more than {most} MiB, which registries refuse in a manifest: its images have no stacker_yaml")
}

#[cfg(test)]
mod tests {
    use super::is_of_one_image;

    #[test]
    fn names_of_every_namespace_are_known() {
        for name in
            ["io.stackeroci.stacker.stacker_yaml", "com.example.stacker.git_version", "x.stacker.stacker_version"]
        {
            assert!(is_of_one_image(name), "{name}");
        }
        for name in ["git_version", "org.opencontainers.image.version", "io.stackeroci.stacker.git_version.note"] {
            assert!(!is_of_one_image(name), "{name}");
        }
    }
}
