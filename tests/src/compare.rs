//! Comparing what was found with what was expected.

/// How far apart two numbers may be: `|found - expected| <= absolute + relative * |expected|`, the
/// rule of NumPy's `allclose`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Tolerance {
    /// The same number: copies, selections, integers. Zero and negative zero are the same.
    Exact,
    /// A handful of roundings: elementwise arithmetic.
    Close,
    /// Sums of up to thousands of terms, added in another order.
    Approximate,
    /// Long sums, and logarithms, exponentials and cosines of another implementation.
    Loose,
    /// Finite differences of single-precision functions.
    Rough,
}

impl Tolerance {
    /// From the strictest to the most lenient.
    pub const ALL: [Self; 5] = [Self::Exact, Self::Close, Self::Approximate, Self::Loose, Self::Rough];

    pub const fn absolute(self) -> f64 {
        match self {
            Self::Exact => 0.0,
            Self::Close => 1e-6,
            Self::Approximate => 1e-5,
            Self::Loose => 3e-4,
            Self::Rough => 1e-2,
        }
    }

    pub const fn relative(self) -> f64 {
        // Values of the tests are around 1, so that one number serves as both.
        self.absolute()
    }
}

/// Checks every number; the error is a diagnosis. Numbers that are not finite never agree, not
/// even with themselves, and no numbers at all are an error: nothing was tested.
pub fn compare(found: &[f32], expected: &[f32], tolerance: Tolerance) -> Result<(), String> {
    if found.len() != expected.len() {
        return Err(format!("found {} values, expected {}", found.len(), expected.len()));
    }
    if found.is_empty() {
        return Err("there is nothing to compare".into());
    }
    let mut first = None;
    let mut outliers = 0;
    let mut largest = (0.0, 0);
    for (index, (&f, &e)) in found.iter().zip(expected).enumerate() {
        let error = (f64::from(f) - f64::from(e)).abs();
        let allowed = tolerance.absolute() + tolerance.relative() * f64::from(e).abs();
        // A NaN compares as false, so the question is what agrees, never what differs.
        let agrees = f.is_finite() && e.is_finite() && error <= allowed;
        if !agrees {
            outliers += 1;
            first.get_or_insert(index);
        }
        if error > largest.0 {
            largest = (error, index);
        }
    }
    let Some(first) = first else { return Ok(()) };
    let (error, at) = largest;
    Err(format!(
        "{outliers} of {} values are not {tolerance:?}; the first, at {first}, is {:?} and should be {:?}; \
         the largest finite error is {error:.3e}, at {at}",
        found.len(),
        found[first],
        expected[first],
    ))
}

/// Panics with a diagnosis that starts with `name`.
#[track_caller]
pub fn assert_close(name: &str, found: &[f32], expected: &[f32], tolerance: Tolerance) {
    if let Err(message) = compare(found, expected, tolerance) {
        panic!("{name}: {message}");
    }
}

/// The failures of a table of cases, so that all of them are reported, not only the first.
#[derive(Default)]
pub struct Failures {
    checks: usize,
    messages: Vec<String>,
}

impl Failures {
    pub fn new() -> Self {
        Self::default()
    }

    /// Counts a check, and keeps its error.
    pub fn check(&mut self, name: &str, result: Result<(), String>) {
        self.checks += 1;
        if let Err(message) = result {
            self.messages.push(format!("{name}: {message}"));
        }
    }

    /// Panics when a check failed, or when there was none.
    #[track_caller]
    pub fn report(self) {
        assert!(self.checks > 0, "nothing was checked");
        assert!(
            self.messages.is_empty(),
            "{} of {} checks failed:\n{}",
            self.messages.len(),
            self.checks,
            self.messages.join("\n")
        );
    }
}
