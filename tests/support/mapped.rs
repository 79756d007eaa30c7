//! Tests that give files to other users: root just runs them, everybody else in a user namespace with their
//! subordinate ids.

use std::process::Command;

/// Runs the rest of the test called `name` as (mapped) root: `if !support::mapped::root("name") { return; }`.
///
/// For a user it starts this test program again inside a user namespace, where the answer is true, and has failed if
/// the test failed there. Missing subordinate ids are a failure, unless STACKER_TEST_ALLOW_SKIP is set.
pub fn root(name: &str) -> bool {
    if rustix::process::geteuid().is_root() {
        return true;
    }
    let unshare = |program: &str, arguments: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--map-auto", program]).args(arguments);
        command.output().expect("unshare (of util-linux) is installed")
    };
    let probe = unshare("true", &[]);
    if !probe.status.success() {
        let why = String::from_utf8_lossy(&probe.stderr).into_owned();
        assert!(std::env::var_os(super::ALLOW_SKIP).is_some(), "no user namespace with subordinate ids: {why}");
        eprintln!("SKIPPED {name}: {why}");
        return false;
    }
    let program = std::env::current_exe().expect("a test program knows its path");
    let output = unshare(&program.to_string_lossy(), &["--exact", name, "--nocapture"]);
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "in a user namespace:\n{out}\n{err}");
    assert!(out.contains("1 passed"), "{name} is not the name of a test:\n{out}");
    false
}
