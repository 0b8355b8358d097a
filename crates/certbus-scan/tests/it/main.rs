//! The prober against real servers, and against hostile ones. Run through `ci/services.py`; these are tests.

#[cfg(test)]
mod corpus;
#[cfg(test)]
mod full_way;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod openssl;
#[cfg(test)]
mod parsers;
#[cfg(test)]
mod resolve;
#[cfg(test)]
mod scale;
#[cfg(test)]
mod stacks;
#[cfg(test)]
mod starttls;
#[cfg(test)]
mod support;
#[cfg(test)]
mod tls;
#[cfg(test)]
mod verdict;
