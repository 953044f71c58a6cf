//! A socket on which the kernel tells news. Anybody on this machine may send to it, so what did not come from the kernel is dropped,
//! and so is what did not fit.

use std::io::IoSliceMut;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{
    AddressFamily, Protocol, RecvAncillaryBuffer, RecvFlags, ReturnFlags, SendFlags, SocketFlags, SocketType, bind,
    recvmsg, send, socket_with,
};

/// Larger than any datagram that is believed: the kernel fills at most 32 KiB of a dump at a time.
const DATAGRAM_BYTES_MAX: usize = 64 * 1024;

/// A socket that hears one or more groups of the kernel.
pub(super) struct Netlink {
    socket: OwnedFd,
    buffer: Vec<u8>,
}

/// What was heard.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard<'a> {
    /// A datagram of the kernel.
    Kernel(&'a [u8]),
    /// News were lost: they came faster than they were read.
    Lost,
}

impl Netlink {
    /// A socket of a netlink family (`None` is rtnetlink, number 0) that hears these groups.
    ///
    /// # Errors
    /// What the kernel says: in a sandbox there may be none.
    pub(super) fn open(family: Option<Protocol>, groups: u32) -> std::io::Result<Self> {
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, family)?;
        bind(&socket, &SocketAddrNetlink::new(0, groups))?;
        Ok(Self { socket, buffer: vec![0; DATAGRAM_BYTES_MAX] })
    }

    /// Asks the kernel.
    ///
    /// # Errors
    /// What the kernel says.
    pub(super) fn ask(&self, request: &[u8]) -> std::io::Result<()> {
        send(&self.socket, request, SendFlags::empty())?;
        Ok(())
    }

    /// Waits for the next datagram of the kernel.
    ///
    /// # Errors
    /// If the socket is of no use any more.
    pub(super) fn hear(&mut self) -> std::io::Result<Heard<'_>> {
        let length = loop {
            let mut ancillary = RecvAncillaryBuffer::default();
            let mut parts = [IoSliceMut::new(&mut self.buffer)];
            let received = match recvmsg(&self.socket, &mut parts, &mut ancillary, RecvFlags::empty()) {
                Ok(received) => received,
                Err(Errno::INTR) => continue,
                Err(Errno::NOBUFS) => return Ok(Heard::Lost),
                Err(error) => return Err(error.into()),
            };
            let sender = received.address.and_then(|address| SocketAddrNetlink::try_from(address).ok());
            if sender.is_none_or(|sender| sender.pid() != 0) {
                continue;
            }
            if received.flags.contains(ReturnFlags::TRUNC) {
                return Ok(Heard::Lost);
            }
            break received.bytes;
        };
        Ok(Heard::Kernel(self.buffer.get(..length).unwrap_or_default()))
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use rustix::net::netlink::USERSOCK;
    use rustix::net::{getsockname, sendto};

    use super::*;

    #[test]
    fn what_another_process_sends_is_not_heard() {
        let Ok(mut hearer) = Netlink::open(None, 0) else {
            eprintln!("skipped: there is no netlink here");
            return;
        };
        let address = SocketAddrNetlink::try_from(getsockname(hearer.socket.as_fd()).unwrap()).unwrap();
        let stranger = Netlink::open(None, 0).unwrap();
        let _ = sendto(&stranger.socket, b"add@/devices/evil", SendFlags::empty(), &address);
        // The kernel answers a request that makes no sense with an error: that is the first thing that is heard.
        hearer.ask(&nonsense()).unwrap();
        let Heard::Kernel(answer) = hearer.hear().unwrap() else { panic!("the answer was lost") };
        assert_eq!(answer.get(4..6), Some(2_u16.to_ne_bytes().as_slice()), "NLMSG_ERROR: {answer:?}");
    }

    #[test]
    fn a_family_that_nobody_serves_is_an_error_or_silent() {
        // The number exists for user space; it is enough that nothing panics.
        let opened = Netlink::open(Some(USERSOCK), 0);
        assert!(opened.is_ok() || opened.is_err_and(|error| error.raw_os_error().is_some()));
    }

    /// A request of a type that no family has.
    fn nonsense() -> Vec<u8> {
        let mut request = Vec::new();
        request.extend_from_slice(&16_u32.to_ne_bytes());
        request.extend_from_slice(&0xfff0_u16.to_ne_bytes());
        request.extend_from_slice(&5_u16.to_ne_bytes()); // NLM_F_REQUEST | NLM_F_ACK
        request.extend_from_slice(&[0; 8]);
        request
    }
}
