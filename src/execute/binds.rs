//! Binds: what they are when a script starts, how they get into its sandbox, and whether it changed them.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, fstat, open};
use rustix::mount::{OpenTreeFlags, open_tree};

use crate::action::{Bind, Kind, Shows};
use crate::decide::Run;
use crate::error::{At, Error, Result};
use crate::graph::Node;
use crate::progress::Event;
use crate::resolve::{Bound, Resolver, list_path, shown};
use crate::sys::{self, MountChange};
use crate::worker::message::{BindMount, Found, RunJob, Sealed};

use super::Execution;
use super::changed::Changed;
use super::running::{outcome, result};
use super::site::Site;

/// What binds were when a script started, by index.
pub(super) type Looks = BTreeMap<usize, Bound>;

/// The binds of a layer, for its job.
pub(super) fn mounts(node: &Node) -> Vec<BindMount> {
    let mount = |bind: &crate::load::Bind| BindMount {
        place: bind.dest.clone(),
        source: bind.source.as_os_str().as_bytes().to_vec(),
        keyed: bind.keyed,
        found: Found::default(),
    };
    node.layer.binds.iter().map(mount).collect()
}

/// Looks at what is an input, right before the script starts; or what of it is no longer what the key says.
pub(super) fn before(site: &Site, node: &Node, run: &Run) -> Result<Result<Looks, Changed>> {
    let mut looks = Looks::new();
    for (index, bind) in binds(run).iter().enumerate().filter(|(_, bind)| bind.shows != Shows::Anything) {
        let named = &node.layer.binds[index];
        let known = site.bounds.get(&named.source);
        let bound = look(site, &named.source, known.and_then(|known| known.list()))?;
        let shows = bound.shows(&named.written);
        if shows != bind.shows {
            let change = known.and_then(|known| known.first_change(&bound));
            let file = shown(&named.source, &change.map(|(path, _)| path).unwrap_or_default());
            bound.keep_listing(&site.stacker)?;
            return Ok(Err(Changed::Bind { bind: index, shows, file: file.into() }));
        }
        looks.insert(index, bound);
    }
    Ok(Ok(looks))
}

/// What was written to while the script ran: the first bind, and its first file.
pub(super) fn after(site: &Site, node: &Node, looks: &Looks) -> Option<String> {
    looks.iter().find_map(|(index, before)| {
        let bind = &node.layer.binds[*index];
        let file = match look(site, &bind.source, before.list()) {
            Ok(after) => {
                let (path, how) = before.first_change(&after)?;
                format!("{} {how}", shown(&bind.source, &path))
            }
            Err(error) => error.to_string(),
        };
        Some(format!("the bind {} changed while the script ran: {file}", bind.dest))
    })
}

fn binds(run: &Run) -> &[Bind] {
    match &run.action.kind {
        Kind::Run { binds, .. } => binds,
        _ => &[],
    }
}

fn look(site: &Site, source: &Path, list: Option<&[u8]>) -> Result<Bound> {
    Ok(Resolver::new(site.exclude.clone()).bound(source, &site.owners, list)?.bound)
}

/// The sources of a job's binds, each as a descriptor that goes with it; the job is told what they are. With `guarded`,
/// what is an input cannot be written to.
///
/// A worker may mount only what lies in a mount namespace of its own, by its own rights. As an ordinary user it has
/// those of the caller, and needs nothing but the path. Root's worker has none: it gets a mount that root has made,
/// with a map of owners by which the sandbox's root is root there.
pub fn hand_over(site: &Site, run: &mut RunJob, guarded: bool) -> Result<Vec<OwnedFd>> {
    if run.binds.is_empty() {
        return Ok(vec![]);
    }
    site.ready()?;
    let shifts = site.holder.shifts_into()?;
    let layer = run.layer.clone();
    let mut files = Vec::new();
    for bind in &mut run.binds {
        let source = PathBuf::from(std::ffi::OsString::from_vec(bind.source.clone()));
        let missing = |error: rustix::io::Errno| {
            let error = std::io::Error::from(error);
            Error::Build(format!("cannot open the bind's source {}: {error}", source.display()))
        };
        let mut file = open(&source, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).map_err(missing)?;
        bind.found = found(site, &file, &source, guarded && bind.keyed)?;
        if let Some(namespace) = &shifts
            && let Some(mount) = shifted(site, &layer, bind, &file, namespace)?
        {
            (bind.found.mount, file) = (true, mount);
        }
        files.push(file);
    }
    Ok(files)
}

fn found(site: &Site, file: &OwnedFd, source: &Path, read_only: bool) -> Result<Found> {
    let stat = fstat(file).map_err(std::io::Error::from).at("stat", source)?;
    let name = format!("/proc/self/fd/{}", file.as_raw_fd());
    let path = fs::read_link(&name).at("read", &name)?;
    let own = site.exclude.iter().map(|own| own.canonicalize().unwrap_or_else(|_| own.clone()));
    let hidden = own.filter_map(|own| Some(own.strip_prefix(&path).ok()?.as_os_str().as_bytes().to_vec()));
    Ok(Found {
        hidden: hidden.collect(),
        id: (stat.st_dev, stat.st_ino),
        directory: FileType::from_raw_mode(stat.st_mode) == FileType::Directory,
        mount: false,
        read_only,
        path: path.into_os_string().into_vec(),
    })
}

/// A copy of the mount with the sandbox's map of owners. `None`: this root may not mount.
fn shifted(
    site: &Site,
    layer: &str,
    bind: &BindMount,
    file: &OwnedFd,
    namespace: &fs::File,
) -> Result<Option<OwnedFd>> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE
        | OpenTreeFlags::AT_EMPTY_PATH;
    let Ok(mount) = open_tree(file, "", flags) else { return Ok(None) };
    let change = MountChange { read_only: bind.found.read_only, ids_of: Some(namespace) };
    if let Err(error) = sys::change_mount(&mount, change) {
        site.tell(Event::Warning(format!(
            "{layer}: all files in the bind {} show as nobody's, and only what everybody may do with them can be \
             done: its file system, or one that is mounted in it, cannot show other owners ({error})",
            bind.place
        )));
        // Where that fails too, the worker does what is needed.
        let _ = sys::change_mount(&mount, MountChange { ids_of: None, ..change });
    }
    Ok(Some(mount))
}

impl Execution<'_> {
    /// A layer of this build that is no result: the next build makes it again, and says why.
    pub(super) fn unkept(&mut self, run: &Run, sealed: &Sealed, seconds: f64, why: &str) -> Result<()> {
        let name = self.name(run.id.layer);
        self.site
            .tell(Event::Warning(format!("{name}: {why}; the layer is not cached, and built again the next time")));
        let ready = self.site.ready()?;
        self.database.put_store(&self.site.roots, &ready.id, ready.store)?;
        let result = result(sealed, ready.tier, seconds);
        self.learn(&result.diff_id.zip(result.layer).into_iter().collect())?;
        self.database.put_note(&run.key, Some(why))?;
        self.took.insert(run.key, seconds);
        self.decider.finished(run.id, run.key, outcome(&result), true);
        Ok(())
    }

    /// A layer's bind is something else now: its key is another one.
    pub(super) fn distrust_bind(&self, source: &Path) -> Result<()> {
        use std::os::unix::fs::MetadataExt;
        match fs::symlink_metadata(source) {
            Ok(found) => self.database.drop_stat_list(&list_path(source), found.dev()),
            // A path that is not there has no list that anybody would look at.
            Err(_) => Ok(()),
        }
    }
}

/// What a reason says of the binds that are no inputs.
pub(super) fn unkeyed(run: &Run) -> String {
    let places = binds(run).iter().filter(|bind| bind.shows == Shows::Anything).map(|bind| bind.place.as_str());
    match places.collect::<Vec<_>>().join(", ") {
        places if places.is_empty() => places,
        places => format!(" (not an input: {places})"),
    }
}
