use super::*;
use crate::action::{Action, Attributes, Bind, Ids, Kind, Mount, Network, NodeKind, Platform, Shows};
use crate::digest::TreeDigest;

fn run(script: &str, variable: &str, tree: u8, base: u8) -> Action {
    Action {
        platform: Platform { os: "linux".into(), arch: "amd64".into() },
        ids: Ids::Full,
        base: ChainId([base; 32]),
        time: 946_684_802,
        kind: Kind::Run {
            script: script.into(),
            environment: [("CFLAGS".to_owned(), variable.to_owned())].into(),
            mounts: vec![Mount {
                place: "/stacker/imports/src".into(),
                tree: TreeDigest([tree; 32]),
                attributes: Attributes::default(),
            }],
            binds: vec![],
            network: Network::Host,
        },
    }
}

/// Three files differ in every tree, and all bases come from one layer.
struct Three;

impl Known for Three {
    fn files(&self, _: TreeDigest, _: TreeDigest) -> Option<Files> {
        let change = |path: &str| FileChange { path: path.into(), how: FileHow::Content, from: None };
        Some(Files::of(vec![change("app.c"), change("b.c"), change("c.c")]))
    }
    fn origin(&self, taken: Taken) -> Option<Origin> {
        matches!(taken, Taken::Base(..)).then(|| Origin { layer: "lib".into(), why: "script changed: line 1".into() })
    }
    fn images(&self, _: ChainId, _: ChainId) -> Option<Images> {
        None
    }
}

fn text(old: &Action, new: &Action, known: &dyn Known) -> String {
    Reason::Changed { earlier: old.key(), changes: compare(old, new, known) }.to_string()
}

#[test]
fn an_import_that_is_seen_twice_changes_once() {
    let twice = |tree, mode| {
        let mut action = run("make", "-O2", tree, 1);
        if let Kind::Run { mounts, .. } = &mut action.kind {
            mounts[0].attributes.mode = mode;
            mounts.push(Mount { place: "/stacker/src".into(), ..mounts[0].clone() });
        }
        action
    };
    let text = |old, new| text(&old, &new, &Nothing);
    assert_eq!(text(twice(1, None), twice(2, None)), "/stacker/imports/src changed");
    assert_eq!(text(twice(1, None), twice(1, Some(0o600))), "mode or owner of /stacker/imports/src changed");
    assert_eq!(text(run("make", "-O2", 1, 1), twice(1, None)), "import /stacker/src added");
}

#[test]
fn the_first_words_name_the_root_cause() {
    let old = run("make", "-O2", 1, 1);
    for (new, expected) in [
        (run("make all", "-O2", 1, 1), "script changed: line 1"),
        (run("make\nmake install", "-O2", 1, 1), "script changed: line 2"),
        (run("make", "-O3", 1, 1), "variable CFLAGS changed"),
        (run("make", "-O2", 2, 1), "src/app.c changed (+2 files)"),
        (run("make", "-O2", 1, 2), "base changed: lib: script changed: line 1"),
        (run("make all", "-O2", 1, 2), "script changed: line 1"),
        (run("make all", "-O3", 1, 1), "script changed: line 1, 1 more"),
    ] {
        assert_eq!(text(&old, &new, &Three), expected);
    }
    assert_eq!(compare(&old, &old, &Three), []);
}

/// Each of these differs from [`run`] in one part of one field; so would the key, and so must the explanation.
#[test]
fn no_difference_is_left_unexplained() {
    let edit = |edit: &dyn Fn(&mut Action)| {
        let mut action = run("make", "-O2", 1, 1);
        if let Kind::Run { mounts, binds, .. } = &mut action.kind {
            let other = Mount { place: "/stacker/imports/more".into(), ..mounts[0].clone() };
            mounts.push(other);
            let nodes = [("log".to_owned(), NodeKind::Socket)].into();
            binds.push(Bind { place: "/data".into(), shows: Shows::Tree { tree: TreeDigest([1; 32]), nodes } });
        }
        edit(&mut action);
        action
    };
    type Parts<'a> = (&'a mut Vec<Mount>, &'a mut Vec<Bind>, &'a mut Network);
    let of_run = |change: &dyn Fn(Parts)| {
        edit(&|action| {
            if let Kind::Run { mounts, binds, network, .. } = &mut action.kind {
                change((mounts, binds, network));
            }
        })
    };
    let node = |tree, kind| Bind {
        place: "/data".into(),
        shows: Shows::Tree { tree: TreeDigest([tree; 32]), nodes: [("log".to_owned(), kind)].into() },
    };
    let old = edit(&|_| {});
    for (new, expected) in [
        (edit(&|action| action.platform.os = "plan9".into()), "platform changed"),
        (edit(&|action| action.platform.arch = "arm64".into()), "platform changed"),
        (edit(&|action| action.ids = Ids::Single), "ids of the sandbox changed"),
        (edit(&|action| action.time += 1), "layer time changed"),
        (of_run(&|(_, _, network)| *network = Network::None), "network changed"),
        (of_run(&|(mounts, ..)| mounts.swap(0, 1)), "order of imports or binds changed"),
        (of_run(&|(mounts, ..)| mounts[1].attributes.uid = Some(1)), "mode or owner of /stacker/imports/more changed"),
        (of_run(&|(mounts, ..)| drop(mounts.pop())), "import /stacker/imports/more removed"),
        (of_run(&|(_, binds, _)| binds[0] = node(2, NodeKind::Socket)), "bind /data: its content changed"),
        (of_run(&|(_, binds, _)| binds[0] = node(1, NodeKind::Fifo)), "bind: socket or device /data/log changed"),
        (of_run(&|(_, binds, _)| binds.clear()), "bind: socket or device /data/log removed, 1 more"),
    ] {
        assert_ne!(old.key(), new.key());
        assert_eq!(text(&old, &new, &Nothing), expected);
    }
}

#[test]
fn a_time_that_follows_from_the_base_is_no_reason_of_its_own() {
    let at = |time: i64, epoch: i64, base| {
        let mut action = Action { time, ..run("make", "-O2", 1, base) };
        if let Kind::Run { environment, .. } = &mut action.kind {
            environment.insert("SOURCE_DATE_EPOCH".into(), epoch.to_string());
        }
        action
    };
    let text = |old, new| text(&old, &new, &Nothing);
    assert_eq!(text(at(4, 4, 1), at(6, 6, 2)), "base changed");
    assert_eq!(text(at(4, 1, 1), at(6, 3, 1)), "variable SOURCE_DATE_EPOCH changed");
}

#[test]
fn of_earlier_actions_the_nearest_is_taken() {
    let (far, near, same) = (run("a", "-O3", 2, 2), run("a", "-O2", 1, 1), run("b", "-O2", 1, 1));
    let others = vec![far, same.clone(), near.clone()];
    assert_eq!(nearest(&run("make", "-O2", 1, 1), others.clone(), &Nothing), Some(same));
    assert_eq!(nearest(&run("a", "-O2", 1, 2), others, &Nothing), Some(near));
    assert_eq!(nearest(&run("a", "-O2", 1, 2), vec![], &Nothing), None);
}

#[test]
fn reasons_are_json_that_reads_back() {
    let old = run("make", "-O2", 1, 1);
    let changed = Reason::Changed { earlier: old.key(), changes: compare(&old, &run("all", "-O3", 2, 2), &Three) };
    for reason in [
        Reason::NeverBuilt,
        Reason::Forced,
        Reason::Evicted { evicted: 3, cause: Cause::OlderThan { seconds: 3 * 86_400 } },
        Reason::DataMissing,
        Reason::NoResult,
        Reason::NotKept { why: "a bind changed".into() },
        changed,
    ] {
        let json = serde_json::to_string(&reason).expect("JSON");
        assert_eq!(serde_json::from_str::<Reason>(&json).expect("a reason"), reason, "{json}");
    }
}

#[test]
fn files_that_differ_are_named_with_how() {
    use crate::listing::Listing;
    let listing = |lines: &[&str]| {
        let content = |digit: &str| digit.repeat(64);
        let line = |line: &&str| {
            let words: Vec<&str> = line.split(' ').collect();
            match words[..] {
                [path, "f", mode, digit] => format!("{path} f {mode} 0 0 0 5 {}\n", content(digit)),
                [path, "d", mode] => format!("{path} d {mode} 0 0 0 -\n"),
                [path, "l", to] => format!("{path} l 777 0 0 0 {to}\n"),
                _ => unreachable!(),
            }
        };
        let text: String = lines.iter().map(line).collect();
        Listing::from_bytes(format!("stacker listing 1\n{text}").into_bytes()).expect("a listing")
    };
    let old = ["% d 755", "a f 644 1", "b f 644 2", "c f 644 3", "d d 755", "d/x f 644 4", "e l one", "f f 644 5"];
    let new =
        ["% d 755", "a f 644 9", "b f 755 2", "c d 755", "e l two", "f f 600 5", "g d 755", "g/y f 644 4", "h f 644 7"];
    let files = Files::between(&listing(&old), &listing(&new), false).expect("a comparison");
    let told: Vec<String> = files.first.iter().map(FileChange::to_string).collect();
    let expected = [
        "a changed",
        "b is executable now",
        "c is of another type",
        "e leads elsewhere",
        "f has another mode",
        "g/y moved from d/x",
        "h added",
    ];
    assert_eq!((told, files.count), (expected.map(str::to_owned).to_vec(), 7));
}
