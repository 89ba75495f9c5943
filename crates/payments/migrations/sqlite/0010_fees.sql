-- What the channel charged for a day, in fen, as it is booked; NULL where no bill was matched. From here on transfers.order_id may name a run.
ALTER TABLE runs ADD COLUMN fee_minor INTEGER;
