//! Scenarios of the `maildir` provider.
