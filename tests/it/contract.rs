//! What each service promises, asked through its generated client, on every engine.

mod cases;
mod department;
mod identity;
mod payments;
