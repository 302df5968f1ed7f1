//! libFuzzer's way into [`targets::fanotify`].

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::fanotify(data));
