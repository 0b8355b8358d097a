//! People, sessions, invitations and tokens.

use std::time::Duration;

use certbus_core::access::{INVITATION_LASTS, Role, SESSION_IDLE, SESSION_LASTS, Scope};
use certbus_core::id::Hash;
use certbus_core::time::Timestamp;

use super::world::Engine;
use crate::StoreError;
use crate::audit::Actor;
use crate::tokens::Token;

fn now() -> Timestamp {
    Timestamp::parse("2026-11-22T12:00:00Z").unwrap()
}

fn actor(name: &str) -> Actor {
    Actor { name: name.into(), source: "127.0.0.1".into() }
}

fn hash(text: &str) -> Hash {
    Hash::of(text.as_bytes())
}

pub async fn a_link_lets_one_person_choose_a_password_once_and_within_its_hour(engine: &Engine) {
    let store = &engine.store;
    store.invite("ann", Role::Admin, hash("first"), &actor("cli"), now()).await.unwrap();
    store.invite("ann", Role::Admin, hash("second"), &actor("cli"), now()).await.unwrap();
    assert_eq!(store.invited(hash("first"), now()).await.unwrap(), None, "a newer link replaces it");
    let late = now().plus(INVITATION_LASTS);
    assert_eq!(store.accept(hash("second"), "phc", "::1", late).await.unwrap(), None);
    assert_eq!(store.password("ann").await.unwrap(), None);
    assert_eq!(store.invited(hash("second"), now()).await.unwrap().as_deref(), Some("ann"));
    assert_eq!(store.accept(hash("second"), "phc", "::1", now()).await.unwrap().as_deref(), Some("ann"));
    assert_eq!(store.accept(hash("second"), "other", "::1", now()).await.unwrap(), None, "once");
    assert_eq!(store.password("ann").await.unwrap().as_deref(), Some("phc"));
}

pub async fn a_session_ends_when_it_rests_too_long_lasts_too_long_or_the_password_changes(engine: &Engine) {
    let store = &engine.store;
    store.invite("ann", Role::Operator, hash("link"), &actor("cli"), now()).await.unwrap();
    store.accept(hash("link"), "phc", "::1", now()).await.unwrap();
    store.begin_session(hash("cookie"), "csrf", &actor("ann"), now()).await.unwrap();
    let session = |at| store.session(hash("cookie"), at);
    let found = session(now()).await.unwrap().unwrap();
    assert_eq!((found.person.as_str(), found.role, found.csrf.as_str()), ("ann", Role::Operator, "csrf"));
    assert_eq!(session(now().plus(SESSION_IDLE)).await.unwrap(), None);
    let mut at = now();
    while at < now().plus(SESSION_LASTS - SESSION_IDLE) {
        at = at.plus(SESSION_IDLE / 2);
        assert!(session(at).await.unwrap().is_some(), "it was used meanwhile");
    }
    assert_eq!(session(now().plus(SESSION_LASTS)).await.unwrap(), None);
    store.set_role("ann", Role::Viewer, &actor("cli"), now()).await.unwrap();
    assert_eq!(session(at).await.unwrap().unwrap().role, Role::Viewer, "a role counts at once");
    store.passwd("ann", "other", &actor("ann"), now()).await.unwrap();
    assert_eq!(session(at).await.unwrap(), None);
    store.begin_session(hash("again"), "csrf", &actor("ann"), now()).await.unwrap();
    store.end_session(hash("again")).await.unwrap();
    assert_eq!(store.session(hash("again"), now()).await.unwrap(), None);
}

pub async fn the_last_admin_who_can_log_in_stays_one(engine: &Engine) {
    let store = &engine.store;
    for (name, role) in [("ann", Role::Admin), ("bob", Role::Admin)] {
        store.invite(name, role, hash(name), &actor("cli"), now()).await.unwrap();
    }
    store.accept(hash("ann"), "phc", "::1", now()).await.unwrap();
    let last = StoreError::LastAdmin { name: "ann".into() };
    assert_eq!(store.remove_person("ann", &actor("ann"), now()).await, Err(last.clone()), "bob has no password yet");
    assert_eq!(store.set_role("ann", Role::Viewer, &actor("ann"), now()).await, Err(last));
    store.accept(hash("bob"), "phc", "::1", now()).await.unwrap();
    store.remove_person("ann", &actor("bob"), now()).await.unwrap();
    assert!(matches!(store.remove_person("ann", &actor("bob"), now()).await, Err(StoreError::NotFound { .. })));
    let people = store.people().await.unwrap();
    assert_eq!(people.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(), ["bob"]);
    let trail = store.audit(None, 1).await.unwrap();
    assert_eq!(
        (trail[0].action.as_str(), trail[0].subject.as_str(), trail[0].actor.as_str()),
        ("user rm", "ann", "bob")
    );
}

pub async fn failed_logins_in_a_row_make_the_next_wait_and_a_good_one_forgives(engine: &Engine) {
    let store = &engine.store;
    let both = [("ann from ::1", 3), ("::1", 50)];
    for _ in 0..3 {
        assert_eq!(store.knock(&both, now()).await.unwrap(), None);
    }
    let until = store.knock(&both, now()).await.unwrap().unwrap();
    assert_eq!(until, now().plus(Duration::from_secs(1)));
    assert_eq!(store.knock(&both, now()).await.unwrap(), Some(until), "who waits makes it no longer");
    assert_eq!(store.knock(&[("bob from ::1", 3), both[1]], now()).await.unwrap(), None, "others at the same address");
    assert_eq!(store.knock(&both, until).await.unwrap(), None);
    store.logged_in("ann from ::1", &["::1"]).await.unwrap();
    assert_eq!(store.knock(&both, until).await.unwrap(), None);
    // Many at once are no more than one after another.
    let eve = [("eve from ::1", 3)];
    let knocks = futures::future::join_all((0..40).map(|_| store.knock(&eve, now()))).await;
    assert_eq!(knocks.into_iter().filter(|knock| matches!(knock, Ok(None))).count(), 3);
}

pub async fn a_token_is_known_by_its_hash_until_it_ends_or_is_removed(engine: &Engine) {
    let store = &engine.store;
    let until = now().plus(Duration::from_secs(60));
    let token = Token {
        name: "ci".into(),
        scope: Scope::Write,
        tenant: "default".into(),
        made_by: "ann".into(),
        added_at: now(),
        until: Some(until),
        used_at: None,
    };
    store.add_token(&token, hash("secret"), &actor("ann")).await.unwrap();
    let again = store.add_token(&token, hash("other"), &actor("ann")).await;
    assert!(matches!(again, Err(StoreError::Taken { .. })), "{again:?}");
    assert_eq!(store.token(hash("secret"), now()).await.unwrap(), Some(token.clone()));
    assert_eq!(store.tokens().await.unwrap()[0].used_at, Some(now()));
    assert_eq!(store.token(hash("secret"), until).await.unwrap(), None);
    assert_eq!(store.token(hash("other"), now()).await.unwrap(), None);
    store.remove_token("ci", &actor("ann"), now()).await.unwrap();
    assert_eq!(store.token(hash("secret"), now()).await.unwrap(), None);
    // Who is removed leaves nothing that lets him in again, and who may less leaves nothing that may more.
    store.add_person("ann", certbus_core::access::Role::Operator, "phc", &actor("cli"), now()).await.unwrap();
    store.add_token(&token, hash("secret"), &actor("ann")).await.unwrap();
    store.set_role("ann", Role::Viewer, &actor("cli"), now()).await.unwrap();
    assert_eq!(store.token(hash("secret"), now()).await.unwrap(), None);
    store.add_token(&Token { scope: Scope::Read, ..token }, hash("secret"), &actor("ann")).await.unwrap();
    store.remove_person("ann", &actor("cli"), now()).await.unwrap();
    assert_eq!(store.token(hash("secret"), now()).await.unwrap(), None);
}
