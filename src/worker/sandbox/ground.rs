//! What a sandbox needs on disk, all inside its draft directory: made by the worker before anything is mounted.
//!
//! Mount points that the base lacks come from a skeleton beneath the base, so that the upper never holds one of them.
//! Where the upper is the root filesystem, they are made in it for as long as the script runs.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use super::points::{Points, directory, file};
use super::step::{During, users_fault};
use super::{Sandbox, pretend};
use crate::action::{Ids, Network};
use crate::listing::{Kind, Stack};
use crate::text::escape;
use crate::worker::message::Failure;

const HOSTS: &str = "127.0.0.1\tlocalhost\n::1\tlocalhost\n127.0.0.1\tstacker\n";

/// Where everything lies, relative to the roots directory.
pub struct Ground {
    /// The change: prepared by the caller.
    pub upper: PathBuf,
    /// overlayfs's work directory.
    pub work: PathBuf,
    /// Where the root is assembled.
    pub root: PathBuf,
    /// The lowest lower: mount points that the base lacks.
    pub skeleton: PathBuf,
    /// A topmost lower for mount points that the base removes; made only when needed.
    pub patch: PathBuf,
    /// What `/stacker` is in the sandbox.
    pub stacker: PathBuf,
    /// In the order of mounting.
    pub places: Vec<Place>,
    /// What was made in an upper that is the root filesystem.
    points: Points,
}

/// A mount point of the sandbox.
#[derive(Debug)]
pub struct Place {
    /// As the script names it.
    pub name: String,
    /// Where that leads in the base: no links, no leading slash.
    pub path: PathBuf,
    /// What is mounted there.
    pub mount: Mount,
}

/// What a mount point shows.
#[derive(Debug)]
pub enum Mount {
    /// A fresh procfs, or the one outside.
    Proc,
    /// A tmpfs with a few device nodes.
    Dev,
    /// Kernel objects, read-only.
    Sys,
    /// A directory of the draft, writable.
    Stacker(PathBuf),
    /// A file or directory, read-only.
    ReadOnly(PathBuf),
    /// A bind of the sandbox, by index; and whether it is a directory.
    Bind(usize, bool),
}

impl Ground {
    /// Makes the directories and files.
    pub fn prepare(sandbox: &Sandbox) -> Result<Ground, Failure> {
        let draft = |name: &str| sandbox.draft.join(name);
        let mut ground = Ground {
            upper: draft("u"),
            work: draft("w"),
            root: draft("m"),
            skeleton: draft("k"),
            patch: draft("p"),
            stacker: draft(super::STACKER),
            places: Vec::new(),
            points: Points::default(),
        };
        for path in [&ground.work, &ground.root, &ground.skeleton, &ground.stacker] {
            directory(path).during(format!("create {}", path.display()))?;
        }
        for name in sandbox.inside {
            directory(&ground.stacker.join(name)).during(format!("create /stacker/{name}"))?;
        }
        file(&ground.stacker.join("run"), sandbox.script.as_bytes(), 0o755).during("write the script")?;
        if sandbox.setting.ids == Ids::Single {
            file(&ground.stacker.join(pretend::APT_FILE), pretend::APT_CONFIGURATION, 0o644)
                .during("write .apt.conf")?;
        }
        ground.places = places(sandbox, &ground)?;
        let mut points = Points::default();
        for place in ground.places.iter().filter(|place| !place.is_made_elsewhere()) {
            ground.reserve(place, sandbox, &mut points)?;
        }
        ground.points = points;
        if let (Some(left), None) = (sandbox.left, sandbox.lowers) {
            crate::store::copy(left, &ground.stacker)?;
        }
        Ok(ground)
    }

    /// Leaves the upper as if there had been no mount points.
    pub fn clear(self) -> Result<(), Failure> {
        self.points.remove().during("remove mount points")
    }

    /// Makes the place in the skeleton if the base has nothing there.
    fn reserve(&self, place: &Place, sandbox: &Sandbox, points: &mut Points) -> Result<(), Failure> {
        let path = place.path.as_os_str().as_encoded_bytes();
        let there = sandbox.base.lookup(path).map_err(|error| damaged(place, &error))?;
        let made = match sandbox.lowers {
            // What a script left that failed need not have what its base has.
            None => points.make(&self.upper, &place.path, place.is_directory()),
            Some(_) if there.is_none() => place.make(&self.skeleton),
            Some(_) => Ok(()),
        };
        made.during(format!("create the mount point {}", place.name))?;
        let Some(entry) = there else { return Ok(()) };
        match (matches!(entry.kind, Kind::Directory { .. }), place.is_directory()) {
            (true, true) | (false, false) => Ok(()),
            (true, false) => Err(place.taken_by("a directory")),
            (false, true) => Err(place.taken_by("a file")),
        }
    }
}

impl Place {
    /// Whether a directory is mounted (or else a file).
    pub fn is_directory(&self) -> bool {
        match &self.mount {
            Mount::ReadOnly(source) => source.is_dir(),
            Mount::Bind(_, directory) => *directory,
            Mount::Proc | Mount::Dev | Mount::Sys | Mount::Stacker(_) => true,
        }
    }

    /// Whether it lies in something that is mounted and no part of the overlay.
    pub fn is_made_elsewhere(&self) -> bool {
        self.is_inside_stacker() || self.path.starts_with("dev") && self.path != Path::new("dev")
    }

    /// Whether it lies in `/stacker`, which is no part of the overlay.
    pub fn is_inside_stacker(&self) -> bool {
        self.name.starts_with("/stacker/")
    }

    /// Makes the mount point beneath `top`, with the directories that lead there.
    pub fn make(&self, top: &Path) -> io::Result<()> {
        let path = top.join(&self.path);
        if self.is_directory() {
            return directories(top, &self.path);
        }
        directories(top, self.path.parent().unwrap_or(Path::new("")))?;
        if path.exists() { Ok(()) } else { file(&path, b"", 0o644) }
    }

    fn taken_by(&self, what: &str) -> Failure {
        let path = escape(self.path.as_os_str().as_encoded_bytes());
        users_fault("prepare the sandbox", format!("cannot mount {}: the base has {what} at /{path}", self.name))
    }
}

/// All mount points; those inside `/stacker` are made there, the others follow the links of the base.
fn places(sandbox: &Sandbox, ground: &Ground) -> Result<Vec<Place>, Failure> {
    let mut wanted = vec![
        ("/proc".to_owned(), Mount::Proc),
        ("/dev".to_owned(), Mount::Dev),
        ("/sys".to_owned(), Mount::Sys),
        ("/stacker".to_owned(), Mount::Stacker(ground.stacker.clone())),
    ];
    let hosts = sandbox.draft.join("hosts");
    file(&hosts, HOSTS.as_bytes(), 0o644).during("write /etc/hosts")?;
    wanted.push(("/etc/hosts".to_owned(), Mount::ReadOnly(hosts)));
    if sandbox.network == Network::Host
        && let Ok(servers) = fs::read("/etc/resolv.conf")
    {
        let copy = sandbox.draft.join("resolv");
        file(&copy, &servers, 0o644).during("copy /etc/resolv.conf")?;
        wanted.push(("/etc/resolv.conf".to_owned(), Mount::ReadOnly(copy)));
    }
    let mut mounts: BTreeMap<&str, &Path> = BTreeMap::new();
    mounts.extend(sandbox.mounts.iter().map(|(place, source)| (place.as_str(), source.as_path())));
    wanted.extend(mounts.into_iter().map(|(place, source)| (place.to_owned(), Mount::ReadOnly(source.into()))));
    wanted.extend(super::bind::wanted(sandbox.binds));
    wanted.into_iter().map(|(name, mount)| place(name, mount, sandbox.base, &ground.stacker)).collect()
}

fn place(name: String, mount: Mount, base: &Stack, stacker: &Path) -> Result<Place, Failure> {
    if let Some(inside) = name.strip_prefix("/stacker/") {
        let made = Place { path: inside.into(), name: name.clone(), mount };
        made.make(stacker).during(format!("create the mount point {name}"))?;
        let path = resolve(base, "/stacker", &name)?.join(inside);
        return Ok(Place { path, ..made });
    }
    let place = Place { path: resolve(base, &name, &name)?, name, mount };
    match place.mount {
        Mount::Bind(..) => super::bind::check(&place).map(|()| place),
        _ => Ok(place),
    }
}

fn resolve(base: &Stack, path: &str, name: &str) -> Result<PathBuf, Failure> {
    match base.resolve(path.as_bytes(), true) {
        Ok(resolved) => Ok(PathBuf::from(OsString::from_vec(resolved.path))),
        Err(error) => Err(users_fault("prepare the sandbox", format!("cannot mount {name}: {error}"))),
    }
}

fn damaged(place: &Place, error: &crate::Error) -> Failure {
    super::step::machine_fault("prepare the sandbox", &format!("cannot look up {}: {error}", place.name))
}

/// `path` beneath `top` and what leads there; `top` must exist or be made too.
fn directories(top: &Path, path: &Path) -> io::Result<()> {
    let mut full = top.to_path_buf();
    for name in path.components() {
        full.push(name);
        match directory(&full) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            other => other?,
        }
    }
    Ok(())
}
