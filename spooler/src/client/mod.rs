//! The client tools.
