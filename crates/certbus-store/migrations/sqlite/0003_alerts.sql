-- What is wrong, with what was told of it; and the messages, kept until each destination has them.

CREATE TABLE problem (
    key TEXT NOT NULL PRIMARY KEY, -- endpoint/12/expired, managed/TENANT/ID/renewal-failing, scheduler/stalled
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    owner TEXT NOT NULL,
    words TEXT NOT NULL,
    since INTEGER NOT NULL,
    told_at INTEGER,               -- last
    gone_at INTEGER,               -- since when it is no longer so: it may come back
    over_at INTEGER,               -- since when it counts as over; it is remembered for a while
    returns INTEGER NOT NULL       -- how often it came back meanwhile
) WITHOUT ROWID;

CREATE TABLE mute (
    subject TEXT NOT NULL PRIMARY KEY, -- a key, or the begin of keys up to a slash
    until INTEGER,                 -- NULL: until somebody ends it
    actor TEXT NOT NULL,
    at INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE message (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    uid TEXT NOT NULL,             -- the same in every attempt: who gets it twice can tell
    tenant TEXT NOT NULL,
    at INTEGER NOT NULL,
    event TEXT NOT NULL,
    title TEXT NOT NULL,
    body TEXT NOT NULL,            -- all of it, as JSON
    placed INTEGER NOT NULL        -- whether it is known where it goes
);
CREATE INDEX message_unplaced ON message (tenant, id) WHERE placed = 0;
CREATE INDEX message_at ON message (tenant, at);

-- One message on its way to one destination. In order: the one before has ended before the next is tried.
CREATE TABLE delivery (
    tenant TEXT NOT NULL,
    destination TEXT NOT NULL,     -- smtp, webhook/NAME, exec
    message INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    ready_at INTEGER NOT NULL,     -- not before
    ended_at INTEGER,
    state TEXT NOT NULL,           -- waiting, delivered, given-up
    why TEXT NOT NULL,
    PRIMARY KEY (tenant, destination, message)
) WITHOUT ROWID;
CREATE INDEX delivery_open ON delivery (tenant, destination, message) WHERE ended_at IS NULL;
CREATE INDEX delivery_message ON delivery (message);

-- How far the changes of endpoints were looked through: what was before is no news.
CREATE TABLE looked (what TEXT NOT NULL PRIMARY KEY, id INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO looked SELECT 'change', coalesce(max(id), 0) FROM change;
