//! The directories that names are in: found through links, made where they are not, cleared for something new.

use std::io;

use rustix::io::Errno;

use super::target::{New, Standing, Target};
use super::{LONGEST_NAME, LONGEST_PATH, Pending, Unpacking, fault, resolving};
use crate::listing::{Entry, join, split};
use crate::seal::failure::{machine, users};
use crate::worker::message::Failure;

impl<T: Target> Unpacking<'_, T> {
    /// The directory at `path`, made if need be with all that lead to it.
    pub(super) fn parent(&mut self, path: &[u8]) -> Result<T::Directory, Failure> {
        if let Some(directory) = self.existing(path)? {
            return Ok(directory);
        }
        // Every name that leads to it, the shortest first; those that exist come before those that do not.
        let slashes = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| &path[..at]);
        let ways: Vec<&[u8]> = slashes.chain([path]).collect();
        let (mut low, mut high) = (0, ways.len() - 1);
        while low < high {
            let middle = (low + high) / 2;
            match self.existing(ways[middle])? {
                Some(_) => low = middle + 1,
                None => high = middle,
            }
        }
        let above = split(ways[low]).0;
        let gone = || users("unpack", path, "the directory has gone");
        let mut directory = self.existing(above)?.ok_or_else(gone)?;
        for &path in &ways[low..] {
            let (entry, name) = (self.beneath(path)?, split(path).1);
            self.taken.entry(path.len()).map_err(|error| fault(path, error))?;
            self.make_directory(&directory, name, entry, false)?;
            directory = self.target.child(&directory, name).map_err(|error| resolving(path, error))?;
        }
        self.last = Some((path.to_vec(), directory.clone()));
        Ok(directory)
    }

    fn existing(&mut self, path: &[u8]) -> Result<Option<T::Directory>, Failure> {
        match self.open(path) {
            Err(error) if matches!(Errno::from_io_error(&error), Some(Errno::NOENT | Errno::NOTDIR)) => Ok(None),
            result => result.map(Some).map_err(|error| resolving(path, error)),
        }
    }

    /// The directory at `path`, which must exist.
    pub(super) fn open(&mut self, path: &[u8]) -> io::Result<T::Directory> {
        match &self.last {
            Some((last, directory)) if last == path => Ok(directory.clone()),
            _ => {
                let directory = self.target.open(path)?;
                self.last = Some((path.to_vec(), directory.clone()));
                Ok(directory)
            }
        }
    }

    /// Where a name in a directory lies, with no link on the way. `path` is what the archive calls it, which was counted.
    pub(super) fn place(&mut self, at: &T::Directory, name: &[u8], path: &[u8]) -> Result<Vec<u8>, Failure> {
        let above = self.directories.get(&self.target.id(at)).map_or(&b""[..], |directory| &directory.place);
        let place = join(above, name);
        if place.len() > LONGEST_PATH {
            return Err(users(
                "unpack",
                &place[..LONGEST_NAME],
                format!("its path has more than {LONGEST_PATH} bytes"),
            ));
        }
        let more = place.len().saturating_sub(path.len());
        self.taken.description(more).map_err(|error| fault(path, error))?;
        Ok(place)
    }

    /// Makes way for something new at `name`; a directory stays if it may. The answer is what stood there.
    pub(super) fn clear(
        &mut self,
        at: &T::Directory,
        name: &[u8],
        keep_directory: bool,
    ) -> io::Result<Option<Standing>> {
        let Some(seen) = self.target.look(at, name)? else { return Ok(None) };
        if seen.standing != Standing::Directory || !keep_directory {
            // The directory used last, or a link on the way to it, may be what goes.
            self.last = None;
            self.target.remove(at, name, seen)?;
        }
        Ok(Some(seen.standing))
    }

    /// Makes a directory, or takes the one that is there. `replace`: whatever else stands there goes; without it only a
    /// whiteout does.
    pub(super) fn make_directory(
        &mut self,
        at: &T::Directory,
        name: &[u8],
        entry: Entry,
        replace: bool,
    ) -> Result<(), Failure> {
        let path = entry.path.clone();
        let failed = |error| machine("make directory", &path, error);
        let place = self.place(at, name, &path)?;
        let standing = self.target.look(at, name).ok().flatten();
        if !replace && standing.is_some_and(|seen| seen.standing != Standing::Whiteout) {
            return Err(users("unpack", &path, "is no directory in this archive, yet has names below it"));
        }
        let before = self.clear(at, name, true).map_err(failed)?;
        if before != Some(Standing::Directory) {
            self.target.make(at, name, New::Directory).map_err(|error| failed(error.into()))?;
        }
        let directory = self.target.child(at, name).map_err(failed)?;
        if before == Some(Standing::Whiteout) {
            self.target.mark_opaque(&directory).map_err(failed)?;
        }
        self.target.own(at, name, &entry).map_err(failed)?;
        self.directories.insert(self.target.id(&directory), Pending { entry, place });
        Ok(())
    }
}
