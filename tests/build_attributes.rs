//! Access control lists, file capabilities, setuid bits and owners of a run are in the layer as root of a machine would
//! have made them, whoever builds. Needs setfacl (acl), setcap (libcap2-bin) and setfattr (attr).

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use stacker::compress::decoder;
use support::archive::Archive;
use support::identity::{Identity, identities};
use support::inner::containers;
use support::space::{Space, for_each_store};

const MARK: &str = r"
    mkdir -m 755 /acl
    echo x > /acl/file
    setfacl -m u:7:r-x,g:65535:rw- /acl/file
    setfacl -m u:1000:rwx /acl
    setfacl -d -m u:1000:rwx,o::- /acl
    echo y > /acl/inherits
    mkdir /acl/deep
    echo tool > /tool
    setcap cap_net_raw,cap_net_admin+ep /tool
    echo tool > /odd
    chown 33:44 /odd
    chmod 6711 /odd
    setcap cap_chown+p /odd
    setfattr -n user.note -v '=a note' /odd
    cp /bin/busybox /su
    chmod 4755 /su
    mkdir -m 3770 /shared
    chown 65535:65534 /shared
    ln -s /odd /link
    chown -h 5:6 /link
";

/// Each change copies a file up, with all that it has.
const ALTER: &str = r"
    chmod 700 /tool
    setfacl -m g:8:r /acl/file
    setfattr -x user.note /odd
    setfacl -b -k /acl/deep
";

/// As the tools in a sandbox show it.
const LOOK: &str = "
    getcap -n /tool /odd > /seen
    getfacl -n -p -R /acl >> /seen
    getfattr -d -m - /odd | grep -v security.selinux >> /seen
    stat -c '%n %u:%g:%a' /su /shared /odd /link >> /seen
";

const TOOLS: [&str; 6] = ["setfacl", "getfacl", "setcap", "getcap", "setfattr", "getfattr"];

/// What a layer or a directory says of a file: mode, user, group, attributes.
type Seen = (u32, u64, u64, BTreeMap<String, Vec<u8>>);

fn prepare(space: &Space) {
    space.write("tools/etc/tools", "");
    tools(&space.path("tools"));
    space.stackerfile(&format!(
        "tools: {{from: {{type: built, tag: base}}, imports: [{{path: tools/, dest: /}}]}}
marked:
  from: {{type: built, tag: tools}}
  run: |{MARK}
altered:
  from: {{type: built, tag: marked}}
  run: |{ALTER}
seen:
  from: {{type: built, tag: altered}}
  run: |{LOOK}
foreign: {{from: {{type: tar, url: foreign.tar}}}}
"
    ));
    // As a builder that is root of ids 100000... leaves it: for that root only.
    let version_3 = [&[1, 0, 0, 3], &capabilities(1, 1 << 13)[4..], &100_000_u32.to_le_bytes()].concat();
    let foreign = Archive::new().pax(&[("SCHILY.xattr.security.capability", &version_3)]).file("ping", "elf");
    space.write("foreign.tar", foreign.end());
}

/// Copies the tools of this machine with their libraries.
fn tools(directory: &Path) {
    let script = r#"
        for tool in "$@"; do
            file=$(PATH=$PATH:/usr/sbin:/sbin command -v "$tool") || { echo "$tool is not installed" >&2; exit 1; }
            for file in $file $(ldd "$file" | grep -o '/[^ ]*'); do cp --parents -L "$file" .; done
        done"#;
    let output = Command::new("sh").args(["-ec", script, "sh"]).args(TOOLS).current_dir(directory).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// What the topmost layer of an image says.
fn layer(space: &Space, tag: &str) -> BTreeMap<String, Seen> {
    let (plain, _) = decoder(fs::File::open(space.layers(tag).last().unwrap()).unwrap()).unwrap();
    let mut archive = tar::Archive::new(plain);
    let member = |mut member: tar::Entry<_>| {
        let path = String::from_utf8(member.path_bytes().into_owned()).unwrap().trim_end_matches('/').to_owned();
        let mut xattrs = BTreeMap::new();
        for record in member.pax_extensions().unwrap().into_iter().flatten().map(Result::unwrap) {
            let name = record.key().unwrap();
            let name = name.strip_prefix("SCHILY.xattr.").unwrap_or_else(|| panic!("a record {name} for {path}"));
            xattrs.insert(name.to_owned(), record.value_bytes().to_vec());
        }
        let header = member.header();
        (path, (header.mode().unwrap(), header.uid().unwrap(), header.gid().unwrap(), xattrs))
    };
    archive.entries().unwrap().map(|entry| member(entry.unwrap())).collect()
}

/// What a file is in a directory.
fn on_disk(path: &Path) -> Seen {
    let stat = fs::symlink_metadata(path).unwrap();
    let mut names = vec![0; 4096];
    let length = rustix::fs::llistxattr(path, &mut names).unwrap();
    let names = names[..length].split(|&byte| byte == 0).filter(|name| !name.is_empty());
    let names = names.map(|name| String::from_utf8(name.to_vec()).unwrap()).filter(|name| name != "security.selinux");
    let value = |name: String| {
        let mut value = vec![0; 4096];
        let length = rustix::fs::lgetxattr(path, &name, &mut value).unwrap();
        (name, value[..length].to_vec())
    };
    (stat.mode() & 0o7777, stat.uid().into(), stat.gid().into(), names.map(value).collect())
}

/// (tag, rights, id) as the kernel writes them; ids of the image.
fn acl(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let entry = |(tag, rights, id): &(u16, u16, u32)| {
        [&tag.to_le_bytes()[..], &rights.to_le_bytes(), &id.to_le_bytes()].concat()
    };
    [vec![2, 0, 0, 0], entries.iter().flat_map(entry).collect()].concat()
}

/// Capabilities of version 2, which name no root of a namespace; `effective` is their first bit.
fn capabilities(effective: u8, permitted: u16) -> Vec<u8> {
    let [low, high] = permitted.to_le_bytes();
    [&[effective, 0, 0, 2, low, high][..], &[0; 14]].concat()
}

const CAPABILITY: &str = "security.capability";
const ACCESS: &str = "system.posix_acl_access";
const DEFAULT: &str = "system.posix_acl_default";
const NOBODY: u32 = u32::MAX;

fn check_marked(found: &BTreeMap<String, Seen>) {
    let seen = |path: &str, mode, uid, gid, xattrs: &[(&str, Vec<u8>)]| {
        let xattrs = xattrs.iter().map(|(name, value)| (name.to_string(), value.clone())).collect();
        assert_eq!(found[path], (mode, uid, gid, xattrs), "{path}");
    };
    let inherited = acl(&[(1, 7, NOBODY), (2, 7, 1000), (4, 5, NOBODY), (16, 7, NOBODY), (32, 0, NOBODY)]);
    let access = acl(&[(1, 7, NOBODY), (2, 7, 1000), (4, 5, NOBODY), (16, 7, NOBODY), (32, 5, NOBODY)]);
    seen("acl", 0o775, 0, 0, &[(ACCESS, access), (DEFAULT, inherited.clone())]);
    let entries = [(1, 6, NOBODY), (2, 5, 7), (4, 4, NOBODY), (8, 6, 65_535), (16, 7, NOBODY), (32, 4, NOBODY)];
    seen("acl/file", 0o674, 0, 0, &[(ACCESS, acl(&entries))]);
    let entries = [(1, 6, NOBODY), (2, 7, 1000), (4, 5, NOBODY), (16, 6, NOBODY), (32, 0, NOBODY)];
    seen("acl/inherits", 0o660, 0, 0, &[(ACCESS, acl(&entries))]);
    seen("acl/deep", 0o770, 0, 0, &[(ACCESS, inherited.clone()), (DEFAULT, inherited)]);
    seen("tool", 0o644, 0, 0, &[(CAPABILITY, capabilities(1, 1 << 12 | 1 << 13))]);
    seen("odd", 0o6711, 33, 44, &[(CAPABILITY, capabilities(0, 1)), ("user.note", b"=a note".to_vec())]);
    seen("su", 0o4755, 0, 0, &[]);
    seen("shared", 0o3770, 65_535, 65_534, &[]);
    seen("link", 0o777, 5, 6, &[]);
}

fn check_altered(found: &BTreeMap<String, Seen>) {
    let (mode, _, _, xattrs) = &found["tool"];
    assert_eq!((*mode, &xattrs[CAPABILITY]), (0o700, &capabilities(1, 1 << 12 | 1 << 13)));
    let (.., xattrs) = &found["acl/file"];
    let more = [(2, 5, 7), (4, 4, NOBODY), (8, 4, 8), (8, 6, 65_535), (16, 7, NOBODY), (32, 4, NOBODY)];
    assert_eq!(xattrs[ACCESS], acl(&[&[(1, 6, NOBODY)][..], &more].concat()));
    let (mode, uid, gid, xattrs) = &found["odd"];
    assert_eq!(
        (*mode, *uid, *gid, xattrs.keys().map(String::as_str).collect::<Vec<_>>()),
        (0o6711, 33, 44, vec![CAPABILITY])
    );
    assert_eq!(found["acl/deep"], (0o750, 0, 0, BTreeMap::new()));
}

#[test]
fn attributes_are_as_root_would_have_made_them() {
    let everybody = identities().into_iter().chain(containers().into_iter().map(Identity::Inner));
    let mut expected = None;
    for identity in everybody {
        eprintln!("as {identity}:");
        let space = Space::of(identity);
        prepare(&space);
        let run = space.build(&["--compression", "none"]);
        let (marked, altered) = (layer(&space, "marked"), layer(&space, "altered"));
        check_marked(&marked);
        check_altered(&altered);
        let (.., xattrs) = &layer(&space, "foreign")["ping"];
        assert_eq!(xattrs[CAPABILITY], capabilities(1, 1 << 13));
        assert_eq!(expected.get_or_insert_with(|| run.digests()), &run.digests(), "{run}");
        come_back(&space);
        if identity == Identity::Own {
            by_root_of_the_machine(&space, &[(MARK, marked), (ALTER, altered)]);
        }
    }
}

/// What is unpacked from the image looks as it did where it was built.
fn come_back(space: &Space) {
    let other = Space::of(space.identity());
    let layout = space.path("oci").display().to_string();
    other.write("stacker.yaml", format!("seen:\n  from: {{type: oci, url: '{layout}:altered'}}\n  run: |{LOOK}"));
    other.build(&["--compression", "none"]).says_not("cannot be set");
    let seen = space.file("seen", "seen").unwrap();
    assert_eq!(other.file("seen", "seen").unwrap(), seen);
    for line in ["/tool cap_net_admin,cap_net_raw=ep", "/odd cap_chown=p", "default:user:1000:rwx", "group:65535:rw-"] {
        assert!(seen.lines().any(|found| found == line), "no {line} in {seen}");
    }
}

/// The same scripts without a namespace, which root alone can do.
fn by_root_of_the_machine(space: &Space, layers: &[(&str, BTreeMap<String, Seen>)]) {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: comparing with what root of the machine makes");
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let run = |command: &mut Command| {
        let output = command.output().unwrap();
        assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    };
    run(Command::new("tar").arg("-xf").arg(space.path("base.tar")).arg("-C").arg(root.path()));
    tools(root.path());
    for (script, layer) in layers {
        let mut chroot = Command::new("chroot");
        chroot.arg(root.path()).args(["/bin/sh", "-ec", script]).env_clear();
        run(chroot.env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin"));
        assert!(layer.len() > 3, "{:?}", layer.keys());
        // What leads to a file is listed with it; the root itself is a temporary directory here.
        for (path, seen) in layer.iter().filter(|(path, _)| *path != ".") {
            assert_eq!(*seen, on_disk(&root.path().join(path)), "{path}");
        }
    }
}

#[test]
fn an_acl_for_an_id_that_no_image_has_is_the_bases_fault() {
    for_each_store(|space| {
        let entries = [(1, 6, NOBODY), (2, 7, 70_000), (4, 4, NOBODY), (16, 7, NOBODY), (32, 4, NOBODY)];
        let archive = Archive::new().pax(&[("SCHILY.xattr.system.posix_acl_access", &acl(&entries))]).file("f", "f");
        space.write("foreign.tar", archive.end());
        space.write("stacker.yaml", "foreign: {from: {type: tar, url: foreign.tar}}\n");
        space.stacker(&["build"]).ends_with(1).says("/f").says("system.posix_acl_access");
    });
}
