-- Which pepper the people of this store were counted under: a digest of it, never the pepper. A start with another one, or with none, is
-- refused, since it would make a stranger of everybody.
CREATE TABLE pepper (
    id BIGINT PRIMARY KEY CHECK (id = 1),
    fingerprint BYTEA NOT NULL
);
