//! `build --trace`: when each step ran, for programs that show timelines.

mod support;

use std::fs;

use serde_json::Value;
use support::schema::assert_fits;
use support::server::{Reply, Server};
use support::space::{Space, for_each_user};

fn trace(space: &Space) -> Vec<Value> {
    let trace: Value = serde_json::from_slice(&fs::read(space.path("trace.json")).unwrap()).unwrap();
    assert_fits("trace", &trace);
    trace["traceEvents"].as_array().unwrap().clone()
}

/// Complete events of a kind.
fn of<'a>(events: &'a [Value], kind: &str) -> Vec<&'a Value> {
    events.iter().filter(|event| event["ph"] == "X" && event["cat"] == kind).collect()
}

#[test]
fn each_step_has_its_time_and_lane() {
    for_each_user(|space| {
        let server = Server::start(|_| {
            std::thread::sleep(std::time::Duration::from_millis(50));
            Reply::new(200, "content\n")
        });
        space.stackerfile(&format!(
            "a: {{from: {{type: built, tag: base}}, run: 'sleep 0.3; echo 1 > /f'}}\n\
             b: {{from: {{type: built, tag: base}}, run: 'sleep 0.3', imports: ['{}']}}\n\
             c: {{from: {{type: built, tag: a}}, imports: [{{path: base.tar, dest: /c}}]}}\n",
            server.url("/file")
        ));
        space.build(&["--jobs", "2", "--trace", "trace.json"]);
        let events = trace(space);
        let named = |name: &str| events.iter().filter(|event| event["name"] == name).count();
        assert_eq!((named("thread_name"), named("process_name")), (3, 1));
        let names: Vec<&str> = of(&events, "run").iter().map(|event| event["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["a run", "b run"]);
        for event in of(&events, "run") {
            assert_eq!(event["args"]["reason"], "never built");
            assert_eq!(event["args"]["key"].as_str().unwrap().len(), 64);
            assert!(event["dur"].as_u64().unwrap() >= 300_000, "{event}");
        }
        // They ran side by side, each in a lane of its own; what follows in one lane does not overlap.
        let runs = of(&events, "run");
        assert_ne!(runs[0]["tid"], runs[1]["tid"]);
        let mut ends = std::collections::HashMap::new();
        let mut steps: Vec<&Value> = events.iter().filter(|event| event["ph"] == "X").collect();
        steps.sort_by_key(|event| event["ts"].as_u64());
        for event in steps {
            let begin = event["ts"].as_u64().unwrap();
            let end = ends.insert(event["tid"].as_u64(), begin + event["dur"].as_u64().unwrap()).unwrap_or_default();
            assert!(begin >= end, "{event} begins before {end}");
        }
        assert_eq!((of(&events, "unpack").len(), of(&events, "import").len()), (1, 1));
        assert!(!of(&events, "compress").is_empty());
        let downloads = of(&events, "download");
        assert!(downloads[0]["name"].as_str().unwrap().ends_with("/file"), "{downloads:?}");
        assert!(downloads[0]["tid"].as_u64() == Some(3) && downloads[0]["dur"].as_u64().unwrap() > 0);
    });
}

#[test]
fn a_build_that_fails_is_traced_too() {
    let space = Space::new();
    space.stackerfile("bad: {from: {type: built, tag: base}, run: 'exit 1'}\n");
    space.stacker(&["build", "--trace", "trace.json"]).ends_with(1);
    assert_eq!(of(&trace(&space), "run")[0]["args"]["outcome"], "failed");
    space.stacker(&["build", "base", "--trace", "trace.json"]).ends_with(0);
    assert!(of(&trace(&space), "unpack").is_empty(), "a hit is no step");
    space.stacker(&["recursive-build", "--trace", "no/such/directory"]).ends_with(3);
}
