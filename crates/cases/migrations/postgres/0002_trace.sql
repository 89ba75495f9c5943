-- The span that opened the case, as W3C trace context writes it: what is done for the case later belongs to the same trace.
ALTER TABLE cases ADD COLUMN trace TEXT;
