use std::collections::HashMap;

use super::*;

fn surroundings(variables: &[(&str, &str)]) -> Surroundings {
    let variables: HashMap<&str, &str> = variables.iter().copied().collect();
    let mut read = Surroundings::read(|name| variables.get(name).map(|&value| value.to_owned()));
    // Whatever this machine has is not this test's.
    read.sockets.clear();
    read
}

fn tls(address: &str, folder: &str) -> Endpoint {
    Endpoint::Tls(address.to_owned(), Certificates::within(Path::new(folder)))
}

#[test]
fn an_address_says_the_way() {
    let at = |variables: &[(&str, &str)]| surroundings(variables).endpoint(None);
    let plain = |address: &str| Ok(Endpoint::Plain(address.to_owned()));
    assert_eq!(at(&[]), Ok(Endpoint::Socket(SOCKET.into())));
    assert_eq!(at(&[("DOCKER_HOST", "")]), Ok(Endpoint::Socket(SOCKET.into())));
    assert_eq!(at(&[("DOCKER_HOST", "unix:///x/y.sock")]), Ok(Endpoint::Socket("/x/y.sock".into())));
    assert_eq!(at(&[("DOCKER_HOST", "tcp://engine:2375")]), plain("engine:2375"));
    assert_eq!(at(&[("DOCKER_HOST", "tcp://engine")]), plain("engine:2375"));
    assert_eq!(at(&[("DOCKER_HOST", "engine:99")]), plain("engine:99"));
    assert_eq!(at(&[("DOCKER_HOST", "tcp://[::1]/")]), plain("[::1]:2375"));
    let verify = ("DOCKER_TLS_VERIFY", "1");
    assert_eq!(at(&[("DOCKER_HOST", "tcp://e"), verify, ("DOCKER_CERT_PATH", "/c")]), Ok(tls("e:2376", "/c")));
    assert_eq!(at(&[("DOCKER_HOST", "tcp://e:1"), verify, ("HOME", "/h")]), Ok(tls("e:1", "/h/.docker")));
    assert_eq!(at(&[("DOCKER_HOST", "https://e"), ("DOCKER_CONFIG", "/d")]), Ok(tls("e:2376", "/d")));
    assert!(at(&[("DOCKER_HOST", "tcp://e"), verify]).unwrap_err().contains("DOCKER_CERT_PATH"));
    for bad in ["ssh://e", "npipe:////./pipe/x", "ftp://x"] {
        assert!(at(&[("DOCKER_HOST", bad)]).unwrap_err().contains("only unix:// and tcp://"), "{bad}");
    }
    // What is given outright comes before the environment.
    assert_eq!(
        surroundings(&[("DOCKER_HOST", "tcp://e")]).endpoint(Some("unix:///a")),
        Ok(Endpoint::Socket("/a".into()))
    );
}

#[test]
fn what_is_on_another_machine() {
    for (host, remote) in [
        ("unix:///x", None),
        ("tcp://127.0.0.1:2375", None),
        ("tcp://localhost", None),
        ("tcp://[::1]:2375", None),
        ("tcp://10.0.0.7:2375", Some("10.0.0.7")),
        ("tcp://[fd00::7]:2375", Some("fd00::7")),
        ("tcp://engine.plant", Some("engine.plant")),
    ] {
        assert_eq!(surroundings(&[]).endpoint(Some(host)).unwrap().remote_host(), remote, "{host}");
    }
}

#[test]
fn the_first_socket_that_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let runtime = folder.path().join("run");
    let podman = runtime.join("podman/podman.sock");
    let mut here = surroundings(&[]);
    here.sockets = vec![folder.path().join("docker.sock"), podman.clone()];
    assert_eq!(
        here.endpoint(None),
        Ok(Endpoint::Socket(folder.path().join("docker.sock"))),
        "the usual one is waited for"
    );
    fs::create_dir_all(podman.parent().unwrap()).unwrap();
    fs::write(&podman, "").unwrap();
    assert_eq!(here.endpoint(None), Ok(Endpoint::Socket(podman.clone())));
    let runtime = runtime.to_str().unwrap();
    let read = Surroundings::read(|name| (name == "XDG_RUNTIME_DIR").then(|| runtime.to_owned()));
    assert_eq!(read.sockets, [PathBuf::from(SOCKET), podman, PODMAN.into()]);
}

#[test]
fn contexts_are_followed() {
    let folder = tempfile::tempdir().unwrap();
    let write = |path: &str, text: &str| {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    let config = folder.path().to_str().unwrap().to_owned();
    let at =
        |more: &[(&str, &str)]| surroundings(&[&[("DOCKER_CONFIG", config.as_str())], more].concat()).endpoint(None);
    let other = ("DOCKER_CONTEXT", "other");

    assert_eq!(at(&[]), Ok(Endpoint::Socket(SOCKET.into())), "no settings at all");
    assert_eq!(at(&[other]), Err("there is no Docker context \"other\"".to_owned()));
    write("config.json", r#"{"currentContext": "far", "auths": {}, "unknown": [1]}"#);
    write(
        "contexts/meta/aa/meta.json",
        r#"{"Name":"other","Endpoints":{"docker":{"Host":"tcp://o:1","SkipTLSVerify":false}}}"#,
    );
    write("contexts/meta/bb/meta.json", r#"{"Name":"far","Metadata":{},"Endpoints":{"docker":{"Host":"tcp://far"}}}"#);
    write("contexts/tls/bb/docker/key.pem", "");
    assert_eq!(at(&[]), Ok(tls("far:2376", &format!("{config}/contexts/tls/bb/docker"))), "the current one");
    assert_eq!(at(&[other]), Ok(Endpoint::Plain("o:1".to_owned())));
    assert_eq!(at(&[("DOCKER_CONTEXT", "default")]), Ok(Endpoint::Socket(SOCKET.into())));
    assert_eq!(
        at(&[("DOCKER_HOST", "unix:///x"), other]),
        Ok(Endpoint::Socket("/x".into())),
        "DOCKER_HOST comes first"
    );
    write(
        "contexts/meta/aa/meta.json",
        r#"{"Name":"other","Endpoints":{"docker":{"Host":"tcp://o","SkipTLSVerify":true}}}"#,
    );
    assert!(at(&[other]).unwrap_err().contains("does not verify"));
    write("contexts/meta/aa/meta.json", r#"{"Name":"other"}"#);
    assert!(at(&[other]).unwrap_err().contains("names no engine"));
    for garbage in ["", "3", "{\"Name\": 3, \"auths\": 4}", "\u{0}"] {
        write("contexts/meta/aa/meta.json", garbage);
        assert!(at(&[other]).unwrap_err().contains("cannot understand"), "{garbage:?}");
        write("config.json", garbage);
        assert!(at(&[]).unwrap_err().contains("cannot understand"), "{garbage:?}");
    }
}
