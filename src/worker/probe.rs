//! Finding out what runs can have here, by doing it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown};
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::wait::waitpid;

use crate::action::{Ids, Network};
use crate::listing::Stack;
use crate::need::Need;
use crate::seal::Marks;
use crate::sys::{self, Fork};

use super::message::{Failure, Probed};
use super::sandbox::{self, Sandbox, Streams};
use super::{Purpose, Worker, trash};

const NONE: Option<&str> = None;

impl Worker<'_> {
    /// Tries everything in a draft directory, which is gone afterwards.
    pub(super) fn probe(&self, draft: &str) -> Result<Vec<Probed>, Failure> {
        let draft = self.store.new_draft(draft, Purpose::Import)?;
        let mut probed = Vec::new();
        if self.setting.ids == Ids::Full {
            probed.push(chown(&draft));
        }
        let overlay = outcome(Need::Overlay, in_a_fork(|| overlay(&draft)), "can be written to, with user attributes");
        probed.push(overlay);
        probed.push(outcome(Need::Proc, own_proc(), "a sandbox has its own"));
        probed.push(self.trial(&draft));
        trash::remove(&[draft.to_string_lossy().into_owned()])?;
        Ok(probed)
    }

    /// A run of a program that does nothing, on a base that holds nothing else.
    fn trial(&self, draft: &Path) -> Probed {
        let probed = |ok, found| Probed { need: Need::Run, ok, found };
        let lowers = [draft.join("base")];
        let whole = self.mounted(&lowers).is_none();
        let made = || -> io::Result<()> {
            let bin = draft.join(if whole { "run/u" } else { "base" }).join("bin");
            let program = bin.join("true");
            fs::create_dir_all(&bin)?;
            fs::create_dir_all(draft.join("run/u"))?;
            fs::write(&program, true_program())?;
            fs::set_permissions(&program, fs::Permissions::from_mode(0o755))
        };
        if let Err(error) = made() {
            return probed(false, error.to_string());
        }
        let output = match File::options().write(true).open("/dev/null") {
            Ok(output) => output.into(),
            Err(error) => return probed(false, format!("cannot open /dev/null: {error}")),
        };
        let begun = std::time::Instant::now();
        let code = sandbox::run(Sandbox {
            layer: "check",
            script: "#!/bin/true\n",
            command: &[sandbox::SCRIPT.to_owned()],
            environment: &BTreeMap::new(),
            lowers: self.mounted(&lowers),
            draft: &draft.join("run"),
            mounts: &[],
            binds: &[],
            inside: &[],
            network: Network::Host,
            base: &Stack::default(),
            left: None,
            streams: Streams::Output(output),
            setting: self.setting,
        });
        match code {
            Ok(0) => probed(true, format!("/bin/true ran in {:.1} ms", begun.elapsed().as_secs_f64() * 1000.0)),
            Ok(code) => probed(false, format!("/bin/true ended with {code}")),
            Err(failure) => probed(false, format!("{}: {}", failure.step, failure.message)),
        }
    }
}

fn chown(draft: &Path) -> Probed {
    let path = draft.join("owned");
    let done = File::create(&path).and_then(|_| lchown(&path, Some(1), Some(1)));
    let kept = || fs::symlink_metadata(&path).map(|found| (found.uid(), found.gid()));
    let done = done.and_then(|()| match kept()? {
        (1, 1) => Ok(()),
        (uid, gid) => Err(io::Error::other(format!("what was given to 1:1 belongs to {uid}:{gid}"))),
    });
    outcome(Need::Chown, done, "a file can be given to id 1")
}

fn outcome(need: Need, done: io::Result<()>, good: &str) -> Probed {
    match done {
        Ok(()) => Probed { need, ok: true, found: good.to_owned() },
        Err(error) => Probed { need, ok: false, found: error.to_string() },
    }
}

/// Whether overlayfs can write to the file system of the roots directory, which is the working directory; if nothing can
/// be mounted (`bare`), whether removed names can be marked there as overlayfs does.
pub fn takes_uppers(bare: bool) -> io::Result<()> {
    let draft = Path::new("drafts").join(trash::unique());
    fs::create_dir(&draft)?;
    let tried = if bare { marks(&draft) } else { overlay(&draft) };
    let removed = trash::remove_path(&draft).map_err(|failure| io::Error::other(failure.message));
    tried.and(removed)
}

fn marks(draft: &Path) -> io::Result<()> {
    Marks::Overlayfs.whiteout(File::open(draft)?, b"removed")?;
    Marks::Overlayfs.make_opaque(draft)
}

/// Changes a lower through a mount like those of runs.
fn overlay(draft: &Path) -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE)?;
    let [lower, upper, work, root]: [PathBuf; 4] = ["ol", "ou", "ow", "om"].map(|name| draft.join(name));
    for directory in [&lower, &upper, &work, &root] {
        fs::create_dir(directory)?;
    }
    fs::write(lower.join("file"), "beneath")?;
    fs::write(lower.join("doomed"), "")?;
    fs::create_dir(lower.join("again"))?;
    fs::write(lower.join("again/hidden"), "")?;
    let show = |path: &Path| path.display().to_string();
    let options =
        format!("userxattr,volatile,lowerdir={},upperdir={},workdir={}", show(&lower), show(&upper), show(&work));
    mount(Some("overlay"), &root, Some("overlay"), MsFlags::empty(), Some(options.as_str()))?;
    let done = fs::set_permissions(root.join("file"), fs::Permissions::from_mode(0o600))
        .and_then(|()| fs::remove_file(root.join("doomed")))
        .and_then(|()| fs::remove_dir_all(root.join("again")))
        .and_then(|()| fs::create_dir(root.join("again")));
    umount2(&root, MntFlags::MNT_DETACH)?;
    done
}

/// Whether the kernel lets a new process namespace have a procfs of its own.
pub fn own_proc() -> io::Result<()> {
    in_a_fork(|| {
        unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWPID)?;
        mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE)?;
        // The namespace is for children alone.
        in_a_fork(|| Ok(mount(Some("proc"), "/proc", Some("proc"), MsFlags::empty(), NONE)?))
    })
}

/// Does what changes the process that does it. Of an error, the number comes back.
pub fn in_a_fork(act: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    let (mut answer, mut end) = io::pipe()?;
    match sys::fork()? {
        Fork::Child => {
            drop(answer);
            let errno = act().map_or_else(|error| error.raw_os_error().unwrap_or(nix::libc::EIO), |()| 0);
            // Whoever reads it takes no answer for an error.
            let _ = end.write_all(&errno.to_ne_bytes());
            sys::exit(0)
        }
        Fork::Parent(child) => {
            drop(end);
            let mut errno = [0; 4];
            let read = answer.read_exact(&mut errno);
            // It fails where children are not waited for.
            let _ = waitpid(child, None);
            read?;
            match i32::from_ne_bytes(errno) {
                0 => Ok(()),
                errno => Err(io::Error::from_raw_os_error(errno)),
            }
        }
    }
}

/// An ELF program for this processor that needs no library and ends with 0 at once.
fn true_program() -> Vec<u8> {
    // exit(0), by the system call.
    let (machine, code): (u16, &[u8]) = match cfg!(target_arch = "aarch64") {
        true => (183, &[0x00, 0x00, 0x80, 0xd2, 0xa8, 0x0b, 0x80, 0xd2, 0x01, 0x00, 0x00, 0xd4]),
        false => (62, &[0x31, 0xff, 0xb8, 0x3c, 0x00, 0x00, 0x00, 0x0f, 0x05]),
    };
    const BASE: u64 = 0x40_0000;
    const HEADERS: u64 = 64 + 56;
    let size = HEADERS + code.len() as u64;
    let mut program = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    let half = |program: &mut Vec<u8>, values: &[u16]| values.iter().for_each(|v| program.extend(v.to_le_bytes()));
    let word = |program: &mut Vec<u8>, values: &[u32]| values.iter().for_each(|v| program.extend(v.to_le_bytes()));
    let long = |program: &mut Vec<u8>, values: &[u64]| values.iter().for_each(|v| program.extend(v.to_le_bytes()));
    // An executable; its entry and where its program header lies; sizes and counts of headers.
    half(&mut program, &[2, machine]);
    word(&mut program, &[1]);
    long(&mut program, &[BASE + HEADERS, 64, 0]);
    word(&mut program, &[0]);
    half(&mut program, &[64, 56, 1, 64, 0, 0]);
    // One segment, readable and executable: the whole file.
    word(&mut program, &[1, 5]);
    long(&mut program, &[0, BASE, BASE, size, size, 0x1000]);
    program.extend(code);
    program
}
