//! The internal certificate authority.
