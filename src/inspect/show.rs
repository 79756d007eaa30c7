//! Images as text for people.

use std::path::Path;

use super::image::{History, Image};
use super::table::{Facts, NOTHING_THERE, bytes, columns, plain};
use crate::action::Platform;

/// One line for each image.
pub(super) fn brief(layout: &Path, images: &[Image]) -> String {
    if images.is_empty() {
        return format!("the OCI layout {} holds no images\n", layout.display());
    }
    let row = |image: &Image| {
        vec![
            plain(image.tag.as_deref().unwrap_or(NOTHING_THERE)),
            image.digest.to_string(),
            platform(&image.platform),
            image.layers.len().to_string(),
            bytes(image.size),
            or_nothing(&image.created),
        ]
    };
    let header = ["TAG", "DIGEST", "PLATFORM", "LAYERS", "SIZE", "CREATED"];
    columns(Some(&header), images.iter().map(row), &[3, 4])
}

/// Everything about each image of one tag.
pub(super) fn whole(tag: &str, images: &[Image]) -> String {
    if images.is_empty() {
        return format!("the tag {tag:?} leads to no image\n");
    }
    images.iter().map(image).collect::<Vec<_>>().join("\n")
}

fn image(image: &Image) -> String {
    let mut text = facts(image).lines();
    text.push('\n');
    text.push_str(&layers(image));
    if !image.history.is_empty() {
        text.push('\n');
        text.push_str(&history(&image.history));
    }
    text
}

fn facts(image: &Image) -> Facts {
    let config = &image.config;
    let mut facts = Facts::default();
    facts.add("tag", image.tag.clone());
    facts.add("digest", [image.digest.to_string()]);
    facts.add("platform", [platform(&image.platform)]);
    facts.add("size", [bytes(image.size)]);
    facts.add("created", image.created.clone());
    facts.add("author", image.author.clone());
    facts.add("entrypoint", config.entrypoint.as_deref().map(list));
    facts.add("cmd", config.cmd.as_deref().map(list));
    facts.add("working dir", config.working_dir.clone());
    facts.add("user", config.user.clone());
    facts.add("env", config.env.clone());
    facts.add("volumes", config.volumes.clone());
    facts.add("ports", config.exposed_ports.clone());
    facts.add("stop signal", config.stop_signal.clone());
    facts.add("labels", config.labels.iter().map(|(name, value)| format!("{name}={value}")));
    facts.add("annotations", image.annotations.iter().map(|(name, value)| format!("{name}={value}")));
    facts
}

fn layers(image: &Image) -> String {
    if image.layers.is_empty() {
        return "no layers\n".to_owned();
    }
    let row = |(index, layer): (usize, &super::image::Layer)| {
        vec![(index + 1).to_string(), bytes(layer.size), layer.digest.to_string(), layer.diff_id.to_string()]
    };
    columns(Some(&["LAYER", "SIZE", "DIGEST", "DIFF ID"]), image.layers.iter().enumerate().map(row), &[0, 1])
}

fn history(history: &[History]) -> String {
    let mut layers = 0;
    let rows = history.iter().map(|entry| {
        let layer = match entry.empty_layer {
            true => NOTHING_THERE.to_owned(),
            false => {
                layers += 1;
                layers.to_string()
            }
        };
        let by = entry.created_by.as_ref().or(entry.comment.as_ref()).cloned();
        vec![layer, or_nothing(&entry.created), or_nothing(&by)]
    });
    columns(Some(&["LAYER", "CREATED", "BY"]), rows.collect::<Vec<_>>(), &[0])
}

/// `["a", "b c"]`, as it stands in stackerfiles.
fn list(words: &[String]) -> String {
    let words: Vec<_> = words.iter().map(|word| serde_json::Value::from(word.as_str()).to_string()).collect();
    format!("[{}]", words.join(", "))
}

fn platform(platform: &Platform) -> String {
    match (platform.os.as_str(), platform.arch.as_str()) {
        ("", "") => "any".to_owned(),
        (os, arch) => plain(&format!("{os}/{arch}")),
    }
}

fn or_nothing(text: &Option<String>) -> String {
    plain(text.as_deref().unwrap_or(NOTHING_THERE))
}
