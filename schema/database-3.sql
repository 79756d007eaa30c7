-- Version 3.

-- What names of images at registries led to when they were last asked for.
CREATE TABLE reference (
    name TEXT PRIMARY KEY,
    digest BLOB NOT NULL,
    resolved INTEGER NOT NULL
);

-- What an image at a registry consists of, beside its row in `base`, which says when it was last used.
CREATE TABLE base_blob (
    chain BLOB NOT NULL,
    blob BLOB NOT NULL,
    size INTEGER NOT NULL,
    PRIMARY KEY (chain, blob)
) WITHOUT ROWID;
