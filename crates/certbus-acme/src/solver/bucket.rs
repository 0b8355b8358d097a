//! HTTP-01 by way of an S3 bucket that a web server or CDN serves as `/.well-known/acme-challenge/` of the names. It
//! makes no bucket, sets no policy, and touches no object but those of the challenges at hand.

use std::fmt;
use std::time::Duration;

use aws_config::BehaviorVersion;
use aws_config::timeout::TimeoutConfig;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::{Credentials, Region, RequestChecksumCalculation};
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::primitives::ByteStream;
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::OnceCell;

use crate::ca::PlannedChallenge;
use crate::error::innermost;
use crate::solver::SolverError;
use crate::solver::http01::FOLDER;

const ANSWER_WITHIN: Duration = Duration::from_secs(20);

/// Where the bucket is, and who may write it.
#[derive(Clone)]
pub struct BucketPlace {
    /// Its name.
    pub bucket: String,
    /// Its region; absent: the one of the environment.
    pub region: Option<String>,
    /// What stands before `.well-known/acme-challenge/TOKEN` in an object's key.
    pub prefix: Option<String>,
    /// The URL of another S3 than Amazon's. Its buckets are part of the path, not of the host name.
    pub endpoint: Option<String>,
    /// Access key id and secret; absent: what the environment or the machine's role gives, as the AWS SDK finds it.
    pub keys: Option<(String, SecretString)>,
}

/// A bucket that answers challenges.
#[derive(Debug)]
pub struct Bucket {
    place: BucketPlace,
    client: OnceCell<Client>,
}

impl Bucket {
    /// Asks nobody yet.
    ///
    /// # Errors
    /// [`SolverError::Settings`] if the bucket's name or the endpoint cannot be one.
    pub fn new(place: BucketPlace) -> Result<Self, SolverError> {
        let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
        if !(3..=255).contains(&place.bucket.len()) || !place.bucket.bytes().all(good) {
            return Err(SolverError::Settings {
                what: format!(
                    "`{}` is no name of a bucket; write the name alone, as challenges.example.com",
                    place.bucket
                ),
            });
        }
        if place.endpoint.as_deref().is_some_and(|url| url.parse::<http::Uri>().map_or(true, no_url)) {
            // Not quoted: somebody may have written a secret into it.
            let what = "s3.endpoint is no URL of an S3; write https://s3.example.com, and the keys as s3.access_key_id and \
                        s3.secret_access_key";
            return Err(SolverError::Settings { what: what.into() });
        }
        Ok(Self { place, client: OnceCell::new() })
    }

    pub(crate) async fn set_up(&self, planned: &PlannedChallenge) -> Result<(), SolverError> {
        let key = self.key(planned);
        let put = self
            .client()
            .await?
            .put_object()
            .bucket(&self.place.bucket)
            .key(&key)
            .content_type("text/plain")
            // A CDN in front must not serve it, or its absence, to a later question.
            .cache_control("no-store")
            .body(ByteStream::from(planned.key_authorization.clone().into_bytes()));
        put.send().await.map_err(|error| self.explain("write", key, &error))?;
        Ok(())
    }

    pub(crate) async fn take_down(&self, planned: &PlannedChallenge) -> Result<(), SolverError> {
        let key = self.key(planned);
        let deleted = self.client().await?.delete_object().bucket(&self.place.bucket).key(&key).send().await;
        deleted.map_err(|error| self.explain("remove", key, &error))?;
        Ok(())
    }

    fn key(&self, planned: &PlannedChallenge) -> String {
        let prefix = self.place.prefix.as_deref().unwrap_or_default().trim_matches('/');
        let slash = if prefix.is_empty() { "" } else { "/" };
        format!("{prefix}{slash}{FOLDER}/{}", planned.token)
    }

    /// Connected once: finding the machine's role may take a request.
    async fn client(&self) -> Result<&Client, SolverError> {
        self.client.get_or_try_init(|| self.connect()).await
    }

    async fn connect(&self) -> Result<Client, SolverError> {
        let limit = TimeoutConfig::builder().operation_timeout(ANSWER_WITHIN).build();
        let mut loader = aws_config::defaults(BehaviorVersion::latest()).timeout_config(limit);
        if let Some((id, secret)) = &self.place.keys {
            let keys = Credentials::new(id, secret.expose_secret(), None, None, "issuing settings");
            loader = loader.credentials_provider(keys);
        }
        if let Some(region) = &self.place.region {
            loader = loader.region(Region::new(region.clone()));
        }
        let found = loader.load().await;
        let mut config = aws_sdk_s3::config::Builder::from(&found)
            // Other S3s do not know the checksums that Amazon's takes.
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired);
        if let Some(endpoint) = &self.place.endpoint {
            config = config.endpoint_url(endpoint).force_path_style(true);
        }
        if found.region().is_none() {
            if self.place.endpoint.is_none() {
                return Err(SolverError::Settings {
                    what: format!("the region of the bucket {} is not known; write s3.region", self.place.bucket),
                });
            }
            // Whoever serves an endpoint of his own mostly does not look.
            config = config.region(Region::from_static("us-east-1"));
        }
        Ok(Client::from_conf(config.build()))
    }

    fn explain<E>(&self, action: &'static str, key: String, error: &SdkError<E>) -> SolverError
    where
        E: std::error::Error + ProvideErrorMetadata + 'static,
    {
        let code = error.code().map(str::to_owned);
        let cause = match (error, &code) {
            (SdkError::ServiceError(answer), Some(code)) => {
                let said = answer.err().message().unwrap_or_default();
                format!("{code} {said}").trim_end().to_owned()
            }
            (SdkError::ServiceError(answer), None) => format!("HTTP {}", answer.raw().status()),
            (SdkError::TimeoutError(_), _) => format!("no answer within {} s", ANSWER_WITHIN.as_secs()),
            (other, _) => innermost(other),
        };
        let hint = match code.as_deref() {
            Some("NoSuchBucket") => "make the bucket, or correct s3.bucket",
            Some("AccessDenied" | "AllAccessDisabled") => "the key needs s3:PutObject and s3:DeleteObject there",
            Some("InvalidAccessKeyId" | "SignatureDoesNotMatch" | "ExpiredToken") => {
                "check s3.access_key_id and its secret"
            }
            Some("PermanentRedirect" | "AuthorizationHeaderMalformed") => "check s3.region",
            _ if cause.contains("credentials") => {
                "write s3.access_key_id and s3.secret_access_key, or give this machine a role"
            }
            _ => "check s3.endpoint and s3.region, and that it can be reached",
        };
        let permanent = code.is_some_and(|code| PERMANENT.contains(&code.as_str()));
        SolverError::Bucket { action, bucket: self.place.bucket.clone(), key, cause, hint, permanent }
    }
}

/// What only a person can mend.
const PERMANENT: [&str; 6] = [
    "NoSuchBucket",
    "AccessDenied",
    "AllAccessDisabled",
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "PermanentRedirect",
];

fn no_url(url: http::Uri) -> bool {
    let login = url.authority().is_some_and(|authority| authority.as_str().contains('@'));
    !matches!(url.scheme_str(), Some("http" | "https")) || url.host().is_none_or(str::is_empty) || login
}

impl fmt::Debug for BucketPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BucketPlace")
            .field("bucket", &self.bucket)
            .field("prefix", &self.prefix)
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_secret_is_not_printed_and_what_cannot_be_a_bucket_is_refused() {
        let place = |bucket: &str, endpoint: Option<&str>| BucketPlace {
            bucket: bucket.into(),
            region: None,
            prefix: None,
            endpoint: endpoint.map(str::to_owned),
            keys: Some(("id".into(), "hush".into())),
        };
        assert!(!format!("{:?}", Bucket::new(place("shop", None)).unwrap()).contains("hush"));
        for (bucket, endpoint) in [
            ("s3://shop", None),
            ("a/b", None),
            ("", None),
            ("shop", Some("s3.example.com")),
            ("shop", Some("https://id:hush@s3.example.com")),
        ] {
            assert!(Bucket::new(place(bucket, endpoint)).is_err(), "{bucket} {endpoint:?}");
        }
    }
}
