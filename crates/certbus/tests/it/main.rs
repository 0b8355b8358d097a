//! The program as its users run it: real processes, real counterparties. `cfg(test)` tells clippy that these are tests.

#[cfg(test)]
mod agent;
#[cfg(test)]
mod alerts;
#[cfg(test)]
mod bad_input;
#[cfg(test)]
mod ca_proxy;
#[cfg(test)]
mod cas;
#[cfg(test)]
mod check;
#[cfg(test)]
mod check_in;
#[cfg(test)]
mod cloudflare;
#[cfg(test)]
mod demo;
#[cfg(test)]
mod engines;
#[cfg(test)]
mod httpreq;
#[cfg(test)]
mod inventory;
#[cfg(test)]
mod keys;
#[cfg(test)]
mod kills;
#[cfg(test)]
mod lifecycle;
#[cfg(test)]
mod many;
#[cfg(test)]
mod pebble;
#[cfg(test)]
mod processes;
#[cfg(test)]
mod recovery;
#[cfg(test)]
mod s3;
#[cfg(test)]
mod scan;
#[cfg(test)]
mod server;
#[cfg(test)]
mod shop;
#[cfg(test)]
mod web;
