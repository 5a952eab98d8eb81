//! Batches, prepared on another thread while the device works on the ones before.

use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::{self, JoinHandle};

use super::{Augment, Dataset};
use crate::error::{Error, Result};
use crate::random::{Purpose, Stream};

/// Batches that wait, ready: enough to never let the device wait for a copy.
const READY_BATCHES: usize = 2;

/// How to walk through a data set once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LoaderOptions {
    /// Images in a batch, at least 1.
    pub batch: usize,
    /// The seed of the order, which differs from epoch to epoch; `None` is file order.
    pub shuffle: Option<u64>,
    pub epoch: u32,
    pub augment: Option<Augment>,
    /// The seed of the augmentation.
    pub seed: u64,
    /// Leave out the last batch when it is not full.
    pub drop_last: bool,
}

impl Default for LoaderOptions {
    /// Batches of 128 in file order, every image as it is.
    fn default() -> Self {
        Self { batch: 128, shuffle: None, epoch: 0, augment: None, seed: 0, drop_last: false }
    }
}

/// Some images with their labels.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Batch {
    /// Planar (NCHW), each value in [0, 1].
    pub images: Vec<f32>,
    pub labels: Vec<u32>,
    /// The position of each image in the whole data set, also when they come from a
    /// [`subset`](Dataset::subset): what random numbers and per-image memory are keyed by.
    pub indices: Vec<u32>,
}

impl Batch {
    /// Number of images.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }
}

impl Batch {
    /// The images at `positions` of `dataset`, in that order, as they are.
    ///
    /// # Panics
    /// When there is no image at a position.
    pub fn gather(dataset: &Dataset, positions: &[u32]) -> Self {
        assemble(dataset, &LoaderOptions::default(), positions)
    }
}

/// One epoch: an iterator of batches that depends on nothing but the data and the options.
pub struct Loader {
    /// `None` once dropping has begun.
    batches: Option<Receiver<Batch>>,
    worker: Option<JoinHandle<()>>,
    remaining: usize,
}

impl Loader {
    /// Starts preparing batches.
    ///
    /// # Errors
    /// [`Error::Config`] when the batch is 0 or the crop padding larger than an image;
    /// [`Error::Limit`] when the system refuses another thread.
    pub fn new(dataset: &Dataset, options: LoaderOptions) -> Result<Self> {
        if options.batch == 0 {
            return Err(Error::Config("a batch must have at least 1 image".into()));
        }
        if let Some(augment) = &options.augment {
            augment.check(dataset.shape)?;
        }
        let count = if options.drop_last {
            dataset.len() / options.batch
        } else {
            dataset.len().div_ceil(options.batch)
        };
        let (sender, receiver) = sync_channel(READY_BATCHES);
        let dataset = dataset.clone();
        let prepare = move || {
            let order = order(&dataset, &options);
            for positions in order.chunks(options.batch).take(count) {
                // Nobody receives any more once the loader is dropped.
                if sender.send(assemble(&dataset, &options, positions)).is_err() {
                    return;
                }
            }
        };
        let worker = thread::Builder::new().name("loader".into()).spawn(prepare);
        let worker = worker.map_err(|e| Error::Limit(format!("no thread to load images: {e}")))?;
        Ok(Self { batches: Some(receiver), worker: Some(worker), remaining: count })
    }
}

impl Iterator for Loader {
    type Item = Batch;

    /// # Panics
    /// When the thread that prepares batches did: an epoch never ends early in silence.
    fn next(&mut self) -> Option<Batch> {
        if self.remaining == 0 {
            return None;
        }
        let Ok(batch) = self.batches.as_ref()?.recv() else {
            self.remaining = 0;
            if let Some(Err(panic)) = self.worker.take().map(JoinHandle::join) {
                std::panic::resume_unwind(panic);
            }
            return None;
        };
        self.remaining -= 1;
        Some(batch)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.remaining, Some(self.remaining))
    }
}

/// `len()` is the number of batches to come.
impl ExactSizeIterator for Loader {}

impl Drop for Loader {
    fn drop(&mut self) {
        // Closing the channel first wakes a thread that waits for room in it.
        drop(self.batches.take());
        if let Some(worker) = self.worker.take() {
            // A panic of a thread whose batches nobody wants any more changes nothing.
            let _ = worker.join();
        }
    }
}

/// Positions within `dataset` in the order of the epoch.
fn order(dataset: &Dataset, options: &LoaderOptions) -> Vec<u32> {
    // Every data set has less than 2^32 images.
    let len = dataset.len() as u32;
    match options.shuffle {
        Some(seed) => Stream::new(seed, Purpose::Shuffle, options.epoch, 0).permutation(len),
        None => (0..len).collect(),
    }
}

fn assemble(dataset: &Dataset, options: &LoaderOptions, positions: &[u32]) -> Batch {
    let stream = Stream::new(options.seed, Purpose::Augment, options.epoch, 0);
    let offset = dataset.offset() as u32;
    let len = dataset.shape.iter().product::<usize>();
    let mut batch = Batch {
        images: vec![0.0; positions.len() * len],
        labels: positions.iter().map(|&at| dataset.labels()[at as usize]).collect(),
        indices: positions.iter().map(|&at| offset + at).collect(),
    };
    let mut original = vec![0.0; len];
    for ((out, &at), &index) in batch.images.chunks_exact_mut(len).zip(positions).zip(&batch.indices) {
        match &options.augment {
            Some(augment) => {
                dataset.image(at as usize, &mut original);
                augment.place(&stream, index).apply(dataset.shape, &original, out);
            }
            None => dataset.image(at as usize, out),
        }
    }
    batch
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    const LEN: usize = 103;
    const SHAPE: [usize; 3] = [2, 3, 3];

    fn data() -> Dataset {
        let pixels = (0..LEN * 18).map(|i| (i % 251) as u8).collect();
        let labels = (0..LEN as u32).map(|i| i % 5).collect();
        let names = (0..5).map(|i| i.to_string()).collect();
        Dataset::from_pixels("test", SHAPE, names, pixels, labels).unwrap()
    }

    fn load(data: &Dataset, options: LoaderOptions) -> Vec<Batch> {
        Loader::new(data, options).unwrap().collect()
    }

    fn indices(batches: &[Batch]) -> Vec<u32> {
        batches.iter().flat_map(|batch| batch.indices.clone()).collect()
    }

    /// Each image by its index.
    fn images(batches: &[Batch]) -> BTreeMap<u32, Vec<f32>> {
        let each = |b: &Batch| {
            let images = b.images.chunks(18).map(<[f32]>::to_vec);
            b.indices.iter().copied().zip(images).collect::<Vec<_>>()
        };
        batches.iter().flat_map(each).collect()
    }

    #[test]
    fn file_order_covers_every_image_once() {
        let data = data();
        let batches = load(&data, LoaderOptions { batch: 10, ..Default::default() });
        assert_eq!(indices(&batches), (0..LEN as u32).collect::<Vec<_>>());
        let sizes: Vec<_> = batches.iter().map(Batch::len).collect();
        assert_eq!((sizes.len(), sizes[0], sizes[10]), (11, 10, 3));
        let mut image = [0.0; 18];
        data.image(102, &mut image);
        assert_eq!(batches[10].images[36..], image);
        assert_eq!(batches[10].labels, data.labels()[100..]);
    }

    #[test]
    fn the_last_batch_can_be_dropped() {
        let options = LoaderOptions { batch: 10, drop_last: true, ..Default::default() };
        let mut loader = Loader::new(&data(), options).unwrap();
        assert_eq!(loader.len(), 10);
        loader.next();
        assert_eq!(loader.len(), 9);
        assert_eq!(loader.map(|batch| batch.len()).sum::<usize>(), 90);
        let options = LoaderOptions { batch: usize::MAX, ..options };
        assert_eq!(load(&data(), options), []);
    }

    #[test]
    fn the_order_is_of_the_seed_and_epoch_alone() {
        let data = data();
        let order = |batch, shuffle, epoch| {
            indices(&load(&data, LoaderOptions { batch, shuffle, epoch, ..Default::default() }))
        };
        let first = order(7, Some(1), 0);
        assert_eq!(first, order(50, Some(1), 0));
        assert_ne!(first, order(7, Some(2), 0));
        assert_ne!(first, order(7, Some(1), 1));
        let mut sorted = first;
        sorted.sort_unstable();
        assert_eq!(sorted, order(7, None, 0));
    }

    #[test]
    fn augmentation_ignores_order_batches_and_subsets() {
        let data = data();
        let augment = Some(Augment { crop_padding: 1, flip: true });
        let plain = LoaderOptions { batch: 8, augment, seed: 5, ..Default::default() };
        let expected = images(&load(&data, plain));
        let shuffled = LoaderOptions { batch: 33, shuffle: Some(9), ..plain };
        assert_eq!(images(&load(&data, shuffled)), expected);

        let part = images(&load(&data.subset(40..60), shuffled));
        assert_eq!(part.len(), 20);
        assert!(part.iter().all(|(index, image)| expected[index] == *image));
        assert_ne!(images(&load(&data, LoaderOptions { epoch: 1, ..plain })), expected);
    }

    /// A loader dropped with its channel full must not wait for ever.
    #[test]
    fn dropping_early_ends_the_thread() {
        let (done, finished) = mpsc::channel();
        thread::spawn(move || {
            for taken in 0..4 {
                let options = LoaderOptions { batch: 1, ..Default::default() };
                let mut loader = Loader::new(&data(), options).unwrap();
                assert_eq!(loader.by_ref().take(taken).count(), taken);
                thread::sleep(Duration::from_millis(5));
            }
            done.send(()).unwrap();
        });
        finished.recv_timeout(Duration::from_secs(60)).expect("the loader's thread still runs");
    }

    #[test]
    fn an_empty_data_set_has_no_batches() {
        assert_eq!(load(&data().limit(0), LoaderOptions::default()), []);
    }

    #[test]
    fn options_are_checked() {
        let fault = |options| Loader::new(&data(), options).err().unwrap().to_string();
        assert!(fault(LoaderOptions { batch: 0, ..Default::default() }).contains("at least 1"));
        let augment = Some(Augment { crop_padding: 4, flip: false });
        assert!(fault(LoaderOptions { augment, ..Default::default() }).contains("crop padding 4"));
    }
}
