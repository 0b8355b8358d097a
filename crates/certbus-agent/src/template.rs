//! Paths with `{name}` and `{id}` in them. An absolute path without `..`, and what is put in holds no `/`: no name of a
//! certificate leads out of the folder that the settings name.

use std::path::{Component, Path, PathBuf};

use certbus_core::catalog::Version;
use certbus_core::name::NameSet;

/// A path that the settings name, to be filled in for each certificate.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Template(String);

impl Template {
    /// Parses it; the error says what would be right.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let path = Path::new(text);
        if !path.is_absolute() {
            return Err(format!("`{text}` is relative; write the whole path, beginning with `/`"));
        }
        if path.components().any(|part| part == Component::ParentDir) {
            return Err(format!("`{text}` has `..` in it; write the path without"));
        }
        if text.ends_with('/') {
            return Err(format!("`{text}` is a folder; write the file, such as {text}{{name}}.pem"));
        }
        let rest = text.replace("{name}", "").replace("{id}", "");
        if rest.contains(['{', '}']) {
            return Err(format!("`{text}` has braces around something else; there are {{name}} and {{id}}"));
        }
        if rest.contains('\0') {
            return Err("it has a zero byte".into());
        }
        Ok(Self(text.to_owned()))
    }

    /// The path for one certificate.
    pub(crate) fn path(&self, version: &Version) -> PathBuf {
        let (name, id) = (file_name(&version.names), version.certificate.to_string());
        PathBuf::from(self.0.replace("{name}", &name).replace("{id}", &id))
    }

    /// As written.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// What `{name}` stands for: the shortest name of the certificate, one without `*` before one with, the first in the
/// alphabet of equals; `*` is written `_`. The same for each renewal, since the names are.
pub(crate) fn file_name(names: &NameSet) -> String {
    let first = names.iter().min_by_key(|name| (name.starts_with('*'), name.len(), *name)).unwrap_or("nameless");
    // Names come parsed; this holds even if one did not.
    first.replace('*', "_").replace(['/', '\0'], "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stands_for_the_site_rather_than_for_its_wildcard_or_its_subdomains() {
        for (names, wanted) in [
            ("*.shop.example api.shop.example shop.example www.shop.example", "shop.example"),
            ("*.shop.example", "_.shop.example"),
            ("a.example b.example", "a.example"),
            ("*.a.example *.b.example", "_.a.example"),
            ("../../etc/passwd", ".._.._etc_passwd"),
        ] {
            assert_eq!(file_name(&NameSet::from_stored(names)), wanted);
        }
    }

    #[test]
    fn a_path_that_is_relative_or_leads_elsewhere_is_refused_with_what_would_be_right() {
        for (bad, word) in [
            ("certs/{name}.pem", "relative"),
            ("/etc/../{name}", ".."),
            ("/etc/nginx/", "{name}.pem"),
            ("/etc/{domain}.pem", "{name} and {id}"),
            ("/etc/{name.pem", "braces"),
        ] {
            assert!(Template::parse(bad).unwrap_err().contains(word), "{bad}");
        }
        assert!(Template::parse("/etc/nginx/{name}-{id}.pem").is_ok());
    }
}
