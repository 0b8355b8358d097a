//! After the certificate: when the CA wants it renewed (RFC 9773), and revoking it (RFC 8555 section 7.6). It decides
//! nothing: a window is handed on as the CA says it.

use certbus_core::time::Timestamp;
use instant_acme::{CertificateIdentifier, RevocationRequest};
use serde::Deserialize;
use serde::de::value::{BorrowedStrDeserializer, Error as DeError};

use crate::account::AcmeCa;
use crate::ca::{RenewalWindow, RevocationReason};
use crate::chain;
use crate::error::{IssueError, from_acme};
use crate::nonce::with_nonce;

impl AcmeCa {
    pub(crate) async fn renewal_window(&self, chain_pem: &str) -> Result<Option<RenewalWindow>, IssueError> {
        if !self.directory().renewal_windows {
            return Ok(None);
        }
        let leaf = chain::leaf(chain_pem)?;
        let Ok(id) = CertificateIdentifier::try_from(&leaf) else {
            return Ok(None);
        };
        let answer = self.account.renewal_info(&id).await;
        let (info, retry_after) = answer.map_err(|error| from_acme(self.directory_url(), error))?;
        let window = info.suggested_window;
        Ok(Some(RenewalWindow {
            start: Timestamp::from_seconds(window.start.unix_timestamp()),
            end: Timestamp::from_seconds(window.end.unix_timestamp()),
            explanation_url: info.explanation_url,
            retry_after,
        }))
    }

    pub(crate) async fn revoke(&self, chain_pem: &str, reason: RevocationReason) -> Result<(), IssueError> {
        let leaf = chain::leaf(chain_pem)?;
        let request = RevocationRequest { certificate: &leaf, reason: Some(reason.into()) };
        with_nonce!(self.account.revoke(&request)).map_err(|error| from_acme(self.directory_url(), error))
    }
}

/// Reads what [`crate::ari_certificate_id`] wrote.
pub(crate) fn certificate_id(text: &str) -> Option<CertificateIdentifier<'_>> {
    CertificateIdentifier::deserialize(BorrowedStrDeserializer::<DeError>::new(text)).ok()
}

impl From<RevocationReason> for instant_acme::RevocationReason {
    fn from(reason: RevocationReason) -> Self {
        match reason {
            RevocationReason::Unspecified => Self::Unspecified,
            RevocationReason::KeyCompromise => Self::KeyCompromise,
            RevocationReason::AffiliationChanged => Self::AffiliationChanged,
            RevocationReason::Superseded => Self::Superseded,
            RevocationReason::CessationOfOperation => Self::CessationOfOperation,
        }
    }
}
