//! The example monorepo, built wherever stacker builds: on each kind of store, as root and as an ordinary user, in each
//! kind of sandbox. A Debian with a compiler in it; packages come from the network.

mod support;

use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use stacker::digest::DiffId;
use support::identity::Identity;
use support::inner::containers;
use support::space::{Run, Space, for_each_identity_on_btrfs, for_each_identity_with_copies};

const LAYERS: usize = 17;

type Digests = Vec<(String, Vec<DiffId>)>;

/// Puts the monorepo into a space and gives it to whoever builds there.
fn prepare(space: &Space) {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/monorepo");
    let script = "cp -r \"$1\" monorepo && cp --reflink=auto \"$2\" monorepo/base/debian.tar && chmod -R a+rX monorepo";
    let mut copy = Command::new("sh");
    copy.args(["-ec", script, "sh"]).arg(example).arg(support::debian::essential()).current_dir(space.path(""));
    assert!(copy.status().unwrap().success());
}

/// Builds all of it, twice.
#[track_caller]
fn build(space: &Space, wrapper: &[String], options: &[&str]) -> Run {
    prepare(space);
    let wrapper: Vec<&str> = wrapper.iter().map(String::as_str).collect();
    let arguments = [&["build", "--all", "monorepo"], options].concat();
    let run = space.stacker_under(&wrapper, &arguments).ends_with(0);
    assert_eq!(run.metadata().totals.built, LAYERS, "{run}");
    space.stacker_under(&wrapper, &arguments).ends_with(0).built(&[]);
    run
}

/// What it comes to on this machine: on an overlay store, as whoever runs the tests.
fn expected() -> &'static Digests {
    static EXPECTED: OnceLock<Digests> = OnceLock::new();
    EXPECTED.get_or_init(|| build(&Space::new(), &[], &[]).digests())
}

#[track_caller]
fn comes_out_the_same(run: &Run) {
    for (found, expected) in run.digests().iter().zip(expected()) {
        assert_eq!(found, expected, "{run}");
    }
}

#[test]
fn on_an_overlay_store_as_an_ordinary_user() {
    for identity in support::identity::identities().into_iter().filter(|identity| *identity != Identity::Own) {
        comes_out_the_same(&build(&Space::of(identity), &[], &[]));
    }
    assert_eq!(expected().len(), LAYERS);
}

#[test]
fn on_a_btrfs_store() {
    for_each_identity_on_btrfs(|space| comes_out_the_same(&build(space, &[], &[])));
}

#[test]
fn on_a_copy_store() {
    for_each_identity_with_copies(|space| comes_out_the_same(&build(space, &[], &[])));
}

#[test]
fn in_a_container() {
    // tests/build_inner.rs has all kinds of them.
    let Some(container) = containers().into_iter().next() else { return };
    let space = Space::of(Identity::Inner(container));
    comes_out_the_same(&build(&space, &[], &[]));
    assert_eq!(space.tiers(), ["inner"], "{container}");
}

#[test]
fn with_the_proc_outside() {
    let space = Space::new();
    comes_out_the_same(&build(&space, &[], &["--sandbox", "shared-proc"]));
    assert_eq!(space.tiers(), ["shared-proc"]);
}

/// Root of a namespace of one id, as who has no subordinate ones.
#[test]
fn with_one_id() {
    let space = Space::new();
    let wrapper = ["unshare", "--user", "--map-root-user"].map(str::to_owned);
    build(&space, &wrapper, &[]).says("the sandbox is of the kind single-id");
    assert_eq!(space.tiers(), ["single-id"]);
}
