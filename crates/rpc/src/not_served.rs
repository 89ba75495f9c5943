//! What the contract has and this version does not serve.

/// Full paths of the methods that a later version fills. The server stack answers each UNIMPLEMENTED with reason NOT_SERVED before
/// any handler; ARCHITECTURE.md lists the same. A method that is served leaves this list in the commit that serves it.
pub const NOT_SERVED: &[&str] = &[
    "/lastmile.cases.v1.CaseService/RateCase",
    "/lastmile.catalog.v1.CatalogService/ListVersions",
    "/lastmile.catalog.v1.CatalogService/Publish",
    "/lastmile.catalog.v1.CatalogService/Rollback",
    "/lastmile.catalog.v1.CatalogService/SearchItems",
    "/lastmile.catalog.v1.CatalogService/Validate",
    "/lastmile.department.v1.DepartmentService/ConfirmSlot",
    "/lastmile.department.v1.DepartmentService/HoldSlot",
    "/lastmile.department.v1.DepartmentService/InquireSlot",
    "/lastmile.department.v1.DepartmentService/InquireSubmission",
    "/lastmile.department.v1.DepartmentService/ListSlots",
    "/lastmile.department.v1.DepartmentService/PollChanges",
    "/lastmile.department.v1.DepartmentService/ReleaseSlot",
    "/lastmile.department.v1.DepartmentService/Submit",
    "/lastmile.department.v1.DepartmentService/Withdraw",
    "/lastmile.identity.v1.IdentityService/CreateMandate",
    "/lastmile.identity.v1.IdentityService/GrantConsent",
    "/lastmile.identity.v1.IdentityService/LinkAccount",
    "/lastmile.identity.v1.IdentityService/ListConsents",
    "/lastmile.identity.v1.IdentityService/ListLinks",
    "/lastmile.identity.v1.IdentityService/ListMandates",
    "/lastmile.identity.v1.IdentityService/MatchIdentity",
    "/lastmile.identity.v1.IdentityService/RevokeConsent",
    "/lastmile.identity.v1.IdentityService/RevokeMandate",
    "/lastmile.identity.v1.IdentityService/UnlinkAccount",
];
