//! libFuzzer's way into [`targets::decide`].

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::decide(data));
