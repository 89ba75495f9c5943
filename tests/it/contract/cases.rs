//! What cases promises, asked at the public port of a whole cluster, on both topologies; at the end of each run every invariant is
//! judged by what ledger, cases, channel and departments wrote down.

mod clerks;
mod ends;
mod faults;
mod life;
mod receipts;
mod rig;
