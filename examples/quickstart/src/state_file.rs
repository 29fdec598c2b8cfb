//! State that outlives its process: one JSON file, replaced as a whole or not at all.

use std::{
    fs, io,
    io::Write as _,
    path::{Path, PathBuf},
};

use serde::{Serialize, de::DeserializeOwned};

/// The directory for state unless one is given: `plant` in coredinator's data directory.
#[must_use]
pub fn default_dir() -> PathBuf {
    let data = std::env::var_os("COREDINATOR_DATA_DIR").filter(|dir| !dir.is_empty());
    data.map_or_else(|| PathBuf::from(".coredinator"), PathBuf::from).join("plant")
}

/// What a state file held.
#[derive(Debug, PartialEq)]
pub enum Loaded<T> {
    /// This.
    State(T),
    /// There is none yet.
    Absent,
    /// Nothing of use; it has been put aside.
    Damaged {
        /// Where it is now.
        aside: PathBuf,
        /// What was wrong with it.
        reason: String,
    },
}

/// Writes `state`: after a crash at any instant the file holds the old state or the new one.
///
/// # Errors
/// As the file system says; the old state is then still there.
pub fn save<T: Serialize>(path: &Path, state: &T) -> io::Result<()> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
    }
    let temporary = path.with_extension("json.new");
    let mut file = fs::File::create(&temporary)?;
    file.write_all(&serde_json::to_vec(state)?)?;
    file.sync_all()?;
    fs::rename(&temporary, path)
}

/// Reads what [`save`] wrote. What cannot be read, or what `plausible` refuses, is kept beside it for people to look at.
///
/// # Errors
/// The file is there but cannot be read or put aside.
pub fn load<T: DeserializeOwned>(path: &Path, plausible: impl Fn(&T) -> bool) -> io::Result<Loaded<T>> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Loaded::Absent),
        Err(error) => return Err(error),
    };
    let reason = match serde_json::from_slice::<T>(&bytes) {
        Ok(state) if plausible(&state) => return Ok(Loaded::State(state)),
        Ok(_) => "it holds what is physically impossible".to_owned(),
        Err(error) => error.to_string(),
    };
    let aside = (1_u32..)
        .map(|number| path.with_extension(format!("json.damaged-{number}")))
        .find(|candidate| !candidate.exists())
        .unwrap_or_else(|| path.with_extension("json.damaged"));
    fs::rename(path, &aside)?;
    Ok(Loaded::Damaged { aside, reason })
}
