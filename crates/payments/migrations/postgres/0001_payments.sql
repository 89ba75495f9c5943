-- Orders, refunds, the ledger, idempotency and open work. Times are microseconds since 1970 UTC, money is minor units.

CREATE TABLE orders (
    order_id TEXT NOT NULL PRIMARY KEY,
    caller TEXT NOT NULL,
    request_id TEXT NOT NULL,
    case_id TEXT NOT NULL,
    payee_id TEXT NOT NULL,
    amount_minor BIGINT NOT NULL CHECK (amount_minor > 0),
    currency TEXT NOT NULL,
    channel TEXT NOT NULL,
    merchant TEXT NOT NULL,
    app_id TEXT NOT NULL,
    trade_type TEXT NOT NULL,
    channel_order_no TEXT NOT NULL,
    notify_url TEXT NOT NULL,
    description TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    expire_at BIGINT NOT NULL,
    version BIGINT NOT NULL,
    state TEXT NOT NULL,
    is_sent BOOLEAN NOT NULL,
    is_closing BOOLEAN NOT NULL,
    is_late BOOLEAN NOT NULL,
    payer_sealed BYTEA,
    sheet BYTEA,
    channel_transaction TEXT,
    paid_at BIGINT,
    proof_serial TEXT,
    refusal TEXT,
    captured_minor BIGINT NOT NULL CHECK (captured_minor >= 0),
    refunding_minor BIGINT NOT NULL CHECK (refunding_minor >= 0),
    refunded_minor BIGINT NOT NULL CHECK (refunded_minor >= 0),
    posted_minor BIGINT NOT NULL CHECK (posted_minor >= 0),
    CONSTRAINT orders_within_capture CHECK (refunding_minor + refunded_minor + posted_minor <= captured_minor)
);

CREATE UNIQUE INDEX orders_channel_order_no ON orders (channel_order_no, merchant, channel);
-- One payment of the channel books once.
CREATE UNIQUE INDEX orders_channel_transaction ON orders (channel_transaction, channel)
    WHERE channel_transaction IS NOT NULL;

CREATE TABLE refunds (
    refund_id TEXT NOT NULL PRIMARY KEY,
    order_id TEXT NOT NULL,
    caller TEXT NOT NULL,
    request_id TEXT NOT NULL,
    amount_minor BIGINT NOT NULL CHECK (amount_minor > 0),
    currency TEXT NOT NULL,
    reason TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    version BIGINT NOT NULL,
    state TEXT NOT NULL,
    is_sent BOOLEAN NOT NULL,
    channel_refund TEXT,
    success_at BIGINT,
    refusal TEXT
);

CREATE INDEX refunds_order ON refunds (order_id, refund_id);

-- Written once, never changed. A reserved transfer counts or is gone by its row in transfer_decisions.
CREATE TABLE transfers (
    transfer_id TEXT NOT NULL PRIMARY KEY,
    order_id TEXT NOT NULL,
    debit_account TEXT NOT NULL,
    credit_account TEXT NOT NULL,
    amount_minor BIGINT NOT NULL CHECK (amount_minor > 0),
    currency TEXT NOT NULL,
    is_reserved BOOLEAN NOT NULL,
    booked_at BIGINT NOT NULL,
    CONSTRAINT transfers_two_sides CHECK (debit_account <> credit_account)
);

CREATE INDEX transfers_order ON transfers (order_id, booked_at, transfer_id);
CREATE INDEX transfers_debit ON transfers (debit_account, booked_at, transfer_id);
CREATE INDEX transfers_credit ON transfers (credit_account, booked_at, transfer_id);

CREATE TABLE transfer_decisions (
    transfer_id TEXT NOT NULL PRIMARY KEY,
    verdict TEXT NOT NULL CHECK (verdict IN ('posted', 'voided')),
    decided_at BIGINT NOT NULL
);

-- An account's balance is the sum of its shards; each row is the sum of the transfers of its orders. The ranges leave room for one
-- more transfer, so that a sum is refused before the engine's own integers end.
CREATE TABLE balances (
    account TEXT NOT NULL,
    shard BIGINT NOT NULL,
    currency TEXT NOT NULL,
    is_floored BOOLEAN NOT NULL,
    debit_posted BIGINT NOT NULL CHECK (debit_posted BETWEEN 0 AND 4611686018427387903),
    credit_posted BIGINT NOT NULL CHECK (credit_posted BETWEEN 0 AND 4611686018427387903),
    debit_pending BIGINT NOT NULL CHECK (debit_pending BETWEEN 0 AND 4611686018427387903),
    credit_pending BIGINT NOT NULL CHECK (credit_pending BETWEEN 0 AND 4611686018427387903),
    PRIMARY KEY (account, shard),
    CONSTRAINT balances_floor CHECK (NOT is_floored OR credit_posted - debit_posted - debit_pending >= 0)
);

-- What was asked under which key, and what was answered: kept for ever. No answer yet: it is being worked on.
CREATE TABLE requests (
    caller TEXT NOT NULL,
    method TEXT NOT NULL,
    request_id TEXT NOT NULL,
    digest BYTEA NOT NULL,
    subject TEXT NOT NULL,
    answer BYTEA,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (request_id, method, caller)
);

-- Open orders and refunds: what has to be done at the channel, and when.
CREATE TABLE work (
    subject TEXT NOT NULL PRIMARY KEY,
    attempts BIGINT NOT NULL DEFAULT 0,
    due_at BIGINT,
    lease_owner TEXT,
    lease_until BIGINT NOT NULL DEFAULT 0,
    fence BIGINT NOT NULL DEFAULT 0
);

CREATE INDEX work_due ON work (due_at);
