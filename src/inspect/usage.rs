//! Where the disk went, for `stacker cache du`.

use schemars::JsonSchema;
use serde::Serialize;

use super::table::{bytes, columns, plain};
use crate::usage::Kind;

/// What a store holds, by kind and by layer.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(title = "stacker cache du")]
pub struct Usage {
    /// Bytes that are free when the whole store is removed, with the file system's own for them.
    pub total: u64,
    /// Bytes that are not free then, since something outside has them too, such as images in a layout.
    pub outside: u64,
    /// Every byte of the total once.
    pub kinds: Vec<KindUsage>,
    /// The layers, those with the most bytes of their own first.
    pub layers: Vec<LayerUsage>,
}

/// What things of one kind hold.
#[derive(Debug, Serialize, JsonSchema)]
pub struct KindUsage {
    /// The kind; `metadata` is what the file system has of its own, where it does not count that to files.
    pub kind: KindName,
    /// How many things there are.
    pub count: usize,
    /// Bytes. What several things hold is counted for the first of them.
    pub bytes: u64,
}

/// The name of a kind.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum KindName {
    /// Of things.
    Of(Kind),
    /// `metadata`: the file system's.
    Metadata(String),
}

/// What belongs to one layer.
#[derive(Debug, Serialize, JsonSchema)]
pub struct LayerUsage {
    /// Its name; several where builds of several names use the same; null: of no layer that builds are known of, such as
    /// that of a base image.
    pub layer: Option<String>,
    /// How many results it has.
    pub results: usize,
    /// Bytes that are free when these are removed, and nothing else.
    pub exclusive: u64,
    /// Bytes that they hold and that something else holds too.
    pub shared: u64,
}

impl Usage {
    /// For people, or (`json`) for programs.
    pub fn render(&self, json: bool) -> String {
        if json {
            return crate::text::json(self);
        }
        let kinds = self.kinds.iter().filter(|kind| kind.bytes > 0);
        let kinds = kinds.map(|kind| vec![kind.kind.to_string(), kind.count.to_string(), bytes(kind.bytes)]);
        let mut text = columns(Some(&["KIND", "THINGS", "SIZE"]), kinds, &[1, 2]);
        text += "\n";
        let layer = |usage: &LayerUsage| {
            let name = usage.layer.as_deref().map_or("(no layer)".to_owned(), plain);
            vec![name, usage.results.to_string(), bytes(usage.exclusive), bytes(usage.shared)]
        };
        let header = ["LAYER", "RESULTS", "EXCLUSIVE", "SHARED"];
        text += &columns(Some(&header), self.layers.iter().map(layer), &[1, 2, 3]);
        text += &format!("\ntotal {}", bytes(self.total));
        if self.outside > 0 {
            text += &format!("; {} more are shared with files outside, such as images", bytes(self.outside));
        }
        text + "\n"
    }
}

impl std::fmt::Display for KindName {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        let name = serde_json::to_value(self).expect("a name is always JSON");
        f.write_str(&name.as_str().unwrap_or_default().replace('-', " "))
    }
}
