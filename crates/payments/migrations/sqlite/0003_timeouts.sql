-- A reservation ends by itself unless its refund was sent before; a refund after settlement takes the money from the payee.
ALTER TABLE transfers ADD COLUMN expires_at INTEGER;
-- What was accepted before there was an end gets one as far away as its channel takes refunds: a year.
ALTER TABLE refunds ADD COLUMN send_by INTEGER NOT NULL DEFAULT 0;
UPDATE refunds SET send_by = created_at + 31536000000000;
ALTER TABLE refunds ADD COLUMN is_after_settlement INTEGER NOT NULL DEFAULT 0;
