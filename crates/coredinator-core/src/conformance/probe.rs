//! Cases for implementors of [`HealthProbe`].
//!
//! ```ignore
//! #[tokio::test]
//! async fn conforms() {
//!     probe::run(|| async {
//!         let server = Server::start().await;
//!         let subject = Subject::new(MyProbe::new(), server.target("/ok"), server.target("/broken"));
//!         subject.hanging(server.target("/never")).residue(server.open_connections()).guard(server)
//!     })
//!     .await;
//! }
//! ```

use std::{any::Any, fmt, future::Future, sync::Arc, time::Duration};

use futures_util::future::join_all;

use crate::{HealthProbe, Outcome, ProbeReport, ProbeSpec, ProbeTarget};

/// How long anything that must come may take on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long a check runs before it is dropped.
const A_WHILE: Duration = Duration::from_millis(200);

/// A probe, and targets that behave in known ways. Each case gets a fresh one.
pub struct Subject {
    probe: Arc<dyn HealthProbe>,
    passing: ProbeTarget,
    failing: ProbeTarget,
    bad: Vec<(&'static str, ProbeTarget)>,
    warning: Option<ProbeTarget>,
    hanging: Option<ProbeTarget>,
    verbose: Option<ProbeTarget>,
    residue: Option<Box<dyn Fn() -> usize + Send + Sync>>,
    _guard: Option<Box<dyn Any + Send>>,
}

impl Subject {
    /// A probe with the two targets that there must be: one that passes and one that fails.
    pub fn new(probe: impl HealthProbe, passing: ProbeTarget, failing: ProbeTarget) -> Self {
        Self {
            probe: Arc::new(probe),
            passing,
            failing,
            bad: Vec::new(),
            warning: None,
            hanging: None,
            verbose: None,
            residue: None,
            _guard: None,
        }
    }

    /// With a target that warns.
    #[must_use]
    pub fn warning(self, target: ProbeTarget) -> Self {
        Self { warning: Some(target), ..self }
    }

    /// With a target whose check does not end.
    #[must_use]
    pub fn hanging(self, target: ProbeTarget) -> Self {
        Self { hanging: Some(target), ..self }
    }

    /// With a target at which nobody answers: nothing listens there.
    #[must_use]
    pub fn refused(self, target: ProbeTarget) -> Self {
        self.bad("refused", target)
    }

    /// With a target that answers nonsense.
    #[must_use]
    pub fn garbage(self, target: ProbeTarget) -> Self {
        self.bad("garbage", target)
    }

    /// With one more target that must fail, not err; `what` names it in a failure.
    #[must_use]
    pub fn bad(mut self, what: &'static str, target: ProbeTarget) -> Self {
        self.bad.push((what, target));
        self
    }

    /// With a target that has more to say than a message may hold, by mebibytes or without end. Any outcome will do.
    #[must_use]
    pub fn verbose(self, target: ProbeTarget) -> Self {
        Self { verbose: Some(target), ..self }
    }

    /// With a count of what checks have open now: processes, connections that are not pooled.
    #[must_use]
    pub fn residue(self, count: impl Fn() -> usize + Send + Sync + 'static) -> Self {
        Self { residue: Some(Box::new(count)), ..self }
    }

    /// With what is to be dropped after the case.
    #[must_use]
    pub fn guard(self, guard: impl Any + Send) -> Self {
        Self { _guard: Some(Box::new(guard)), ..self }
    }

    async fn check(&self, case: &str, target: &ProbeTarget) -> ProbeReport {
        let Ok(answer) = tokio::time::timeout(PATIENCE, self.probe.check(target)).await else {
            panic!("{case}: no answer within {PATIENCE:?} about {target:?}");
        };
        let report = answer.unwrap_or_else(|error| panic!("{case}: {error}, but {target:?} can be asked"));
        let length = report.message.len();
        assert!(length <= ProbeReport::MAX_MESSAGE, "{case}: the message about {target:?} has {length} bytes");
        report
    }

    /// Waits until nothing is open any more.
    async fn nothing_left(&self, case: &str) {
        let Some(residue) = &self.residue else { return };
        let gone = async {
            while residue() > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        if tokio::time::timeout(PATIENCE, gone).await.is_err() {
            panic!("{case}: {} things are left open", residue());
        }
    }
}

impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subject").field("kind", &self.probe.kind()).finish_non_exhaustive()
    }
}

/// Runs all cases that the subject has targets for. On a tokio runtime with its timer.
///
/// # Panics
/// When a case fails, with its name.
pub async fn run<F, R>(factory: F)
where
    F: Fn() -> R,
    R: Future<Output = Subject>,
{
    knows_its_kind(&factory().await);
    outcomes(&factory().await).await;
    bad_targets_fail(&factory().await).await;
    message_is_bounded(&factory().await).await;
    asks_concurrently(&factory().await).await;
    leaves_nothing_when_dropped(&factory().await).await;
    a_hung_check_delays_no_other(&factory().await).await;
}

/// Its specs are of its kind and valid; one of another kind is not.
fn knows_its_kind(subject: &Subject) {
    let case = "knows_its_kind";
    let probe = &subject.probe;
    assert_eq!(probe.kind(), subject.passing.spec.kind(), "{case}: the kind of the passing target");
    assert_eq!(probe.validate(&subject.passing.spec), [], "{case}: the passing target's spec is valid");
    let alien = ProbeSpec::Custom { kind: "nobody-has-this-kind".to_owned(), options: serde_json::Map::new() };
    assert!(!probe.validate(&alien).is_empty(), "{case}: a spec of another kind is refused");
}

/// A passing target passes, a warning one warns, a failing one fails; so again when asked again.
async fn outcomes(subject: &Subject) {
    let case = "outcomes";
    for round in 0..5 {
        assert_eq!(subject.check(case, &subject.passing).await.outcome, Outcome::Pass, "{case}: round {round}");
        assert_eq!(subject.check(case, &subject.failing).await.outcome, Outcome::Fail, "{case}: round {round}");
        if let Some(warning) = &subject.warning {
            assert_eq!(subject.check(case, warning).await.outcome, Outcome::Warn, "{case}: round {round}");
        }
    }
}

/// A target that refuses or answers nonsense fails; that is no error, and a passing one passes thereafter.
async fn bad_targets_fail(subject: &Subject) {
    let case = "bad_targets_fail";
    for (what, target) in &subject.bad {
        let report = subject.check(case, target).await;
        assert_eq!(report.outcome, Outcome::Fail, "{case}: {what}: {}", report.message);
        assert_eq!(subject.check(case, &subject.passing).await.outcome, Outcome::Pass, "{case}: after {what}");
    }
}

/// However much a target says, the message is bounded, and the check ends.
async fn message_is_bounded(subject: &Subject) {
    if let Some(verbose) = &subject.verbose {
        // The length of every message is looked at where it arrives.
        subject.check("message_is_bounded", verbose).await;
    }
}

/// Many checks at a time, of one target and of several, do not mix up their answers.
async fn asks_concurrently(subject: &Subject) {
    let case = "asks_concurrently";
    let checks = (0..32).map(|n| async move {
        let (target, expected) =
            if n % 2 == 0 { (&subject.passing, Outcome::Pass) } else { (&subject.failing, Outcome::Fail) };
        assert_eq!(subject.check(case, target).await.outcome, expected, "{case}");
    });
    join_all(checks).await;
}

/// A check that is dropped gives up whatever it had begun, at any time.
async fn leaves_nothing_when_dropped(subject: &Subject) {
    let case = "leaves_nothing_when_dropped";
    let Some(hanging) = &subject.hanging else { return };
    for round in 0..5_u32 {
        let check = tokio::time::timeout(A_WHILE * round / 4, subject.probe.check(hanging));
        if let Ok(answer) = check.await {
            panic!("{case}: the hanging target answered {answer:?}");
        }
        subject.nothing_left(case).await;
    }
    assert_eq!(subject.check(case, &subject.passing).await.outcome, Outcome::Pass, "{case}: afterwards");
}

/// While one target hangs, others are checked.
async fn a_hung_check_delays_no_other(subject: &Subject) {
    let case = "a_hung_check_delays_no_other";
    let Some(hanging) = &subject.hanging else { return };
    let hung = join_all((0..16).map(|_| subject.probe.check(hanging)));
    tokio::select! {
        answers = hung => panic!("{case}: the hanging target answered {answers:?}"),
        report = subject.check(case, &subject.passing) => assert_eq!(report.outcome, Outcome::Pass, "{case}"),
    }
    subject.nothing_left(case).await;
}
