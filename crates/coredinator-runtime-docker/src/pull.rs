//! Fetching images, and how far that has come.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError, Weak},
};

use bollard::{errors::Error, models::CreateImageInfo, query_parameters::CreateImageOptionsBuilder};
use coredinator_core::{Reason, RuntimeError};
use futures_util::TryStreamExt;
use tokio::{
    sync::Mutex as Turn,
    time::{Duration, Instant},
};
use tracing::{info, warn};

use crate::{
    credentials,
    engine::{Engine, refused, said, status},
    options::{DockerOptions, Pull},
};

/// Progress is told in steps of so many percent, and not more often than this.
const STEP_PERCENT: u64 = 10;
const PAUSE: Duration = Duration::from_secs(1);

/// Who fetches which image: one image is fetched once at a time.
#[derive(Debug, Default)]
pub(crate) struct Turns(Mutex<HashMap<String, Weak<Turn<()>>>>);

impl Turns {
    fn of(&self, image: &str) -> Arc<Turn<()>> {
        let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        turns.retain(|_, turn| turn.strong_count() > 0);
        if let Some(turn) = turns.get(image).and_then(Weak::upgrade) {
            return turn;
        }
        let turn = Arc::new(Turn::new(()));
        turns.insert(image.to_owned(), Arc::downgrade(&turn));
        turn
    }
}

/// Whether an image has to be fetched before it can be used.
///
/// # Errors
/// [`RuntimeError::NotStarted`] `ImageNotFound`: the engine does not have it, and it is never to be fetched.
pub(crate) async fn is_needed(engine: &Engine, options: &DockerOptions) -> Result<bool, RuntimeError> {
    if options.pull == Pull::Always {
        return Ok(true);
    }
    match engine.client().await?.inspect_image(&options.image).await {
        Ok(_) => Ok(false),
        Err(error) if status(&error) == Some(404) && options.pull == Pull::Missing => Ok(true),
        Err(error) => Err(refused(&error)),
    }
}

/// Fetches an image, telling how far it has come.
///
/// # Errors
/// [`RuntimeError::NotStarted`] `ImagePullFailed` with the engine's words; [`RuntimeError::Unavailable`].
pub(crate) async fn run(
    engine: &Engine,
    turns: &Turns,
    options: &DockerOptions,
    mut tell: impl FnMut(Reason),
) -> Result<(), RuntimeError> {
    let image = &options.image;
    tell(Reason::new("Pulling", format!("pulling {image}")));
    let turn = turns.of(image);
    let _turn = turn.lock().await;
    if !is_needed(engine, options).await? {
        // Another instance of it was first.
        return Ok(());
    }
    info!(image, "pulling an image");
    let credentials = credentials::of(image, &engine.surroundings()).await.unwrap_or_else(|error| {
        warn!(image, error, "pulling without credentials");
        None
    });
    let wanted = CreateImageOptionsBuilder::new().from_image(&tagged(image)).build();
    let client = engine.client().await?;
    let mut steps = client.create_image(Some(wanted), None, credentials);
    let (mut progress, mut told, mut at) = (Progress::default(), 0, None::<Instant>);
    let pulled: Result<(), Error> = async {
        while let Some(step) = steps.try_next().await? {
            progress.hear(&step);
            let now = progress.step();
            if now != told && at.is_none_or(|at| at.elapsed() >= PAUSE) {
                (told, at) = (now, Some(Instant::now()));
                tell(Reason::new("Pulling", format!("pulling {image}: {}", progress.words())));
            }
        }
        Ok(())
    }
    .await;
    pulled.map_err(|error| match error {
        Error::DockerResponseServerError { .. } | Error::DockerStreamError { .. } => {
            RuntimeError::not_started("ImagePullFailed", format!("cannot pull {image}: {}", said(&error)))
        }
        other => refused(&other),
    })
}

/// Without a tag the engine would pull all that there are.
fn tagged(image: &str) -> String {
    let last = image.rsplit('/').next().unwrap_or(image);
    if last.contains([':', '@']) { image.to_owned() } else { format!("{image}:latest") }
}

/// How far the layers of an image have come.
#[derive(Debug, Default)]
struct Progress {
    layers: BTreeMap<String, Layer>,
}

#[derive(Debug, Default)]
struct Layer {
    fetched: u64,
    size: u64,
    is_done: bool,
}

impl Progress {
    fn hear(&mut self, step: &CreateImageInfo) {
        let (Some(id), Some(word)) = (&step.id, &step.status) else { return };
        // A tag's step comes before those of its layers.
        if word.starts_with("Pulling from") {
            return;
        }
        let layer = self.layers.entry(id.clone()).or_default();
        match word.as_str() {
            "Downloading" => {
                let detail = step.progress_detail.as_ref();
                let number = |number: Option<i64>| number.and_then(|number| u64::try_from(number).ok());
                if let Some(current) = detail.and_then(|detail| number(detail.current)) {
                    layer.fetched = current;
                }
                if let Some(total) = detail.and_then(|detail| number(detail.total)) {
                    layer.size = total;
                }
            }
            "Download complete" | "Extracting" => layer.fetched = layer.size,
            "Pull complete" | "Already exists" => (layer.fetched, layer.is_done) = (layer.size, true),
            _ => {}
        }
    }

    fn bytes(&self) -> (u64, u64) {
        self.layers.values().fold((0, 0), |(fetched, size), layer| {
            (fetched.saturating_add(layer.fetched.min(layer.size)), size.saturating_add(layer.size))
        })
    }

    fn percent(&self) -> u64 {
        let (fetched, size) = self.bytes();
        fetched.saturating_mul(100).checked_div(size).unwrap_or(0)
    }

    /// A number that changes when there is something to tell.
    fn step(&self) -> u64 {
        let done = self.layers.values().filter(|layer| layer.is_done).count() as u64;
        (self.percent() / STEP_PERCENT) + 1000 * done + 1_000_000 * self.layers.len() as u64
    }

    fn words(&self) -> String {
        let done = self.layers.values().filter(|layer| layer.is_done).count();
        let layers = format!("{done} of {} layers", self.layers.len());
        let (fetched, size) = self.bytes();
        if size == 0 {
            return layers;
        }
        let megabytes = |bytes: u64| bytes.div_ceil(1_000_000);
        format!("{} of {} MB ({} %), {layers}", megabytes(fetched), megabytes(size), self.percent())
    }
}

#[cfg(test)]
mod tests {
    use bollard::models::ProgressDetail;
    use proptest::prelude::*;

    use super::*;

    fn step(id: &str, word: &str, bytes: Option<(i64, i64)>) -> CreateImageInfo {
        let detail = bytes.map(|(current, total)| ProgressDetail { current: Some(current), total: Some(total) });
        CreateImageInfo {
            id: Some(id.to_owned()),
            status: Some(word.to_owned()),
            progress_detail: detail,
            ..CreateImageInfo::default()
        }
    }

    #[test]
    fn an_image_without_a_tag_is_the_latest() {
        for (image, full) in
            [("a", "a:latest"), ("r:5000/a", "r:5000/a:latest"), ("a:1", "a:1"), ("a@sha256:0", "a@sha256:0")]
        {
            assert_eq!(tagged(image), full);
        }
    }

    #[test]
    fn how_far_it_is() {
        let mut progress = Progress::default();
        progress.hear(&step("latest", "Pulling from library/a", None));
        assert_eq!(progress.words(), "0 of 0 layers");
        for (id, word, bytes, words) in [
            ("a", "Pulling fs layer", None, "0 of 1 layers"),
            ("b", "Already exists", None, "1 of 2 layers"),
            ("a", "Downloading", Some((1_000_000, 4_000_000)), "1 of 4 MB (25 %), 1 of 2 layers"),
            ("a", "Download complete", None, "4 of 4 MB (100 %), 1 of 2 layers"),
            ("a", "Extracting", Some((5, 10)), "4 of 4 MB (100 %), 1 of 2 layers"),
            ("a", "Pull complete", None, "4 of 4 MB (100 %), 2 of 2 layers"),
        ] {
            progress.hear(&step(id, word, bytes));
            assert_eq!(progress.words(), words, "{word}");
        }
    }

    #[test]
    fn one_image_has_one_turn() {
        let turns = Turns::default();
        let (first, other) = (turns.of("a"), turns.of("b"));
        assert!(Arc::ptr_eq(&first, &turns.of("a")) && !Arc::ptr_eq(&first, &other));
        drop((first, other));
        let _ = turns.of("c");
        assert_eq!(turns.0.lock().unwrap().len(), 1, "those of earlier images are forgotten");
    }

    proptest! {
        #[test]
        fn whatever_the_engine_says(steps in proptest::collection::vec(("[ab]", "\\PC*|Downloading|Pull complete", any::<Option<(i64, i64)>>()), 0..20)) {
            let mut progress = Progress::default();
            for (id, word, bytes) in steps {
                progress.hear(&step(&id, &word, bytes));
                prop_assert!(progress.percent() <= 100);
                let _ = (progress.words(), progress.step());
            }
        }
    }
}
