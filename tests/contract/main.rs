//! Contract tests: the real worker program with its real runtime, and a supervisor made of a few lines that says exactly what a test
//! wants said. One scenario group per file.

#[cfg(test)]
#[path = "../data/mod.rs"]
mod data;
#[cfg(test)]
#[path = "../dovecot/mod.rs"]
mod dovecot;
#[cfg(test)]
mod example;
#[cfg(test)]
mod filters;
#[cfg(test)]
mod flush;
#[cfg(test)]
mod inbound;
#[cfg(test)]
mod logon;
#[cfg(test)]
mod maildir;
#[cfg(test)]
mod outbound;
#[cfg(test)]
mod peer;
#[cfg(test)]
mod pipe;
#[cfg(test)]
mod rows;
#[cfg(test)]
mod sandbox;
#[cfg(test)]
mod scripted;
#[cfg(test)]
mod serial;
#[cfg(test)]
mod smtp;
#[cfg(test)]
mod smtp_in;
#[cfg(test)]
mod token;
#[cfg(test)]
mod validate;
