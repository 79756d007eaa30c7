//! The worker's side: enters a user namespace, runs the sandbox, prints the outcome.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
use serde::{Deserialize, Serialize};
use stacker::action::Network;
use stacker::listing::{Entry, Kind, Listing, Stack, Time};
use stacker::worker::message::{Failure, Setting};
use stacker::worker::sandbox::{SCRIPT, Sandbox, Streams, run};

pub const ROLE: &str = "worker";

/// What the test asks of the worker.
#[derive(Serialize, Deserialize)]
pub struct Job {
    pub layer: String,
    pub script: String,
    pub environment: BTreeMap<String, String>,
    pub lowers: Vec<PathBuf>,
    pub draft: PathBuf,
    pub mounts: Vec<(String, PathBuf)>,
    pub network: Network,
    #[serde(default)]
    pub setting: Setting,
}

/// What the worker prints at the end.
#[derive(Debug, Serialize, Deserialize)]
pub enum Outcome {
    Ended(i32),
    Failed(Failure),
}

pub fn main(job: &str) -> ExitCode {
    let job: Job = serde_json::from_str(job).expect("a job");
    enter_namespace();
    fs::create_dir_all(job.draft.join("u")).expect("create the upper");
    rustix::fs::utimensat(
        rustix::fs::CWD,
        job.draft.join("u"),
        &rustix::fs::Timestamps {
            last_access: rustix::fs::Timespec { tv_sec: 1000, tv_nsec: 0 },
            last_modification: rustix::fs::Timespec { tv_sec: 1000, tv_nsec: 0 },
        },
        rustix::fs::AtFlags::empty(),
    )
    .expect("set the upper's time");
    let base = Stack::new(job.lowers.iter().rev().map(|lower| listing(lower)).collect());
    // Descriptors that a careless fork would pass on.
    let inherited = File::open(".").expect("open the roots directory");
    rustix::io::fcntl_setfd(&inherited, rustix::io::FdFlags::empty()).expect("make it inheritable");
    let outcome = run(Sandbox {
        layer: &job.layer,
        script: &job.script,
        command: &[SCRIPT.to_owned()],
        environment: &job.environment,
        lowers: Some(&job.lowers),
        draft: &job.draft,
        left: None,
        mounts: &job.mounts,
        binds: &[],
        inside: &[],
        network: job.network,
        base: &base,
        streams: Streams::Output(std::io::stderr().as_fd().try_clone_to_owned().expect("duplicate the output")),
        setting: job.setting,
    });
    drop(inherited);
    // As sealing will.
    std::thread::spawn(|| ()).join().expect("a worker can start threads after a run");
    let outcome = match outcome {
        Ok(code) => Outcome::Ended(code),
        Err(failure) => Outcome::Failed(failure),
    };
    println!("{}", serde_json::to_string(&outcome).expect("an outcome"));
    ExitCode::SUCCESS
}

/// The test's main process writes the id maps in between, as stacker's does for its holder.
fn enter_namespace() {
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS).expect("enter a user namespace");
    println!("ready");
    std::io::stdout().flush().expect("say ready");
    std::io::stdin().lock().read_line(&mut String::new()).expect("wait for the id maps");
    setgroups(&[]).expect("leave groups");
    setresgid(Gid::from_raw(0), Gid::from_raw(0), Gid::from_raw(0)).expect("become group 0");
    setresuid(Uid::from_raw(0), Uid::from_raw(0), Uid::from_raw(0)).expect("become user 0");
}

fn listing(top: &Path) -> Listing {
    let mut entries = Vec::new();
    walk(top, &mut Vec::new(), &mut entries);
    entries.sort_by(stacker::listing::order);
    let mut text = Vec::new();
    stacker::listing::write(entries.iter(), &mut text).expect("write a listing");
    Listing::from_bytes(text).expect("a listing")
}

fn walk(top: &Path, path: &mut Vec<u8>, entries: &mut Vec<Entry>) {
    let full = top.join(std::ffi::OsStr::from_bytes(path));
    let metadata = full.symlink_metadata().expect("look at the base");
    let kind = match metadata.file_type() {
        kind if kind.is_dir() => {
            let mut value = [0; 1];
            let opaque = rustix::fs::lgetxattr(&full, "user.overlay.opaque", &mut value).is_ok();
            for name in fs::read_dir(&full).expect("read the base") {
                let length = path.len();
                if length > 0 {
                    path.push(b'/');
                }
                path.extend(name.expect("a name").file_name().as_bytes());
                walk(top, path, entries);
                path.truncate(length);
            }
            Kind::Directory { opaque }
        }
        kind if kind.is_symlink() => {
            Kind::Symlink { target: fs::read_link(&full).expect("read a link").as_os_str().as_bytes().to_vec() }
        }
        kind if kind.is_char_device() => Kind::Whiteout,
        _ => Kind::File { size: metadata.len(), content: stacker::digest::ContentDigest::of(b"") },
    };
    let mode = if kind == Kind::Whiteout { 0 } else { metadata.mode() & 0o7777 };
    let (uid, gid) = if kind == Kind::Whiteout { (0, 0) } else { (metadata.uid(), metadata.gid()) };
    entries.push(Entry {
        path: path.clone(),
        kind,
        mode,
        uid,
        gid,
        mtime: Time::from_seconds(metadata.mtime()),
        xattrs: BTreeMap::new(),
    });
}
