//! A small network and a few images of noise: what tests of training runs train.

use adamant::finetune::Recipe;
use adamant::{Architecture, Dataset, Model, Purpose, Stream};

/// Channels, height, width.
pub const SHAPE: [usize; 3] = [3, 8, 8];
pub const CLASSES: usize = 3;
pub const BATCH: usize = 8;
/// Not a multiple of the batch.
pub const IMAGES: usize = 20;

/// A short run by a preset.
pub fn recipe(name: &str, epochs: u32, settings: &[&str]) -> Recipe {
    let epochs = format!("epochs={epochs}");
    let common = ["data.batch=8", "data.augment=crop-flip", &epochs, "attack.steps=2"];
    let settings: Vec<String> = common.iter().chain(settings).map(|s| (*s).to_owned()).collect();
    Recipe::load(name, &settings).expect("the recipe parses")
}

pub fn model() -> Model {
    Architecture::build("resnet8", SHAPE, CLASSES, 3).expect("the architecture builds")
}

/// Images of noise around a brightness that tells the class.
pub fn data() -> Dataset {
    let stream = Stream::new(5, Purpose::Probe, 0, 0);
    let labels: Vec<u32> = (0..IMAGES as u32).map(|i| i % CLASSES as u32).collect();
    let len = SHAPE.iter().product::<usize>() as u32;
    let pixels = labels
        .iter()
        .enumerate()
        .flat_map(|(i, label)| (0..len).map(move |k| (60 * label + stream.below(i as u32, k, 100)) as u8))
        .collect();
    let names = (0..CLASSES).map(|i| i.to_string()).collect();
    Dataset::from_pixels("noise", SHAPE, names, pixels, labels).expect("the images fit")
}
