//! The slice: a citizen reads a record, pays it, the points are cleared, the proof holds. In both cities, on both topologies.

use std::time::Duration;

use lastmile::demo::{self, Cities, Fault, Options};
use lastmile_tests::Cluster;
use lastmile_tests::cluster::on_both;
use runtime::Context;

const PATIENCE: Duration = Duration::from_secs(60);

/// Plays, and fails with what was told when an end is not the promised one.
async fn play(cluster: &Cluster, fault: Option<Fault>) -> anyhow::Result<()> {
    let options = Options {
        cities: Cities::Both,
        fault,
        to: Some(cluster.public()),
        control: Some(cluster.sandbox().control.to_string()),
        keys: Some(cluster.client_keys()),
        patience: PATIENCE,
    };
    let mut told = Vec::new();
    let kept = demo::run(&options, &lastmile::Config::default(), &Context::system(), &mut told).await;
    let told = String::from_utf8_lossy(&told).into_owned();
    match kept {
        Ok(true) => Ok(()),
        Ok(false) => anyhow::bail!("{fault:?}: {told}"),
        Err(error) => Err(error.context(format!("{fault:?}: {told}"))),
    }
}

#[test]
fn a_fine_is_paid_and_its_points_are_cleared() {
    on_both(async |cluster| Box::pin(play(cluster, None)).await);
}

#[test]
fn what_goes_wrong_ends_as_promised() {
    on_both(async |cluster| {
        for fault in <Fault as clap::ValueEnum>::value_variants() {
            Box::pin(play(cluster, Some(*fault))).await?;
        }
        Ok(())
    });
}
