//! What a started process prints: where it is, and what to try first.

use std::io::{self, Write};
use std::net::SocketAddr;

use crate::doctor::certificates;
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
    let lacking = lacking(config);
    if !lacking.is_empty() {
        writeln!(out, "\nNot configured yet: {}.", lacking.join("; "))?;
        writeln!(out, "  {} serve --sandbox        simulates all of it; never in production", program())?;
        writeln!(
            out,
            "  {} serve --config FILE    is for your own; deploy/config/default.toml has every key",
            program()
        )?;
    }
    if let Some(public) = at.public {
        writeln!(out, "\nNow try, in another terminal:")?;
        first_commands(app, config, public).iter().try_for_each(|command| writeln!(out, "  {command}"))?;
    }
    out.flush()
}

/// What nobody has told this process and without which it serves nobody. The sandbox brings all of it.
fn lacking(config: &Config) -> Vec<&'static str> {
    let roles = config.roles();
    let needs =
        |role, is_empty: bool, what| (!config.sandbox.enabled && roles.contains(&role) && is_empty).then_some(what);
    let lacking = [
        needs(Role::Identity, config.identity.entry_points.is_empty(), "no super app may ask (identity.entry_points)"),
        needs(Role::Adapter, config.adapter.profiles.is_empty(), "no department can be reached (adapter.profiles)"),
        needs(
            Role::Payments,
            !config.payments.channels.wechatpay.is_offered(),
            "nothing can be paid (payments.channels.wechatpay)",
        ),
    ];
    lacking.into_iter().flatten().collect()
}

/// What can be typed as it stands: it works where this process runs.
fn first_commands(app: &App, config: &Config, public: SocketAddr) -> Vec<String> {
    let path = "/.well-known/jwks.json";
    if config.public.cert_file.as_os_str().is_empty() {
        let demo = config.roles().contains(&Role::Sandbox).then(|| format!("{} demo{}", program(), flags(app, config)));
        let ask = [format!("curl -s http://{public}{path}"), format!("grpcurl -plaintext {public} list")];
        return demo.into_iter().chain(ask).collect();
    }
    // The certificate is for a host, and this is an address. A demonstration would not know whose CA to believe.
    let (curl, grpcurl) = match certificates::first_name(&config.public.cert_file) {
        Some(name) => (
            format!("curl -s --connect-to ::{public} https://{name}:{}{path}", public.port()),
            format!("grpcurl -authority {name} {public} list"),
        ),
        None => (format!("curl -s https://{public}{path}"), format!("grpcurl {public} list")),
    };
    vec![curl, grpcurl, "(with a CA of your own: --cacert FILE for curl, -cacert FILE for grpcurl)".to_owned()]
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
