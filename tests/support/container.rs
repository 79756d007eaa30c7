//! Being inside a container of runc, with the rules that Docker has: the machine's files on an overlay as the root
//! filesystem, Docker's capabilities, its masks in /proc, and its filter of system calls.
//!
//! podman's own profile allows nearly all of what Docker's forbids, so the rules are written out here.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};

use super::space::Space;

/// What the kernel is asked to hide, and to show read-only, by Docker's and Kubernetes' defaults.
const MASKED: [&str; 11] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Docker's default capabilities.
const CAPABILITIES: [&str; 14] = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

/// CLONE_NEWTIME, NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET.
const CLONE_NEW: [u64; 8] =
    [0x80, 0x2_0000, 0x0200_0000, 0x0400_0000, 0x0800_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000];

/// What differs from a container that `docker run` starts without any option.
#[derive(Clone, Copy, Default)]
pub struct Rules {
    /// `seccomp=unconfined`.
    pub system_calls: bool,
    /// System calls that a profile allows beyond Docker's.
    pub allowed: &'static [&'static str],
    /// `--cap-drop ALL`, and `--cap-add` for these.
    pub capabilities: Option<&'static [&'static str]>,
    /// `systempaths=unconfined`.
    pub whole_proc: bool,
    /// The first of 65,536 ids of a user namespace (Kubernetes: `hostUsers: false`).
    pub first_id: Option<u32>,
    /// The user inside.
    pub user: (u32, u32),
}

/// Bundles whose root filesystem is mounted.
pub struct Container {
    bundle: PathBuf,
    id: String,
}

impl Container {
    /// For the program of a space, whose directory is the one volume and is given to the user inside. Needs root.
    pub fn new(space: &Space, rules: Rules) -> Container {
        Container::try_new(space, rules).unwrap_or_else(|why| panic!("{why}"))
    }

    fn try_new(space: &Space, rules: Rules) -> Result<Container, String> {
        let first = rules.first_id.unwrap_or(0);
        space.give_all(first + rules.user.0, first + rules.user.1);
        // Not in the volume, since mounts beneath that would be in the way of it.
        let bundle = tempfile::Builder::new().prefix("stacker-container-").tempdir().unwrap().keep();
        // The ways of who is mapped to other ids lead through here.
        fs::set_permissions(&bundle, fs::Permissions::from_mode(0o755)).unwrap();
        let id = space.directory().file_name().unwrap().to_string_lossy().into_owned();
        let container = Container { bundle, id };
        let script = r#"
            cd "$1"; mkdir top rootfs
            mount -t tmpfs -o size=256m tmpfs top
            mkdir top/u top/w
            chmod 755 top top/u
            mount -t overlay -o lowerdir=/,upperdir=top/u,workdir=top/w overlay rootfs"#;
        let output = Command::new("sh").args(["-ec", script, "sh"]).arg(&container.bundle).output().unwrap();
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        fs::write(container.bundle.join("template.json"), configuration(space, rules).to_string()).unwrap();
        Ok(container)
    }

    /// What to put before a command.
    pub fn wrapper(&self) -> Vec<String> {
        let script = r#"
            cd "$1"; id=$2; shift 2
            printf '%s\n' "$@" | jq --raw-input . | jq --slurp . > arguments.json
            jq --slurpfile words arguments.json '.process.args = $words[0]' template.json > config.json
            exec runc --root "$PWD/state" run "$id""#;
        ["sh", "-ec", script, "sh", self.bundle.to_str().unwrap(), &self.id].map(str::to_owned).to_vec()
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let mounts = ["rootfs", "top"].map(|name| self.bundle.join(name));
        let unmounted = mounts.iter().all(|path| Command::new("umount").arg(path).status().is_ok_and(|s| s.success()));
        // Never the machine's files.
        if unmounted {
            let _ = fs::remove_dir_all(&self.bundle);
        }
    }
}

fn configuration(space: &Space, rules: Rules) -> Value {
    let mount = |place: &str, kind: &str, options: &[&str]| json!({"destination": place, "type": kind, "source": kind, "options": options});
    let volume = space.directory().to_str().unwrap();
    let mut namespaces = vec!["pid", "mount", "ipc", "uts"];
    if rules.first_id.is_some() {
        namespaces.push("user");
    }
    let namespaces: Vec<Value> = namespaces.iter().map(|kind| json!({"type": kind})).collect();
    let mut linux = json!({ "namespaces": namespaces });
    if let Some(first) = rules.first_id {
        let map = json!([{"containerID": 0, "hostID": first, "size": 65536}]);
        (linux["uidMappings"], linux["gidMappings"]) = (map.clone(), map);
    }
    if !rules.whole_proc {
        (linux["maskedPaths"], linux["readonlyPaths"]) = (json!(MASKED), json!(READ_ONLY));
    }
    if !rules.system_calls {
        linux["seccomp"] = seccomp(rules.allowed);
    }
    let bounding = rules.capabilities.unwrap_or(&CAPABILITIES);
    let capabilities = if rules.user.0 == 0 { json!(bounding) } else { json!([]) };
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false,
            "user": {"uid": rules.user.0, "gid": rules.user.1},
            "env": [
                format!("PATH={}", std::env::var("PATH").unwrap()),
                format!("HOME={volume}"),
                "SECRET_OF_THE_CONTAINER=1",
            ],
            "cwd": space.path("").to_str().unwrap(),
            "capabilities": {
                "bounding": bounding, "effective": capabilities, "permitted": capabilities,
            },
        },
        "root": {"path": "rootfs"},
        "mounts": [
            mount("/proc", "proc", &[]),
            mount("/dev", "tmpfs", &["nosuid", "mode=755"]),
            mount("/dev/pts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]),
            mount("/dev/shm", "tmpfs", &["nosuid", "noexec", "nodev", "mode=1777"]),
            {"destination": "/sys", "type": "none", "source": "/sys", "options": ["rbind", "nosuid", "nodev", "noexec", "ro"]},
            {"destination": volume, "type": "none", "source": volume, "options": ["bind"]},
        ],
        "linux": linux,
    })
}

/// Docker's filter for who has no CAP_SYS_ADMIN, as far as it concerns namespaces, mounts and keys.
fn seccomp(allowed: &[&str]) -> Value {
    let denied = |names: &[&str], errno: u32| {
        let names: Vec<&&str> = names.iter().filter(|name| !allowed.contains(name)).collect();
        json!({"names": names, "action": "SCMP_ACT_ERRNO", "errnoRet": errno})
    };
    let clone = |flag: &u64| {
        json!({
            "names": ["clone"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1,
            "args": [{"index": 0, "value": flag, "valueTwo": flag, "op": "SCMP_CMP_MASKED_EQ"}],
        })
    };
    let mut rules = vec![
        denied(&["mount", "umount2", "unshare", "setns", "keyctl", "add_key", "request_key", "pivot_root"], 1),
        denied(&["sethostname", "setdomainname"], 1),
        denied(&["fsopen", "fsmount", "open_tree", "move_mount", "mount_setattr", "bpf"], 1),
        denied(&["clone3"], 38),
    ];
    rules.extend(CLONE_NEW.iter().map(clone));
    json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules})
}

/// Whether runc can start a container at all here; says loudly if not.
pub fn available(space: &Space) -> bool {
    if !rustix::process::geteuid().is_root() {
        super::skipped("containers of runc need root");
        return false;
    }
    let rules = Rules { system_calls: true, whole_proc: true, ..Rules::default() };
    let started = Container::try_new(space, rules).and_then(|container| {
        let wrapper = container.wrapper();
        let output = Command::new(&wrapper[0]).args(&wrapper[1..]).arg("true").output().unwrap();
        match output.status.success() {
            true => Ok(()),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    });
    if let Err(why) = &started {
        super::skipped(&format!("runc cannot run here: {why}"));
    }
    started.is_ok()
}
