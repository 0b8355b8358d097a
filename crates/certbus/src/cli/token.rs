//! `certbus token`: what programs show when they use the API.

use anyhow::Result;
use certbus_core::access::Scope;
use certbus_core::endpoint::Word;
use certbus_core::time::Span;
use certbus_manager::clock;
use certbus_manager::web::secret::Secret;
use certbus_store::tokens::Token;
use clap::Subcommand;

use super::audit::actor;
use super::exit::Mistake;
use super::output;
use super::reach::Reach;
use crate::wire;

#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Make a token, and print it this once.
    New {
        /// Who uses it, such as ci or prometheus
        name: String,
        /// metrics, certs (for a load balancer that follows the log), read, write or admin
        #[arg(long, default_value = "read")]
        scope: Scope,
        /// How long it is good, such as 90d [default: for ever]
        #[arg(long, value_name = "TIME")]
        expires_in: Option<Span>,
    },
    /// List tokens.
    Ls {
        /// One JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Remove a token: it opens nothing from now on.
    Rm {
        /// Which
        name: String,
    },
}

impl TokenCommand {
    pub(crate) async fn run(self, reach: &Reach) -> Result<()> {
        if let Self::Ls { json } = self {
            let heading = ["name", "scope", "tenant", "made by", "made", "ends", "last used"];
            output::listing(json, &heading, reach.inventory().await?.tokens().await?, |one| {
                let at =
                    |at: Option<certbus_core::time::Timestamp>| at.map_or_else(|| "never".into(), |at| at.to_string());
                let (added, until, used) = (one.added_at.to_string(), at(one.until), at(one.used_at));
                vec![one.name, one.scope.to_string(), one.tenant, one.made_by, added, until, used]
            });
            return Ok(());
        }
        let settings =
            reach.here("token", "people alone, and no token, make and remove tokens; do it on its web, at /tokens")?;
        let store = wire::inventory(settings).await?;
        let now = clock::now();
        match self {
            Self::New { name, scope, expires_in } => {
                let name: Word =
                    name.parse().map_err(|why| Mistake::new(format!("`{name}` is no token's name: {why}")))?;
                let token = Token {
                    name: name.as_str().to_owned(),
                    scope,
                    tenant: settings.tenant.clone(),
                    made_by: actor().name,
                    added_at: now,
                    until: expires_in.map(|span| now.plus(span.duration())),
                    used_at: None,
                };
                let secret = Secret::token();
                store.add_token(&token, secret.hash(), &actor()).await?;
                output::line(secret.text());
                output::remark("it is shown this once; send it as `Authorization: Bearer TOKEN`");
            }
            Self::Ls { .. } => {}
            Self::Rm { name } => {
                store.remove_token(&name, &actor(), now).await?;
                output::done(format!("token {name} opens nothing any more"));
            }
        }
        Ok(())
    }
}
