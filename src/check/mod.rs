//! `stacker check`: what builds can have on this machine, found out by doing it, and what mends the rest.
//!
//! Everything is tried in a directory beside the store, which is gone afterwards; the store itself is only looked at.

mod show;

use std::fs;
use std::path::{Path, PathBuf};

use crate::binfmt;
use crate::cli::options::Directories;
use crate::error::{At, Error, Result};
use crate::holder::{Fallback, Holder, IDS, Tier, find_program};
use crate::layer_type::{LayerType, Packing};
use crate::place::{RootsDir, StackerDir};
use crate::sys::btrfs as ioctl;
use crate::worker::message::{Answer, Compression, Job, Probed};

use crate::need::Need;
pub use show::{Checked, Report};

/// Less free room than this is too little for any build.
const LEAST_SPACE: u64 = 1 << 30;

/// Programs that give a sandbox a network of its own.
const NETWORK_HELPERS: [&str; 2] = ["pasta", "slirp4netns"];

/// Tries everything. Forks, so it comes before any thread.
pub fn check(directories: &Directories, wanted: Option<Tier>) -> Result<Report> {
    let beside = existing(&directories.roots.0);
    let place = tempfile::Builder::new().prefix(".stacker-check-").tempdir_in(&beside);
    let mut report = Report::default();
    match place {
        Ok(place) => try_runs(place.path(), wanted, &mut report)?,
        Err(error) => report.add(Need::Run, false, format!("cannot write to {}: {error}", beside.display())),
    }
    report.add_probed(btrfs(&beside));
    report.add_probed(space(directories)?);
    report.add_probed(network_helper());
    report.add_probed(binfmt());
    report.add_probed(layer_type(Need::Squashfs, LayerType::Squashfs));
    report.add_probed(layer_type(Need::Erofs, LayerType::Erofs));
    Ok(report)
}

/// The nearest directory that exists already.
fn existing(path: &Path) -> PathBuf {
    path.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("/")).to_path_buf()
}

/// Enters a user namespace as a build does, and lets a worker try the rest in it.
fn try_runs(place: &Path, wanted: Option<Tier>, report: &mut Report) -> Result<()> {
    let (stacker, roots) = (StackerDir(place.join("stacker")), RootsDir(place.join("roots")));
    fs::create_dir_all(stacker.0.join("listings")).at("create", &stacker.0)?;
    let holder = Holder::start(&stacker, &roots, None)?.insist(wanted);
    report.add_probed(newuidmap());
    let prepared = holder.ids().and_then(|(_, fewer)| Ok((holder.prepare()?, fewer)));
    let (ready, fewer) = match prepared {
        Ok(prepared) => prepared,
        Err(Error::Lacking(need, found)) => {
            report.add(need, false, found.clone());
            report.add(Need::Run, false, found);
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    match holder.take_fallback() {
        Some(Fallback { need: Need::UserNamespace, why, .. }) => report.add(Need::UserNamespace, false, why),
        _ if ready.tier == Tier::None => report.add(Need::UserNamespace, false, "not tried, as asked".to_owned()),
        _ => report.add(Need::UserNamespace, true, "can be made".to_owned()),
    }
    match fewer {
        Some(Fallback { why, .. }) => report.add(Need::Ids, false, why),
        None => report.add(Need::Ids, true, ids(ready.tier)),
    }
    report.tier = Some(ready.tier);
    if ready.tier == Tier::None {
        report.add(Need::Run, false, "there is no user namespace to run it in".to_owned());
        return Ok(());
    }
    match holder.submit(Job::Probe { draft: "check".to_owned() }, vec![])?.wait()? {
        Answer::Probed(probed) => probed.into_iter().for_each(|probed| report.add_probed(probed)),
        Answer::Failed(failure) => report.add(Need::Run, false, format!("{}: {}", failure.step, failure.message)),
        other => return Err(Error::Machine(format!("a worker answered out of turn: {other:?}"))),
    }
    Ok(())
}

fn ids(tier: Tier) -> String {
    match tier {
        Tier::Inner => format!("the {IDS} of this container"),
        Tier::SingleId => "one, as asked".to_owned(),
        Tier::None => "those of whoever builds".to_owned(),
        Tier::Full | Tier::SharedProc => IDS.to_string(),
    }
}

fn newuidmap() -> Probed {
    let need = Need::Newuidmap;
    let programs = ["newuidmap", "newgidmap"].map(|program| (program, find_program(program)));
    if rustix::process::geteuid().is_root() {
        return Probed { need, ok: true, found: "not needed: root writes id maps itself".to_owned() };
    }
    match programs.iter().find(|(_, path)| path.is_none()) {
        Some((program, _)) => Probed { need, ok: false, found: format!("there is no {program} in PATH") },
        None => {
            let paths: Vec<String> = programs.iter().filter_map(|(_, path)| path.as_deref()).map(show).collect();
            Probed { need, ok: true, found: paths.join(", ") }
        }
    }
}

/// Makes a subvolume and deletes it.
fn btrfs(directory: &Path) -> Probed {
    let need = Need::Btrfs;
    let tried = || -> std::io::Result<String> {
        if !crate::store::is_btrfs(directory) {
            return Err(std::io::Error::other(format!("{} is not on btrfs", directory.display())));
        }
        let parent = fs::File::open(directory)?;
        let name = format!(".stacker-check-{}", std::process::id());
        ioctl::create_subvolume(&parent, name.as_ref())?;
        // Without the mount option user_subvol_rm_allowed only root may; an empty one can still be removed otherwise.
        let deleted = ioctl::destroy_subvolume(&parent, name.as_ref());
        if deleted.is_err() {
            fs::remove_dir(directory.join(&name))?;
        }
        deleted.map(|()| "subvolumes can be made and deleted".to_owned())
    };
    match tried() {
        Ok(found) => Probed { need, ok: true, found },
        Err(error) => Probed { need, ok: false, found: error.to_string() },
    }
}

fn space(directories: &Directories) -> Result<Probed> {
    let mut found = Vec::new();
    let mut ok = true;
    for path in [&directories.stacker.0, &directories.roots.0] {
        let there = existing(path);
        let status = rustix::fs::statvfs(&there).at("look at the file system of", &there)?;
        let free = status.f_bavail.saturating_mul(status.f_frsize);
        ok &= free >= LEAST_SPACE;
        found.push(format!("{} free for {}", bytesize::ByteSize::b(free).display().iec(), path.display()));
    }
    Ok(Probed { need: Need::Space, ok, found: found.join(", ") })
}

fn network_helper() -> Probed {
    let need = Need::NetworkHelper;
    match NETWORK_HELPERS.iter().find_map(|program| find_program(program)) {
        Some(path) => Probed { need, ok: true, found: show(&path) },
        None => Probed { need, ok: false, found: format!("neither {} is in PATH", NETWORK_HELPERS.join(" nor ")) },
    }
}

/// Which other processors' programs the kernel can run in a sandbox.
fn binfmt() -> Probed {
    let need = Need::Binfmt;
    let (ok, found) = match binfmt::all() {
        None => (false, "binfmt_misc is not mounted, so that it cannot be seen what is registered".to_owned()),
        Some(archs) if archs.is_empty() => (false, "no handler with the flag F is registered".to_owned()),
        Some(archs) => (true, archs.join(", ")),
    };
    Probed { need, ok, found }
}

/// Whether layers can be made file systems of a kind.
fn layer_type(need: Need, kind: LayerType) -> Probed {
    match Packing::of(&[kind], Compression::None, &std::env::temp_dir()) {
        Ok(found) => Probed { need, ok: true, found: found.iter().map(Packing::codec).collect() },
        Err(Error::Lacking(_, found)) => Probed { need, ok: false, found },
        Err(error) => Probed { need, ok: false, found: error.to_string() },
    }
}

fn show(path: impl AsRef<Path>) -> String {
    path.as_ref().display().to_string()
}
