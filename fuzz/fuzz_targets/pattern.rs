//! libFuzzer's way into [`targets::pattern`].

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::pattern(data));
