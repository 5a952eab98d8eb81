//! An adversarial digit that survives being written to an image file.

use adamant::op::Norm;
use adamant::{
    AttackSpec, Dataset, Device, DeviceChoice, Loader, LoaderOptions, Model, Objective, Purpose, Session,
    probabilities,
};
use anyhow::{Context, Result};

/// The first digit that an attack on `before` makes that model get wrong, even rounded to 256
/// levels; one that `after` gets right, if there is any.
pub fn adversarial(
    device: &DeviceChoice,
    before: &Model,
    after: &Model,
    digits: &Dataset,
    eps: &str,
) -> Result<(u32, Vec<u8>)> {
    let options = LoaderOptions { batch: 64, ..LoaderOptions::default() };
    let batch = Loader::new(&digits.limit(64), options)?.next().context("there are digits")?;
    let count = batch.len();
    let mut session = Session::new(Device::open(device)?, before, count)?;
    session.load(&batch.images, &batch.labels, &batch.indices)?;
    let attack = AttackSpec::parse(&format!("pgd:eps={eps}"), Some(Norm::Linf), None)?.build();
    attack.perturb(&mut Objective::new(&mut session, count, 0, Purpose::AttackStart, 0))?;

    let rounded = levels(&session.read_adversarial(count)?);
    let images: Vec<f32> = rounded.iter().map(|&level| f32::from(level) / 255.0).collect();
    let fooled = classes(&mut session, &images, count)?;
    let held = classes(&mut Session::new(Device::open(device)?, after, count)?, &images, count)?;
    let wrong = |n: &usize| fooled[*n] != batch.labels[*n];
    let found = (0..count).find(|n| wrong(n) && held[*n] == batch.labels[*n]);
    let index = found.or_else(|| (0..count).find(wrong)).context("the attack fooled nobody")?;
    let pixels = images.len() / count;
    Ok((batch.labels[index], rounded[index * pixels..][..pixels].to_vec()))
}

pub fn levels(pixels: &[f32]) -> Vec<u8> {
    pixels.iter().map(|x| (x * 255.0).round() as u8).collect()
}

/// The most probable class of each image.
fn classes(session: &mut Session, images: &[f32], count: usize) -> Result<Vec<u32>> {
    let found = probabilities(session, images, count)?;
    let best = |row: &[f32]| (0..row.len()).max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap_or(0) as u32;
    Ok(found.chunks_exact(session.classes()).map(best).collect())
}
