//! Brings up the loopback interface of a new network namespace, by one netlink message.

use std::io;
use std::os::fd::AsRawFd;

use nix::libc;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};

/// The first interface of every network namespace is `lo`.
const LOOPBACK: i32 = 1;
const HEADER: usize = 16;

/// Sets IFF_UP on `lo` and waits for the kernel's answer.
pub fn bring_up() -> io::Result<()> {
    let netlink = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute)?;
    send(netlink.as_raw_fd(), &request(), MsgFlags::empty())?;
    let mut answer = [0; 512];
    let length = recv(netlink.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    // struct nlmsghdr, then struct nlmsgerr whose first field is 0 or a negative errno.
    let kind = u16::from_ne_bytes([answer[4], answer[5]]);
    let error = i32::from_ne_bytes([answer[HEADER], answer[HEADER + 1], answer[HEADER + 2], answer[HEADER + 3]]);
    match (length >= HEADER + 4 && i32::from(kind) == libc::NLMSG_ERROR, error) {
        (true, 0) => Ok(()),
        (true, error) => Err(io::Error::from_raw_os_error(-error)),
        (false, _) => Err(io::Error::other("the kernel's answer is not understood")),
    }
}

/// struct nlmsghdr and struct ifinfomsg.
fn request() -> Vec<u8> {
    let mut message = Vec::with_capacity(2 * HEADER);
    message.extend(32u32.to_ne_bytes());
    message.extend(libc::RTM_NEWLINK.to_ne_bytes());
    message.extend(((libc::NLM_F_REQUEST | libc::NLM_F_ACK) as u16).to_ne_bytes());
    message.extend([0; 8]);
    message.extend([0; 4]);
    message.extend(LOOPBACK.to_ne_bytes());
    message.extend((libc::IFF_UP as u32).to_ne_bytes());
    message.extend((libc::IFF_UP as u32).to_ne_bytes());
    message
}
