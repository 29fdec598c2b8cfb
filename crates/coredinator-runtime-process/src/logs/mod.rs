//! The output of instances.

use std::{
    fs::{self, File},
    io,
    path::PathBuf,
};

use coredinator_core::{OutputStream, ServiceName};

/// Where output is kept.
#[derive(Debug)]
pub(crate) struct Logs {
    dir: PathBuf,
}

impl Logs {
    pub(crate) fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// Opens a stream's file for an instance to append to.
    pub(crate) fn open(&self, service: &ServiceName, replica: u32, stream: OutputStream) -> io::Result<File> {
        let dir = self.dir.join(service.as_str());
        let stream = match stream {
            OutputStream::Stdout => "stdout",
            OutputStream::Stderr => "stderr",
        };
        let path = dir.join(format!("{replica}.{stream}.log"));
        let open = || File::options().create(true).append(true).open(&path);
        open().or_else(|error| {
            if error.kind() != io::ErrorKind::NotFound {
                return Err(error);
            }
            fs::create_dir_all(&dir)?;
            open()
        })
    }
}
