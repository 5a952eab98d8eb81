//! What an application does with a model: hand it pictures, get classes.

use std::future::Future;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
#[cfg(not(target_arch = "wasm32"))]
use std::{panic, sync::mpsc, thread};

use crate::device::{Device, DeviceChoice};
use crate::error::{Error, Result};
use crate::model::Model;
use crate::package::{Package, Precision};
#[cfg(not(target_arch = "wasm32"))]
use crate::pending::{Pending, pending};
use crate::report::EvaluationReport;
use crate::session::{Images, Session};

/// A picture as models take it: channels x height x width, in [0, 1].
#[derive(Clone, PartialEq, Debug)]
pub struct Picture {
    shape: [usize; 3],
    pixels: Vec<f32>,
}

impl Picture {
    /// A picture of `shape` (channels, height, width), whose values are in [0, 1].
    ///
    /// # Errors
    /// [`Error::Config`] when there are more or fewer values, or one lies outside.
    pub fn new(shape: [usize; 3], pixels: Vec<f32>) -> Result<Self> {
        let len = shape.iter().try_fold(1_usize, |a, &d| a.checked_mul(d));
        if len != Some(pixels.len()) || pixels.is_empty() {
            return Err(Error::Config(format!("{} values for a picture of {shape:?}", pixels.len())));
        }
        if let Some(value) = pixels.iter().find(|v| !(0.0..=1.0).contains(*v)) {
            return Err(Error::Config(format!("a picture holds {value}; its values are in [0, 1]")));
        }
        Ok(Self { shape, pixels })
    }

    /// From rows of red, green, blue: three bytes a pixel.
    ///
    /// # Errors
    /// [`Error::Config`] when there are more or fewer bytes.
    pub fn from_rgb8(width: usize, height: usize, bytes: &[u8]) -> Result<Self> {
        Self::interleaved([3, height, width], 3, bytes)
    }

    /// From rows of red, green, blue and opacity: four bytes a pixel, of which the last is ignored.
    ///
    /// # Errors
    /// [`Error::Config`] when there are more or fewer bytes.
    pub fn from_rgba8(width: usize, height: usize, bytes: &[u8]) -> Result<Self> {
        Self::interleaved([3, height, width], 4, bytes)
    }

    /// From rows of grey: a byte a pixel.
    ///
    /// # Errors
    /// [`Error::Config`] when there are more or fewer bytes.
    pub fn from_gray8(width: usize, height: usize, bytes: &[u8]) -> Result<Self> {
        Self::interleaved([1, height, width], 1, bytes)
    }

    fn interleaved(shape: [usize; 3], stride: usize, bytes: &[u8]) -> Result<Self> {
        let [channels, height, width] = shape;
        let expected = width.checked_mul(height).and_then(|n| n.checked_mul(stride));
        if expected != Some(bytes.len()) {
            return Err(Error::Config(format!(
                "{} bytes for a picture of {width} x {height} pixels with {stride} bytes each",
                bytes.len()
            )));
        }
        let channel = |c: usize| bytes.iter().skip(c).step_by(stride);
        Self::new(shape, (0..channels).flat_map(channel).map(|&b| f32::from(b) / 255.0).collect())
    }

    /// Decodes a file and resizes it to `shape` (channels, height, width), as evaluation does.
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::Data`] naming the file.
    #[cfg(feature = "data")]
    pub fn open(path: impl AsRef<Path>, shape: [usize; 3]) -> Result<Self> {
        Self::new(shape, crate::data::load_image(path, shape)?)
    }

    /// Channels, height, width.
    pub const fn shape(&self) -> [usize; 3] {
        self.shape
    }

    pub fn pixels(&self) -> &[f32] {
        &self.pixels
    }
}

/// A class of a picture.
#[derive(Clone, PartialEq, Debug)]
pub struct Guess {
    pub class: usize,
    /// The name of the class, where the model has names.
    pub label: Option<String>,
    /// 0 to 1.
    pub probability: f32,
}

/// A packaged model on a device, ready for pictures. Threads may share it; they take turns.
///
/// ```no_run
/// use adamant::{Classifier, Picture};
///
/// # fn main() -> adamant::Result<()> {
/// # let bytes = [0; 32 * 32 * 3];
/// let classifier = Classifier::open("model.adamant")?;
/// let picture = Picture::from_rgb8(32, 32, &bytes)?;
/// let best = &classifier.classify(&picture, 1)?[0];
/// println!("{:?}, {:.0}%", best.label, 100.0 * best.probability);
/// # Ok(())
/// # }
/// ```
pub struct Classifier {
    session: Mutex<Session>,
    input: [usize; 3],
    labels: Vec<String>,
    batch: usize,
    report: Option<EvaluationReport>,
    /// Who does what is asked for by [`Classifier::classify_async`]: a thread, from the first time on.
    #[cfg(not(target_arch = "wasm32"))]
    worker: Mutex<Option<mpsc::Sender<Job>>>,
}

/// Work for the thread of a classifier.
#[cfg(not(target_arch = "wasm32"))]
type Job = Box<dyn FnOnce() + Send>;

impl Classifier {
    /// Opens a package on a hardware GPU, or on the CPU executor where there is none.
    ///
    /// # Errors
    /// What [`Package::read`] and [`Device::open`] say.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::new(Package::read(path)?, Device::open(&DeviceChoice::Auto)?, 1)
    }

    /// As [`Classifier::open`], from a package in memory: embedded in the application, or mapped.
    ///
    /// # Errors
    /// What [`Package::from_bytes`] and [`Device::open`] say.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        Self::new(Package::from_bytes(bytes, "package")?, Device::open(&DeviceChoice::Auto)?, 1)
    }

    /// Puts a package on a device, which then holds up to `batch` pictures at once. In a browser a GPU comes from
    /// [`Device::open_async`], and [`Classifier::classify_async`] asks it.
    ///
    /// # Errors
    /// [`Error::Limit`] when the device cannot hold them.
    pub fn new(package: Package, device: Device, batch: usize) -> Result<Self> {
        let Package { model, report, precision, .. } = package;
        Ok(Self { report, ..Self::of(model, device, batch, precision)? })
    }

    /// As [`Classifier::new`], for a model without claims.
    ///
    /// # Errors
    /// [`Error::Limit`] when the device cannot hold `batch` pictures.
    pub fn of_model(model: Model, device: Device, batch: usize) -> Result<Self> {
        Self::of(model, device, batch, Precision::F32)
    }

    fn of(model: Model, device: Device, batch: usize, precision: Precision) -> Result<Self> {
        let session = Session::inference(device, &model, batch, precision)?;
        let Model { network, labels, .. } = model;
        Ok(Self {
            session: Mutex::new(session),
            input: network.input,
            labels,
            batch,
            report: None,
            #[cfg(not(target_arch = "wasm32"))]
            worker: Mutex::new(None),
        })
    }

    /// Channels, height and width of the pictures that the model takes.
    pub const fn input(&self) -> [usize; 3] {
        self.input
    }

    /// What the package claims about itself.
    pub const fn report(&self) -> Option<&EvaluationReport> {
        self.report.as_ref()
    }

    /// Bytes of device memory that the model takes, with the buffers of a batch; those of its layers are among them
    /// once something has run. The weights of a package take as much as in its file, but for those of an f16 or int8
    /// package that has BatchNorms, which are folded into them in full precision.
    pub fn memory(&self) -> u64 {
        self.session().device().allocated_bytes()
    }

    fn session(&self) -> MutexGuard<'_, Session> {
        // Another thread's panic left no half-done work: each batch loads everything that it uses.
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Compiles and runs everything once, so that the first picture does not wait for it.
    ///
    /// # Errors
    /// [`Error::Device`] when the device fails.
    pub fn warm_up(&self) -> Result<()> {
        self.probabilities(&[&self.grey()]).map(|_| ())
    }

    /// As [`Classifier::warm_up`], without blocking: see [`Classifier::classify_async`].
    ///
    /// # Errors
    /// As [`Classifier::classify_async`].
    pub fn warm_up_async(self: &Arc<Self>) -> impl Future<Output = Result<()>> + Send + use<> {
        let guesses = self.classify_async(self.grey(), 0);
        async move { guesses.await.map(|_| ()) }
    }

    fn grey(&self) -> Picture {
        let [channels, height, width] = self.input;
        Picture { shape: self.input, pixels: vec![0.5; channels * height * width] }
    }

    /// The `top` most probable classes, best first; of equals the one with the lower index.
    ///
    /// # Errors
    /// [`Error::Config`] when the picture does not have the size that the model takes,
    /// [`Error::Device`] when the device fails.
    pub fn classify(&self, picture: &Picture, top: usize) -> Result<Vec<Guess>> {
        Ok(self.classify_all(&[picture], top)?.remove(0))
    }

    /// As [`Classifier::classify`], without blocking: a thread of the classifier, the same for all calls, computes,
    /// and any executor may wait. Dropping the future forgets the answer.
    ///
    /// A browser has no such thread. There the future is woken when the GPU has computed, while the browser goes on;
    /// the CPU executor computes when the future is first asked for.
    ///
    /// # Errors
    /// As [`Classifier::classify`], and [`Error::Limit`] when the system refuses another thread.
    pub fn classify_async(
        self: &Arc<Self>,
        picture: Picture,
        top: usize,
    ) -> impl Future<Output = Result<Vec<Guess>>> + Send + use<> {
        let classifier = Arc::clone(self);
        #[cfg(target_arch = "wasm32")]
        return async move { classifier.classify_in_turns(&picture, top).await };
        #[cfg(not(target_arch = "wasm32"))]
        async move {
            classifier.on_worker(move |classifier| classifier.classify(&picture, top))?.await
        }
    }

    /// Runs `work` on the thread of the classifier. Not on the pool that kernels run on: there it could wait for
    /// itself.
    #[cfg(not(target_arch = "wasm32"))]
    fn on_worker<T: Send + 'static>(
        self: Arc<Self>,
        work: impl FnOnce(&Self) -> Result<T> + Send + 'static,
    ) -> Result<Pending<T>> {
        let (answer, pending) = pending("the thread that classified panicked");
        let classifier = Arc::clone(&self);
        let job: Job = Box::new(move || answer.give(work(&classifier)));
        let mut worker = self.worker.lock().unwrap_or_else(PoisonError::into_inner);
        let sender = match &mut *worker {
            Some(sender) => sender,
            none => none.insert(start_worker()?),
        };
        // The thread waits for as long as there is a sender.
        sender.send(job).map_err(|_| Error::Device("the thread that classifies is gone".into()))?;
        Ok(pending)
    }

    /// As [`Classifier::classify`], holding nothing while the device computes.
    #[cfg(any(test, target_arch = "wasm32"))]
    async fn classify_in_turns(&self, picture: &Picture, top: usize) -> Result<Vec<Guess>> {
        self.check(&[picture])?;
        // What is given to a device is done in the order in which it is given: the next picture may be loaded before
        // these logits have come.
        let (logits, classes) = {
            let mut session = self.session();
            session.load(&picture.pixels, &[0], &[0])?;
            (session.start_logits(1, Images::Clean)?, session.classes())
        };
        let mut row = logits.await?;
        row.truncate(classes);
        softmax(&mut row);
        Ok(self.best_of(&row, top))
    }

    /// As [`Classifier::classify`], for any number of pictures.
    ///
    /// # Errors
    /// As [`Classifier::classify`].
    pub fn classify_all(&self, pictures: &[&Picture], top: usize) -> Result<Vec<Vec<Guess>>> {
        let rows = self.probabilities(pictures)?;
        Ok(rows.iter().map(|row| self.best_of(row, top)).collect())
    }

    fn best_of(&self, probabilities: &[f32], top: usize) -> Vec<Guess> {
        let mut order: Vec<usize> = (0..probabilities.len()).collect();
        order.sort_by(|&a, &b| probabilities[b].total_cmp(&probabilities[a]));
        order.truncate(top);
        let guess = |class| Guess {
            class,
            label: self.labels.get(class).cloned(),
            probability: probabilities[class],
        };
        order.into_iter().map(guess).collect()
    }

    fn check(&self, pictures: &[&Picture]) -> Result<()> {
        if let Some(wrong) = pictures.iter().find(|p| p.shape != self.input) {
            return Err(Error::Config(format!(
                "a picture of {:?} (channels, height, width); the model takes {:?}: resize it first",
                wrong.shape, self.input
            )));
        }
        Ok(())
    }

    /// The probability of each class, for each picture.
    fn probabilities(&self, pictures: &[&Picture]) -> Result<Vec<Vec<f32>>> {
        self.check(pictures)?;
        let mut session = self.session();
        let classes = session.classes();
        let mut rows = Vec::with_capacity(pictures.len());
        for part in pictures.chunks(self.batch) {
            let images: Vec<f32> = part.iter().flat_map(|p| &p.pixels).copied().collect();
            let found = probabilities(&mut session, &images, part.len())?;
            rows.extend(found.chunks_exact(classes).map(<[f32]>::to_vec));
        }
        Ok(rows)
    }
}

/// Class probabilities of each image of a batch: softmax of the logits, row-major.
pub fn probabilities(session: &mut Session, images: &[f32], count: usize) -> Result<Vec<f32>> {
    let zeros = vec![0; count];
    session.load(images, &zeros, &zeros)?;
    let mut values = session.logits(count, Images::Clean)?;
    values.chunks_exact_mut(session.classes()).for_each(softmax);
    Ok(values)
}

/// Logits of an image become probabilities.
fn softmax(row: &mut [f32]) {
    let largest = row.iter().fold(f32::NEG_INFINITY, |a, &b| if a >= b { a } else { b });
    row.iter_mut().for_each(|z| *z = (*z - largest).exp());
    let sum: f32 = row.iter().sum();
    row.iter_mut().for_each(|z| *z /= sum);
}

/// A thread that works for as long as somebody can send it something.
#[cfg(not(target_arch = "wasm32"))]
fn start_worker() -> Result<mpsc::Sender<Job>> {
    let (sender, jobs) = mpsc::channel::<Job>();
    let work = move || {
        for job in jobs {
            // Who waits hears of it; the next job has its own picture.
            drop(panic::catch_unwind(panic::AssertUnwindSafe(job)));
        }
    };
    let thread = thread::Builder::new().name("classify".into()).spawn(work);
    thread.map_err(|e| Error::Limit(format!("no thread to classify on: {e}")))?;
    Ok(sender)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::architectures::Architecture;
    use crate::package::Provenance;
    use crate::pending::tests::{at_once, wait};

    const fn shared_by_threads<T: Send + Sync>() {}
    const _: () = shared_by_threads::<Classifier>();

    fn package() -> Package {
        let mut model = Architecture::build("resnet8", [3, 6, 5], 4, 0).expect("it is known");
        model.labels = ["a", "b", "c", "d"].map(String::from).to_vec();
        Package::new(model, Provenance::default())
    }

    fn classifier(batch: usize) -> Classifier {
        Classifier::new(package(), Device::cpu(), batch).expect("it fits")
    }

    fn picture(seed: u8) -> Picture {
        let bytes: Vec<u8> = (0..6 * 5 * 3_u8).map(|i| i.wrapping_mul(37).wrapping_add(seed)).collect();
        Picture::from_rgb8(5, 6, &bytes).expect("it is whole")
    }

    #[test]
    fn pixels_are_planes_in_order() {
        let rgb = Picture::from_rgb8(2, 1, &[255, 0, 51, 0, 255, 102]).expect("it is whole");
        assert_eq!(rgb.shape(), [3, 1, 2]);
        assert_eq!(rgb.pixels(), [1.0, 0.0, 0.0, 1.0, 0.2, 0.4]);
        let rgba = Picture::from_rgba8(2, 1, &[255, 0, 51, 9, 0, 255, 102, 9]).expect("it is whole");
        assert_eq!(rgba, rgb);
        assert!(Picture::from_rgb8(2, 1, &[0; 5]).is_err());
        assert!(Picture::from_gray8(usize::MAX, 2, &[]).is_err());
        for wrong in [f32::NAN, -0.1, 1.1] {
            assert!(Picture::new([1, 1, 1], vec![wrong]).is_err());
        }
    }

    #[test]
    fn a_batch_gives_what_each_picture_gives() {
        let (one, three) = (classifier(1), classifier(3));
        three.warm_up().expect("it runs");
        let pictures: Vec<Picture> = (0..7).map(picture).collect();
        let all = three.classify_all(&pictures.iter().collect::<Vec<_>>(), 4).expect("it runs");
        for (picture, guesses) in pictures.iter().zip(&all) {
            assert_eq!(&one.classify(picture, 4).expect("it runs"), guesses);
            assert!((guesses.iter().map(|g| g.probability).sum::<f32>() - 1.0).abs() < 1e-5);
            assert!(guesses.is_sorted_by(|a, b| a.probability >= b.probability));
            assert_eq!(guesses[0].label.as_deref(), Some(["a", "b", "c", "d"][guesses[0].class]));
        }
        assert!(three.classify_all(&[], 1).expect("nothing to do").is_empty());
        assert_eq!(one.classify(&pictures[0], 2).expect("it runs").len(), 2);
    }

    #[test]
    fn futures_give_what_a_call_gives() {
        let classifier = Arc::new(classifier(2));
        let expected = classifier.classify(&picture(3), 4).expect("it runs");
        let futures: Vec<_> = (0..5).map(|_| classifier.classify_async(picture(3), 4)).collect();
        for future in futures {
            assert_eq!(wait(future).expect("it runs"), expected);
        }
        wait(classifier.warm_up_async()).expect("it runs");
        let small = Picture::from_gray8(1, 1, &[0]).expect("it is whole");
        let refused = wait(classifier.classify_async(small.clone(), 1));
        assert!(refused.expect_err("of another size").to_string().contains("resize"));
        // As in a browser: nothing to wait for on the CPU.
        let found = at_once(classifier.classify_in_turns(&picture(3), 4));
        assert_eq!(found.expect("it runs"), expected);
        let refused = at_once(classifier.classify_in_turns(&small, 1));
        assert!(refused.expect_err("of another size").to_string().contains("resize"));
    }

    #[test]
    fn one_thread_serves_all_futures_also_after_a_panic() {
        let classifier = Arc::new(classifier(1));
        let on = |work: fn(&Classifier) -> Result<thread::ThreadId>| {
            wait(Arc::clone(&classifier).on_worker(work).expect("there is a thread"))
        };
        let first = on(|_| Ok(thread::current().id())).expect("it ran");
        assert_ne!(first, thread::current().id());
        let fault = on(|c| {
            let _session = c.session();
            panic!("on purpose")
        });
        assert!(fault.expect_err("it panicked").to_string().contains("panicked"));
        assert_eq!(on(|_| Ok(thread::current().id())).expect("it ran"), first);
        assert_eq!(classifier.classify(&picture(1), 1).expect("it runs").len(), 1);
        // The thread lets go of the classifier that it works for.
        let weak = Arc::downgrade(&classifier);
        drop(classifier);
        for _ in 0..1000 {
            if weak.strong_count() == 0 {
                return;
            }
            thread::sleep(std::time::Duration::from_millis(5));
        }
        panic!("the classifier is never dropped");
    }

    #[test]
    fn a_package_in_memory_serves_as_well() {
        let bytes = package().to_bytes("x").expect("it is sound");
        let found = Classifier::from_bytes(&bytes).expect("it is sound");
        assert_eq!(found.input(), [3, 6, 5]);
        assert!(Classifier::from_bytes(&bytes[..100]).is_err());
        let message = found.classify(&Picture::from_gray8(1, 1, &[0]).expect("it is whole"), 1);
        assert!(message.expect_err("of another size").to_string().contains("resize"));
    }
}
