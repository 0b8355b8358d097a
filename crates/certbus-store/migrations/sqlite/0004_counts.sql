-- What is counted is counted from indexes alone, without a look at each row whether it is polled.

DROP INDEX endpoint_expires;
DROP INDEX endpoint_overdue;
DROP INDEX endpoint_failing;
DROP INDEX endpoint_serves;
DROP INDEX endpoint_unseen;
CREATE INDEX endpoint_expires ON endpoint (expires_at, id, active) WHERE expires_at IS NOT NULL;
CREATE INDEX endpoint_overdue ON endpoint (overdue_at, id, active, expires_at) WHERE overdue_at IS NOT NULL;
CREATE INDEX endpoint_failing ON endpoint (failing_since, id, active) WHERE failing_since IS NOT NULL;
CREATE INDEX endpoint_serves ON endpoint (serves, id, active) WHERE serves IS NOT NULL;
CREATE INDEX endpoint_unseen ON endpoint (id, active, certificate, failing_since) WHERE certificate IS NULL AND failing_since IS NULL;

-- Tests go past what waits.
CREATE INDEX message_test ON message (id) WHERE event = 'test';
