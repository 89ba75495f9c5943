-- Payment codes of departments, and receipts.

ALTER TABLE orders ADD COLUMN payment_code TEXT;
-- The first six digits of the code of its receipt; none where the payee has no receipts.
ALTER TABLE orders ADD COLUMN receipt_prefix TEXT;

-- The last number of each code. Its row is locked until the posting that numbers is kept, so that a number is never lost.
CREATE TABLE receipt_codes (
    code TEXT NOT NULL PRIMARY KEY,
    last_number BIGINT NOT NULL CHECK (last_number BETWEEN 1 AND 9999999999)
);

-- Written once, with the posting of the order, and never changed.
CREATE TABLE receipts (
    order_id TEXT NOT NULL PRIMARY KEY,
    code TEXT NOT NULL,
    number BIGINT NOT NULL CHECK (number BETWEEN 1 AND 9999999999),
    key_id TEXT NOT NULL,
    check_code TEXT NOT NULL,
    payee_id TEXT NOT NULL,
    amount_minor BIGINT NOT NULL CHECK (amount_minor > 0),
    currency TEXT NOT NULL,
    issued_at BIGINT NOT NULL
);

CREATE UNIQUE INDEX receipts_number ON receipts (code, number);
