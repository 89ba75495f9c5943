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
    record_digest BYTEA NOT NULL,
    amount_minor BIGINT NOT NULL CHECK (amount_minor > 0),
    currency TEXT NOT NULL,
    channel TEXT NOT NULL,
    trade_type TEXT NOT NULL,
    payee_id TEXT NOT NULL,
    title TEXT NOT NULL,
    linked_case_id TEXT,
    created_at BIGINT NOT NULL,
    -- Sealed by this service. The payer is erased once the order exists, the rest once the case has ended.
    input_sealed BYTEA,
    payer_sealed BYTEA,
    -- Sealed by identity to the profile; nobody here can read it.
    case_grant TEXT,

    state TEXT NOT NULL,
    step TEXT,
    action TEXT,
    action_at BIGINT,
    resolve_by BIGINT,
    tries BIGINT NOT NULL,
    ending TEXT,
    hold TEXT NOT NULL,
    held_until BIGINT,
    idempotency TEXT,
    quiet_micros BIGINT,
    pay_until BIGINT,
    order_id TEXT,
    order_expires BIGINT,
    close_round BIGINT NOT NULL,
    paid_at BIGINT,
    channel_transaction TEXT,
    deliver_by BIGINT,
    sends BIGINT NOT NULL,
    sent_at BIGINT,
    refusals BIGINT NOT NULL,
    proof_serial TEXT,
    proof_at BIGINT,
    proof_digest BYTEA,
    proof_profile TEXT,
    proof_version BIGINT,
    proof_jws TEXT,
    rejection_code TEXT,
    rejection_department_code TEXT,
    rejection_department_text TEXT,
    refund_round BIGINT NOT NULL,
    refund_id TEXT,
    refund_failed BOOLEAN NOT NULL,
    late_money BOOLEAN NOT NULL,
    sequence BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    version BIGINT NOT NULL,

    due_at BIGINT,
    lease_owner TEXT,
    lease_until BIGINT NOT NULL DEFAULT 0,
    fence BIGINT NOT NULL DEFAULT 0,

    -- A case is open, with something to do and a time by which it is done; or it has ended, and nothing is left to do.
    CONSTRAINT cases_never_silent CHECK (
        (state IN ('DONE', 'REJECTED', 'EXPIRED', 'CANCELLED', 'REFUNDED'))
        = (action IS NULL) AND (action IS NULL) = (resolve_by IS NULL) AND (action IS NULL) = (due_at IS NULL))
);
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
    sequence BIGINT NOT NULL CHECK (sequence > 0),
    committed_at BIGINT NOT NULL,
    from_state TEXT,
    to_state TEXT NOT NULL,
    step TEXT,
    actor TEXT NOT NULL,
    reason TEXT NOT NULL,
    note TEXT NOT NULL,
    evidence TEXT NOT NULL,
    PRIMARY KEY (case_id, sequence)
);

CREATE FUNCTION case_events_only_grow() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION 'case_events only grow'; END $$;
CREATE TRIGGER case_events_only_grow BEFORE UPDATE OR DELETE ON case_events
    FOR EACH ROW EXECUTE FUNCTION case_events_only_grow();

-- The lock that counts: one open case a bill.
CREATE TABLE bill_locks (
    profile TEXT NOT NULL,
    bill_no TEXT NOT NULL,
    case_id TEXT NOT NULL,
    PRIMARY KEY (profile, bill_no)
);

-- What was asked under a request id, and what was answered; for ever.
CREATE TABLE answers (
    scope TEXT NOT NULL,
    method TEXT NOT NULL,
    request_id TEXT NOT NULL,
    digest BYTEA NOT NULL,
    answer BYTEA NOT NULL,
    answered_at BIGINT NOT NULL,
    PRIMARY KEY (scope, method, request_id)
);

-- Clerks' tasks.
CREATE TABLE tasks (
    task_id TEXT PRIMARY KEY,
    case_id TEXT NOT NULL,
    profile TEXT NOT NULL,
    region TEXT NOT NULL,
    step TEXT NOT NULL,
    reason TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    task_due BIGINT NOT NULL,
    escalations BIGINT NOT NULL,
    proposed_decision TEXT,
    proposed_by TEXT,
    proposed_evidence TEXT,
    resolved BOOLEAN NOT NULL,
    resolved_at BIGINT,
    resolved_by TEXT
);
CREATE UNIQUE INDEX tasks_open ON tasks (case_id) WHERE NOT resolved;
CREATE INDEX tasks_by_due ON tasks (profile, task_due, task_id);

-- How far the events of other services were applied.
CREATE TABLE cursors (
    name TEXT PRIMARY KEY,
    sequence BIGINT NOT NULL
);
