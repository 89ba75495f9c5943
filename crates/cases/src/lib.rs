//! Cases: everything that changes the world, as durable state machines that always end.

pub mod domain;
