//! An image of a layout as what it holds: every path with mode, owner and content, and the configuration.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::Path;

use serde_json::Value;
use stacker::compress::decoder;

use super::space::Space;

/// A file of an image.
#[derive(Debug, PartialEq)]
pub struct Entry {
    /// `d`, `f` or `l`.
    pub kind: char,
    pub mode: u32,
    pub owner: (u64, u64),
    /// The text of a small file, the target of a link.
    pub content: String,
}

/// What an image holds.
pub struct Image {
    pub files: BTreeMap<String, Entry>,
    pub config: Value,
}

impl Image {
    pub fn read(space: &Space, tag: &str) -> Image {
        let mut files = BTreeMap::new();
        space.layers(tag).iter().for_each(|layer| Image::add(&mut files, layer));
        let layout = stacker::oci::Layout::open(space.path("oci")).unwrap();
        let arch = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        let platform = stacker::action::Platform { os: "linux".into(), arch: arch.into() };
        let config = layout.find(Some(tag), &platform).unwrap().config.json()["config"].clone();
        Image { files, config }
    }

    fn add(files: &mut BTreeMap<String, Entry>, layer: &Path) {
        let (plain, _) = decoder(fs::File::open(layer).unwrap()).unwrap();
        let mut archive = tar::Archive::new(plain);
        for member in archive.entries().unwrap() {
            let mut member = member.unwrap();
            let path = String::from_utf8_lossy(&member.path_bytes()).trim_end_matches('/').to_owned();
            let (above, name) = path.rsplit_once('/').unwrap_or(("", &path));
            if let Some(gone) = name.strip_prefix(".wh.") {
                let gone = format!("{above}/{gone}").trim_start_matches('/').to_owned();
                files.retain(|path, _| *path != gone && !path.starts_with(&format!("{gone}/")));
                continue;
            }
            let header = member.header().clone();
            let kind = match header.entry_type() {
                tar::EntryType::Directory => 'd',
                tar::EntryType::Symlink => 'l',
                _ => 'f',
            };
            let mut content = Vec::new();
            match kind {
                'l' => content.extend_from_slice(&member.link_name_bytes().unwrap()),
                _ if member.size() < 4096 => drop(member.read_to_end(&mut content).unwrap()),
                _ => {}
            }
            let owner = (header.uid().unwrap(), header.gid().unwrap());
            let content = String::from_utf8_lossy(&content).into_owned();
            files.insert(path, Entry { kind, mode: header.mode().unwrap() & 0o7777, owner, content });
        }
    }

    /// `f 0644 0:0`, and so on.
    #[track_caller]
    pub fn look(&self, path: &str) -> String {
        let Entry { kind, mode, owner: (uid, gid), .. } = self.entry(path);
        if *kind == 'l' { format!("l {uid}:{gid}") } else { format!("{kind} {mode:04o} {uid}:{gid}") }
    }

    #[track_caller]
    pub fn entry(&self, path: &str) -> &Entry {
        self.files.get(path).unwrap_or_else(|| panic!("the image has no {path}"))
    }

    #[track_caller]
    pub fn looks(&self, expected: &[(&str, &str)]) {
        for (path, look) in expected {
            assert_eq!(self.look(path), *look, "{path}");
        }
    }

    #[track_caller]
    pub fn holds(&self, expected: &[(&str, &str)]) {
        for (path, content) in expected {
            assert_eq!(self.entry(path).content, *content, "{path}");
        }
    }

    #[track_caller]
    pub fn lacks(&self, paths: &[&str]) {
        paths.iter().for_each(|path| assert!(!self.files.contains_key(*path), "the image has {path}"));
    }

    /// The variable of the image's configuration.
    pub fn variable(&self, name: &str) -> Option<String> {
        let variables = self.config["Env"].as_array().unwrap().iter().filter_map(Value::as_str);
        variables.filter_map(|line| line.split_once('=')).find(|(known, _)| *known == name).map(|(_, v)| v.to_owned())
    }
}
