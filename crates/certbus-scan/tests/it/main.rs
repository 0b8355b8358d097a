//! The prober against real servers, and against hostile ones. Run through `ci/services.py`; these are tests.

#[cfg(test)]
mod openssl;
#[cfg(test)]
mod support;
