//! Each process killed at each point at which what is stored changes: the next build is right.
//!
//! Usually the users share the points, and the process that stands at one is killed where it is first reached. With
//! STACKER_TEST_COMMIT_POINTS=N each of them goes to all, and each of the three kinds of process is killed, where the
//! point is reached the first, the second, ..., the Nth time.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::process::{Command, Stdio};
use std::sync::LazyLock;

use clap::ValueEnum;
use rustix::process::{Pid, Signal, kill_process};
use stacker::commit_point::CommitPoint;
use support::identity::identities;
use support::processes::beneath;
use support::server::{Reply, Server};
use support::space::{Space, for_each_identity_at_once};
use support::undisturbed::Undisturbed;
use support::watched::Watched;

const LAYERS: &str = "
one: {from: {type: built, tag: base}, run: 'echo ROUND > /one; if env | grep STACKER_TEST; then exit 9; fi'}
two: {from: {type: built, tag: one}, imports: [{path: data, dest: /data, uid: 3}], run: 'cat /data/file > /two; ENDING'}
right: {from: {type: built, tag: two}, imports: ['stacker://one/one', 'SERVER/ROUND'], run: 'cp /stacker/imports/* /'}
image: {from: {type: oci, url: 'bases:base'}, run: 'echo ROUND > /image'}
";

/// More layers than one mount has.
const IMPORTS: usize = 61;

/// What is done when a process is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Occasion {
    /// A build after an edit.
    Edit,
    /// One whose script fails.
    Failing,
    /// One that finds results, and builds all anew.
    Anew,
    /// One that finds no database.
    NewDatabase,
    /// One that finds nothing in the roots directory.
    NewRoots,
    /// One that finds neither that nor compressed layers.
    NoData,
    /// One that finds no layout.
    NewLayout,
    /// One on a machine that has started again, and knows of nothing that it is on disk.
    OtherBoot,
    /// One of more layers than one mount has, which finds no trees.
    Deep,
    /// `stacker gc`, with all results long unused.
    Gc,
    /// `stacker gc` that leaves nothing.
    Fit,
}

impl Occasion {
    /// Where a point is reached. A new one is looked for in a build after an edit.
    fn of(point: CommitPoint, btrfs: bool) -> Occasion {
        use CommitPoint::*;
        match point {
            DatabaseMade | BasesNoted => Occasion::NewDatabase,
            DatabaseSettled | DoubtfulSetAside => Occasion::OtherBoot,
            BootWritten | StoreWritten | RootsMade | StoreNoted | LayerNoted | Unpacked | SubvolumeMade => {
                Occasion::NewRoots
            }
            LossNoted => Occasion::NoData,
            LayoutMade => Occasion::NewLayout,
            FailedDraftKept => Occasion::Failing,
            RecordRemoved => Occasion::Anew,
            ResultSetAside | ResultFileRemoved | BlobsForgotten | ResultForgotten | LeftoversSetAside
            | LeftoverRemoved => Occasion::Gc,
            DataSetAside => Occasion::Fit,
            TreeMerged | TreeNamed if !btrfs => Occasion::Deep,
            _ => Occasion::Edit,
        }
    }

    fn command(self) -> &'static [&'static str] {
        match self {
            Occasion::Gc => &["gc", "--older-than", "1h"],
            Occasion::Fit => &["gc", "--max-size", "1"],
            Occasion::Anew => &["build", "--no-cache"],
            _ => &["build"],
        }
    }

    /// How the script of `two` ends.
    fn ending(self) -> &'static str {
        match self {
            Occasion::Failing => "false",
            // What it stands on is a result of the state before.
            Occasion::NoData => "true; true",
            _ => "true",
        }
    }

    /// Whether results of the state before are wanted.
    fn needs_a_build(self) -> bool {
        matches!(self, Occasion::Anew | Occasion::NoData | Occasion::Gc | Occasion::Fit)
    }

    fn arrange(self, space: &Space) {
        let store = space.stacker_dir();
        match self {
            Occasion::Edit | Occasion::Failing | Occasion::Anew | Occasion::Fit => {}
            Occasion::NewDatabase => {
                for suffix in ["", "-wal", "-shm"] {
                    let _ = fs::remove_file(store.join(format!("stacker.db{suffix}")));
                }
            }
            Occasion::NewRoots => space.forget_roots(),
            Occasion::NoData => {
                space.forget_roots();
                let blobs = store.join("blobs/sha256");
                fs::read_dir(&blobs).unwrap().for_each(|blob| fs::remove_file(blob.unwrap().path()).unwrap());
            }
            Occasion::NewLayout => fs::remove_dir_all(space.path("oci")).unwrap(),
            Occasion::OtherBoot => {
                sql(space, "UPDATE boot SET id = 'another'");
                fs::write(space.roots_dir().join("boot.json"), r#"{"boot":"another","synced":0}"#).unwrap();
            }
            Occasion::Deep => forget_trees(space),
            Occasion::Gc => {
                sql(space, "UPDATE result SET last_used = 0");
                let (drafts, left) = (space.roots_dir().join("drafts"), space.roots_dir().join("drafts/left-over"));
                let _ = fs::create_dir(&left);
                let owner = drafts.metadata().unwrap();
                chown(&left, Some(owner.uid()), Some(owner.gid())).unwrap();
                fs::write(store.join("tmp/left-over"), "").unwrap();
            }
        }
    }
}

/// Points that only a store on btrfs has.
fn is_of_btrfs(point: CommitPoint) -> bool {
    use CommitPoint::*;
    let points =
        [SubvolumeMade, SnapshotMade, NurseryPrepared, NurseryNamed, NurseryPlaceMade, UpperKept, DeltaLinkMade];
    points.contains(&point) || point == TreeSealed
}

fn sql(space: &Space, statement: &str) {
    let path = space.stacker_dir().join("stacker.db");
    rusqlite::Connection::open(path).unwrap().execute_batch(statement).unwrap();
}

fn forget_trees(space: &Space) {
    let program = "cd \"$1\" && rm -rf trees/*";
    let as_root = rustix::process::geteuid().is_root();
    let wrapper: &[&str] = if as_root { &[] } else { &["unshare", "--user", "--map-root-user", "--map-auto"] };
    let roots = space.roots_dir();
    let words = [wrapper, &["sh", "-c", program, "sh", roots.to_str().unwrap()]].concat();
    assert!(Command::new(words[0]).args(&words[1..]).status().unwrap().success());
}

/// A server that has a file for each round.
fn server() -> String {
    static SERVER: LazyLock<Server> = LazyLock::new(|| Server::start(|request| Reply::new(200, request.path.as_str())));
    SERVER.url("")
}

/// One state of the sources.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Sources {
    round: usize,
    deep: bool,
}

impl Sources {
    fn write(self, space: &Space, ending: &str) {
        space.write("data/file", format!("content {}", self.round));
        space.write("same", "always the same");
        let mut text =
            LAYERS.replace("SERVER", &server()).replace("ROUND", &self.round.to_string()).replace("ENDING", ending);
        if self.deep {
            let imports: Vec<_> = (0..IMPORTS).map(|n| format!("{{path: same, dest: /same-{n}}}")).collect();
            let (imports, round) = (imports.join(", "), self.round);
            text += &format!(
                "deep: {{from: {{type: built, tag: base}}, imports: [{imports}], run: 'echo {round} > /deep'}}\n"
            );
        }
        space.stackerfile(&text);
    }
}

/// Gives a space the image that one of the layers is built on.
fn give_base(space: &Space, undisturbed: &Undisturbed) {
    let (from, to) = (undisturbed.space.path("bases"), space.path("bases"));
    let status = Command::new("cp").args(["-r", from.to_str().unwrap(), to.to_str().unwrap()]).status();
    assert!(status.unwrap().success());
    if let Some((uid, gid)) = space.identity().owner() {
        space.give_all(uid, gid);
    }
}

/// One process killed.
#[derive(Clone, Copy, Debug)]
struct Kill {
    /// Where one stands.
    point: CommitPoint,
    /// How often that was reached then.
    time: usize,
    victim: Victim,
}

/// Who is killed; where there is none, who stands there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Victim {
    Standing,
    Stacker,
    Holder,
    Worker,
}

/// Builds, or whatever the occasion asks for, until the point is reached, and kills. False: it is not reached so often.
fn kill_at(space: &Space, occasion: Occasion, kill: Kill) -> bool {
    let Kill { point, time, victim } = kill;
    let mut command = space.command(occasion.command());
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut watched = Watched::start(space, command);
    let mut notes = std::iter::from_fn(|| watched.next());
    let standing = notes.by_ref().filter(|standing| standing.point() == point.to_string()).nth(time - 1);
    if let Some(standing) = &standing {
        kill_one(victim, watched.child.id(), standing.pid());
    }
    let killed = standing.is_some();
    // Whoever is left goes on; the connection ends when all of them have.
    drop(standing);
    watched.let_go();
    watched.child.wait().unwrap();
    killed
}

/// Kills the victim of those beneath a process: the one that stands, if it is of that kind.
fn kill_one(victim: Victim, stacker: u32, standing: i32) {
    let named = |name: &str| {
        let all: Vec<i32> =
            beneath(stacker).into_iter().filter(|(_, found)| found.contains(name)).map(|(pid, _)| pid).collect();
        if all.contains(&standing) { Some(standing) } else { all.first().copied() }
    };
    let whom = match victim {
        Victim::Standing => None,
        Victim::Stacker => Some(stacker as i32),
        Victim::Holder => named("holder"),
        Victim::Worker => named("worker"),
    };
    let kill = |pid| kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL);
    // A worker may end while it is looked for.
    kill(whom.unwrap_or(standing)).or_else(|_| kill(standing)).unwrap();
}

#[test]
fn whoever_is_killed_at_any_commit_point_the_next_build_is_right() {
    let times = std::env::var("STACKER_TEST_COMMIT_POINTS").ok().and_then(|text| text.parse().ok()).unwrap_or(0);
    let undisturbed = Undisturbed::new();
    undisturbed.space.stackerfile("");
    undisturbed.space.build(&["--oci-dir", "bases"]);
    for_each_identity_at_once(|space| kill_everywhere(space, &undisturbed, times));
}

fn kill_everywhere(space: &Space, undisturbed: &Undisturbed, times: usize) {
    give_base(space, undisturbed);
    check(space, undisturbed, Sources { round: 0, deep: false }, "the first build");
    let victims: &[Victim] = match times {
        0 => &[Victim::Standing],
        _ => &[Victim::Stacker, Victim::Holder, Victim::Worker],
    };
    let (mut round, mut missed) = (0, BTreeSet::new());
    let mut killed: BTreeMap<Victim, usize> = BTreeMap::new();
    for point in share(space, times > 0) {
        for (time, victim) in (1..=times.max(1)).flat_map(|time| victims.iter().map(move |victim| (time, *victim))) {
            round += 1;
            if once(space, undisturbed, round, Kill { point, time, victim }) {
                *killed.entry(victim).or_default() += 1;
            } else if time == 1 {
                missed.insert(point.to_string());
            }
        }
    }
    assert!(missed.is_empty(), "never reached, so nothing is tested there: {missed:?}");
    space.stacker(&["cache", "verify", "--deep"]).ends_with(0);
    eprintln!("as {}, {}: killed {killed:?}", space.identity(), space.kind());
}

/// The points for a user; all users together have all.
fn share(space: &Space, all: bool) -> Vec<CommitPoint> {
    let users = identities();
    let own = users.iter().position(|user| *user == space.identity()).unwrap();
    let there = |point: &CommitPoint| !is_of_btrfs(*point) || space.volume().is_some();
    let points = CommitPoint::value_variants().iter().copied().filter(there).enumerate();
    points.filter(|(index, _)| all || index % users.len() == own).map(|(_, point)| point).collect()
}

/// Kills after an edit, and builds. False: it did not come to that.
fn once(space: &Space, undisturbed: &Undisturbed, round: usize, kill: Kill) -> bool {
    let occasion = Occasion::of(kill.point, space.volume().is_some());
    let sources = Sources { round, deep: occasion == Occasion::Deep };
    let what = format!("{kill:?}, {occasion:?}");
    if occasion.needs_a_build() {
        check(space, undisturbed, sources, &what);
    }
    sources.write(space, occasion.ending());
    occasion.arrange(space);
    let killed = kill_at(space, occasion, kill);
    check(space, undisturbed, sources, &what);
    killed
}

/// The build comes out as if nothing had happened, and does nothing the second time.
fn check(space: &Space, undisturbed: &Undisturbed, sources: Sources, what: &str) {
    sources.write(space, "true");
    let run = space.build(&[]);
    assert_eq!(run.digests(), undisturbed.digests(sources, |space| sources.write(space, "true")), "{what}: {run}");
    space.build(&[]).built(&[]);
}
