//! Putting one member of an archive where it belongs.

use std::io::{self, Read};

use rustix::io::Errno;

use super::archive::{Archive, Member, invalid};
use super::target::{New, Standing, Target};
use super::{IDS, LONGEST_PATH, Unpacking, Whiteouts, clean, fault, resolving};
use crate::digest::ContentDigest;
use crate::listing::{Entry, Kind, join, split};
use crate::seal::failure::{machine, users};
use crate::text::escape;
use crate::worker::message::Failure;

impl<T: Target> Unpacking<'_, T> {
    pub(super) fn member<R: Read>(&mut self, member: Member, archive: &mut Archive<R>) -> Result<(), Failure> {
        let path = clean(&member.path)?;
        self.taken.member(&member).map_err(|error| fault(&path, error))?;
        if matches!(member.kind, b'3' | b'4') {
            self.warn(format!("/{} is a device node: left out", escape(&path)));
            return Ok(());
        }
        for id in [member.uid, member.gid] {
            if id >= IDS {
                let message = format!("belongs to id {id}, and only ids below {IDS} can be had");
                return Err(users("unpack", &path, message));
            }
        }
        let entry = self.entry(&member, path)?;
        let (above, name) = split(&entry.path);
        if entry.path.is_empty() {
            return match entry.kind {
                Kind::Directory { .. } => self.root(entry),
                _ => Err(users("unpack", b"", "the root is a directory, not what the archive says")),
            };
        }
        let at = self.parent(above)?;
        if name.starts_with(b".wh.") {
            return self.whiteout(&at, above, name, &entry);
        }
        if let Kind::Directory { .. } = entry.kind {
            let name = name.to_vec();
            return self.make_directory(&at, &name, entry, true);
        }
        self.place(&at, name, &entry.path)?;
        let failed = |error| fault(&entry.path, error);
        match &entry.kind {
            Kind::HardLink { to } => return self.hard_link(&at, name, to, &entry),
            Kind::File { .. } => self.file(&at, name, &member, archive).map_err(failed)?,
            Kind::Symlink { target } => {
                self.create(&at, name, |tree| tree.make(&at, name, New::Symlink(target))).map_err(failed)?
            }
            _ => self.create(&at, name, |tree| tree.make(&at, name, New::Fifo)).map_err(failed)?,
        }
        self.target.own(&at, name, &entry).and_then(|()| self.complete(&at, name, &entry)).map_err(failed)
    }

    fn entry(&self, member: &Member, path: Vec<u8>) -> Result<Entry, Failure> {
        let kind = match member.kind {
            b'0' => Kind::File { size: member.size, content: ContentDigest([0; 32]) },
            b'1' => Kind::HardLink { to: clean(&member.link)? },
            b'2' if member.link.is_empty() => return Err(users("unpack", &path, "a symbolic link to nothing")),
            b'2' if member.link.len() > LONGEST_PATH || member.link.contains(&0) => {
                return Err(users("unpack", &path, "a symbolic link to what no path can be"));
            }
            b'2' => Kind::Symlink { target: member.link.clone() },
            b'5' => Kind::Directory { opaque: false },
            b'6' => Kind::Fifo,
            other => {
                let message = format!("is of the type `{}`, which is not known", other.escape_ascii());
                return Err(users("unpack", &path, message));
            }
        };
        let (uid, gid) = (member.uid as u32, member.gid as u32);
        Ok(Entry { path, kind, mode: member.mode, uid, gid, mtime: member.mtime, xattrs: member.xattrs.clone() })
    }

    /// Calls `make`, which must not replace anything; where something stands, that goes first.
    fn create<R>(
        &mut self,
        at: &T::Directory,
        name: &[u8],
        make: impl Fn(&mut T) -> rustix::io::Result<R>,
    ) -> io::Result<R> {
        match make(&mut self.target) {
            Err(Errno::EXIST) => {
                self.clear(at, name, false)?;
                Ok(make(&mut self.target)?)
            }
            result => Ok(result?),
        }
    }

    fn file<R: Read>(
        &mut self,
        at: &T::Directory,
        name: &[u8],
        member: &Member,
        archive: &mut Archive<R>,
    ) -> io::Result<()> {
        let mut file = self.create(at, name, |tree| tree.create(at, name))?;
        let mut buffer = vec![0; member.size.clamp(1, 1 << 17) as usize];
        let (mut hole, mut end) = (0, 0);
        let mut part = |length: u64, mut hole: u64| {
            copy(archive, length, &mut buffer, |bytes| self.target.write(&mut file, std::mem::take(&mut hole), bytes))
        };
        match &member.sparse {
            None => part(member.size, 0)?,
            Some(segments) => {
                for segment in segments.iter().filter(|segment| segment.length > 0) {
                    part(segment.length, segment.offset - end)?;
                    end = segment.offset + segment.length;
                }
                hole = member.size - end;
            }
        }
        self.target.close(file, hole)
    }

    fn hard_link(&mut self, at: &T::Directory, name: &[u8], to: &[u8], entry: &Entry) -> Result<(), Failure> {
        let outside =
            || users("unpack", &entry.path, format!("links to /{}, which is no file in this archive", escape(to)));
        let (above, first) = split(to);
        let from = match self.open(above) {
            // Which of the two it is may depend on how removed names are marked.
            Err(error) if matches!(Errno::from_io_error(&error), Some(Errno::NOENT | Errno::NOTDIR)) => {
                return Err(outside());
            }
            result => result.map_err(|error| resolving(above, error))?,
        };
        let failed = |error: Errno| machine("link", &entry.path, error.into());
        let found = self.target.look(&from, first).ok().flatten().ok_or_else(outside)?;
        if to.is_empty() || found.standing != Standing::Other {
            return Err(outside());
        }
        match self.target.look(at, name).map_err(failed)? {
            None => {}
            Some(standing) if standing.id == found.id => return Ok(()),
            Some(_) => drop(self.clear(at, name, false).map_err(|error| machine("replace", &entry.path, error))?),
        }
        match self.target.link(&from, first, at, name) {
            // It was in the directory that just went to make way for the link.
            Err(Errno::NOENT) => Err(outside()),
            result => result.map_err(failed),
        }
    }

    /// A whiteout tells of the layers beneath only: what this archive itself brings stays, whatever the order.
    fn whiteout(&mut self, at: &T::Directory, above: &[u8], name: &[u8], entry: &Entry) -> Result<(), Failure> {
        let removed = &name[4..];
        if self.whiteouts == Whiteouts::Literal {
            return Err(users("unpack", &entry.path, "a name that starts with `.wh.` means a removed file in a layer"));
        }
        let failed = |error| machine("unpack", &entry.path, error);
        match removed {
            b".wh..opq" => return self.target.mark_opaque(at).map_err(failed),
            b"" | b"." | b".." => return Err(users("unpack", &entry.path, "a whiteout of nothing")),
            // aufs's own notes, which never were part of an image.
            _ if removed.starts_with(b".wh.") => return Ok(()),
            _ => {}
        }
        let path = join(above, removed);
        self.place(at, removed, &entry.path)?;
        match self.target.look(at, removed).map_err(|error| failed(error.into()))?.map(|seen| seen.standing) {
            Some(Standing::Directory) => {
                let directory = self.target.child(at, removed).map_err(failed)?;
                self.target.mark_opaque(&directory).map_err(failed)
            }
            Some(Standing::Other) => Ok(()),
            None | Some(Standing::Whiteout) => {
                self.target.mark_removed(at, removed).map_err(|error| machine("remove", &path, error))?;
                let mark = Entry { path, xattrs: Default::default(), ..entry.clone() };
                self.complete(at, removed, &mark).map_err(failed)
            }
        }
    }
}

/// Decoders have other kinds of error for what is wrong with their input.
fn damaged(error: io::Error) -> io::Error {
    if error.raw_os_error().is_none() && error.kind() != io::ErrorKind::UnexpectedEof {
        return invalid(&error.to_string());
    }
    error
}

/// Hands on so many bytes of the current member.
fn copy<R: Read>(
    archive: &mut Archive<R>,
    length: u64,
    buffer: &mut [u8],
    mut out: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let mut left = length;
    while left > 0 {
        let wanted = buffer.len().min(left.try_into().unwrap_or(usize::MAX));
        let read = archive.read(&mut buffer[..wanted]).map_err(damaged)?;
        if read == 0 {
            return Err(invalid("the member is shorter than it says"));
        }
        out(&buffer[..read])?;
        left -= read as u64;
    }
    Ok(())
}
