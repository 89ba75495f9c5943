-- The channel's number of an order is made of the order's id, which is unique already.
DROP INDEX orders_channel_order_no;
