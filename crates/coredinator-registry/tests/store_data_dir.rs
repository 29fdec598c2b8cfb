//! One coredinator per data directory.

use std::{fs, os::unix::fs::PermissionsExt, time::Duration};

use coredinator_registry::{DataDir, DataDirError};

#[test]
fn a_new_directory_is_for_its_owner_alone_and_has_what_belongs_in_it() {
    let parent = tempfile::tempdir().unwrap();
    let dir = DataDir::open(parent.path().join("some/where")).unwrap();
    assert_eq!(fs::metadata(dir.path()).unwrap().permissions().mode() & 0o777, 0o700);
    assert!(dir.path().is_absolute());
    assert!(dir.logs().is_dir() && dir.run().is_dir());
    assert!(!dir.store().exists(), "the store is made by whoever opens it");
}

#[test]
fn a_second_one_is_told_at_once_who_has_it_and_touches_nothing() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("data");
    let first = DataDir::open(&path).unwrap();
    fs::remove_dir(first.logs()).unwrap();

    let error = DataDir::open(&path).unwrap_err();
    assert!(error.is_retryable());
    let message = error.to_string();
    assert!(message.contains(path.to_str().unwrap()), "{message}");
    assert!(message.contains(&format!("process {}", std::process::id())), "{message}");
    assert!(message.contains("data directory of its own"), "{message}");
    assert!(matches!(error, DataDirError::InUse { pid: Some(pid), .. } if pid == std::process::id()));
    assert!(!first.logs().exists(), "the second one made nothing");

    drop(first);
    DataDir::open(&path).expect("the lock ends with its holder");
}

#[test]
fn a_lock_that_outlives_its_holder_for_a_moment_is_waited_for() {
    let parent = tempfile::tempdir().unwrap();
    let mut ended = std::process::Command::new("true").spawn().unwrap();
    ended.wait().unwrap();
    // As a process holds it that was being started when the one who signed was killed.
    let path = parent.path().join("lock");
    fs::write(&path, format!("{}\n", ended.id())).unwrap();
    let held = fs::File::open(&path).unwrap();
    held.lock().unwrap();
    let (opening, opened) = std::sync::mpsc::channel();
    let dir = parent.path().to_owned();
    let waiting = std::thread::spawn(move || opening.send(DataDir::open(dir)));
    assert!(opened.recv_timeout(Duration::from_millis(50)).is_err(), "the lock is held");
    drop(held);
    opened.recv_timeout(Duration::from_secs(30)).unwrap().expect("the lock is free");
    waiting.join().unwrap().unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n", std::process::id()));
}

#[test]
fn a_file_in_its_place_is_an_error_that_names_it() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("data");
    fs::write(&path, "a file").unwrap();
    let error = DataDir::open(&path).unwrap_err();
    assert!(matches!(error, DataDirError::Inaccessible { .. }) && !error.is_retryable());
    assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "a file");
}
