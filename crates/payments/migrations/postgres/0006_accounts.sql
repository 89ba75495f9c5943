-- A suspense account is one order's: its transfers are found by the order, and need no place in a list of the account.
DROP INDEX transfers_debit;
DROP INDEX transfers_credit;
CREATE INDEX transfers_debit ON transfers (debit_account, booked_at, transfer_id) WHERE debit_account NOT LIKE 'suspense/%';
CREATE INDEX transfers_credit ON transfers (credit_account, booked_at, transfer_id) WHERE credit_account NOT LIKE 'suspense/%';
