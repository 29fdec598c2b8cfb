//! The file that `COREDINATOR_CONFIG_FILE` names: a program finds it in its pod, as a Secret of the pod's name.
//!
//! It is a Secret because a document may hold secrets, and belongs to its pod: the cluster removes it with that.

use std::{collections::BTreeMap, path::Path};

use coredinator_core::{InstanceId, StartRequest};
use k8s_openapi::{
    ByteString,
    api::core::v1::{Secret, SecretVolumeSource, Volume, VolumeMount},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};

use crate::{labels::Labels, state::Found};

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
    let owner = |pod: &Found| OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Pod".to_owned(),
        name: id.to_string(),
        uid: pod.uid.clone(),
        ..OwnerReference::default()
    };
    Some(Secret {
        metadata: ObjectMeta {
            name: Some(id.to_string()),
            namespace: Some(namespace.to_owned()),
            labels: Some(labels),
            owner_references: pod.map(|pod| vec![owner(pod)]),
            ..ObjectMeta::default()
        },
        data: Some(BTreeMap::from([(name(file)?, ByteString(content))])),
        ..Secret::default()
    })
}
