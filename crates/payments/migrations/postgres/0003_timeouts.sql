-- A reservation ends by itself unless its refund was sent before; a refund after settlement takes the money from the payee.
ALTER TABLE transfers ADD COLUMN expires_at BIGINT;
-- What was accepted before there was an end gets one as far away as its channel takes refunds: a year.
ALTER TABLE refunds ADD COLUMN send_by BIGINT NOT NULL DEFAULT 0;
UPDATE refunds SET send_by = created_at + 31536000000000;
ALTER TABLE refunds ADD COLUMN is_after_settlement BOOLEAN NOT NULL DEFAULT FALSE;
