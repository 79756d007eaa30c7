//! Putting one member of an archive where it belongs.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;
use std::rc::Rc;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, linkat, mkfifoat, openat, statat, symlinkat};
use rustix::io::Errno;

use super::archive::{Archive, Member, invalid};
use super::root::{Before, path_of};
use super::{IDS, LONGEST_PATH, Unpacking, Whiteouts, clean, fault, resolving};
use crate::digest::ContentDigest;
use crate::listing::{Entry, Kind, join, split};
use crate::seal::failure::{machine, users};
use crate::text::escape;
use crate::worker::message::Failure;

impl Unpacking<'_> {
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
                Kind::Directory { .. } => self.root_member(entry),
                _ => Err(users("unpack", b"", "the root is a directory, not what the archive says")),
            };
        }
        let directory = self.parent(above)?;
        if name.starts_with(b".wh.") {
            return self.whiteout(&directory, above, name, &entry);
        }
        let failed = |error| fault(&entry.path, error);
        match &entry.kind {
            Kind::Directory { .. } => return self.make_directory(&directory, name, &entry, true),
            Kind::HardLink { to } => return self.hard_link(&directory, name, to, &entry),
            Kind::File { .. } => self.file(&directory, name, &member, archive).map_err(failed)?,
            Kind::Symlink { target } => {
                self.create(&directory, name, || symlinkat(target.as_slice(), &directory, name)).map_err(failed)?
            }
            _ => self
                .create(&directory, name, || mkfifoat(&directory, name, Mode::from_raw_mode(0o600)))
                .map_err(failed)?,
        }
        self.own(&directory, name, &entry).and_then(|()| self.complete(&directory, name, &entry)).map_err(failed)
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

    fn root_member(&mut self, entry: Entry) -> Result<(), Failure> {
        let root = self.parent(b"")?;
        self.own(&root, b".", &entry)
            .and_then(|()| self.finish_later(&root, b".", entry))
            .map_err(|error| machine("unpack", b"", error))
    }

    /// Calls `make`, which must not replace anything; where something stands, that goes first.
    fn create<T>(
        &mut self,
        directory: &OwnedFd,
        name: &[u8],
        make: impl Fn() -> rustix::io::Result<T>,
    ) -> io::Result<T> {
        match make() {
            Err(Errno::EXIST) => {
                self.root.clear(directory, name, false)?;
                Ok(make()?)
            }
            result => Ok(result?),
        }
    }

    fn file<R: Read>(
        &mut self,
        at: &OwnedFd,
        name: &[u8],
        member: &Member,
        archive: &mut Archive<R>,
    ) -> io::Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = File::from(self.create(at, name, || openat(at, name, flags, Mode::from_raw_mode(0o600)))?);
        let mut buffer = vec![0; member.size.clamp(1, 1 << 17) as usize];
        let Some(segments) = &member.sparse else { return copy(archive, &mut file, member.size, &mut buffer) };
        file.set_len(member.size)?;
        for segment in segments {
            file.seek(SeekFrom::Start(segment.offset))?;
            copy(archive, &mut file, segment.length, &mut buffer)?;
        }
        Ok(())
    }

    fn hard_link(&mut self, at: &OwnedFd, name: &[u8], to: &[u8], entry: &Entry) -> Result<(), Failure> {
        let outside =
            || users("unpack", &entry.path, format!("links to /{}, which is no file in this archive", escape(to)));
        let (above, first) = split(to);
        let from = match self.root.directory(above) {
            Err(error) if Errno::from_io_error(&error) == Some(Errno::NOENT) => return Err(outside()),
            result => result.map_err(|error| resolving(above, error))?,
        };
        let failed = |error: Errno| machine("link", &entry.path, error.into());
        let stat = statat(&from, first, AtFlags::SYMLINK_NOFOLLOW).map_err(|_| outside())?;
        if to.is_empty()
            || FileType::from_raw_mode(stat.st_mode) == FileType::Directory
            || self.root.marks.is_whiteout(&stat)
        {
            return Err(outside());
        }
        match statat(at, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => {}
            Ok(standing) if (standing.st_dev, standing.st_ino) == (stat.st_dev, stat.st_ino) => return Ok(()),
            Ok(_) => drop(self.root.clear(at, name, false).map_err(|error| machine("replace", &entry.path, error))?),
            Err(error) => return Err(failed(error)),
        }
        match linkat(&from, first, at, name, AtFlags::empty()) {
            // It was in the directory that just went to make way for the link.
            Err(Errno::NOENT) => Err(outside()),
            result => result.map_err(failed),
        }
    }

    /// A whiteout tells of the layers beneath only: what this archive itself brings stays, whatever the order.
    fn whiteout(&mut self, at: &Rc<OwnedFd>, above: &[u8], name: &[u8], entry: &Entry) -> Result<(), Failure> {
        let removed = &name[4..];
        if self.whiteouts == Whiteouts::Literal {
            return Err(users("unpack", &entry.path, "a name that starts with `.wh.` means a removed file in a layer"));
        }
        let failed = |error| machine("unpack", &entry.path, error);
        let marks = self.root.marks;
        let opaque = |path: std::path::PathBuf| marks.make_opaque(&path).map_err(failed);
        match removed {
            b".wh..opq" => return opaque(path_of(at, b".")),
            b"" | b"." | b".." => return Err(users("unpack", &entry.path, "a whiteout of nothing")),
            // aufs's own notes, which never were part of an image.
            _ if removed.starts_with(b".wh.") => return Ok(()),
            _ => {}
        }
        let path = join(above, removed);
        match self.root.standing(at, removed).map_err(failed)? {
            Before::Directory => opaque(path_of(at, removed)),
            Before::Other => Ok(()),
            Before::Nothing | Before::Whiteout => {
                marks.whiteout(at, removed).map_err(|error| machine("remove", &path, error))?;
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

fn copy<R: Read>(archive: &mut Archive<R>, file: &mut File, length: u64, buffer: &mut [u8]) -> io::Result<()> {
    let mut left = length;
    while left > 0 {
        let wanted = buffer.len().min(left.try_into().unwrap_or(usize::MAX));
        let read = archive.read(&mut buffer[..wanted]).map_err(damaged)?;
        if read == 0 {
            return Err(invalid("the member is shorter than it says"));
        }
        file.write_all(&buffer[..read])?;
        left -= read as u64;
    }
    Ok(())
}
