"""The ledger's tables. Money is in picodollars, times are Unix seconds.

Requests and completions are rowid tables on purpose: their rows are kilobytes long and their keys
random, so a table clustered by key (WITHOUT ROWID) rewrites half-full pages all over the file. In
order of arrival a call costs half as much processor time, and the log grows half as fast.
"""

from __future__ import annotations

VERSION = 1

TABLES = """
-- Facts about the run: schema version, the settings behind the verdicts, the window.
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;

-- The seed tasks as they were read, so that genealogy needs no other file.
CREATE TABLE IF NOT EXISTS seeds (position INTEGER PRIMARY KEY, id TEXT UNIQUE, body BLOB NOT NULL);

-- The passages of documents, those of earlier sessions too: records name them as parents.
CREATE TABLE IF NOT EXISTS passages (id TEXT PRIMARY KEY NOT NULL, body BLOB NOT NULL);

-- Every request ever sent. A slot whose request changed before it was answered has several.
CREATE TABLE IF NOT EXISTS requests (
    id TEXT PRIMARY KEY NOT NULL,
    slot INTEGER NOT NULL, step INTEGER NOT NULL, branch INTEGER NOT NULL,
    stage TEXT NOT NULL, strategy TEXT NOT NULL, teacher TEXT NOT NULL, model TEXT NOT NULL,
    prompt_version TEXT NOT NULL, body BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS requests_by_slot ON requests (slot, step, branch);

-- Every attempt at a request, written before money can be spent. `ended` NULL means in flight, or
-- in flight when the process died. `cost` is what it cost, or what it may have cost at most
-- where `billed` is 'maybe'.
CREATE TABLE IF NOT EXISTS attempts (
    id INTEGER PRIMARY KEY, request_id TEXT NOT NULL, stage TEXT NOT NULL, teacher TEXT NOT NULL,
    sent REAL NOT NULL, reserved INTEGER NOT NULL, ended REAL, outcome TEXT,
    billed TEXT NOT NULL DEFAULT 'maybe', cost INTEGER NOT NULL DEFAULT 0, detail TEXT
);
CREATE INDEX IF NOT EXISTS attempts_open ON attempts (id) WHERE ended IS NULL;

-- The one final completion of a request.
CREATE TABLE IF NOT EXISTS completions (
    request_id TEXT PRIMARY KEY NOT NULL,
    text TEXT NOT NULL, finish TEXT NOT NULL, error TEXT NOT NULL,
    model TEXT NOT NULL, input INTEGER NOT NULL, output INTEGER NOT NULL, cached INTEGER NOT NULL,
    cache_write INTEGER NOT NULL, reasoning INTEGER NOT NULL, estimated INTEGER NOT NULL,
    cost INTEGER NOT NULL, latency_ms REAL NOT NULL
);

-- Recomputed from the above whenever the settings behind them change.
CREATE TABLE IF NOT EXISTS slots (slot INTEGER PRIMARY KEY, kept INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS candidates (
    slot INTEGER NOT NULL, idx INTEGER NOT NULL, id TEXT NOT NULL, reason TEXT NOT NULL,
    cost INTEGER NOT NULL, strategy TEXT NOT NULL, candidate BLOB NOT NULL, verdict BLOB NOT NULL,
    PRIMARY KEY (slot, idx)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS candidates_by_reason ON candidates (reason);
CREATE INDEX IF NOT EXISTS candidates_by_id ON candidates (id);

-- Scores that took a model's time, by what they were worked out with and for which text.
CREATE TABLE IF NOT EXISTS scores (
    kind TEXT NOT NULL, item TEXT NOT NULL, value REAL, PRIMARY KEY (kind, item)
) WITHOUT ROWID;

-- MinHash bands of long texts and embeddings, by a hash of the text and of what made them.
CREATE TABLE IF NOT EXISTS sketches (key BLOB PRIMARY KEY, bands BLOB NOT NULL) WITHOUT ROWID;

-- Requests handed to a provider's batch API. `state` goes from 'writing' over 'ready', 'uploaded',
-- 'creating' and 'submitted' to 'ended', or to 'void' where no such batch came to be; it is written
-- before the step it names. `marker` is our name for the batch, `provider_id` the provider's.
-- `cursor` is the provider's newest batch before this one, `changed` when it began to be created.
CREATE TABLE IF NOT EXISTS batches (
    id INTEGER PRIMARY KEY, marker TEXT NOT NULL UNIQUE, teacher TEXT NOT NULL,
    stage TEXT NOT NULL, state TEXT NOT NULL, items INTEGER NOT NULL DEFAULT 0,
    file_id TEXT NOT NULL DEFAULT '', cursor TEXT NOT NULL DEFAULT '',
    provider_id TEXT NOT NULL DEFAULT '', changed REAL NOT NULL, detail TEXT NOT NULL DEFAULT ''
);
CREATE TABLE IF NOT EXISTS batch_items (
    batch INTEGER NOT NULL, request_id TEXT NOT NULL, attempt INTEGER NOT NULL,
    PRIMARY KEY (batch, request_id)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS batch_items_by_request ON batch_items (request_id);

-- What other stages cost: hours, tokens, kWh.
CREATE TABLE IF NOT EXISTS expenses (
    id INTEGER PRIMARY KEY, stage TEXT NOT NULL, item TEXT NOT NULL, quantity REAL NOT NULL,
    unit TEXT NOT NULL, cost INTEGER NOT NULL, detail TEXT NOT NULL, at REAL NOT NULL
);

-- When the run was worked on and how that ended.
CREATE TABLE IF NOT EXISTS sessions (
    id INTEGER PRIMARY KEY, stage TEXT NOT NULL, started REAL NOT NULL, ended REAL,
    outcome TEXT, detail TEXT
);
"""
