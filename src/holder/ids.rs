//! Which ids of the host stand for the ids 0..=65,535 of a sandbox, and writing that down for a process.
//!
//! Root takes a range that nobody else has (a run is never host root); a user takes itself as root and its subordinate
//! ids for the rest; inside a container that has 65,536 ids but no second range, they stand for themselves. Who has fewer
//! is root alone.

use std::ffi::CString;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::action::Ids;
use crate::error::{At, Error, Result};
use crate::need::Need;
use crate::resolve::Owners;

/// How many ids an image may use.
pub const IDS: u32 = 65_536;

/// Where root's range starts when `/etc/subuid` names none.
const ROOTS_RANGE: u32 = 2_000_000_000;

/// (first id inside, first id outside, how many).
pub type Extent = (u32, u32, u32);

/// How capable the sandbox is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Tier {
    /// Ids and processes of its own
    Full,
    /// The ids of the container that stacker runs in
    Inner,
    /// The processes outside can be seen in /proc
    SharedProc,
    /// One id: every file belongs to root
    SingleId,
    /// No sandbox: only what needs no `run`
    None,
}

impl std::fmt::Display for Tier {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str(match self {
            Tier::Full => "full",
            Tier::Inner => "inner",
            Tier::SharedProc => "shared-proc",
            Tier::SingleId => "single-id",
            Tier::None => "none",
        })
    }
}

/// The map of a user namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdMap {
    /// User ids.
    pub uids: Vec<Extent>,
    /// Group ids.
    pub gids: Vec<Extent>,
    /// Which owners files can have with it.
    pub ids: Ids,
    /// The ids stand for themselves.
    pub inner: bool,
    /// The caller may write maps itself.
    own_hand: bool,
}

impl IdMap {
    /// The map for whoever calls, of as many ids as there are for it. Forks nothing and asks little: builds that find
    /// everything in the cache need to know too.
    pub fn choose() -> Result<IdMap> {
        match rustix::process::geteuid().as_raw() {
            0 => for_root(),
            uid => for_user(uid),
        }
    }

    /// The caller alone, as root.
    pub fn single() -> IdMap {
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let (uids, gids) = (vec![(0, uid, 1)], vec![(0, gid, 1)]);
        IdMap { uids, gids, ids: Ids::Single, inner: false, own_hand: true }
    }

    /// No namespace: root of a container gives files to whom it wants, everybody else has only itself.
    pub fn without_namespace() -> IdMap {
        let has_all = |name| current(name).is_ok_and(|map| count(&identity(&map)) == IDS);
        match rustix::process::geteuid().is_root() && has_all("uid_map") && has_all("gid_map") {
            true => {
                let all = vec![(0, 0, IDS)];
                IdMap { uids: all.clone(), gids: all, ids: Ids::Full, inner: true, own_hand: true }
            }
            false => IdMap::single(),
        }
    }

    /// Whether it is root's, and leads to ids that own nothing: then binds are mounted with a map that leads back.
    pub fn is_shifted(&self) -> bool {
        self.own_hand && self.ids == Ids::Full && !self.inner
    }

    /// Whom a script takes for the owners of binds.
    pub fn owners(&self) -> Owners {
        match self.is_shifted() {
            true => Owners { uids: vec![(0, 0, IDS)], gids: vec![(0, 0, IDS)] },
            false => Owners { uids: self.uids.clone(), gids: self.gids.clone() },
        }
    }

    /// Host ids of the sandbox's root.
    pub fn root(&self) -> (u32, u32) {
        (self.uids[0].1, self.gids[0].1)
    }

    /// Gives a process that has just entered a user namespace its ids.
    pub fn write(&self, pid: u32) -> Result<()> {
        if self.own_hand {
            if self.ids == Ids::Single {
                // The kernel's condition for a map of one id that its owner writes.
                let path = format!("/proc/{pid}/setgroups");
                fs::write(&path, "deny").at("write", &path)?;
            }
            for (name, extents) in [("uid_map", &self.uids), ("gid_map", &self.gids)] {
                let path = format!("/proc/{pid}/{name}");
                let text: String = extents.iter().map(|(a, b, n)| format!("{a} {b} {n}\n")).collect();
                fs::write(&path, text).map_err(|error| Error::Lacking(Need::Ids, self.refused(&path, &error)))?;
            }
            return Ok(());
        }
        for (program, extents) in [("newuidmap", &self.uids), ("newgidmap", &self.gids)] {
            let numbers = extents.iter().flat_map(|(a, b, n)| [*a, *b, *n]).map(|number| number.to_string());
            let output = Command::new(program)
                .arg(pid.to_string())
                .args(numbers)
                .output()
                .map_err(|error| Error::Lacking(Need::Newuidmap, format!("cannot run {program}: {error}")))?;
            if !output.status.success() {
                let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
                return Err(Error::Lacking(
                    Need::Newuidmap,
                    format!(
                        "{program} failed ({said}); has it its capability, and are the ids in /etc/subuid and /etc/subgid?"
                    ),
                ));
            }
        }
        Ok(())
    }
}

impl IdMap {
    fn refused(&self, path: &str, error: &std::io::Error) -> String {
        let capabilities = if self.inner { "SETUID, SETGID and SETFCAP" } else { "SETUID and SETGID" };
        match self.ids {
            Ids::Full => {
                format!("cannot write {path}: {error}; has this container's root the capabilities {capabilities}?")
            }
            Ids::Single => format!("cannot write {path}: {error}"),
        }
    }
}

fn for_root() -> Result<IdMap> {
    let (uids, gids) = (current("uid_map")?, current("gid_map")?);
    let start = |file: &str, map: &[Extent]| -> Result<Option<u32>> {
        let lines = subordinate(file)?;
        let own = lines.iter().find(|(owner, _, count)| (owner == "root" || owner == "0") && *count >= IDS);
        let start = own.map_or(ROOTS_RANGE, |(_, start, _)| *start);
        if !covers(map, start) {
            return Ok(None);
        }
        let end = u64::from(start) + u64::from(IDS);
        let overlap = lines.iter().find(|(owner, first, count)| {
            owner != "root"
                && owner != "0"
                && u64::from(*first) < end
                && u64::from(start) < u64::from(*first) + u64::from(*count)
        });
        match overlap {
            Some((owner, ..)) => Err(Error::Machine(format!(
                "the ids {start} to {} that root's builds use belong to {owner} in {file}: give root a line of its own \
                 there, `root:START:{IDS}`",
                end - 1
            ))),
            None => Ok(Some(start)),
        }
    };
    let (uid, gid) = (start("/etc/subuid", &uids)?, start("/etc/subgid", &gids)?);
    let map = |uids, gids, inner| IdMap { uids, gids, ids: Ids::Full, inner, own_hand: true };
    if let (Some(uid), Some(gid)) = (uid, gid) {
        return Ok(map(vec![(0, uid, IDS)], vec![(0, gid, IDS)], false));
    }
    let (uids, gids) = (identity(&uids), identity(&gids));
    match count(&uids).min(count(&gids)) {
        IDS => Ok(map(uids, gids, true)),
        few => Err(Error::Lacking(Need::Ids, format!("this container has {few} of {IDS} ids"))),
    }
}

fn for_user(uid: u32) -> Result<IdMap> {
    let gid = rustix::process::getegid().as_raw();
    let name = nix::unistd::User::from_uid(uid.into()).ok().flatten().map(|user| user.name);
    let range = |file: &str| -> Result<u32> {
        let lines = subordinate(file)?;
        let is_own = |owner: &str| Some(owner) == name.as_deref() || owner == uid.to_string();
        let own = lines.iter().find(|(owner, _, count)| is_own(owner) && *count >= IDS);
        own.map(|(_, start, _)| *start).ok_or_else(|| {
            let who = name.clone().unwrap_or_else(|| uid.to_string());
            Error::Lacking(Need::Ids, format!("{who} has no {IDS} subordinate ids in {file}"))
        })
    };
    let (uids, gids) = (range("/etc/subuid")?, range("/etc/subgid")?);
    if let Some(program) = ["newuidmap", "newgidmap"].into_iter().find(|program| find_program(program).is_none()) {
        return Err(Error::Lacking(Need::Newuidmap, format!("there is no {program} in PATH")));
    }
    Ok(IdMap {
        uids: vec![(0, uid, 1), (1, uids, IDS - 1)],
        gids: vec![(0, gid, 1), (1, gids, IDS - 1)],
        ids: Ids::Full,
        inner: false,
        own_hand: false,
    })
}

/// Where a program lies in PATH.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|directory| directory.join(name)).find(|program| program.is_file())
}

/// The lines of `/etc/subuid` or `/etc/subgid`: owner, first id, how many. A file that is not there has none.
pub fn subordinate(file: &str) -> Result<Vec<(String, u32, u32)>> {
    let text = match fs::read_to_string(file) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        other => other.at("read", file)?,
    };
    let line = |line: &str| {
        let mut words = line.trim().split(':');
        Some((words.next()?.to_owned(), words.next()?.parse().ok()?, words.next()?.parse().ok()?))
    };
    Ok(text.lines().filter_map(line).collect())
}

/// The ids that exist in this user namespace.
fn current(name: &str) -> Result<Vec<Extent>> {
    let path = format!("/proc/self/{name}");
    let text = fs::read_to_string(&path).at("read", &path)?;
    let line = |line: &str| {
        let mut words = line.split_whitespace().map(str::parse);
        Some((words.next()?.ok()?, words.next()?.ok()?, words.next()?.ok()?))
    };
    Ok(text.lines().filter_map(line).collect())
}

/// The map in which the first 65,536 ids stand for themselves, as far as they exist. The kernel takes no extent that
/// reaches over several of the namespace above.
fn identity(map: &[Extent]) -> Vec<Extent> {
    let clip = |(inside, _, count): &Extent| (*inside, *inside, (*count).min(IDS.saturating_sub(*inside)));
    let mut extents: Vec<Extent> = map.iter().map(clip).filter(|(.., count)| *count > 0).collect();
    extents.sort_unstable();
    extents
}

fn count(map: &[Extent]) -> u32 {
    map.iter().map(|(.., count)| count).sum()
}

/// Whether all of the 65,536 ids from `start` on exist, in one extent.
fn covers(map: &[Extent], start: u32) -> bool {
    let end = u64::from(start) + u64::from(IDS);
    map.iter().any(|(inside, _, count)| *inside <= start && end <= u64::from(*inside) + u64::from(*count))
}

/// The name under which `ps` shows the calling process.
pub fn set_name(name: &str) {
    if let Ok(name) = CString::new(name) {
        // A name is a courtesy.
        let _ = rustix::thread::set_name(&name);
    }
}
