//! Scenarios of the `smtp-in` provider.
