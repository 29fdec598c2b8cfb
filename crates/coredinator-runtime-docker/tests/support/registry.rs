//! A registry of one's own on loopback, which knows one user: `me`, whose password is `secret`.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use crate::support::{Engine, IMAGE, PATIENCE, packages};

/// `secret`, as bcrypt keeps it.
const HASH: &str = "$2a$04$m4h7sa9cBryR.4hFyPs4EOzX6Cjlt1LH3O0XUnC.lj2n66g5DK83C";
/// `me:secret` in base 64.
const LOGIN: &str = "bWU6c2VjcmV0";

/// A running registry; ends when dropped.
pub(crate) struct Registry {
    process: Child,
    pub(crate) address: String,
    folder: PathBuf,
}

impl Registry {
    /// Starts one in a folder, with an image `coredinator-test:1` in it that `engine` has made.
    ///
    /// # Errors
    /// Why that is not possible.
    pub(crate) async fn start(engine: &Engine) -> Result<Self, String> {
        packages::need(&[("docker-registry", "docker-registry")])?;
        let failed = |error: std::io::Error| error.to_string();
        let folder = engine.folder().join("registry");
        fs::create_dir_all(&folder).map_err(failed)?;
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).map_err(failed)?;
        let address = free.to_string();
        fs::write(folder.join("htpasswd"), format!("me:{HASH}\n")).map_err(failed)?;
        let at = folder.display();
        let config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {at}/data}}}}\n\
             http: {{addr: \"{address}\", secret: x}}\nauth: {{htpasswd: {{realm: plant, path: {at}/htpasswd}}}}\n"
        );
        fs::write(folder.join("config.yml"), config).map_err(failed)?;
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(folder.join("config.yml")).stdin(Stdio::null()).stdout(Stdio::null());
        let process = command.stderr(Stdio::null()).spawn().map_err(failed)?;
        let registry = Self { process, address, folder };
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while std::net::TcpStream::connect(&registry.address).is_err() {
            if tokio::time::Instant::now() > deadline {
                return Err("docker-registry does not answer".to_owned());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let image = registry.image();
        engine.asked(&["tag", IMAGE, &image]);
        let known = registry.settings("known", &format!("{{\"auth\": \"{LOGIN}\"}}"));
        let known = known.to_string_lossy();
        let pushed = engine.docker(&["--config", &known, "push", &image]);
        if !pushed.status.success() {
            return Err(format!("cannot push: {}", String::from_utf8_lossy(&pushed.stderr)));
        }
        engine.asked(&["rmi", &image]);
        Ok(registry)
    }

    /// The image's name in this registry.
    pub(crate) fn image(&self) -> String {
        format!("{}/{IMAGE}", self.address)
    }

    /// A folder with Docker's settings, in which these credentials stand for this registry.
    pub(crate) fn settings(&self, name: &str, credentials: &str) -> PathBuf {
        let folder = self.folder.join(name);
        write(&folder.join("config.json"), &format!("{{\"auths\": {{\"{}\": {credentials}}}}}", self.address));
        folder
    }
}

fn write(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().expect("a folder")).expect("a folder can be made");
    fs::write(path, text).expect("a file can be written");
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
