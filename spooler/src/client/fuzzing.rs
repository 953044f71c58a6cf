//! The fuzz targets of the client tools, for the list in [`crate::fuzzing`].

pub(crate) use super::sendmail::fuzzing::{sendmail, sendmail_smtp};
