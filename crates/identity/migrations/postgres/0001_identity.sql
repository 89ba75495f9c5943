-- What identity keeps. No table holds a name, a document number or an account id: people and accounts are HMACs under a key
-- that is not in this database.

-- An assertion's jti, by SHA-256 over (kind, issuer, jti). A second insert is a replay.
CREATE TABLE used_jti (
    digest BYTEA NOT NULL PRIMARY KEY,
    expires_at BIGINT NOT NULL
);
CREATE INDEX used_jti_expires ON used_jti (expires_at);

-- Which person stands behind an entry point's account, as last asserted.
CREATE TABLE account_link (
    entry_point TEXT NOT NULL,
    account BYTEA NOT NULL,
    person BYTEA NOT NULL,
    level BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    seen_at BIGINT NOT NULL,
    version BIGINT NOT NULL,
    PRIMARY KEY (entry_point, account)
);
CREATE INDEX account_link_person ON account_link (person);

-- Public keys of roles and profiles. Kept for ever: what they signed outlives them.
CREATE TABLE public_key (
    kid TEXT NOT NULL PRIMARY KEY,
    owner TEXT NOT NULL,
    key_use BIGINT NOT NULL,
    jwk_json TEXT NOT NULL,
    created_at BIGINT NOT NULL
);
CREATE INDEX public_key_owner ON public_key (owner, key_use);

-- One row: the version of the list of keys.
CREATE TABLE key_list (
    id BIGINT NOT NULL PRIMARY KEY CHECK (id = 1),
    version BIGINT NOT NULL
);
INSERT INTO key_list (id, version) VALUES (1, 0);

-- Case grants by request id: ciphertext that only the profile opens. `digest` is that of the request without the citizen token, which a
-- caller may have renewed before it asks again; the person must be the same.
CREATE TABLE case_grant (
    request_id TEXT NOT NULL PRIMARY KEY,
    digest BYTEA NOT NULL,
    token_digest BYTEA NOT NULL,
    person BYTEA NOT NULL,
    sealed TEXT NOT NULL,
    expires_at BIGINT NOT NULL,
    created_at BIGINT NOT NULL
);
CREATE INDEX case_grant_expires ON case_grant (expires_at);
