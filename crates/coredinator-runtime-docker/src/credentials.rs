//! Who one is to a registry: as Docker's own `config.json` says, by itself or by the helper that it names.

use std::{path::Path, process::Stdio, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bollard::auth::DockerCredentials;
use serde::Deserialize;
use tokio::{io::AsyncWriteExt, process::Command, time};

use crate::endpoint::{Auth, Settings, Surroundings};

/// How Docker's own registry is named in settings.
const HUB: &str = "https://index.docker.io/v1/";
/// How long a helper may take.
const HELPER: Duration = Duration::from_secs(30);

/// The credentials for the registry of an image; `None`: one is nobody there.
///
/// # Errors
/// What is wrong with the settings or the helper, in words that tell no secret.
pub(crate) async fn of(image: &str, surroundings: &Surroundings) -> Result<Option<DockerCredentials>, String> {
    let Some(settings) = surroundings.settings()? else { return Ok(None) };
    let registry = registry(image);
    if let Some(helper) = helper(&settings, registry)
        && let Some(found) = ask(None, helper, registry).await?
    {
        return Ok(Some(found));
    }
    written(&settings, registry)
}

/// The registry of an image, as settings name it: what stands before the first `/`, if it looks like a host.
fn registry(image: &str) -> &str {
    match image.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => {
            if matches!(host, "docker.io" | "index.docker.io") { HUB } else { host }
        }
        _ => HUB,
    }
}

/// A registry's host, however settings spell it.
fn host(registry: &str) -> &str {
    let rest = registry.split_once("://").map_or(registry, |(_, rest)| rest);
    rest.split('/').next().unwrap_or(rest)
}

fn helper<'s>(settings: &'s Settings, registry: &str) -> Option<&'s str> {
    let own = settings.cred_helpers.iter().find(|(name, _)| host(name) == host(registry)).map(|(_, helper)| helper);
    own.or(settings.creds_store.as_ref()).map(String::as_str).filter(|name| !name.is_empty())
}

fn written(settings: &Settings, registry: &str) -> Result<Option<DockerCredentials>, String> {
    let found = settings.auths.get(registry);
    let found =
        found.or_else(|| settings.auths.iter().find(|(name, _)| host(name) == host(registry)).map(|(_, auth)| auth));
    let Some(Auth { auth, username, password, identitytoken }) = found else { return Ok(None) };
    let (mut username, mut password) = (username.clone(), password.clone());
    if let Some(auth) = auth.as_ref().filter(|auth| !auth.is_empty()) {
        let unreadable = || format!("the credentials of {registry} in Docker's config.json cannot be read");
        let text = STANDARD.decode(auth.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let text = text.ok_or_else(unreadable)?;
        let (user, secret) = text.trim_end_matches('\0').split_once(':').ok_or_else(unreadable)?;
        (username, password) = (Some(user.to_owned()), Some(secret.to_owned()));
    }
    let identitytoken = identitytoken.clone().filter(|token| !token.is_empty());
    if username.is_none() && identitytoken.is_none() {
        return Ok(None);
    }
    Ok(Some(DockerCredentials {
        username,
        password,
        identitytoken,
        serveraddress: Some(registry.to_owned()),
        ..DockerCredentials::default()
    }))
}

/// What a helper answers.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Kept {
    username: String,
    secret: String,
}

/// Asks a helper: `docker-credential-NAME get`, the registry on its standard input. It is found along `PATH`, or in `folder`.
async fn ask(folder: Option<&Path>, helper: &str, registry: &str) -> Result<Option<DockerCredentials>, String> {
    if helper.contains('/') {
        return Err(format!("{helper:?} in Docker's config.json is no name of a credential helper"));
    }
    let program = format!("docker-credential-{helper}");
    let failed = |error: &dyn std::fmt::Display| format!("cannot ask {program} for credentials: {error}");
    let asking = async {
        let mut child = Command::new(folder.unwrap_or(Path::new("")).join(&program))
            .arg("get")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            // One that does not want to hear it says so by how it ends.
            let _ = stdin.write_all(registry.as_bytes()).await;
        }
        child.wait_with_output().await
    };
    let answer = time::timeout(HELPER, asking).await.map_err(|_| failed(&format!("no answer within {HELPER:?}")))?;
    let answer = answer.map_err(|error| failed(&error))?;
    let text = String::from_utf8_lossy(&answer.stdout);
    if !answer.status.success() {
        // The helpers' own words, fixed in their protocol.
        return if text.contains("credentials not found") { Ok(None) } else { Err(failed(&answer.status)) };
    }
    let kept: Kept = serde_json::from_str(&text).map_err(|_| failed(&"its answer cannot be understood"))?;
    let serveraddress = Some(registry.to_owned());
    Ok(Some(if kept.username == "<token>" {
        DockerCredentials { identitytoken: Some(kept.secret), serveraddress, ..DockerCredentials::default() }
    } else {
        let (username, password) = (Some(kept.username), Some(kept.secret));
        DockerCredentials { username, password, serveraddress, ..DockerCredentials::default() }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(text: &str) -> Settings {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn whose_image_it_is() {
        for (image, name) in [
            ("redis", HUB),
            ("library/redis:7", HUB),
            ("docker.io/library/redis", HUB),
            ("registry.plant:5000/a/b:1", "registry.plant:5000"),
            ("localhost/a", "localhost"),
            ("ghcr.io/a/b@sha256:00", "ghcr.io"),
        ] {
            assert_eq!(registry(image), name, "{image}");
        }
    }

    #[test]
    fn credentials_as_they_are_written() {
        let read = settings(
            r#"{"auths": {
                "https://index.docker.io/v1/": {"auth": "bWU6c2VjcmV0OndpdGg6Y29sb25z"},
                "https://registry.plant/v2/": {"username": "a", "password": "b"},
                "tokens.plant": {"identitytoken": "t"}, "empty.plant": {}, "bad.plant": {"auth": "%%"}
            }, "HttpHeaders": {"X": "y"}}"#,
        );
        let found = |registry| written(&read, registry).unwrap();
        let pair = |registry| found(registry).map(|found| (found.username.unwrap(), found.password.unwrap()));
        assert_eq!(pair(HUB), Some(("me".into(), "secret:with:colons".into())));
        assert_eq!(pair("registry.plant"), Some(("a".into(), "b".into())));
        assert_eq!(found("tokens.plant").unwrap().identitytoken.as_deref(), Some("t"));
        assert_eq!((found("empty.plant"), found("other.plant")), (None, None));
        let error = written(&read, "bad.plant").unwrap_err();
        assert!(error.contains("bad.plant") && !error.contains("%%"), "{error}");
        let shown = format!("{read:?}");
        assert!(!shown.contains("bWU6") && shown.contains("***"), "secrets are not shown: {shown}");
    }

    #[test]
    fn the_nearest_helper_is_asked() {
        let read = settings(r#"{"credsStore": "store", "credHelpers": {"own.plant": "own"}}"#);
        assert_eq!((helper(&read, "own.plant"), helper(&read, HUB)), (Some("own"), Some("store")));
        assert_eq!(helper(&settings("{}"), HUB), None);
    }

    #[tokio::test]
    async fn a_helper_that_cannot_be_asked_says_why() {
        assert!(ask(None, "../x", HUB).await.unwrap_err().contains("no name of a credential helper"));
        assert!(
            ask(None, "is-not-there-at-all", HUB)
                .await
                .unwrap_err()
                .contains("cannot ask docker-credential-is-not-there")
        );
    }

    #[tokio::test]
    async fn what_a_helper_answers() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let helper = |name: &str, script: &str| {
            let path = folder.path().join(format!("docker-credential-{name}"));
            std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).unwrap();
        };
        helper(
            "good",
            r#"test "$1" = get && read at; echo "{\"ServerURL\": \"$at\", \"Username\": \"$at\", \"Secret\": \"s\"}""#,
        );
        helper("token", r#"echo '{"Username": "<token>", "Secret": "t"}'"#);
        helper("empty", "echo credentials not found in native keychain; exit 1");
        helper("broken", "echo secret-word; exit 2");
        helper("garbage", "echo secret-word");
        let ask = async |name: &str| ask(Some(folder.path()), name, "r.plant").await;
        let good = ask("good").await.unwrap().unwrap();
        assert_eq!((good.username.as_deref(), good.password.as_deref()), (Some("r.plant"), Some("s")));
        assert_eq!(ask("token").await.unwrap().unwrap().identitytoken.as_deref(), Some("t"));
        assert_eq!(ask("empty").await, Ok(None));
        for bad in ["broken", "garbage"] {
            let error = ask(bad).await.unwrap_err();
            assert!(error.contains(bad) && !error.contains("secret-word"), "{error}");
        }
    }
}
