//! The `hash` of imports.

use std::collections::BTreeSet;

use super::Inputs;
use crate::database::Database;
use crate::diag::{Diagnostic, Diagnostics};
use crate::digest::{ChainId, ContentDigest};
use crate::error::Result;
use crate::graph::{LayerGraph, LayerIndex, NodeSource};
use crate::listing::Kind;
use crate::load::Loaded;

/// Checks the `hash` of every host file import. The sha256 of a content is remembered by its blake3, so that a file is
/// read for it once.
pub fn check_hashes(
    graph: &LayerGraph,
    loaded: &Loaded,
    wanted: &BTreeSet<LayerIndex>,
    inputs: &Inputs,
    database: &Database,
) -> Result<()> {
    let mut diagnostics = Diagnostics::new(loaded.texts.clone());
    for &index in wanted {
        for import in &graph[index].imports {
            let (NodeSource::Host { at, .. }, Some(wanted)) = (&import.source, import.import.hash) else { continue };
            let (path, place) = (&at.path, import.import.place.clone());
            let Kind::File { content, .. } = &inputs.trees[at].root().kind else {
                diagnostics.push(
                    Diagnostic::error(format!("{} is not a file, so `hash` cannot be checked", path.display()))
                        .at(place, ""),
                );
                continue;
            };
            let found = remembered_sha256(database, content, || crate::resolve::sha256_of(path, content))?;
            let wanted = crate::digest::hex(&wanted);
            let message = match found {
                Some(found) if found == wanted => continue,
                Some(found) => format!("{} has another sha256: wanted {wanted}, found {found}", path.display()),
                None => format!("{} changed while it was read", path.display()),
            };
            diagnostics.push(Diagnostic::error(message).at(place, ""));
        }
    }
    match diagnostics.into_error() {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

/// The sha256 (hex) of a content known by its blake3. `None`: `compute` did not find that content.
pub(crate) fn remembered_sha256(
    database: &Database,
    content: &ContentDigest,
    compute: impl FnOnce() -> Result<Option<[u8; 32]>>,
) -> Result<Option<String>> {
    let question = format!("sha256 {content}");
    if let Some(known) = database.answer(&ChainId::SCRATCH, &question)? {
        return Ok(Some(known));
    }
    let Some(found) = compute()?.map(|found| crate::digest::hex(&found)) else { return Ok(None) };
    remember_sha256(database, content, &found)?;
    Ok(Some(found))
}

/// Remembers the sha256 (hex) of a content.
pub(crate) fn remember_sha256(database: &Database, content: &ContentDigest, sha256: &str) -> Result<()> {
    database.put_answer(&ChainId::SCRATCH, &format!("sha256 {content}"), sha256)
}
