#![no_main]
#![allow(missing_docs)]

libfuzzer_sys::fuzz_target!(|text: &str| t3pin::fuzzing::pin(text));
