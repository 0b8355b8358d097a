//! What the authority's holder does, as statements: start a log, admit and retire writers, add and remove recipients.
//! Each function prepares and signs; carrying the statements to the streams is an admitted writer's.

use crate::chain::{Chain, ChainError, Pin};
use crate::id::{Cursor, LogId, PublicKey, RingId, StreamKind};
use crate::identity::Identity;
use crate::key::SigningKey;
use crate::seal::{OpeningKey, Purpose, SealError, SealedFor, seal};
use crate::statement::{Said, SealedRing, SignedStatement};
use crate::time::Timestamp;

/// Why the authority cannot say that.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthorityError {
    /// The identity is not the authority in force of this log.
    #[error("this identity is not the authority of the log: bring the owner file made by `certbus init`")]
    NotTheAuthority,
    /// No recipient or writer of that name.
    #[error("there is no {what} named `{name}`")]
    Unknown {
        /// `recipient` or `manager`.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// The last of its kind cannot go.
    #[error("`{0}` is the last manager: admit another first, or nobody could write the log any more")]
    LastWriter(String),
    /// Readers would refuse it.
    #[error(transparent)]
    Refused(#[from] ChainError),
    /// A ring could not be opened or sealed.
    #[error(transparent)]
    Seal(#[from] SealError),
}

/// An owner at work on a chain read to its head. `statements` collects what is to be carried to both streams.
#[derive(Debug)]
pub struct Ceremony<'a> {
    chain: Chain,
    owner: &'a Identity,
    authority: &'a SigningKey,
    log: LogId,
    now: Timestamp,
    statements: Vec<SignedStatement>,
}

impl<'a> Ceremony<'a> {
    /// A new log: statement 1 says whose it is.
    ///
    /// # Errors
    /// [`AuthorityError::NotTheAuthority`] if `owner` has no signing key.
    pub fn found(tenant: &str, log: LogId, owner: &'a Identity, now: Timestamp) -> Result<Self, AuthorityError> {
        let authority = owner.sign.as_ref().ok_or(AuthorityError::NotTheAuthority)?;
        let pin = Pin { log, authority: authority.public() };
        let chain = Chain::new(StreamKind::Certs, vec![pin]);
        let mut this = Self { chain, owner, authority, log, now, statements: Vec::new() };
        this.say(Said::LogStarted {
            tenant: tenant.to_owned(),
            authority: authority.public(),
            recovery: owner.open.public(),
        })?;
        Ok(this)
    }

    /// On a log that is there, read to its head.
    ///
    /// # Errors
    /// [`AuthorityError::NotTheAuthority`].
    pub fn resume(chain: &Chain, owner: &'a Identity, now: Timestamp) -> Result<Self, AuthorityError> {
        let authority = owner.sign.as_ref().ok_or(AuthorityError::NotTheAuthority)?;
        let log = chain.log().filter(|_| chain.authority() == Some(authority.public()));
        let log = log.ok_or(AuthorityError::NotTheAuthority)?;
        Ok(Self { chain: chain.clone(), owner, authority, log, now, statements: Vec::new() })
    }

    /// What has been said, in order.
    pub fn finish(self) -> Vec<SignedStatement> {
        self.statements
    }

    fn say(&mut self, said: Said) -> Result<(), AuthorityError> {
        let signed = self.chain.state(said, self.log, self.now, self.authority, None)?;
        self.statements.push(signed);
        Ok(())
    }

    /// Admits a manager.
    ///
    /// # Errors
    /// [`AuthorityError::Refused`] if the name or key is taken.
    pub fn admit_writer(&mut self, name: &str, key: PublicKey, open: PublicKey) -> Result<(), AuthorityError> {
        self.say(Said::WriterAdmitted { name: name.to_owned(), key, open })
    }

    /// Retires the manager of this name.
    ///
    /// # Errors
    /// [`AuthorityError::Unknown`], [`AuthorityError::LastWriter`].
    pub fn retire_writer(&mut self, name: &str) -> Result<(), AuthorityError> {
        let found = self.chain.writers().find(|w| w.name == name).map(|w| w.key);
        let key = found.ok_or_else(|| AuthorityError::Unknown { what: "manager", name: name.to_owned() })?;
        if self.chain.writers().count() == 1 {
            return Err(AuthorityError::LastWriter(name.to_owned()));
        }
        self.say(Said::WriterRetired { key })
    }

    /// Adds a recipient and gives it the private halves of `rings`: those that live certificates and open orders use.
    ///
    /// # Errors
    /// [`AuthorityError::Refused`] if the name or key is taken; [`AuthorityError::Seal`] if the owner cannot open one.
    pub fn add_recipient(&mut self, name: &str, key: PublicKey, rings: &[RingId]) -> Result<(), AuthorityError> {
        let tenant = self.chain.tenant().to_owned();
        let rings = rings
            .iter()
            .map(|ring| {
                let opened = self.chain.open_ring(*ring, &self.owner.open)?;
                let purpose = Purpose::Ring { tenant: &tenant, ring: *ring };
                Ok(SealedRing { ring: *ring, sealed: seal(&key, purpose, opened.secret())? })
            })
            .collect::<Result<_, SealError>>()?;
        self.say(Said::RecipientAdded { name: name.to_owned(), key, rings })
    }

    /// Removes a recipient and starts a new ring for those that stay. What it could open before, it still can.
    ///
    /// # Errors
    /// [`AuthorityError::Unknown`].
    pub fn remove_recipient(&mut self, name: &str, compromised: bool, ring: RingId) -> Result<(), AuthorityError> {
        let found = self.chain.recipients().iter().find(|r| r.name == name).map(|r| r.key);
        let key = found.ok_or_else(|| AuthorityError::Unknown { what: "recipient", name: name.to_owned() })?;
        self.say(Said::RecipientRemoved { key, compromised })?;
        self.start_ring(ring)
    }

    /// Hands the log over to a new owner, who accepts it, and starts a ring that the old one cannot open. Nothing more can
    /// be said in this ceremony: the next one is the new owner's.
    ///
    /// # Errors
    /// [`AuthorityError::NotTheAuthority`] if `new` has no signing key.
    pub fn change_owner(mut self, new: &Identity, compromised: bool, ring: RingId) -> Result<Self, AuthorityError> {
        let key = new.sign.as_ref().ok_or(AuthorityError::NotTheAuthority)?;
        let said = Said::AuthorityChanged { authority: key.public(), recovery: new.open.public(), compromised };
        self.statements.push(self.chain.state(said, self.log, self.now, self.authority, Some(key))?);
        let mut next =
            Ceremony { owner: new, authority: key, statements: Vec::new(), chain: self.chain.clone(), ..self };
        next.start_ring(ring)?;
        self.statements.append(&mut next.statements);
        Ok(self)
    }

    /// Says that the log was put back to an older copy, which ends at these places: whoever has seen more goes on there.
    ///
    /// # Errors
    /// [`AuthorityError::Refused`].
    pub fn restored(&mut self, certs: Cursor, work: Cursor) -> Result<(), AuthorityError> {
        let epoch = self.chain.epoch() + 1;
        self.say(Said::LogRestored { epoch, certs, work })
    }

    /// Starts a ring: its private half is sealed to every recipient and to recovery, and forgotten here.
    ///
    /// # Errors
    /// [`AuthorityError::Refused`] if the id was used before.
    pub fn start_ring(&mut self, ring: RingId) -> Result<(), AuthorityError> {
        let key = OpeningKey::generate()?;
        let purpose = Purpose::Ring { tenant: self.chain.tenant(), ring };
        let readers = self.chain.recipients().iter().map(|r| r.key).chain([self.owner.open.public()]);
        let keys = readers
            .map(|to| Ok(SealedFor { to, sealed: seal(&to, purpose, key.secret())? }))
            .collect::<Result<_, SealError>>()?;
        self.say(Said::RingStarted { ring, public: key.public(), keys })
    }
}
