-- People who use the web and programs that use the API. No secret stands here that opens anything: only what it hashes to.

CREATE TABLE person (
    name TEXT NOT NULL PRIMARY KEY,
    role TEXT NOT NULL,
    password TEXT NOT NULL,        -- argon2id in PHC form; empty: none was chosen yet
    added_at INTEGER NOT NULL,
    seen_at INTEGER
) WITHOUT ROWID;

CREATE TABLE session (
    hash BLOB NOT NULL PRIMARY KEY, -- SHA-256 of what the cookie says
    person TEXT NOT NULL,
    csrf TEXT NOT NULL,            -- what its forms say
    source TEXT NOT NULL,
    begun_at INTEGER NOT NULL,
    seen_at INTEGER NOT NULL,
    until INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX session_person ON session (person);
CREATE INDEX session_until ON session (until);

-- One-time links with which a person chooses a password.
CREATE TABLE invitation (
    hash BLOB NOT NULL PRIMARY KEY, person TEXT NOT NULL, until INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX invitation_person ON invitation (person);

CREATE TABLE bearer (
    name TEXT NOT NULL PRIMARY KEY,
    hash BLOB NOT NULL UNIQUE,
    scope TEXT NOT NULL,
    tenant TEXT NOT NULL,
    made_by TEXT NOT NULL,
    added_at INTEGER NOT NULL,
    until INTEGER,
    used_at INTEGER
) WITHOUT ROWID;

CREATE INDEX endpoint_unmanaged ON endpoint (id) WHERE certificate IS NOT NULL AND managed IS NULL;

-- When something was done last: `polled`.
CREATE TABLE moment (what TEXT NOT NULL PRIMARY KEY, at INTEGER NOT NULL) WITHOUT ROWID;

-- Failed logins in a row, by what was tried and from where.
CREATE TABLE knock (subject TEXT NOT NULL PRIMARY KEY, failures INTEGER NOT NULL, last_at INTEGER NOT NULL) WITHOUT ROWID;
