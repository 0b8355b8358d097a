//! Whatever a certificate is.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| certbus_scan::exercise::verdict(data));
