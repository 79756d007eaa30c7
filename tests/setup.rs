//! `stacker setup` on a machine whose `/etc` and `/var/lib` are copies, seen by this test alone.

mod support;

use std::fs;
use std::process::Command;

use support::identity::{USER, identities};
use support::skipped;

/// Runs it twice, uses it, lets the machine "start again", and takes it back. `$1`: the program; `$2`: a directory.
const STORY: &str = r##"
set -eu
stacker=$1 dir=$2 user=$3
mount --make-rprivate /
mkdir "$dir/etc" "$dir/lib"
cp -a /etc/passwd /etc/group /etc/shadow /etc/gshadow /etc/login.defs /etc/nsswitch.conf "$dir/etc" 2>/dev/null || true
cp -a /etc/pam.d /etc/security /etc/default /etc/ld.so.cache /etc/mtab "$dir/etc" 2>/dev/null || true
echo "# a machine" > "$dir/etc/fstab"; printf 'somebody:100000:65536\n' | tee "$dir/etc/subuid" > "$dir/etc/subgid"
cp -a "$dir/etc/fstab" "$dir/fstab.before"; cp -a "$dir/etc/subuid" "$dir/subuid.before"
mount --bind "$dir/etc" /etc; mount --bind "$dir/lib" /var/lib
setup() { "$stacker" --roots-dir "$dir/home/cache/roots" setup --user "$user" --size 160MiB "$@"; }
as_user() { setpriv --reuid "$user" --regid "$user" --init-groups env HOME="$dir/home" "$@"; }
build() { (cd "$dir/home" && as_user "$stacker" --stacker-dir "$dir/home/store" --roots-dir "$dir/home/cache/roots" build "$@"); }

echo "== dry"; setup --dry-run; test ! -e /var/lib/stacker; cmp /etc/fstab "$dir/fstab.before"
echo "== first"; setup
echo "== second"; setup
grep -q "^$user:165536:65536$" /etc/subuid
test "$(stat -c %b "$(echo /var/lib/stacker/*.img)")" -ge $((160 * 2048))
findmnt -no FSTYPE,OPTIONS "$dir/home/cache/roots" | grep btrfs | grep user_subvol_rm_allowed | grep -q noatime
echo "== build"; build 2>&1 | tail -n 1
grep -q '"btrfs"' "$dir/home/cache/roots/store.json"
echo "== start again"; umount "$dir/home/cache/roots"; mount "$dir/home/cache/roots"
build 2>&1 | tail -n 1
echo "== undo dry"; "$stacker" setup --undo --dry-run
test -e /var/lib/stacker/*.img
# Whoever it was for is logged in.
setpriv --reuid "$user" --regid "$user" --init-groups sleep 100 &
echo "== undo"; "$stacker" setup --undo; kill $!
cmp /etc/fstab "$dir/fstab.before"; cmp /etc/subuid "$dir/subuid.before"
test ! -e /var/lib/stacker; test ! -e "$dir/home/cache/roots"
echo "== again"; "$stacker" setup --undo
"##;

#[test]
fn it_is_done_once_survives_a_start_and_is_taken_back() {
    if !rustix::process::geteuid().is_root() {
        return skipped("setup is for root");
    }
    let space = support::space::Space::of(*identities().last().expect("root makes an ordinary user"));
    space.stackerfile("app: {from: {type: built, tag: base}, run: 'echo app > /app'}\n");
    let home = space.directory().join("home");
    fs::create_dir(&home).unwrap();
    for name in ["stacker.yaml", "base.tar"] {
        fs::copy(space.path(name), home.join(name)).unwrap();
    }
    Command::new("chown").args(["-R", USER]).arg(&home).status().unwrap();
    let program = space.directory().join("bin/stacker");
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-c", STORY, "sh"])
        .args([&program, space.directory()])
        .arg(USER)
        .output()
        .unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}\n{err}");
    let part = |name: &str| {
        let from = out.split(&format!("== {name}\n")).nth(1).unwrap_or_else(|| panic!("{name}: {out}"));
        from.split("== ").next().unwrap_or_default().to_owned()
    };
    let steps = |name: &str| part(name).lines().filter(|line| !line.contains("already")).count();
    assert!(part("dry").contains("would make") && part("dry").contains("nothing was done"), "{out}");
    assert!(part("first").contains(&format!("give {USER} the ids 165536-231071 in /etc/subuid")), "{out}");
    assert_eq!(steps("second"), 2, "only what AppArmor is, and the last line: {out}");
    assert!(part("build").contains("filesystem app built"), "{out}");
    assert!(part("start again").contains("found cached layer app"), "{out}");
    assert!(part("undo").contains("unmount"), "{out}");
    assert!(part("again").contains("nothing was done by"), "{out}");
}

/// Refuses what is wrong, gives a user ids, twice, and takes them back. Arguments as for the other story.
const IDS: &str = r##"
set -eu
stacker=$1 dir=$2 user=$3 uid=$(id -u "$3")
mount --make-rprivate /
mkdir "$dir/etc" "$dir/lib"
cp -a /etc/passwd /etc/group /etc/shadow /etc/gshadow /etc/login.defs /etc/nsswitch.conf "$dir/etc" 2>/dev/null || true
cp -a /etc/pam.d /etc/security /etc/default /etc/ld.so.cache "$dir/etc" 2>/dev/null || true
printf 'somebody:100000:65536\n' | tee "$dir/etc/subuid" "$dir/etc/subgid" > "$dir/before"
mount --bind "$dir/etc" /etc; mount --bind "$dir/lib" /var/lib
for who in "" "--username root" "--uid 0" "--username nobody-of-that-name" "--username $user --uid 1"; do
    if env -u SUDO_USER "$stacker" unpriv-setup $who; then exit 9; fi
done
SUDO_USER=$user "$stacker" unpriv-setup --dry-run; cmp /etc/subuid "$dir/before"
"$stacker" unpriv-setup --uid "$uid" --gid "$uid" --username "$user"
grep -q "^$user:165536:65536$" /etc/subuid; grep -q "^$user:165536:65536$" /etc/subgid
"$stacker" unpriv-setup --uid "$uid"
test "$(grep -c "$user" /etc/subuid)" = 1; test "$(ls /var/lib/stacker)" = setup.json
"$stacker" setup --undo
cmp /etc/subuid "$dir/before"; cmp /etc/subgid "$dir/before"
"##;

#[test]
fn ids_alone_are_given_and_taken_back() {
    if !rustix::process::geteuid().is_root() {
        return skipped("setup is for root");
    }
    let space = support::space::Space::of(*identities().last().expect("root makes an ordinary user"));
    let program = space.directory().join("bin/stacker");
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", IDS, "sh"]).args([&program, space.directory()]).arg(USER);
    let output = command.output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}: {out}\n{err}", output.status);
    assert!(out.contains(&format!("would give {USER} the ids 165536-231071 in /etc/subuid")), "{out}");
    assert!(out.contains(&format!("/etc/subgid gives ids to {USER} already")), "{out}");
    for said in ["Say --username NAME", "root needs no subordinate ids", "there is no such user", "not 1"] {
        assert!(err.contains(said), "{said}: {err}");
    }
}

#[test]
fn who_is_not_root_is_told_and_can_look() {
    for identity in identities() {
        if identity.owner().is_none() && rustix::process::geteuid().is_root() {
            continue;
        }
        let space = support::space::Space::of(identity);
        let setup = |arguments: &[&str]| {
            let output = space.command(arguments).output().unwrap();
            space.run_of(arguments, output)
        };
        setup(&["setup", "--user", USER]).ends_with(2).says("let root run it");
        setup(&["unpriv-setup", "--username", USER]).ends_with(2).says("let root run it");
        setup(&["setup", "--user", "nobody-of-that-name", "--dry-run"]).ends_with(2).says("there is no user");
        let told = setup(&["setup", "--dry-run", "--size", "1GiB"]).ends_with(0).stdout;
        assert!(told.contains("would make") && told.contains("nothing was done"), "{told}");
    }
}

#[test]
fn the_profile_is_one_that_apparmor_takes() {
    // In /usr/sbin, where an ordinary user's PATH may not lead.
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    let parser = |arguments: &[&str]| Command::new("apparmor_parser").args(arguments).env("PATH", &path).output();
    let Ok(version) = parser(&["--version"]) else { return skipped("apparmor_parser is not here") };
    let version = String::from_utf8_lossy(&version.stdout).into_owned();
    let major = version.split("version ").nth(1).and_then(|text| text.split('.').next()?.parse::<u32>().ok());
    if major.expect("a version") < 4 {
        return skipped(&format!("user namespaces are nothing that this AppArmor knows of: {version}"));
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("profile");
    let parse = |text: &str| {
        fs::write(&file, text).unwrap();
        parser(&["--skip-kernel-load", "--skip-cache", file.to_str().unwrap()]).unwrap()
    };
    for program in ["/usr/bin/stacker", "/home/some body/.cargo/bin/stacker"] {
        let text = stacker::setup::profile(program);
        let output = parse(&text);
        assert!(output.status.success(), "{}\n{text}", String::from_utf8_lossy(&output.stderr));
    }
    // It does look.
    assert!(
        !parse(&stacker::setup::profile("/usr/bin/stacker").replace("userns,", "usernamespaces,")).status.success()
    );
}
