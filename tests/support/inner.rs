//! Being inside a container with a user namespace: 65,536 ids, and no range beyond them.

use std::fmt;

use super::identity::{Identity, USER, as_ordinary, identities, subordinate, user_name};

/// What a container of root's gets, for the tests alone.
const ROOTS_RANGE: u32 = 1_800_000_000;

/// A container: who starts it, and which ids of the machine are its 65,536.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inner {
    starter: Starter,
    uids: Ids,
    gids: Ids,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Starter {
    /// May write maps.
    Root,
    /// Whoever runs the tests.
    Own,
    /// The user that root makes for tests.
    Ordinary,
}

/// The ids of the machine that stand for 0, 1, 2...
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ids {
    /// `first`, `first + 1`...: a container as root or a daemon starts it.
    OneExtent { first: u32 },
    /// `root`, `first`, `first + 1`...: a rootless one, where root is the user.
    TwoExtents { root: u32, first: u32 },
}

/// Makes a user namespace, whose maps `$1` and `$2` write by way of the process `$pid`, and runs the rest of its
/// arguments as root there, with process ids and a /proc of its own.
const ENTER: &str = r#"
set -e
unshare --user sleep 60 &
pid=$!
until [ "$(readlink /proc/$pid/ns/user)" != "$(readlink /proc/$$/ns/user)" ]; do sleep 0.01; done
eval "$1"
eval "$2"
shift 2
exec 3< /proc/$pid/ns/user
kill $pid
exec nsenter --user=/proc/self/fd/3 --setuid 0 --setgid 0 -- \
    unshare --mount --pid --fork --kill-child --mount-proc -- sh -c 'exec 3<&-; exec "$@"' sh "$@"
"#;

/// Containers of everybody whom a test should be run as. A user who is not root cannot give files to the root of a
/// container with one extent, and so has the other kind only.
pub fn containers() -> Vec<Inner> {
    identities().into_iter().flat_map(containers_of).collect()
}

fn containers_of(identity: Identity) -> Vec<Inner> {
    let am_root = rustix::process::geteuid().is_root();
    let (starter, root, name) = match identity {
        Identity::Own if am_root => (Starter::Root, (ROOTS_RANGE - 1, ROOTS_RANGE - 1), None),
        Identity::Ordinary { uid, gid } => (Starter::Ordinary, (uid, gid), Some(USER.to_owned())),
        Identity::Own | Identity::Inner(_) => {
            let ids = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
            (Starter::Own, ids, Some(user_name()))
        }
    };
    let start = |file| {
        let of_user = |name: &String| subordinate(file, name).expect("an identity has subordinate ids");
        name.as_ref().map_or(ROOTS_RANGE, of_user)
    };
    let first = (start("/etc/subuid"), start("/etc/subgid"));
    let one = |first| Ids::OneExtent { first };
    let two = |root, first| Ids::TwoExtents { root, first };
    let one = Inner { starter, uids: one(first.0), gids: one(first.1) };
    let two = Inner { starter, uids: two(root.0, first.0), gids: two(root.1, first.1) };
    if am_root { vec![one, two] } else { vec![two] }
}

impl Inner {
    /// Which ids of the machine the container's root is.
    pub fn root(self) -> (u32, u32) {
        let root = |ids| match ids {
            Ids::OneExtent { first } => first,
            Ids::TwoExtents { root, .. } => root,
        };
        (root(self.uids), root(self.gids))
    }

    /// What to put before a command.
    pub fn wrapper(self) -> Vec<String> {
        let mut words = if self.starter == Starter::Ordinary { as_ordinary() } else { Vec::new() };
        words.extend(["sh", "-c", ENTER, "sh"].map(str::to_owned));
        words.extend([("uid", self.uids), ("gid", self.gids)].map(|(kind, ids)| self.write_map(kind, ids)));
        words
    }

    /// The command that writes a map.
    fn write_map(self, kind: &str, ids: Ids) -> String {
        let extents = match ids {
            Ids::OneExtent { first } => vec![format!("0 {first} 65536")],
            Ids::TwoExtents { root, first } => vec![format!("0 {root} 1"), format!("1 {first} 65535")],
        };
        match self.starter {
            Starter::Root => format!("printf '{}' > /proc/$pid/{kind}_map", extents.join("\\n")),
            Starter::Own | Starter::Ordinary => format!("new{kind}map $pid {}", extents.join(" ")),
        }
    }
}

impl fmt::Display for Inner {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "root of a container by {:?} (users {:?}, groups {:?})", self.starter, self.uids, self.gids)
    }
}
