//! Layers for another processor than the host's.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use support::archive::{Archive, Member};
use support::skipped;
use support::space::{Space, for_each_identity};

const BINFMT: &str = "/proc/sys/fs/binfmt_misc";
const NAME: &str = "stacker-test-arm64";
const QEMU: &str = "/usr/bin/qemu-aarch64-static";
const COMPILER: &str = "aarch64-linux-gnu-gcc";

/// What is registered is the same for all of the machine.
static KERNEL: Mutex<()> = Mutex::new(());

/// Shows what it runs on, and gives a file away. It is an interpreter of scripts that does not look into them.
const PROGRAM: &str = r#"
#include <stdio.h>
#include <sys/utsname.h>
#include <unistd.h>
int main(void) {
    struct utsname name;
    uname(&name);
    FILE *out = fopen("/out", "w");
    fprintf(out, "%s %d\n", name.machine, getuid());
    fclose(out);
    return chown("/out", 7, 8);
}
"#;

/// Makes a handler known while it lives.
struct Handler {
    mounted: bool,
}

impl Handler {
    /// `None`, with a word about it, where that cannot or should not be done.
    fn register(flags: &str) -> Option<Handler> {
        if !rustix::process::geteuid().is_root() || cfg!(target_arch = "aarch64") {
            skipped("registering a handler for programs of arm64 needs root, on another processor");
            return None;
        }
        if !Path::new(QEMU).exists() {
            skipped("a handler for programs of arm64 needs qemu-user-static");
            return None;
        }
        let mounted = !Path::new(BINFMT).join("status").exists();
        if mounted && !Command::new("mount").args(["-t", "binfmt_misc", "none", BINFMT]).status().unwrap().success() {
            skipped("this kernel has no binfmt_misc");
            return None;
        }
        let handler = Handler { mounted };
        if stacker::binfmt::look("arm64") == stacker::binfmt::Foreign::Runs {
            skipped("a handler for programs of arm64 is registered already");
            // Whoever registered it keeps it.
            std::mem::forget(handler);
            return None;
        }
        let magic = r"\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00";
        let mask = r"\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff";
        let line = format!(":{NAME}:M::{magic}:{mask}:{QEMU}:{flags}");
        fs::write(Path::new(BINFMT).join("register"), line).unwrap();
        Some(handler)
    }
}

impl Drop for Handler {
    fn drop(&mut self) {
        let _ = fs::write(Path::new(BINFMT).join(NAME), "-1");
        if self.mounted {
            let _ = Command::new("umount").arg(BINFMT).status();
        }
    }
}

/// A root filesystem with one program.
fn foreign_base(space: &Space) -> Option<Vec<u8>> {
    let (source, program): (PathBuf, PathBuf) = (space.path("tool.c"), space.path("tool"));
    space.write("tool.c", PROGRAM);
    let compiled = Command::new(COMPILER).args(["-static", "-O1", "-s", "-o"]).arg(&program).arg(&source).status();
    if !compiled.is_ok_and(|status| status.success()) {
        skipped("programs of arm64 need gcc-aarch64-linux-gnu and libc6-dev-arm64-cross");
        return None;
    }
    let body = fs::read(program).unwrap();
    let tool = Member { name: b"bin/tool", mode: 0o755, body: &body, ..Member::default() };
    Some(Archive::new().directory("bin/").member(tool).end())
}

const LAYERS: &str = "
app:
  from: {type: tar, url: foreign.tar}
  arch: arm64
  run: |
    #!/bin/tool
";

#[test]
fn scripts_run_by_a_handler() {
    let _turn = KERNEL.lock().unwrap_or_else(|broken| broken.into_inner());
    let Some(_handler) = Handler::register("F") else { return };
    for_each_identity(|space| {
        let Some(base) = foreign_base(space) else { return };
        space.write("foreign.tar", base);
        space.write("stacker.yaml", LAYERS);
        space.build(&[]);
        let inspected = space.stacker(&["inspect", "app"]).ends_with(0).stdout;
        assert!(inspected.contains("arm64"), "{inspected}");
        space.build(&[]).built(&[]);
        let checked = space.stacker(&["check"]).stdout;
        assert!(checked.contains("ok  binfmt          arm64"), "{checked}");
        // The filter of system calls is about the emulator's, which are the host's.
        let few = Space::of(space.identity());
        few.write("foreign.tar", fs::read(space.path("foreign.tar")).unwrap());
        few.write("stacker.yaml", LAYERS);
        few.build(&["--sandbox", "single-id"]);
        for (space, owner) in [(space, (7, 8)), (&few, (0, 0))] {
            let layout = stacker::oci::Layout::open(space.path("oci")).unwrap();
            let platform = stacker::action::Platform { os: "linux".into(), arch: "arm64".into() };
            let top = layout.find(Some("app"), &platform).unwrap().layers.pop().unwrap();
            let (plain, _) = stacker::compress::decoder(fs::File::open(top.path).unwrap()).unwrap();
            let mut archive = tar::Archive::new(plain);
            let mut members = archive.entries().unwrap().map(Result::unwrap);
            let mut out = members.find(|member| &*member.path_bytes() == b"out").unwrap();
            let found = (out.header().uid().unwrap(), out.header().gid().unwrap());
            assert_eq!(found, owner);
            let mut text = String::new();
            std::io::Read::read_to_string(&mut out, &mut text).unwrap();
            assert_eq!(text, "aarch64 0\n");
        }
    });
}

#[test]
fn without_a_handler_the_package_is_named() {
    let _turn = KERNEL.lock().unwrap_or_else(|broken| broken.into_inner());
    for_each_identity(|space| {
        space.stackerfile(
            "
plain: {from: {type: built, tag: base}, arch: s390x, imports: [{path: base.tar, dest: /data.tar}]}
odd: {from: {type: built, tag: base}, arch: z80, run: 'true'}
",
        );
        // Nothing of it runs.
        space.build(&["plain"]);
        let odd = space.stacker(&["build", "odd"]).ends_with(3);
        odd.says("layer odd has a `run` for z80").says("qemu-user-static").says_not("odd| ");
    });
    let Some(handler) = Handler::register("") else { return };
    let space = Space::new();
    let Some(base) = foreign_base(&space) else { return };
    space.write("foreign.tar", base);
    space.write("stacker.yaml", LAYERS);
    let run = space.stacker(&["build"]).ends_with(3);
    run.says("layer app has a `run` for arm64, and its handler stacker-test-arm64 is registered without the flag F");
    run.says("apt-get install qemu-user-static");
    space.write("tool.yaml", "tool: {from: {type: tar, url: foreign.tar}, arch: arm64}\n");
    space.build(&["-f", "tool.yaml"]);
    let shell = space.stacker(&["shell", "-f", "tool.yaml", "tool", "--", "/bin/tool"]).ends_with(127);
    shell.says("; layer tool is for arm64, and its handler stacker-test-arm64 is registered without the flag F");
    let mounted = handler.mounted;
    drop(handler);
    if mounted {
        // It cannot be seen what is registered, so it is tried.
        let run = space.stacker(&["build"]).ends_with(3);
        run.says("layer app has a `run` for arm64, and the kernel has no handler").says("qemu-user-static");
    }
    space.stacker(&["check"]).says_not("arm64");
}

/// An ELF header of s390x and nothing behind it: the kernel does not take it, whatever the rest would be.
const S390X: &[u8] = b"\x7fELF\x02\x02\x01\0\0\0\0\0\0\0\0\0\0\x02\0\x16\0\0\0\x01";

#[test]
fn a_shell_says_what_a_build_says() {
    let _turn = KERNEL.lock().unwrap_or_else(|broken| broken.into_inner());
    if stacker::binfmt::look("s390x") == stacker::binfmt::Foreign::Runs {
        return skipped("a handler for programs of s390x is registered");
    }
    for_each_identity(|space| {
        let program = |name| Member { name, mode: 0o755, body: S390X, ..Member::default() };
        let tar = Archive::new().directory("bin/").member(program(b"bin/sh")).member(program(b"bin/tool")).end();
        space.write("foreign.tar", tar);
        let mixed = "mixed: {from: {type: built, tag: base}, arch: s390x}\n";
        space.stackerfile(&format!("{mixed}app:\n  from: {{type: tar, url: foreign.tar}}\n  arch: s390x\n"));
        space.build(&[]);
        let shells: [&[&str]; 4] =
            [&["shell", "app"], &["shell", "app", "--", "/bin/tool"], &["exec", "app"], &["exec", "app", "--", "tool"]];
        for words in shells {
            let run = space.stacker(words).ends_with(3);
            run.says("layer app is for s390x, and ").says("apt-get install qemu-user-static");
        }
        space.stacker(&["shell", "app", "--", "/bin/none"]).ends_with(127).says("/bin/none").says_not("apt-get");
        // Programs of this machine run, whatever the image says.
        assert_eq!(space.stacker(&["shell", "mixed", "--", "echo", "here"]).ends_with(0).stdout, "here\n");
    });
}
