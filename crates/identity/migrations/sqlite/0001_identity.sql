-- What identity keeps. No table holds a name, a document number or an account id: people and accounts are HMACs under a key
-- that is not in this database.

-- An assertion's jti, by SHA-256 over (kind, issuer, jti). A second insert is a replay.
CREATE TABLE used_jti (
    digest BLOB NOT NULL PRIMARY KEY,
    expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX used_jti_expires ON used_jti (expires_at);

-- Which person stands behind an entry point's account, as last asserted.
CREATE TABLE account_link (
    entry_point TEXT NOT NULL,
    account BLOB NOT NULL,
    person BLOB NOT NULL,
    level INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    seen_at INTEGER NOT NULL,
    version INTEGER NOT NULL,
    PRIMARY KEY (entry_point, account)
) STRICT, WITHOUT ROWID;
CREATE INDEX account_link_person ON account_link (person);

-- Public keys of roles and profiles. Kept for ever: what they signed outlives them.
CREATE TABLE public_key (
    kid TEXT NOT NULL PRIMARY KEY,
    owner TEXT NOT NULL,
    key_use INTEGER NOT NULL,
    jwk_json TEXT NOT NULL,
    created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX public_key_owner ON public_key (owner, key_use);

-- One row: the version of the list of keys.
CREATE TABLE key_list (
    id INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
    version INTEGER NOT NULL
) STRICT;
INSERT INTO key_list (id, version) VALUES (1, 0);

-- Case grants by request id: ciphertext that only the profile opens. `digest` is that of the request without the citizen token, which a
-- caller may have renewed before it asks again; the person must be the same.
CREATE TABLE case_grant (
    request_id TEXT NOT NULL PRIMARY KEY,
    digest BLOB NOT NULL,
    token_digest BLOB NOT NULL,
    person BLOB NOT NULL,
    sealed TEXT NOT NULL,
    expires_at INTEGER NOT NULL,
    created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX case_grant_expires ON case_grant (expires_at);
