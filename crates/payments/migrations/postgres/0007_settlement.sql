-- What departments are paid over, batch by batch. From here on transfers.order_id names the subject: an order or a settlement.

CREATE TABLE settlements (
    settlement_id TEXT NOT NULL PRIMARY KEY,
    payee_id TEXT NOT NULL,
    -- From 1, without gaps: each takes over from the one before it.
    number BIGINT NOT NULL,
    day TEXT NOT NULL,
    -- Of the payee and the day, from 1: for the file's name.
    seq BIGINT NOT NULL,
    currency TEXT NOT NULL,
    from_at BIGINT NOT NULL,
    cut_at BIGINT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('cutting', 'cut', 'signed', 'paid_over', 'carried')),
    line_count BIGINT NOT NULL,
    gross_minor BIGINT NOT NULL CHECK (gross_minor >= 0),
    refunds_minor BIGINT NOT NULL CHECK (refunds_minor >= 0),
    carried_minor BIGINT NOT NULL CHECK (carried_minor <= 0),
    carried_from TEXT,
    sha256 TEXT,
    signature TEXT,
    key TEXT,
    reference TEXT NOT NULL,
    first_by TEXT NOT NULL,
    second_by TEXT NOT NULL,
    paid_over_at BIGINT
);

CREATE UNIQUE INDEX settlements_number ON settlements (payee_id, number);
CREATE UNIQUE INDEX settlements_day ON settlements (payee_id, day, seq);
CREATE INDEX settlements_cut ON settlements (cut_at, settlement_id);

-- Cuts that were made, whether or not there was anything to settle.
CREATE TABLE settlement_cuts (
    payee_id TEXT NOT NULL,
    cut_at BIGINT NOT NULL,
    PRIMARY KEY (payee_id, cut_at)
);

-- Written once. What was posted or given back stands in one settlement, ever.
CREATE TABLE settlement_lines (
    transfer_id TEXT NOT NULL PRIMARY KEY,
    settlement_id TEXT NOT NULL,
    what TEXT NOT NULL CHECK (what IN ('posting', 'refund')),
    order_id TEXT NOT NULL,
    happened_at BIGINT NOT NULL,
    amount_minor BIGINT NOT NULL CHECK (amount_minor > 0),
    channel TEXT NOT NULL,
    merchant TEXT NOT NULL,
    channel_transaction TEXT NOT NULL,
    proof_serial TEXT NOT NULL,
    payment_code TEXT NOT NULL
);

CREATE INDEX settlement_lines_order ON settlement_lines (settlement_id, happened_at, transfer_id);
-- Refunds are found by when they were decided.
CREATE INDEX transfer_decisions_at ON transfer_decisions (decided_at, transfer_id);
