-- Version 4.

-- The builds, for `history` and `why`. `same_as`: nothing was done, and all came out as in that build, whose rows in
-- build_layer are this build's. `outcome`: NULL while it runs, or if it was killed. `digest`: of its layers and their
-- keys, by which builds with the same ones find each other.
CREATE TABLE build (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    begun INTEGER NOT NULL,
    seconds REAL,
    command TEXT NOT NULL,
    directory BLOB NOT NULL,
    commit_id TEXT,
    jobs INTEGER NOT NULL,
    outcome INTEGER,
    hits INTEGER NOT NULL,
    built INTEGER NOT NULL,
    failed INTEGER NOT NULL,
    skipped INTEGER NOT NULL,
    digest BLOB,
    same_as INTEGER
);
CREATE INDEX build_digest ON build (digest);

-- Each layer of a build, in the order of a serial build (`place`). `diff_ids`: one for each key, zeros: none. `chain`: of
-- all its layers, NULL: it did not come to its end. `image`: the one that it builds on, if it does: NAME@DIGEST.
CREATE TABLE build_layer (
    build INTEGER NOT NULL,
    place INTEGER NOT NULL,
    scope TEXT NOT NULL,
    layer TEXT NOT NULL,
    needs TEXT NOT NULL,
    keys BLOB NOT NULL,
    diff_ids BLOB NOT NULL,
    chain BLOB,
    image TEXT,
    status TEXT NOT NULL,
    seconds REAL NOT NULL,
    PRIMARY KEY (build, place)
) WITHOUT ROWID;
CREATE INDEX build_layer_name ON build_layer (layer, build);

-- Each step that ran, each compression. `begun`: seconds since the build began; `slot`: which of its --jobs it had.
-- `differs`: the same action had another result before.
CREATE TABLE build_step (
    build INTEGER NOT NULL,
    number INTEGER NOT NULL,
    scope TEXT NOT NULL,
    layer TEXT NOT NULL,
    step TEXT NOT NULL,
    key BLOB,
    reason TEXT,
    begun REAL NOT NULL,
    seconds REAL,
    slot INTEGER NOT NULL,
    outcome TEXT,
    differs TEXT,
    PRIMARY KEY (build, number)
) WITHOUT ROWID;
-- `why KEY` asks for the last one.
CREATE INDEX build_step_key ON build_step (key) WHERE key IS NOT NULL;

-- Results whose data is gone: what they were, when they went, and by which rule. The row stays when the action runs
-- again, so that another outcome can be told.
CREATE TABLE evicted (
    key BLOB PRIMARY KEY,
    evicted INTEGER NOT NULL,
    cause TEXT NOT NULL,
    diff_id BLOB,
    seconds REAL NOT NULL,
    created INTEGER NOT NULL,
    last_used INTEGER NOT NULL
);

-- What each thing in a roots directory was found to hold, each byte once, so that a quota needs no look at all of them;
-- with the name '': the whole store.
CREATE TABLE size (
    roots BLOB NOT NULL,
    name TEXT NOT NULL,
    bytes INTEGER NOT NULL,
    measured INTEGER NOT NULL,
    PRIMARY KEY (roots, name)
) WITHOUT ROWID;
