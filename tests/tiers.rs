//! Builds where the machine gives less than everything: containers with Docker's rules, users without subordinate ids.
//! Each situation is made for real.

mod support;

use support::container::{Container, Rules, available};
use support::space::{Run, Space, for_each_identity};

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

/// What docs/ci.md says that a profile must allow beyond Docker's, and which capabilities are enough.
const CALLS_NEEDED: [&str; 6] = ["mount", "pivot_root", "setdomainname", "sethostname", "umount2", "unshare"];
const CAPABILITIES_NEEDED: [&str; 5] = ["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_SETGID", "CAP_SETUID"];

#[test]
fn the_least_that_a_container_needs() {
    if !available(&Space::new()) {
        return;
    }
    let least = Rules { allowed: &CALLS_NEEDED, capabilities: Some(&CAPABILITIES_NEEDED), ..Rules::default() };
    let build = |rules: Rules| {
        let space = Space::new();
        prepare(&space);
        let container = Container::new(&space, rules);
        under(&space, &container.wrapper(), &["build"])
    };
    build(least).ends_with(0).says("of the kind shared-proc");
    build(Rules { whole_proc: true, ..least }).ends_with(0).says_not("of the kind");
    // An ordinary user needs no capability at all.
    build(Rules { user: (1234, 1234), capabilities: Some(&[]), ..least }).ends_with(0).says("of the kind single-id");
    // In a pod with a user namespace the ids are the pod's own, root among them, and that takes one more.
    let capabilities: &[&str] =
        &["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_SETFCAP", "CAP_SETGID", "CAP_SETUID"];
    let pod = Rules { first_id: Some(FIRST), capabilities: Some(capabilities), ..least };
    build(pod).ends_with(0).says("of the kind shared-proc");
    build(Rules { first_id: Some(FIRST), ..least }).ends_with(3).says("SETFCAP");
    let without = |all: &[&'static str], one: &str| -> &'static [&'static str] {
        all.iter().copied().filter(|name| *name != one).collect::<Vec<_>>().leak()
    };
    for call in CALLS_NEEDED {
        let run = build(Rules { allowed: without(&CALLS_NEEDED, call), ..least });
        assert_eq!(run.code, 3, "{call} is not needed: {run}");
    }
    for capability in CAPABILITIES_NEEDED {
        let run = build(Rules { capabilities: Some(without(&CAPABILITIES_NEEDED, capability)), ..least });
        assert_eq!(run.code, 3, "{capability} is not needed: {run}");
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

/// A user whom nobody gave subordinate ids.
const LONER: &str = "65532";

/// What to put before a command to be somebody with one id: root of a namespace, and an ordinary user.
fn loners() -> Vec<Vec<String>> {
    let words = |words: &[&str]| words.iter().map(|word| word.to_string()).collect::<Vec<_>>();
    let nested = words(&["unshare", "--user", "--map-root-user"]);
    let user = words(&["setpriv", "--reuid", LONER, "--regid", LONER, "--clear-groups"]);
    if rustix::process::geteuid().is_root() { vec![nested, user] } else { vec![nested] }
}

/// A space that a loner may write.
fn space_for(wrapper: &[String], layers: &str) -> Space {
    let space = Space::new();
    space.write("dir/file", "#!/bin/sh\n");
    space.write("dir/deep/tool", "#!/bin/sh\n");
    space.stackerfile(layers);
    if wrapper[0] == "setpriv" {
        let id = LONER.parse().unwrap();
        space.give_all(id, id);
    }
    space
}

/// Owners and modes of what a layer's tar holds.
fn members(space: &Space, tag: &str) -> Vec<String> {
    let layer = space.layers(tag).pop().unwrap();
    let (plain, _) = stacker::compress::decoder(std::fs::File::open(layer).unwrap()).unwrap();
    let mut archive = tar::Archive::new(plain);
    let describe = |member: tar::Entry<_>| {
        let header = member.header();
        let (uid, gid) = (header.uid().unwrap(), header.gid().unwrap());
        format!("{} {uid}:{gid} {:o}", String::from_utf8_lossy(&member.path_bytes()), header.mode().unwrap())
    };
    archive.entries().unwrap().map(|member| describe(member.unwrap())).collect()
}

#[test]
fn one_id_builds_the_example() {
    for wrapper in loners() {
        let space = space_for(&wrapper, LAYERS);
        let run = under(&space, &wrapper, &["build"]).ends_with(0);
        run.says("the sandbox is of the kind single-id: every file that a layer adds belongs to root");
        assert_eq!(run.stderr.matches("of the kind").count(), 1, "told once: {run}");
        assert_eq!(space.tiers(), ["single-id"]);
        let seen = space.file("small", "seen").unwrap();
        let expected = "/bin/setuid 0:0 4755\n/data/noted 0:0 644\n/out/bin/tool 0:0 755\n/var/mine 0:0 755\n/opt/deep/tool \
                        0:0 644\n";
        assert_eq!(seen, expected);
        let again = under(&space, &wrapper, &["build"]).ends_with(0);
        again.built(&[]);
        assert_eq!(images(&again), images(&run));
        // A store that lies there is built upon.
        space.edit("stacker.yaml", "rm /data/doomed", "rm /data/full/a");
        under(&space, &wrapper, &["build"]).ends_with(0).built(&["tools", "app"]);
    }
}

/// A base keeps the owners it has, at the places where it has them.
const OWNERS: &str = r#"
touched:
  from: {type: built, tag: base}
  run: |
    chmod 711 /bin/setuid
    chown 5:6 /data/noted /data
    cp -p /bin/setuid /copy
    chown 5:6 /copy
    mkdir /home && chown 5:6 /home
    ln /data/one /linked
    echo u::1000:1000::/:/bin/sh >> /etc/passwd
    su u -c 'echo still $(id -u)' > /who
    touch /tmp/x && chgrp 50 /tmp/x
imported: {from: {type: built, tag: base}, imports: [{path: 'stacker://base/bin/setuid', dest: /opt/}]}
chosen: {from: {type: built, tag: base}, imports: [{path: dir, dest: /opt/dir, uid: 5, gid: 6}]}
opened: {from: {type: built, tag: base}, run: 'cat /bin/setuid > /dev/null; chown 7:8 /bin/setuid; test ! -e /new'}
"#;

#[test]
fn one_id_keeps_the_owners_of_a_base() {
    let plain = Space::new();
    plain.stackerfile(OWNERS);
    let expected = plain.build(&["base"]).digests();
    for wrapper in loners() {
        let space = space_for(&wrapper, OWNERS);
        let run = under(&space, &wrapper, &["build"]).ends_with(0);
        // What the tar says passes through.
        let base = run.digests().into_iter().find(|(name, _)| name == "base").unwrap();
        assert_eq!(base, expected[0], "{run}");
        let found = members(&space, "touched");
        for member in ["bin/setuid 7:8 711", "copy 0:0 711", "home/ 0:0 755", "linked 0:0 644", "tmp/x 0:0 644"] {
            assert!(found.contains(&member.to_owned()), "no {member} in {found:#?}");
        }
        // What was not changed is no part of the layer.
        assert!(!found.iter().any(|member| member.contains("noted")), "{found:#?}");
        assert_eq!(space.file("touched", "who").unwrap(), "still 0\n");
        assert!(members(&space, "imported").contains(&"opt/setuid 0:0 4755".to_owned()), "{run}");
        assert!(members(&space, "chosen").contains(&"opt/dir/file 0:0 644".to_owned()), "{run}");
        assert_eq!(run.layer("opened").diff_ids, base.1, "nothing was changed: {run}");
    }
}

#[test]
fn one_id_and_many_are_never_the_same_result() {
    for_each_identity(|space| {
        space.stackerfile("one: {from: {type: built, tag: base}, run: 'touch /x'}\n");
        space.build(&["--sandbox", "single-id"]);
        assert_eq!(space.tiers(), ["single-id"]);
        space.stacker(&["build"]).ends_with(3).says("was written with other ids");
        space.build(&["--sandbox", "single-id"]).built(&[]).says_not("of the kind");
        space.stacker(&["--sandbox", "single-id", "clean", "--all"]).ends_with(0);
        space.build(&[]).built(&["base", "one"]);
    });
}

/// Calls chown and setuid by every way into the kernel that the processor has; the exit code says how many failed.
const CALLS: &str = r#"
static long ways(long nr, long nr32, long a, long b, long c) {
    long failed = 0, result;
#if defined(__x86_64__)
    __asm__ volatile("syscall" : "=a"(result) : "a"(nr), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
    failed += result != 0;
    __asm__ volatile("syscall" : "=a"(result) : "a"(nr | 0x40000000), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
    failed += result != 0;
    __asm__ volatile("int $0x80" : "=a"(result) : "a"(nr32), "b"(a), "c"(b), "d"(c) : "memory");
    failed += (int)result != 0;
#elif defined(__aarch64__)
    register long x8 __asm__("x8") = nr, x0 __asm__("x0") = a, x1 __asm__("x1") = b, x2 __asm__("x2") = c;
    __asm__ volatile("svc #0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2) : "memory");
    failed += x0 != 0;
#endif
    return failed;
}
void _start(void) {
    long failed = 0;
#if defined(__x86_64__)
    failed += ways(92, 212, (long)"/bin/busybox", 5, 6) + ways(94, 16, (long)"/bin/busybox", 5, 6);
    failed += ways(105, 213, 5, 0, 0) + ways(117, 208, 5, 5, 5) + ways(116, 81, 1, (long)"\5\0\0\0", 0);
    __asm__ volatile("syscall" : : "a"(60L), "D"(failed));
#elif defined(__aarch64__)
    failed += ways(55, 0, 0, 5, 6) + ways(146, 0, 5, 0, 0) + ways(147, 0, 5, 5, 5);
    register long x8 __asm__("x8") = 93, x0 __asm__("x0") = failed;
    __asm__ volatile("svc #0" : : "r"(x0), "r"(x8));
#endif
    for (;;) {}
}
"#;

#[test]
fn one_id_answers_every_table_of_system_calls() {
    let wrapper = loners().remove(0);
    let space = Space::new();
    space.write("calls.c", CALLS);
    let arguments = ["cc", "-static", "-nostdlib", "-fno-pie", "-no-pie", "-O1", "-o", "calls", "calls.c"];
    let output = space.other_program(&arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    space.stackerfile("one: {from: {type: built, tag: base}, imports: [calls], run: /stacker/imports/calls}\n");
    under(&space, &wrapper, &["build"]).ends_with(0);
}

/// No layer of these has a script.
const NO_RUN: &str = r#"
tools: {from: {type: built, tag: base}, imports: [{path: dir, dest: /opt/dir, mode: "0750"}]}
app:
  from: {type: built, tag: tools}
  imports:
    - {path: 'stacker://tools/opt/dir/file', dest: /usr/bin/tool}
    - {path: 'stacker://base/bin/setuid', dest: /opt/dir/}
  cmd: [/usr/bin/tool]
  labels: {a: b}
"#;

fn program(space: &Space) -> String {
    space.directory().join("bin/stacker").display().to_string()
}

#[test]
fn without_namespaces_what_needs_no_run_is_built() {
    let layers = NO_RUN.to_owned() + "ran: {from: {type: built, tag: app}, run: 'true'}\n";
    let prepare = |space: &Space| {
        space.write("dir/file", "#!/bin/sh\n");
        space.stackerfile(&layers);
    };
    let plain = Space::new();
    prepare(&plain);
    let expected = plain.build(&["app"]);
    // Asked for, by everybody.
    for_each_identity(|space| {
        prepare(space);
        let run = space.build(&["--sandbox", "none", "app"]);
        run.says_not("warning").built(&["base", "tools", "app"]);
        assert_eq!(space.tiers(), ["none"]);
        space.build(&["--sandbox", "none", "app"]).built(&[]);
        let failed = space.stacker(&["build", "--sandbox", "none"]).ends_with(3);
        failed.says("layer ran has a `run`, and the sandbox is of the kind none").says("needed for every `run`");
        if rustix::process::geteuid().is_root() && space.identity() == support::identity::Identity::Own {
            assert_eq!(run.image("app"), expected.image("app"));
        }
        space.stacker(&["--sandbox", "none", "clean", "--all"]).ends_with(0);
        assert!(!space.has_roots());
    });
    // In a container of Docker's that nothing was done for.
    if !available(&Space::new()) {
        return;
    }
    for user in [(0, 0), (1234, 1234)] {
        let space = Space::new();
        prepare(&space);
        let container = Container::new(&space, Rules { user, ..Rules::default() });
        let run = under(&space, &container.wrapper(), &["build", "app"]).ends_with(0);
        run.says("the sandbox is of the kind none: no layer with a `run` can be built")
            .built(&["base", "tools", "app"]);
        run.says("docker: --security-opt seccomp=unconfined");
        if user.0 == 0 {
            assert_eq!(run.image("app"), expected.image("app"), "root's owners are kept");
        }
        let failed = under(&space, &container.wrapper(), &["build"]).ends_with(3);
        failed.says("layer ran has a `run`").says("docker: --security-opt seccomp=unconfined");
        // On the root filesystem of the container, which is an overlay, there are no marks as overlayfs has them.
        let elsewhere = ["--stacker-dir", "/tmp/store", "--roots-dir", "/tmp/store/roots"];
        let script =
            format!("{} build app {} && cat /tmp/store/roots/store.json", program(&space), elsewhere.join(" "));
        let wrapper = [&container.wrapper()[..], &["sh", "-c", &script].map(str::to_owned)].concat();
        let words: Vec<&str> = wrapper.iter().map(String::as_str).collect();
        let run = space.run_of(&words, space.other_program(&words).output().unwrap()).ends_with(0);
        assert!(run.stdout.contains("\"backend\": \"copy\""), "{run}");
        // What the container built is taken by a machine that has everything.
        assert_eq!(space.tiers(), ["none"]);
    }
}

#[test]
fn kinds_that_are_not_there_are_refused() {
    for_each_identity(|space| {
        space.stackerfile("");
        space.stacker(&["build", "--sandbox", "inner"]).ends_with(2).says("inner is for root of a container");
        space.stacker(&["build", "--sandbox", "best"]).ends_with(2).says("single-id");
    });
    let wrapper = loners().remove(0);
    let space = space_for(&wrapper, "");
    for kind in ["full", "inner", "shared-proc"] {
        let run = under(&space, &wrapper, &["build", "--sandbox", kind]).ends_with(3);
        run.says("this container has 1 of 65536 ids");
    }
}

/// What docs/ci.md says of caches between jobs: the stacker directory travels in a plain tar, the roots directory is
/// made anew from it.
#[test]
fn a_job_takes_the_cache_of_another() {
    for_each_identity(|first| {
        first.stackerfile(LAYERS);
        first.write("dir/file", "#!/bin/sh\n");
        first.write("dir/deep/tool", "#!/bin/sh\n");
        let run = first.build(&[]);
        let second = Space::of(first.identity());
        second.stackerfile(LAYERS);
        second.write("dir/file", "#!/bin/sh\n");
        second.write("dir/deep/tool", "#!/bin/sh\n");
        let (from, to) = (first.stacker_dir(), second.stacker_dir());
        let script = r#"tar -C "$1" -cf "$2.tar" --exclude ./tmp --exclude ./claims . && mkdir "$2" && tar -C "$2" -xf "$2.tar""#;
        let words = ["sh", "-ec", script, "sh", from.to_str().unwrap(), to.to_str().unwrap()];
        let output = second.other_program(&words).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let again = second.build(&[]);
        again.built(&[]);
        assert_eq!(images(&again), images(&run));
        // Layers that are images are made from their blobs; a `build_only` layer that is needed runs again.
        second.edit("stacker.yaml", "test -x /usr/bin/tool", "test -s /usr/bin/tool");
        let edited = second.build(&[]);
        assert_eq!(edited.layer("app").status, stacker::export::metadata::Status::Built, "{edited}");
        assert_eq!(edited.layer("base").status, stacker::export::metadata::Status::Hit, "{edited}");
    });
}
