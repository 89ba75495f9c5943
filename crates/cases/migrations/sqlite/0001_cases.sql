-- One row a case: what it is about (written once), where it stands, and who works on it.
CREATE TABLE cases (
    case_id TEXT PRIMARY KEY,
    kind TEXT NOT NULL,
    entry_point TEXT NOT NULL,
    request_id TEXT NOT NULL,
    owner TEXT NOT NULL,
    item TEXT NOT NULL,
    region TEXT NOT NULL,
    profile TEXT NOT NULL,
    profile_region TEXT NOT NULL,
    bill_no TEXT NOT NULL,
    record_digest BLOB NOT NULL,
    amount_minor INTEGER NOT NULL CHECK (amount_minor > 0),
    currency TEXT NOT NULL,
    channel TEXT NOT NULL,
    trade_type TEXT NOT NULL,
    payee_id TEXT NOT NULL,
    title TEXT NOT NULL,
    linked_case_id TEXT,
    created_at INTEGER NOT NULL,
    -- Sealed by this service. The payer is erased once the order exists, the rest once the case has ended.
    input_sealed BLOB,
    payer_sealed BLOB,
    -- Sealed by identity to the profile; nobody here can read it.
    case_grant TEXT,

    state TEXT NOT NULL,
    step TEXT,
    action TEXT,
    action_at INTEGER,
    resolve_by INTEGER,
    tries INTEGER NOT NULL,
    ending TEXT,
    hold TEXT NOT NULL,
    held_until INTEGER,
    idempotency TEXT,
    quiet_micros INTEGER,
    pay_until INTEGER,
    order_id TEXT,
    order_expires INTEGER,
    close_round INTEGER NOT NULL,
    paid_at INTEGER,
    channel_transaction TEXT,
    deliver_by INTEGER,
    sends INTEGER NOT NULL,
    sent_at INTEGER,
    refusals INTEGER NOT NULL,
    proof_serial TEXT,
    proof_at INTEGER,
    proof_digest BLOB,
    proof_profile TEXT,
    proof_version INTEGER,
    proof_jws TEXT,
    rejection_code TEXT,
    rejection_department_code TEXT,
    rejection_department_text TEXT,
    refund_round INTEGER NOT NULL,
    refund_id TEXT,
    refund_failed INTEGER NOT NULL,
    late_money INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    version INTEGER NOT NULL,

    due_at INTEGER,
    lease_owner TEXT,
    lease_until INTEGER NOT NULL DEFAULT 0,
    fence INTEGER NOT NULL DEFAULT 0,

    -- A case is open, with something to do and a time by which it is done; or it has ended, and nothing is left to do.
    CONSTRAINT cases_never_silent CHECK (
        (state IN ('DONE', 'REJECTED', 'EXPIRED', 'CANCELLED', 'REFUNDED'))
        = (action IS NULL) AND (action IS NULL) = (resolve_by IS NULL) AND (action IS NULL) = (due_at IS NULL))
) STRICT;
CREATE UNIQUE INDEX cases_by_request ON cases (entry_point, request_id) WHERE kind = 'PAY';
-- Late money goes back once an order.
CREATE UNIQUE INDEX cases_late_money ON cases (order_id) WHERE kind = 'LATE_MONEY';
CREATE INDEX cases_by_owner ON cases (owner, case_id);
CREATE INDEX cases_by_order ON cases (order_id);
CREATE INDEX cases_due ON cases (due_at);
CREATE INDEX cases_leased ON cases (lease_owner) WHERE lease_owner IS NOT NULL;

-- The history. Rows are added and never changed.
CREATE TABLE case_events (
    case_id TEXT NOT NULL,
    sequence INTEGER NOT NULL CHECK (sequence > 0),
    committed_at INTEGER NOT NULL,
    from_state TEXT,
    to_state TEXT NOT NULL,
    step TEXT,
    actor TEXT NOT NULL,
    reason TEXT NOT NULL,
    note TEXT NOT NULL,
    evidence TEXT NOT NULL,
    PRIMARY KEY (case_id, sequence)
) STRICT;

CREATE TRIGGER case_events_never_change BEFORE UPDATE ON case_events
    BEGIN SELECT RAISE(ABORT, 'case_events only grow'); END;
CREATE TRIGGER case_events_never_go BEFORE DELETE ON case_events
    BEGIN SELECT RAISE(ABORT, 'case_events only grow'); END;

-- The lock that counts: one open case a bill.
CREATE TABLE bill_locks (
    profile TEXT NOT NULL,
    bill_no TEXT NOT NULL,
    case_id TEXT NOT NULL,
    PRIMARY KEY (profile, bill_no)
) STRICT;

-- What was asked under a request id, and what was answered; for ever.
CREATE TABLE answers (
    scope TEXT NOT NULL,
    method TEXT NOT NULL,
    request_id TEXT NOT NULL,
    digest BLOB NOT NULL,
    answer BLOB NOT NULL,
    answered_at INTEGER NOT NULL,
    PRIMARY KEY (scope, method, request_id)
) STRICT;

-- Clerks' tasks.
CREATE TABLE tasks (
    task_id TEXT PRIMARY KEY,
    case_id TEXT NOT NULL,
    profile TEXT NOT NULL,
    region TEXT NOT NULL,
    step TEXT NOT NULL,
    reason TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    task_due INTEGER NOT NULL,
    escalations INTEGER NOT NULL,
    proposed_decision TEXT,
    proposed_by TEXT,
    proposed_evidence TEXT,
    resolved INTEGER NOT NULL,
    resolved_at INTEGER,
    resolved_by TEXT
) STRICT;
CREATE UNIQUE INDEX tasks_open ON tasks (case_id) WHERE resolved = 0;
CREATE INDEX tasks_by_due ON tasks (profile, task_due, task_id);

-- How far the events of other services were applied.
CREATE TABLE cursors (
    name TEXT PRIMARY KEY,
    sequence INTEGER NOT NULL
) STRICT;
