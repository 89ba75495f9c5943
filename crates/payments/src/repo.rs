//! What is kept, as statements.
//!
//! ```text
//! orders             order_id                        one order; every change names the version it was decided on; the parts
//!                                                    of a combined order name it
//! refunds            refund_id                       one refund; likewise
//! transfers          transfer_id                     immutable; the id is made by the step that books
//! transfer_decisions transfer_id                     what became of a reserved transfer; immutable
//! balances           account, shard                  sums of transfers
//! requests           request_id, method, caller      what was asked under a key and what was answered, for ever
//! work               subject (order, combined order, refund, run or settlement)
//!                                                    what is open at a channel, when it is due, who holds it
//! receipts           order_id                        one receipt for each posted order whose payee has them; immutable
//! receipt_codes      code                            the last number of each code of receipts
//! runs               channel, merchant, day          a reconciliation and what came of it
//! breaks             break_id                        what did not match, and what was found of it
//! settlements        settlement_id                   a batch of what a payee is paid over; its totals, file and confirmation
//! settlement_cuts    payee_id, cut_at                a cut that was made, whether or not there was anything to settle
//! settlement_lines   transfer_id                     immutable; what was posted or given back stands in one settlement, ever
//! outbox             stream `payments`               events, see `store::outbox`
//! ```

pub(crate) mod breaks;
pub(crate) mod days;
mod insured;
pub(crate) mod ledger;
pub(crate) mod orders;
pub(crate) mod proposals;
pub(crate) mod receipts;
pub(crate) mod refunds;
pub(crate) mod requests;
pub(crate) mod runs;
pub(crate) mod settlements;
pub(crate) mod work;

use std::str::FromStr;

use contracts::money::{Currency, Money};
use store::{Migration, Row};

/// The schema, step by step.
pub const MIGRATIONS: &[Migration] = &[
    Migration {
        version: 1,
        name: "payments",
        sqlite: include_str!("../migrations/sqlite/0001_payments.sql"),
        postgres: include_str!("../migrations/postgres/0001_payments.sql"),
    },
    Migration {
        version: 2,
        name: "room",
        sqlite: include_str!("../migrations/sqlite/0002_room.sql"),
        postgres: include_str!("../migrations/postgres/0002_room.sql"),
    },
    Migration {
        version: 3,
        name: "timeouts",
        sqlite: include_str!("../migrations/sqlite/0003_timeouts.sql"),
        postgres: include_str!("../migrations/postgres/0003_timeouts.sql"),
    },
    Migration {
        version: 4,
        name: "reconciliation",
        sqlite: include_str!("../migrations/sqlite/0004_reconciliation.sql"),
        postgres: include_str!("../migrations/postgres/0004_reconciliation.sql"),
    },
    Migration {
        version: 5,
        name: "combined",
        sqlite: include_str!("../migrations/sqlite/0005_combined.sql"),
        postgres: include_str!("../migrations/postgres/0005_combined.sql"),
    },
    Migration {
        version: 6,
        name: "accounts",
        sqlite: include_str!("../migrations/sqlite/0006_accounts.sql"),
        postgres: include_str!("../migrations/postgres/0006_accounts.sql"),
    },
    Migration {
        version: 7,
        name: "settlement",
        sqlite: include_str!("../migrations/sqlite/0007_settlement.sql"),
        postgres: include_str!("../migrations/postgres/0007_settlement.sql"),
    },
    Migration {
        version: 8,
        name: "receipts",
        sqlite: include_str!("../migrations/sqlite/0008_receipts.sql"),
        postgres: include_str!("../migrations/postgres/0008_receipts.sql"),
    },
    Migration {
        version: 9,
        name: "mixed",
        sqlite: include_str!("../migrations/sqlite/0009_mixed.sql"),
        postgres: include_str!("../migrations/postgres/0009_mixed.sql"),
    },
    Migration {
        version: 10,
        name: "fees",
        sqlite: include_str!("../migrations/sqlite/0010_fees.sql"),
        postgres: include_str!("../migrations/postgres/0010_fees.sql"),
    },
    Migration {
        version: 11,
        name: "proposals",
        sqlite: include_str!("../migrations/sqlite/0011_proposals.sql"),
        postgres: include_str!("../migrations/postgres/0011_proposals.sql"),
    },
];

/// Reads a column that holds one of our own words or ids.
fn word<T: FromStr>(row: &Row, column: &'static str) -> Result<T, store::Error> {
    row.get::<String>(column)?.parse().map_err(|_| unreadable(column))
}

/// Reads an amount and its currency.
fn money(row: &Row) -> Result<Money, store::Error> {
    let currency: Currency = word(row, "currency")?;
    Money::new(row.get("amount_minor")?, currency).map_err(|_| unreadable("amount_minor"))
}

/// A value in the store that this program did not write.
pub(crate) fn unreadable(column: &'static str) -> store::Error {
    store::Error::Column { column, problem: "holds what this program does not write" }
}
