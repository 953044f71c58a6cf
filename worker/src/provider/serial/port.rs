//! The device: opened, set up raw and without flow control, read and written without ever blocking the thread.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::libc;
use rustix::termios::{
    ControlModes, OptionalActions, QueueSelector, SpecialCodeIndex, Termios, ioctl_tiocexcl, isatty, tcdrain, tcflush,
    tcgetattr, tcsetattr,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// How characters are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LineRule {
    pub(super) baud: u32,
    pub(super) data_bits: u32,
    pub(super) parity: Parity,
    pub(super) stop_bits: u32,
}

/// The bit that tells whether a character is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Parity {
    None,
    Even,
    Odd,
}

/// An open device.
#[derive(Debug)]
pub(super) struct Port {
    device: AsyncFd<OwnedFd>,
}

impl Port {
    /// Opens a device for nobody but us, and sets it up. What it has received before is thrown away: nobody knows where it begins.
    pub(super) fn open(path: &Path, rule: &LineRule) -> io::Result<Self> {
        // Without O_NONBLOCK, opening waits for a carrier.
        let flags = libc::O_NOCTTY | libc::O_NONBLOCK;
        let device = OwnedFd::from(OpenOptions::new().read(true).write(true).custom_flags(flags).open(path)?);
        if !isatty(&device) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no serial line"));
        }
        ioctl_tiocexcl(&device)?;
        let mut settings = tcgetattr(&device)?;
        set_up(&mut settings, rule)?;
        tcsetattr(&device, OptionalActions::Now, &settings)?;
        tcflush(&device, QueueSelector::IFlush)?;
        Ok(Self { device: watched(device)? })
    }

    /// Reads what is there; waits if there is nothing.
    ///
    /// # Errors
    /// If the device has gone.
    pub(super) async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let mut ready = self.device.readable().await?;
            match ready.try_io(|device| Ok(rustix::io::read(device, &mut *buffer)?)) {
                Ok(Ok(0)) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it was hung up")),
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(result) => return result,
                Err(_would_block) => {}
            }
        }
    }

    /// Writes all of it, and waits until it has left the machine.
    ///
    /// # Errors
    /// If the device has gone.
    pub(super) async fn write(&self, mut bytes: &[u8], mut progress: impl FnMut(usize)) -> io::Result<()> {
        while !bytes.is_empty() {
            let mut ready = self.device.writable().await?;
            match ready.try_io(|device| Ok(rustix::io::write(device, bytes)?)) {
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(result) => {
                    let written = result?;
                    bytes = bytes.get(written..).unwrap_or_default();
                    progress(written);
                }
                Err(_would_block) => {}
            }
        }
        let device = self.device.get_ref().try_clone()?;
        let drained = tokio::task::spawn_blocking(move || tcdrain(&device)).await.map_err(io::Error::other)?;
        Ok(drained?)
    }
}

#[expect(
    deprecated,
    reason = "its successor is unsafe for types that may change their descriptor, which OwnedFd cannot"
)]
fn watched(device: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(device, Interest::READABLE | Interest::WRITABLE)
}

fn set_up(settings: &mut Termios, rule: &LineRule) -> io::Result<()> {
    settings.make_raw();
    let bits = match rule.data_bits {
        5 => ControlModes::CS5,
        6 => ControlModes::CS6,
        7 => ControlModes::CS7,
        _ => ControlModes::CS8,
    };
    let modes = &mut settings.control_modes;
    modes.remove(
        ControlModes::CSIZE
            | ControlModes::PARENB
            | ControlModes::PARODD
            | ControlModes::CSTOPB
            | ControlModes::CRTSCTS,
    );
    modes.insert(bits | ControlModes::CREAD | ControlModes::CLOCAL);
    match rule.parity {
        Parity::None => {}
        Parity::Even => modes.insert(ControlModes::PARENB),
        Parity::Odd => modes.insert(ControlModes::PARENB | ControlModes::PARODD),
    }
    modes.set(ControlModes::CSTOPB, rule.stop_bits == 2);
    settings.special_codes[SpecialCodeIndex::VMIN] = 1;
    settings.special_codes[SpecialCodeIndex::VTIME] = 0;
    settings.set_speed(rule.baud)?;
    Ok(())
}
