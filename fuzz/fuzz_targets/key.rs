//! libFuzzer's way into [`targets::key`].

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::key(data));
