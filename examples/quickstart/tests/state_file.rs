//! State files: whole or absent, never half.

use quickstart::{
    plant::Plant,
    state_file::{self, Loaded},
};

#[test]
fn what_is_saved_is_loaded() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("below/coreio.json");
    assert_eq!(state_file::load(&path, Plant::is_plausible).expect("absent"), Loaded::Absent);
    let mut plant = Plant::new(9);
    for _ in 0..3 {
        plant.advance(77.0, 18.0);
        state_file::save(&path, &plant).expect("it is written");
        assert_eq!(state_file::load(&path, Plant::is_plausible).expect("it is read"), Loaded::State(plant.clone()));
    }
    let names: Vec<_> = std::fs::read_dir(path.parent().expect("a parent")).expect("listed").collect();
    assert_eq!(names.len(), 1, "nothing is left behind: {names:?}");
}

#[test]
fn damaged_state_is_put_aside_each_under_its_own_name() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("coreio.json");
    let mut impossible = Plant::new(1);
    impossible.tanks[1].level = -3.0;
    let truncated = serde_json::to_vec(&Plant::new(1)).expect("written");
    let cases: Vec<Vec<u8>> = vec![
        Vec::new(),
        b"\x00\xff garbage".to_vec(),
        b"[]".to_vec(),
        truncated[..truncated.len() / 2].to_vec(),
        serde_json::to_vec(&impossible).expect("written"),
    ];
    for (count, bytes) in cases.iter().enumerate() {
        std::fs::write(&path, bytes).expect("damaged");
        match state_file::load(&path, Plant::is_plausible).expect("it is put aside") {
            Loaded::Damaged { aside, reason } => {
                assert_eq!(&std::fs::read(&aside).expect("kept"), bytes);
                assert!(!reason.is_empty());
            }
            other => panic!("{other:?} from {bytes:?}"),
        }
        assert!(!path.exists());
        assert_eq!(std::fs::read_dir(dir.path()).expect("listed").count(), count + 1);
    }
}
