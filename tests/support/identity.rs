//! The users that the program is run as.

use std::fmt;
use std::fs;
use std::process::Command;

use super::ALLOW_SKIP;

const USER: &str = "stacker-test-user";
/// Where its subordinate ids start, should useradd give it none.
const SUBORDINATE: u32 = 1_900_000_000;

/// Who runs the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Identity {
    /// Whoever runs the tests.
    Own,
    /// A user without any rights but a range of subordinate ids; only root can run things as somebody else.
    Ordinary { uid: u32, gid: u32 },
}

impl Identity {
    /// What to put before a command.
    pub fn wrapper(self) -> Vec<String> {
        match self {
            Identity::Own => Vec::new(),
            Identity::Ordinary { .. } => {
                ["setpriv", "--reuid", USER, "--regid", USER, "--init-groups", "--"].map(str::to_owned).to_vec()
            }
        }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Identity::Own => write!(f, "user {}", rustix::process::geteuid().as_raw()),
            Identity::Ordinary { uid, .. } => write!(f, "user {uid} ({USER})"),
        }
    }
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
    let has = |file| {
        let text = fs::read_to_string(file).unwrap_or_default();
        let mut lines = text.lines().map(|line| line.split(':').collect::<Vec<_>>());
        lines.any(|line| line[0] == name && line.get(2).and_then(|count| count.parse().ok()).unwrap_or(0) >= 65_536)
    };
    has("/etc/subuid") && has("/etc/subgid")
}

fn user_name() -> String {
    let output = Command::new("id").arg("-un").output().unwrap();
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}
