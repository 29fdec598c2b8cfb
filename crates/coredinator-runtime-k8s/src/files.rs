//! The file that `COREDINATOR_CONFIG_FILE` names: a program finds it in its pod, as a Secret of the pod's name.
//!
//! It is a Secret because a document may hold secrets, and belongs to its pod: the cluster removes it with that.

use std::{collections::BTreeMap, path::Path};

use coredinator_core::{InstanceId, ServiceName, StartRequest};
use k8s_openapi::{
    ByteString,
    api::core::v1::{Secret, SecretVolumeSource, Volume, VolumeMount},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};

use serde_json::{Value, json};

use crate::{
    labels::{Labels, Tags},
    state::Found,
};

/// Names the file to programs.
pub(crate) const VARIABLE: &str = "COREDINATOR_CONFIG_FILE";
/// The folder in a pod; one of its own, so that nothing of an image is covered.
const FOLDER: &str = "/coredinator";
const VOLUME: &str = "coredinator";

/// Where the program finds its file; `None`: it is given none.
pub(crate) fn place(request: &StartRequest) -> Option<String> {
    Some(format!("{FOLDER}/{}", name(outside(request)?)?))
}

/// The file on this machine.
pub(crate) fn outside(request: &StartRequest) -> Option<&Path> {
    request.environment.get(VARIABLE).map(Path::new)
}

/// A file's name, as a key of a Secret.
fn name(file: &Path) -> Option<String> {
    let name = file.file_name()?.to_string_lossy();
    Some(name.chars().map(|c| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' }).collect())
}

/// How it gets into the pod.
pub(crate) fn mount(request: &StartRequest) -> Option<(Volume, VolumeMount)> {
    place(request)?;
    let secret = SecretVolumeSource { secret_name: Some(request.id.to_string()), ..SecretVolumeSource::default() };
    let volume = Volume { name: VOLUME.to_owned(), secret: Some(secret), ..Volume::default() };
    let mount = VolumeMount {
        name: VOLUME.to_owned(),
        mount_path: FOLDER.to_owned(),
        read_only: Some(true),
        ..VolumeMount::default()
    };
    Some((volume, mount))
}

/// The Secret that holds a file's content; `pod`: whose it is, once that is there.
pub(crate) fn secret(
    id: &InstanceId,
    namespace: &str,
    labels: Labels,
    file: &Path,
    content: Vec<u8>,
    pod: Option<&Found>,
) -> Option<Secret> {
    Some(Secret {
        metadata: ObjectMeta {
            name: Some(id.to_string()),
            namespace: Some(namespace.to_owned()),
            labels: Some(labels),
            owner_references: pod.map(|pod| vec![owner(id, pod)]),
            ..ObjectMeta::default()
        },
        data: Some(BTreeMap::from([(name(file)?, ByteString(content))])),
        ..Secret::default()
    })
}

fn owner(id: &InstanceId, pod: &Found) -> OwnerReference {
    OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Pod".to_owned(),
        name: id.to_string(),
        uid: pod.uid.clone(),
        ..OwnerReference::default()
    }
}

/// A file of ours that is no pod's: coredinator ended before it could say whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Loose {
    pub(crate) id: InstanceId,
    pub(crate) service: ServiceName,
    /// The Secret's own.
    pub(crate) uid: String,
}

impl Loose {
    /// Reads what the API server says of a Secret beside its content; `None` if it is not `owner`'s, or a pod's.
    pub(crate) fn read(metadata: &ObjectMeta, owner: &str) -> Option<Self> {
        let tags = Tags::read(metadata.labels.as_ref()?, owner)?;
        let is_a_pods = metadata.owner_references.iter().flatten().any(|of| of.kind == "Pod");
        // Whoever copied our labels to a Secret of another name has a Secret of theirs.
        let is_its_own = metadata.name.as_deref() == Some(tags.id.as_str());
        let uid = metadata.uid.clone().filter(|_| is_its_own && !is_a_pods)?;
        Some(Self { id: tags.id, service: tags.service, uid })
    }
}

/// What is to be written over a loose file to make it a pod's.
pub(crate) fn belongs(loose: &Loose, pod: &Found) -> Value {
    json!({"metadata": {"uid": loose.uid, "ownerReferences": [owner(&loose.id, pod)]}})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_loose_while_it_is_no_pods() {
        let id = InstanceId::coin(&ServiceName::new("svc").unwrap(), 0, 7);
        let of = |more: Value| {
            let mut metadata = json!({
                "name": id.as_str(), "uid": "u", "labels": {
                    "coredinator.owner": "me", "coredinator.service": "svc", "coredinator.instance": id.as_str(),
                    "coredinator.replica": "0",
                },
            });
            for (key, value) in more.as_object().unwrap() {
                metadata[key] = value.clone();
            }
            serde_json::from_value::<ObjectMeta>(metadata).unwrap()
        };
        let loose = Loose::read(&of(json!({})), "me").unwrap();
        assert_eq!((&loose.id, loose.service.as_str(), loose.uid.as_str()), (&id, "svc", "u"));
        let owned =
            |kind: &str| json!({"ownerReferences": [{"apiVersion": "v1", "kind": kind, "name": "x", "uid": "p"}]});
        assert_eq!(Loose::read(&of(json!({})), "you"), None);
        assert_eq!(Loose::read(&of(owned("Pod")), "me"), None);
        assert!(Loose::read(&of(owned("ConfigMap")), "me").is_some());
        for (key, value) in
            [("name", json!("another")), ("labels", json!({"coredinator.owner": "me"})), ("uid", json!(null))]
        {
            assert_eq!(Loose::read(&of(json!({key: value})), "me"), None, "{key}");
        }
    }
}
