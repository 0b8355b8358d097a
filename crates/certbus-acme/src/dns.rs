//! DNS as the solvers need it: questions to one server, changes by one provider, and waiting for a zone's servers.
//! It caches nothing: what counts is what a server says now.

pub mod api;
pub mod exec;
pub mod httpreq;
pub(crate) mod lookup;
pub mod propagation;
pub mod rfc2136;
