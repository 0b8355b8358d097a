-- Times are milliseconds since 1970, days are counted from then. An empty text means that there is none.

PRAGMA application_id = 1128420691; -- CBUS

CREATE TABLE endpoint (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL,
    host TEXT NOT NULL,
    port INTEGER NOT NULL,
    sni TEXT NOT NULL,
    starttls TEXT NOT NULL,
    owner TEXT NOT NULL,
    active INTEGER NOT NULL,
    every INTEGER,                 -- seconds; NULL: as often as usual
    revision INTEGER NOT NULL,     -- counts its edits
    added_at INTEGER NOT NULL,
    asked TEXT NOT NULL,           -- the name that its certificate has to be for
    parent TEXT NOT NULL,          -- that name without its first label: what a wildcard answers for
    key_since INTEGER NOT NULL,    -- since when host, port, SNI and STARTTLS are these: what was seen before is of others
    -- What its nodes came to, for listings; kept by whatever changes it.
    certificate INTEGER,           -- of those it serves the first to expire
    expires_at INTEGER,
    overdue_at INTEGER,
    failing_since INTEGER,
    managed TEXT,                  -- tenant/id of the managed certificate that is for it
    serves TEXT,                   -- current, older-version, another
    UNIQUE (host, port, sni, starttls)
);
CREATE INDEX endpoint_name ON endpoint (name, id);
CREATE INDEX endpoint_owner ON endpoint (owner, id) WHERE owner <> '';
CREATE INDEX endpoint_asked ON endpoint (asked);
CREATE INDEX endpoint_parent ON endpoint (parent);
CREATE INDEX endpoint_expires ON endpoint (expires_at, id) WHERE expires_at IS NOT NULL;
CREATE INDEX endpoint_overdue ON endpoint (overdue_at, id) WHERE overdue_at IS NOT NULL;
CREATE INDEX endpoint_failing ON endpoint (failing_since, id) WHERE failing_since IS NOT NULL;
CREATE INDEX endpoint_serves ON endpoint (serves, id) WHERE serves IS NOT NULL;
CREATE INDEX endpoint_managed ON endpoint (managed, id) WHERE managed IS NOT NULL;
CREATE INDEX endpoint_paused ON endpoint (id) WHERE active = 0;
CREATE INDEX endpoint_unseen ON endpoint (id) WHERE certificate IS NULL AND failing_since IS NULL;

CREATE TABLE endpoint_tag (
    tag TEXT NOT NULL, endpoint INTEGER NOT NULL, PRIMARY KEY (tag, endpoint)
) WITHOUT ROWID;
CREATE INDEX endpoint_tag_endpoint ON endpoint_tag (endpoint);

-- When an endpoint is polled next, from each of its sites.
CREATE TABLE schedule (
    endpoint INTEGER NOT NULL, site TEXT NOT NULL, next_at INTEGER NOT NULL, PRIMARY KEY (endpoint, site)
) WITHOUT ROWID;
CREATE INDEX schedule_next ON schedule (site, next_at);
CREATE INDEX schedule_site ON schedule (site, endpoint);

CREATE TABLE certificate (
    id INTEGER PRIMARY KEY,
    fingerprint BLOB NOT NULL UNIQUE,
    der BLOB NOT NULL,
    subject TEXT NOT NULL,
    issuer TEXT NOT NULL,
    serial TEXT NOT NULL,
    names TEXT NOT NULL,
    not_before INTEGER NOT NULL,
    not_after INTEGER NOT NULL,
    key TEXT NOT NULL,
    signature TEXT NOT NULL,
    spki BLOB NOT NULL,
    added_at INTEGER NOT NULL
);
CREATE INDEX certificate_expires ON certificate (not_after, id);
CREATE INDEX certificate_serial ON certificate (serial);
CREATE INDEX certificate_spki ON certificate (spki);

-- A node as it was last seen from one site.
CREATE TABLE node (
    endpoint INTEGER NOT NULL,
    site TEXT NOT NULL,
    address TEXT NOT NULL,         -- empty: the name led nowhere
    certificate INTEGER,           -- it was last seen with
    leaf_hash BLOB,                -- that one's fingerprint: a poll that finds nothing new reads no certificate
    chain TEXT NOT NULL,           -- what came after the leaf, ids in order
    chain_hash BLOB,               -- of the fingerprints of that
    method TEXT NOT NULL,          -- how it was looked at: like is compared with like
    served_first INTEGER, served_last INTEGER, served_times INTEGER NOT NULL,
    failure TEXT, why TEXT,        -- why the last polls failed: kind, and the words of the last
    failing_first INTEGER, failing_last INTEGER, failing_times INTEGER NOT NULL,
    asked_at INTEGER NOT NULL,
    missed INTEGER NOT NULL,       -- how many looks at the name in a row did not lead to it
    gone_at INTEGER,
    PRIMARY KEY (endpoint, site, address)
) WITHOUT ROWID;
CREATE INDEX node_certificate ON node (certificate, endpoint) WHERE certificate IS NOT NULL;

-- What a node served before.
CREATE TABLE association (
    endpoint INTEGER NOT NULL, site TEXT NOT NULL, address TEXT NOT NULL,
    certificate INTEGER NOT NULL,
    method TEXT NOT NULL,
    first_seen INTEGER NOT NULL, last_seen INTEGER NOT NULL, times INTEGER NOT NULL,
    ended_at INTEGER NOT NULL,
    ended TEXT NOT NULL,           -- how: replaced, otherwise (as `change` says), edited
    PRIMARY KEY (endpoint, first_seen, site, address)
) WITHOUT ROWID;
CREATE INDEX association_certificate ON association (certificate, endpoint);

-- Why polls of a node failed before.
CREATE TABLE outage (
    endpoint INTEGER NOT NULL, site TEXT NOT NULL, address TEXT NOT NULL,
    first INTEGER NOT NULL, last INTEGER NOT NULL, times INTEGER NOT NULL, failure TEXT NOT NULL, why TEXT NOT NULL,
    PRIMARY KEY (endpoint, first, site, address)
) WITHOUT ROWID;

CREATE TABLE change (
    id INTEGER PRIMARY KEY,
    at INTEGER NOT NULL,
    endpoint INTEGER NOT NULL, site TEXT NOT NULL, address TEXT NOT NULL,
    kind TEXT NOT NULL,
    before INTEGER, after INTEGER, -- certificates
    why TEXT NOT NULL
);
CREATE INDEX change_at ON change (at, id);
CREATE INDEX change_endpoint ON change (endpoint, id);

-- Every label of a name with what follows it, and every word: found by prefix. Of endpoints (`e`) and certificates (`c`).
CREATE TABLE token (
    kind TEXT NOT NULL, token TEXT NOT NULL, id INTEGER NOT NULL, PRIMARY KEY (kind, token, id)
) WITHOUT ROWID;
CREATE INDEX token_of ON token (kind, id, token);

-- How many endpoints serve a certificate of this first and last day.
CREATE TABLE life (
    first_day INTEGER NOT NULL, last_day INTEGER NOT NULL, endpoints INTEGER NOT NULL, PRIMARY KEY (first_day, last_day)
) WITHOUT ROWID;
CREATE TABLE tally (what TEXT NOT NULL PRIMARY KEY, endpoints INTEGER NOT NULL) WITHOUT ROWID;

-- What was issued here: the log, as far as `projection` says.
CREATE TABLE projection (tenant TEXT NOT NULL PRIMARY KEY, seq INTEGER NOT NULL, hash BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE managed (
    tenant TEXT NOT NULL, id TEXT NOT NULL, names TEXT NOT NULL, PRIMARY KEY (tenant, id)
) WITHOUT ROWID;
CREATE TABLE managed_name (
    name TEXT NOT NULL, tenant TEXT NOT NULL, id TEXT NOT NULL, PRIMARY KEY (name, tenant, id)
) WITHOUT ROWID;
CREATE INDEX managed_name_of ON managed_name (tenant, id);
CREATE TABLE version (
    tenant TEXT NOT NULL, id TEXT NOT NULL, certificate INTEGER NOT NULL,
    place INTEGER NOT NULL,        -- where it was obtained on the log: later is newer
    reason TEXT NOT NULL,
    obtained_at INTEGER NOT NULL,
    overdue_at INTEGER NOT NULL,   -- past its planned renewal by a tenth of the life that is left then
    offered_place INTEGER,         -- where it was last offered to all
    offered_at INTEGER,
    PRIMARY KEY (tenant, id, certificate)
) WITHOUT ROWID;
CREATE INDEX version_certificate ON version (certificate);

CREATE TABLE task (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    lane TEXT NOT NULL,            -- who does it: `poll/SITE`, `alert` …
    key TEXT UNIQUE,               -- no two tasks that wait have one key
    body TEXT NOT NULL,
    attempts INTEGER NOT NULL,
    ready_at INTEGER NOT NULL,     -- not before; while it is leased, when the lease ends
    lease INTEGER NOT NULL,        -- counts its leases
    leased INTEGER NOT NULL,       -- somebody is at it, or was when he was killed
    dead_at INTEGER,
    why TEXT NOT NULL,
    added_at INTEGER NOT NULL
);
CREATE INDEX task_ready ON task (lane, ready_at, id) WHERE dead_at IS NULL;
CREATE INDEX task_dead ON task (dead_at, id) WHERE dead_at IS NOT NULL;

-- Which process has a part that only one needs to play.
CREATE TABLE role (role TEXT NOT NULL PRIMARY KEY, holder TEXT NOT NULL, until INTEGER NOT NULL) WITHOUT ROWID;

CREATE TABLE audit (
    id INTEGER PRIMARY KEY,
    at INTEGER NOT NULL,
    actor TEXT NOT NULL, source TEXT NOT NULL,
    action TEXT NOT NULL, subject TEXT NOT NULL, detail TEXT NOT NULL
);
CREATE INDEX audit_subject ON audit (subject, id);
