//! Packets between the main process and the holder: a letter, open descriptors beside it, a short text after it.
//!
//! Jobs themselves do not fit a packet; they travel in a memory file whose descriptor is the packet's first.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};

/// More descriptors than any packet has; the kernel takes no more than 253.
const DESCRIPTORS: usize = 224;

/// The longest packet.
const LONGEST: usize = 4096;

/// What a packet is for.
pub const UNSHARE: u8 = b'U';
/// The user namespace is mapped; descriptor: roots directory; text: the setting. The answer's text says why overlayfs
/// cannot write to it, or is empty.
pub const TRY: u8 = b'R';
/// The user namespace is mapped; descriptors: roots directory, listings directory; text: the setting. The answer's text
/// says why sandboxes have no procfs of their own, or is empty.
pub const ENTER: u8 = b'E';
/// A job; descriptors: the job, the end to answer on, then the job's own.
pub const JOB: u8 = b'J';
/// Done.
pub const DONE: u8 = b'D';
/// Not done; the text says why.
pub const FAILED: u8 = b'F';

/// A sandbox's terminal; descriptor: the side of whoever types.
pub const TERMINAL: u8 = b'T';

/// A process stands at a commit point; text: which, and its id; descriptor: it goes on when that is closed.
pub const COMMIT_POINT: u8 = b'C';

/// A received packet.
pub struct Packet {
    /// What it is for.
    pub letter: u8,
    /// What follows the letter.
    pub text: Vec<u8>,
    /// In the order they were sent.
    pub descriptors: Vec<OwnedFd>,
}

/// Sends one packet.
pub fn send(socket: impl AsFd, letter: u8, text: &[u8], descriptors: &[BorrowedFd]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::Error::other("too many descriptors"));
    }
    let text = &text[..text.len().min(LONGEST - 1)];
    let parts = [IoSlice::new(std::slice::from_ref(&letter)), IoSlice::new(text)];
    sendmsg(socket, &parts, &mut ancillary, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Receives one packet; `None` when the other side has gone.
pub fn receive(socket: impl AsFd) -> io::Result<Option<Packet>> {
    let mut bytes = [0; LONGEST];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let length = loop {
        let mut parts = [IoSliceMut::new(&mut bytes)];
        match recvmsg(&socket, &mut parts, &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::CONNRESET) => return Ok(None),
            other => break other?.bytes,
        }
    };
    if length == 0 {
        return Ok(None);
    }
    let mut descriptors = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            descriptors.extend(received);
        }
    }
    Ok(Some(Packet { letter: bytes[0], text: bytes[1..length].to_vec(), descriptors }))
}
