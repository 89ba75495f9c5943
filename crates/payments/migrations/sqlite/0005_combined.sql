-- Combined orders: each of their parts is an order, and all of them are asked for, closed and paid as one at the channel.

ALTER TABLE orders ADD COLUMN combined_id TEXT;
-- Its number among the parts, from 1, and how many they are.
ALTER TABLE orders ADD COLUMN part_number INTEGER;
ALTER TABLE orders ADD COLUMN part_count INTEGER;
-- The key that the combined order was made under, by the order's own caller.
ALTER TABLE orders ADD COLUMN combined_request_id TEXT;

CREATE UNIQUE INDEX orders_combined ON orders (combined_id, part_number) WHERE combined_id IS NOT NULL;
