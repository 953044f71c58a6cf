//! The simulator: the real supervisor and the real token side of the worker in a world that is drawn from a seed.

#[cfg(test)]
mod acting;
#[cfg(test)]
mod agenda;
#[cfg(test)]
mod answering;
#[cfg(test)]
mod census;
#[cfg(test)]
mod checker;
#[cfg(test)]
mod client;
#[cfg(test)]
mod disk;
#[cfg(test)]
mod lies;
#[cfg(test)]
mod machine;
#[cfg(test)]
mod mishap;
#[cfg(test)]
mod mutations;
#[cfg(test)]
mod plan;
#[cfg(test)]
mod rng;
#[cfg(test)]
mod run;
#[cfg(test)]
mod script;
#[cfg(test)]
mod stage;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod trace;
#[cfg(test)]
mod worker;
#[cfg(test)]
mod world;
