//! libFuzzer's way into [`targets::replay`].

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::replay(data));
