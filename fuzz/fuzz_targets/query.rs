//! libFuzzer's way into [`targets::query`].

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::query(data));
