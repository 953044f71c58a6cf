//! See `pipe_program` in `spooler_fuzzing::targets`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| spooler_fuzzing::run("pipe_program", input));
