-- What departments are paid over, batch by batch. From here on transfers.order_id names the subject: an order or a settlement.

CREATE TABLE settlements (
    settlement_id TEXT NOT NULL PRIMARY KEY,
    payee_id TEXT NOT NULL,
    -- From 1, without gaps: each takes over from the one before it.
    number INTEGER NOT NULL,
    day TEXT NOT NULL,
    -- Of the payee and the day, from 1: for the file's name.
    seq INTEGER NOT NULL,
    currency TEXT NOT NULL,
    from_at INTEGER NOT NULL,
    cut_at INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('cutting', 'cut', 'signed', 'paid_over', 'carried')),
    line_count INTEGER NOT NULL,
    gross_minor INTEGER NOT NULL CHECK (gross_minor >= 0),
    refunds_minor INTEGER NOT NULL CHECK (refunds_minor >= 0),
    carried_minor INTEGER NOT NULL CHECK (carried_minor <= 0),
    carried_from TEXT,
    sha256 TEXT,
    signature TEXT,
    key TEXT,
    reference TEXT NOT NULL,
    first_by TEXT NOT NULL,
    second_by TEXT NOT NULL,
    paid_over_at INTEGER
) STRICT, WITHOUT ROWID;

CREATE UNIQUE INDEX settlements_number ON settlements (payee_id, number);
CREATE UNIQUE INDEX settlements_day ON settlements (payee_id, day, seq);
CREATE INDEX settlements_cut ON settlements (cut_at, settlement_id);

-- Cuts that were made, whether or not there was anything to settle.
CREATE TABLE settlement_cuts (
    payee_id TEXT NOT NULL,
    cut_at INTEGER NOT NULL,
    PRIMARY KEY (payee_id, cut_at)
) STRICT, WITHOUT ROWID;

-- Written once. What was posted or given back stands in one settlement, ever.
CREATE TABLE settlement_lines (
    transfer_id TEXT NOT NULL PRIMARY KEY,
    settlement_id TEXT NOT NULL,
    what TEXT NOT NULL CHECK (what IN ('posting', 'refund')),
    order_id TEXT NOT NULL,
    happened_at INTEGER NOT NULL,
    amount_minor INTEGER NOT NULL CHECK (amount_minor > 0),
    channel TEXT NOT NULL,
    merchant TEXT NOT NULL,
    channel_transaction TEXT NOT NULL,
    proof_serial TEXT NOT NULL,
    payment_code TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX settlement_lines_order ON settlement_lines (settlement_id, happened_at, transfer_id);
-- Refunds are found by when they were decided.
CREATE INDEX transfer_decisions_at ON transfer_decisions (decided_at, transfer_id);
