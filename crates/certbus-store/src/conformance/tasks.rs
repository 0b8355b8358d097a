//! The queue of tasks, as every engine of it must be.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::time::Duration;

use futures::future::join_all;

use super::world::{Engine, MINUTE, at};
use crate::tasks::{ATTEMPTS, Leased, NewTask, TaskQueue};

fn task(body: &str) -> NewTask {
    NewTask { lane: "poll".into(), key: None, body: body.into() }
}

async fn leased(queue: &dyn TaskQueue, minutes: u64) -> Vec<Leased> {
    queue.lease("poll", 100, at(minutes), MINUTE * 2).await.unwrap()
}

pub async fn a_task_is_one_workers_until_its_lease_ends(engine: &Engine) {
    let queue: &dyn TaskQueue = &engine.store;
    let other = NewTask { lane: "alert".into(), ..task("z") };
    assert_eq!(queue.add(&[task("a"), task("b"), other], at(0)).await.unwrap(), 3);
    assert_eq!(queue.waiting("poll").await.unwrap(), 2);
    let mine = leased(queue, 0).await;
    assert_eq!(queue.waiting("poll").await.unwrap(), 0);
    assert_eq!(queue.list(at(0), None, 10).await.unwrap()[0].state.as_str(), "under way");
    assert_eq!(mine.iter().map(|task| task.body.as_str()).collect::<Vec<_>>(), ["a", "b"], "of this lane, in order");
    assert!(leased(queue, 1).await.is_empty());
    assert!(queue.extend(&mine[0], at(1), MINUTE * 2).await.unwrap());
    assert!(queue.done(&mine[1]).await.unwrap());
    assert!(!queue.done(&mine[1]).await.unwrap(), "done once");
    assert!(leased(queue, 2).await.is_empty(), "extended");
    let again = leased(queue, 3).await;
    assert_eq!((again[0].body.as_str(), again[0].attempt), ("a", 2));
    assert!(queue.done(&again[0]).await.unwrap());
    assert_eq!(queue.list(at(3), None, 10).await.unwrap().len(), 1);
}

pub async fn a_killed_workers_task_is_anothers_and_its_late_word_counts_no_more(engine: &Engine) {
    let queue: &dyn TaskQueue = &engine.store;
    queue.add(&[task("a")], at(0)).await.unwrap();
    let slow = leased(queue, 0).await;
    let quick = leased(queue, 2).await;
    assert_eq!(quick.len(), 1);
    assert!(!queue.done(&slow[0]).await.unwrap());
    assert!(!queue.failed(&slow[0], "late", at(2)).await.unwrap());
    assert!(!queue.extend(&slow[0], at(2), MINUTE).await.unwrap());
    assert!(queue.done(&quick[0]).await.unwrap());
    // One that kills whoever takes it is not given out for ever.
    queue.add(&[task("poison")], at(10)).await.unwrap();
    for attempt in 0..u64::from(ATTEMPTS) {
        assert_eq!(leased(queue, 10 + attempt * 2).await.len(), 1);
    }
    assert!(leased(queue, 100).await.is_empty());
    assert_eq!(queue.list(at(100), None, 10).await.unwrap()[0].state.as_str(), "dead");
}

pub async fn a_task_that_fails_waits_twice_as_long_each_time_and_dies_for_a_person_to_see(engine: &Engine) {
    let queue: &dyn TaskQueue = &engine.store;
    queue.add(&[NewTask { key: Some("one".into()), ..task("a") }], at(0)).await.unwrap();
    let (mut now, mut waits) = (at(0), Vec::new());
    for attempt in 1..=ATTEMPTS {
        let mine = queue.lease("poll", 1, now, MINUTE).await.unwrap();
        assert_eq!(mine[0].attempt, attempt);
        assert!(queue.failed(&mine[0], "no way there", now).await.unwrap());
        let shown = queue.list(now, None, 10).await.unwrap().remove(0);
        assert_eq!(shown.why, "no way there");
        if attempt == ATTEMPTS {
            assert_eq!(shown.state.as_str(), "dead");
        } else {
            assert_eq!(shown.state.as_str(), "waiting");
            assert!(queue.lease("poll", 1, now, MINUTE).await.unwrap().is_empty());
            waits.push(shown.ready_at.since(now));
            now = shown.ready_at;
        }
    }
    assert!(waits.windows(2).all(|pair| pair[1] == pair[0] * 2), "{waits:?}");
    let later = now.plus(Duration::from_secs(86_400));
    assert!(queue.lease("poll", 1, later, MINUTE).await.unwrap().is_empty());
    let id = queue.list(later, None, 10).await.unwrap()[0].id;
    assert!(queue.revive(id, later).await.unwrap());
    assert!(!queue.revive(id, later).await.unwrap());
    let mine = queue.lease("poll", 1, later, MINUTE).await.unwrap();
    assert_eq!(mine[0].attempt, 1);
}

pub async fn two_tasks_of_one_key_do_not_wait_at_once(engine: &Engine) {
    let queue: &dyn TaskQueue = &engine.store;
    let keyed = |body: &str| NewTask { key: Some("endpoint 7".into()), ..task(body) };
    assert_eq!(queue.add(&[keyed("a"), keyed("b")], at(0)).await.unwrap(), 1);
    let mine = leased(queue, 0).await;
    assert_eq!(queue.add(&[keyed("c")], at(0)).await.unwrap(), 0, "while it is under way");
    queue.done(&mine[0]).await.unwrap();
    assert_eq!(queue.add(&[keyed("d")], at(0)).await.unwrap(), 1);
}

pub async fn of_eight_workers_each_task_is_one_workers(engine: &Engine) {
    let queue: &dyn TaskQueue = &engine.store;
    let all: Vec<NewTask> = (0..200).map(|number| task(&number.to_string())).collect();
    queue.add(&all, at(0)).await.unwrap();
    let done = Mutex::new(Vec::new());
    join_all((0..8).map(|_| async {
        loop {
            let mine = queue.lease("poll", 7, at(0), MINUTE).await.unwrap();
            if mine.is_empty() {
                return;
            }
            for task in mine {
                assert!(queue.done(&task).await.unwrap());
                done.lock().unwrap().push(task.body);
            }
        }
    }))
    .await;
    let done = done.into_inner().unwrap();
    assert_eq!(done.len(), 200);
    assert_eq!(done.into_iter().collect::<BTreeSet<_>>().len(), 200);
}
