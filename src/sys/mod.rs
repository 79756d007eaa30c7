//! The system calls that no crate makes safely, or for good: the only place for `unsafe`, each with its argument.

pub mod btrfs;
pub mod extents;

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::ptr;

use memmap2::Mmap;
use nix::libc;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal};
use nix::unistd::{ForkResult, Pid};
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;
use rustix::path::Arg;

/// Maps a file that nobody writes any more.
pub fn map(file: &File) -> io::Result<Mmap> {
    // SAFETY: the files mapped here (listings) are written once under another name or descriptor, are immutable from
    // then on, and lie in directories that only their owner can write. Their text is never trusted to be valid.
    unsafe { Mmap::map(file) }
}

/// How often [`open_resolved`] tries: more often than others can be in the way.
const TRIES: usize = 10_000;

/// openat2(2) with `..` allowed. While anybody on the machine renames or mounts something the kernel may be unable to
/// say that a path stays where it must, and asks to be asked again.
pub fn open_resolved(
    at: impl AsFd,
    path: impl Arg + Copy,
    flags: OFlags,
    resolve: ResolveFlags,
) -> io::Result<OwnedFd> {
    let mut tries = 0;
    loop {
        match openat2(&at, path, flags, Mode::empty(), resolve) {
            Err(Errno::AGAIN) if tries < TRIES => tries += 1,
            other => return Ok(other?),
        }
    }
}

/// Which of the two processes came back from [`fork`].
pub enum Fork {
    /// The caller; with the child's id.
    Parent(Pid),
    /// The new process.
    Child,
}

/// Makes a copy of this process, which must have one thread only; else the call is refused.
pub fn fork() -> io::Result<Fork> {
    if std::fs::read_dir("/proc/self/task").is_ok_and(|threads| threads.count() > 1) {
        return Err(io::Error::other("a process with several threads must not fork"));
    }
    // SAFETY: what makes fork unsafe is a lock (the allocator's, say) that another thread holds at that moment and that
    // nobody will ever release in the child. There is no other thread.
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Parent { child } => Ok(Fork::Parent(child)),
        ForkResult::Child => Ok(Fork::Child),
    }
}

/// Ends this process at once: no exit handlers, no flushing of buffers that a fork copied from its parent.
pub fn exit(code: i32) -> ! {
    // SAFETY: `_exit` does not return and touches no memory of this process.
    unsafe { libc::_exit(code) }
}

/// Every signal does again what it does by default (Rust's start-up ignores SIGPIPE; our caller may ignore others).
pub fn default_signals() {
    // The kernel's struct sigaction: a null handler is SIG_DFL, and no flag or mask means anything beside it.
    let default = [0u64; 4];
    for signal in 1..=libc::SIGRTMAX() {
        // SAFETY: the kernel reads its struct sigaction, 32 bytes at most on any architecture, from `default`, and
        // installs no code of ours. The system call, since the C library hides two signals that it uses for threads;
        // in a process with one thread it has no use for them. SIGKILL and SIGSTOP are refused, and always default.
        unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), ptr::null::<u64>(), 8usize) };
    }
}

/// Ignores a signal, or gives it its default action again.
pub fn set_signal_action(signal: Signal, handler: SigHandler) -> io::Result<()> {
    debug_assert!(matches!(handler, SigHandler::SigDfl | SigHandler::SigIgn));
    let action = SigAction::new(handler, SaFlags::empty(), SigSet::empty());
    // SAFETY: no handler function is installed, so nothing runs in the context of a signal.
    unsafe { nix::sys::signal::sigaction(signal, &action) }?;
    Ok(())
}

/// Closes all descriptors from 3 on but those in `keep`.
///
/// For a fork that leaves by [`exit`] and neither uses nor drops any other descriptor that its copied memory names.
pub fn close_except(keep: &[RawFd]) {
    let mut keep: Vec<u32> = keep.iter().filter_map(|fd| u32::try_from(*fd).ok()).filter(|fd| *fd > 2).collect();
    keep.sort_unstable();
    let mut from = 3;
    for fd in keep {
        if fd > from {
            close_range(from, fd - 1, 0);
        }
        from = fd + 1;
    }
    close_range(from, u32::MAX, 0);
}

/// All descriptors from 3 on close at the next exec.
pub fn close_at_exec() {
    close_range(3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC);
}

/// Falls back to one call for each descriptor where a filter or a kernel does not let the call through.
fn close_range(first: u32, last: u32, flags: libc::c_uint) {
    // SAFETY: takes numbers only. The callers promise that no live owner of a closed descriptor uses it.
    if unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) } == 0 {
        return;
    }
    let names = std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let open: Vec<RawFd> = names.filter_map(|name| name.file_name().to_str()?.parse().ok()).collect();
    for fd in open.into_iter().filter(|fd| u32::try_from(*fd).is_ok_and(|fd| (first..=last).contains(&fd))) {
        // SAFETY: as above; the descriptor of the directory itself is closed already, which is only EBADF.
        unsafe {
            if flags == 0 {
                libc::close(fd);
            } else {
                libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC);
            }
        }
    }
}

/// Leaves the session keyring of whoever started this process for a new, empty one.
pub fn fresh_session_keyring() -> io::Result<()> {
    const JOIN_SESSION_KEYRING: libc::c_ulong = 1;
    // SAFETY: the null pointer asks for an anonymous keyring; the kernel reads no memory.
    match unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, ptr::null::<libc::c_char>()) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// What is to become of a mount that is in no namespace yet, and of those beneath it: always private and without
/// set-user-id programs.
#[derive(Clone, Copy, Debug)]
pub struct MountChange<'a> {
    /// Nobody may write to it.
    pub read_only: bool,
    /// Owners are shown by the map of this user namespace.
    pub ids_of: Option<&'a File>,
}

/// mount_setattr(2).
pub fn change_mount(mount: &impl AsFd, change: MountChange) -> io::Result<()> {
    let mut set = libc::MOUNT_ATTR_NOSUID;
    if change.read_only {
        set |= libc::MOUNT_ATTR_RDONLY;
    }
    let mut attributes = libc::mount_attr { attr_set: set, attr_clr: 0, propagation: libc::MS_PRIVATE, userns_fd: 0 };
    if let Some(namespace) = change.ids_of {
        attributes.attr_set |= libc::MOUNT_ATTR_IDMAP;
        attributes.userns_fd = namespace.as_raw_fd() as u64;
    }
    let flags = libc::AT_EMPTY_PATH | libc::AT_RECURSIVE;
    let (fd, size) = (mount.as_fd().as_raw_fd(), size_of::<libc::mount_attr>());
    // SAFETY: the kernel reads `size` bytes of `attributes`, and an empty path; it writes nothing.
    match unsafe { libc::syscall(libc::SYS_mount_setattr, fd, c"".as_ptr(), flags, &raw const attributes, size) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// What `ps` shows as this process's command line. It uses up the arguments and the environment that the process
/// started with: for a fork that asks for neither any more.
pub fn set_command_line(title: &str) -> io::Result<()> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    // The name (field 2) may hold blanks and parentheses: count from its end. Fields 48 to 51 are the two areas.
    let fields: Vec<usize> = stat
        .rsplit_once(')')
        .map(|(_, rest)| rest.split_ascii_whitespace().map(|field| field.parse().unwrap_or(0)).collect())
        .unwrap_or_default();
    let &[arguments, arguments_end, environment, environment_end] =
        fields.get(45..49).unwrap_or_default().first_chunk::<4>().unwrap_or(&[0; 4]);
    let adjacent = arguments_end == environment && environment_end >= environment;
    let end = if adjacent { environment_end } else { arguments_end };
    if arguments == 0 || end < arguments + 2 || arguments_end <= arguments {
        return Err(io::Error::other("the kernel does not say where the command line is"));
    }
    let length = title.len().min(end - arguments - 1);
    // SAFETY: the kernel names this very process's argument (and, if adjacent, environment) strings: its own writable
    // stack, mapped for the life of the process, with no Rust object in it. Who reads them (`env::vars`, `getenv`)
    // finds other bytes, but the last byte stays NUL, so every read ends inside. One thread only: no race.
    unsafe {
        let area = ptr::with_exposed_provenance_mut::<u8>(arguments);
        ptr::write_bytes(area, 0, end - arguments);
        ptr::copy_nonoverlapping(title.as_ptr(), area, length);
        if adjacent && length < arguments_end - arguments - 1 {
            // Not NUL at the end of the arguments: the kernel then shows the text up to the first NUL, no padding.
            ptr::write(area.add(arguments_end - arguments - 1), b'.');
        }
    }
    Ok(())
}

/// Answers for system calls of this process, and of all that it starts, from now on: a program of the kernel's old
/// packet filter. For a process that is root of its user namespace.
pub fn filter_system_calls(program: &[libc::sock_filter]) -> io::Result<()> {
    let length = u16::try_from(program.len()).map_err(|_| io::Error::other("the filter is too long"))?;
    let program = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut() };
    // SAFETY: the kernel reads `len` instructions from `filter`, which the slice holds, copies and checks them; it
    // writes nothing.
    match unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}
