//! libFuzzer's way into [`targets::log`].

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::log(data));
