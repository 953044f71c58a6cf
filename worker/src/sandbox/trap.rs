//! The last words of a process that made a system call it may not make.

use nix::libc;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, raise, sigaction};

use super::{SandboxError, call_names};

/// From here on a trapped call ends the process with a line that names it.
#[expect(unsafe_code, reason = "a signal handler cannot be set otherwise")]
pub(super) fn report_by_name() -> Result<(), SandboxError> {
    // Once: what the handler raises itself ends the process.
    let flags = SaFlags::SA_SIGINFO | SaFlags::SA_RESETHAND | SaFlags::SA_NODEFER;
    let action = SigAction::new(SigHandler::SigAction(on_trap), flags, SigSet::empty());
    // SAFETY: the handler calls only functions that are safe in signal handlers (write, raise, _exit) and allocates nothing.
    unsafe { sigaction(Signal::SIGSYS, &action) }.map(drop).map_err(|error| SandboxError::Calls(error.to_string()))
}

#[expect(unsafe_code, reason = "what a signal handler may do is not known to the compiler")]
extern "C" fn on_trap(_signal: libc::c_int, info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
    // SAFETY: the kernel gives a valid siginfo. For SIGSYS the call's number is behind the address of the instruction: three words
    // of the common head (two on their own and padding), then a pointer, then the number.
    let number = unsafe { info.cast::<libc::c_int>().add(6).read() };
    let mut line = Line::default();
    line.put(b"ERROR the sandbox does not allow system call ");
    line.put(call_names::of(libc::c_long::from(number)).unwrap_or("number").as_bytes());
    line.put(b" (");
    line.put_number(number.unsigned_abs());
    line.put(b")\n");
    // SAFETY: write may be called in a signal handler; the buffer lives on this stack.
    unsafe { libc::write(libc::STDERR_FILENO, line.bytes.as_ptr().cast(), line.length) };
    let _ = raise(Signal::SIGSYS);
    // SAFETY: _exit may be called in a signal handler.
    unsafe { libc::_exit(128 + libc::SIGSYS) };
}

struct Line {
    bytes: [u8; 160],
    length: usize,
}

impl Default for Line {
    fn default() -> Self {
        Self { bytes: [0; 160], length: 0 }
    }
}

impl Line {
    fn put(&mut self, text: &[u8]) {
        for byte in text {
            if let Some(place) = self.bytes.get_mut(self.length) {
                *place = *byte;
                self.length += 1;
            }
        }
    }

    fn put_number(&mut self, number: u32) {
        if number >= 10 {
            self.put_number(number / 10);
        }
        self.put(&[b'0' + u8::try_from(number % 10).unwrap_or(0)]);
    }
}
