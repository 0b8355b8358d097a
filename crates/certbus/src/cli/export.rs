//! `cert export`: one of the places where a private key leaves its seal, because a person asked for it by name.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use certbus_agent::layout;
use certbus_core::event::CertificateObtained;
use certbus_core::id::CertificateId;
use certbus_core::identity::Role;
use certbus_core::seal::{Purpose, open};
use clap::{Args, ValueEnum};
use zeroize::Zeroizing;

use super::exit::{Missing, Mistake};
use super::output;
use crate::settings::Settings;
use crate::wire;

#[derive(Debug, Args)]
pub(crate) struct Export {
    /// Its id
    id: CertificateId,
    /// A recipient's identity that opens the key [default: nodes.key in the data folder]
    #[arg(long, value_name = "FILE")]
    identity: Option<PathBuf>,
    /// Where the files go
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// cert.pem, chain.pem, fullchain.pem, privkey.pem; or bundle.p12
    #[arg(long, value_enum, default_value = "pem")]
    format: Format,
    /// A file with the password of the PKCS#12 bundle
    #[arg(long, value_name = "FILE", required_if_eq("format", "pkcs12"))]
    password_file: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Pem,
    Pkcs12,
}

impl Export {
    pub(crate) async fn run(self, settings: &Settings) -> Result<()> {
        let key_file = self.identity.clone().unwrap_or_else(|| settings.node_key());
        let identity = wire::identity(&key_file, Role::Node)?;
        let pins = identity.pin.into_iter().collect();
        // No manager is needed: a node's identity opens what is sealed to it.
        let tenant = wire::tenant(settings, pins, false).await?;
        let view = tenant.load().await?;
        let version = view.catalog.current(self.id, Some(&identity.name)).or_else(|| view.catalog.newest(self.id));
        let Some(version) = version else {
            bail!(Missing::new(format!(
                "there is no certificate {} yet; `certbus cert ls` lists what there is",
                self.id
            )));
        };
        let obtained = tenant.obtained(&view, version).await?;
        let obtained = obtained.context("its record is not on the log any more")?;
        let ring = view.certs.open_ring(obtained.key.ring, &identity.open)?;
        let purpose = Purpose::CertificateKey {
            tenant: view.certs.tenant(),
            ring: obtained.key.ring,
            certificate: obtained.certificate,
            spki: obtained.spki,
        };
        let key = open(&ring, purpose, &obtained.key.sealed)?;
        std::fs::create_dir_all(&self.out).with_context(|| format!("--out {}", self.out.display()))?;
        let written = match self.format {
            Format::Pem => write_pem(&self.out, &obtained, &key)?,
            Format::Pkcs12 => vec![write_pkcs12(&self.out, &obtained, &key, self.password_file.as_deref())?],
        };
        for path in written {
            output::done(format!("wrote {}", path.display()));
        }
        Ok(())
    }
}

fn write_pem(folder: &Path, obtained: &CertificateObtained, key: &[u8]) -> Result<Vec<PathBuf>> {
    const END: &str = "-----END CERTIFICATE-----";
    let end = obtained.chain.find(END).map_or(obtained.chain.len(), |at| at + END.len());
    let (leaf, rest) = obtained.chain.split_at(end);
    let pem = layout::key_pem(key);
    let files = [
        ("cert.pem", format!("{}\n", leaf.trim()), 0o644),
        ("chain.pem", rest.trim_start().to_owned(), 0o644),
        ("fullchain.pem", obtained.chain.clone(), 0o644),
    ];
    // The key first: who reads in between sees an old chain with a new key, which servers refuse, not the reverse kept.
    let mut written = vec![replace(folder, "privkey.pem", pem.as_bytes(), 0o600)?];
    for (name, text, mode) in files {
        written.push(replace(folder, name, text.as_bytes(), mode)?);
    }
    Ok(written)
}

fn write_pkcs12(
    folder: &Path,
    obtained: &CertificateObtained,
    key: &[u8],
    password_file: Option<&Path>,
) -> Result<PathBuf> {
    let path = password_file.context("--password-file is needed for PKCS#12")?;
    let password = std::fs::read_to_string(path).with_context(|| format!("--password-file {}", path.display()))?;
    let password = Zeroizing::new(password);
    let password = password.lines().next().unwrap_or_default();
    if password.is_empty() {
        bail!(Mistake::new(format!("--password-file {} is empty; its first line is the password", path.display())));
    }
    let alias = obtained.names.first().map_or_else(String::new, ToString::to_string);
    let bytes = layout::pkcs12(obtained.certificate, &alias, &obtained.chain, key, password).map_err(|e| anyhow!(e))?;
    replace(folder, "bundle.p12", &bytes, 0o600)
}

/// Writes a file beside its place and moves it there: whoever reads sees the old one or the new one.
fn replace(folder: &Path, name: &str, bytes: &[u8], mode: u32) -> Result<PathBuf> {
    let path = folder.join(name);
    let new = folder.join(format!(".{name}.new"));
    let _ = std::fs::remove_file(&new);
    let made = std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&new);
    let written = made.and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()));
    let moved = written.and_then(|()| std::fs::rename(&new, &path));
    if let Err(error) = moved {
        let _ = std::fs::remove_file(&new);
        return Err(error).with_context(|| format!("cannot write {}", path.display()));
    }
    Ok(path)
}
