//! What the authority has said: each statement follows the one before, is signed by the authority in force, and says who
//! may write, who may read, and which keys are in use. Who carried it matters not.

use crate::chain::{Chain, ChainError, Pin, Recipient, Ring, Writer};
use crate::id::{Hash, LogId, PublicKey, StreamKind};
use crate::key::{Domain, SigningKey};
use crate::seal::SealedFor;
use crate::statement::{Said, SignedStatement, Statement, StatementError};
use crate::time::Timestamp;

impl Chain {
    /// Hears one statement, carried by batch `seq`. One that was heard before is passed over.
    ///
    /// # Errors
    /// [`ChainError::BadStatement`], [`ChainError::UnknownStatement`] or [`ChainError::NotPinned`].
    pub fn hear(&mut self, signed: &SignedStatement, seq: u64) -> Result<(), ChainError> {
        if self.statements.iter().any(|heard| heard.body == signed.body) {
            return Ok(());
        }
        let statement = signed.decode().map_err(|source| match source {
            StatementError::UnknownKind(_) => ChainError::UnknownStatement { seq, source },
            StatementError::Malformed(_) => self.bad(seq, 0, &source.to_string()),
        })?;
        let (number, bytes) = (statement.number, signed.body.as_bytes());
        if number != self.statements.len() as u64 + 1 {
            let why =
                format!("{} statements are known; some are missing, or this one stands twice", self.statements.len());
            return Err(self.bad(seq, number, &why));
        }
        if statement.previous != self.last_statement() {
            return Err(self.bad(seq, number, "it names another predecessor"));
        }
        let speaker = match (&statement.said, self.authority) {
            (Said::LogStarted { authority, .. }, None) => *authority,
            (_, Some(authority)) => authority,
            (_, None) => return Err(self.bad(seq, number, "no LogStarted before it")),
        };
        if !signed.signature.verifies(&speaker, Domain::Statement, bytes) {
            return Err(self.bad(seq, number, "it is not signed by the authority in force"));
        }
        if self.log().is_some_and(|log| log != statement.log) {
            return Err(self.bad(seq, number, "it belongs to another log"));
        }
        self.apply(&statement, signed, seq)?;
        self.statements.push(signed.clone());
        Ok(())
    }

    fn apply(&mut self, statement: &Statement, signed: &SignedStatement, seq: u64) -> Result<(), ChainError> {
        let (number, log) = (statement.number, statement.log);
        match &statement.said {
            Said::LogStarted { tenant, authority, recovery } => {
                if number != 1 {
                    return Err(self.bad(seq, number, "a log starts once"));
                }
                if !self.pins.iter().any(|pin| pin.log == log) {
                    let pinned: Vec<String> = self.pins.iter().map(|pin| pin.log.to_string()).collect();
                    return Err(ChainError::NotPinned(format!(
                        "it is log {log}, and the identity was made for log {}",
                        pinned.join(" or ")
                    )));
                }
                self.tenant.clone_from(tenant);
                self.anchor(log, *authority, *recovery);
            }
            Said::WriterAdmitted { name, key, open } => {
                if self.writers().any(|w| w.key == *key || w.name == *name) {
                    return Err(self.bad(seq, number, "that writer or name is admitted already"));
                }
                let (name, key, open) = (name.clone(), *key, *open);
                self.writers.push(Writer { name, key, open, admitted: seq, retired: None });
            }
            Said::WriterRetired { key } => {
                let Some(writer) = self.writers.iter_mut().find(|w| w.key == *key && w.retired.is_none()) else {
                    return Err(self.bad(seq, number, "that writer is not admitted"));
                };
                writer.retired = Some(seq);
            }
            Said::RecipientAdded { name, key, rings } => {
                if self.recipients.iter().any(|r| r.key == *key || r.name == *name) {
                    return Err(self.bad(seq, number, "that recipient or name is there already"));
                }
                self.recipients.push(Recipient { name: name.clone(), key: *key, added: statement.time });
                for given in rings {
                    let Some(ring) = self.rings.iter_mut().find(|r| r.id == given.ring) else {
                        return Err(self.bad(seq, number, "it gives a ring that was never started"));
                    };
                    ring.keys.retain(|held| held.to != *key);
                    ring.keys.push(SealedFor { to: *key, sealed: given.sealed.clone() });
                }
            }
            Said::RecipientRemoved { key, compromised } => {
                if !self.recipients.iter().any(|r| r.key == *key) {
                    return Err(self.bad(seq, number, "that recipient is not there"));
                }
                self.recipients.retain(|r| r.key != *key);
                if *compromised {
                    let opened = self.rings.iter().filter(|ring| ring.keys.iter().any(|held| held.to == *key));
                    self.compromised.extend(opened.map(|ring| ring.id));
                }
            }
            Said::RingStarted { ring, public, keys } => {
                if self.rings.iter().any(|r| r.id == *ring) {
                    return Err(self.bad(seq, number, "that ring was started before"));
                }
                self.rings.push(Ring { id: *ring, public: *public, keys: keys.clone() });
            }
            Said::AuthorityChanged { authority, recovery, compromised } => {
                let accepted = signed
                    .acceptance
                    .is_some_and(|a| a.verifies(authority, Domain::Acceptance, signed.body.as_bytes()));
                if !accepted {
                    return Err(self.bad(seq, number, "the new authority did not accept the change"));
                }
                if let Some(old) = self.recovery.filter(|_| *compromised) {
                    let opened = self.rings.iter().filter(|ring| ring.keys.iter().any(|held| held.to == old));
                    self.compromised.extend(opened.map(|ring| ring.id));
                }
                self.anchor(log, *authority, *recovery);
            }
            Said::LogRestored { epoch, certs, work } => {
                let from = if self.stream == StreamKind::Certs { certs } else { work };
                if *epoch != self.epoch + 1 {
                    return Err(self.bad(seq, number, "its epoch does not follow"));
                }
                if from.seq >= seq || (from.seq == self.cursor.seq && *from != self.cursor) {
                    return Err(self.bad(seq, number, "it goes on from another place than the one read"));
                }
                self.epoch = *epoch;
            }
        }
        Ok(())
    }

    fn anchor(&mut self, log: LogId, authority: PublicKey, recovery: PublicKey) {
        self.log = Some(log);
        self.anchored |= self.pins.contains(&Pin { log, authority });
        self.authority = Some(authority);
        self.recovery = Some(recovery);
    }

    fn bad(&self, seq: u64, number: u64, why: &str) -> ChainError {
        ChainError::BadStatement { seq, number, why: why.to_owned() }
    }

    /// Prepares the next statement, signs it, and hears it, as if batch `seq` carried it.
    ///
    /// # Errors
    /// What [`Chain::hear`] would say of it: so nothing that readers refuse is ever written.
    pub fn state(
        &mut self,
        said: Said,
        log: LogId,
        now: Timestamp,
        authority: &SigningKey,
        new_authority: Option<&SigningKey>,
    ) -> Result<SignedStatement, ChainError> {
        let number = self.statements.len() as u64 + 1;
        let statement = Statement { log, number, previous: self.last_statement(), time: now, said };
        let mut signed = SignedStatement::sign(&statement, authority);
        if let Some(new) = new_authority {
            signed = signed.accepted_by(new);
        }
        self.hear(&signed, self.cursor.seq + 1)?;
        Ok(signed)
    }

    fn last_statement(&self) -> Hash {
        self.statements.last().map_or(Hash::ZERO, SignedStatement::hash)
    }

    /// Whether a pinned authority has vouched for this history. Nothing may be adopted from it before.
    ///
    /// # Errors
    /// [`ChainError::NotPinned`].
    pub fn check_anchored(&self) -> Result<(), ChainError> {
        if self.anchored {
            return Ok(());
        }
        Err(ChainError::NotPinned(match self.authority {
            Some(authority) => format!("its authority is {authority}, which the identity does not trust"),
            None => "it is empty".into(),
        }))
    }
}
