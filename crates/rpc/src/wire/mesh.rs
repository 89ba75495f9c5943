//! Wires by key.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use futures::future::BoxFuture;
use tokio::runtime::Handle;

use super::{Answer, Flight, Local, Remote, RemoteOptions, Transport, Wire};
use crate::Effect;
use crate::fault::{Common, status};
use crate::frames::answer;
use crate::role::{Role, role_name, role_of_key};
use crate::stack::chain::Request;
use crate::stack::{ClientOptions, Server};
use crate::tls::{ClientIdentity, TlsError};

/// How long a caller should wait before it asks again for a peer that nothing was bound for yet.
const UNBOUND_RETRY: Duration = Duration::from_millis(200);

/// The wires of a process, by key: a role ("identity") or a profile ("adapter/traffic/430100").
///
/// Shape: a wire can be had before its peer is bound; a call on it then answers PEER_UNAVAILABLE with effect NONE. So the order in
/// which roles start does not matter, nor do cycles. Each role works with its own view ([`Mesh::caller`]), whose calls carry its name.
/// A profile without a binding of its own is where its role is: "adapter" stands for every "adapter/…".
#[derive(Clone)]
pub struct Mesh {
    shared: Arc<Shared>,
    caller: Role,
}

struct Shared {
    context: runtime::Context,
    client: ClientOptions,
    remote: RemoteOptions,
    targets: Mutex<BTreeMap<String, Arc<Target>>>,
    wires: Mutex<BTreeMap<(Role, String), Wire>>,
    identities: Mutex<BTreeMap<Role, ClientIdentity>>,
}

/// What a key stands for at the moment.
struct Target {
    key: String,
    /// For a profile: what its role stands for.
    role: Option<Arc<Target>>,
    binding: ArcSwapOption<Binding>,
}

enum Binding {
    Local { server: Server, runtime: Option<Handle> },
    Remote { address: String },
}

/// Why a mesh key cannot be bound.
#[derive(Debug, thiserror::Error)]
pub enum MeshError {
    /// The key's first part is no role.
    #[error("mesh key {0} does not begin with a role")]
    UnknownRole(String),
    /// The client identity of a role cannot be used.
    #[error("the role's client identity cannot be used")]
    Tls(#[from] TlsError),
}

impl Mesh {
    /// Makes a mesh in which nothing is bound. Calls of this first view carry no role; take [`Mesh::caller`] for each role.
    pub fn new(context: runtime::Context, client: ClientOptions, remote: RemoteOptions) -> Self {
        let shared = Shared {
            context,
            client,
            remote,
            targets: Mutex::default(),
            wires: Mutex::default(),
            identities: Mutex::default(),
        };
        Self { shared: Arc::new(shared), caller: Role::Unspecified }
    }

    /// The same mesh as a role sees it: its calls are made in that role's name.
    #[must_use]
    pub fn caller(&self, role: Role) -> Self {
        Self { shared: self.shared.clone(), caller: role }
    }

    /// Gives a role the certificate with which it calls remote peers. Without one, remote wires of that role speak plain HTTP/2.
    pub fn identify(&self, role: Role, identity: ClientIdentity) {
        lock(&self.shared.identities).insert(role, identity);
    }

    /// Binds a key to a server of this process. A later binding takes the place of an earlier one.
    ///
    /// Errors: UnknownRole.
    pub fn bind(&self, key: &str, server: Server, runtime: Option<Handle>) -> Result<(), MeshError> {
        self.put(key, Binding::Local { server, runtime })
    }

    /// Binds a key to an address, "host:port".
    ///
    /// Errors: UnknownRole.
    pub fn bind_remote(&self, key: &str, address: &str) -> Result<(), MeshError> {
        self.put(key, Binding::Remote { address: address.to_owned() })
    }

    fn put(&self, key: &str, binding: Binding) -> Result<(), MeshError> {
        role_of_key(key).ok_or_else(|| MeshError::UnknownRole(key.to_owned()))?;
        self.target(key).binding.store(Some(Arc::new(binding)));
        Ok(())
    }

    /// Returns the wire to a key, bound or not. The same key gives clones of one wire.
    pub fn wire(&self, key: &str) -> Wire {
        let mut wires = lock(&self.shared.wires);
        let slot = (self.caller, key.to_owned());
        if let Some(wire) = wires.get(&slot) {
            return wire.clone();
        }
        let late =
            Late { shared: self.shared.clone(), caller: self.caller, target: self.target(key), made: Mutex::default() };
        let mut options = self.shared.client.clone();
        // One layer retries, or every layer multiplies what the others do.
        options.retry = options.retry.filter(|_| self.caller == Role::Gateway);
        let wire = Wire::over(key, Arc::new(late), &self.shared.context, &options);
        wires.insert(slot, wire.clone());
        wire
    }

    /// Tells whether a key is bound, by itself or by its role.
    pub fn is_bound(&self, key: &str) -> bool {
        self.shared.binding(&self.target(key)).is_some()
    }

    fn target(&self, key: &str) -> Arc<Target> {
        self.shared.target(key)
    }
}

impl Shared {
    fn target(&self, key: &str) -> Arc<Target> {
        let mut targets = lock(&self.targets);
        if let Some(target) = targets.get(key) {
            return target.clone();
        }
        let role = role_of_key(key).map(role_name).filter(|role| *role != key);
        let empty = |key: &str, role| Arc::new(Target { key: key.to_owned(), role, binding: ArcSwapOption::empty() });
        let role = role.map(|role| targets.entry(role.to_owned()).or_insert_with(|| empty(role, None)).clone());
        targets.entry(key.to_owned()).or_insert_with(|| empty(key, role)).clone()
    }

    /// The binding of a key, else that of its role.
    fn binding(&self, target: &Target) -> Option<Arc<Binding>> {
        target.binding.load_full().or_else(|| target.role.as_ref()?.binding.load_full())
    }
}

impl fmt::Debug for Mesh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mesh({})", role_name(self.caller))
    }
}

/// A transport that finds out at the first call what its key is bound to, and keeps what it made until the binding changes.
struct Late {
    shared: Arc<Shared>,
    caller: Role,
    target: Arc<Target>,
    made: Mutex<Option<Made>>,
}

/// A transport, with the binding it was made of.
type Made = (Arc<Binding>, Arc<dyn Transport>);

impl Late {
    fn transport(&self) -> Option<Arc<dyn Transport>> {
        let binding = self.shared.binding(&self.target)?;
        let mut made = lock(&self.made);
        if let Some((of, transport)) = made.as_ref()
            && Arc::ptr_eq(of, &binding)
        {
            return Some(transport.clone());
        }
        let transport = self.make(&binding);
        *made = Some((binding, transport.clone()));
        Some(transport)
    }

    fn make(&self, binding: &Binding) -> Arc<dyn Transport> {
        match binding {
            Binding::Local { server, runtime } => Arc::new(Local::new(server.clone(), runtime.clone(), self.caller)),
            Binding::Remote { address } => {
                let identity = lock(&self.shared.identities).get(&self.caller).cloned();
                let Shared { context, remote, .. } = self.shared.as_ref();
                Arc::new(Remote::new(&self.target.key, address, identity, context, remote.clone()))
            }
        }
    }
}

impl Transport for Late {
    fn send<'a>(&'a self, request: Request, streaming: bool, flight: &'a Flight) -> BoxFuture<'a, Answer> {
        Box::pin(async move {
            match self.transport() {
                Some(transport) => transport.send(request, streaming, flight).await,
                None => {
                    let fault = Common::Peer {
                        peer: self.target.key.clone(),
                        effect: Effect::None,
                        retry_after: UNBOUND_RETRY,
                        source: None,
                    };
                    Answer { response: answer(status(&fault)), failed: false }
                }
            }
        })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
