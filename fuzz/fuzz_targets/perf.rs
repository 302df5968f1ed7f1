//! libFuzzer's way into [`targets::perf`].

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::perf(data));
