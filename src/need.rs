//! What a build needs of the machine: one list, from which `stacker check` and the errors of builds both speak.

use std::fs;

use serde::{Deserialize, Serialize};

/// Something that the machine has or lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Need {
    /// The kernel lets stacker make a user namespace.
    UserNamespace,
    /// The programs that write an ordinary user's id map.
    Newuidmap,
    /// 65,536 ids of its own for a sandbox.
    Ids,
    /// Files of the roots directory can belong to several users.
    Chown,
    /// overlayfs can write to the roots directory, with attributes of the kind `user`.
    Overlay,
    /// A procfs of the sandbox's own.
    Proc,
    /// A sandbox, with a program that runs in it.
    Run,
    /// btrfs, with subvolumes that stacker may make and delete.
    Btrfs,
    /// Room on the disk.
    Space,
    /// A program that gives a sandbox a network of its own.
    NetworkHelper,
    /// Programs of other processors can run.
    Binfmt,
    /// A program that makes squashfs file systems.
    Squashfs,
    /// A program that makes EROFS file systems.
    Erofs,
}

impl Need {
    /// All, in the order in which they are looked at.
    pub const ALL: [Need; 13] = [
        Need::UserNamespace,
        Need::Newuidmap,
        Need::Ids,
        Need::Chown,
        Need::Overlay,
        Need::Proc,
        Need::Run,
        Need::Btrfs,
        Need::Space,
        Need::NetworkHelper,
        Need::Binfmt,
        Need::Squashfs,
        Need::Erofs,
    ];

    /// A word that does not change.
    pub fn name(self) -> &'static str {
        match self {
            Need::UserNamespace => "user-namespace",
            Need::Newuidmap => "newuidmap",
            Need::Ids => "ids",
            Need::Chown => "chown",
            Need::Overlay => "overlay",
            Need::Proc => "proc",
            Need::Run => "run",
            Need::Btrfs => "btrfs",
            Need::Space => "space",
            Need::NetworkHelper => "network-helper",
            Need::Binfmt => "binfmt",
            Need::Squashfs => "squashfs",
            Need::Erofs => "erofs",
        }
    }

    /// What goes without it.
    pub fn needed_for(self) -> &'static str {
        match self {
            Need::UserNamespace => "every `run`: without it only imports, labels and configuration are built",
            Need::Newuidmap => "writing an ordinary user's id map; without it every file belongs to root",
            Need::Ids => "files of several owners in images; without it every file belongs to root",
            Need::Chown => "files of several owners in images",
            Need::Overlay => "a `run` that costs what it changes; without it each works on a copy of its whole base",
            Need::Proc => "hiding the processes outside from a `run`; without it their names can be seen",
            Need::Run => "every layer with a `run`",
            Need::Btrfs => "a store of btrfs snapshots; other file systems have the overlay store",
            Need::Space => "layers, their compressed copies and what a `run` writes",
            Need::NetworkHelper => "nothing yet: a `run` has the host's network or none",
            Need::Binfmt => "a `run` in an image for another processor",
            Need::Squashfs => "images of squashfs layers (--layer-type squashfs)",
            Need::Erofs => "images of EROFS layers (--layer-type erofs)",
        }
    }

    /// The one command, or change, that gives it to whoever lacks it.
    pub fn mend(self) -> String {
        match self {
            Need::UserNamespace => mend_user_namespace(),
            Need::Newuidmap => "apt-get install uidmap (where it is installed and may not do its work, as under \
                                no_new_privs: --sandbox single-id)"
                .to_owned(),
            Need::Ids => mend_ids(),
            Need::Chown => "choose a directory on ext4, xfs, btrfs or tmpfs: --roots-dir DIR".to_owned(),
            Need::Overlay => "choose a directory that is no overlay or network file system: --roots-dir DIR (in a \
                              container, of a volume: docker run --volume stacker:/var/cache/stacker)"
                .to_owned(),
            Need::Proc => "if this is a container that hides parts of /proc, start it with all of it (docker: \
                           --security-opt systempaths=unconfined, podman: --security-opt unmask=ALL, Kubernetes: \
                           procMount: Unmasked)"
                .to_owned(),
            Need::Run => "mend what is missing above".to_owned(),
            Need::Btrfs => {
                "sudo stacker setup --user $USER puts the store on one (by hand: mount with user_subvol_rm_allowed)"
                    .to_owned()
            }
            Need::Space => "stacker gc --older-than 30d frees some; --stacker-dir DIR is for another disk".to_owned(),
            Need::NetworkHelper => "apt-get install passt".to_owned(),
            Need::Squashfs => "apt-get install squashfs-tools".to_owned(),
            Need::Erofs => "apt-get install erofs-utils".to_owned(),
            Need::Binfmt => {
                "apt-get install qemu-user-static binfmt-support (in a container: where its kernel runs, on the host)"
                    .to_owned()
            }
        }
    }

    /// The sentence about one that is lacking: what was seen, what it is needed for, and what mends it.
    pub fn lacking(self, found: &str) -> String {
        format!("{}: {found}; needed for {}. To mend it: {}", self.name(), self.needed_for(), self.mend())
    }
}

/// Which of the kernel's switches is off; in a container it is mostly a filter of system calls.
fn mend_user_namespace() -> String {
    let is = |path: &str, value: &str| fs::read_to_string(path).is_ok_and(|text| text.trim() == value);
    if is("/proc/sys/user/max_user_namespaces", "0") {
        return "sudo sysctl -w user.max_user_namespaces=15000".to_owned();
    }
    if is("/proc/sys/kernel/unprivileged_userns_clone", "0") {
        return "sudo sysctl -w kernel.unprivileged_userns_clone=1".to_owned();
    }
    if is("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1") {
        return "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0 (or an AppArmor profile for stacker with \
                `userns,`)"
            .to_owned();
    }
    "if this is a container, start it with a seccomp profile that allows clone, unshare, mount, umount2 and pivot_root \
     (docker: --security-opt seccomp=unconfined --security-opt apparmor=unconfined; Kubernetes: seccompProfile: \
     Unconfined)"
        .to_owned()
}

fn mend_ids() -> String {
    let uid = rustix::process::geteuid();
    if uid.is_root() {
        return "start this container with 65536 ids, a larger range than it has".to_owned();
    }
    let name = nix::unistd::User::from_uid(uid.as_raw().into()).ok().flatten();
    let name = name.map_or_else(|| uid.as_raw().to_string(), |user| user.name);
    format!(
        "sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {name} (with ids that no other line of \
         /etc/subuid and /etc/subgid has)"
    )
}
