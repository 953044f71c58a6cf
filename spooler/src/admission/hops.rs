//! Mail loops: a message that has come through too many hosts goes round in circles.

use spooler_protocol::to_worker::Refusal;

/// `Received:` fields of a message that are still believed (RFC 5321 6.3 asks for at least 100 to be allowed).
pub(super) const HOPS_MAX: usize = 100;

/// Refuses a message with too many `Received:` fields.
///
/// # Errors
/// The refusal, for good.
pub(super) fn check(hops: usize) -> Result<(), Refusal> {
    if hops <= HOPS_MAX {
        return Ok(());
    }
    let text = format!("The message has come through more than {HOPS_MAX} hosts: it goes round in circles");
    Err(Refusal { temporary: false, enhanced: "5.4.6".to_owned(), text })
}
