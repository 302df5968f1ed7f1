//! libFuzzer's way into [`targets::rule`].

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::rule(data));
