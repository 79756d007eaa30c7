//! What a trivial run costs beside its script, on bases of two sizes and on both kinds of store, and where that goes.
//!
//! In each round everything is timed once, in turn: a bare chroot, a build with nothing to do, a build that runs one
//! script on the base (a leaf), and one that runs a script and another one on its result. Parts are told apart by what
//! the program makes, see [`Watched`].

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::measure::{median, time};
use crate::monorepo;
use crate::timeline::{Marks, Watched};
use crate::volume::Volume;

/// Entries of the bases.
const SIZES: [usize; 2] = [9_000, 58_000];

/// What is built.
#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    Nothing,
    Leaf,
    BuiltUpon,
}

/// One base on one kind of store.
struct Site {
    name: String,
    work: PathBuf,
    roots: PathBuf,
    /// Which script the stackerfile has.
    round: usize,
    whole: [Vec<f64>; 3],
    parts: BTreeMap<(usize, String), Vec<f64>>,
}

/// Times and prints.
pub fn trivial_runs(rounds: usize) -> io::Result<()> {
    let dir = TempDir::new()?;
    let volume = rustix::process::geteuid().is_root().then(|| Volume::create(dir.path().join("volume")));
    if volume.is_none() {
        println!("SKIPPED: btrfs, which only root can mount");
    }
    let mut sites = Vec::new();
    for size in SIZES {
        let tar = dir.path().join(format!("{size}.tar"));
        let root = dir.path().join(format!("root-{size}"));
        monorepo::base(&tar, &root, size)?;
        sites.push(Site::create(dir.path(), &tar, format!("overlay, {size}"), dir.path())?);
        if let Some(volume) = &volume {
            sites.push(Site::create(dir.path(), &tar, format!("btrfs, {size}"), &volume.path)?);
        }
    }
    let mut bare = Vec::new();
    for _ in 0..rounds {
        bare.push(bare_true(&dir.path().join(format!("root-{}", SIZES[0])))?);
        for site in &mut sites {
            for what in [What::Nothing, What::Leaf, What::BuiltUpon] {
                site.measure(what)?;
            }
        }
    }
    println!("{rounds} rounds; medians in ms. A bare chroot of `true`: {:.1}.\n", median(&bare));
    print_whole(&sites, median(&bare));
    print_parts(&sites);
    sites.iter().try_for_each(Site::clean)
}

/// The least that a sandbox is made of.
fn bare_true(root: &Path) -> io::Result<f64> {
    let words = "unshare --user --map-root-user --mount --pid --fork chroot".split(' ').map(PathBuf::from);
    let command: Vec<PathBuf> = words.chain([root.to_owned(), "/bin/busybox".into(), "true".into()]).collect();
    Ok(time(&command)?.milliseconds)
}

impl Site {
    /// Builds the base, and each kind of layer once.
    fn create(dir: &Path, tar: &Path, name: String, on: &Path) -> io::Result<Site> {
        let short = name.replace(", ", "-");
        let (work, roots) = (dir.join(&short), on.join(format!("roots-{short}")));
        fs::create_dir_all(&work)?;
        fs::hard_link(tar, work.join("base.tar"))?;
        let mut site = Site { name, work, roots, round: 0, whole: Default::default(), parts: BTreeMap::new() };
        site.write(What::BuiltUpon)?;
        time(&site.command())?;
        // Younger stamps cannot be trusted: the tar would be read again by each build.
        std::thread::sleep(std::time::Duration::from_millis(2100));
        for what in [What::Nothing, What::Leaf, What::BuiltUpon] {
            site.build(what)?;
        }
        Ok(site)
    }

    /// A stackerfile with the scripts of this round.
    fn write(&self, what: What) -> io::Result<()> {
        let run = |name: &str, on: &str| {
            format!("{name}: {{from: {{type: built, tag: {on}}}, run: 'echo {} >/{name}'}}\n", self.round)
        };
        let mut text = "base: {from: {type: tar, url: base.tar}, build_only: true}\n".to_owned();
        text += &run("one", "base");
        if what == What::BuiltUpon {
            text += &run("two", "one");
        }
        fs::write(self.work.join("stacker.yaml"), text)
    }

    fn command(&self) -> Vec<PathBuf> {
        let mut words: Vec<PathBuf> = vec![env!("CARGO_BIN_EXE_stacker").into()];
        words.extend(["build", "--jobs", "1", "--progress", "none", "-f"].map(PathBuf::from));
        words.extend([self.work.join("stacker.yaml"), "--stacker-dir".into(), self.work.join("store")]);
        words.extend(["--roots-dir".into(), self.roots.clone(), "--oci-dir".into(), self.work.join("oci")]);
        words
    }

    fn build(&mut self, what: What) -> io::Result<Marks> {
        if what != What::Nothing {
            self.round += 1;
            self.write(what)?;
        }
        let (stacker, layout) = (self.work.join("store"), self.work.join("oci"));
        let watched = Watched { stacker: &stacker, roots: &self.roots, layout: &layout };
        let marks = watched.build(&self.command())?;
        let runs = marks.iter().filter(|(mark, _)| *mark == "recorded").count();
        match runs == what as usize {
            true => Ok(marks),
            false => Err(io::Error::other(format!("{runs} runs in {marks:?}"))),
        }
    }

    fn measure(&mut self, what: What) -> io::Result<()> {
        let marks = self.build(what)?;
        let (mut before, mut run) = (0.0, 1);
        for (mark, at) in marks {
            if what != What::Nothing {
                let part = match mark {
                    "compressed" | "exported" | "durable" | "exit" => format!("until {mark}"),
                    _ => format!("run {run} until {mark}"),
                };
                self.parts.entry((what as usize, part)).or_default().push(at - before);
                run += usize::from(mark == "recorded");
            }
            before = at;
        }
        self.whole[what as usize].push(before);
        Ok(())
    }

    fn clean(&self) -> io::Result<()> {
        let mut words = self.command();
        words.truncate(1);
        words.extend(["clean".into(), "--all".into(), "--stacker-dir".into(), self.work.join("store")]);
        words.extend(["--roots-dir".into(), self.roots.clone(), "--oci-dir".into(), self.work.join("oci")]);
        time(&words).map(|_| ())
    }
}

fn print_whole(sites: &[Site], bare: f64) {
    println!("| store, entries of the base | nothing changed | a leaf | its cost | two runs | cost of the second |");
    println!("|---|--:|--:|--:|--:|--:|");
    for site in sites {
        let [nothing, leaf, upon] = &site.whole;
        // By round, so that what slows a whole round down cancels out; and without what the bare one takes.
        let over = |a: &[f64], b: &[f64]| median(&a.iter().zip(b).map(|(a, b)| a - b).collect::<Vec<_>>()) - bare;
        println!(
            "| {} | {:.1} | {:.1} | {:.1} | {:.1} | {:.1} |",
            site.name,
            median(nothing),
            median(leaf),
            over(leaf, nothing),
            median(upon),
            over(upon, leaf)
        );
    }
}

/// The parts of the build of two runs, in which those of a leaf are the same but for the tree.
fn print_parts(sites: &[Site]) {
    const RUN: [&str; 7] = ["decided", "tree", "ready", "nursery", "script", "kept", "recorded"];
    let runs = [1, 2].into_iter().flat_map(|run| RUN.map(|mark| format!("run {run} until {mark}")));
    let end = ["compressed", "exported", "durable", "exit"].map(|mark| format!("until {mark}"));
    let parts: Vec<String> = runs.chain(end).collect();
    for what in [What::Leaf, What::BuiltUpon] {
        let title = if what == What::Leaf { "a leaf" } else { "two runs" };
        println!(
            "\n| {title}: part | {} |",
            sites.iter().map(|site| site.name.clone()).collect::<Vec<_>>().join(" | ")
        );
        println!("|---|{}", "--:|".repeat(sites.len()));
        for part in &parts {
            let key = (what as usize, part.clone());
            let found =
                |site: &Site| site.parts.get(&key).map_or(String::new(), |times| format!("{:.1}", median(times)));
            if sites.iter().any(|site| site.parts.contains_key(&key)) {
                println!("| {part} | {} |", sites.iter().map(found).collect::<Vec<_>>().join(" | "));
            }
        }
    }
}
