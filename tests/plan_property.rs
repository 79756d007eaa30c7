//! `plan` and `build --offline` never disagree: random graphs, random edits and lost data, compared step by step.

mod support;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::process::Command;

use stacker::export::metadata::Status as Built;
use stacker::plan::{Plan, PlannedLayer, PlannedStep, Status};
use support::random::Random;
use support::schema::assert_fits;
use support::space::{Run, Space, for_each_identity_on_btrfs, for_each_user};

/// What several files hold, so that edits lead back to what was built before.
const TEXTS: [&str; 3] = ["one\n", "two\n", "three\n"];
/// Files in the directory that is imported, and beside it.
const FILES: [&str; 4] = ["src/a", "src/b", "x", "y"];
/// Scripts: of what they read, of nothing but themselves, without any change, of the base.
const SCRIPTS: [&str; 5] = [
    "cat /stacker/imports/* /stacker/imports/*/* 2> /dev/null > /out || true",
    "echo same > /out",
    "test -e /bin/sh; echo $LEVEL > /out",
    "true; if test ! -e /out; then echo first > /out; fi",
    "cat /out >> /all 2> /dev/null || true; echo made > /out",
];

/// Reasons to which nothing can be added.
const FINAL: [&str; 4] = ["never built", "forced", "its data is missing", "no result of the last try"];

/// A layer as it is written.
#[derive(Clone, Debug)]
struct Layer {
    /// An earlier layer.
    base: usize,
    /// `path`, and `dest` if it has one.
    imports: Vec<(String, Option<String>)>,
    script: Option<(usize, usize)>,
    level: usize,
    labels: bool,
    build_only: bool,
    note: usize,
}

impl Layer {
    /// Layer 0 is the tar base.
    fn random(random: &mut Random, number: usize, with_script: &[usize]) -> Layer {
        let mut layer = Layer {
            base: random.below(number),
            imports: Vec::new(),
            script: (!random.one_in(4)).then(|| (random.below(SCRIPTS.len()), 0)),
            level: random.below(2),
            labels: random.one_in(6),
            build_only: random.one_in(3),
            note: 0,
        };
        for _ in 0..random.below(3) {
            layer.add_import(random, with_script);
        }
        layer
    }

    fn add_import(&mut self, random: &mut Random, with_script: &[usize]) {
        let path = match (random.below(3), with_script) {
            (0, [_, ..]) => format!("stacker://l{}/out", with_script[random.below(with_script.len())]),
            (1, _) => "src".to_owned(),
            _ => FILES[random.below(FILES.len())].to_owned(),
        };
        let name = |path: &str| path.rsplit('/').next().unwrap_or_default().to_owned();
        if self.imports.iter().any(|(other, _)| name(other) == name(&path)) {
            return;
        }
        let dest = random.one_in(2).then(|| format!("/data/{}/", random.below(2)));
        self.imports.push((path, dest));
    }
}

struct Repository<'s> {
    space: &'s Space,
    /// How often layers had which status, and how many of the others were built.
    seen: &'s mut BTreeMap<(Status, bool), usize>,
    random: Random,
    layers: Vec<Layer>,
}

impl<'s> Repository<'s> {
    fn random(space: &'s Space, seen: &'s mut BTreeMap<(Status, bool), usize>, seed: u64) -> Repository<'s> {
        let mut random = Random::new(seed);
        let (mut layers, mut with_script) = (Vec::new(), Vec::new());
        for number in 1..random.below(5) + 5 {
            let layer = Layer::random(&mut random, number, &with_script);
            if layer.script.is_some() {
                with_script.push(number);
            }
            layers.push(layer);
        }
        let mut repository = Repository { space, seen, random, layers };
        FILES.iter().for_each(|file| space.write(file, TEXTS[0]));
        repository.write();
        repository
    }

    fn write(&mut self) {
        let mut text = String::new();
        for (number, layer) in self.layers.iter().enumerate() {
            let base = if layer.base == 0 { "base".to_owned() } else { format!("l{}", layer.base) };
            let _ = write!(text, "l{}:\n  from: {{type: built, tag: {base}}}\n  imports:\n", number + 1);
            for (path, dest) in &layer.imports {
                let _ = match dest {
                    Some(dest) => writeln!(text, "    - {{path: '{path}', dest: '{dest}'}}"),
                    None => writeln!(text, "    - '{path}'"),
                };
            }
            if let Some((script, comment)) = layer.script {
                let _ = writeln!(text, "  run: |\n    {}\n    # {comment}", SCRIPTS[script]);
                let _ = writeln!(text, "  build_env: {{LEVEL: '{}'}}", layer.level);
            }
            if layer.labels {
                let _ = writeln!(text, "  generate_labels: cat /out > /stacker/oci-labels/out 2> /dev/null || true");
            }
            let _ = writeln!(text, "  build_only: {}\n  labels: {{note: '{}'}}", layer.build_only, layer.note);
        }
        self.space.stackerfile(&text);
    }

    /// Something that a person, or a cleaner, may do. The answer is what it was, for messages.
    fn edit(&mut self) -> String {
        let at = self.random.below(self.layers.len());
        let what = self.random.below(12);
        let (random, layer) = (&mut self.random, &mut self.layers[at]);
        let done = match what {
            0..=2 => {
                let (file, text) = (FILES[random.below(FILES.len())], TEXTS[random.below(TEXTS.len())]);
                self.space.write(file, text);
                format!("{file} holds {text:?}")
            }
            3..=5 => {
                let script = random.below(SCRIPTS.len());
                if let Some((old, comment)) = &mut layer.script {
                    (*old, *comment) = if random.one_in(4) { (script, *comment) } else { (*old, *comment + 1) };
                }
                format!("script {:?} of l{}", layer.script, at + 1)
            }
            6 => {
                layer.level = random.below(3);
                format!("variable of l{}", at + 1)
            }
            7 => {
                layer.note += 1;
                format!("label of l{}", at + 1)
            }
            8 => {
                layer.imports.pop();
                format!("an import less in l{}", at + 1)
            }
            9 => {
                layer.add_import(random, &[]);
                format!("an import more in l{}", at + 1)
            }
            10 => self.lose_some(),
            _ => self.lose_all(),
        };
        self.write();
        done
    }

    /// One thing in the store goes, and sometimes what it could be made of.
    fn lose_some(&mut self) -> String {
        let deltas = fs::read_dir(self.space.roots_dir().join("deltas")).into_iter().flatten();
        let mut names: Vec<_> = deltas.map(|entry| entry.unwrap().path()).collect();
        names.sort();
        if names.is_empty() {
            return "nothing".to_owned();
        }
        let delta = &names[self.random.below(names.len())];
        assert!(Command::new("rm").arg("-rf").arg(delta).status().unwrap().success());
        if self.random.one_in(2) {
            self.lose_blobs();
            return "a delta and all blobs go".to_owned();
        }
        "a delta goes".to_owned()
    }

    fn lose_all(&mut self) -> String {
        if self.space.roots_dir().join("trees").exists() {
            self.space.forget_roots();
        }
        if self.random.one_in(2) {
            return "all deltas go".to_owned();
        }
        self.lose_blobs();
        "all deltas and blobs go".to_owned()
    }

    fn lose_blobs(&self) {
        for entry in fs::read_dir(self.space.stacker_dir().join("blobs/sha256")).unwrap() {
            fs::remove_file(entry.unwrap().path()).unwrap();
        }
    }

    /// Plans, builds, and compares.
    fn compare(&mut self, told: &str) {
        let some = format!("l{}", self.random.below(self.layers.len()) + 1);
        let flags: &[&str] = match self.random.below(8) {
            0 => &["--rebuild", &some],
            1 => &["--no-cache"],
            _ => &[],
        };
        let plan = self.space.stacker(&[&["plan", "--json"], flags].concat()).ends_with(0);
        let value: serde_json::Value = serde_json::from_str(&plan.stdout).unwrap();
        assert_fits("plan", &value);
        let planned: Plan = serde_json::from_value(value).unwrap();
        let arguments = [&["--offline", "--progress", "plain"], flags].concat();
        let built = self.space.build(&arguments);
        let started = started(&built.stderr);
        for layer in &planned.layers {
            let ran = started.get(&layer.name).map_or(&[][..], Vec::as_slice);
            *self.seen.entry((layer.status, !ran.is_empty())).or_default() += 1;
            compare(layer, ran, &built, &format!("{told}, {flags:?}: {layer:#?}\nbuilt by {built}"));
        }
        let names: Vec<&String> = planned.layers.iter().map(|layer| &layer.name).collect();
        assert!(started.keys().all(|name| names.contains(&name)), "{told}: {started:?} but planned {names:?}");
    }
}

/// The steps that a build began, by layer: `layer: step (reason)`.
fn started(stderr: &str) -> BTreeMap<String, Vec<(String, String)>> {
    let mut started: BTreeMap<String, Vec<(String, String)>> = BTreeMap::new();
    for line in stderr.lines() {
        let parts = line.split_once(": ").and_then(|(layer, rest)| Some((layer, rest.split_once(" (")?)));
        let Some((layer, (step, reason))) = parts else { continue };
        if let ("unpack" | "import" | "run" | "labels", Some(reason)) = (step, reason.strip_suffix(')')) {
            started.entry(layer.to_owned()).or_default().push((step.to_owned(), reason.to_owned()));
        }
    }
    started
}

#[track_caller]
fn compare(layer: &PlannedLayer, ran: &[(String, String)], built: &Run, told: &str) {
    let status = built.layer(&layer.name).status;
    match layer.status {
        Status::Hit => assert!(status == Built::Hit && ran.is_empty(), "a hit was built: {told}"),
        // Something that is the same may have been built for another layer.
        Status::Build if layer.steps.iter().all(|step| step.status != Status::Build || step.may_be_shared) => {}
        Status::Build => assert_eq!(status, Built::Built, "what was to be built was not: {told}"),
        Status::If => assert!(matches!(status, Built::Hit | Built::Built), "{told}"),
        Status::Unknown | Status::Fail => panic!("nothing is unknown here: {told}"),
    }
    for kind in ["unpack", "import", "run", "labels"] {
        let steps: Vec<&PlannedStep> = layer.steps.iter().filter(|step| step.step == kind).collect();
        let reasons: Vec<&str> = ran.iter().filter(|(step, _)| step == kind).map(|(_, reason)| &**reason).collect();
        let may = steps.iter().any(|step| matches!(step.status, Status::Build | Status::If));
        assert!(may || reasons.is_empty(), "{kind} is a hit and ran: {told}");
        for step in steps.iter().filter(|step| step.status == Status::Build) {
            let reason = step.reason.as_deref().unwrap_or_default();
            // What it stands on may have come out different, which then is a reason too.
            let same = |found: &&str| *found == reason || (!step.after.is_empty() && !FINAL.contains(found));
            if step.may_be_shared && !reasons.iter().any(same) {
                continue;
            }
            assert!(reasons.iter().any(same), "{kind} ran for {reasons:?}, not {reason:?}: {told}");
        }
    }
}

/// Each kind of outcome must be met so often, else it says little.
fn rounds(space: &Space, seeds: std::ops::Range<u64>, least: usize) {
    let mut seen = BTreeMap::new();
    for seed in seeds {
        let mut repository = Repository::random(space, &mut seen, seed);
        repository.compare(&format!("seed {seed} at first"));
        let mut history = format!("seed {seed}");
        for _ in 0..4 {
            for _ in 0..repository.random.below(2) + 1 {
                let edit = repository.edit();
                let _ = write!(history, ", {edit}");
            }
            repository.compare(&history);
        }
    }
    for kind in [(Status::Hit, false), (Status::Build, true), (Status::If, false), (Status::If, true)] {
        assert!(*seen.get(&kind).unwrap_or(&0) >= least, "{kind:?}: {seen:?}");
    }
}

/// `STACKER_TEST_PLANS=N`: so many times as many graphs.
fn times() -> u64 {
    std::env::var("STACKER_TEST_PLANS").ok().and_then(|times| times.parse().ok()).unwrap_or(1)
}

#[test]
fn a_plan_is_what_a_build_then_does() {
    for_each_user(|space| rounds(space, 0..8 * times(), 4));
}

#[test]
fn a_plan_is_what_a_build_then_does_on_btrfs() {
    for_each_identity_on_btrfs(|space| rounds(space, 1000..1000 + 3 * times(), 0));
}
