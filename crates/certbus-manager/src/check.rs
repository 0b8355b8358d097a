//! What would fail before a CA is asked: names, accounts, CAA, limits, and the way to show control, tried without a CA.
//! It writes nothing on the log and orders nothing.

use certbus_acme::{Ca, IssueError};
use certbus_core::budget::{Budget, Exempt};
use certbus_core::name::{DnsName, NameSet};
use certbus_core::spec::Challenge;
use data_encoding::BASE64URL_NOPAD;
use futures::StreamExt;
use serde::Serialize;

use crate::clock;
use crate::issuers::Issuers;
use crate::manager::{ManageError, Manager};

/// Names that are tried at once.
const AT_ONCE: usize = 8;

/// How much something matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// It is as it should be.
    Ok,
    /// It is to be looked at.
    Warning,
    /// An order would fail.
    Problem,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How much it matters.
    pub level: Level,
    /// What was looked at: `name`, `ca`, `caa`, `limits`, `http-01`, `dns-01`.
    pub about: &'static str,
    /// What was found, and what would be right.
    pub what: String,
}

/// What would be ordered.
#[derive(Debug, Clone, Copy)]
pub struct Plan<'a> {
    /// The names of one certificate.
    pub names: &'a [DnsName],
    /// How control would be shown.
    pub challenge: Challenge,
    /// The CA, if not the usual ones.
    pub ca: Option<&'a str>,
}

impl Manager {
    /// Looks at everything that an order by `plan` would meet.
    ///
    /// # Errors
    /// [`ManageError::Settings`] if there is no CA to ask, [`ManageError::Follow`].
    pub async fn check(&self, plan: &Plan<'_>, issuers: &Issuers) -> Result<Vec<Finding>, ManageError> {
        let settings = issuers.settings();
        let mut findings = Findings::default();
        let mut by_challenge = false;
        for name in settings.ca_names(plan.ca)? {
            for wanted in plan.names.iter().filter(|_| settings.is_public_ca(&name)) {
                if let Some(why) = wanted.public_obstacle() {
                    findings.problem("name", format!("no public CA signs `{wanted}`: {why}"));
                }
            }
            by_challenge |= self.ask_ca(&name, plan, issuers, &mut findings).await;
            self.weigh(&name, plan, issuers, &mut findings).await?;
        }
        if !by_challenge {
            return Ok(findings.0);
        }
        let looks = plan.names.iter().map(|name| try_challenge(name.clone(), plan.challenge, issuers));
        let looks: Vec<_> = looks.map(Box::pin).collect();
        let mut looks = futures::stream::iter(looks).buffered(AT_ONCE);
        while let Some(found) = looks.next().await {
            findings.0.extend(found.0);
        }
        Ok(findings.0)
    }

    /// The CA, its account, and whether it may sign. Returns whether control has to be shown to it.
    async fn ask_ca(&self, name: &str, plan: &Plan<'_>, issuers: &Issuers, findings: &mut Findings) -> bool {
        let ca = match issuers.ca(name).await {
            Ok(ca) => ca,
            Err(error) => {
                findings.problem("ca", format!("{name}: {error}"));
                return true;
            }
        };
        let Ca::Acme(acme) = &*ca else {
            findings.ok("ca", format!("{name} signs here, and wants no challenge"));
            return false;
        };
        match issuers.settings().account(name).await {
            Ok(url) => findings.ok("ca", format!("{name} answers and knows the account {url}")),
            Err(error) => findings.problem("ca", format!("{name}: {error}")),
        }
        match issuers.caa().check(acme, plan.names, plan.challenge).await {
            Ok(unanswered) if !unanswered.is_empty() => {
                let which = unanswered.join(", ");
                findings.warning("caa", format!("nobody answers who may sign for {which}; the CA will want to know"));
            }
            Ok(_) if acme.directory().caa_identities.is_empty() => {
                findings.warning("caa", format!("{name} does not say by what name CAA records mean it; not looked at"));
            }
            Ok(_) => findings.ok("caa", format!("{name} may sign for {}", NameSet::new(plan.names))),
            Err(error) => findings.problem("caa", error.to_string()),
        }
        true
    }

    async fn weigh(&self, ca: &str, plan: &Plan<'_>, issuers: &Issuers, to: &mut Findings) -> Result<(), ManageError> {
        let (names, now) = (NameSet::new(plan.names), clock::now());
        let limits = issuers.settings().limits(ca);
        let view = self.view().await?;
        let past = view.work.ordered().iter().filter(|ordered| ordered.ca == ca);
        if let Some((until, scarce)) = Budget::new(limits, past).wait(&names, Exempt::Nothing, now) {
            to.problem("limits", format!("{ca} would refuse a new order until {until}: {scarce}"));
        }
        Ok(())
    }
}

async fn try_challenge(name: DnsName, challenge: Challenge, issuers: &Issuers) -> Findings {
    let mut findings = Findings::default();
    let solvers = issuers.solvers();
    let outcome = match challenge {
        Challenge::Http01 => {
            let token = format!("certbus-check-{}", BASE64URL_NOPAD.encode(&clock::random::<12>()));
            match solvers.rehearse_http01(&name, &token, issuers.settings().name_resolver()).await {
                Ok(rehearsed) => {
                    rehearsed.good.into_iter().for_each(|what| findings.ok("http-01", what));
                    rehearsed.doubtful.into_iter().for_each(|what| findings.warning("http-01", what));
                    rehearsed.bad.into_iter().for_each(|what| findings.problem("http-01", what));
                    Ok(())
                }
                Err(error) => Err(error),
            }
        }
        Challenge::Dns01 => match solvers.look_dns01(&name).await {
            Ok(found) => {
                found.into_iter().for_each(|what| findings.ok("dns-01", what));
                Ok(())
            }
            Err(error) => Err(error),
        },
    };
    if let Err(error) = outcome {
        findings.problem(challenge.as_str(), IssueError::from(error).to_string());
    }
    findings
}

#[derive(Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn ok(&mut self, about: &'static str, what: String) {
        self.0.push(Finding { level: Level::Ok, about, what });
    }

    fn warning(&mut self, about: &'static str, what: String) {
        self.0.push(Finding { level: Level::Warning, about, what });
    }

    fn problem(&mut self, about: &'static str, what: String) {
        self.0.push(Finding { level: Level::Problem, about, what });
    }
}
