//! See `admission` in `spooler_fuzzing::targets`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| spooler_fuzzing::run("admission", input));
