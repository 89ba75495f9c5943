//! What each service promises, asked through its generated client, on every engine.

mod cases;
mod catalog;
mod department;
mod gateway;
mod identity;
mod payments;
