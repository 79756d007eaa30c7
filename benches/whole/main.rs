//! Times the whole program on a made-up monorepo, in one run interleaved with what bounds it from below.
//!
//! `cargo bench --bench whole -- --services 50`. Beside a build that has nothing to do stands a bare walk of the same
//! tree; beside a build of one layer, the same script in a bare chroot; beside an import, `tar | gzip` of the same
//! bytes. Times are reported, never asserted; what a build did is (nothing, or one layer), else they mean nothing.
//!
//! `cargo bench --bench whole -- --plan --services 500 --files 60` times `plan --all` instead; see [`plan`].
//!
//! `cargo bench --bench whole -- --bases` times trivial runs instead, on large bases, by parts; see [`bases`].

mod bases;
mod measure;
mod monorepo;
mod plan;
mod table;
mod timeline;
#[allow(dead_code)]
#[path = "../../tests/support/volume.rs"]
mod volume;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Parser;
use rustix::fs::inotify;
use tempfile::TempDir;

use measure::{Sample, median, time};
use monorepo::{Monorepo, script};
use table::{Row, Series};

/// The switch that turns this program into the walk.
const WALK: &str = "--walk";

/// Times stacker on a made-up monorepo.
#[derive(Parser)]
#[command(name = "whole")]
pub struct Parameters {
    /// Services, each with a stackerfile and a directory that is imported
    #[arg(long, default_value_t = 50, value_parser = positive)]
    services: usize,
    /// Files in each imported directory
    #[arg(long, default_value_t = 20, value_parser = positive)]
    files: usize,
    /// Bytes in each file
    #[arg(long, default_value_t = 4096)]
    size: usize,
    /// Layers of each service, one built on the other
    #[arg(long, default_value_t = 2, value_parser = positive)]
    depth: usize,
    /// Times that everything but cold builds is timed
    #[arg(long, default_value_t = 15, value_parser = positive)]
    runs: usize,
    /// Times that cold builds are timed
    #[arg(long, default_value_t = 3, value_parser = positive)]
    cold_runs: usize,
    /// Instead: a trivial run on bases of 9,000 and 58,000 entries, on overlay and (for root) on btrfs, by parts
    #[arg(long)]
    bases: bool,
    /// Instead: `plan --all` beside a walk by all cores, in a tree that also holds files which nothing imports
    #[arg(long)]
    plan: bool,
    /// With --plan: so many of them for each service
    #[arg(long, default_value_t = 20)]
    others: usize,
    /// Given by `cargo bench`
    #[arg(long, hide = true)]
    bench: bool,
}

fn positive(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|number| *number > 0).ok_or_else(|| "wanted a number from 1".to_owned())
}

fn main() -> io::Result<()> {
    let mut words = std::env::args().skip(1);
    match words.next().as_deref() {
        Some(plan::WALK) => plan::walk(Path::new(&words.next().unwrap_or_default())),
        Some(WALK) => walk(Path::new(&words.next().unwrap_or_default())).map(|_| ()),
        Some(measure::TIME) => match measure::between(words)? {
            true => Ok(()),
            false => std::process::exit(1),
        },
        _ => {
            let parameters = Parameters::parse();
            match parameters.bench {
                true if parameters.plan => plan::planned(&parameters),
                true if parameters.bases => bases::trivial_runs(parameters.runs),
                true => whole(&parameters),
                // As in `cargo test --all-targets`.
                false => {
                    println!("nothing is timed without --bench; run me by `cargo bench --bench whole`");
                    Ok(())
                }
            }
        }
    }
}

/// The least that must be asked to know that nothing changed. Returns how many names there are.
fn walk(dir: &Path) -> io::Result<usize> {
    let mut names = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        names += 1;
        if entry.metadata()?.is_dir() {
            names += walk(&entry.path())?;
        }
    }
    Ok(names)
}

/// Everything that is timed.
struct Timed {
    walk: Series,
    no_op: Series,
    bare: Series,
    one_miss: Series,
    synced: Series,
    cold: Series,
    cold_import: Series,
    tar_gzip: Series,
}

/// A monorepo and the commands that are timed on it.
struct Bench<'a> {
    parameters: &'a Parameters,
    dir: &'a Path,
    monorepo: Monorepo,
}

fn whole(parameters: &Parameters) -> io::Result<()> {
    let dir = TempDir::new()?;
    let bench = Bench { parameters, dir: dir.path(), monorepo: Monorepo::create(dir.path(), parameters)? };
    let names = walk(&bench.monorepo.source)?;
    bench.warm_up()?;
    let opened = bench.opened_by_no_op()?;
    let timed = bench.rounds()?;
    let Parameters { services, files, size, depth, .. } = parameters;
    println!("{services} services of {depth} layers, {files} imported files of {size} bytes each; {names} names\n");
    bench.print(&timed);
    bench.print_goals(&timed, opened);
    bench.clean("store")
}

impl Bench<'_> {
    fn build(&self, store: &str, what: &[&Path]) -> Vec<PathBuf> {
        let stacker = PathBuf::from(env!("CARGO_BIN_EXE_stacker"));
        let mut words: Vec<PathBuf> = vec![stacker, "build".into(), "--progress".into(), "none".into()];
        words.extend(["--stacker-dir".into(), self.dir.join(store)]);
        words.extend(["--oci-dir".into(), self.dir.join(store).join("oci")]);
        words.extend(what.iter().map(PathBuf::from));
        words
    }

    fn build_all(&self) -> Vec<PathBuf> {
        self.build("store", &[Path::new("--all"), &self.monorepo.source])
    }

    /// Builds into an empty store, and removes it.
    fn build_cold(&self, what: &[&Path]) -> io::Result<Sample> {
        let sample = time(&self.build("cold", what))?;
        self.clean("cold")?;
        Ok(sample)
    }

    /// The store's own command, since others than us may own what is in it.
    fn clean(&self, store: &str) -> io::Result<()> {
        let stacker = Path::new(env!("CARGO_BIN_EXE_stacker"));
        let store = self.dir.join(store);
        let words: [&Path; 6] =
            [stacker, "clean".as_ref(), "--stacker-dir".as_ref(), &store, "--oci-dir".as_ref(), &store.join("oci")];
        time(&words).map(|_| ())
    }

    /// Fills the store and the kernel's caches, and makes sure that the builds that are timed do what is claimed.
    fn warm_up(&self) -> io::Result<()> {
        self.expect_built(self.parameters.services * self.parameters.depth + 1)?;
        // Stamps that are younger cannot be trusted: files would be read again.
        std::thread::sleep(Duration::from_millis(2100));
        self.expect_built(0)?;
        self.expect_built(0)?;
        self.monorepo.write_stackerfile(0, 1)?;
        self.expect_built(1)
    }

    fn expect_built(&self, wanted: usize) -> io::Result<()> {
        let metadata = self.dir.join("metadata.json");
        let mut words = self.build_all();
        words.extend(["--metadata-file".into(), metadata.clone()]);
        time(&words)?;
        let found: serde_json::Value = serde_json::from_slice(&fs::read(&metadata)?)?;
        match found["totals"]["built"].as_u64() {
            Some(built) if built == wanted as u64 => Ok(()),
            built => Err(io::Error::other(format!("wanted {wanted} layers built, not {built:?}"))),
        }
    }

    /// How many imported files a build opens that has nothing to do.
    fn opened_by_no_op(&self) -> io::Result<usize> {
        let watch = inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC)?;
        for service in 0..self.parameters.services {
            inotify::add_watch(&watch, self.monorepo.imported(service), inotify::WatchFlags::OPEN)?;
        }
        time(&self.build_all())?;
        let mut buffer = [std::mem::MaybeUninit::uninit(); 1 << 16];
        let mut events = inotify::Reader::new(&watch, &mut buffer);
        let mut opened = 0;
        while let Ok(event) = events.next() {
            opened += usize::from(!event.events().contains(inotify::ReadFlags::ISDIR));
        }
        Ok(opened)
    }

    fn rounds(&self) -> io::Result<Timed> {
        let mut timed = Timed {
            walk: Series::new("lstat walk"),
            no_op: Series::new("build, nothing changed"),
            bare: Series::new("bare chroot, one script"),
            one_miss: Series::new("build, one script changed"),
            synced: Series::new("one file written, `sync -f`"),
            cold: Series::new("build of everything, empty store"),
            cold_import: Series::new("import of the whole tree, empty store"),
            tar_gzip: Series::new("tar and gzip -6 of the tree"),
        };
        for round in 0..self.parameters.runs {
            timed.walk.samples.push(self.walk()?);
            timed.no_op.samples.push(time(&self.build_all())?);
            timed.bare.samples.push(self.bare(round)?);
            timed.synced.samples.push(self.synced()?);
            // Rounds 0 and 1 are what the warm-up built.
            self.monorepo.write_stackerfile(0, round + 2)?;
            timed.one_miss.samples.push(time(&self.build_all())?);
            if round < self.parameters.cold_runs {
                timed.cold.samples.push(self.build_cold(&[Path::new("--all"), &self.monorepo.source])?);
                timed.cold_import.samples.push(self.build_cold(&[Path::new("-f"), &self.monorepo.everything])?);
                timed.tar_gzip.samples.push(self.tar_gzip()?);
            }
        }
        Ok(timed)
    }

    fn walk(&self) -> io::Result<Sample> {
        time(&[std::env::current_exe()?, WALK.into(), self.monorepo.source.clone()])
    }

    /// The script of a layer with no more than a root of its own around it.
    fn bare(&self, round: usize) -> io::Result<Sample> {
        let words = "unshare --user --map-root-user --mount --pid --fork chroot".split(' ').map(PathBuf::from);
        let shell: [PathBuf; 4] = [self.monorepo.root.clone(), "/bin/sh".into(), "-ec".into(), script(round).into()];
        time(&words.chain(shell).collect::<Vec<_>>())
    }

    /// What it costs here to make anything durable: a build that runs something does that once, at its end.
    fn synced(&self) -> io::Result<Sample> {
        let script = r#"echo durable >"$1" && sync -f "$1""#;
        let words: [PathBuf; 5] = ["sh".into(), "-c".into(), script.into(), "sh".into(), self.dir.join("synced")];
        time(&words)
    }

    fn tar_gzip(&self) -> io::Result<Sample> {
        let pipe = r#"tar -C "$1" -c . | gzip -6 >"$2""#;
        let words: [PathBuf; 6] = [
            "sh".into(),
            "-c".into(),
            pipe.into(),
            "sh".into(),
            self.monorepo.source.clone(),
            self.dir.join("everything.tar.gz"),
        ];
        time(&words)
    }

    fn print(&self, timed: &Timed) {
        let scripts = self.parameters.services * self.parameters.depth;
        let all_bare = (format!("{scripts} × {}", timed.bare.name), scripts as f64 * timed.bare.median());
        table::print(&[
            Row { series: &timed.walk, yardstick: None },
            Row { series: &timed.no_op, yardstick: timed.walk.yardstick() },
            Row { series: &timed.bare, yardstick: None },
            Row { series: &timed.synced, yardstick: None },
            Row { series: &timed.one_miss, yardstick: timed.no_op.yardstick() },
            Row { series: &timed.cold, yardstick: Some(all_bare) },
            Row { series: &timed.tar_gzip, yardstick: None },
            Row { series: &timed.cold_import, yardstick: timed.tar_gzip.yardstick() },
        ]);
    }

    fn print_goals(&self, timed: &Timed, opened: usize) {
        let holds = |holds| if holds { "holds" } else { "does not hold" };
        let (no_op, bound) = (timed.no_op.median(), 2.0 * timed.walk.median() + 80.0);
        println!("\nNothing changed: {no_op:.1} ms; 2 × the walk + 80 ms is {bound:.1} ms: {}.", holds(no_op < bound));
        println!("Imported files that it opens: {opened}.");
        let at = |series: &Series, round: usize| series.samples[round].milliseconds;
        // By round, so that what slows a whole round down cancels out.
        let over = |round| at(&timed.one_miss, round) - at(&timed.no_op, round) - at(&timed.bare, round);
        let by_round = |cost: &dyn Fn(usize) -> f64| median(&(0..self.parameters.runs).map(cost).collect::<Vec<_>>());
        let (whole, rest) = (by_round(&over), by_round(&|round| over(round) - at(&timed.synced, round)));
        println!("A trivial run over the bare one (median by round): {whole:.1} ms; 30 ms: {}.", holds(whole < 30.0));
        println!("The same less what a sync costs here: {rest:.1} ms.");
    }
}
