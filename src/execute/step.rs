//! One step of one layer, on a thread of its own: make what it needs, let a worker do it, keep its output.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;

use crate::action::Kind;
use crate::decide::{Run, StepKind, Taken};
use crate::digest::{Chain, ChainId, ContentDigest, DiffId, TreeDigest};
use crate::error::{At, Error, Result};
use crate::graph::{Node, NodeBase, NodeSource};
use crate::http;
use crate::inputs;
use crate::load::Base;
use crate::progress::Event;
use crate::worker::message::{Answer, Job, Sealed};

use super::changed::{self, Changed};
use super::script::{labels, script};
use super::site::{BlobPlace, Learned, Lost, Site};

/// How a step ended.
pub enum StepEnd {
    /// It came out as this.
    Sealed(Sealed),
    /// The same, but what it was made from changed meanwhile: why nobody else may take it for the key's result.
    Unkept(Sealed, String),
    /// These labels.
    Labels(BTreeMap<String, String>),
    /// Something of the host is no longer what the key assumed.
    SourceChanged(Changed),
    /// Data beneath has gone and must be built again.
    Evicted(ChainId),
    /// The user's script or input failed.
    Failed {
        /// Why.
        message: String,
        /// The disk was full.
        full: bool,
    },
}

impl StepEnd {
    /// For the record of its build.
    pub(super) fn name(&self) -> &'static str {
        match self {
            StepEnd::Sealed(_) | StepEnd::Labels(_) => "built",
            StepEnd::Unkept(..) => "not kept",
            StepEnd::SourceChanged(_) => "source changed",
            StepEnd::Evicted(_) => "data missing",
            StepEnd::Failed { .. } => "failed",
        }
    }
}

/// Does a step.
pub fn perform(site: &Site, node: &Node, run: &Run, blobs: &HashMap<DiffId, BlobPlace>) -> Result<(StepEnd, Learned)> {
    let beneath = match run.kind {
        StepKind::Run | StepKind::Labels => site.have_chain(&run.parent, blobs, true),
        // What is beneath is only looked up.
        StepKind::Unpack | StepKind::Import(_) => site.have_listings(&run.parent, blobs),
    };
    let learned = match beneath {
        Ok(learned) => learned,
        Err(Lost::Evicted(chain)) => return Ok((StepEnd::Evicted(chain), vec![])),
        Err(Lost::Error(error)) => return failed(error),
    };
    let end = match (run.kind, &run.action.kind) {
        (StepKind::Unpack, Kind::Unpack { tar }) => match run.sources.get(&Taken::Base) {
            Some(source) => unpack_from_layer(site, node, *tar, source, blobs),
            None => unpack(site, node, *tar),
        },
        (StepKind::Import(index), Kind::Import { tree, dest, .. }) => {
            import(site, node, run, blobs, index, *tree, dest)
        }
        (StepKind::Run, Kind::Run { .. }) => script(site, node, run, blobs),
        (StepKind::Labels, Kind::Labels { .. }) => labels(site, node, run),
        _ => Err(Error::Machine("a step and its action are of two kinds".to_owned()).into()),
    };
    match end {
        Ok(end) => Ok((end, learned)),
        Err(Lost::Evicted(chain)) => Ok((StepEnd::Evicted(chain), learned)),
        Err(Lost::Error(error)) => failed(error).map(|(end, _)| (end, learned)),
    }
}

/// What is the user's fault fails the layer; what is the machine's fails the build.
fn failed(error: Error) -> Result<(StepEnd, Learned)> {
    match error {
        Error::Build(message) => Ok((StepEnd::Failed { message, full: false }, vec![])),
        other => Err(other),
    }
}

fn unpack(site: &Site, node: &Node, content: ContentDigest) -> Result<StepEnd, Lost> {
    let NodeBase::Tar(path) = &node.base else {
        return Err(Error::Machine(format!("layer {} has no tar base to unpack", node.layer.name)).into());
    };
    let tar = File::open(path).at("open", path)?;
    let job = Job::UnpackTar { content, in_store: None, draft: site.unique(), max_size: site.max_layer_size };
    match site.sealed_unless_changed(|listing| site.job(job, vec![tar.into(), listing])) {
        Ok(Some(sealed)) => {
            warn(site, node, &sealed);
            Ok(StepEnd::Sealed(sealed))
        }
        Ok(None) => Ok(StepEnd::SourceChanged(changed::base(site, path)?)),
        Err(Error::Build(message)) => {
            let shown = match &node.layer.base {
                Base::UrlTar { url, .. } => http::shown(url),
                _ => path.display().to_string(),
            };
            Err(Error::Build(format!("{shown}: {message}")).into())
        }
        Err(other) => Err(other.into()),
    }
}

/// A tar base that is a file of another layer.
fn unpack_from_layer(
    site: &Site,
    node: &Node,
    content: ContentDigest,
    (chain, path): &(Chain, Vec<u8>),
    blobs: &HashMap<DiffId, BlobPlace>,
) -> Result<StepEnd, Lost> {
    let file = site.have_file(chain, path, blobs)?;
    let in_store = Some(file.into_os_string().into_encoded_bytes());
    let job = Job::UnpackTar { content, in_store, draft: site.unique(), max_size: site.max_layer_size };
    let shown = String::from_utf8_lossy(path);
    match site.sealed_unless_changed(|listing| site.job(job, vec![listing])) {
        Ok(Some(sealed)) => {
            warn(site, node, &sealed);
            Ok(StepEnd::Sealed(sealed))
        }
        Ok(None) => {
            let id = chain.id();
            let why = format!("{shown} of layer {id} is damaged in the store: its listing says {content}");
            Err(Error::Machine(why).into())
        }
        Err(Error::Build(message)) => Err(Error::Build(format!("the tar base /{shown}: {message}")).into()),
        Err(other) => Err(other.into()),
    }
}

fn import(
    site: &Site,
    node: &Node,
    run: &Run,
    blobs: &HashMap<DiffId, BlobPlace>,
    index: usize,
    tree: TreeDigest,
    dest: &str,
) -> Result<StepEnd, Lost> {
    let attributes = node.imports[index].import.attributes;
    let name = match &node.imports[index].source {
        NodeSource::Host { at, .. } => match site.stage_host(at, tree, attributes, run.action.time)? {
            Some(name) => name,
            None => return Ok(StepEnd::SourceChanged(changed::import(site, at, index, tree)?)),
        },
        NodeSource::Url(url) => return Err(inputs::unfetched(url).into()),
        NodeSource::Layer { .. } => {
            site.stage_layer(&run.sources[&Taken::Import(index)], tree, attributes, run.action.time, blobs)?
        }
    };
    let job = Job::Import {
        parent: run.parent.clone(),
        name,
        dest: dest.trim_start_matches('/').into(),
        time: run.action.time,
        draft: site.unique(),
    };
    Ok(sealed(site, node, |listing| site.job(job, vec![listing]))?)
}

fn sealed(site: &Site, node: &Node, job: impl FnOnce(std::os::fd::OwnedFd) -> Result<Answer>) -> Result<StepEnd> {
    let sealed = site.sealed(job)?;
    warn(site, node, &sealed);
    Ok(StepEnd::Sealed(sealed))
}

pub(super) fn warn(site: &Site, node: &Node, sealed: &Sealed) {
    for warning in &sealed.warnings {
        site.tell(Event::Warning(format!("{}: {warning}", node.layer.name)));
    }
}
