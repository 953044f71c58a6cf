//! Devices that come and go, as the kernel tells it (uevents). Only what a transport could hang on: serial lines, USB devices and
//! network interfaces.
//!
//! A uevent is `ACTION@DEVPATH`, then `KEY=VALUE` texts, each ended by a NUL. Its bytes come from whoever plugs things in, so they are
//! taken for what they are: anything odd is no event. Whether a device is there now is asked of the kernel, not of events.

use std::path::Path;

use rustix::net::netlink::KOBJECT_UEVENT;
use spooler_protocol::notification::{Device, SystemMessage};

use crate::supervisor::event::Event;
use crate::system::mailbox::{Letter, Mailbox};
use crate::system::netlink::{Heard, Netlink};

/// The group of the kernel's own events; the other one is udev's.
const KERNEL_GROUP: u32 = 1;
/// Bytes of a device's name.
const NAME_BYTES_MAX: usize = 255;
/// Texts of one uevent; the kernel has at most 64.
const TEXTS_MAX: usize = 128;

/// Starts the thread that listens. Without uevents the spooler works as well; it then does not see devices come and go.
///
/// # Errors
/// If there are no uevents here, or no thread can be had.
pub fn start(mailbox: Mailbox) -> std::io::Result<()> {
    let mut netlink = Netlink::open(Some(KOBJECT_UEVENT), KERNEL_GROUP)?;
    let listen = move || {
        loop {
            match netlink.hear() {
                Ok(Heard::Kernel(datagram)) => {
                    if let Some(message) = read(datagram) {
                        mailbox.put(Letter::Event(Event::System(message)));
                    }
                }
                Ok(Heard::Lost) => mailbox.put(Letter::Event(Event::DevicesUncertain)),
                Err(error) => return tracing::warn!(%error, "device monitoring ended"),
            }
        }
    };
    std::thread::Builder::new().name("devices".to_owned()).stack_size(128 * 1024).spawn(listen)?;
    Ok(())
}

/// Whether a device of this name is there: a node below `/dev`, or a network interface.
#[must_use]
pub fn is_present(name: &str) -> bool {
    if !is_name(name) {
        return false;
    }
    nix::net::if_::if_nametoindex(name).is_ok() || Path::new("/dev").join(name).exists()
}

/// A name below `/dev` that leads nowhere else.
fn is_name(name: &str) -> bool {
    let plain = |part: &str| !part.is_empty() && part != "." && part != "..";
    name.len() <= NAME_BYTES_MAX && !name.contains(char::is_control) && name.split('/').all(plain)
}

/// What a uevent means; `None` if it is not about a device that could matter, or odd.
fn read(datagram: &[u8]) -> Option<SystemMessage> {
    let mut texts = datagram.split(|byte| *byte == 0).take(TEXTS_MAX).filter_map(|text| std::str::from_utf8(text).ok());
    let (action, path) = texts.next()?.split_once('@')?;
    let (mut subsystem, mut device_type, mut device_name) = ("", "", "");
    for (key, value) in texts.filter_map(|text| text.split_once('=')) {
        match key {
            "SUBSYSTEM" => subsystem = value,
            "DEVTYPE" => device_type = value,
            "DEVNAME" => device_name = value,
            _ => {}
        }
    }
    let matters = match subsystem {
        "tty" | "net" => true,
        // Each of its interfaces has events of its own.
        "usb" => device_type == "usb_device",
        _ => false,
    };
    let last = path.rsplit('/').next().unwrap_or_default();
    let name = if device_name.is_empty() || subsystem == "net" { last } else { device_name };
    if !matters || !is_name(name) {
        return None;
    }
    let device = Device { subsystem: subsystem.to_owned(), name: name.to_owned() };
    match action {
        "add" => Some(SystemMessage::DeviceAdded(device)),
        "remove" => Some(SystemMessage::DeviceRemoved(device)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLUGGED: &[u8] = b"add@/devices/pci0000:00/0000:00:14.0/usb1/1-2/1-2:1.0/ttyUSB0/tty/ttyUSB0\0ACTION=add\0\
        DEVPATH=/devices/pci0000:00/0000:00:14.0/usb1/1-2/1-2:1.0/ttyUSB0/tty/ttyUSB0\0SUBSYSTEM=tty\0MAJOR=188\0MINOR=0\0\
        DEVNAME=ttyUSB0\0SEQNUM=4711\0";

    fn device(subsystem: &str, name: &str) -> Device {
        Device { subsystem: subsystem.to_owned(), name: name.to_owned() }
    }

    #[test]
    fn a_serial_line_comes_and_goes() {
        assert_eq!(read(PLUGGED), Some(SystemMessage::DeviceAdded(device("tty", "ttyUSB0"))));
        let gone = String::from_utf8(PLUGGED.to_vec()).unwrap().replacen("add@", "remove@", 1);
        assert_eq!(read(gone.as_bytes()), Some(SystemMessage::DeviceRemoved(device("tty", "ttyUSB0"))));
    }

    #[test]
    fn other_subsystems_and_actions_are_nothing() {
        for other in [
            b"change@/devices/virtual/tty/tty0\0SUBSYSTEM=tty\0DEVNAME=tty0\0".as_slice(),
            b"add@/devices/virtual/mem/null\0SUBSYSTEM=mem\0DEVNAME=null\0",
            b"add@/devices/usb1/1-2/1-2:1.0\0SUBSYSTEM=usb\0DEVTYPE=usb_interface\0",
        ] {
            assert_eq!(read(other), None);
        }
        let usb = b"add@/devices/usb1/1-2\0SUBSYSTEM=usb\0DEVTYPE=usb_device\0DEVNAME=bus/usb/001/002\0";
        assert_eq!(read(usb), Some(SystemMessage::DeviceAdded(device("usb", "bus/usb/001/002"))));
        let net = b"remove@/devices/virtual/net/wg0\0SUBSYSTEM=net\0INTERFACE=wg0\0IFINDEX=7\0";
        assert_eq!(read(net), Some(SystemMessage::DeviceRemoved(device("net", "wg0"))));
    }

    #[test]
    fn every_beginning_and_every_changed_byte_is_harmless() {
        for end in 0..PLUGGED.len() {
            let _ = read(&PLUGGED[..end]);
        }
        for at in 0..PLUGGED.len() {
            for byte in [0, b'@', b'=', b'/', 0x80, 0xff] {
                let mut odd = PLUGGED.to_vec();
                odd[at] = byte;
                if let Some(SystemMessage::DeviceAdded(device) | SystemMessage::DeviceRemoved(device)) = read(&odd) {
                    assert!(is_name(&device.name), "{device:?}");
                }
            }
        }
        assert_eq!(read(b"libudev\0\xfe\xed\xca\xfe"), None);
        assert_eq!(read(&vec![b'='; 70_000]), None);
    }

    #[test]
    fn a_name_leads_nowhere_else() {
        for bad in ["", "..", "../etc/passwd", "a//b", "/dev/null", "a\nb", "a/../b"] {
            assert!(!is_name(bad) && !is_present(bad), "{bad:?}");
        }
        assert!(is_present("null") && !is_present("no-such-device"));
        assert!(read(b"add@/x\0SUBSYSTEM=tty\0DEVNAME=../../etc/passwd\0").is_none());
    }
}
