//! Programs that providers run: what they compute is their provider's, in its row and for who is next, and nobody is blamed for it.

use std::fs;

use crate::sink::Sink;
use crate::world::World;
use crate::{IN, relay, smtp};

const MAIL: &[u8] = b"Subject: hello\r\n\r\nbody\r\n";
/// Computes for about a second, as the kernel counts it in ticks; then does as good as nothing until it may end.
const COMPUTE: &str = "(ulimit -t 1; while :; do :; done); while test -d {dir} -a ! -e {dir}/go; do sleep 0.05; done";

fn cpu_ms(world: &World, provider: &str) -> Option<u64> {
    world.provider(provider)?["cpu_ms"].as_u64()
}

/// Others deliver while a program computes, with one slot for all; then the program may end, and nobody is to blame.
fn it_is_charged_and_nobody_waits(world: &World, sink: &Sink, provider: &str, others: &str, arrived: usize) {
    world.wait_for("what the program computes, while it does", |world| {
        (cpu_ms(world, provider)? >= 300 && world.provider(provider)?["in_flight"] == 1).then_some(())
    });
    smtp::send(world.port("submission"), "a@b.test", &[others], MAIL);
    sink.wait(1);
    world.wait_for("all that it computes", |world| (cpu_ms(world, provider)? >= 700).then_some(()));
    fs::write(world.path("go"), "").unwrap();
    world.wait_empty();
    assert_eq!(sink.wait(arrived).len(), arrived);
    let row = world.provider(provider).unwrap();
    assert!(row["cpu_ms"].as_u64() >= Some(700), "it stays: {row}");
    assert!(row["overdraft_ms"].as_u64() < Some(500), "a program cannot yield: {row}");
    assert_eq!((row["overrun"].as_str(), row["deaths"].as_u64()), (Some("none"), Some(0)), "{row}");
}

#[test]
fn what_a_pipe_computes_is_its_cpu_and_no_overrun() {
    let sink = Sink::start();
    let pipe = format!(
        "[provider.pipe]\nkind = \"pipe\"\nclaims = [\"@pipe.test\"]\ncommand = [\"/bin/sh\", \"-c\", '{COMPUTE}']\n\
         cpu_overrun_limit = \"1s\"\n"
    );
    let world = World::running(&format!("[scheduler]\ngate = \"off\"\nslots = 1\n{IN}{pipe}{}", relay(sink.port)));
    smtp::send(world.port("submission"), "a@b.test", &["x@pipe.test"], MAIL);
    it_is_charged_and_nobody_waits(&world, &sink, "pipe", "x@remote.test", 1);
}

#[test]
fn so_it_is_for_filters_of_any_kind() {
    let sink = Sink::start();
    let filtered = relay(sink.port).replace("[provider.relay]", "[provider.filtered]\nclaims = [\"@filtered.test\"]")
        + &format!("[[provider.filtered.preprocess]]\ncommand = [\"/bin/sh\", \"-c\", '{COMPUTE}']\n");
    let world = World::running(&format!("[scheduler]\ngate = \"off\"\nslots = 1\n{IN}{}{filtered}", relay(sink.port)));
    smtp::send(world.port("submission"), "a@b.test", &["x@filtered.test"], MAIL);
    it_is_charged_and_nobody_waits(&world, &sink, "filtered", "x@remote.test", 2);
}
