//! Prints the rights that coredinator needs: `cargo run -p coredinator-runtime-k8s --example rbac -- NAMESPACE [NAMESPACE…]`,
//! first the namespace in which it runs itself, then those in which it runs pods (none: in its own). JSON, as `kubectl apply -f -`
//! takes it.

use coredinator_runtime_k8s::rbac;

fn main() {
    let mut namespaces = std::env::args().skip(1);
    let own = namespaces.next().unwrap_or_else(|| "default".to_owned());
    let others: Vec<String> = namespaces.collect();
    let of = if others.is_empty() { vec![own.clone()] } else { others };
    let list = rbac::manifest("coredinator", &own, of.iter().map(String::as_str));
    println!("{}", serde_json::to_string_pretty(&list).unwrap_or_default());
}
