//! Docker's rules on a base of busybox: shells, users, owners, here-documents, and what reaches what.

mod support;

use std::process::Command;

use support::archive::Archive;
use support::space::{Run, Space, for_each_identity};

const CONVERT: [&str; 8] =
    ["convert", "-i", "app/Dockerfile", "-o", "app/stacker.yaml", "-s", "app/subs.yaml", "--force"];

/// A layout with the small root filesystem as `base`.
fn prepare(space: &Space, dockerfile: &str) {
    space.write("base.tar", support::base::tar());
    space.write("bases.yaml", "base:\n  from: {type: tar, url: base.tar}\n");
    space.build(&["-f", "bases.yaml", "--oci-dir", "bases"]);
    space.write("app/Dockerfile", dockerfile);
}

fn base(space: &Space) -> String {
    format!("BASE_busybox=oci:{}", space.path("bases:base").display())
}

#[track_caller]
fn convert_and_build(space: &Space) -> Run {
    space.stacker(&CONVERT).ends_with(0);
    space.build(&["-f", "app/stacker.yaml", "--substitute", &base(space)])
}

/// Converts what then does not build.
#[track_caller]
fn convert_and_fail(space: &Space) -> Run {
    space.stacker(&CONVERT).ends_with(0);
    space.stacker(&["build", "-f", "app/stacker.yaml", "--substitute", &base(space)]).ends_with(1)
}

/// What a command prints in the image.
#[track_caller]
fn said(space: &Space, script: &str) -> String {
    let words = ["exec", "-f", "app/stacker.yaml", "--substitute", &base(space), "app", "--", "sh", "-c", script];
    space.stacker(&words).ends_with(0).stdout
}

const RUNS: &str = r##"
FROM busybox
ARG WHO=you
ENV GREETING="hello $WHO" EMPTY=
RUN false; echo "$GREETING $WHO-${EMPTY:-none}" > /one
RUN cd /tmp && x=1
RUN echo "$PWD-$x" > /two; \
    # a comment between
    echo 'a \
b' >> /two
WORKDIR /srv
WORKDIR deep/er
RUN ["sh", "-c", "echo $0 '$PWD' > list", "it's"]
RUN <<EOF
#!/bin/busybox ash
echo "$PWD $0" > script
EOF
RUN cat <<A >> script && cat <<'B' >> script
$GREETING
A
$GREETING
B
SHELL ["/bin/sh", "-eu", "-c"]
RUN echo ${UNSET-unset} > shell
RUN --network=none ip -o link | wc -l > links
COPY <<one <<'two' texts/
$GREETING 'quoted' \$x
one
$GREETING
two
"##;

#[test]
fn scripts_run_as_docker_runs_them() {
    for_each_identity(|space| {
        prepare(space, RUNS);
        convert_and_build(space);
        assert_eq!(said(space, "cat /one /two"), "hello you you-none\n/-\na b\n");
        let found = said(space, "cd /srv/deep/er; cat list script shell links; ls texts; cat texts/*");
        let expected = "it's $PWD\n/srv/deep/er /stacker/script\nhello you\n$GREETING\nunset\n1\none\ntwo\n\
                        hello you 'quoted' $x\n$GREETING\n";
        assert_eq!(found, expected);
        let looks = said(space, "stat -c '%a %u %g' /srv/deep /srv/deep/er /srv/deep/er/texts/one");
        assert_eq!(looks, "755 0 0\n755 0 0\n644 0 0\n");
        assert_eq!(space.file("app", "stacker/script"), None);
        // Editing a script runs that one and what stands on what it changed.
        space.edit("app/Dockerfile", "ip -o link | wc -l", "echo none");
        convert_and_build(space).built(&["app-8", "app-9", "app"]);
    });
}

#[test]
fn a_script_that_fails_ends_the_build() {
    let space = Space::new();
    prepare(&space, "FROM busybox\nWORKDIR /w\nRUN set -e; false; true\nRUN touch /done\n");
    convert_and_fail(&space).says("app-1: the script failed with exit code 1");
    space.write("app/Dockerfile", "FROM busybox\nRUN touch /done && false\n");
    convert_and_fail(&space).says("app: the script failed with exit code 1");
}

const OWNERS: &str = r##"
FROM busybox AS made
RUN mkdir -p /out/d/e && echo 1 > /out/d/one && echo 2 > /out/d/e/two && chmod 2750 /out/d/e \
    && ln -s one /out/d/link && echo f > /out/file && chown -R 5:6 /out && chmod 4711 /out/file

FROM busybox AS next
RUN echo 'app:x:1000:2000::/home/app:/bin/sh' >> /etc/passwd && echo 'web:x:3000:app' >> /etc/group \
    && mkdir -p -m 700 /there && chown 9:9 /there
COPY --from=made /out/d /out/file /plain/
COPY --from=made --chown=7 /out/d/ /numbers
COPY --from=made /out/f* /renamed
COPY --from=0 /out/file /out/d/on? /wild/
COPY --chown=app src /named/src
COPY --chown=app:web src/inner src/x.sh /there/
COPY --chown=app src/inner/a /there/renamed
ADD pack.tar /packed
USER app
RUN id > /tmp/id; echo "$HOME" > /tmp/home

FROM scratch
ADD pack.tar /
COPY --from=next / /
ENTRYPOINT ["/bin/sh"]
"##;

#[test]
fn owners_and_modes_are_those_of_docker() {
    for_each_identity(|space| {
        prepare(space, OWNERS);
        space.write("app/src/inner/a", "a");
        space.write("app/src/x.sh", "#!/bin/sh\n");
        assert!(Command::new("chmod").arg("755").arg(space.path("app/src/x.sh")).status().unwrap().success());
        space.write("app/pack.tar", Archive::new().directory("./").file("p", "p").end());
        convert_and_build(space);
        copied_from_a_stage(space);
        copied_for_a_user(space);
        assert_eq!(said(space, "cat /packed/p /p"), "pp");
    });
}

/// Each path as `PATH MODE UID GID`.
#[track_caller]
fn look(space: &Space, paths: &str, expected: &[&str]) {
    let found = said(space, &format!("stat -c '%n %a %u %g' {paths}"));
    assert_eq!(found.lines().collect::<Vec<_>>(), expected);
}

fn copied_from_a_stage(space: &Space) {
    let plain = ["/plain 755 0 0", "/plain/e 2750 0 0", "/plain/e/two 644 0 0", "/plain/file 4711 0 0"];
    look(space, "/plain /plain/e /plain/e/two /plain/file", &plain);
    assert_eq!(said(space, "readlink /plain/link"), "one\n");
    look(
        space,
        "/numbers/one /numbers/e /renamed",
        &["/numbers/one 644 0 0", "/numbers/e 2750 0 0", "/renamed 4711 0 0"],
    );
    look(space, "/wild/*", &["/wild/file 4711 0 0", "/wild/one 644 0 0"]);
}

fn copied_for_a_user(space: &Space) {
    // The last stage copied all of it, and so made it root's: what came before is told by the stage itself.
    let of_stage = |script: &str| {
        let words = ["exec", "-f", "app/stacker.yaml", "--substitute", &base(space), "next", "--", "sh", "-c", script];
        space.stacker(&words).ends_with(0).stdout
    };
    let paths = "/named /named/src /named/src/inner/a /named/src/x.sh /there /there/* /numbers/one";
    let found = of_stage(&format!("stat -c '%n %a %u %g' {paths}"));
    let expected = [
        "/named 755 1000 2000",
        "/named/src 755 1000 2000",
        "/named/src/inner/a 644 1000 2000",
        "/named/src/x.sh 755 1000 2000",
        // A directory that is there stays whose it is.
        "/there 700 9 9",
        "/there/a 644 1000 3000",
        "/there/renamed 644 1000 2000",
        "/there/x.sh 755 1000 3000",
        "/numbers/one 644 7 7",
    ];
    assert_eq!(found.lines().collect::<Vec<_>>(), expected);
    assert_eq!(of_stage("cat /tmp/id /tmp/home"), "uid=1000(app) gid=2000 groups=2000,3000(web)\n/home/app\n");
}

#[test]
fn a_user_that_nothing_can_become_is_told() {
    let space = Space::new();
    prepare(&space, "FROM busybox\nUSER 4000:5000\nRUN id\n");
    convert_and_fail(&space).says("USER 4000:5000: the image has no setpriv, chroot or su that could run this");
    space.write("app/Dockerfile", "FROM busybox\nUSER ghost\nRUN id\n");
    convert_and_fail(&space).says("USER ghost: not in /etc/passwd");
}

const NAMES: &str = "
FROM busybox AS app-1
RUN echo one > /one
RUN echo two > /two
FROM busybox
ARG A=1
ARG A=2
RUN echo $A > /a
RUN echo b > /b
COPY --from=app-1 /one /two /from/
";

/// Layers beneath are numbered: a stage may have such a name, and an argument may be given twice.
#[test]
fn names_that_stand_twice() {
    for_each_identity(|space| {
        prepare(space, NAMES);
        convert_and_build(space);
        assert_eq!(said(space, "cat /a /b /from/one /from/two"), "2\nb\none\ntwo\n");
    });
}
