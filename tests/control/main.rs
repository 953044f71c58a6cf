//! The control socket and the client tools over a real socket, with a supervisor of a few lines behind it.
#![cfg(test)]

mod garbage;
mod listing;
mod rights;
mod submission;
mod supervisor;
mod tools;
mod watching;
