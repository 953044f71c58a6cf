//! Scenarios of the `pipe` provider.
