-- Version 2.

-- What was found in each roots directory, so that one whose file system is not mounted is not taken for a new one.
CREATE TABLE store (
    roots BLOB PRIMARY KEY,
    id TEXT NOT NULL,
    kind TEXT NOT NULL
);

-- The layers of each image that was built upon, for gc: diff ids, 32 bytes each, the lowest first.
CREATE TABLE base (
    chain BLOB PRIMARY KEY,
    layers BLOB NOT NULL,
    last_used INTEGER NOT NULL
);
