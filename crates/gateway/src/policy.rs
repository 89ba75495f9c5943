//! What the gateway decides, as one synchronous function over an immutable snapshot.
//!
//! (method, caller, envelope) → where it goes, how long it may take, what is attached. It knows nothing of HTTP, does no I/O, takes no
//! lock and reads no clock: time has been judged when the token was verified. What it needs to count (quotas, places) it only names.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use contracts::catalog::v1::Route;
use contracts::common::v1::{AssuranceLevel, Credential, Depth, Exposure};
use rpc::routes::{RouteRefusal, RouteTable};
use rpc::{Contract, Method, Principal};
use runtime::Lookup;

use crate::error::Refusal;
use crate::peek::Envelope;

/// Longest time of a call that the catalogue gives no time to.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);

/// A verified caller: what a token says, once per token.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Who is calling.
    pub principal: Principal,
    /// How sure we are of the citizen; unspecified without one.
    pub level: AssuranceLevel,
    /// Consents in force, by purpose.
    pub consents: Vec<String>,
    /// What identity sealed, by audience.
    pub sealed: BTreeMap<String, String>,
}

impl Caller {
    /// A caller that showed nothing.
    pub fn anonymous() -> Self {
        Self {
            principal: Principal::Anonymous,
            level: AssuranceLevel::Unspecified,
            consents: Vec::new(),
            sealed: BTreeMap::new(),
        }
    }

    /// The entry point for which it calls; empty for staff and the anonymous.
    pub fn entry_point(&self) -> &str {
        match &self.principal {
            Principal::EntryPoint { id } => id,
            Principal::Citizen { entry_point, .. } => entry_point,
            Principal::Role(_) | Principal::Anonymous | Principal::Staff { .. } => "",
        }
    }
}

/// What is attached to the call upstream in place of the public credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attach {
    /// The department assertion and the sealed citizen: adapters.
    Assertion,
    /// The caller's own token: cases and payments verify it themselves, cases exchanges it.
    Token,
    /// The name of the entry point.
    EntryPoint,
}

/// How a method is treated, once per method.
#[derive(Debug)]
pub struct Plan {
    /// The method's contract.
    pub method: &'static Method,
    /// The role that serves it; `None`: the profile that the route names.
    role: Option<&'static str>,
    /// The least depth of the route, for methods whose envelope names an item.
    depth_min: Option<Depth>,
    /// Whether a failed attempt without effect may be repeated.
    pub repeatable: bool,
    /// What is attached.
    pub attach: Attach,
}

impl Plan {
    /// Whether the envelope is read.
    pub fn peeks(&self) -> bool {
        self.depth_min.is_some()
    }
}

/// Every method of the public listener.
#[derive(Debug)]
pub struct Plans(Lookup<&'static str, Plan>);

impl Plans {
    /// Makes the plan of every method that is not internal.
    pub fn new(contract: &'static Contract) -> Self {
        let public = contract.methods().filter(|method| method.exposure != Exposure::Internal);
        Self(public.filter_map(|method| Some((method.path.as_str(), plan(method)?))).collect())
    }

    /// Finds the plan of a path.
    pub fn get(&self, path: &str) -> Option<&Plan> {
        self.0.get(path)
    }
}

/// The plan of a method; `None` for a service that has no business on the public listener.
fn plan(method: &'static Method) -> Option<Plan> {
    let (service, name) = method.path.trim_start_matches('/').split_once('/')?;
    let read = |depth| Plan { method, role: None, depth_min: Some(depth), repeatable: true, attach: Attach::Assertion };
    let of = |role, attach| Plan { method, role: Some(role), depth_min: None, repeatable: false, attach };
    match (service, name) {
        ("lastmile.department.v1.DepartmentService", "Query") => Some(read(Depth::Query)),
        ("lastmile.department.v1.DepartmentService", "ListBills") => Some(read(Depth::Pay)),
        ("lastmile.department.v1.DepartmentService", "ListSlots") => Some(read(Depth::Book)),
        ("lastmile.cases.v1.CaseService", "OpenCase") => {
            Some(Plan { depth_min: Some(Depth::Pay), ..of("cases", Attach::Token) })
        }
        ("lastmile.cases.v1.CaseService", _) => Some(of("cases", Attach::Token)),
        ("lastmile.identity.v1.IdentityService", "IssueToken") => Some(of("identity", Attach::EntryPoint)),
        ("lastmile.identity.v1.IdentityService", _) => Some(of("identity", Attach::Token)),
        ("lastmile.catalog.v1.CatalogService", _) => Some(of("catalog", Attach::EntryPoint)),
        // Payments verifies staff itself, and learns of nobody else.
        ("lastmile.payments.v1.PaymentService", _) if method.credential == Credential::Staff => {
            Some(of("payments", Attach::Token))
        }
        ("lastmile.payments.v1.PaymentService", _) => Some(of("payments", Attach::EntryPoint)),
        _ => None,
    }
}

/// Where an admitted call goes.
#[derive(Debug, Clone, PartialEq)]
pub enum Upstream {
    /// A role of the mesh.
    Role(&'static str),
    /// A department's profile.
    Profile(Arc<Route>),
}

/// An admitted call.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// Where it goes.
    pub upstream: Upstream,
    /// Longest time it may take; the caller's own deadline may be shorter.
    pub timeout: Duration,
    /// The route whose quota it uses, where there is one.
    pub quota: Option<Arc<Route>>,
}

/// Decides before the body is read: whether this caller may call this method at all.
pub fn admit(plan: &Plan, caller: &Caller) -> Result<(), Refusal> {
    if !plan.method.served {
        return Err(Refusal::NotServed);
    }
    if plan.method.admits(&caller.principal) {
        return Ok(());
    }
    match (&caller.principal, plan.method.credential) {
        (Principal::Anonymous, credential) if credential != Credential::None => {
            Err(Refusal::Unauthenticated { check: "missing" })
        }
        _ => Err(Refusal::CallerNotAllowed { caller: caller.principal.label() }),
    }
}

/// Decides where an admitted call goes. `envelope` is there exactly when the plan peeks.
pub fn decide(
    plan: &Plan,
    routes: &RouteTable,
    caller: &Caller,
    envelope: Option<&Envelope<'_>>,
) -> Result<Decision, Refusal> {
    let route = match (plan.depth_min, envelope) {
        (Some(depth_min), Some(envelope)) => Some(route(routes, caller, envelope, depth_min)?),
        (Some(_), None) => return Err(Refusal::Envelope(crate::peek::PeekError::Missing)),
        (None, _) => None,
    };
    let timeout = route.map_or(TIMEOUT_DEFAULT, |route| {
        u64::try_from(route.timeout_ms).ok().filter(|ms| *ms > 0).map_or(TIMEOUT_DEFAULT, Duration::from_millis)
    });
    let quota = route.filter(|route| route.quota_per_minute > 0).cloned();
    let upstream = match (plan.role, route) {
        (Some(role), _) => Upstream::Role(role),
        (None, Some(route)) => Upstream::Profile(Arc::clone(route)),
        (None, None) => return Err(Refusal::MethodUnknown),
    };
    Ok(Decision { upstream, timeout, quota })
}

/// The route of an envelope, when the caller satisfies its policy.
fn route<'a>(
    routes: &'a RouteTable,
    caller: &Caller,
    envelope: &Envelope<'_>,
    depth_min: Depth,
) -> Result<&'a Arc<Route>, Refusal> {
    let route =
        routes.resolve(envelope.item, envelope.region, caller.entry_point()).map_err(|refusal| match refusal {
            RouteRefusal::RegionUnknown => Refusal::RegionUnknown,
            RouteRefusal::ItemNotListed => Refusal::ItemNotListed,
            RouteRefusal::NoAdapter => Refusal::NoAdapter,
        })?;
    if route.depth < depth_min as i32 {
        return Err(Refusal::DepthNotOffered { depth: route.depth().as_str_name() });
    }
    if (caller.level as i32) < route.level_min {
        return Err(Refusal::LevelTooLow { level_min: route.level_min().as_str_name() });
    }
    if let Some(purpose) = route.consents.iter().find(|purpose| !caller.consents.contains(purpose)) {
        return Err(Refusal::ConsentMissing { purpose: purpose.clone() });
    }
    if !caller.sealed.contains_key(&route.profile) {
        return Err(Refusal::AudienceMissing { profile: route.profile.clone() });
    }
    Ok(route)
}

#[cfg(test)]
#[path = "policy_tests.rs"]
mod tests;
