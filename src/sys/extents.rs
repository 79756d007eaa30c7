//! Where the bytes of files lie on their disk, and how full a btrfs is: what its owner, without any rights, may ask.

use std::io;
use std::os::fd::AsFd;

use linux_raw_sys::ioctl::{
    BTRFS_IOC_SPACE_INFO, FIEMAP_EXTENT_DATA_INLINE, FIEMAP_EXTENT_DELALLOC, FIEMAP_EXTENT_LAST, FIEMAP_EXTENT_SHARED,
    FIEMAP_EXTENT_UNKNOWN, FS_IOC_FIEMAP,
};
use rustix::ioctl::{Opcode, Updater, ioctl};

/// A piece of a file that lies in one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Its first byte, on the file system's own count.
    pub start: u64,
    /// How many bytes.
    pub bytes: u64,
    /// Some other file, or the same one in a snapshot, has these very bytes.
    pub shared: bool,
    /// It has a place. What is not written yet has none; nor has what lies among the file system's metadata.
    pub placed: bool,
    /// It lies among the metadata.
    pub inline: bool,
}

/// How many bytes of a btrfs are taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// By the contents of files.
    pub data: u64,
    /// By all else, with the copies of it, in bytes as `df` counts them.
    pub metadata: u64,
}

/// How many extents are asked for at a time.
const ROOM: usize = 64;
const FIEMAP: Opcode = FS_IOC_FIEMAP as Opcode;

/// `struct fiemap`, with room behind it.
#[repr(C)]
struct Request {
    start: u64,
    length: u64,
    flags: u32,
    mapped: u32,
    room: u32,
    reserved: u32,
    extents: [Found; ROOM],
}

/// `struct fiemap_extent`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Found {
    logical: u64,
    physical: u64,
    length: u64,
    reserved: [u64; 2],
    flags: u32,
    more_reserved: [u32; 3],
}

/// The extents of an open file, in its order; holes are none.
pub fn extents(file: impl AsFd) -> io::Result<Vec<Extent>> {
    let mut all = Vec::new();
    let mut start = 0;
    loop {
        let mut request = Request {
            start,
            length: u64::MAX - start,
            flags: 0,
            mapped: 0,
            room: ROOM as u32,
            reserved: 0,
            extents: [Found::default(); ROOM],
        };
        // SAFETY: the kernel reads and writes one `struct fiemap`, and writes at most `room` extents behind it, all of
        // which `request` has. Every bit pattern is a value of its integers.
        unsafe { ioctl(&file, Updater::<FIEMAP, _>::new(&mut request)) }?;
        let found = &request.extents[..(request.mapped as usize).min(ROOM)];
        let has = |found: &Found, flag| found.flags & flag != 0;
        all.extend(found.iter().map(|found| Extent {
            start: found.physical,
            bytes: found.length,
            shared: has(found, FIEMAP_EXTENT_SHARED),
            placed: !has(found, FIEMAP_EXTENT_UNKNOWN | FIEMAP_EXTENT_DELALLOC | FIEMAP_EXTENT_DATA_INLINE),
            inline: has(found, FIEMAP_EXTENT_DATA_INLINE),
        }));
        match found.last() {
            Some(last) if !has(last, FIEMAP_EXTENT_LAST) && last.logical + last.length > start => {
                start = last.logical + last.length;
            }
            _ => return Ok(all),
        }
    }
}

/// Kinds of space of a btrfs that are asked for.
const KINDS: usize = 16;
const SPACE_INFO: Opcode = BTRFS_IOC_SPACE_INFO as Opcode;
/// BTRFS_BLOCK_GROUP_DATA.
const DATA: u64 = 1;
/// BTRFS_BLOCK_GROUP_RAID1, _DUP and _RAID10: two copies of everything.
const TWICE: u64 = 1 << 4 | 1 << 5 | 1 << 6;
/// BTRFS_BLOCK_GROUP_RAID1C3, _RAID1C4: three and four.
/// BTRFS_SPACE_INFO_GLOBAL_RSV: set aside, not taken.
const RESERVE: u64 = 1 << 49;
/// BTRFS_BLOCK_GROUP_RAID1C3: three.
const THRICE: u64 = 1 << 9;
/// BTRFS_BLOCK_GROUP_RAID1C4: four.
const FOUR_TIMES: u64 = 1 << 10;

/// `struct btrfs_ioctl_space_args`, with room behind it.
#[repr(C)]
struct Spaces {
    room: u64,
    total: u64,
    spaces: [Space; KINDS],
}

/// `struct btrfs_ioctl_space_info`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Space {
    flags: u64,
    total: u64,
    used: u64,
}

/// How full the btrfs is on which a file or directory lies.
pub fn taken(file: impl AsFd) -> io::Result<Taken> {
    let mut spaces = Spaces { room: KINDS as u64, total: 0, spaces: [Space::default(); KINDS] };
    // SAFETY: the kernel reads and writes one `struct btrfs_ioctl_space_args`, and writes at most `room` entries behind
    // it, all of which `spaces` has. Every bit pattern is a value of its integers.
    unsafe { ioctl(file, Updater::<SPACE_INFO, _>::new(&mut spaces)) }?;
    let found = &spaces.spaces[..(spaces.total as usize).min(KINDS)];
    let of =
        |data: bool| found.iter().filter(move |space| (space.flags & DATA != 0) == data && space.flags & RESERVE == 0);
    // `df` counts the copies of data as one.
    let copies_of_data = of(true).map(|space| copies(space.flags)).max().unwrap_or(1);
    Ok(Taken {
        data: of(true).map(|space| space.used).sum(),
        metadata: of(false).map(|space| space.used * copies(space.flags)).sum::<u64>() / copies_of_data,
    })
}

fn copies(flags: u64) -> u64 {
    match flags {
        flags if flags & TWICE != 0 => 2,
        flags if flags & THRICE != 0 => 3,
        flags if flags & FOUR_TIMES != 0 => 4,
        _ => 1,
    }
}
