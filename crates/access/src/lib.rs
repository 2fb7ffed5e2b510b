//! Who may do what: tokens, certificates, RBAC, node authorizer. Pure.
