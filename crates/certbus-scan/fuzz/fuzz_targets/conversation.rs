//! Whatever a server sends, in whatever pieces, on whatever way and protocol.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| certbus_scan::exercise::conversation(data));
