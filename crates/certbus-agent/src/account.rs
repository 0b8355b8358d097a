//! Owner and group of the files, as the machine's account database knows them (files, LDAP, whatever it asks).

use nix::unistd::{Group, User};

/// The user id for a name or a number.
pub(crate) fn user(text: &str) -> Result<u32, String> {
    if let Ok(id) = text.parse() {
        return Ok(id);
    }
    match User::from_name(text) {
        Ok(Some(user)) => Ok(user.uid.as_raw()),
        Ok(None) => Err(format!("there is no user `{text}` on this machine; name one that `getent passwd` lists")),
        Err(error) => Err(format!("the user `{text}` cannot be looked up: {error}")),
    }
}

/// The group id for a name or a number.
pub(crate) fn group(text: &str) -> Result<u32, String> {
    if let Ok(id) = text.parse() {
        return Ok(id);
    }
    match Group::from_name(text) {
        Ok(Some(group)) => Ok(group.gid.as_raw()),
        Ok(None) => Err(format!("there is no group `{text}` on this machine; name one that `getent group` lists")),
        Err(error) => Err(format!("the group `{text}` cannot be looked up: {error}")),
    }
}
