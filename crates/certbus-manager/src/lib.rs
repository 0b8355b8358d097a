//! certbus-manager
