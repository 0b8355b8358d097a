//! Identity files: the private keys of an owner, a manager or a group of nodes, with the log they trust.
//! Only their text: reading, writing and checking the mode is the edge's.

use std::fmt;

use data_encoding::BASE64URL_NOPAD;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use crate::chain::Pin;
use crate::id::PublicKey;
use crate::key::SigningKey;
use crate::seal::OpeningKey;

/// Whose private keys they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The authority, with the recovery identity.
    Owner,
    /// A manager: signs batches, opens the configuration.
    Manager,
    /// A recipient: opens certificates' private keys.
    Node,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Owner => "owner",
            Self::Manager => "manager",
            Self::Node => "node",
        })
    }
}

/// An identity, opened.
#[derive(Debug)]
pub struct Identity {
    /// Whose it is.
    pub role: Role,
    /// The tenant.
    pub tenant: String,
    /// The name under which it is admitted or added.
    pub name: String,
    /// The log and authority it trusts. None: made with `identity new`, and pinned by the local settings.
    pub pin: Option<Pin>,
    /// Signs: the authority's statements, or a manager's batches. None for a node.
    pub sign: Option<SigningKey>,
    /// Opens: recovery's rings, a manager's configuration, a node's rings.
    pub open: OpeningKey,
}

/// Why a text is not an identity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// Not the JSON of an identity file.
    #[error("not an identity file: {0}")]
    Malformed(String),
    /// Another role is needed here.
    #[error("it is the identity of a {found}, and a {wanted}'s is needed here")]
    WrongRole {
        /// What it is.
        found: Role,
        /// What is needed.
        wanted: Role,
    },
}

#[derive(Serialize, Deserialize)]
struct File {
    certbus_identity: u32,
    role: Role,
    tenant: String,
    name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pin: Option<Pin>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sign_public: Option<PublicKey>,
    open_public: PublicKey,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sign_private: Option<String>,
    open_private: String,
}

impl Drop for File {
    fn drop(&mut self) {
        self.sign_private.zeroize();
        self.open_private.zeroize();
    }
}

impl Identity {
    /// The text of its file. Holds private keys: mode 0600.
    pub fn to_file(&self) -> Zeroizing<String> {
        let file = File {
            certbus_identity: 1,
            role: self.role,
            tenant: self.tenant.clone(),
            name: self.name.clone(),
            pin: self.pin,
            sign_public: self.sign.as_ref().map(SigningKey::public),
            open_public: self.open.public(),
            sign_private: self.sign.as_ref().map(|key| BASE64URL_NOPAD.encode(key.seed())),
            open_private: BASE64URL_NOPAD.encode(self.open.secret()),
        };
        Zeroizing::new(serde_json::to_string_pretty(&file).unwrap_or_default() + "\n")
    }

    /// Reads the text of an identity file.
    ///
    /// # Errors
    /// [`IdentityError::Malformed`]; never with a private key in it.
    pub fn from_file(text: &str) -> Result<Self, IdentityError> {
        let bad = |why: &str| IdentityError::Malformed(why.to_owned());
        let file: File = serde_json::from_str(text).map_err(|e| {
            // serde_json's own message may quote the value it stumbled over.
            bad(&format!("line {} column {} is not what such a file has there", e.line(), e.column()))
        })?;
        if file.certbus_identity != 1 {
            return Err(bad(&format!("it has format {}; upgrade this program", file.certbus_identity)));
        }
        let key = |text: &str, what: &str| -> Result<Zeroizing<[u8; 32]>, IdentityError> {
            let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).map(Zeroizing::new);
            let bytes = bytes.map_err(|_| bad(&format!("{what} is damaged")))?;
            let array: [u8; 32] = bytes.as_slice().try_into().map_err(|_| bad(&format!("{what} is damaged")))?;
            Ok(Zeroizing::new(array))
        };
        let sign = match &file.sign_private {
            None => None,
            Some(text) => {
                Some(SigningKey::from_seed(*key(text, "sign_private")?).map_err(|_| bad("sign_private is damaged"))?)
            }
        };
        let open = OpeningKey::from_secret(key(&file.open_private, "open_private")?.as_ref())
            .map_err(|_| bad("open_private is damaged"))?;
        if open.public() != file.open_public || sign.as_ref().map(SigningKey::public) != file.sign_public {
            return Err(bad("a private key does not belong to the public key beside it"));
        }
        if sign.is_none() != (file.role == Role::Node) {
            return Err(bad("owners and managers have a signing key, nodes have none"));
        }
        let (role, tenant, name, pin) = (file.role, file.tenant.clone(), file.name.clone(), file.pin);
        Ok(Self { role, tenant, name, pin, sign, open })
    }

    /// Itself, if its role is `wanted`.
    ///
    /// # Errors
    /// [`IdentityError::WrongRole`].
    pub fn expect(self, wanted: Role) -> Result<Self, IdentityError> {
        if self.role == wanted { Ok(self) } else { Err(IdentityError::WrongRole { found: self.role, wanted }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manager() -> Identity {
        Identity {
            role: Role::Manager,
            tenant: "default".into(),
            name: "a".into(),
            pin: None,
            sign: Some(SigningKey::from_seed([3; 32]).unwrap()),
            open: OpeningKey::generate().unwrap(),
        }
    }

    #[test]
    fn an_identity_survives_its_file_and_a_damaged_file_is_named_without_its_secrets() {
        let identity = manager();
        let text = identity.to_file();
        let back = Identity::from_file(&text).unwrap();
        assert_eq!(back.open.public(), identity.open.public());
        assert_eq!(back.sign.unwrap().public(), identity.sign.as_ref().unwrap().public());

        let secret = BASE64URL_NOPAD.encode(identity.open.secret());
        for bad in [text.replace(&secret, "AAAA"), text.replace("open_public", "x"), text[..40].to_owned()] {
            let error = Identity::from_file(&bad).unwrap_err().to_string();
            assert!(error.contains("identity file") && !error.contains(&secret), "{error}");
        }
        assert!(!format!("{identity:?}").contains(&secret), "invariant 1");
    }

    #[test]
    fn a_role_in_the_wrong_place_is_refused_by_name() {
        let error = manager().expect(Role::Owner).unwrap_err().to_string();
        assert!(error.contains("manager") && error.contains("owner"), "{error}");
    }
}
