//! What the core promises: the chain of batches and statements, snapshots, the catalog, the stored formats.

#[cfg(test)]
mod catalog;
#[cfg(test)]
mod chain;
#[cfg(test)]
mod golden;
#[cfg(test)]
mod snapshot;
