//! A roots directory with a busybox base, and workers that run in it.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use stacker::action::Network;
use stacker::worker::message::{Failure, Setting};

use crate::worker::{Job, Outcome, ROLE};

/// The first of 65,536 host ids that stand for those in the sandbox.
pub const FIRST_ID: u32 = 2_000_000_000;

pub struct Site {
    directory: tempfile::TempDir,
    pub job: Job,
}

/// A worker that has not ended yet.
pub struct Running {
    child: Child,
    output: BufReader<ChildStdout>,
    log: Arc<Mutex<String>>,
    reader: JoinHandle<()>,
}

/// What came out of it.
pub struct Ran {
    pub outcome: Outcome,
    /// What the script printed.
    pub log: String,
}

impl Site {
    /// busybox with all its commands, and nothing else: no `/etc`, no `/proc`.
    pub fn new() -> Site {
        let busybox = Path::new("/bin/busybox");
        assert!(busybox.exists(), "the package busybox-static is missing");
        let directory = tempfile::tempdir().unwrap();
        let roots = directory.path();
        for name in ["deltas", "trees", "drafts", "imports"] {
            fs::create_dir(roots.join(name)).unwrap();
        }
        let bin = roots.join("trees/base/bin");
        fs::create_dir_all(&bin).unwrap();
        fs::copy(busybox, bin.join("busybox")).unwrap();
        for name in sh("/bin/busybox --list").lines().filter(|name| *name != "busybox") {
            std::os::unix::fs::symlink("busybox", bin.join(name)).unwrap();
        }
        let job = Job {
            layer: "web".into(),
            script: String::new(),
            environment: BTreeMap::from([("PATH".into(), "/bin".into())]),
            lowers: vec!["trees/base".into()],
            draft: "drafts/one".into(),
            mounts: Vec::new(),
            network: Network::Host,
            setting: Setting::default(),
        };
        Site { directory, job }
    }

    /// A place in the roots directory.
    pub fn path(&self, relative: &str) -> PathBuf {
        self.directory.path().join(relative)
    }

    /// A place in the upper directory of the run.
    pub fn upper(&self, relative: &str) -> PathBuf {
        self.path("drafts/one/u").join(relative)
    }

    /// All names in the upper, sorted, separated by blanks.
    pub fn upper_names(&self) -> String {
        sh(&format!("cd {} && find . -mindepth 1 | sed 's,^./,,' | LC_ALL=C sort | xargs", self.upper("").display()))
    }

    /// Runs a script of `/bin/sh -e`.
    pub fn run(&mut self, script: &str) -> Ran {
        self.start(script).wait()
    }

    /// Starts a worker; it has its id maps when this returns.
    pub fn start(&mut self, script: &str) -> Running {
        if !script.starts_with("#!") {
            self.job.script = format!("#!/bin/sh -e\n{script}\n");
        } else {
            self.job.script = script.to_owned();
        }
        sh(&format!("chown -hR {FIRST_ID}:{FIRST_ID} {0} && chmod 700 {0}", self.directory.path().display()));
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([ROLE, &serde_json::to_string(&self.job).unwrap()])
            .current_dir(self.directory.path())
            .env("SECRET_OF_THE_HOST", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        output.read_line(&mut String::new()).unwrap();
        for name in ["uid_map", "gid_map"] {
            fs::write(format!("/proc/{}/{name}", child.id()), format!("0 {FIRST_ID} 65536\n")).unwrap();
        }
        // As if the worker had made it: who may not open the pipe again can not write to /dev/stdout.
        chown(format!("/proc/{}/fd/2", child.id()), Some(FIRST_ID), Some(FIRST_ID)).unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let (mut pipe, copy) = (child.stderr.take().unwrap(), log.clone());
        let reader = std::thread::spawn(move || {
            let mut part = [0; 4096];
            while let Ok(length @ 1..) = pipe.read(&mut part) {
                copy.lock().unwrap().push_str(&String::from_utf8_lossy(&part[..length]));
            }
        });
        child.stdin.take().unwrap().write_all(b"go\n").unwrap();
        Running { child, output, log, reader }
    }
}

impl Running {
    pub fn id(&self) -> nix::unistd::Pid {
        nix::unistd::Pid::from_raw(self.child.id() as i32)
    }

    /// What the script printed so far.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Waits until the script printed `text`.
    pub fn wait_for(&self, text: &str) {
        eventually(&format!("the script prints {text}"), || self.log().contains(text));
    }

    /// Collects a worker that was killed.
    pub fn gone(mut self) {
        self.child.wait().unwrap();
    }

    pub fn wait(mut self) -> Ran {
        let mut text = String::new();
        self.output.read_to_string(&mut text).unwrap();
        let status = self.child.wait().unwrap();
        let outcome = serde_json::from_str(&text).unwrap_or_else(|_| panic!("the worker ended with {status}: {text}"));
        self.reader.join().unwrap();
        let log = self.log.lock().unwrap().clone();
        Ran { outcome, log }
    }
}

impl Ran {
    /// The exit code.
    pub fn code(&self) -> i32 {
        match &self.outcome {
            Outcome::Ended(code) => *code,
            Outcome::Failed(failure) => panic!("the run failed: {failure:?}\n{}", self.log),
        }
    }

    pub fn failure(&self) -> &Failure {
        match &self.outcome {
            Outcome::Ended(code) => panic!("the script ended with {code}: {}", self.log),
            Outcome::Failed(failure) => failure,
        }
    }

    /// What a script that must succeed printed.
    pub fn printed(&self) -> &str {
        assert_eq!(self.code(), 0, "{}", self.log);
        self.log.trim_end()
    }
}

/// (uid, gid) as the sandbox has them.
pub fn owner(path: &Path) -> (u32, u32) {
    let metadata = path.symlink_metadata().unwrap();
    (metadata.uid() - FIRST_ID, metadata.gid() - FIRST_ID)
}

/// The standard output of a command of the host that must succeed.
pub fn sh(script: &str) -> String {
    let output = Command::new("sh").args(["-ec", script]).output().unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}

/// Waits up to 5 s.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let start = std::time::Instant::now();
    while !holds() {
        assert!(start.elapsed().as_secs() < 5, "it does not happen that {what}");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

/// Whether a process with this command line runs on the host.
pub fn running(command_line: &str) -> bool {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    processes.into_iter().any(|process| {
        let line = fs::read(process.path().join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).replace('\0', " ").trim_end() == command_line
    })
}
