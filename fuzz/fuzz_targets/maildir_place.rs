//! See `maildir_place` in `spooler_fuzzing::targets`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| spooler_fuzzing::run("maildir_place", input));
