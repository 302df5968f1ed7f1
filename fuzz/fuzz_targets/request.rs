//! libFuzzer's way into [`ssh_keywatch::daemon::read_hostile`].

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ssh_keywatch::daemon::read_hostile(data));
