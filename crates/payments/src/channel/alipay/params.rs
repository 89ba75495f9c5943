//! Parameters as they are signed and as they travel.

use std::collections::BTreeMap;

/// The longest address or string that is handed to a browser or an app, bytes.
pub(super) const TEXT_BYTES_MAX: usize = 8 * 1_024;

/// Parameters by name.
pub(super) type Params = BTreeMap<String, String>;

/// Why a form cannot be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Repeated;

/// What a signature covers: `name=value` sorted by name and joined, values as they read and not as they travel.
pub(super) fn covered(params: &Params, leaves_out: impl Fn(&str, &str) -> bool) -> String {
    let pairs = params.iter().filter(|(name, value)| !leaves_out(name, value));
    pairs.map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&")
}

/// What our signature of a request covers: everything but itself and what is empty.
pub(super) fn of_request(params: &Params) -> String {
    covered(params, |name, value| name == "sign" || value.is_empty())
}

/// What Alipay's signature of a callback covers: everything but itself and its kind.
pub(super) fn of_notice(params: &Params) -> String {
    covered(params, |name, _| name == "sign" || name == "sign_type")
}

/// Writes parameters as a form or a query.
pub(super) fn encoded<'a>(params: impl IntoIterator<Item = (&'a String, &'a String)>) -> String {
    form_urlencoded::Serializer::new(String::new()).extend_pairs(params).finish()
}

/// Reads a form. What is not UTF-8 is read as something else, and then no signature holds.
///
/// Errors: a name that comes twice: which of the two was signed, and which is acted on?
pub(super) fn read(form: &[u8]) -> Result<Params, Repeated> {
    let mut params = Params::new();
    for (name, value) in form_urlencoded::parse(form) {
        if params.insert(name.into_owned(), value.into_owned()).is_some() {
            return Err(Repeated);
        }
    }
    Ok(params)
}
