//! What the file system and SQLite report, as a [`StoreError`].
//!
//! What matters above is what passes: a full disk heals when somebody makes room, and a failing one may be well again in a moment. The
//! writer waits for that.

use std::io::{Error as IoError, ErrorKind};
use std::path::Path;

use nix::errno::Errno;
use rusqlite::{Connection, Error as SqlError, ErrorCode, ffi};

use super::{StoreError, log_tail};

pub(super) fn failed(path: &Path, why: impl Into<String>) -> StoreError {
    StoreError::Failed { path: path.display().to_string(), why: why.into() }
}

fn failing(path: &Path, why: impl Into<String>) -> StoreError {
    StoreError::Failing { path: path.display().to_string(), why: why.into() }
}

pub(super) fn full(path: &Path) -> StoreError {
    StoreError::Full { path: path.display().to_string() }
}

pub(super) fn damaged(path: &Path, why: impl Into<String>) -> StoreError {
    StoreError::Damaged { path: path.display().to_string(), why: why.into() }
}

/// Reads once more what seems to be damaged. SQLite says so of a page, too, that the disk did not give for a moment, and when the disk is asked
/// the moment may be over; what is damaged is so the second time as well.
pub(super) fn if_really_damaged<T>(read: impl Fn() -> Result<T, StoreError>) -> Result<T, StoreError> {
    match read() {
        Err(StoreError::Damaged { .. }) => read(),
        result => result,
    }
}

/// An error of the file system, with what was being done: `make the folder`.
pub(super) fn of_io(path: &Path, doing: &str, error: &IoError) -> StoreError {
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => full(path),
        // What is missing, or forbidden, stays so.
        ErrorKind::NotFound | ErrorKind::PermissionDenied | ErrorKind::UnexpectedEof | ErrorKind::NotADirectory => {
            failed(path, format!("cannot {doing}: {error}"))
        }
        _ => failing(path, format!("cannot {doing}: {error}")),
    }
}

/// An error of SQLite on this connection.
pub(super) fn of_sqlite(path: &Path, connection: &Connection, error: &SqlError) -> StoreError {
    match error.sqlite_error() {
        Some(inner) if is_full(connection, *inner) => full(path),
        _ => of_sqlite_opening(path, error),
    }
}

/// An error of SQLite where there is no connection to ask for more.
pub(super) fn of_sqlite_opening(path: &Path, error: &SqlError) -> StoreError {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => full(path),
        // SQLite says of a page that the disk does not give that it is malformed.
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => match log_tail::probe(path) {
            Ok(()) => damaged(path, error.to_string()),
            Err(error) => failing(path, format!("cannot read: {error}")),
        },
        Some(
            ErrorCode::SystemIoFailure
            | ErrorCode::CannotOpen
            | ErrorCode::DatabaseBusy
            | ErrorCode::DatabaseLocked
            | ErrorCode::FileLockingProtocolFailed
            | ErrorCode::OperationInterrupted
            | ErrorCode::OutOfMemory
            | ErrorCode::ReadOnly,
        ) => failing(path, error.to_string()),
        _ => failed(path, error.to_string()),
    }
}

/// SQLite knows only `ENOSPC` on a write as full; an exceeded quota and a wal-index that cannot grow are I/O errors to it.
fn is_full(connection: &Connection, error: ffi::Error) -> bool {
    match error.code {
        ErrorCode::DiskFull => true,
        ErrorCode::SystemIoFailure => {
            error.extended_code == ffi::SQLITE_IOERR_SHMSIZE
                || matches!(system_errno(connection), Errno::ENOSPC | Errno::EDQUOT)
        }
        _ => false,
    }
}

#[expect(unsafe_code, reason = "rusqlite has no wrapper for sqlite3_system_errno")]
fn system_errno(connection: &Connection) -> Errno {
    // SAFETY: the handle belongs to a connection that is open as long as it is borrowed here, and the call only reads a field of it.
    Errno::from_raw(unsafe { ffi::sqlite3_system_errno(connection.handle()) })
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn what_is_damaged_only_once_is_not_damaged() {
        let path = Path::new("x");
        let read = |results: &[Option<StoreError>]| {
            let left = Cell::new(results.iter());
            if_really_damaged(|| {
                let mut rest = left.take();
                let next = rest.next().expect("it is read once too often");
                left.set(rest);
                match next {
                    None => Ok(()),
                    Some(StoreError::Damaged { .. }) => Err(damaged(path, "malformed")),
                    Some(_) => Err(failing(path, "no page")),
                }
            })
        };
        assert!(read(&[None]).is_ok());
        assert!(read(&[Some(damaged(path, "malformed")), None]).is_ok());
        assert!(read(&[Some(failing(path, "no page"))]).unwrap_err().is_passing());
        assert!(read(&[Some(damaged(path, "malformed")), Some(failing(path, "no page"))]).unwrap_err().is_passing());
        let twice = read(&[Some(damaged(path, "malformed")), Some(damaged(path, "malformed"))]);
        assert!(matches!(twice, Err(StoreError::Damaged { .. })));
    }
}
