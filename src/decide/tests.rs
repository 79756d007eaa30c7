use super::*;
use crate::action::Kind;
use crate::action::{Attributes, Network, Platform};
use crate::digest::{ContentDigest, DiffId, TreeDigest};

fn platform() -> Platform {
    Platform { os: "linux".into(), arch: "amd64".into() }
}

/// `run` only; the script's text makes the key.
fn layer(base: BaseInput, script: &str) -> LayerInputs {
    let run = RunInput { script: script.into(), environment: BTreeMap::new(), binds: vec![], network: Network::Host };
    LayerInputs { base, platform: platform(), imports: vec![], run: Some(run), labels: None, forced: false }
}

fn copies(from: usize, path: &str) -> ImportInput {
    ImportInput {
        source: SourceInput::Layer { layer: LayerIndex(from), path: path.into() },
        basename: path.rsplit('/').next().unwrap_or_default().into(),
        contents: false,
        dest: None,
        seen_in: &["/stacker/imports"],
        attributes: Attributes::default(),
    }
}

fn outcome(byte: u8) -> Outcome {
    Outcome { diff_id: Some(DiffId([byte; 32])), newest: DEFAULT_EPOCH }
}

fn decider(inputs: Vec<LayerInputs>, keep_going: bool) -> Decider {
    let wanted = (0..inputs.len()).map(LayerIndex).collect();
    Decider::new(inputs, wanted, Settings { source_date_epoch: None, keep_going, ids: Ids::Full })
}

/// Answers every question: nothing is stored, trees are what `tree` says.
fn answer_all(decider: &mut Decider, stored: &HashMap<Key, Outcome>) {
    while let Some(question) = decider.next_question() {
        let answer = match &question {
            Question::Result(key) => Answer::Result(stored.get(key).copied()),
            Question::Newest(_) => Answer::Newest(DEFAULT_EPOCH),
            Question::Tree { chain, path } => Answer::Tree {
                tree: TreeDigest(chain.id().0),
                kind: SourceKind::File,
                resolved: path.trim_start_matches('/').into(),
            },
            Question::Content { chain, path } => {
                Answer::Content { content: ContentDigest(chain.id().0), resolved: path.trim_start_matches('/').into() }
            }
            Question::Place { dest, .. } => Answer::Place(dest.clone()),
        };
        decider.answered(question, answer);
    }
}

fn ready(decider: &mut Decider, stored: &HashMap<Key, Outcome>) -> Vec<Run> {
    answer_all(decider, stored);
    std::iter::from_fn(|| decider.next_run()).collect()
}

fn indexes(runs: &[Run]) -> Vec<usize> {
    runs.iter().map(|run| run.id.layer.0).collect()
}

#[test]
fn what_is_needed_runs_first_and_independent_layers_together() {
    let built = |n| BaseInput::Built(LayerIndex(n));
    let mut decider = decider(
        vec![
            layer(BaseInput::Scratch, "a"),
            layer(built(0), "b"),
            layer(built(0), "c"),
            layer(BaseInput::Scratch, "d"),
        ],
        false,
    );
    let none = HashMap::new();
    let first = ready(&mut decider, &none);
    assert_eq!(indexes(&first), [0, 3]);
    assert_eq!(first[0].action.time, DEFAULT_EPOCH + LAYER_TIME_STEP);
    decider.finished(first[0].id, first[0].key, Outcome { newest: DEFAULT_EPOCH + 2, ..outcome(1) }, true);
    let second = ready(&mut decider, &none);
    assert_eq!(indexes(&second), [1, 2]);
    assert_eq!(second[0].action.base.0, [1; 32]);
    assert_eq!(second[0].action.time, DEFAULT_EPOCH + 4, "layer time grows with the chain");
}

#[test]
fn a_rebuilt_base_that_comes_out_the_same_leaves_everything_above_a_hit() {
    let inputs = vec![layer(BaseInput::Scratch, "a"), layer(BaseInput::Built(LayerIndex(0)), "b")];
    let mut first = decider(inputs.clone(), false);
    let mut stored = HashMap::new();
    for byte in 1..=2 {
        let run = ready(&mut first, &stored).remove(0);
        stored.insert(run.key, outcome(byte));
        first.finished(run.id, run.key, outcome(byte), true);
    }
    assert_eq!(first.status(LayerIndex(1)), Status::Done);

    let mut edited = inputs;
    edited[0] = layer(BaseInput::Scratch, "a # comment");
    let mut second = decider(edited, false);
    let runs = ready(&mut second, &stored);
    assert_eq!(indexes(&runs), [0]);
    second.finished(runs[0].id, runs[0].key, outcome(1), true);
    assert!(ready(&mut second, &stored).is_empty());
    assert!(!second.decided(LayerIndex(1))[0].built);
    assert_eq!(second.status(LayerIndex(1)), Status::Done);
}

#[test]
fn identical_keys_run_once() {
    let mut decider = decider(vec![layer(BaseInput::Scratch, "a"), layer(BaseInput::Scratch, "a")], false);
    let runs = ready(&mut decider, &HashMap::new());
    assert_eq!(indexes(&runs), [0]);
    decider.finished(runs[0].id, runs[0].key, outcome(1), true);
    assert!(decider.decided(LayerIndex(0))[0].built);
    assert!(!decider.decided(LayerIndex(1))[0].built, "of two equal actions the second is a hit");
}

#[test]
fn a_failure_stops_new_runs_unless_told_to_keep_going() {
    for keep_going in [false, true] {
        let mut decider = decider(
            vec![
                layer(BaseInput::Scratch, "a"),
                layer(BaseInput::Built(LayerIndex(0)), "b"),
                layer(BaseInput::Scratch, "c"),
            ],
            keep_going,
        );
        answer_all(&mut decider, &HashMap::new());
        let run = decider.next_run().expect("layer 0 is ready");
        decider.failed(run.id, run.key);
        assert_eq!(decider.next_run().is_some(), keep_going);
        decider.close();
        assert_eq!(decider.status(LayerIndex(0)), Status::Failed);
        assert_eq!(decider.status(LayerIndex(1)), Status::Skipped);
    }
}

#[test]
fn a_copied_path_enters_by_content() {
    let mut copier = layer(BaseInput::Scratch, "b");
    copier.imports.push(copies(0, "/bin/x"));
    let mut decider = decider(vec![layer(BaseInput::Scratch, "a"), copier], false);
    let none = HashMap::new();
    let first = ready(&mut decider, &none);
    assert_eq!(indexes(&first), [0]);
    decider.finished(first[0].id, first[0].key, outcome(7), true);
    let second = ready(&mut decider, &none).remove(0);
    assert_eq!(second.sources[&Taken::Import(0)].1, b"bin/x");
    let Kind::Run { mounts, .. } = second.action.kind else { panic!("not a run") };
    assert_eq!((mounts[0].place.as_str(), mounts[0].tree.0), ("/stacker/imports/x", [7; 32]));
}

#[test]
fn evicted_data_runs_its_action_again_and_what_depends_on_another_result() {
    let inputs = vec![layer(BaseInput::Scratch, "a"), layer(BaseInput::Built(LayerIndex(0)), "b")];
    let mut decider = decider(inputs, false);
    let mut stored = HashMap::new();
    answer_all(&mut decider, &stored);
    let base = decider.next_run().expect("the base is missing");
    stored.insert(base.key, outcome(1));
    decider.finished(base.id, base.key, outcome(1), false);
    let child = ready(&mut decider, &stored).remove(0);
    assert!(decider.evicted(ChainId([1; 32])));
    decider.postponed(child.id, child.key);
    let again = ready(&mut decider, &stored);
    assert_eq!((indexes(&again), again[0].why), (vec![0], Why::Evicted));
    assert!(decider.evicted(ChainId([1; 32])), "another one misses it while it is made");
    assert!(!decider.evicted(ChainId([2; 32])), "nobody makes that");
    decider.finished(again[0].id, again[0].key, outcome(9), true);
    let child = ready(&mut decider, &stored).remove(0);
    assert_eq!(child.action.base.0, [9; 32]);
}

#[test]
fn what_is_missed_while_it_is_decided_anew_is_no_loss_of_its_own() {
    let inputs = vec![layer(BaseInput::Scratch, "a"), layer(BaseInput::Built(LayerIndex(0)), "b")];
    let mut decider = decider(inputs, false);
    let mut stored = HashMap::new();
    for byte in 1..=2 {
        let run = ready(&mut decider, &stored).remove(0);
        stored.insert(run.key, outcome(byte));
        decider.finished(run.id, run.key, outcome(byte), true);
    }
    let upper = decider.chain(LayerIndex(1)).0.id();
    assert!(decider.evicted(ChainId([1; 32])));
    // Its step is not decided at this moment.
    assert!(decider.evicted(upper));
    let again = ready(&mut decider, &stored).remove(0);
    decider.finished(again.id, again.key, outcome(1), true);
    assert!(ready(&mut decider, &stored).is_empty(), "it is a hit");
    assert!(decider.evicted(upper));
    assert_eq!(indexes(&ready(&mut decider, &stored)), [1]);
}

#[test]
fn a_source_that_changed_while_staged_is_decided_anew() {
    let mut input = layer(BaseInput::Scratch, "a");
    let host = |byte| SourceInput::Host { tree: TreeDigest([byte; 32]), kind: SourceKind::File };
    input.imports.push(ImportInput { source: host(1), ..copies(0, "/x") });
    let mut decider = decider(vec![input], false);
    let run = ready(&mut decider, &HashMap::new()).remove(0);
    decider.host_import_changed(run.id, run.key, 0, TreeDigest([2; 32]), SourceKind::File);
    let again = ready(&mut decider, &HashMap::new()).remove(0);
    assert_ne!(again.key, run.key);
}

#[test]
fn a_tar_that_changed_before_it_was_unpacked_is_decided_anew() {
    let tar = |byte| ContentDigest([byte; 32]);
    let mut decider = decider(vec![layer(BaseInput::Tar(tar(1)), "a")], false);
    let run = ready(&mut decider, &HashMap::new()).remove(0);
    decider.host_tar_changed(run.id, run.key, tar(2));
    let again = ready(&mut decider, &HashMap::new()).remove(0);
    assert!(matches!(again.action.kind, Kind::Unpack { tar: found } if found == tar(2)), "{again:?}");
}

#[test]
fn a_tar_of_another_layer_enters_by_content() {
    let base = BaseInput::LayerTar { layer: LayerIndex(0), path: "/out/x.tar".into() };
    let mut decider = decider(vec![layer(BaseInput::Scratch, "a"), layer(base, "b")], false);
    let none = HashMap::new();
    let first = ready(&mut decider, &none);
    assert_eq!(indexes(&first), [0]);
    decider.finished(first[0].id, first[0].key, Outcome { newest: DEFAULT_EPOCH + 50, ..outcome(7) }, true);
    let second = ready(&mut decider, &none).remove(0);
    assert_eq!(second.sources[&Taken::Base].1, b"out/x.tar");
    // As if the tar lay on the host: neither the layer nor its times count.
    let unpack = Kind::Unpack { tar: ContentDigest([7; 32]) };
    assert_eq!((second.action.kind, second.action.time), (unpack, DEFAULT_EPOCH + LAYER_TIME_STEP));
    assert_eq!((second.action.base, second.parent), (ChainId::SCRATCH, Chain::default()));
    decider.finished(second.id, second.key, outcome(8), true);
    let third = ready(&mut decider, &none).remove(0);
    assert_eq!(third.action.base.0, [8; 32]);
}

#[test]
fn base_images_of_scripts_and_of_what_is_copied_are_needed_as_files() {
    let image = |byte| Chain(vec![DiffId([byte; 32])]);
    let built = |n| BaseInput::Built(LayerIndex(n));
    let plain = |base| LayerInputs { run: None, ..layer(base, "") };
    let labels = |base| LayerInputs { labels: layer(BaseInput::Scratch, "label").run, ..plain(base) };
    let mut copy = plain(BaseInput::Image(image(5)));
    copy.imports = vec![copies(6, "/file")];
    let inputs = vec![
        plain(BaseInput::Image(image(1))),
        layer(BaseInput::Image(image(2)), "a"),
        plain(BaseInput::Image(image(3))),
        layer(built(2), "b"),
        labels(BaseInput::Image(image(4))),
        copy,
        plain(BaseInput::Image(image(6))),
        layer(BaseInput::Scratch, "c"),
    ];
    let found = decider(inputs.clone(), false).bases_for_files();
    assert_eq!(found, [2, 3, 4, 6].map(image).into());
    // Of layers that are not wanted, nothing.
    let settings = Settings { source_date_epoch: None, keep_going: false, ids: Ids::Full };
    let wanted = [0, 2].map(LayerIndex).into();
    assert!(Decider::new(inputs, wanted, settings).bases_for_files().is_empty());
}
