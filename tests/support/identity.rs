//! The users that the program is run as.

use std::fmt;
use std::fs;
use std::process::Command;

use super::ALLOW_SKIP;
use super::inner::Inner;

/// The ordinary user.
pub const USER: &str = "stacker-test-user";
/// Where its subordinate ids start, should useradd give it none.
const SUBORDINATE: u32 = 1_900_000_000;

/// Who runs the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Identity {
    /// Whoever runs the tests.
    Own,
    /// A user without any rights but a range of subordinate ids; only root can run things as somebody else.
    Ordinary { uid: u32, gid: u32 },
    /// Root inside a container.
    Inner(Inner),
}

impl Identity {
    /// What to put before a command.
    pub fn wrapper(self) -> Vec<String> {
        match self {
            Identity::Own => Vec::new(),
            Identity::Ordinary { .. } => as_ordinary(),
            Identity::Inner(inner) => inner.wrapper(),
        }
    }

    /// To whom files must be given that the program is to write, where that is not the user who runs the tests.
    pub fn owner(self) -> Option<(u32, u32)> {
        match self {
            Identity::Own => None,
            Identity::Ordinary { uid, gid } => Some((uid, gid)),
            Identity::Inner(inner) => Some(inner.root()),
        }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Identity::Own => write!(f, "user {}", rustix::process::geteuid().as_raw()),
            Identity::Ordinary { uid, .. } => write!(f, "user {uid} ({USER})"),
            Identity::Inner(inner) => inner.fmt(f),
        }
    }
}

/// Makes root the ordinary user, for the command that follows.
pub fn as_ordinary() -> Vec<String> {
    ["setpriv", "--reuid", USER, "--regid", USER, "--init-groups", "--"].map(str::to_owned).to_vec()
}

/// Everybody whom a test should be run as.
pub fn identities() -> Vec<Identity> {
    if rustix::process::geteuid().is_root() {
        return vec![Identity::Own, ordinary()];
    }
    if has_subordinate_ids(&user_name()) {
        return vec![Identity::Own];
    }
    let why = "this user has no subordinate ids in /etc/subuid and /etc/subgid";
    assert!(std::env::var_os(ALLOW_SKIP).is_some(), "{why} (set {ALLOW_SKIP} to skip such tests)");
    eprintln!("SKIPPED: {why}");
    Vec::new()
}

/// The ordinary user, made when it is not there yet.
fn ordinary() -> Identity {
    let lock = fs::File::create(std::env::temp_dir().join("stacker-test-user.lock")).unwrap();
    lock.lock().unwrap();
    let id = |flag| {
        let output = Command::new("id").args([flag, USER]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).trim().parse().ok()
    };
    if id("-u").is_none() {
        run("useradd", &["--user-group", "--no-create-home", "--shell", "/usr/sbin/nologin", USER]);
    }
    if !has_subordinate_ids(USER) {
        let range = format!("{SUBORDINATE}-{}", SUBORDINATE + 65_535);
        run("usermod", &["--add-subuids", &range, "--add-subgids", &range, USER]);
    }
    Identity::Ordinary { uid: id("-u").expect("it was made"), gid: id("-g").expect("it was made") }
}

fn has_subordinate_ids(name: &str) -> bool {
    subordinate("/etc/subuid", name).is_some() && subordinate("/etc/subgid", name).is_some()
}

/// Where a user's 65,536 ids in `/etc/subuid` or `/etc/subgid` start.
pub fn subordinate(file: &str, name: &str) -> Option<u32> {
    let text = fs::read_to_string(file).unwrap_or_default();
    text.lines().find_map(|line| {
        let words: Vec<&str> = line.split(':').collect();
        let count: u32 = words.get(2)?.parse().ok()?;
        if words[0] == name && count >= 65_536 { words[1].parse().ok() } else { None }
    })
}

pub fn user_name() -> String {
    let output = Command::new("id").arg("-un").output().unwrap();
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}
