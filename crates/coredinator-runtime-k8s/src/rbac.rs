//! What coredinator asks of an API server: one table, from which the manifest of its rights is made, and by which a refused
//! call is told.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::ServiceAccount,
    api::rbac::v1::{PolicyRule, Role, RoleBinding, RoleRef, Subject},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use serde_json::{Value, json};

/// One kind of call: what the API server checks a right for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Call {
    /// The API group; empty: the core one.
    pub group: &'static str,
    /// The resource, with its subresource after a `/`.
    pub resource: &'static str,
    /// What is done.
    pub verb: &'static str,
    /// What for.
    pub why: &'static str,
}

macro_rules! calls {
    ($($name:ident: $group:literal $resource:literal $verb:literal, $why:literal;)+) => {
        impl Call {
            $(pub(crate) const $name: Self = Self { group: $group, resource: $resource, verb: $verb, why: $why };)+
        }

        /// Every kind of call that the runtime makes, and no other.
        pub const CALLS: &[Call] = &[$(Call::$name),+];
    };
}

calls! {
    GET_POD: "" "pods" "get", "looks at one instance";
    LIST_PODS: "" "pods" "list", "finds what runs after a restart";
    WATCH_PODS: "" "pods" "watch", "is told of changes";
    APPLY_POD: "" "pods" "patch", "makes an instance (server-side apply)";
    CREATE_POD: "" "pods" "create", "the same: apply makes what is not there";
    DELETE_POD: "" "pods" "delete", "ends an instance";
    EXEC: "" "pods/exec" "get", "runs a command inside an instance";
    CREATE_EXEC: "" "pods/exec" "create", "the same, as later versions of Kubernetes ask for it";
    READ_LOG: "" "pods/log" "get", "reads output";
    APPLY_SECRET: "" "secrets" "patch", "brings an instance's configuration file, and its changes";
    CREATE_SECRET: "" "secrets" "create", "the same: apply makes what is not there";
    LIST_SECRETS: "" "secrets" "list", "finds files that a crash left behind; their content is not asked for";
    DELETE_SECRET: "" "secrets" "delete", "a start failed, or met a crash, after the file was brought";
    LIST_SERVICES: "" "services" "list", "finds what a service left behind";
    GET_SERVICE: "" "services" "get", "looks whose a Service is before it is written";
    APPLY_SERVICE: "" "services" "patch", "makes a service be found in the cluster";
    CREATE_SERVICE: "" "services" "create", "the same: apply makes what is not there";
    DELETE_SERVICE: "" "services" "delete", "a service is forgotten";
    GET_BUDGET: "policy" "poddisruptionbudgets" "get", "looks whose a budget is before it is written";
    APPLY_BUDGET: "policy" "poddisruptionbudgets" "patch", "keeps drains from taking all replicas at once";
    CREATE_BUDGET: "policy" "poddisruptionbudgets" "create", "the same: apply makes what is not there";
    DELETE_BUDGET: "policy" "poddisruptionbudgets" "delete", "one replica is left, or none";
}

impl Call {
    /// In words, as a right: `get pods`.
    pub(crate) fn right(self) -> String {
        let group = if self.group.is_empty() { String::new() } else { format!(" ({})", self.group) };
        format!("{} {}{group}", self.verb, self.resource)
    }
}

/// The rights that coredinator needs in each namespace where it runs pods: nothing more than what it calls.
#[must_use]
pub fn role(name: &str, namespace: &str) -> Role {
    let mut verbs: BTreeMap<(&str, &str), Vec<String>> = BTreeMap::new();
    for call in CALLS {
        verbs.entry((call.group, call.resource)).or_default().push(call.verb.to_owned());
    }
    let rules = verbs.into_iter().map(|((group, resource), verbs)| PolicyRule {
        api_groups: Some(vec![group.to_owned()]),
        resources: Some(vec![resource.to_owned()]),
        verbs,
        ..PolicyRule::default()
    });
    Role { metadata: metadata(name, namespace), rules: Some(rules.collect()) }
}

/// Gives a service account those rights.
#[must_use]
pub fn role_binding(name: &str, namespace: &str, account: &str, account_namespace: &str) -> RoleBinding {
    RoleBinding {
        metadata: metadata(name, namespace),
        role_ref: RoleRef {
            api_group: "rbac.authorization.k8s.io".to_owned(),
            kind: "Role".to_owned(),
            name: name.to_owned(),
        },
        subjects: Some(vec![Subject {
            kind: "ServiceAccount".to_owned(),
            name: account.to_owned(),
            namespace: Some(account_namespace.to_owned()),
            api_group: None,
        }]),
    }
}

/// All that a cluster has to be told: a service account where coredinator runs, and its rights in each namespace where it runs
/// pods, as one `List`.
#[must_use]
pub fn manifest<'n>(name: &str, own: &str, namespaces: impl IntoIterator<Item = &'n str>) -> Value {
    let account = ServiceAccount { metadata: metadata(name, own), ..ServiceAccount::default() };
    let rights = namespaces
        .into_iter()
        .flat_map(|namespace| [json!(role(name, namespace)), json!(role_binding(name, namespace, name, own))]);
    let items: Vec<Value> = [json!(account)].into_iter().chain(rights).collect();
    json!({"apiVersion": "v1", "kind": "List", "items": items})
}

fn metadata(name: &str, namespace: &str) -> ObjectMeta {
    ObjectMeta { name: Some(name.to_owned()), namespace: Some(namespace.to_owned()), ..ObjectMeta::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_role_is_the_table() {
        let role = role("coredinator", "plant");
        let rules = role.rules.unwrap();
        let count: usize = rules.iter().map(|rule| rule.verbs.len()).sum();
        assert_eq!(count, CALLS.len());
        for rule in &rules {
            for word in rule.verbs.iter().chain(rule.resources.iter().flatten()).chain(rule.api_groups.iter().flatten())
            {
                assert_ne!(word, "*", "no right is wider than a call");
            }
        }
        assert_eq!(Call::APPLY_BUDGET.right(), "patch poddisruptionbudgets (policy)");
    }
}
