//! A message as mail, by the user's own mail server. One connection for each, closed after it.

use std::time::Duration;

use certbus_core::alert::Problem;
use certbus_store::outbox::Delivery;
use lettre::message::Mailbox;
use lettre::message::header::ContentType;
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, Tls, TlsParameters};
use lettre::transport::smtp::extension::ClientId;
use lettre::transport::smtp::{AsyncSmtpTransport, Error};
use lettre::{AsyncTransport, Message, Tokio1Executor};
use secrecy::ExposeSecret;

use super::settings::{Security, Smtp, address};
use super::{ANSWER_WITHIN, Undelivered};

/// The server may take this long for each of its answers; [`ANSWER_WITHIN`] is for all of them.
const AN_ANSWER: Duration = Duration::from_secs(10);

/// Answers to a login that failed: no other message fares better.
const LOGIN: [u16; 4] = [530, 534, 535, 538];

/// Sends; says who was left out.
pub(super) async fn send(smtp: &Smtp, delivery: &Delivery) -> Result<String, Undelivered> {
    match tokio::time::timeout(ANSWER_WITHIN, send_to_all(smtp, delivery)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(Undelivered::away(format!("no end within {} s", ANSWER_WITHIN.as_secs()))),
    }
}

async fn send_to_all(smtp: &Smtp, delivery: &Delivery) -> Result<String, Undelivered> {
    let transport = transport(smtp).map_err(|error| Undelivered::away(told(&error)))?;
    let to: Vec<Mailbox> = smtp.to.iter().filter_map(|to| to.parse().ok()).collect();
    let owner = delivery.body.problem.as_ref().filter(|_| smtp.to_owner).and_then(owner);
    let owner = owner.filter(|owner| to.iter().all(|one| one.email != owner.email));
    let all: Vec<Mailbox> = to.iter().cloned().chain(owner.clone()).collect();
    if all.is_empty() {
        return Ok("it is nobody's, and `to` names nobody".into());
    }
    let refused = match transport.send(mail(smtp, delivery, &all)?).await {
        Ok(_) => return Ok(String::new()),
        Err(error) => undelivered(&error),
    };
    // An owner's address that is wrong keeps it from nobody else.
    let Some(owner) = owner.filter(|_| refused.is_refused && !to.is_empty()) else { return Err(refused) };
    let sent = transport.send(mail(smtp, delivery, &to)?).await.map_err(|error| undelivered(&error));
    sent.map(|_| format!("not to {}: {}", owner.email, refused.why))
}

fn owner(problem: &Problem) -> Option<Mailbox> {
    address(&problem.owner)
}

fn mail(smtp: &Smtp, delivery: &Delivery, to: &[Mailbox]) -> Result<Message, Undelivered> {
    let never = |error: &dyn std::fmt::Display| Undelivered { why: error.to_string(), is_refused: true };
    let from: Mailbox = smtp.from.parse().map_err(|error| never(&error))?;
    let domain = from.email.domain().to_owned();
    // The same in every attempt: who gets it twice can tell.
    let id = format!("<certbus-{}@{domain}>", delivery.uid);
    let body = &delivery.body;
    let at = Duration::from_millis(body.at.millis().unsigned_abs());
    let mut mail = Message::builder()
        .from(from)
        .message_id(Some(id))
        .date(std::time::SystemTime::UNIX_EPOCH + at)
        .subject(format!("[certbus] {}", body.title))
        .header(ContentType::TEXT_PLAIN);
    for to in to {
        mail = mail.to(to.clone());
    }
    mail.body(format!("{}\n\n{}\n", body.title, body.words)).map_err(|error| never(&error))
}

fn transport(smtp: &Smtp) -> Result<AsyncSmtpTransport<Tokio1Executor>, Error> {
    let mut tls = TlsParameters::builder(smtp.host.clone());
    for root in smtp.roots.as_deref().and_then(roots).into_iter().flatten() {
        tls = tls.add_root_certificate(root);
    }
    let tls = match smtp.security {
        Security::Starttls => Tls::Required(tls.build()?),
        Security::Tls => Tls::Wrapper(tls.build()?),
        Security::None => Tls::None,
    };
    let mut builder = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(&smtp.host)
        .port(smtp.port())
        .tls(tls)
        .timeout(Some(AN_ANSWER))
        .hello_name(ClientId::default());
    if let (Some(user), Some(password)) = (&smtp.user, &smtp.password) {
        let password = password.expose().expose_secret().to_owned();
        builder = builder.credentials(Credentials::new(user.clone(), password));
    }
    Ok(builder.build())
}

/// The certificates of a PEM text. None: there is none, or one that cannot be read.
pub(super) fn roots(pem: &str) -> Option<Vec<Certificate>> {
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    let blocks = pem.split(BEGIN).skip(1).map(|block| Certificate::from_pem(format!("{BEGIN}{block}").as_bytes()).ok());
    blocks.collect::<Option<Vec<_>>>().filter(|found| !found.is_empty())
}

fn undelivered(error: &Error) -> Undelivered {
    let code = error.status().map(u16::from);
    let is_login = code.is_some_and(|code| LOGIN.contains(&code));
    Undelivered { why: told(error), is_refused: error.is_permanent() && !is_login }
}

/// The error and what it comes from. None of it quotes a password.
fn told(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        cause = error.source();
    }
    text
}
