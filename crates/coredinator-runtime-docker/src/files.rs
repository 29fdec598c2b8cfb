//! The file that `COREDINATOR_CONFIG_FILE` names: an instance finds it inside, wherever the engine's machine is.
//!
//! It is copied in, not mounted: the engine may be on another machine, or coredinator itself in a container. Where the root
//! file system cannot be written to, an anonymous volume holds it.

use std::{io, path::Path};

use bollard::{body_full, query_parameters::UploadToContainerOptionsBuilder};
use coredinator_core::{RuntimeError, StartRequest};

use crate::{
    engine::{Engine, failed, status},
    options::DockerOptions,
};

/// Names the file to programs.
const VARIABLE: &str = "COREDINATOR_CONFIG_FILE";
/// The folder inside; one of its own, so that nothing of an image is touched.
pub(crate) const FOLDER: &str = "/coredinator";

/// Where an instance finds its file; `None`: it is given none.
pub(crate) fn place(request: &StartRequest) -> Option<String> {
    let outside = Path::new(request.environment.get(VARIABLE)?);
    Some(format!("{FOLDER}/{}", outside.file_name()?.to_string_lossy()))
}

/// The variables of a request, with the file's name as it is inside.
pub(crate) fn environment(request: &StartRequest) -> impl Iterator<Item = (&str, String)> {
    let place = place(request);
    request.environment.iter().filter_map(move |(key, value)| match (key.as_str(), &place) {
        (VARIABLE, None) => None,
        (VARIABLE, Some(place)) => Some((VARIABLE, place.clone())),
        (key, _) => Some((key, value.clone())),
    })
}

/// Whether a volume is needed to hold the file.
pub(crate) fn needs_volume(request: &StartRequest, options: &DockerOptions) -> bool {
    options.read_only && place(request).is_some()
}

/// Brings a request's file, if it has one, into the container that was made for it.
pub(crate) async fn bring(
    engine: &Engine,
    container: &str,
    request: &StartRequest,
    options: &DockerOptions,
) -> Result<(), RuntimeError> {
    let Some(outside) = request.environment.get(VARIABLE).filter(|_| place(request).is_some()) else { return Ok(()) };
    // Where a volume is mounted the folder is there; else it comes with the file.
    let folder = if needs_volume(request, options) { FOLDER } else { "/" };
    copy(engine, container, Path::new(outside), folder).await
}

/// Brings another content of the file into a container that has it.
pub(crate) async fn bring_again(engine: &Engine, container: &str, file: &Path) -> Result<(), RuntimeError> {
    copy(engine, container, file, FOLDER).await
}

/// Copies a file of this machine into a container, over an earlier one; `folder` is one that is there already.
async fn copy(engine: &Engine, container: &str, file: &Path, folder: &str) -> Result<(), RuntimeError> {
    let unreadable = |error| RuntimeError::internal(format!("cannot read {}", file.display()), error);
    let name = file.file_name().map(|name| name.to_string_lossy().into_owned());
    let name = name.ok_or_else(|| unreadable(io::ErrorKind::InvalidInput.into()))?;
    let content = tokio::fs::read(file).await.map_err(unreadable)?;
    let inside = if folder == FOLDER { name } else { format!("{}/{name}", FOLDER.trim_start_matches('/')) };
    let archive = archive(&inside, &content).map_err(unreadable)?;
    let options = UploadToContainerOptionsBuilder::new().path(folder).build();
    let sent = engine.client().await?.upload_to_container(container, Some(options), body_full(archive.into())).await;
    match sent {
        // It has been removed meanwhile.
        Err(error) if status(&error) == Some(404) => Ok(()),
        sent => sent.map_err(|error| failed("cannot bring its configuration file into a container", error)),
    }
}

/// A tape archive with the folder and one file. All in the container may read it, whoever its user is, and nobody outside.
fn archive(path: &str, content: &[u8]) -> io::Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o444);
    archive.append_data(&mut header, path, content)?;
    archive.into_inner()
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, io::Read, sync::Arc};

    use coredinator_core::{InstanceId, ServiceSpec};

    use super::*;

    fn request(environment: &[(&str, &str)]) -> StartRequest {
        let document = serde_json::json!({"runtime": "docker", "image": "x"});
        let spec = ServiceSpec::parse("", Some("svc"), document, &Default::default()).unwrap();
        let environment: BTreeMap<_, _> =
            environment.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect();
        let id = InstanceId::coin(&spec.name, 0, 7);
        StartRequest { id, replica: 0, spec: Arc::new(spec), preferred_port: None, environment }
    }

    #[test]
    fn inside_the_file_has_another_name() {
        let with = request(&[(VARIABLE, "/data/run/svc.json"), ("A", "b")]);
        assert_eq!(place(&with).as_deref(), Some("/coredinator/svc.json"));
        let variables: Vec<_> = environment(&with).collect();
        assert_eq!(variables, [("A", "b".to_owned()), (VARIABLE, "/coredinator/svc.json".to_owned())]);
        for without in [request(&[("A", "b")]), request(&[("A", "b"), (VARIABLE, "/")])] {
            assert_eq!(environment(&without).collect::<Vec<_>>(), [("A", "b".to_owned())]);
        }
    }

    #[test]
    fn an_archive_holds_the_file() {
        let packed = archive("coredinator/a.json", b"{}").unwrap();
        let mut archive = tar::Archive::new(packed.as_slice());
        let mut entry = archive.entries().unwrap().next().unwrap().unwrap();
        let mut content = String::new();
        entry.read_to_string(&mut content).unwrap();
        assert_eq!((entry.path().unwrap().to_str(), content.as_str()), (Some("coredinator/a.json"), "{}"));
        assert_eq!(entry.header().mode().unwrap(), 0o444);
    }
}
