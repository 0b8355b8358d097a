//! Whatever is written as a target, or read as an observation.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| certbus_scan::exercise::spec(data));
