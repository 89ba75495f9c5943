//! Are the catalogue and the profiles in order, and does what they lead to answer: departments' back ends, the channel, the cache?

use std::time::Duration;

use runtime::Context;

use super::{Finding, storage::chain};
use crate::config::At;
use crate::{Config, Role, sandbox};

const DEADLINE: Duration = Duration::from_secs(3);
/// A cache that is there is found within this time.
const CACHE_WITHIN: Duration = Duration::from_secs(1);
const CACHE_LOOK_EVERY: Duration = Duration::from_millis(20);

pub(super) async fn check(config: &Config, context: &Context) -> Vec<Finding> {
    let config = config.placed();
    let here = config.roles();
    let mut findings = vec![cache(&config, context).await];
    if here.contains(&Role::Catalog) {
        findings.push(catalog(&config, context));
    }
    if here.contains(&Role::Payments) {
        findings.push(channel(&config, context).await);
    }
    if here.contains(&Role::Adapter) {
        findings.extend(departments(&config, context).await);
    }
    findings
}

fn catalog(config: &Config, context: &Context) -> Finding {
    let mut settings = config.catalog.clone();
    settings.sandbox |= config.sandbox.enabled;
    match catalog::mount(&settings, catalog::Deps { context: context.clone() }) {
        Ok(_) => Finding::good("catalogue", format!("{} is in order", settings.data_dir.join("catalog").display())),
        Err(error) => Finding::bad("catalogue", error.to_string(), "mend the files, or set catalog.data_dir"),
    }
}

/// Each profile that runs here, with its golden cases, and its back end.
async fn departments(config: &Config, context: &Context) -> Vec<Finding> {
    let mut settings = config.adapter.clone();
    if config.sandbox.enabled {
        sandbox::wire_adapter(&mut settings, &simulated(config));
    }
    if settings.profiles.is_empty() {
        let what = "none is configured: no department can be reached";
        return vec![Finding::warning("profiles", what, "name them with their back ends in adapter.profiles")];
    }
    let mut findings = Vec::new();
    for (name, endpoint) in &settings.profiles {
        let subject = format!("profile {name}");
        let file = settings.profile_file(name);
        let report = adapter::check::check(&file, &settings.schemas_dir()).await;
        findings.push(if report.is_ok() {
            Finding::good(subject, format!("{}: {} golden cases hold", file.display(), report.cases.len()))
        } else {
            Finding::bad(subject, report.to_string().trim_end().to_owned(), "see `lastmile adapter check FILE`")
        });
        let is_here = endpoint.sandbox && config.roles().contains(&Role::Sandbox);
        findings.push(answers(context, &format!("back end {name}"), &endpoint.endpoint, is_here).await);
    }
    findings
}

/// Where the simulated systems will be, when they run here, else where they are.
pub(super) fn simulated(config: &Config) -> At {
    let at = &config.sandbox.at;
    let systems = &config.sandbox.systems;
    let or = |at: &String, listen: &String| if at.is_empty() { listen.clone() } else { at.clone() };
    At {
        control: or(&at.control, &systems.control.listen),
        wechatpay: or(&at.wechatpay, &systems.wechatpay.listen),
        police_430100: or(&at.police_430100, &systems.police_430100.listen),
        police_140100: or(&at.police_140100, &systems.police_140100.listen),
    }
}

async fn channel(config: &Config, context: &Context) -> Finding {
    let offered = &config.payments.channels.wechatpay;
    let (subject, is_here) = ("channel wechatpay", config.roles().contains(&Role::Sandbox));
    match (offered.is_offered(), config.sandbox.enabled) {
        (true, _) => answers(context, subject, &offered.base_url, false).await,
        (false, true) => answers(context, subject, &simulated(config).wechatpay, is_here).await,
        (false, false) => {
            let remedy = "set payments.channels.wechatpay.base_url, and merchants and payees";
            Finding::warning(subject, "it is not offered: nothing can be paid", remedy)
        }
    }
}

/// Connects to `http://host:port/…`, `https://host…` or `host:port`. What starts with this process need not be there yet.
async fn answers(context: &Context, subject: &str, endpoint: &str, is_here: bool) -> Finding {
    let address = match host_and_port(endpoint) {
        Some(address) => address,
        None => {
            return Finding::bad(subject, format!("{endpoint} is no address"), "write http://host:port or host:port");
        }
    };
    match context.net.connect(&address, DEADLINE).await {
        Ok(_) => Finding::good(subject, format!("{address} answers")),
        Err(_) if is_here => Finding::good(subject, format!("{address} starts with this process: it is simulated")),
        Err(error) => Finding::bad(
            subject,
            format!("{address}: {error}"),
            "check the network, the firewall, and the address; its calls end UNAVAILABLE until it answers",
        ),
    }
}

fn host_and_port(endpoint: &str) -> Option<String> {
    let (scheme, rest) = endpoint.split_once("://").unwrap_or(("", endpoint));
    let authority = rest.split('/').next()?;
    let port = match scheme {
        "https" => Some("443"),
        "http" => Some("80"),
        _ => None,
    };
    match (authority.rsplit_once(':'), port) {
        (Some((host, port)), _) => (!host.is_empty() && port.parse::<u16>().is_ok()).then(|| authority.to_owned()),
        (None, Some(port)) if !authority.is_empty() => Some(format!("{authority}:{port}")),
        (None, _) => None,
    }
}

async fn cache(config: &Config, context: &Context) -> Finding {
    if config.cache.url.is_empty() {
        return Finding::good("cache", "memory: quotas are counted by each process for itself");
    }
    let cache = match store::Cache::open(&config.cache, context).await {
        Ok(cache) => cache,
        Err(error) => return Finding::bad("cache", chain(&error), "see cache.url in the configuration"),
    };
    let found = async {
        while cache.degraded() {
            context.clock.sleep(CACHE_LOOK_EVERY).await;
        }
    };
    match context.clock.timeout(CACHE_WITHIN, found).await {
        Ok(()) => Finding::good("cache", "Redis answers"),
        Err(_) => Finding::warning(
            "cache",
            "Redis does not answer: each process counts quotas for itself",
            "start it, or set cache.url",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    #[test]
    fn addresses_are_read_from_what_operators_write() {
        for (written, address) in [
            ("http://10.0.0.5:7511", Some("10.0.0.5:7511")),
            ("http://police.example/services", Some("police.example:80")),
            ("https://api.mch.weixin.qq.com", Some("api.mch.weixin.qq.com:443")),
            ("10.0.0.5:7512", Some("10.0.0.5:7512")),
            ("10.0.0.5", None),
            ("", None),
        ] {
            assert_eq!(host_and_port(written).as_deref(), address, "{written}");
        }
    }

    #[tokio::test]
    async fn a_back_end_that_is_away_is_bad_unless_it_starts_with_us() {
        let context = Context::system();
        let free = context.net.bind("127.0.0.1:0").await.expect("binds").local_addr().to_string();
        assert_eq!(answers(&context, "back end", &free, false).await.verdict, Verdict::Bad);
        assert_eq!(answers(&context, "back end", &free, true).await.verdict, Verdict::Good);
        let listener = context.net.bind("127.0.0.1:0").await.expect("binds");
        let there = format!("http://{}", listener.local_addr());
        assert_eq!(answers(&context, "back end", &there, false).await.verdict, Verdict::Good);
    }
}
