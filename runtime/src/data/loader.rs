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
    /// Where extra images begin, which every batch has a share of.
    pub extra: Option<Extra>,
}

/// Images that are not counted by epochs: of each batch a fixed number, however many there are (RST, Carmon et
/// al., 2019). An epoch is one walk through the others; the walk through these goes on from epoch to epoch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Extra {
    /// The position of the first of them; all that follow are extra, too.
    pub first: usize,
    /// How many of them a full batch has, below [`LoaderOptions::batch`].
    pub each: usize,
}

impl Extra {
    /// A share of every batch, 0 to 1 without both, rounded to whole images.
    pub fn new(first: usize, fraction: f64, batch: usize) -> Result<Self> {
        let each = (fraction * batch as f64).round();
        if !(fraction > 0.0 && fraction < 1.0) || each < 1.0 || each >= batch as f64 {
            return Err(Error::Config(format!(
                "extra images as {fraction} of a batch of {batch}: it takes at least one image of each kind"
            )));
        }
        Ok(Self { first, each: each as usize })
    }
}

impl Default for LoaderOptions {
    /// Batches of 128 in file order, every image as it is.
    fn default() -> Self {
        Self { batch: 128, shuffle: None, epoch: 0, augment: None, seed: 0, drop_last: false, extra: None }
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

    /// The images at these positions, cropped and flipped as in `epoch` of a run with this seed.
    pub(crate) fn augmented(
        dataset: &Dataset,
        positions: &[u32],
        augment: Option<Augment>,
        seed: u64,
        epoch: u32,
    ) -> Self {
        assemble(dataset, &LoaderOptions { augment, seed, epoch, ..LoaderOptions::default() }, positions)
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
        let (len, own) = options.own(dataset);
        let count = if options.drop_last { len / own } else { len.div_ceil(own) };
        let (sender, receiver) = sync_channel(READY_BATCHES);
        let dataset = dataset.clone();
        let prepare = move || {
            for positions in batches(&dataset, &options).into_iter().take(count) {
                // Nobody receives any more once the loader is dropped.
                if sender.send(assemble(&dataset, &options, &positions)).is_err() {
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

impl LoaderOptions {
    /// The images that an epoch walks through, and how many of them a full batch has.
    fn own(&self, dataset: &Dataset) -> (usize, usize) {
        match self.extra {
            Some(extra) => (extra.first.min(dataset.len()), self.batch - extra.each),
            None => (dataset.len(), self.batch),
        }
    }

    /// 0 to `len` without it in the order of that epoch.
    fn order(&self, len: usize, epoch: u32, minor: u32) -> Vec<u32> {
        // Every data set has less than 2^32 images.
        let len = len as u32;
        match self.shuffle {
            Some(seed) => Stream::new(seed, Purpose::Shuffle, epoch, minor).permutation(len),
            None => (0..len).collect(),
        }
    }
}

/// The positions within `dataset` of each batch of the epoch.
fn batches(dataset: &Dataset, options: &LoaderOptions) -> Vec<Vec<u32>> {
    let (len, own) = options.own(dataset);
    let order = options.order(len, options.epoch, 0);
    let mut batches: Vec<Vec<u32>> = order.chunks(own).map(<[u32]>::to_vec).collect();
    let Some(Extra { first, each }) = options.extra else { return batches };
    let others = dataset.len().saturating_sub(first);
    // So many of them have been seen in the epochs before; one walk through them has an order of its own.
    let shares = |count: usize| (count * each).div_ceil(own);
    let an_epoch: usize = batches.iter().map(|batch| shares(batch.len())).sum();
    let mut seen = options.epoch as usize * an_epoch;
    let mut walk = None;
    for batch in batches.iter_mut().filter(|_| others > 0) {
        for _ in 0..shares(batch.len()) {
            let round = seen / others;
            let order = match &mut walk {
                Some((at, order)) if *at == round => order,
                _ => &mut walk.insert((round, options.order(others, round as u32, 1))).1,
            };
            batch.push(first as u32 + order[seen % others]);
            seen += 1;
        }
    }
    batches
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

    #[test]
    fn every_batch_has_its_share_of_extra_images() {
        // 60 own images, 43 extra; 3 of 10 a batch: nine batches, the last of 4 own and 2 extra.
        let options = |epoch| LoaderOptions {
            batch: 10,
            shuffle: Some(7),
            epoch,
            extra: Some(Extra { first: 60, each: 3 }),
            ..LoaderOptions::default()
        };
        let (mut counts, mut orders) = (vec![0; LEN], Vec::new());
        for epoch in 0..5 {
            let batches = load(&data(), options(epoch));
            let shares: Vec<_> =
                batches.iter().map(|b| (b.len(), b.indices.iter().filter(|&&i| i >= 60).count())).collect();
            assert_eq!(shares, [[(10, 3); 8].as_slice(), &[(6, 2)]].concat(), "epoch {epoch}");
            let mut own: Vec<u32> =
                batches.iter().flat_map(|b| &b.indices).copied().filter(|&i| i < 60).collect();
            orders.push(own.clone());
            own.sort_unstable();
            assert_eq!(own, (0..60).collect::<Vec<_>>());
            batches.iter().flat_map(|b| &b.indices).for_each(|&i| counts[i as usize] += 1);
        }
        assert_ne!(orders[0], orders[1]);
        // 5 epochs of 26 extra images: three walks through 43, and one more of the fourth.
        assert!(counts[..60].iter().all(|&n| n == 5));
        assert!(counts[60..].iter().all(|&n| n == 3 || n == 4), "{counts:?}");
        assert_eq!(counts[60..].iter().sum::<i32>(), 5 * 26);
        assert_eq!(Loader::new(&data(), options(0)).unwrap().len(), 9);
    }

    #[test]
    fn a_share_of_a_batch_is_whole_images() {
        assert_eq!(Extra::new(60, 0.5, 128).unwrap(), Extra { first: 60, each: 64 });
        assert_eq!(Extra::new(60, 0.7, 10).unwrap().each, 7);
        for (fraction, batch) in
            [(0.0, 10), (1.0, 10), (-0.5, 10), (f64::NAN, 10), (0.5, 1), (0.01, 10), (0.99, 10)]
        {
            assert!(Extra::new(60, fraction, batch).is_err(), "{fraction} of {batch}");
        }
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
