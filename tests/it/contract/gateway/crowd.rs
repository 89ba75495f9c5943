//! Many at once: an entry point's quota, a department's places.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use lastmile_tests::catalogue::Catalogue;
use lastmile_tests::cluster::on_both_with;
use lastmile_tests::golden::refused;
use lastmile_tests::super_app::SuperApp;
use prost::Message;
use rpc::Retry;
use runtime::{Clock, Context};

use super::rig::{CHANGSHA, Door, POLICE, QUERY, TAIYUAN, bearer, framed};

const QUOTA: usize = 3;

/// The minute, from 1970: a quota's window.
fn minute() -> i64 {
    Clock::system().now().seconds_nanos().0 / 60
}

#[test]
fn a_quota_is_kept_for_each_entry_point() {
    let catalogue = Catalogue::with("adapters.yaml", "quota_per_minute: 0", &format!("quota_per_minute: {QUOTA}"));
    let catalogue = catalogue.expect("a catalogue");
    let data_dir = catalogue.data_dir();
    let configure = move |config: &mut lastmile::Config| config.catalog.data_dir.clone_from(&data_dir);
    on_both_with(configure, async |cluster| {
        let door = Door::of(cluster, 740).await?;
        let query = door.asks(CHANGSHA.0)?;
        let (begun, mut admitted) = (minute(), 0);
        let refusal = loop {
            match door.query(&query).await? {
                Ok(_) => admitted += 1,
                Err(status) => break status,
            }
            ensure!(admitted <= 2 * QUOTA, "{admitted} were admitted");
        };
        // The next minute begins anew.
        ensure!(admitted == QUOTA || (minute() > begun && admitted > QUOTA), "{admitted} were admitted");
        let fault = refused::<()>(Err(refusal), "gateway QUOTA_EXCEEDED", &[])?;
        let Retry::After(after) = fault.retry() else { anyhow::bail!("{:?}", fault.retry()) };
        ensure!(!after.is_zero() && after <= Duration::from_secs(60), "again after {after:?}");
        // What else the minute holds does not come to the department, in whichever city: the quota is the item's.
        let exchanges = cluster.exchanges();
        let before = minute();
        let again = door.query(&query).await?;
        if minute() == before && minute() == begun {
            refused(again, "gateway QUOTA_EXCEEDED", &[])?;
            ensure!(cluster.exchanges() == exchanges, "the department was called");
        }
        // Another entry point has its own.
        let alipay = SuperApp::new(&Context::system(), &cluster.public(), "alipay", &cluster.client_keys())?;
        let token = bearer(&alipay.citizen_token(&door.citizen, &[TAIYUAN.1]).await?);
        let body = framed(&door.asks(TAIYUAN.0)?.encode_to_vec());
        let answer = door.send(QUERY, &[("authorization", &token)], body).await?;
        ensure!(answer.is_ok(), "{answer:?}");
        Ok(())
    });
}

#[test]
fn a_department_that_is_slow_fills_its_own_places_only() {
    let catalogue = Catalogue::with("adapters.yaml", "concurrency_max: 64", "concurrency_max: 1");
    let catalogue = catalogue.expect("a catalogue");
    let data_dir = catalogue.data_dir();
    let configure = move |config: &mut lastmile::Config| config.catalog.data_dir.clone_from(&data_dir);
    on_both_with(configure, async |cluster| {
        let door = Door::of(cluster, 741).await?;
        let (query, clock) = (door.asks(CHANGSHA.0)?, Clock::system());
        let taiyuan = bearer(&door.app.citizen_token(&door.citizen, &[TAIYUAN.1]).await?);
        let elsewhere = framed(&door.asks(TAIYUAN.0)?.encode_to_vec());
        door.outside.stage_for((POLICE, "list", "slow"), 1, "3s").await?;
        let first = door.query(&query);
        let others = async {
            // The department has the first call, so that its one place is taken.
            while door.outside.staged(POLICE).await? > 0 {
                clock.sleep(Duration::from_millis(20)).await;
            }
            let exchanges = cluster.exchanges();
            for _ in 0..3 {
                let fault = refused(door.query(&query).await?, "gateway PROFILE_BUSY", &[])?;
                ensure!(fault.retry() == Retry::After(Duration::from_millis(100)), "{:?}", fault.retry());
            }
            ensure!(cluster.exchanges() == exchanges, "the department was called");
            door.send(QUERY, &[("authorization", &taiyuan)], elsewhere).await
        };
        let (first, other) = tokio::join!(first, others);
        ensure!(other?.is_ok(), "the other city goes on");
        ensure!(first.context("the first")?.is_ok(), "a department that is slow answers in the end");
        ensure!(door.query(&query).await?.is_ok(), "the place is given back");
        Ok(())
    });
}
