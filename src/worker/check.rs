//! Checks of what lies in the store against its listings.

use std::os::unix::fs::MetadataExt;

use rustix::io::Errno;

use crate::action::Ids;
use crate::digest::{Chain, ChainId, DiffId};
use crate::listing::{Entry, Kind};
use crate::place;
use crate::seal::check;
use crate::seal::failure::library;

use super::message::{Checked, Failure, Sealed};
use super::{Files, Worker};

/// What reading of something damaged may fail with; anything else says nothing about what lies there.
const DAMAGE: [Errno; 10] = [
    Errno::ACCESS,
    Errno::BADMSG,
    Errno::INVAL,
    Errno::IO,
    Errno::LOOP,
    Errno::NOENT,
    Errno::NOTDIR,
    Errno::PERM,
    Errno::UCLEAN,
    Errno::NXIO,
];

impl Worker<'_> {
    /// A delta with its listing.
    pub(super) fn check_delta(
        &self,
        stack: &ChainId,
        diff_id: DiffId,
        ours: bool,
        deep: bool,
        files: &mut Files,
    ) -> Result<Checked, Failure> {
        let mut out = files.next_file()?;
        // The name may be a link of the store.
        let directory = place::delta(stack).join(".");
        let difference = match self.entries(&diff_id) {
            Ok(listed) => differs(check::delta(&directory, deep), &listed, deep)?,
            Err(failure) => Some(damage(failure)?),
        };
        if (difference.is_none() && !deep) || self.setting.ids == Ids::Single {
            // Where files have one owner only, no tar can be made of them to find out which of the two is wrong.
            return Ok(Checked { difference, relisted: None });
        }
        let mut relist = || -> Result<Sealed, Failure> {
            check::delta(&directory, true)?.finish(&directory, (!ours).then_some(diff_id), &mut out)
        };
        match relist() {
            Ok(sealed) => Ok(Checked { difference, relisted: Some(sealed) }),
            Err(failure) => {
                let why = damage(failure)?;
                Ok(Checked { difference: Some(difference.unwrap_or(why)), relisted: None })
            }
        }
    }

    /// A tree with what its listings show together.
    pub(super) fn check_tree(&self, chain: &Chain, deep: bool) -> Result<Checked, Failure> {
        let listed = self.stack(chain)?.subtree(b"");
        let difference = match listed {
            Ok(mut listed) => {
                self.as_on_disk(&mut listed);
                differs(check::tree(&place::tree(&chain.id()).join("."), deep), &listed, deep)?
            }
            Err(error) => Some(error.to_string()),
        };
        Ok(Checked { difference, relisted: None })
    }

    fn entries(&self, diff_id: &DiffId) -> Result<Vec<Entry>, Failure> {
        let read = || {
            let listing = self.listing(diff_id)?;
            listing.entries().collect::<crate::Result<Vec<_>>>().map_err(|error| library("read the listing", error))
        };
        // Where no system call failed, the text is wrong.
        let mut listed = read().map_err(|failure: Failure| Failure { users: failure.errno.is_none(), ..failure })?;
        self.as_on_disk(&mut listed);
        Ok(listed)
    }

    /// With the one owner that files can have here, where that is so.
    fn as_on_disk(&self, listed: &mut [Entry]) {
        if self.setting.ids == Ids::Full {
            return;
        }
        let owner = std::fs::metadata(".").map_or((0, 0), |found| (found.uid(), found.gid()));
        for entry in listed.iter_mut().filter(|entry| entry.kind != Kind::Whiteout) {
            (entry.uid, entry.gid) = owner;
        }
    }
}

fn differs(
    found: Result<check::Relisted, Failure>,
    listed: &[Entry],
    contents: bool,
) -> Result<Option<String>, Failure> {
    match found {
        Ok(found) => Ok(found.difference(listed, contents)),
        Err(failure) => damage(failure).map(Some),
    }
}

/// What a failure says about what was read; it stays a failure where the machine's state may be the cause.
fn damage(failure: Failure) -> Result<String, Failure> {
    let by_damage = |errno: i32| DAMAGE.iter().any(|damage| damage.raw_os_error() == errno);
    match failure.users || failure.errno.is_some_and(by_damage) {
        true => Ok(format!("{}: {}", failure.step, failure.message)),
        false => Err(failure),
    }
}
