-- The counter row of a stream is what orders its events; see src/outbox.rs.
CREATE TABLE outbox_stream (
    stream TEXT NOT NULL PRIMARY KEY,
    seq BIGINT NOT NULL
);

CREATE TABLE outbox_event (
    stream TEXT NOT NULL,
    seq BIGINT NOT NULL,
    event_key TEXT NOT NULL,
    payload BYTEA NOT NULL,
    appended_at BIGINT NOT NULL,
    PRIMARY KEY (stream, seq)
);
