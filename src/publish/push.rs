//! Publishing to a registry: what it has not yet, several blobs at a time, then manifests and tags.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytesize::ByteSize;

use super::tree::Tree;
use super::{Item, Request};
use crate::digest::BlobDigest;
use crate::error::{Error, Result};
use crate::graph::{LayerGraph, NodeBase};
use crate::http::Client;
use crate::oci::{Layout, blob_path};
use crate::progress::log;
use crate::registry::{AT_ONCE, Access, ImageName, LocalBlob, Mounted, Registries, Repository, SCHEME};

/// Repositories of the registry that have a blob.
type Known = Mutex<HashMap<BlobDigest, BTreeSet<String>>>;

/// What became of the blobs of an image.
#[derive(Debug, Default)]
struct Sent {
    uploaded: AtomicUsize,
    bytes: AtomicUsize,
    mounted: AtomicUsize,
}

struct Push<'a> {
    request: &'a Request,
    layout: &'a Layout,
    registries: Registries,
    known: Known,
}

/// Sends and tags; returns what goes to stdout.
pub(super) fn push(
    request: &Request,
    place: &str,
    graph: &LayerGraph,
    items: &[Item],
    layout: &Layout,
) -> Result<String> {
    let http = Arc::new(Client::new(request.build.network.clone()));
    if http.options().offline {
        return Err(Error::Usage("publish: --offline asks no registry, and none can be published to".to_owned()));
    }
    let push =
        Push { request, layout, registries: Registries::new(http, request.given.clone()), known: Mutex::default() };
    let mut text = String::new();
    for item in items {
        let name = ImageName::parse(&format!("{SCHEME}{place}/{}:tag", item.name)).map_err(Error::Usage)?;
        let repository = push.registries.repository(name.repository(), request.insecure, Access::Push);
        text += &push.item(item, &repository, base_of(graph, item, &repository).as_deref())?;
    }
    Ok(text)
}

impl Push<'_> {
    /// `base`: the repository of the image that it was built on.
    fn item(&self, item: &Item, repository: &Repository, base: Option<&str>) -> Result<String> {
        let tree = Tree::read(self.layout, &item.found.descriptor)?;
        let sent = Sent::default();
        let (root, name) = (tree.root(), &repository.name.repository);
        // A manifest that is there has all that it leads to.
        let is_there = repository.manifest_digest(&root.digest.to_string())? == Some(root.digest);
        if !is_there {
            self.blobs(&tree, repository, base, &sent)?;
            for document in &tree.documents {
                repository.put_manifest(&document.digest.to_string(), &document.media_type, &document.bytes)?;
            }
        }
        for blob in tree.blobs.keys() {
            self.known().entry(*blob).or_default().insert(name.clone());
        }
        let mut text = String::new();
        for tag in &self.request.tags {
            let there = self.request.target.tag(&item.name, item.kind, tag);
            let is_current = is_there && repository.manifest_digest(&there)? == Some(root.digest);
            if !is_current {
                repository.put_manifest(&there, &root.media_type, &root.bytes)?;
            }
            let place = self.request.target.place(&item.name, item.kind, tag);
            text += &format!("{place}: {}: {}\n", root.digest, sent.told(is_current));
        }
        Ok(text)
    }

    /// Several at a time. The first failure is given back when all that had begun have come to their end.
    fn blobs(&self, tree: &Tree, repository: &Repository, base: Option<&str>, sent: &Sent) -> Result<()> {
        let all: Vec<(&BlobDigest, &u64)> = tree.blobs.iter().collect();
        let (next, failed) = (AtomicUsize::new(0), Mutex::new(None));
        std::thread::scope(|scope| {
            for _ in 0..AT_ONCE.min(all.len()) {
                scope.spawn(|| {
                    while let Some((digest, size)) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
                        if let Err(error) = self.blob((digest, **size), repository, base, sent) {
                            next.store(all.len(), Ordering::Relaxed);
                            failed.lock().unwrap_or_else(|broken| broken.into_inner()).get_or_insert(error);
                        }
                    }
                });
            }
        });
        failed.into_inner().unwrap_or_else(|broken| broken.into_inner()).map_or(Ok(()), Err)
    }

    fn blob(
        &self,
        (digest, size): (&BlobDigest, u64),
        repository: &Repository,
        base: Option<&str>,
        sent: &Sent,
    ) -> Result<()> {
        if repository.has_blob(digest)? {
            return Ok(());
        }
        // What cannot be taken from there is uploaded by the same request.
        let known = self.known().get(digest).and_then(|places| places.first().cloned());
        let begun = match known.as_deref().or(base) {
            None => None,
            Some(from) => match repository.mount(digest, from)? {
                Mounted::Upload(url) => Some(url),
                Mounted::Done => {
                    sent.mounted.fetch_add(1, Ordering::Relaxed);
                    return Ok(());
                }
            },
        };
        if !self.request.quiet {
            let (short, size) = (&digest.to_string()[..19], ByteSize::b(size));
            log::line(&format!("{}: uploading {short} ({size})", repository.name));
        }
        let path = blob_path(self.layout.path(), digest);
        repository.upload(LocalBlob { path: &path, digest: *digest, size }, begun)?;
        sent.uploaded.fetch_add(1, Ordering::Relaxed);
        sent.bytes.fetch_add(size as usize, Ordering::Relaxed);
        Ok(())
    }

    fn known(&self) -> std::sync::MutexGuard<'_, HashMap<BlobDigest, BTreeSet<String>>> {
        self.known.lock().unwrap_or_else(|broken| broken.into_inner())
    }
}

/// The repository of the base image, if it is another one of the same registry.
fn base_of(graph: &LayerGraph, item: &Item, repository: &Repository) -> Option<String> {
    let mut layer = item.layer;
    loop {
        match &graph[layer].base {
            NodeBase::Built(base) => layer = *base,
            NodeBase::Registry { name, .. } => {
                let from = name.repository();
                let ours = &repository.name;
                let is_other = from.address() == ours.address() && from.repository != ours.repository;
                return is_other.then_some(from.repository);
            }
            _ => return None,
        }
    }
}

impl Sent {
    fn told(&self, is_current: bool) -> String {
        let get = |count: &AtomicUsize| count.load(Ordering::Relaxed);
        match (get(&self.uploaded), get(&self.mounted)) {
            (0, 0) if is_current => "nothing to upload".to_owned(),
            (0, 0) => "tagged, nothing to upload".to_owned(),
            (uploaded, mounted) => {
                let bytes = ByteSize::b(get(&self.bytes) as u64);
                format!("{uploaded} blobs uploaded ({bytes}), {mounted} taken from other repositories")
            }
        }
    }
}
