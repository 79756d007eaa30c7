//! Builds where the machine gives less than everything: containers with Docker's rules, users without subordinate ids.
//! Each situation is made for real.

mod support;

use support::container::{Container, Rules, available};
use support::space::{Run, Space};

/// Ids of a container of root's, for these tests alone.
const FIRST: u32 = 1_700_000_000;

/// What a build of the example is made of: a base, runs, owners, copies between layers, a network of its own.
const LAYERS: &str = r#"
tools:
  from: {type: built, tag: base}
  build_only: true
  imports:
    - dir
  run: |
    echo root::0:0::/:/bin/sh > /etc/passwd
    mkdir -p /out/bin /var/mine
    cp /stacker/imports/dir/file /out/bin/tool
    chmod 755 /out/bin/tool
    chown 12:34 /out/bin/tool /var/mine
    rm /data/doomed
    echo more >> /data/one
    test "$(cat /data/two)" = linked
    sleep 4711 &
app:
  from: {type: built, tag: tools}
  imports:
    - {path: 'stacker://tools/out/bin/tool', dest: /usr/bin/tool}
    - {path: dir/deep, dest: /opt/deep}
  network: none
  run: |
    test -x /usr/bin/tool
    test "$(cat /proc/self/comm)" = cat
    stat -c '%n %u:%g %a' /bin/setuid /data/noted /out/bin/tool /var/mine /opt/deep/tool > /seen
small:
  from: {type: scratch}
  imports:
    - {path: 'stacker://app/seen', dest: /}
"#;

fn prepare(space: &Space) {
    space.write("dir/file", "#!/bin/sh\n");
    space.write("dir/deep/tool", "#!/bin/sh\n");
    space.stackerfile(LAYERS);
}

fn under(space: &Space, wrapper: &[String], arguments: &[&str]) -> Run {
    let wrapper: Vec<&str> = wrapper.iter().map(String::as_str).collect();
    space.stacker_under(&wrapper, arguments)
}

fn images(run: &Run) -> Vec<String> {
    run.metadata().images.iter().map(|image| format!("{} {}", image.tag, image.digest)).collect()
}

/// What the same build comes to outside.
fn outside() -> Vec<String> {
    let space = Space::new();
    prepare(&space);
    images(&space.build(&[]))
}

#[test]
fn parts_of_proc_are_hidden() {
    if !available(&Space::new()) {
        return;
    }
    let expected = outside();
    for first_id in [None, Some(FIRST)] {
        let space = Space::new();
        prepare(&space);
        let container = Container::new(&space, Rules { system_calls: true, first_id, ..Rules::default() });
        let run = under(&space, &container.wrapper(), &["build"]).ends_with(0);
        run.says("the sandbox is of the kind shared-proc").says("names of the processes outside");
        run.says("podman: --security-opt unmask=ALL");
        assert_eq!(run.stderr.matches("shared-proc").count(), 1, "told once: {run}");
        assert_eq!(space.tiers(), ["shared-proc"], "{run}");
        // Not a byte differs.
        assert_eq!(images(&run), expected, "{run}");
        under(&space, &container.wrapper(), &["build"]).ends_with(0).built(&[]).says_not("shared-proc");
        let own = if first_id.is_some() { "inner" } else { "full" };
        let insist = under(&space, &container.wrapper(), &["--sandbox", own, "build", "--no-cache"]).ends_with(3);
        insist.says("proc: mount /proc: Operation not permitted").says("procMount: Unmasked");
    }
}

#[test]
fn whole_proc_in_a_container() {
    if !available(&Space::new()) {
        return;
    }
    for (first_id, tier) in [(None, "full"), (Some(FIRST), "inner")] {
        let space = Space::new();
        prepare(&space);
        let container =
            Container::new(&space, Rules { system_calls: true, whole_proc: true, first_id, ..Rules::default() });
        under(&space, &container.wrapper(), &["build"]).ends_with(0).says_not("the sandbox is of the kind");
        assert_eq!(space.tiers(), [tier]);
    }
}

/// In a /proc of the processes outside a script sees who they are, and nothing that is theirs.
const LOOK: &str = r#"
look:
  from: {type: built, tag: base}
  run: |
    set +x
    grep -l '^stacker$' /proc/[0-9]*/comm | head -n 1
    main=$(grep -l '^stacker$' /proc/[0-9]*/comm | head -n 1 | cut -d / -f 3)
    test -n "$main"
    for part in environ maps mem auxv; do
      if head -c 1 /proc/$main/$part 2> /dev/null | grep -q .; then echo "$part of stacker can be read"; exit 1; fi
    done
    for part in cwd root; do
      if ls /proc/$main/$part/ 2> /dev/null; then echo "$part of stacker can be read"; exit 1; fi
    done
    # Who has the same id on the machine can count descriptors, and see no more of them.
    for file in $(seq 0 30); do
      if readlink /proc/$main/fd/$file || (: < /proc/$main/fd/$file) 2> /dev/null; then
        echo "descriptor $file of stacker can be opened"; exit 1
      fi
    done
    # The first process of all holds the secret too.
    if cat /proc/[0-9]*/environ 2> /dev/null | grep SECRET_OF_THE_CONTAINER; then exit 1; fi
    # Nobody outside is ended by this.
    kill -9 -1 || true
    for file in /proc/kcore /proc/keys /proc/timer_list; do
      if test -s $file; then echo "$file is not masked"; exit 1; fi
    done
    if echo 1 > /proc/sys/kernel/panic; then exit 1; fi 2> /dev/null
    umount /proc 2> /dev/null && exit 1
    (trap '' TERM; sleep 4712) &
    touch /done
"#;

#[test]
fn a_shared_proc_shows_nothing_that_is_not_the_scripts() {
    if !available(&Space::new()) {
        return;
    }
    for rules in [
        Rules { system_calls: true, ..Rules::default() },
        Rules { system_calls: true, first_id: Some(FIRST), ..Rules::default() },
        // Whose sandbox's root is the very user that stacker runs as.
        Rules { system_calls: true, user: (1234, 1234), ..Rules::default() },
    ] {
        let space = Space::new();
        space.stackerfile(LOOK);
        let container = Container::new(&space, rules);
        let run = under(&space, &container.wrapper(), &["build"]).ends_with(0);
        let kind = if rules.user.0 == 0 { "shared-proc" } else { "single-id" };
        assert_eq!(space.tiers(), [kind], "{run}");
        assert!(!processes().contains("sleep 4712"), "a left-over process goes on");
    }
}

#[test]
fn a_shared_proc_can_be_asked_for() {
    let space = Space::new();
    prepare(&space);
    let run = space.build(&["--sandbox", "shared-proc"]);
    run.says_not("warning");
    assert_eq!(space.tiers(), ["shared-proc"]);
    assert_eq!(images(&run), outside());
    assert!(!processes().contains("sleep 4711"), "a left-over process goes on");
}

fn processes() -> String {
    let output = std::process::Command::new("ps").args(["-eo", "args"]).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}
