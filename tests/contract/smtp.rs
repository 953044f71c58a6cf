//! Scenarios of the `smtp` provider.
