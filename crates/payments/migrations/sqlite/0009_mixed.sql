-- Mixed orders: what medical insurance pays a part of.

-- What makes it one, JSON, without what is personal; NULL for any other.
ALTER TABLE orders ADD COLUMN insured TEXT;
-- What each leg asks, and what of it is given back.
ALTER TABLE orders ADD COLUMN cash_minor INTEGER CHECK (cash_minor >= 0);
ALTER TABLE orders ADD COLUMN government_minor INTEGER CHECK (government_minor >= 0);
ALTER TABLE orders ADD COLUMN personal_minor INTEGER CHECK (personal_minor >= 0);
ALTER TABLE orders ADD COLUMN other_minor INTEGER CHECK (other_minor >= 0);
ALTER TABLE orders ADD COLUMN given_cash_minor INTEGER NOT NULL DEFAULT 0
    CHECK (given_cash_minor >= 0 AND given_cash_minor <= COALESCE(cash_minor, 0));
ALTER TABLE orders ADD COLUMN given_government_minor INTEGER NOT NULL DEFAULT 0
    CHECK (given_government_minor >= 0 AND given_government_minor <= COALESCE(government_minor, 0));
ALTER TABLE orders ADD COLUMN given_personal_minor INTEGER NOT NULL DEFAULT 0
    CHECK (given_personal_minor >= 0 AND given_personal_minor <= COALESCE(personal_minor, 0));
ALTER TABLE orders ADD COLUMN given_other_minor INTEGER NOT NULL DEFAULT 0
    CHECK (given_other_minor >= 0 AND given_other_minor <= COALESCE(other_minor, 0));
-- How a refund is split over the legs; NULL for a refund of any other order.
ALTER TABLE refunds ADD COLUMN cash_minor INTEGER CHECK (cash_minor >= 0);
ALTER TABLE refunds ADD COLUMN government_minor INTEGER CHECK (government_minor >= 0);
ALTER TABLE refunds ADD COLUMN personal_minor INTEGER CHECK (personal_minor >= 0);
ALTER TABLE refunds ADD COLUMN other_minor INTEGER CHECK (other_minor >= 0);
-- When the insurance centre gave its part back.
ALTER TABLE refunds ADD COLUMN insurance_returned_at INTEGER;
