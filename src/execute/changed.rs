//! What of the host changed between being hashed for a key and being read for a step.
//!
//! The step then made nothing, and the layer is decided anew with what is there now; again and again only so often.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::action::Shows;
use crate::decide::{Run, SourceKind};
use crate::digest::{ContentDigest, TreeDigest};
use crate::error::{Error, Result};
use crate::graph::{Node, NodeBase, NodeSource};
use crate::inputs;
use crate::listing::Kind;
use crate::progress::Event;
use crate::resolve::{HostPath, HostTree, Resolver};

use super::Execution;
use super::questions::changed_files;
use super::site::Site;

/// How often a layer is decided anew.
const RETRIES: usize = 3;

/// What it is now.
pub enum Changed {
    /// The tar that the layer is made of.
    Base(ContentDigest),
    /// An import.
    Import {
        /// Which.
        import: usize,
        /// What it is now.
        tree: TreeDigest,
        /// What it is now.
        kind: SourceKind,
        /// A file in it that is another one.
        file: PathBuf,
    },
    /// What a bind shows.
    Bind {
        /// Which.
        bind: usize,
        /// What it shows now.
        shows: Shows,
        /// A file in it that is another one.
        file: PathBuf,
    },
}

/// The tar base is another one.
pub(super) fn base(site: &Site, path: &Path) -> Result<Changed> {
    match look(site, &HostPath::normalised(path.to_path_buf()))?.root().kind {
        Kind::File { content, .. } => Ok(Changed::Base(content)),
        _ => Err(Error::Build(format!("the tar base {} is not a file", path.display()))),
    }
}

/// An import is no longer `assumed`.
pub(super) fn import(site: &Site, at: &HostPath, import: usize, assumed: TreeDigest) -> Result<Changed> {
    let found = look(site, at)?;
    let (tree, kind) = (found.digest, inputs::tree_kind(&found));
    // None where it is by now what it was before.
    let first = changed_files(&site.stacker, assumed, tree).and_then(|files| files.first.into_iter().next());
    let file = match first {
        Some(file) if !file.path.is_empty() => at.path.join(file.path),
        _ => at.path.clone(),
    };
    Ok(Changed::Import { import, tree, kind, file })
}

/// Without a stat list: one has just vouched for what is not there, or may have.
fn look(site: &Site, at: &HostPath) -> Result<HostTree> {
    let tree = Resolver::new(site.exclude.clone()).at_most(site.max_layer_size).look(at, None)?.tree;
    tree.keep_listing(&site.stacker)?;
    Ok(tree)
}

impl Execution<'_> {
    /// Decides a layer anew, or fails it when that was tried often enough.
    pub(super) fn source_changed(&mut self, run: &Run, changed: Changed) -> Result<()> {
        let node = &self.graph[run.id.layer];
        match &changed {
            Changed::Bind { bind, .. } => self.distrust_bind(&node.layer.binds[*bind].source)?,
            _ => self.distrust(&place(node, &changed))?,
        }
        let tries = self.retries.entry(run.id.layer).or_default();
        *tries += 1;
        let why = match &changed {
            Changed::Import { import, .. } if node.imports[*import].import.hash.is_some() => {
                Some("changed after its `hash` was compared")
            }
            _ if *tries > RETRIES => Some("keeps changing while it is read"),
            _ => None,
        };
        match (why, changed) {
            (Some(why), changed) => {
                let file = match changed {
                    Changed::Import { file, .. } | Changed::Bind { file, .. } => file,
                    Changed::Base(_) => place(node, &changed).path,
                };
                let message = format!("{} {why}", file.display());
                self.site.tell(Event::Failed { layer: node.layer.name.clone(), message });
                self.decider.failed(run.id, run.key);
            }
            (None, Changed::Base(content)) => self.decider.host_tar_changed(run.id, run.key, content),
            (None, Changed::Bind { bind, shows, .. }) => self.decider.bind_changed(run.id, run.key, bind, shows),
            (None, Changed::Import { import, tree, kind, .. }) => {
                self.decider.host_import_changed(run.id, run.key, import, tree, kind);
            }
        }
        Ok(())
    }

    /// A stat list that vouched for a tree that is something else must not do so again.
    fn distrust(&self, at: &HostPath) -> Result<()> {
        match std::fs::symlink_metadata(&at.path) {
            Ok(found) => self.database.drop_stat_list(&at.list_path(), found.dev()),
            // A path that is not there has no list that anybody would look at.
            Err(_) => Ok(()),
        }
    }
}

/// Where what changed lies.
fn place(node: &Node, changed: &Changed) -> HostPath {
    match (changed, &node.base) {
        (Changed::Base(_), NodeBase::Tar(path)) => HostPath::normalised(path.clone()),
        // Nothing else changes.
        (Changed::Base(_) | Changed::Bind { .. }, _) => HostPath::normalised(PathBuf::new()),
        (Changed::Import { import, .. }, _) => match &node.imports[*import].source {
            NodeSource::Host { at, .. } => at.clone(),
            NodeSource::Layer { path, .. } | NodeSource::Url(path) => HostPath::normalised(PathBuf::from(path)),
        },
    }
}
