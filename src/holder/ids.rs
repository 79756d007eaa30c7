//! Which ids of the host stand for the ids 0..=65,535 of a sandbox, and writing that down for a process.
//!
//! Root takes a range that nobody else has (a run is never host root); a user takes itself as root and its subordinate
//! ids for the rest; inside a container that has 65,536 ids but no second range, they stand for themselves.

use std::ffi::CString;
use std::fs;
use std::process::Command;

use crate::error::{At, Error, Result};

/// How many ids an image may use.
pub const IDS: u32 = 65_536;

/// Where root's range starts when `/etc/subuid` names none.
const ROOTS_RANGE: u32 = 2_000_000_000;

/// (first id inside, first id outside, how many).
pub type Extent = (u32, u32, u32);

/// How capable the sandbox is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    /// Ids of its own.
    Full,
    /// The ids of the container that stacker runs in.
    Inner,
}

impl std::fmt::Display for Tier {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str(match self {
            Tier::Full => "full",
            Tier::Inner => "inner",
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
    /// What it makes possible.
    pub tier: Tier,
    /// The caller may write maps itself.
    own_hand: bool,
}

impl IdMap {
    /// The map for whoever calls.
    pub fn choose() -> Result<IdMap> {
        match rustix::process::geteuid().as_raw() {
            0 => for_root(),
            uid => for_user(uid),
        }
    }

    /// Host ids of the sandbox's root.
    pub fn root(&self) -> (u32, u32) {
        (self.uids[0].1, self.gids[0].1)
    }

    /// Gives a process that has just entered a user namespace its ids.
    pub fn write(&self, pid: u32) -> Result<()> {
        if self.own_hand {
            for (name, extents) in [("uid_map", &self.uids), ("gid_map", &self.gids)] {
                let path = format!("/proc/{pid}/{name}");
                let text: String = extents.iter().map(|(a, b, n)| format!("{a} {b} {n}\n")).collect();
                fs::write(&path, text).at("write", &path)?;
            }
            return Ok(());
        }
        for (program, extents) in [("newuidmap", &self.uids), ("newgidmap", &self.gids)] {
            let numbers = extents.iter().flat_map(|(a, b, n)| [*a, *b, *n]).map(|number| number.to_string());
            let output = Command::new(program).arg(pid.to_string()).args(numbers).output().map_err(|error| {
                Error::Machine(format!("cannot run {program}: {error}; install the package uidmap"))
            })?;
            if !output.status.success() {
                let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
                return Err(Error::Machine(format!("{program} failed ({said}); see /etc/subuid and /etc/subgid")));
            }
        }
        Ok(())
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
    if let (Some(uid), Some(gid)) = (uid, gid) {
        let tier = Tier::Full;
        return Ok(IdMap { uids: vec![(0, uid, IDS)], gids: vec![(0, gid, IDS)], tier, own_hand: true });
    }
    let (uids, gids) = (identity(&uids), identity(&gids));
    let enough = |map: &[Extent]| map.iter().map(|(.., count)| count).sum::<u32>() == IDS;
    if !enough(&uids) || !enough(&gids) {
        return Err(Error::Machine(format!(
            "this container has fewer than {IDS} ids, which a build needs: start it with a larger range"
        )));
    }
    Ok(IdMap { uids, gids, tier: Tier::Inner, own_hand: true })
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
            Error::Machine(format!(
                "{who} has no {IDS} subordinate ids in {file}, which a build needs: let root run `usermod \
                 --add-subuids 100000-165535 --add-subgids 100000-165535 {who}` (with ids that no other line has)"
            ))
        })
    };
    let (uids, gids) = (range("/etc/subuid")?, range("/etc/subgid")?);
    Ok(IdMap {
        uids: vec![(0, uid, 1), (1, uids, IDS - 1)],
        gids: vec![(0, gid, 1), (1, gids, IDS - 1)],
        tier: Tier::Full,
        own_hand: false,
    })
}

/// The lines of `/etc/subuid` or `/etc/subgid`: owner, first id, how many. A file that is not there has none.
fn subordinate(file: &str) -> Result<Vec<(String, u32, u32)>> {
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
