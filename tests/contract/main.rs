//! Contract tests: the real worker program with its real runtime, and a supervisor made of a few lines that says exactly what a test
//! wants said. One scenario group per file.

#[path = "../data/mod.rs"]
mod data;
mod maildir;
mod peer;
mod pipe;
mod smtp;
mod smtp_in;
mod token;
