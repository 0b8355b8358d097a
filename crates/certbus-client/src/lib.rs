//! certbus-client
