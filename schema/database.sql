-- The index over records: what a build asks, by key. Every row can be made again from records, listings or the host's
-- files; cache-format.md says what each column means. Digests are their 32 bytes.
--
-- `unsynced`: NULL once the data behind the row is known to be on disk, else a number taken from `boot.counter` when the
-- row was written; `boot` beside it is the boot in which that was.

CREATE TABLE boot (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    id TEXT NOT NULL,
    counter INTEGER NOT NULL
);

CREATE TABLE action (
    key BLOB PRIMARY KEY,
    kind TEXT NOT NULL,
    action TEXT NOT NULL
);

CREATE TABLE result (
    key BLOB PRIMARY KEY,
    record TEXT NOT NULL,
    diff_id BLOB,
    tier TEXT NOT NULL,
    seconds REAL NOT NULL,
    created INTEGER NOT NULL,
    last_used INTEGER NOT NULL,
    boot TEXT NOT NULL,
    unsynced INTEGER
);
CREATE INDEX result_unsynced ON result (unsynced) WHERE unsynced IS NOT NULL;

CREATE TABLE layer (
    diff_id BLOB PRIMARY KEY,
    newest_seconds INTEGER NOT NULL,
    newest_nanos INTEGER NOT NULL,
    entries INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    tar_bytes INTEGER NOT NULL,
    boot TEXT NOT NULL,
    unsynced INTEGER
);
CREATE INDEX layer_unsynced ON layer (unsynced) WHERE unsynced IS NOT NULL;

CREATE TABLE blob (
    diff_id BLOB NOT NULL,
    codec TEXT NOT NULL,
    blob BLOB NOT NULL,
    size INTEGER NOT NULL,
    boot TEXT NOT NULL,
    unsynced INTEGER,
    PRIMARY KEY (diff_id, codec)
);
CREATE INDEX blob_unsynced ON blob (unsynced) WHERE unsynced IS NOT NULL;

CREATE TABLE answer (
    chain BLOB NOT NULL,
    question TEXT NOT NULL,
    answer TEXT NOT NULL,
    PRIMARY KEY (chain, question)
) WITHOUT ROWID;

CREATE TABLE stat_list (
    path BLOB NOT NULL,
    device INTEGER NOT NULL,
    list BLOB NOT NULL,
    PRIMARY KEY (path, device)
);

CREATE TABLE last_actions (
    scope TEXT NOT NULL,
    layer TEXT NOT NULL,
    keys BLOB NOT NULL,
    written INTEGER NOT NULL,
    PRIMARY KEY (scope, layer)
);
CREATE INDEX last_actions_layer ON last_actions (layer, written);
