//! A second descriptor of one that is known by its number alone, because a library keeps it to itself. Here because it cannot be had without
//! `unsafe`: `pidfd_getfd` does the same, but system call filters of service managers and containers refuse it.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::libc;

/// Another descriptor of what `number` is open for, closed in programs that are run.
///
/// # Errors
/// If nothing is open under that number, or there are too many descriptors.
#[expect(unsafe_code, reason = "the number is not ours to borrow, and the kernel checks it")]
pub(crate) fn second_of(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: F_DUPFD_CLOEXEC takes two numbers and touches no memory; a number under which nothing is open is EBADF.
    let second = Errno::result(unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 0) })?;
    // SAFETY: the kernel has just made it, so nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(second) })
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::Shutdown;
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn the_second_is_the_same_and_outlives_the_first() {
        let (mut here, there) = UnixStream::pair().unwrap();
        let mut second = UnixStream::from(second_of(there.as_raw_fd()).unwrap());
        drop(there);
        here.write_all(b"word").unwrap();
        here.shutdown(Shutdown::Write).unwrap();
        let mut heard = String::new();
        second.read_to_string(&mut heard).unwrap();
        assert_eq!(heard, "word");
        assert_eq!(second_of(-1).unwrap_err().raw_os_error(), Some(libc::EBADF));
    }
}
