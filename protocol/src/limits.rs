//! Every limit of the protocol, in one place.

/// Bytes of one packet on the channel between supervisor and worker. Beyond about 208 KiB ipc-channel would fragment a packet over
/// a second socket and read it in blocking mode; 64 KiB is also where a packet is cheapest per byte.
pub const FRAME_BYTES_MAX: usize = 64 * 1024;

/// Bytes of one encoded message, after its frames are put together again.
pub const ENCODED_BYTES_MAX: usize = 1024 * 1024;

/// Bytes that a message may grow by when its header is completed, beyond the size that its sender may hand in.
pub const COMPLETION_BYTES_MAX: u64 = 64 * 1024;

/// Bytes of a message body that travels and is stored inline. Larger bodies go in chunks and are stored as files.
pub const BODY_INLINE_BYTES_MAX: usize = 128 * 1024;

/// Bytes of one chunk of a larger body.
pub const BODY_CHUNK_BYTES_MAX: usize = 60 * 1024;

/// Chunks of one body that may be on their way in before the worker has to wait for the supervisor.
pub const UPLOAD_CHUNKS_UNACKNOWLEDGED_MAX: u32 = 8;

/// Recipients of one message.
pub const RECIPIENTS_MAX: usize = 1000;

/// Bytes of an address without its type. RFC 5321 4.5.3.1 gives 64 for the local part, 255 for the domain and 1 for the `@`;
/// source routes and quoting make longer ones legal, so this is generous.
pub const ADDRESS_BYTES_MAX: usize = 512;

/// Bytes of the letters of an address type such as `SMTP`.
pub const ADDRESS_TYPE_BYTES_MAX: usize = 16;

/// Bytes of a remote's reply that are kept.
pub const REPLY_BYTES_MAX: usize = 2048;

/// Bytes of one text of a [`crate::outcome::Hop`].
pub const HOP_TEXT_BYTES_MAX: usize = 128;

/// Bytes of one text in a status row.
pub const ROW_TEXT_BYTES_MAX: usize = 256;

/// Status rows that a provider may have besides its own.
pub const ROWS_MAX: usize = 16;

/// Words about status rows that are taken from one worker in a second; what comes faster is taken together, and its row says how many there were.
pub const ROW_UPDATES_A_SECOND_MAX: u32 = 50;

/// Questions that a provider may have at logon.
pub const PROMPTS_MAX: usize = 16;

/// Bytes of a person's answer to such a question, with the key of the question.
pub const ANSWER_BYTES_MAX: usize = 4096;

/// Bytes of an ENVID (RFC 3461 4.4) or ORCPT (4.2) parameter.
pub const DSN_PARAMETER_BYTES_MAX: usize = 512;

/// Critical sections that a worker may have open at once, one inside the other; what goes beyond is refused.
pub const SECTIONS_MAX: usize = 64;

/// Deliveries that a worker may have in flight at once, whatever it asks for.
pub const CREDIT_MAX: u32 = 1000;

/// Bytes of the one-line JSON envelope in front of a message on the control socket or in the pick-up folder.
pub const ENVELOPE_LINE_BYTES_MAX: usize = 768 * 1024;

/// Claims that one provider may make.
pub const CLAIMS_MAX: usize = 10_000;

/// Bytes of the claims of all providers together, each with [`CLAIM_EXTRA_BYTES`]: every worker is told all of them in one word.
pub const CLAIMS_BYTES_MAX: usize = ENCODED_BYTES_MAX / 2;

/// What a claim takes beside its text.
pub const CLAIM_EXTRA_BYTES: usize = 16;

const _: () = assert!(BODY_CHUNK_BYTES_MAX + 1024 < FRAME_BYTES_MAX, "a chunk fits into one frame");
const _: () = assert!(BODY_INLINE_BYTES_MAX < ENCODED_BYTES_MAX / 4, "an inline body leaves room for its envelope");
const _: () = assert!(
    RECIPIENTS_MAX * (ADDRESS_BYTES_MAX + 64) < ENVELOPE_LINE_BYTES_MAX,
    "every legal list of recipients fits into an envelope line"
);
