//! `gc --max-size`, again and again, beside eight builds: they lose nothing that they need, and do not keep it from its
//! work.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};

use stacker::digest::DiffId;
use stacker::export::metadata::Metadata;
use support::space::{Space, for_each_identity};

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

type Digests = BTreeMap<String, Vec<DiffId>>;

fn build(space: &Space, builder: usize) -> Digests {
    let (file, layout, metadata) =
        (format!("{builder}.yaml"), format!("oci-{builder}"), format!("metadata-{builder}.json"));
    let arguments = ["build", "-f", &file, "--oci-dir", &layout, "--metadata-file", &metadata];
    space.run_of(&arguments, space.command(&arguments).output().unwrap()).ends_with(0);
    let metadata: Metadata = serde_json::from_slice(&fs::read(space.path(&metadata)).unwrap()).unwrap();
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
                        let mut made = BTreeMap::new();
                        for round in 0..ROUNDS {
                            write(space, builder, round);
                            made.insert(round, build(space, builder));
                            ended.fetch_add(1, Ordering::SeqCst);
                        }
                        building.fetch_sub(1, Ordering::SeqCst);
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
