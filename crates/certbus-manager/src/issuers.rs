//! The issuing settings at work: accounts, connected CAs, and the solvers of this process. What they say is in
//! [`crate::issuing`].

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use certbus_acme::{AcmeCa, Ca, Caa, Eab, Http01, InternalCa, Solvers};
use certbus_core::event::OrderPlaced;
use secrecy::ExposeSecret;

use crate::clock;
use crate::issuing::{INTERNAL_LIFETIME_DAYS, Issuing, Secret, wrong};
use crate::manager::ManageError;

/// What this machine brings: sockets, folders and programs (never from the log).
#[derive(Clone, Debug, Default)]
pub struct LocalSolvers {
    /// Where HTTP-01 is answered by a listener of our own.
    pub http01_listen: Option<SocketAddr>,
    /// The folder a web server serves, for HTTP-01.
    pub http01_webroot: Option<PathBuf>,
    /// The program for `provider = "exec"`.
    pub dns01_exec: Option<PathBuf>,
}

/// One that could not be reached is left alone for this long: a thousand orders need not each find that out.
const CONNECT_AGAIN: Duration = Duration::from_secs(20);

#[derive(Debug)]
enum Connection {
    Made(Arc<Ca>),
    Failed(Instant, Arc<ManageError>),
}

/// The settings at work: connected CAs, each asked for once, and the solvers of this process.
#[derive(Debug)]
pub struct Issuers {
    settings: Issuing,
    solvers: Solvers,
    caa: Caa,
    connected: tokio::sync::Mutex<BTreeMap<String, Connection>>,
}

impl Issuers {
    /// Makes the solvers; connects to nobody yet.
    ///
    /// # Errors
    /// [`ManageError::Settings`].
    pub fn new(settings: Issuing, local: &LocalSolvers) -> Result<Self, ManageError> {
        let solvers = settings.solvers(local)?;
        let caa = Caa::new(settings.name_resolver());
        Ok(Self { settings, solvers, caa, connected: tokio::sync::Mutex::default() })
    }

    /// What they were made from.
    pub fn settings(&self) -> &Issuing {
        &self.settings
    }

    /// How control is shown.
    pub fn solvers(&self) -> &Solvers {
        &self.solvers
    }

    /// Whether a CA may sign for a name.
    pub fn caa(&self) -> &Caa {
        &self.caa
    }

    /// The CA of that name.
    ///
    /// # Errors
    /// As [`Issuing::connect`].
    pub async fn ca(&self, name: &str) -> Result<Arc<Ca>, ManageError> {
        let mut connected = self.connected.lock().await;
        match connected.get(name) {
            Some(Connection::Made(ca)) => return Ok(ca.clone()),
            Some(Connection::Failed(at, error)) if at.elapsed() < CONNECT_AGAIN => {
                return Err(ManageError::Connect(error.clone()));
            }
            _ => {}
        }
        let (made, result) = match self.settings.connect(name).await {
            Ok(ca) => {
                let ca = Arc::new(ca);
                (Connection::Made(ca.clone()), Ok(ca))
            }
            Err(error) => {
                let error = Arc::new(error);
                (Connection::Failed(Instant::now(), error.clone()), Err(ManageError::Connect(error)))
            }
        };
        connected.insert(name.to_owned(), made);
        result
    }

    /// The CA that an order was placed at, with its account. None if the settings have one of them no more.
    ///
    /// # Errors
    /// As [`Issuing::connect`].
    pub async fn ca_of(&self, placed: &OrderPlaced) -> Result<Option<Arc<Ca>>, ManageError> {
        if !self.settings.ca.contains_key(&placed.ca) {
            return Ok(None);
        }
        let ca = self.ca(&placed.ca).await?;
        let same = match &*ca {
            Ca::Internal(_) => placed.account.is_empty(),
            Ca::Acme(acme) => acme.account_url() == placed.account,
        };
        Ok(same.then_some(ca))
    }
}

impl Issuing {
    /// Connects to the CA of that name. The internal one needs nobody.
    ///
    /// # Errors
    /// [`ManageError::Settings`], [`ManageError::Issue`].
    pub async fn connect(&self, name: &str) -> Result<Ca, ManageError> {
        let ca = self.ca.get(name).ok_or_else(|| wrong(format!("there is no CA named `{name}`")))?;
        if ca.directory == "internal" {
            let missing = || wrong(format!("ca.{name} is internal and lacks `certificate` or `key`"));
            let (certificate, key) = ca.certificate.as_ref().zip(ca.key.as_ref()).ok_or_else(missing)?;
            let lifetime = days(ca.lifetime_days.unwrap_or(INTERNAL_LIFETIME_DAYS));
            return Ok(Ca::Internal(Box::new(InternalCa::load(certificate, &key.expose(), lifetime)?)));
        }
        let account = ca.account.as_ref().ok_or_else(|| {
            wrong(format!("ca.{name} has no account yet; `certbus init --ca {name} --agree-tos` registers one"))
        })?;
        let acme = AcmeCa::restore(&ca.directory, ca.roots.as_deref(), &account.expose()).await?;
        Ok(Ca::Acme(Box::new(acme)))
    }

    /// Asks the CA of that name for its account. Returns the account's URL.
    ///
    /// # Errors
    /// As [`Issuing::connect`], and the CA's words if it does not know the account.
    pub async fn account(&self, name: &str) -> Result<String, ManageError> {
        let ca = self.ca.get(name).ok_or_else(|| wrong(format!("there is no CA named `{name}`")))?;
        let account = ca.account.as_ref().ok_or_else(|| wrong(format!("ca.{name} has no account yet")))?;
        Ok(AcmeCa::look(&ca.directory, ca.roots.as_deref(), &account.expose()).await?)
    }

    /// Registers an account where the CA has none, or makes an internal root.
    ///
    /// # Errors
    /// [`ManageError::Issue`]: terms that are not agreed to, a CA that cannot be reached, its problem document.
    pub async fn register(&mut self, name: &str) -> Result<bool, ManageError> {
        let ca = self.ca.get_mut(name).ok_or_else(|| wrong(format!("there is no CA named `{name}`")))?;
        if ca.directory == "internal" {
            if ca.certificate.is_some() {
                return Ok(false);
            }
            let lifetime = days(ca.lifetime_days.unwrap_or(INTERNAL_LIFETIME_DAYS));
            let root = InternalCa::generate("CertBus internal CA", lifetime, clock::now())?;
            ca.certificate = Some(root.certificate_pem().to_owned());
            ca.key = Some(Secret::new(root.key_pem().expose_secret()));
            return Ok(true);
        }
        if ca.account.is_some() {
            return Ok(false);
        }
        let contact = ca.email.as_deref();
        let eab = match (&ca.eab_key_id, &ca.eab_key) {
            (Some(key_id), Some(key)) => Some(Eab { key_id: key_id.clone(), hmac_key_b64url: key.expose() }),
            (None, None) => None,
            _ => return Err(wrong(format!("ca.{name} has one of `eab_key_id` and `eab_key`; it takes both")).into()),
        };
        let (_, credentials) = AcmeCa::register(&ca.directory, ca.roots.as_deref(), contact, ca.agree_tos, eab).await?;
        ca.account = Some(Secret::new(credentials.expose_secret()));
        Ok(true)
    }

    /// The solvers, from these settings and what this machine brings. For HTTP-01 what this machine brings comes first.
    ///
    /// # Errors
    /// [`SettingsError`].
    pub fn solvers(&self, local: &LocalSolvers) -> Result<Solvers, ManageError> {
        let http01 = match (&local.http01_listen, &local.http01_webroot, &self.s3) {
            (Some(address), _, _) => Some(Http01::listen(*address)),
            (None, Some(folder), _) => Some(Http01::webroot(folder)),
            (None, None, Some(s3)) => Some(Http01::Bucket(Box::new(s3.bucket()?))),
            (None, None, None) => None,
        };
        let dns01 = match &self.dns01 {
            None => None,
            Some(settings) => Some(settings.solver(local, self.resolver)?),
        };
        Ok(Solvers::new(http01, dns01))
    }
}

fn days(count: u32) -> Duration {
    Duration::from_secs(u64::from(count) * 86400)
}
