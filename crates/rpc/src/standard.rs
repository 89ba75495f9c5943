//! The services that every server has beside its own: health and reflection.

use tonic::service::Routes;
use tonic_health::server::HealthReporter;

/// Why the standard services could not be made.
#[derive(Debug, thiserror::Error)]
#[error("the descriptor set cannot be reflected")]
pub struct ReflectionError(#[from] tonic_reflection::server::Error);

/// Adds grpc.health.v1 and reflection (v1, and v1alpha, which older clients ask for).
///
/// Shape: the reporter says what health answers; `""` is the whole server. Until told otherwise the server is not serving.
pub async fn standard(routes: Routes) -> Result<(Routes, HealthReporter), ReflectionError> {
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter.set_service_status("", tonic_health::ServingStatus::NotServing).await;
    let reflect = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(contracts::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let routes = routes.add_service(health).add_service(reflect().build_v1()?).add_service(reflect().build_v1alpha()?);
    Ok((routes, reporter))
}

/// Whether a path is of one of the standard services, which any caller of a listener may use.
pub(crate) fn is_standard(path: &str) -> bool {
    ["/grpc.health.v1.Health/", "/grpc.reflection.v1.ServerReflection/", "/grpc.reflection.v1alpha.ServerReflection/"]
        .iter()
        .any(|prefix| path.starts_with(prefix))
}

/// Whether a standard method streams its answer.
pub(crate) fn streams(path: &str) -> bool {
    is_standard(path) && path != "/grpc.health.v1.Health/Check"
}
