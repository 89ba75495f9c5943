-- What the channels' bills say beside the ledger. Days are YYYY-MM-DD in Beijing's time.

-- One merchant account and day. It is done again when somebody asks for it.
CREATE TABLE runs (
    channel TEXT NOT NULL,
    merchant TEXT NOT NULL,
    day TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('waiting', 'done', 'failed')),
    matched BIGINT NOT NULL,
    breaks BIGINT NOT NULL,
    rolled_over BIGINT NOT NULL,
    problem TEXT NOT NULL,
    finished_at BIGINT,
    PRIMARY KEY (channel, merchant, day)
);

-- What does not match. The id follows from what it is about, so that the same break found again is the same row.
CREATE TABLE breaks (
    break_id TEXT NOT NULL PRIMARY KEY,
    channel TEXT NOT NULL,
    merchant TEXT NOT NULL,
    day TEXT NOT NULL,
    seen_day TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('long', 'short', 'amount', 'state')),
    state TEXT NOT NULL CHECK (state IN ('open', 'rolled_over', 'resolved', 'repaired')),
    what TEXT NOT NULL,
    number TEXT NOT NULL,
    order_id TEXT,
    refund_id TEXT,
    their_minor BIGINT,
    their_currency TEXT,
    their_state TEXT,
    their_time TEXT,
    our_minor BIGINT,
    our_currency TEXT,
    our_state TEXT,
    our_time TEXT,
    proposed TEXT,
    resolution TEXT,
    note TEXT NOT NULL,
    resolved_by TEXT NOT NULL,
    closed_at BIGINT
);

CREATE INDEX breaks_day ON breaks (day, break_id);
CREATE INDEX breaks_state ON breaks (state, kind, day);
