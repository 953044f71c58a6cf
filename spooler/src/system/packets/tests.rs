//! Whatever is put into the other end, what comes out is a packet, an error or the end.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::thread;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, send, sendmsg};

use super::*;

fn packets() -> (Packets, OwnedFd) {
    let (ours, theirs) = pair().unwrap();
    (Packets::new(ours), theirs)
}

fn put(theirs: &OwnedFd, packet: &[u8]) {
    assert_eq!(send(theirs, packet, SendFlags::NOSIGNAL), Ok(packet.len()));
}

#[test]
fn packets_of_any_size_up_to_the_limit_come_whole_and_in_order() {
    let (mut packets, theirs) = packets();
    for length in [1, 2, 17, 18, 4095, 65_535, FRAME_BYTES_MAX] {
        let packet: Vec<u8> = (0..=250).cycle().take(length).collect();
        put(&theirs, &packet);
        assert_eq!(packets.receive(), Ok(Some(packet.as_slice())));
    }
}

#[test]
fn a_packet_that_is_too_long_is_an_error_and_says_how_long_it_was() {
    for length in [FRAME_BYTES_MAX + 1, 2 * FRAME_BYTES_MAX, 200_000] {
        let (mut packets, theirs) = packets();
        put(&theirs, &vec![7; length]);
        assert_eq!(packets.receive(), Err(PacketError::TooLong(length)));
    }
}

#[test]
fn an_empty_packet_is_not_the_end() {
    let (mut packets, theirs) = packets();
    put(&theirs, b"");
    assert_eq!(packets.receive(), Err(PacketError::Empty));
    put(&theirs, b"");
    put(&theirs, b"more");
    assert_eq!(packets.receive(), Err(PacketError::Empty));
    assert_eq!(packets.receive(), Ok(Some(&b"more"[..])));
}

#[test]
fn what_was_sent_before_the_end_is_not_lost() {
    let (mut packets, theirs) = packets();
    put(&theirs, b"first");
    put(&theirs, b"last");
    drop(theirs);
    assert_eq!(packets.receive(), Ok(Some(&b"first"[..])));
    assert_eq!(packets.receive(), Ok(Some(&b"last"[..])));
    assert_eq!(packets.receive(), Ok(None));
    assert_eq!(packets.receive(), Ok(None));
}

#[test]
fn half_an_end_is_an_end() {
    for how in [Shutdown::Write, Shutdown::Both] {
        let (mut packets, theirs) = packets();
        put(&theirs, b"said");
        shutdown(&theirs, how).unwrap();
        assert_eq!(packets.receive(), Ok(Some(&b"said"[..])));
        assert_eq!(packets.receive(), Ok(None));
    }
}

#[test]
fn descriptors_that_come_along_are_dropped() {
    const COUNT: usize = 200;
    let (mut packets, theirs) = packets();
    let (kept, sent) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
    let many = vec![sent.as_fd(); COUNT];
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(COUNT))];
    let mut along = SendAncillaryBuffer::new(&mut space);
    assert!(along.push(SendAncillaryMessage::ScmRights(&many)));
    sendmsg(&theirs, &[IoSlice::new(b"take these")], &mut along, SendFlags::NOSIGNAL).unwrap();
    assert_eq!(packets.receive(), Ok(Some(&b"take these"[..])));
    drop(many);
    drop(sent);
    // Nobody has the other end any more: reading comes to the end instead of waiting.
    assert_eq!(rustix::io::read(&kept, &mut [0; 8]), Ok(0));
}

#[test]
fn who_hangs_up_is_not_kept_waiting_by_somebody_who_holds_the_other_end() {
    let (mut packets, theirs) = packets();
    put(&theirs, b"last words");
    let ours = Arc::clone(&packets.socket);
    let reader = thread::spawn(move || {
        let last = packets.receive().map(|packet| packet.map(<[u8]>::to_vec));
        (last, packets.receive().map(|packet| packet.map(<[u8]>::to_vec)))
    });
    hang_up(&ours);
    assert_eq!(reader.join().unwrap(), (Ok(Some(b"last words".to_vec())), Ok(None)));
    assert_eq!(send(&theirs, b"more", SendFlags::NOSIGNAL), Err(Errno::PIPE));
}

#[test]
fn a_sender_waits_for_the_reader_and_nothing_is_lost() {
    const COUNT: u32 = 20_000;
    let (mut packets, theirs) = packets();
    let sender = thread::spawn(move || (0..COUNT).for_each(|number| put(&theirs, &number.to_le_bytes())));
    for number in 0..COUNT {
        assert_eq!(packets.receive(), Ok(Some(&number.to_le_bytes()[..])));
    }
    assert_eq!(packets.receive(), Ok(None));
    sender.join().unwrap();
}
