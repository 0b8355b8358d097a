//! certbus-bus
