//! What each service promises, asked through its generated client, on every engine.

mod department;
mod payments;
