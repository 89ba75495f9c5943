//! From settings to running departments.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use contracts::department::v1::department_service_server::DepartmentServiceServer;
use rpc::jose::KeyError;
use rpc::keyring::{KeyRing, Options, OwnKey};
use rpc::token::Keys;
use rpc::{Mesh, Mounted, Readiness};
use runtime::Context;
use runtime::http::{Client, Options as HttpOptions};

use crate::config::{Config, Endpoint};
use crate::connector::fixed_tcp::TcpLink;
use crate::connector::soap::HttpLink;
use crate::connector::{Connector, Spoken};
use crate::engine::Backend;
use crate::keys::{ProfileKeys, owner};
use crate::plan::{Plan, Problems};
use crate::service::Service;

/// Longest wait for a connection to a department.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// An adapter's whole outside world.
#[derive(Clone)]
pub struct Deps {
    /// Time, ids, sockets and tasks.
    pub context: Context,
    /// The mesh in the adapter's name: identity's key list is all that it calls.
    pub mesh: Mesh,
}

/// Adapters cannot start.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A profile is not in order; everything that is wrong with it.
    #[error("a profile is not in order:\n{0}")]
    Profile(Problems),
    /// A file holds another profile than its name says.
    #[error("{} holds the profile {found}, not {wanted}", file.display())]
    Name {
        /// The file.
        file: PathBuf,
        /// The profile in it.
        found: String,
        /// The profile that was configured.
        wanted: String,
    },
    /// An address is not one.
    #[error("the address of {profile}: {what}")]
    Endpoint {
        /// The profile.
        profile: String,
        /// What would be right.
        what: String,
    },
    /// A setting that the profile does not have.
    #[error("{profile} has no setting `{setting}`")]
    Setting {
        /// The profile.
        profile: String,
        /// The setting.
        setting: String,
    },
    /// A profile's keys.
    #[error("the keys of {profile} cannot be used")]
    Keys {
        /// The profile.
        profile: String,
        /// Why.
        #[source]
        source: KeyError,
    },
}

/// A department that runs: its mesh key, and its service.
#[derive(Debug)]
pub struct Department {
    /// `adapter/<profile>`.
    pub mesh_key: String,
    /// Its service, without a stack.
    pub mounted: Mounted,
}

/// Profiles that were understood, with their keys and the ways to their back ends.
pub struct Adapters {
    context: Context,
    ready: Vec<(Arc<Backend>, ProfileKeys, bool)>,
}

/// Builds every configured department and starts to follow identity's key list, at which their keys are registered.
///
/// Shape: one [`Department`] a profile, in the order of their names.
/// Errors: the first profile, address, setting or key that cannot be used.
pub fn mount(config: &Config, deps: &Deps) -> Result<Vec<Department>, BuildError> {
    let adapters = Adapters::build(config, &deps.context)?;
    let options = Options { file: Some(config.keys_dir.join("keyring.json")), ..Options::default() };
    let ring = KeyRing::start(&deps.mesh, &deps.context, adapters.own_keys(), options);
    let asked = ring.clone();
    let readiness = Readiness::new(move || match (asked.age(), asked.is_registered()) {
        (Some(_), true) => Ok(()),
        (None, _) => Err("identity's key list was not read yet".to_owned()),
        (_, false) => Err("the profiles' keys are not registered yet".to_owned()),
    });
    Ok(adapters.departments(&(Arc::new(ring) as Arc<dyn Keys>), &readiness))
}

impl Adapters {
    /// Reads profiles, keys and addresses. Nothing is connected yet.
    pub fn build(config: &Config, context: &Context) -> Result<Self, BuildError> {
        let mut ready = Vec::with_capacity(config.profiles.len());
        for (name, endpoint) in &config.profiles {
            let file = config.profile_file(name);
            let plan = Plan::load(&file, &config.schemas_dir()).map_err(BuildError::Profile)?;
            if plan.name() != name {
                return Err(BuildError::Name { file, found: plan.name().to_owned(), wanted: name.clone() });
            }
            let backend = backend(plan, endpoint, context)?;
            let keys = ProfileKeys::load_or_create(&config.keys_dir, name, &context.ids);
            let keys = keys.map_err(|source| BuildError::Keys { profile: name.clone(), source })?;
            ready.push((Arc::new(backend), keys, endpoint.sandbox));
        }
        Ok(Self { context: context.clone(), ready })
    }

    /// The public keys to register.
    #[must_use]
    pub fn own_keys(&self) -> Vec<OwnKey> {
        self.ready.iter().flat_map(|(backend, keys, _)| keys.own(backend.plan().name())).collect()
    }

    /// Makes the services; assertions are verified with `signers`.
    #[must_use]
    pub fn departments(self, signers: &Arc<dyn Keys>, readiness: &Readiness) -> Vec<Department> {
        let context = self.context;
        let departments = self.ready.into_iter().map(|(backend, keys, sandbox)| {
            let mesh_key = owner(backend.plan().name());
            let service = Service::new(backend, keys, Arc::clone(signers), sandbox, context.clone());
            let routes = tonic::service::Routes::new(DepartmentServiceServer::new(service));
            Department { mesh_key, mounted: Mounted { routes, http: None, readiness: readiness.clone() } }
        });
        departments.collect()
    }
}

fn backend(plan: Plan, endpoint: &Endpoint, context: &Context) -> Result<Backend, BuildError> {
    let profile = plan.name().to_owned();
    if let Some(setting) = endpoint.settings.keys().find(|name| plan.profile.settings.get(name).is_none()) {
        return Err(BuildError::Setting { profile, setting: setting.clone() });
    }
    let plan = Arc::new(plan);
    let bad = |what: String| BuildError::Endpoint { profile: profile.clone(), what };
    let codec = Arc::clone(&plan.codec);
    let connector: Box<dyn Connector> = match (&plan.profile.connector.soap, &plan.profile.connector.fixed_tcp) {
        (Some(settings), _) => {
            let options = HttpOptions { connect_timeout: CONNECT_TIMEOUT, pool_idle: settings.idle.get(), tls: None };
            let client = Client::new(context.net.clone(), context.clock.clone(), options);
            let link = HttpLink::new(client, &endpoint.endpoint, settings).map_err(|error| bad(error.to_string()))?;
            Box::new(Spoken::new(codec, link))
        }
        (None, Some(settings)) => {
            let link = TcpLink::new(context.net.clone(), &endpoint.endpoint, settings)
                .map_err(|error| bad(error.to_string()))?;
            Box::new(Spoken::new(codec, link))
        }
        // A plan without a connector does not compile.
        (None, None) => return Err(bad("the profile has no connector".to_owned())),
    };
    let settings: Vec<_> =
        endpoint.settings.iter().map(|(name, value)| (name.clone(), value.expose().clone())).collect();
    Ok(Backend::new(plan, connector, &settings, context.clone()))
}
