//! A revocation list that was fetched (RFC 5280 section 5): read once, and asked about every certificate that names it. Who
//! signed it is not asked here.

use webpki::{BorrowedCertRevocationList, CertRevocationList};

/// A list, as it was read.
#[derive(Debug)]
pub struct List {
    pub(super) read: CertRevocationList<'static>,
    takes: usize,
}

/// Why there is no list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ListError {
    /// It does not parse.
    #[error("no revocation list is there")]
    NoList,
    /// It would take more memory than was allowed.
    #[error("a list that takes {0} bytes of memory, more than it may")]
    TooLarge(usize),
}

/// What one revoked certificate takes in memory, beside its bytes in the list.
const ENTRY: usize = 176;

impl List {
    /// Reads a list that may take so many bytes of memory.
    ///
    /// # Errors
    /// [`ListError`]
    pub fn read(der: &[u8], most: usize) -> Result<Self, ListError> {
        let list = BorrowedCertRevocationList::from_der(der).map_err(|_| ListError::NoList)?;
        let takes = der.len() + list.into_iter().count() * ENTRY;
        if takes > most {
            return Err(ListError::TooLarge(takes));
        }
        let read = list.to_owned().map_err(|_| ListError::NoList)?.into();
        Ok(Self { read, takes })
    }

    /// The bytes of memory that it takes, about.
    pub fn takes(&self) -> usize {
        self.takes
    }
}
