//! How control of names is shown, as the issuing settings say it: DNS providers, and the bucket of HTTP-01. It sets up
//! nothing itself.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use certbus_acme::{
    Api, Bucket, BucketPlace, Dns01, Dns01Provider, ExecHook, HTTPREQ_KEYS, HttpReq, PROVIDERS, Propagation, Rfc2136,
    TsigAlgorithm, TsigKey, Words,
};
use serde::{Deserialize, Serialize};

use super::{Secret, SettingsError, wrong};
use crate::issuers::LocalSolvers;

/// Who changes DNS zones, and how it is seen.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Dns01Settings {
    /// `rfc2136`, `httpreq`, `exec` (the program is a local setting), or a provider's name.
    pub provider: String,
    /// `rfc2136`: the server, with its port if it is not 53.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// `rfc2136`: the TSIG key's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_name: Option<String>,
    /// `rfc2136`: the TSIG key's secret, base64. Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_secret: Option<Secret>,
    /// `rfc2136`: `hmac-sha256` (default), `hmac-sha384`, `hmac-sha512`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_algorithm: Option<String>,
    /// The zone; absent: found by asking the server, or the resolver.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// The resolver that finds a zone's authoritative servers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolver: Option<SocketAddr>,
    /// The authoritative servers, where NS records do not lead to them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub authoritative: Vec<SocketAddr>,
    /// How many seconds a change may take to be seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub propagation_seconds: Option<u64>,
    /// What the provider wants to know besides: the words of its row in the table of providers, and no others.
    #[serde(flatten)]
    pub words: BTreeMap<String, Secret>,
}

/// The bucket that a web server or CDN serves as `/.well-known/acme-challenge/`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct S3Settings {
    /// Its name.
    pub bucket: String,
    /// Its region; absent: the one of the environment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// What stands before `.well-known/acme-challenge/TOKEN` in an object's key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// The URL of another S3 than Amazon's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Who writes it; absent: whom the environment or the machine's role names, as the AWS SDK finds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_key_id: Option<String>,
    /// The key's secret. Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_access_key: Option<Secret>,
}

impl S3Settings {
    pub(crate) fn bucket(&self) -> Result<Bucket, SettingsError> {
        let keys = match (&self.access_key_id, &self.secret_access_key) {
            (Some(id), Some(secret)) => Some((id.clone(), secret.expose())),
            (None, None) => None,
            _ => return Err(wrong("s3 has one of `access_key_id` and `secret_access_key`; it takes both or none")),
        };
        let (region, prefix, endpoint) = (self.region.clone(), self.prefix.clone(), self.endpoint.clone());
        let place = BucketPlace { bucket: self.bucket.clone(), region, prefix, endpoint, keys };
        Bucket::new(place).map_err(|error| wrong(format!("s3: {error}")))
    }
}

impl Dns01Settings {
    /// The words that are to be masked: all but those that are known to be no secret.
    pub(super) fn secret_words(&mut self) -> impl Iterator<Item = (&str, &mut Secret)> {
        let row = PROVIDERS.iter().find(|kind| kind.word == self.provider).map_or(HTTPREQ_KEYS, |kind| kind.keys);
        let open = move |name: &str| row.iter().any(|key| key.name == name && !key.secret);
        self.words.iter_mut().map(|(name, word)| (name.as_str(), word)).filter(move |(name, _)| !open(name))
    }

    /// Whether the provider is known and has what it needs.
    pub(super) fn check(&self) -> Result<(), SettingsError> {
        if self.provider == "exec" { self.no_words() } else { self.over_the_network().map(drop) }
    }

    pub(crate) fn solver(&self, local: &LocalSolvers, resolver: Option<SocketAddr>) -> Result<Dns01, SettingsError> {
        let provider = if self.provider == "exec" {
            let program = local.dns01_exec.as_ref().ok_or_else(|| {
                wrong("dns01.provider is `exec`, and certbus.toml has no [exec] dns01 = \"/path/to/program\"")
            })?;
            Dns01Provider::Exec(ExecHook::new(program, Duration::from_secs(60)))
        } else {
            self.over_the_network()?
        };
        let usual = Propagation::default();
        let timeout = self.propagation_seconds.map_or(usual.timeout, Duration::from_secs);
        let (resolver, authoritative) = (self.resolver.or(resolver), self.authoritative.clone());
        Ok(Dns01::new(provider, Propagation { resolver, authoritative, timeout }))
    }

    fn over_the_network(&self) -> Result<Dns01Provider, SettingsError> {
        let words: Words = self.words.iter().map(|(name, word)| (name.clone(), word.expose())).collect();
        let settings = |error: certbus_acme::SolverError| wrong(error.to_string());
        match self.provider.as_str() {
            "rfc2136" => {
                self.no_words()?;
                Ok(Dns01Provider::Rfc2136(self.rfc2136()?))
            }
            "httpreq" => Ok(Dns01Provider::HttpReq(Box::new(HttpReq::new(&words).map_err(settings)?))),
            other => match Api::new(other, &words, self.zone.as_deref()) {
                Some(api) => Ok(Dns01Provider::Api(Box::new(api.map_err(settings)?))),
                None => {
                    let known: Vec<&str> = PROVIDERS.iter().map(|kind| kind.word).collect();
                    let known = known.join(", ");
                    Err(wrong(format!("dns01.provider is `{other}`; write one of: rfc2136, exec, httpreq, {known}")))
                }
            },
        }
    }

    fn no_words(&self) -> Result<(), SettingsError> {
        match self.words.keys().next() {
            Some(word) if self.provider == "rfc2136" => Err(wrong(format!(
                "dns01.{word} is no word of `rfc2136`; it takes: server, key_name, key_secret, key_algorithm"
            ))),
            Some(word) => Err(wrong(format!("dns01.{word} is no word of `{}`", self.provider))),
            None => Ok(()),
        }
    }

    fn rfc2136(&self) -> Result<Rfc2136, SettingsError> {
        let need = |value: &Option<String>, key: &str| {
            value.clone().ok_or_else(|| wrong(format!("dns01.{key} is missing; `rfc2136` needs it")))
        };
        let algorithm: TsigAlgorithm = self
            .key_algorithm
            .as_deref()
            .unwrap_or("hmac-sha256")
            .parse()
            .map_err(|e: certbus_acme::SolverError| wrong(format!("dns01.key_algorithm: {e}")))?;
        let secret =
            self.key_secret.as_ref().ok_or_else(|| wrong("dns01.key_secret is missing; `rfc2136` needs it"))?;
        let key = TsigKey::new(&need(&self.key_name, "key_name")?, secret.expose(), algorithm)
            .map_err(|e| wrong(format!("dns01.key_secret: {e}")))?;
        Rfc2136::new(&need(&self.server, "server")?, key, self.zone.as_deref())
            .map_err(|e| wrong(format!("dns01.server: {e}")))
    }
}
