//! Network interfaces that can be used, or not any more, as the kernel tells it (rtnetlink).
//!
//! ```text
//!   start: dump ──▶ what is usable now, nobody is told
//!   RTM_NEWLINK  ──▶ not usable → usable: LinkUp      usable → not usable: LinkDown
//!   RTM_DELLINK  ──▶ usable → gone: LinkDown
//!   RTM_NEWADDR  ──▶ a new address on a usable one: LinkUp again
//!   news lost    ──▶ dump again: what it does not name has gone
//! ```
//!
//! Usable means that it is switched on, that there is a carrier, and that nothing else keeps it down (RFC 2863). Where addresses are given
//! by others, it is of use only a moment later, so a new address that is valid beyond the link counts as well. The loopback leads
//! nowhere and does not count; nor does the port of a bridge, which the bridge itself stands for. Every length is checked: a datagram
//! that lies about itself is read up to the lie.

use std::collections::{BTreeMap, BTreeSet};

use spooler_protocol::notification::SystemMessage;

use crate::supervisor::event::Event;
use crate::system::mailbox::{Letter, Mailbox};
use crate::system::netlink::{Heard, Netlink};

/// RTMGRP_LINK, RTMGRP_IPV4_IFADDR and RTMGRP_IPV6_IFADDR of rtnetlink(7).
const GROUPS: u32 = 0x1 | 0x10 | 0x100;
const NLMSG_DONE: u16 = 3;
const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
/// NLM_F_REQUEST and NLM_F_DUMP.
const ASK_FOR_ALL: u16 = 0x301;
const IFLA_IFNAME: u16 = 3;
const IFLA_MASTER: u16 = 10;
const IFLA_OPERSTATE: u16 = 16;
const IFA_ADDRESS: u16 = 1;
/// Whether the address is still being looked at for a second owner.
const IFA_F_TENTATIVE: u8 = 0x40;
const RT_SCOPE_UNIVERSE: u8 = 0;
const IFF_UP: u32 = 0x1;
const IFF_LOOPBACK: u32 = 0x8;
const IFF_LOWER_UP: u32 = 0x1_0000;
const OPER_UNKNOWN: u8 = 0;
const OPER_UP: u8 = 6;
const HEADER_BYTES: usize = 16;
/// `struct ifinfomsg`.
const INFO_BYTES: usize = 16;
/// `struct ifaddrmsg`.
const ADDRESS_INFO_BYTES: usize = 8;
/// An address of IPv6.
const ADDRESS_BYTES_MAX: usize = 16;
/// IFNAMSIZ.
const NAME_BYTES_MAX: usize = 16;
/// Interfaces that are remembered, and addresses.
const LINKS_MAX: usize = 4096;

/// Starts the thread that listens. Without rtnetlink the spooler works as well; it then does not see that the network is back.
///
/// # Errors
/// If there is no rtnetlink here, or no thread can be had.
pub fn start(mailbox: Mailbox) -> std::io::Result<()> {
    let mut netlink = Netlink::open(None, GROUPS)?;
    netlink.ask(&dump_request())?;
    let listen = move || {
        let mut links = Links::default();
        loop {
            let news = match netlink.hear() {
                Ok(Heard::Kernel(datagram)) => links.read(datagram),
                Ok(Heard::Lost) => {
                    links.begin_dump();
                    if let Err(error) = netlink.ask(&dump_request()) {
                        return tracing::warn!(%error, "network interface monitoring ended");
                    }
                    continue;
                }
                Err(error) => return tracing::warn!(%error, "network interface monitoring ended"),
            };
            news.into_iter().for_each(|message| mailbox.put(Letter::Event(Event::System(message))));
        }
    };
    std::thread::Builder::new().name("links".to_owned()).stack_size(128 * 1024).spawn(listen)?;
    Ok(())
}

/// "Name all interfaces."
fn dump_request() -> Vec<u8> {
    let length = u32::try_from(HEADER_BYTES + INFO_BYTES).unwrap_or_default();
    let mut request = Vec::with_capacity(HEADER_BYTES + INFO_BYTES);
    request.extend_from_slice(&length.to_ne_bytes());
    request.extend_from_slice(&RTM_GETLINK.to_ne_bytes());
    request.extend_from_slice(&ASK_FOR_ALL.to_ne_bytes());
    request.resize(HEADER_BYTES + INFO_BYTES, 0);
    request
}

/// An interface as it was last heard of.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Link {
    name: String,
    usable: bool,
}

/// All interfaces.
#[derive(Debug)]
struct Links {
    known: BTreeMap<i32, Link>,
    addresses: BTreeSet<(i32, Vec<u8>)>,
    /// Those that the dump under way has named so far.
    named: Option<BTreeSet<i32>>,
    /// Whether what is heard is news, or the first dump.
    news: bool,
}

impl Default for Links {
    fn default() -> Self {
        Self { known: BTreeMap::new(), addresses: BTreeSet::new(), named: Some(BTreeSet::new()), news: false }
    }
}

impl Links {
    fn begin_dump(&mut self) {
        self.named = Some(BTreeSet::new());
    }

    /// Takes one datagram and gives what has changed.
    fn read(&mut self, datagram: &[u8]) -> Vec<SystemMessage> {
        let mut news = Vec::new();
        let mut rest = datagram;
        while let Some((kind, body, after)) = next_message(rest) {
            rest = after;
            match kind {
                RTM_NEWLINK => {
                    if let Some((index, link)) = read_link(body) {
                        news.extend(self.take(index, link));
                    }
                }
                RTM_DELLINK => {
                    if let Some(index) = index_of(body) {
                        news.extend(self.forget(index));
                    }
                }
                RTM_NEWADDR => news.extend(read_address(body).and_then(|address| self.take_address(address))),
                RTM_DELADDR => {
                    if let Some(address) = read_address(body) {
                        self.addresses.remove(&address);
                    }
                }
                NLMSG_DONE => news.extend(self.end_dump()),
                _ => {}
            }
        }
        news
    }

    fn take(&mut self, index: i32, link: Link) -> Option<SystemMessage> {
        if let Some(named) = &mut self.named {
            named.insert(index);
        }
        if self.known.len() >= LINKS_MAX && !self.known.contains_key(&index) {
            return None;
        }
        let (name, usable) = (link.name.clone(), link.usable);
        let before = self.known.insert(index, link).is_some_and(|before| before.usable);
        match (before, usable) {
            _ if !self.news => None,
            (false, true) => Some(SystemMessage::LinkUp { interface: name }),
            (true, false) => Some(SystemMessage::LinkDown { interface: name }),
            (false, false) | (true, true) => None,
        }
    }

    /// An address is told again whenever its time is prolonged: only a new one is news.
    fn take_address(&mut self, address: (i32, Vec<u8>)) -> Option<SystemMessage> {
        let index = address.0;
        if self.addresses.len() >= LINKS_MAX || !self.addresses.insert(address) || !self.news {
            return None;
        }
        let link = self.known.get(&index).filter(|link| link.usable)?;
        Some(SystemMessage::LinkUp { interface: link.name.clone() })
    }

    fn forget(&mut self, index: i32) -> Option<SystemMessage> {
        self.addresses.retain(|(of, _)| *of != index);
        let gone = self.known.remove(&index).filter(|link| link.usable)?;
        Some(SystemMessage::LinkDown { interface: gone.name })
    }

    fn end_dump(&mut self) -> Vec<SystemMessage> {
        self.news = true;
        let Some(named) = self.named.take() else { return Vec::new() };
        let gone: Vec<i32> = self.known.keys().copied().filter(|index| !named.contains(index)).collect();
        gone.into_iter().filter_map(|index| self.forget(index)).collect()
    }
}

/// The type and the body of the first message of a datagram, and what comes after it.
fn next_message(datagram: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = usize::try_from(u32_at(datagram, 0)?).ok()?;
    let kind = u16_at(datagram, 4)?;
    let body = datagram.get(HEADER_BYTES..length)?;
    Some((kind, body, datagram.get(aligned(length)..).unwrap_or_default()))
}

/// An interface in the body of a message about it, and its number.
fn read_link(body: &[u8]) -> Option<(i32, Link)> {
    let index = index_of(body)?;
    let flags = u32_at(body, 8)?;
    let (mut name, mut state, mut port) = (None, None, false);
    let mut rest = body.get(INFO_BYTES..)?;
    while let Some((kind, value, after)) = next_attribute(rest) {
        rest = after;
        match kind {
            IFLA_IFNAME => name = read_name(value),
            IFLA_OPERSTATE => state = value.first().copied(),
            IFLA_MASTER => port = true,
            _ => {}
        }
    }
    // News of a radio come as messages of this kind too, but without a state: they are not about it.
    let state = state?;
    let up = flags & IFF_UP != 0 && flags & IFF_LOWER_UP != 0 && matches!(state, OPER_UP | OPER_UNKNOWN);
    Some((index, Link { name: name?, usable: up && !port && flags & IFF_LOOPBACK == 0 }))
}

/// The interface and the address in the body of a message about it, if the address is ready and valid beyond the link.
fn read_address(body: &[u8]) -> Option<(i32, Vec<u8>)> {
    let (flags, scope) = (*body.get(2)?, *body.get(3)?);
    if flags & IFA_F_TENTATIVE != 0 || scope != RT_SCOPE_UNIVERSE {
        return None;
    }
    let index = index_of(body)?;
    let mut rest = body.get(ADDRESS_INFO_BYTES..)?;
    while let Some((kind, value, after)) = next_attribute(rest) {
        rest = after;
        if kind == IFA_ADDRESS && value.len() <= ADDRESS_BYTES_MAX {
            return Some((index, value.to_vec()));
        }
    }
    None
}

fn index_of(body: &[u8]) -> Option<i32> {
    Some(i32::from_ne_bytes(*body.get(4..)?.first_chunk()?))
}

fn next_attribute(attributes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = usize::from(u16_at(attributes, 0)?);
    let kind = u16_at(attributes, 2)?;
    let value = attributes.get(4..length)?;
    Some((kind, value, attributes.get(aligned(length)..).unwrap_or_default()))
}

fn read_name(value: &[u8]) -> Option<String> {
    let name = std::str::from_utf8(value.strip_suffix(&[0])?).ok()?;
    let good = !name.is_empty() && name.len() < NAME_BYTES_MAX && !name.contains(|c: char| c.is_control() || c == '/');
    good.then(|| name.to_owned())
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// Everything in netlink begins at a multiple of four.
fn aligned(length: usize) -> usize {
    length.next_multiple_of(4)
}

#[cfg(test)]
mod tests {
    use super::*;

    const UP: u32 = IFF_UP | IFF_LOWER_UP;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = u16::try_from(value.len() + 4).unwrap().to_ne_bytes().to_vec();
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(value);
        bytes.resize(aligned(bytes.len()), 0);
        bytes
    }

    fn message(kind: u16, index: i32, flags: u32, attributes: &[Vec<u8>]) -> Vec<u8> {
        let mut body = vec![0; 4];
        body.extend_from_slice(&index.to_ne_bytes());
        body.extend_from_slice(&flags.to_ne_bytes());
        body.extend_from_slice(&[0; 4]);
        body.extend(attributes.iter().flatten());
        let mut bytes = u32::try_from(body.len() + HEADER_BYTES).unwrap().to_ne_bytes().to_vec();
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.resize(HEADER_BYTES, 0);
        bytes.extend(body);
        bytes
    }

    fn link(kind: u16, index: i32, flags: u32, name: &str) -> Vec<u8> {
        let name = [name.as_bytes(), &[0]].concat();
        message(kind, index, flags, &[attribute(IFLA_IFNAME, &name), state(OPER_UP)])
    }

    fn state(state: u8) -> Vec<u8> {
        attribute(IFLA_OPERSTATE, &[state])
    }

    fn done() -> Vec<u8> {
        message(NLMSG_DONE, 0, 0, &[])
    }

    /// After the first dump, which names `eth0` (down) and `eth1` (up).
    fn started() -> Links {
        let mut links = Links::default();
        let dump = [link(RTM_NEWLINK, 2, 0, "eth0"), link(RTM_NEWLINK, 3, UP, "eth1"), done()].concat();
        assert_eq!(links.read(&dump), [], "what is there at the start is no news");
        links
    }

    fn up(name: &str) -> SystemMessage {
        SystemMessage::LinkUp { interface: name.to_owned() }
    }

    fn down(name: &str) -> SystemMessage {
        SystemMessage::LinkDown { interface: name.to_owned() }
    }

    #[test]
    fn only_changes_are_told() {
        let mut links = started();
        assert_eq!(links.read(&link(RTM_NEWLINK, 2, UP, "eth0")), [up("eth0")]);
        assert_eq!(links.read(&link(RTM_NEWLINK, 2, UP, "eth0")), []);
        assert_eq!(links.read(&link(RTM_NEWLINK, 2, IFF_UP, "eth0")), [down("eth0")], "the cable is out");
        assert_eq!(links.read(&link(RTM_DELLINK, 3, UP, "eth1")), [down("eth1")]);
        assert_eq!(links.read(&link(RTM_DELLINK, 3, UP, "eth1")), []);
    }

    #[test]
    fn loopback_ports_of_bridges_and_dormant_ones_are_not_usable() {
        let mut links = started();
        assert_eq!(links.read(&link(RTM_NEWLINK, 1, UP | IFF_LOOPBACK, "lo")), []);
        let name = attribute(IFLA_IFNAME, b"veth0\0");
        let port = message(RTM_NEWLINK, 9, UP, &[name.clone(), state(OPER_UP), attribute(IFLA_MASTER, &[1, 0, 0, 0])]);
        assert_eq!(links.read(&port), []);
        let dormant = message(RTM_NEWLINK, 9, UP, &[name.clone(), state(5)]);
        assert_eq!(links.read(&dormant), []);
        assert_eq!(links.read(&message(RTM_NEWLINK, 9, UP, &[name])), [], "news of a radio");
    }

    fn address(kind: u16, index: i32, flags: u8, scope: u8, last: u8) -> Vec<u8> {
        let mut body = vec![2, 24, flags, scope];
        body.extend_from_slice(&index.to_ne_bytes());
        body.extend(attribute(IFA_ADDRESS, &[192, 0, 2, last]));
        let mut bytes = u32::try_from(body.len() + HEADER_BYTES).unwrap().to_ne_bytes().to_vec();
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.resize(HEADER_BYTES, 0);
        bytes.extend(body);
        bytes
    }

    #[test]
    fn a_new_address_on_a_usable_interface_is_told_once() {
        let mut links = started();
        assert_eq!(links.read(&address(RTM_NEWADDR, 3, 0, 0, 1)), [up("eth1")]);
        assert_eq!(links.read(&address(RTM_NEWADDR, 3, 0, 0, 1)), [], "its time was prolonged");
        assert_eq!(links.read(&address(RTM_DELADDR, 3, 0, 0, 1)), []);
        assert_eq!(links.read(&address(RTM_NEWADDR, 3, 0, 0, 1)), [up("eth1")]);
        assert_eq!(links.read(&address(RTM_NEWADDR, 3, IFA_F_TENTATIVE, 0, 2)), []);
        assert_eq!(links.read(&address(RTM_NEWADDR, 3, 0, 253, 3)), [], "valid on the link only");
        assert_eq!(links.read(&address(RTM_NEWADDR, 2, 0, 0, 4)), [], "nothing can be sent there yet");
        let whole = address(RTM_NEWADDR, 3, 0, 0, 5);
        for end in 0..whole.len() {
            assert_eq!(links.read(&whole[..end]), []);
        }
    }

    #[test]
    fn what_a_second_dump_does_not_name_has_gone() {
        let mut links = started();
        links.begin_dump();
        let dump = [link(RTM_NEWLINK, 2, UP, "eth0"), done()].concat();
        assert_eq!(links.read(&dump), [up("eth0"), down("eth1")]);
    }

    #[test]
    fn every_beginning_and_every_changed_byte_is_harmless() {
        let whole = [link(RTM_NEWLINK, 2, UP, "eth0"), link(RTM_DELLINK, 3, 0, "eth1")].concat();
        for end in 0..whole.len() {
            let _ = started().read(&whole[..end]);
        }
        for at in 0..whole.len() {
            for byte in [0, 1, 3, 4, 5, 15, 0x7f, 0x80, 0xff] {
                let mut odd = whole.clone();
                odd[at] = byte;
                let news = started().read(&odd);
                assert!(news.len() <= 2, "{news:?}");
            }
        }
    }

    #[test]
    fn memory_is_bounded() {
        let mut links = started();
        for index in 10..i32::try_from(LINKS_MAX).unwrap() + 100 {
            links.read(&link(RTM_NEWLINK, index, UP, "x"));
        }
        assert_eq!(links.known.len(), LINKS_MAX);
    }
}
