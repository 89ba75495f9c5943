//! Every role as a process of its own, as an operator starts it: `lastmile serve --role R`, one file for all of them, certificates made by
//! `lastmile ca`, PostgreSQL and Redis.

use std::path::Path;
use std::process::Command;

use anyhow::ensure;
use lastmile_tests::Topology;
use lastmile_tests::drill::process::{binary, root};
use lastmile_tests::drill::site::Site;
use runtime::Context;

/// Nothing is set that the defaults do not have.
const PLAIN: &str = "[sandbox.systems.wechatpay]\n";

async fn play() -> anyhow::Result<()> {
    let (context, place, binary) = (Context::system(), tempfile::tempdir()?, binary(None)?);
    let mut site = Site::new(&context, &binary, place.path(), Topology::Split, PLAIN)?;
    site.start(None).await?;
    for process in site.inside.iter().chain([&site.outside]) {
        let log = std::fs::read_to_string(process.log())?;
        let runs = log.lines().find_map(|line| line.strip_prefix("ready")).map(str::trim);
        ensure!(runs == Some(process.name()), "{} runs {runs:?}", process.name());
    }
    let doors = site.doors();
    let mut demo = Command::new(&binary);
    demo.args(["demo", "--to", &doors.public, "--control", &doors.control, "--keys"]).arg(&doors.keys);
    let played = tokio::task::spawn_blocking(move || demo.current_dir(root()).output()).await??;
    let told = String::from_utf8_lossy(&played.stdout);
    ensure!(played.status.success(), "{told}{}", String::from_utf8_lossy(&played.stderr));
    let cleared = told.matches("as the police tell them").count();
    ensure!(cleared >= 2, "the points of both cities: {told}");
    diagnose(&binary, place.path())?;
    site.stop().await?;
    site.outside.stop().await
}

/// The doctor, beside each running process, finds what the others answer, and nothing bad but that the tests' PostgreSQL does not sync.
fn diagnose(binary: &Path, place: &Path) -> anyhow::Result<()> {
    for role in ["gateway", "identity", "catalog", "payments", "adapter", "cases", "sandbox"] {
        let mut doctor = Command::new(binary);
        doctor.arg("doctor").arg("--config").arg(place.join("drill.toml")).arg("--data").arg(place.join(role));
        doctor.args(["--set", &format!("serve.roles={role}")]);
        for listener in ["public", "callbacks", "operations", "mesh"] {
            doctor.args(["--set", &format!("listen.{listener}=127.0.0.1:0")]);
        }
        let said = doctor.current_dir(root()).output()?;
        let told = String::from_utf8_lossy(&said.stdout);
        let bad: Vec<&str> = told.lines().filter(|line| line.starts_with("BAD")).collect();
        let has_store = ["identity", "payments", "cases"].contains(&role);
        ensure!(bad.iter().all(|line| line.contains("fsync = off")), "{role}: {told}");
        ensure!(bad.len() == usize::from(has_store), "{role}: {told}");
        let peers =
            told.lines().filter(|line| line.contains(&format!(" of {role}: https://")) && line.contains("good until"));
        ensure!(peers.count() == 6, "{role} meets every role: {told}{}", String::from_utf8_lossy(&said.stderr));
    }
    Ok(())
}

#[test]
fn each_role_runs_by_its_flag_and_together_they_play_the_slice() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    runtime.block_on(async { Box::pin(play()).await.expect("every role does its part") });
}
