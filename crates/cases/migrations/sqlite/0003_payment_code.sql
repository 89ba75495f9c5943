-- The department's payment code for the bill, as it was when the bill was held; none where it has none.
ALTER TABLE cases ADD COLUMN payment_code TEXT;
