//! The owner's acts on a live log: found it, admit and retire managers, add and remove recipients. What the authority
//! signs is core's; here it is carried to both streams by a writer.

use certbus_bus::log::AppendError;
use certbus_bus::write;
use certbus_core::authority::Ceremony;
use certbus_core::batch::Draft;
use certbus_core::chain::{Chain, Pin};
use certbus_core::event::Event;
use certbus_core::id::{Cursor, LogId, PublicKey, StreamKind};
use certbus_core::identity::{Identity, Role};
use certbus_core::key::SigningKey;
use certbus_core::seal::OpeningKey;
use certbus_core::statement::SignedStatement;

use crate::clock;
use crate::manager::{ManageError, Manager};
use crate::tenant::{Tenant, View};

/// A new identity, trusting `pin`.
///
/// # Errors
/// [`ManageError::Seal`] if no key can be made.
pub fn new_identity(role: Role, tenant: &str, name: &str, pin: Option<Pin>) -> Result<Identity, ManageError> {
    let sign = match role {
        Role::Node => None,
        Role::Owner | Role::Manager => SigningKey::from_seed(clock::random()).ok(),
    };
    Ok(Identity { role, tenant: tenant.to_owned(), name: name.to_owned(), pin, sign, open: OpeningKey::generate()? })
}

/// What a new log needs: its id, and the three identities that trust it.
#[derive(Debug)]
pub struct Founding {
    /// The log's id.
    pub log: LogId,
    /// The authority, with recovery.
    pub owner: Identity,
    /// The first manager.
    pub manager: Identity,
    /// The first recipient: a group of nodes.
    pub nodes: Identity,
}

impl Founding {
    /// Makes the keys that are missing: an init that stopped halfway left some.
    ///
    /// # Errors
    /// [`ManageError::Seal`]; [`ManageError::NotAdmitted`] if one that is there trusts no log.
    pub fn prepare(
        tenant: &str,
        manager_name: &str,
        owner: Option<Identity>,
        manager: Option<Identity>,
        nodes: Option<Identity>,
    ) -> Result<Self, ManageError> {
        let owner = match owner {
            Some(owner) => owner,
            None => {
                let mut owner = new_identity(Role::Owner, tenant, "owner", None)?;
                let log = clock::log_id();
                owner.pin = owner.sign.as_ref().map(|key| Pin { log, authority: key.public() });
                owner
            }
        };
        let pin = owner.pin.ok_or_else(|| ManageError::NotAdmitted(owner.name.clone()))?;
        let manager = match manager {
            Some(manager) => manager,
            None => new_identity(Role::Manager, tenant, manager_name, Some(pin))?,
        };
        let nodes = match nodes {
            Some(nodes) => nodes,
            None => new_identity(Role::Node, tenant, "nodes", Some(pin))?,
        };
        Ok(Self { log: pin.log, owner, manager, nodes })
    }

    /// Writes the first batch of each stream. Repeating it on a log that it founded before does nothing.
    ///
    /// # Errors
    /// [`ManageError::Append`] with a conflict if another log is there.
    pub async fn found(&self, tenant: &Tenant) -> Result<(), ManageError> {
        let mut ceremony = Ceremony::found(&tenant.name, self.log, &self.owner, clock::now())?;
        let key = self.manager.sign.as_ref().ok_or_else(|| ManageError::NotAdmitted(self.manager.name.clone()))?;
        ceremony.admit_writer(&self.manager.name, key.public(), self.manager.open.public())?;
        ceremony.add_recipient(&self.nodes.name, self.nodes.open.public(), &[])?;
        ceremony.start_ring(clock::ring_id())?;
        let statements = ceremony.finish();
        for kind in StreamKind::ALL {
            let draft = Draft {
                log: self.log,
                stream: kind,
                id: clock::batch_id(),
                time: clock::now(),
                actor: "owner".into(),
                source: "init".into(),
                events: statements.iter().cloned().map(Event::Statement).collect(),
            };
            write::append(&*tenant.stream(kind).log, Cursor::START, draft, key).await?;
        }
        Ok(())
    }
}

impl Manager {
    /// Lets the owner speak, and carries it to both streams. `say` may be called again if somebody else wrote
    /// meanwhile.
    ///
    /// # Errors
    /// [`ManageError::Authority`].
    pub async fn ceremony(
        &self,
        owner: &Identity,
        mut say: impl FnMut(&mut Ceremony<'_>, &crate::tenant::View) -> Result<(), ManageError>,
    ) -> Result<(), ManageError> {
        self.record(StreamKind::Certs, |view| {
            let mut ceremony = Ceremony::resume(&view.certs, owner, clock::now())?;
            say(&mut ceremony, view)?;
            let said: Vec<SignedStatement> = ceremony.finish();
            Ok((said.into_iter().map(Event::Statement).collect(), ()))
        })
        .await?;
        self.carry_statements().await
    }

    /// Adds a recipient, with every ring that a live certificate or open order uses.
    ///
    /// # Errors
    /// [`ManageError::Authority`].
    pub async fn add_recipient(&self, owner: &Identity, name: &str, key: PublicKey) -> Result<(), ManageError> {
        self.ceremony(owner, |ceremony, view| {
            let mut rings = view.work.rings(&view.catalog);
            // And the one that the next certificate will use.
            rings.extend(view.certs.current_ring().map(|ring| ring.id));
            rings.sort_unstable();
            rings.dedup();
            Ok(ceremony.add_recipient(name, key, &rings)?)
        })
        .await
    }

    /// Removes a recipient and starts a new ring.
    ///
    /// # Errors
    /// [`ManageError::Authority`].
    pub async fn remove_recipient(&self, owner: &Identity, name: &str, compromised: bool) -> Result<(), ManageError> {
        self.ceremony(owner, |ceremony, _| Ok(ceremony.remove_recipient(name, compromised, clock::ring_id())?)).await
    }

    /// Admits another manager and seals the issuing settings to it too.
    ///
    /// # Errors
    /// [`ManageError::Authority`].
    pub async fn admit(
        &self,
        owner: &Identity,
        name: &str,
        key: PublicKey,
        open: PublicKey,
    ) -> Result<(), ManageError> {
        self.ceremony(owner, |ceremony, _| Ok(ceremony.admit_writer(name, key, open)?)).await?;
        self.reseal().await
    }

    /// Retires a manager. What it knew it still knows.
    ///
    /// # Errors
    /// [`ManageError::Authority`].
    pub async fn retire(&self, owner: &Identity, name: &str) -> Result<(), ManageError> {
        self.ceremony(owner, |ceremony, _| {
            ceremony.retire_writer(name)?;
            // Its own retirement takes effect in the very batch that carries it.
            if name == self.identity().name { Err(ManageError::RetiringOneself) } else { Ok(()) }
        })
        .await?;
        self.reseal().await
    }

    /// Hands the log over to a new owner: it speaks from here on, and recovers what is issued from here on.
    ///
    /// # Errors
    /// [`ManageError::Authority`].
    pub async fn change_owner(&self, old: &Identity, new: &Identity, compromised: bool) -> Result<(), ManageError> {
        self.record(StreamKind::Certs, |view| {
            let ceremony = Ceremony::resume(&view.certs, old, clock::now())?;
            let said = ceremony.change_owner(new, compromised, clock::ring_id())?.finish();
            Ok((said.into_iter().map(Event::Statement).collect(), ()))
        })
        .await?;
        self.carry_statements().await?;
        self.reseal().await
    }

    /// Says that the log was put back to an older copy: this one, as it is now.
    ///
    /// # Errors
    /// [`ManageError::Authority`].
    pub async fn restored(&self, owner: &Identity) -> Result<u64, ManageError> {
        self.ceremony(owner, |ceremony, view| Ok(ceremony.restored(view.certs.cursor(), view.works.cursor())?)).await?;
        Ok(self.view().await?.certs.epoch())
    }

    async fn reseal(&self) -> Result<(), ManageError> {
        if self.view().await?.work.config().is_none() {
            return Ok(());
        }
        let settings = self.settings().await?;
        self.set_settings(&settings, &settings).await
    }
}

/// Admits a manager on a log that has none left to carry the owner's word: it carries its own admission, and is given the
/// issuing settings by the owner, to whom they are sealed too.
///
/// # Errors
/// [`ManageError::Authority`], [`ManageError::Append`].
pub async fn admit_alone(tenant: Tenant, owner: &Identity, new: Identity) -> Result<(), ManageError> {
    let not_admitted = || ManageError::NotAdmitted(new.name.clone());
    let key = new.sign.as_ref().ok_or_else(not_admitted)?;
    let mut view = tenant.load().await?;
    // What one stream lacks of the other's is carried too.
    let mut ceremony = Ceremony::resume(longer(&view), owner, clock::now())?;
    ceremony.admit_writer(&new.name, key.public(), new.open.public())?;
    let said: Vec<_> = longer(&view).statements().iter().cloned().chain(ceremony.finish()).collect();
    for kind in StreamKind::ALL {
        let chain = view.chain(kind);
        let draft = Draft {
            log: chain.log().ok_or_else(not_admitted)?,
            stream: kind,
            id: clock::batch_id(),
            time: clock::now(),
            actor: "owner".into(),
            source: "manager add --alone".into(),
            events: said.iter().skip(chain.statements().len()).cloned().map(Event::Statement).collect(),
        };
        let batch = write::append(&*tenant.stream(kind).log, chain.cursor(), draft, key).await?;
        view.accept(kind, &batch)?;
    }
    let manager = Manager::open(tenant, new, "cli").await?;
    let text = match view.work.config() {
        Some(config) => config.config.open(&manager.tenant().name, &owner.open)?,
        None => return Ok(()),
    };
    manager.seal_settings(&text).await
}

/// The stream that has heard more of the owner.
fn longer(view: &View) -> &Chain {
    if view.works.statements().len() > view.certs.statements().len() { &view.works } else { &view.certs }
}

/// Whether founding met a log that is there already.
pub fn is_taken(error: &ManageError) -> bool {
    matches!(error, ManageError::Append(AppendError::Conflict { .. }))
}
