//! Work that waits, is under way, or was given up.

use askama::Template;
use axum::Extension;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::Response;
use certbus_store::tasks::{TaskQueue, TaskState};

use super::Face;
use super::asker::Asker;
use super::fault::Fault;
use super::page::{self, Frame, When, when};
use crate::clock;

/// Tasks that are shown.
const SHOWN: usize = 200;

#[derive(Template)]
#[template(path = "tasks.html")]
struct TasksPage {
    frame: Frame,
    rows: Vec<TaskRow>,
}

struct TaskRow {
    id: i64,
    state: &'static str,
    kind: &'static str,
    lane: String,
    body: String,
    attempts: u32,
    ready: When,
    why: String,
}

pub(super) async fn list(
    State(face): State<Face>,
    Extension(asker): Extension<Asker>,
    headers: HeaderMap,
) -> Result<Response, Fault> {
    let now = clock::now();
    let row = |task: certbus_store::tasks::Shown| TaskRow {
        id: task.id,
        kind: if task.state == TaskState::Dead { "bad" } else { "off" },
        state: if task.state == TaskState::Dead { "given up" } else { task.state.as_str() },
        lane: task.lane,
        body: task.body.chars().take(120).collect(),
        attempts: task.attempts,
        ready: when(task.ready_at, now),
        why: task.why,
    };
    let rows = face.store.list(now, None, SHOWN).await?.into_iter().map(row).collect();
    let page = TasksPage { frame: Frame::new("Tasks", "tasks", &asker).said(&headers), rows };
    page::show(&page, &page.frame)
}

pub(super) async fn retry(
    State(face): State<Face>,
    Extension(asker): Extension<Asker>,
    Path(id): Path<i64>,
) -> Result<Response, Fault> {
    revive(&face, &asker, id).await?;
    page::go("/tasks", &format!("Task {id} is tried again."))
}

/// Has a task tried again that was given up.
pub(super) async fn revive(face: &Face, asker: &Asker, id: i64) -> Result<(), Fault> {
    if !face.store.revive(id, clock::now()).await? {
        return Err(Fault::missing(format!("no task that was given up has number {id}")));
    }
    Ok(face.store.note(&asker.actor(), clock::now(), ["task retry", &id.to_string(), ""]).await?)
}
