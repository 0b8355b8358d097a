//! certbus-acme
