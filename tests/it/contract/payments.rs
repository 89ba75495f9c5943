//! Payments against the sandbox's WeChat Pay and Alipay, over real sockets: orders, callbacks, refunds, bills, combined orders, and
//! everything that goes wrong.

mod alipay;
mod batches;
mod bills;
mod callbacks;
mod combined;
pub(super) mod days;
mod departments;
mod faults;
mod fees;
mod life;
mod mixed;
mod mixed_wire;
mod proposal;
mod receipts;
mod requests;
mod rig;
mod settle;
mod together;
mod verify;

/// Makes of each case two tests, one per engine.
macro_rules! on_each_engine {
    ($($case:ident),+ $(,)?) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                super::$case(super::super::rig::Engine::Sqlite).await;
            })+
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                super::$case(super::super::rig::Engine::Postgres).await;
            })+
        }
    };
}
use on_each_engine;
