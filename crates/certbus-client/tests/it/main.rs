//! What a load balancer may rely on, with real certificates and a real log in memory.
//! `cfg(test)` tells clippy that these files are tests throughout.

#[cfg(test)]
mod disk;
#[cfg(test)]
mod following;
#[cfg(test)]
mod serving;
#[cfg(test)]
mod shop;
