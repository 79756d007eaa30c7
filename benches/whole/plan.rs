//! `plan --all` beside the least that must be asked: a walk of the same tree by all cores, with `lstat` of every name.
//! Both are whole processes, one after the other in each round.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use rayon::prelude::*;
use tempfile::TempDir;

use crate::measure::time;
use crate::monorepo::Monorepo;
use crate::table::{Row, Series, print};
use crate::{Bench, Parameters};

/// The switch that turns this program into the walk.
pub const WALK: &str = "--walk-by-all";

/// Every name below a directory, by all cores.
pub fn walk(directory: &Path) -> io::Result<()> {
    let entries = fs::read_dir(directory)?.collect::<io::Result<Vec<_>>>()?;
    entries.into_par_iter().with_min_len(64).try_for_each(|entry| match entry.metadata()?.is_dir() {
        true => walk(&entry.path()),
        false => Ok(()),
    })
}

/// Times both, and says whether the plan stays within 1.5 × the walk + 50 ms.
pub fn planned(parameters: &Parameters) -> io::Result<()> {
    let dir = TempDir::new()?;
    let bench = Bench { parameters, dir: dir.path(), monorepo: Monorepo::create(dir.path(), parameters)? };
    let source = bench.monorepo.source.clone();
    for service in 0..parameters.services {
        let notes = source.join(format!("services/service-{service}/notes"));
        fs::create_dir_all(&notes)?;
        for note in 0..parameters.others {
            fs::write(notes.join(format!("note-{note}.md")), "Nothing imports this.\n")?;
        }
    }
    let layers = parameters.services * parameters.depth + 1;
    bench.expect_built(layers)?;
    // Stamps that are younger cannot be trusted: files would be read again.
    std::thread::sleep(Duration::from_millis(2100));
    bench.expect_built(0)?;
    let mut plan = bench.build_all();
    plan[1] = "plan".into();
    // What only builds take.
    plan.drain(2..4);
    let walk = [std::env::current_exe()?, WALK.into(), source.clone()];
    let (mut walks, mut plans) = (Series::new("lstat walk by all cores"), Series::new("plan --all, nothing changed"));
    for _ in 0..parameters.runs {
        walks.samples.push(time(&walk)?);
        plans.samples.push(time(&plan)?);
    }
    let names = crate::walk(&source)?;
    let (files, others) = (parameters.services * parameters.files, parameters.services * parameters.others);
    println!("{layers} layers, {files} imported files, {others} others; {names} names\n");
    print(&[Row { series: &walks, yardstick: None }, Row { series: &plans, yardstick: walks.yardstick() }]);
    let least = |series: &Series| series.samples.iter().map(|it| it.milliseconds).fold(f64::INFINITY, f64::min);
    for (what, walk, plan) in [("Medians", walks.median(), plans.median()), ("Minima", least(&walks), least(&plans))] {
        let bound = 1.5 * walk + 50.0;
        let holds = if plan < bound { "holds" } else { "does not hold" };
        println!("{what}: {plan:.1} ms; 1.5 × the walk + 50 ms is {bound:.1} ms: {holds}.");
    }
    bench.clean("store")
}
