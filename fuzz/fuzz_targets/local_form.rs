//! See `local_form` in `spooler_fuzzing::targets`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| spooler_fuzzing::run("local_form", input));
