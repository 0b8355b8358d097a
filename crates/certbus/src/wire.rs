//! The only place where engines are chosen and identities are read: from settings to things that run.

use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail};
#[cfg(feature = "dynamodb")]
use certbus_bus::dynamodb::DynamodbTable;
use certbus_bus::health::Health;
use certbus_bus::http::HttpServer;
#[cfg(feature = "mariadb")]
use certbus_bus::mariadb::MariadbServer;
#[cfg(feature = "nats")]
use certbus_bus::nats::NatsServer;
#[cfg(feature = "postgres")]
use certbus_bus::postgres::PostgresServer;
use certbus_bus::sqlite::SqliteFile;
use certbus_bus::{EventLog, SnapshotStore};
use certbus_client::Client;
use certbus_core::chain::Pin;
use certbus_core::identity::{Identity, Role};
use certbus_manager::{Manager, Stream, Tenant};
use certbus_store::Store;

use crate::cli::exit::{Missing, Mistake};
use crate::settings::{LogPlace, Settings};

/// The streams of the settings' tenant. `create` makes the file.
pub(crate) async fn tenant(settings: &Settings, pins: Vec<Pin>, create: bool) -> Result<Tenant> {
    let engine = Engine::open(&settings.log()?, create).await?;
    let stream = |kind: &str| engine.stream(&settings.tenant, kind);
    let pins = pins.into_iter().chain(settings.pins().iter().copied()).collect();
    Ok(Tenant { name: settings.tenant.clone(), certs: stream("certs"), work: stream("work"), pins })
}

/// What holds the streams.
pub(crate) enum Engine {
    Sqlite(SqliteFile),
    #[cfg(feature = "postgres")]
    Postgres(PostgresServer),
    #[cfg(feature = "mariadb")]
    Mariadb(MariadbServer),
    #[cfg(feature = "dynamodb")]
    Dynamodb(DynamodbTable),
    #[cfg(feature = "nats")]
    Nats(Box<NatsServer>),
    Http(HttpServer),
}

impl Engine {
    /// Opens it; makes its tables if `create` says so.
    pub(crate) async fn open(place: &LogPlace, create: bool) -> Result<Self> {
        Ok(match place {
            LogPlace::Sqlite(path) => Self::Sqlite(SqliteFile::open(path, create).await?),
            #[cfg(feature = "postgres")]
            LogPlace::Postgres(url) => Self::Postgres(PostgresServer::open(url, create).await?),
            #[cfg(feature = "mariadb")]
            LogPlace::Mariadb(url) => Self::Mariadb(MariadbServer::open(url, create).await?),
            #[cfg(feature = "dynamodb")]
            LogPlace::Dynamodb(url) => Self::Dynamodb(DynamodbTable::open(url, create).await?),
            #[cfg(feature = "nats")]
            LogPlace::Nats(url) => Self::Nats(Box::new(NatsServer::open(url).await?)),
            LogPlace::Http { url, token } => Self::Http(HttpServer::new(url, token)?),
            #[cfg(not(all(feature = "postgres", feature = "mariadb", feature = "dynamodb", feature = "nats")))]
            _ => bail!(Mistake::new("this program was built without the engine that log.url names")),
        })
    }

    /// One of its streams; it need not exist yet.
    pub(crate) fn stream(&self, tenant: &str, kind: &str) -> Stream {
        fn both(log: impl EventLog + SnapshotStore + 'static) -> Stream {
            let log = Arc::new(log);
            Stream { log: log.clone(), snapshots: log }
        }
        let name = format!("{tenant}/{kind}");
        match self {
            Self::Sqlite(file) => both(file.stream(&name)),
            #[cfg(feature = "postgres")]
            Self::Postgres(server) => both(server.stream(&name)),
            #[cfg(feature = "mariadb")]
            Self::Mariadb(server) => both(server.stream(&name)),
            #[cfg(feature = "dynamodb")]
            Self::Dynamodb(table) => both(table.stream(&name)),
            #[cfg(feature = "nats")]
            Self::Nats(server) => both(server.stream(&name)),
            Self::Http(server) => both(server.stream(kind)),
        }
    }

    /// What the engine says of itself; None: there is nothing beside this process.
    pub(crate) async fn health(&self) -> Result<Option<Health>> {
        Ok(match self {
            Self::Sqlite(_) | Self::Http(_) => None,
            #[cfg(feature = "postgres")]
            Self::Postgres(server) => Some(server.health().await?),
            #[cfg(feature = "mariadb")]
            Self::Mariadb(server) => Some(server.health().await?),
            #[cfg(feature = "dynamodb")]
            Self::Dynamodb(table) => Some(table.health().await?),
            #[cfg(feature = "nats")]
            Self::Nats(server) => Some(server.health().await?),
        })
    }

    /// The names of the streams that have a batch: `TENANT/certs`, `TENANT/work`.
    pub(crate) async fn streams(&self) -> Result<Vec<String>> {
        Ok(match self {
            Self::Sqlite(file) => file.streams().await?,
            #[cfg(feature = "postgres")]
            Self::Postgres(server) => server.streams().await?,
            #[cfg(feature = "mariadb")]
            Self::Mariadb(server) => server.streams().await?,
            #[cfg(feature = "dynamodb")]
            Self::Dynamodb(table) => table.streams().await?,
            #[cfg(feature = "nats")]
            Self::Nats(server) => server.streams().await?,
            Self::Http(_) => {
                bail!(Mistake::new("log.url is a CertBus server, which names no tenants; its own machine does"))
            }
        })
    }
}

/// Names of the tenants that have a log.
pub(crate) async fn tenants(settings: &Settings) -> Result<Vec<String>> {
    let streams = Engine::open(&settings.log()?, false).await?.streams().await?;
    Ok(streams.iter().filter_map(|s| s.strip_suffix("/certs")).map(str::to_owned).collect())
}

/// The manager of the settings, loaded and admitted, for one command.
pub(crate) async fn manager(settings: &Settings) -> Result<Manager> {
    manager_from(settings, "cli").await
}

/// The same; the log says that what it writes came from `source`.
pub(crate) async fn manager_from(settings: &Settings, source: &str) -> Result<Manager> {
    if let LogPlace::Http { url, .. } = settings.log()? {
        bail!(Mistake::new(format!(
            "log.url is the CertBus server {}, from which certificates are read; a manager's log.url names the engine itself",
            &*url
        )));
    }
    let identity = identity(&settings.manager_key(), Role::Manager)?;
    check_tenant(&identity, settings)?;
    let tenant = tenant(settings, identity.pin.into_iter().collect(), false).await?;
    Ok(Manager::open(tenant, identity, source).await?)
}

/// The inventory of the settings, made if it is not there.
pub(crate) async fn inventory(settings: &Settings) -> Result<Store> {
    let path = settings.inventory_path()?;
    make_folder(path.parent().unwrap_or(Path::new(".")))?;
    Ok(Store::open(&path).await?)
}

/// The client of the settings, serving what `folder` holds and following the log in the background. A log that cannot be
/// opened does not stop one who serves (invariant 4): it is tried again until it can.
pub(crate) async fn client(settings: &Settings, key: &Path, folder: &Path) -> Result<Arc<Client>> {
    // A log that cannot be reached is waited for; one that is not rightly named is not.
    settings.log()?;
    let identity = identity(key, Role::Node)?;
    check_tenant(&identity, settings)?;
    make_folder(folder)?;
    let client = Client::open(identity, settings.pins().to_vec(), folder)?;
    tokio::spawn(follow(client.clone(), settings.clone()));
    Ok(client)
}

/// The client of an agent: as [`client`], but it keeps no opened keys and does not follow the log yet.
pub(crate) fn client_for_files(settings: &Settings, key: &Path, folder: &Path) -> Result<Arc<Client>> {
    // A log that cannot be reached is waited for; one that is not rightly named is not.
    settings.log()?;
    let identity = identity(key, Role::Node)?;
    check_tenant(&identity, settings)?;
    make_folder(folder)?;
    Ok(Client::open_for_files(identity, settings.pins().to_vec(), folder)?)
}

/// Follows the log of the settings as soon as it can be opened, for as long as it is polled.
pub(crate) async fn follow(client: Arc<Client>, settings: Settings) {
    loop {
        match tenant(&settings, Vec::new(), false).await {
            Ok(tenant) => return client.follow(tenant.certs.log, tenant.certs.snapshots).await,
            Err(error) => client.not_opened(format!("{error:#}")),
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// How long a log that cannot be opened is left alone.
const LOOK_AGAIN: std::time::Duration = std::time::Duration::from_secs(2);

pub(crate) fn check_tenant(identity: &Identity, settings: &Settings) -> Result<()> {
    if identity.tenant == settings.tenant {
        return Ok(());
    }
    bail!(Mistake::new(format!(
        "the identity `{}` is of tenant `{}`, and tenant `{}` was asked for; give --tenant or another identity",
        identity.name, identity.tenant, settings.tenant
    )))
}

/// Reads an identity file: it must be its owner's alone (0600).
pub(crate) fn identity(path: &Path, role: Role) -> Result<Identity> {
    let metadata = match std::fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            let hint = match role {
                Role::Owner => "bring the owner file and give it with --owner FILE",
                Role::Manager | Role::Node => "`certbus init` makes it; --data and --config say where to look",
            };
            bail!(Missing::new(format!("the {role} identity {} is not there; {hint}", path.display())));
        }
        Err(e) => return Err(e).with_context(|| format!("the {role} identity {}", path.display())),
    };
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        bail!(Mistake::new(format!(
            "the identity {} has mode {mode:04o}, so others may read it; run `chmod 600 {0}`",
            path.display()
        )));
    }
    let text = std::fs::read_to_string(path).map(zeroize::Zeroizing::new);
    let text = text.with_context(|| format!("the {role} identity {} cannot be read", path.display()))?;
    Identity::from_file(&text)
        .and_then(|identity| identity.expect(role))
        .with_context(|| format!("the {role} identity {}", path.display()))
}

/// Writes a new identity file (0600), whole or not at all. One that is there is never written over.
pub(crate) fn write_identity(path: &Path, identity: &Identity) -> Result<()> {
    let folder = path.parent().filter(|f| !f.as_os_str().is_empty()).unwrap_or(Path::new("."));
    make_folder(folder)?;
    let mut file = tempfile::Builder::new()
        .permissions(std::fs::Permissions::from_mode(0o600))
        .tempfile_in(folder)
        .with_context(|| format!("cannot make {}", path.display()))?;
    let written = file.write_all(identity.to_file().as_bytes()).and_then(|()| file.as_file().sync_all());
    written.with_context(|| format!("cannot write {}", path.display()))?;
    match file.persist_noclobber(path) {
        Err(e) if e.error.kind() == std::io::ErrorKind::AlreadyExists => {
            bail!(Mistake::new(format!("{} is there already and is not written over", path.display())))
        }
        other => drop(other.with_context(|| format!("cannot make {}", path.display()))?),
    }
    let synced = std::fs::File::open(folder).and_then(|folder| folder.sync_all());
    synced.with_context(|| folder.display().to_string())
}

/// Waits until this process alone holds the lock; it is given back when the file is dropped, or the process ends.
pub(crate) fn lock(path: &Path) -> Result<std::fs::File> {
    let made = std::fs::OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path);
    let file = made.with_context(|| format!("cannot make {}", path.display()))?;
    file.lock().with_context(|| format!("cannot lock {}", path.display()))?;
    Ok(file)
}

/// Makes a folder for its owner alone, and refuses one that belongs to somebody else.
pub(crate) fn make_folder(folder: &Path) -> Result<()> {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .with_context(|| format!("cannot make the folder {}", folder.display()))?;
    let metadata = std::fs::metadata(folder).with_context(|| folder.display().to_string())?;
    // Sticky folders, such as /tmp, are everyone's.
    let (owner, everyones) = (metadata.uid(), metadata.permissions().mode() & 0o1000 != 0);
    let me = std::fs::metadata("/proc/self").map_or(owner, |m| m.uid());
    if owner != me && !everyones {
        bail!(Mistake::new(format!(
            "the folder {} belongs to user id {owner}, and this is user id {me}: files made here would not be readable \
             by its owner; run as that user",
            folder.display()
        )));
    }
    Ok(())
}

/// The owner file: `--owner`, else the one in the data folder.
pub(crate) fn owner(settings: &Settings, given: Option<&PathBuf>) -> Result<Identity> {
    let path = given.cloned().unwrap_or_else(|| settings.owner_key());
    let owner = identity(&path, Role::Owner)?;
    check_tenant(&owner, settings)?;
    owner.sign.is_some().then_some(owner).ok_or_else(|| anyhow!("the owner file has no signing key"))
}
