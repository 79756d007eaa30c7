-- Version 2: what was found in each roots directory, so that one whose file system is not mounted is not taken for a new one.

CREATE TABLE store (
    roots BLOB PRIMARY KEY,
    id TEXT NOT NULL,
    kind TEXT NOT NULL
);
