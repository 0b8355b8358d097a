//! Targets against real files, programs and load balancers. `cfg(test)` tells clippy that these are tests.
