//! See `smtp_server` in `spooler_fuzzing::targets`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| spooler_fuzzing::run("smtp_server", input));
