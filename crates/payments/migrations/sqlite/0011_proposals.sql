-- What a first person wants given back of an order that was posted: one for each order, gone when a second person agrees.
CREATE TABLE refund_proposals (
    order_id TEXT NOT NULL PRIMARY KEY,
    -- What the refund will be asked for under.
    proposal_id TEXT NOT NULL,
    amount_minor INTEGER NOT NULL CHECK (amount_minor > 0),
    currency TEXT NOT NULL,
    reason TEXT NOT NULL,
    person TEXT NOT NULL,
    proposed_at INTEGER NOT NULL
);
