//! Requests whose nonce the CA refused are sent again (RFC 8555 section 6.5). Nothing else is.

/// The library signs three times before it gives up; a CA under load, or one that tests us, refuses more.
pub(crate) const NONCE_ATTEMPTS: u32 = 5;

/// Whether the request was not looked at, for its nonce alone.
pub(crate) fn is_bad_nonce(error: &instant_acme::Error) -> bool {
    matches!(error, instant_acme::Error::Api(problem)
        if problem.r#type.as_deref() == Some("urn:ietf:params:acme:error:badNonce"))
}

/// Sends a request again when only its nonce was refused. A macro, since what is called borrows the order mutably.
macro_rules! with_nonce {
    ($call:expr) => {{
        let mut attempts = 0;
        loop {
            match $call.await {
                Err(error) if attempts < $crate::nonce::NONCE_ATTEMPTS && $crate::nonce::is_bad_nonce(&error) => {
                    attempts += 1
                }
                done => break done,
            }
        }
    }};
}
pub(crate) use with_nonce;
