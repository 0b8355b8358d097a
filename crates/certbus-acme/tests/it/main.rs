//! Issuing against real counterparties, started by `ci/services.py`. Modules are named after them.
//!
//! `cfg(test)` only tells clippy that these files are tests throughout.

#[cfg(test)]
mod bind;
#[cfg(test)]
mod caa;
#[cfg(test)]
mod knot;
#[cfg(test)]
mod moto;
#[cfg(test)]
mod openssl;
#[cfg(test)]
mod pebble;
#[cfg(test)]
mod pebble_refusals;
#[cfg(test)]
mod quiet_ca;
#[cfg(test)]
mod support;
