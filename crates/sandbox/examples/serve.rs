//! Starts the sandbox alone and prints its addresses as one JSON line: `serve [CONFIG.json]`.
//!
//! For judges that are not ours and for work on a department's wire without the rest.

use std::error::Error;
use std::io::Write as _;
use std::time::Duration;

use runtime::Context;
use sandbox::Config;

const DRAIN: Duration = Duration::from_secs(5);

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let config = match std::env::args().nth(1) {
        Some(path) => serde_json::from_slice(&std::fs::read(path)?)?,
        None => Config::default(),
    };
    let mut problems = Vec::new();
    config.validate("sandbox", &mut problems);
    for problem in &problems {
        eprintln!("{}: {}", problem.path, problem.message);
    }
    if !problems.is_empty() {
        std::process::exit(64);
    }
    let context = Context::system();
    let (keys_dir, alipay_keys_dir) = (config.keys_dir(), config.alipay_keys_dir());
    let running = sandbox::start(config, context.clone()).await?;
    let at = running.addresses;
    let line = serde_json::json!({
            "control": at.control,
            "wechatpay": at.wechatpay,
            "alipay": at.alipay,
            "police_430100": at.police_430100,
            "police_140100": at.police_140100,
            "keys_dir": keys_dir,
            "alipay_keys_dir": alipay_keys_dir,
    });
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()?;
    drop(out);
    tokio::select! {
        ended = tokio::signal::ctrl_c() => ended?,
        () = context.tasks.token().cancelled_owned() => {}
    }
    context.tasks.stop();
    context.tasks.wait(DRAIN).await;
    Ok(())
}
