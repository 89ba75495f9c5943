//! Many citizens at once: every answered change stands in the journal, once.

use std::time::Duration;

use runtime::Context;
use serde_json::Value;
use tokio::task::JoinSet;

use crate::client::{taiyuan, taiyuan_payment};
use crate::control::started;

const CITIZENS: u32 = 400;
const CLIENTS: u32 = 32;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answered_payment_of_many_clients_is_kept_once() {
    let context = Context::system();
    let (running, directory) = started(&context).await;
    let at = running.addresses.police_140100.to_string();
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        let (context, at) = (context.clone(), at.clone());
        clients.spawn(async move {
            for citizen in (client..CITIZENS).step_by(CLIENTS as usize) {
                let record = format!("14010000003{citizen:07}01");
                let (_, detail) = taiyuan(&context, &at, "2102", &record).await.expect("a reply");
                let fen: i64 = std::str::from_utf8(&detail[222..234]).expect("digits").parse().expect("fen");
                let notice = taiyuan_payment(&format!("order-{citizen}"), &record, fen);
                // Twice at once, as a client that retries would.
                let (first, second) =
                    tokio::join!(taiyuan(&context, &at, "2301", &notice), taiyuan(&context, &at, "2301", &notice));
                let ((code, first), (_, second)) = (first.expect("a reply"), second.expect("a reply"));
                assert_eq!((code.as_str(), &first), ("AAAA", &second));
            }
        });
    }
    while let Some(client) = clients.join_next().await {
        client.expect("every payment is taken");
    }
    context.tasks.stop();
    assert!(context.tasks.wait(Duration::from_secs(5)).await, "the sandbox stops when it is told");
    let text = std::fs::read_to_string(directory.path().join("sandbox/police-140100.journal")).expect("a journal");
    let mut posted: Vec<String> = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON"))
        .filter(|line| line["state"] == "posted")
        .map(|line| line["order"].as_str().expect("an order").to_owned())
        .collect();
    assert_eq!(posted.len(), CITIZENS as usize);
    posted.sort_unstable();
    posted.dedup();
    assert_eq!(posted.len(), CITIZENS as usize, "none twice");
}
