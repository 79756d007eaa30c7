//! `stacker setup`: what root can do once for builds on a machine: a btrfs of its own for the store, ids for a user, and a
//! profile where AppArmor keeps ordinary users from user namespaces.
//!
//! Every step looks whether it is done already, says what it does, and writes down what `--undo` has to take back.

mod fstab;
mod ids;
mod lines;
mod profile;
mod volume;

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::{Deserialize, Serialize};

use crate::error::{At, Error, Result};

pub use ids::ids_alone;
pub use profile::profile;

/// Where the volume and the notes for `--undo` lie.
const HOME: &str = "/var/lib/stacker";

/// What `stacker setup` was asked for.
pub struct Request {
    /// Who builds; `None`: root.
    pub user: Option<String>,
    /// Where the store of layers will be; `None`: where that user's builds have it.
    pub roots: Option<PathBuf>,
    /// Bytes of the volume.
    pub size: u64,
    /// Nothing is done, only told.
    pub dry_run: bool,
}

/// Something that was done, and can be taken back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "did")]
enum Done {
    /// Gave a range of ids to a user.
    Ids { user: String, file: PathBuf, first: u32 },
    /// Made a file with a btrfs in it.
    Volume { file: PathBuf },
    /// Mounted that.
    Mount { roots: PathBuf },
    /// Wrote a line that mounts it at every start.
    Fstab { line: String },
    /// Wrote and loaded a profile.
    Profile { file: PathBuf },
}

/// One run of it.
struct Setup {
    dry_run: bool,
    done: Vec<Done>,
}

/// The user who will build.
struct Builder {
    name: String,
    uid: u32,
    gid: u32,
    cache: PathBuf,
}

/// Does what is missing.
pub fn setup(request: &Request) -> Result<()> {
    let builder = builder(request.user.as_deref())?;
    let roots = request.roots.clone().unwrap_or_else(|| builder.cache.join("stacker/roots"));
    must_be_root(request.dry_run)?;
    let mut setup = Setup { dry_run: request.dry_run, done: read_notes()? };
    if builder.uid != 0 {
        setup.ids(&builder.name)?;
    }
    setup.volume(&roots, request.size, &builder)?;
    setup.profile()?;
    println!(
        "{}",
        if request.dry_run { "nothing was done" } else { "done; `stacker check` tells what builds can have" }
    );
    Ok(())
}

/// Takes back what was done, the last first.
pub fn undo(dry_run: bool) -> Result<()> {
    must_be_root(dry_run)?;
    let mut setup = Setup { dry_run, done: read_notes()? };
    if setup.done.is_empty() {
        println!("nothing was done by `stacker setup` here");
        return Ok(());
    }
    while let Some(done) = setup.done.last().cloned() {
        match &done {
            Done::Ids { user, file, first } => setup.take_ids(user, file, *first)?,
            Done::Volume { file } => setup.remove("remove the volume", file)?,
            Done::Mount { roots } => setup.unmount(roots)?,
            Done::Fstab { line } => setup.forget_line(line)?,
            Done::Profile { file } => setup.unload_profile(file)?,
        }
        setup.done.pop();
        setup.write_notes()?;
    }
    Ok(())
}

impl Setup {
    /// Says what is done next; true if it is to be done.
    fn step(&self, what: &str) -> bool {
        println!("{}{what}", if self.dry_run { "would " } else { "" });
        !self.dry_run
    }

    /// Writes down, before it is done, what will have to be taken back.
    fn note(&mut self, done: Done) -> Result<()> {
        if self.done.contains(&done) {
            return Ok(());
        }
        self.done.push(done);
        self.write_notes()
    }

    fn write_notes(&self) -> Result<()> {
        let path = notes();
        if self.dry_run {
            return Ok(());
        }
        if self.done.is_empty() {
            remove_if_there(&path)?;
            // Unless somebody has put something there.
            let _ = fs::remove_dir(HOME);
            return Ok(());
        }
        fs::create_dir_all(HOME).at("create", HOME)?;
        let text = serde_json::to_vec_pretty(&self.done).map_err(std::io::Error::from).at("encode", &path)?;
        crate::record::write_once_for_good(Path::new(HOME), &path, &text)
    }

    fn remove(&self, what: &str, path: &Path) -> Result<()> {
        if self.step(&format!("{what} {}", path.display())) { remove_if_there(path) } else { Ok(()) }
    }
}

fn notes() -> PathBuf {
    Path::new(HOME).join("setup.json")
}

fn read_notes() -> Result<Vec<Done>> {
    let path = notes();
    let text = match fs::read(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(vec![]),
        other => other.at("read", &path)?,
    };
    serde_json::from_slice(&text)
        .map_err(|error| Error::Machine(format!("{} can not be understood: {error}", path.display())))
}

fn must_be_root(dry_run: bool) -> Result<()> {
    match dry_run || rustix::process::geteuid().is_root() {
        true => Ok(()),
        false => Err(Error::Usage("setup changes the machine: let root run it (`--dry-run` shows what)".to_owned())),
    }
}

fn builder(user: Option<&str>) -> Result<Builder> {
    let name = user.unwrap_or("root");
    let found = nix::unistd::User::from_name(name).ok().flatten();
    let found = found.ok_or_else(|| Error::Usage(format!("--user: there is no user {name}")))?;
    let cache = if found.uid.is_root() { PathBuf::from("/var/cache") } else { found.dir.join(".cache") };
    Ok(Builder { name: name.to_owned(), uid: found.uid.as_raw(), gid: found.gid.as_raw(), cache })
}

/// Runs a program of the system; `package` has it.
fn run(program: &str, arguments: &[&str], package: &str) -> Result<()> {
    let line = format!("{program} {}", shell_words::join(arguments));
    let output = Command::new(program)
        .args(arguments)
        .output()
        .map_err(|error| Error::Machine(format!("cannot run {program}: {error}; install the package {package}")))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(Error::Machine(format!("{line}: {said}")))
}

fn remove_if_there(path: &Path) -> Result<()> {
    crate::record::remove(path)
}
