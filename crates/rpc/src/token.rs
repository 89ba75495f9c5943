//! What the tokens of lastmile carry.
