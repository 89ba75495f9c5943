//! What an operator sets of the gateway.

use runtime::config::{ByteSize, Duration, Problem};

/// Configuration of the gateway.
#[derive(Debug, Clone, serde::Deserialize, serde::Serialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The public base URL, as clients see it: issuer of the OAuth 2 metadata.
    pub issuer: String,
    /// Verified tokens that each core remembers.
    pub tokens_max: usize,
    /// New tokens whose signature is verified within one second, over all cores; more are told to come back.
    pub verifications_per_second: u32,
    /// Longest request message.
    pub body_bytes_max: ByteSize,
    /// Longest that a call may take, whatever its caller asks for.
    pub call_timeout_max: Duration,
    /// Threads of the data path; 0: one per core.
    pub cores: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            issuer: "http://127.0.0.1:7443".to_owned(),
            tokens_max: 100_000,
            verifications_per_second: 5_000,
            body_bytes_max: ByteSize::from_bytes(1024 * 1024),
            call_timeout_max: Duration::from(std::time::Duration::from_secs(30)),
            cores: 0,
        }
    }
}

impl Config {
    /// Gathers what cannot be: every value that would refuse every call.
    pub fn validate(&self, path: &str, problems: &mut Vec<Problem>) {
        let mut refuse = |field: &str, message: &str, hint: &str| {
            problems.push(Problem::new(format!("{path}.{field}"), message).hint(hint));
        };
        if !self.issuer.starts_with("https://") && !self.issuer.starts_with("http://") {
            refuse("issuer", "is not a URL", "write the public base URL, for example \"https://gateway.example\"");
        }
        if self.issuer.ends_with('/') {
            refuse("issuer", "ends with a slash", "leave the slash off");
        }
        if self.tokens_max < 2 {
            refuse("tokens_max", "is below 2", "100000 is the default");
        }
        if self.verifications_per_second == 0 {
            refuse("verifications_per_second", "is 0: no token would ever be verified", "5000 is the default");
        }
        if self.body_bytes_max.bytes() == 0 {
            refuse("body_bytes_max", "is 0: every call would be refused", "\"1MiB\" is the default");
        }
    }
}
