//! What a started process prints: where it is, and what to try first.

use std::io::{self, Write};

use crate::{App, Config, Role};

/// Prints the addresses and what is missing yet; tests and people read them.
pub(crate) fn print(
    app: &App,
    ready: &Result<(), Vec<String>>,
    config: &Config,
    out: &mut impl Write,
) -> io::Result<()> {
    let at = app.addresses();
    let mut line = |name: &str, address: &dyn std::fmt::Display| writeln!(out, "{name:<12}{address}");
    if let Some(public) = at.public {
        let scheme = if config.public.cert_file.as_os_str().is_empty() { "http" } else { "https" };
        line("public", &format_args!("{scheme}://{public}  gRPC, /oauth2/token, /.well-known/jwks.json"))?;
    }
    if let Some(callbacks) = at.callbacks {
        line("callbacks", &format_args!("http://{callbacks}"))?;
    }
    line("operations", &format_args!("http://{}", at.operations))?;
    if let Some(mesh) = at.mesh {
        line("mesh", &format_args!("https://{mesh}"))?;
    }
    if let Some(sandbox) = at.sandbox {
        line(
            "sandbox",
            &format_args!("http://{}  control port; departments and people are simulated", sandbox.control),
        )?;
        line(
            "",
            &format_args!(
                "{} WeChat Pay, {} police 430100, {} police 140100",
                sandbox.wechatpay, sandbox.police_430100, sandbox.police_140100
            ),
        )?;
    }
    let roles = config.roles().into_iter().map(Role::name).collect::<Vec<_>>().join(" ");
    match ready {
        Ok(()) => line("ready", &roles)?,
        Err(missing) => line("not ready", &missing.join("; "))?,
    }
    if let (Some(public), true) = (at.public, config.roles().contains(&Role::Sandbox)) {
        writeln!(out, "\nNow try, in another terminal:")?;
        writeln!(out, "  {} demo{}", program(), flags(app, config))?;
        writeln!(out, "  curl -s http://{public}/.well-known/jwks.json")?;
        writeln!(out, "  grpcurl -plaintext {public} list")?;
    }
    out.flush()
}

/// What the demonstration has to be told where it cannot know it: everything that is not as by default.
fn flags(app: &App, config: &Config) -> String {
    let default = Config::default();
    let at = app.addresses();
    let mut flags = String::new();
    if let Some(public) = at.public.filter(|public| public.to_string() != default.listen.public) {
        flags.push_str(&format!(" --to http://{public}"));
    }
    let control = at.sandbox.map(|sandbox| sandbox.control.to_string());
    if let Some(control) = control.filter(|control| *control != default.sandbox.systems.control.listen) {
        flags.push_str(&format!(" --control {control}"));
    }
    if config.data.directory != default.data.directory {
        flags.push_str(&format!(" --data {}", config.data.directory.display()));
    }
    flags
}

/// The command that was called.
fn program() -> String {
    std::env::args().next().unwrap_or_else(|| "lastmile".to_owned())
}
