//! `gc --max-size`, again and again, beside eight builds: they lose nothing that they need, and do not keep it from its
//! work.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use stacker::digest::DiffId;
use stacker::export::metadata::Metadata;
use support::space::{Space, for_each_identity};
use support::watched::Watched;

const BUILDERS: usize = 8;
const ROUNDS: usize = 5;

/// How many builds may end while one gc is at its work: three of each builder, of the five that it makes.
const MEANWHILE: usize = 3 * BUILDERS;

/// What all builds stand on, and what each makes of its own: the same whenever it is made.
fn write(space: &Space, builder: usize, round: usize) {
    space.write(
        &format!("{builder}.yaml"),
        format!(
            "
base: {{from: {{type: tar, url: base.tar}}}}
common: {{from: {{type: built, tag: base}}, run: 'for i in $(seq 40); do echo common $i > /common-$i; done'}}
beside: {{from: {{type: built, tag: base}}, imports: [{{path: data, dest: /data}}]}}
own-{builder}:
  from: {{type: built, tag: common}}
  imports: [data, 'stacker://beside/data/file']
  run: 'cat /common-7 /stacker/imports/data/file > /own; echo {builder} {round} >> /own'
"
        ),
    );
}

/// A builder at its work. It also ends where it fails.
struct Building<'c>(&'c AtomicUsize);

impl Drop for Building<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

type Digests = BTreeMap<String, Vec<DiffId>>;

fn command(space: &Space, builder: usize) -> Command {
    let (file, layout, metadata) =
        (format!("{builder}.yaml"), format!("oci-{builder}"), format!("metadata-{builder}.json"));
    space.command(&["build", "-f", &file, "--oci-dir", &layout, "--metadata-file", &metadata])
}

fn build(space: &Space, builder: usize) -> Digests {
    ended(space, builder, command(space, builder).output().unwrap())
}

/// What came of a build.
#[track_caller]
fn ended(space: &Space, builder: usize, output: Output) -> Digests {
    space.run_of(&["build"], output).ends_with(0);
    let metadata = space.path(format!("metadata-{builder}.json"));
    let metadata: Metadata = serde_json::from_slice(&fs::read(metadata).unwrap()).unwrap();
    metadata.layers.into_iter().map(|layer| (layer.name, layer.diff_ids)).collect()
}

#[test]
fn builds_lose_nothing_that_they_need_and_do_not_starve_gc() {
    for_each_identity(|space| {
        space.stackerfile("");
        space.write("data/file", "content");
        write(space, 0, ROUNDS);
        build(space, 0);
        let (ended, building) = (&AtomicUsize::new(0), &AtomicUsize::new(BUILDERS));
        let (made, rounds) = std::thread::scope(|scope| {
            let builders: Vec<_> = (0..BUILDERS)
                .map(|builder| {
                    scope.spawn(move || {
                        let _building = Building(building);
                        let mut made = BTreeMap::new();
                        for round in 0..ROUNDS {
                            write(space, builder, round);
                            made.insert(round, build(space, builder));
                            ended.fetch_add(1, Ordering::SeqCst);
                        }
                        made
                    })
                })
                .collect();
            let gc = scope.spawn(move || {
                let mut rounds = Vec::new();
                while building.load(Ordering::SeqCst) > 0 {
                    let before = ended.load(Ordering::SeqCst);
                    // It takes all that it may.
                    let told = space.stacker(&["gc", "--max-size", "1"]).ends_with(0).stdout;
                    rounds.push((ended.load(Ordering::SeqCst) - before, told));
                }
                rounds
            });
            let made: Vec<_> = builders.into_iter().map(|builder| builder.join().unwrap()).collect();
            (made, gc.join().unwrap())
        });
        let most = rounds.iter().map(|(ended, _)| *ended).max().unwrap();
        let took = rounds.iter().filter(|(_, told)| told.contains("run of")).count();
        eprintln!("as {}, {}: {} rounds, at most {most} builds in one", space.identity(), space.kind(), rounds.len());
        assert!(most <= MEANWHILE, "gc was kept from its work while {most} builds ended");
        assert!(rounds.len() > 1 && took > 0, "nothing was taken while something was built, so nothing was tested");
        for (builder, made) in made.iter().enumerate() {
            // Whatever was taken meanwhile: it comes out as when nobody takes anything.
            assert_eq!(build(space, builder), made[&(ROUNDS - 1)]);
            let own = made.values().map(|layers| layers[&format!("own-{builder}")].last().copied()).collect::<Vec<_>>();
            assert!(own.windows(2).all(|pair| pair[0] != pair[1]), "each round has a layer of its own: {own:?}");
        }
        space.stacker(&["cache", "verify"]).ends_with(0);
    });
}

/// A build stands still at each point at which what is stored changes, and gc takes all that it may.
#[test]
fn gc_at_each_point_of_a_build_takes_nothing_that_it_needs() {
    for_each_identity(|space| {
        space.stackerfile("");
        space.write("data/file", "content");
        write(space, 0, 0);
        let expected = build(space, 0);
        space.stacker(&["gc", "--max-size", "1"]).ends_with(0);
        fs::remove_dir_all(space.path("oci-0")).unwrap();
        let mut build = command(space, 0);
        build.stdout(Stdio::piped()).stderr(Stdio::piped());
        let watched = Watched::start(space, build);
        let (mut points, mut took, mut gc) = (0, 0, None);
        while let Some(standing) = watched.next() {
            points += 1;
            let start = || space.command(&["gc", "--max-size", "1"]).stdout(Stdio::null()).spawn().unwrap();
            let mut running = gc.take().unwrap_or_else(start);
            match wait(&mut running, Duration::from_millis(500)) {
                Some(status) => {
                    assert!(status.success(), "gc failed at {}", standing.point());
                    took += 1;
                }
                // The build holds a lock, which it lets go of when it goes on.
                None => gc = Some(running),
            }
        }
        assert!(gc.is_none_or(|mut gc| gc.wait().unwrap().success()));
        eprintln!("as {}, {}: {took} gc at {points} points", space.identity(), space.kind());
        assert!(took > 20, "{took} of {points}");
        assert_eq!(ended(space, 0, watched.child.wait_with_output().unwrap()), expected);
        space.stacker(&["cache", "verify"]).ends_with(0);
    });
}

/// How a process ended, if it does in time.
fn wait(child: &mut Child, time: Duration) -> Option<ExitStatus> {
    let until = Instant::now() + time;
    loop {
        match child.try_wait().unwrap() {
            None if Instant::now() < until => std::thread::sleep(Duration::from_millis(5)),
            ended => return ended,
        }
    }
}
