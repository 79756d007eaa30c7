//! btrfs's ioctls on subvolumes, all of which an ordinary user may do to what it owns (`man btrfs-ioctl`).
//!
//! Destroying one asks for the mount option `user_subvol_rm_allowed`.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;

use linux_raw_sys::btrfs::{BTRFS_SUBVOL_RDONLY, btrfs_ioctl_vol_args, btrfs_ioctl_vol_args_v2};
use linux_raw_sys::ioctl::{
    BTRFS_IOC_SNAP_CREATE_V2, BTRFS_IOC_SNAP_DESTROY, BTRFS_IOC_SUBVOL_CREATE, BTRFS_IOC_SUBVOL_GETFLAGS,
    BTRFS_IOC_SUBVOL_SETFLAGS,
};
use rustix::ioctl::{Getter, Opcode, Setter, ioctl};

const GET_FLAGS: Opcode = BTRFS_IOC_SUBVOL_GETFLAGS as Opcode;
const SET_FLAGS: Opcode = BTRFS_IOC_SUBVOL_SETFLAGS as Opcode;
const CREATE: Opcode = BTRFS_IOC_SUBVOL_CREATE as Opcode;
const DESTROY: Opcode = BTRFS_IOC_SNAP_DESTROY as Opcode;
const SNAPSHOT: Opcode = BTRFS_IOC_SNAP_CREATE_V2 as Opcode;
/// Bytes of a name, without the NUL.
const NAME: usize = 255;

/// Makes an empty subvolume `name` in the directory `parent`.
pub fn create_subvolume(parent: impl AsFd, name: &OsStr) -> io::Result<()> {
    // SAFETY: the kernel reads one `btrfs_ioctl_vol_args`, which is what the setter points to, and writes nothing.
    Ok(unsafe { ioctl(parent, Setter::<CREATE, _>::new(arguments(name)?)) }?)
}

/// Makes a writable snapshot `name` of the subvolume `source` in the directory `parent`.
pub fn snapshot(source: impl AsFd, parent: impl AsFd, name: &OsStr) -> io::Result<()> {
    // SAFETY: a structure of integers and bytes, for which all zeros are a value.
    let mut arguments: btrfs_ioctl_vol_args_v2 = unsafe { std::mem::zeroed() };
    arguments.fd = source.as_fd().as_raw_fd().into();
    // SAFETY: the name is the only member of this union that is used, and all bytes of it are initialised.
    copy_name(name, unsafe { &mut arguments.__bindgen_anon_2.name })?;
    // SAFETY: the kernel reads one `btrfs_ioctl_vol_args_v2`, which is what the setter points to. Without flags it
    // follows no pointer in it; that it writes back `transid` changes the setter's own copy.
    Ok(unsafe { ioctl(parent, Setter::<SNAPSHOT, _>::new(arguments)) }?)
}

/// Destroys the subvolume `name` in the directory `parent`, with all that is in it; the kernel takes it apart later.
pub fn destroy_subvolume(parent: impl AsFd, name: &OsStr) -> io::Result<()> {
    // SAFETY: the kernel reads one `btrfs_ioctl_vol_args`, which is what the setter points to, and writes nothing.
    Ok(unsafe { ioctl(parent, Setter::<DESTROY, _>::new(arguments(name)?)) }?)
}

/// Makes a subvolume read-only, or writable again.
pub fn set_read_only(subvolume: BorrowedFd, read_only: bool) -> io::Result<()> {
    // SAFETY: the kernel writes one u64.
    let flags: u64 = unsafe { ioctl(subvolume, Getter::<GET_FLAGS, u64>::new()) }?;
    let bit = u64::from(BTRFS_SUBVOL_RDONLY);
    let wanted = if read_only { flags | bit } else { flags & !bit };
    // SAFETY: the kernel reads one u64.
    Ok(unsafe { ioctl(subvolume, Setter::<SET_FLAGS, u64>::new(wanted)) }?)
}

fn arguments(name: &OsStr) -> io::Result<btrfs_ioctl_vol_args> {
    let mut arguments = btrfs_ioctl_vol_args { fd: 0, name: [0; 4088] };
    copy_name(name, &mut arguments.name)?;
    Ok(arguments)
}

fn copy_name(name: &OsStr, into: &mut [std::ffi::c_char]) -> io::Result<()> {
    if name.len() > NAME || name.as_bytes().contains(&0) {
        return Err(io::ErrorKind::InvalidFilename.into());
    }
    for (to, from) in into.iter_mut().zip(name.as_bytes()) {
        *to = *from as std::ffi::c_char;
    }
    Ok(())
}
