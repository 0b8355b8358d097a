//! The agent in one process, on a log in memory. `cfg(test)` tells clippy that these are tests. What needs a server of the
//! system is in the tests of the program.

#[cfg(test)]
mod rounds;
#[cfg(test)]
#[expect(dead_code, reason = "the client's own tests use all of it")]
#[path = "../../../certbus-client/tests/it/shop.rs"]
mod shop;
