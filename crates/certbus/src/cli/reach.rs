//! Where a command does its work: on this machine, or through the API of a server that was named.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;

use super::exit::Mistake;
use crate::inventory::Inventory;
use crate::remote::{Address, Server};
use crate::settings::Settings;
use crate::wire;

/// What the command line says of a server.
#[derive(Debug, Default, Args)]
pub(super) struct Far {
    /// Do it through the API of this server; a token goes with it [env: CERTBUS_SERVER; settings: server.url]
    #[arg(long, global = true, value_name = "URL")]
    server: Option<String>,
    /// The file with the token [env: CERTBUS_TOKEN_FILE, or CERTBUS_TOKEN for the token; settings: server.token_file]
    #[arg(long, global = true, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

/// The machine, and the server if one was named.
pub(crate) struct Reach {
    settings: Settings,
    server: Option<Address>,
}

impl Far {
    /// Refuses a server on the command line, for what works here alone. One that is named elsewhere is not for this.
    pub(super) fn is_not_for(&self, command: &str) -> Result<()> {
        if self.server.is_none() {
            return Ok(());
        }
        bail!(Mistake::new(format!(
            "`{command}` works on the machine it runs on and goes to no server; --server is for endpoint, task, alert, audit, \
             cert, conf, user and token"
        )))
    }

    /// The server of the command line, else that of the environment, else that of the settings.
    pub(super) fn reach(self, settings: Settings) -> Reach {
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let said = self.server.or_else(|| set("CERTBUS_SERVER").map(|url| url.to_string_lossy().into_owned()));
        let (url, its_file) = settings.server();
        // The token of the settings is for the server of the settings.
        let kept = if said.as_deref().is_none_or(|said| Some(said) == url) { its_file } else { None };
        let by_name = || set("CERTBUS_TOKEN_FILE").map(PathBuf::from);
        let token_file =
            self.token_file.or_else(|| if set("CERTBUS_TOKEN").is_some() { None } else { by_name().or(kept) });
        let url = said.or_else(|| url.map(str::to_owned));
        Reach { server: url.map(|url| Address { url, token_file }), settings }
    }
}

impl Reach {
    /// The server that was named, if one was.
    pub(super) async fn server(&self) -> Result<Option<Server>> {
        let tenant = Some(self.settings.tenant.as_str()).filter(|tenant| *tenant != "default");
        match &self.server {
            Some(address) => Server::connect(address, tenant).await.map(Some),
            None => Ok(None),
        }
    }

    /// The inventory of the server, else of this machine.
    pub(super) async fn inventory(&self) -> Result<Inventory> {
        Ok(match self.server().await? {
            Some(server) => Inventory::There(server),
            None => {
                Inventory::Here { store: wire::inventory(&self.settings).await?, site: self.settings.site().to_owned() }
            }
        })
    }

    /// This machine, for what no server does: where one was named, it is refused with what to do instead.
    pub(super) fn here(&self, what: &str, instead: &str) -> Result<&Settings> {
        match &self.server {
            None => Ok(&self.settings),
            Some(Address { url, .. }) => {
                bail!(Mistake::new(format!("`{what}` does not go to the server {url}: {instead}")))
            }
        }
    }

    /// This machine's settings, for what is done here in any case.
    pub(super) fn settings(&self) -> &Settings {
        &self.settings
    }
}
