//! `adamant analyse`: what fine-tuning did to a model, as the papers show it. `adamant report` draws it.

mod projection;

use std::path::Path;

use adamant::op::Norm;
use adamant::package::write_atomically;
use adamant::{Attack, AttackSpec, Batch, Dataset, Images, Model, Objective, Purpose, Session};
use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::args::AnalyseArgs;
use crate::data::{open, open_for_training};
use crate::measure::open_device;
use crate::model::Loaded;
use crate::output::{self, count};
use crate::picture::png;
use crate::progress::Console;
use crate::report::Run;
use crate::settings::Settings;
use crate::{Outcome, args::SplitName};
use projection::View;

/// The folder in a run that holds the analysis.
pub const FOLDER: &str = "analysis";
const FILE: &str = "analysis.json";
/// How many images of the smallest radius are shown, and of the largest.
const EXTREMES: usize = 8;
/// Steps of the attacks.
const STEPS: u32 = 20;

/// What `analysis.json` says. Pictures lie beside it, each under a name that its place here gives it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Analysis {
    pub schema: u32,
    pub data: String,
    pub split: String,
    pub norm: String,
    /// Radius of the attacks, in pixels of [0, 1].
    pub eps: f64,
    pub class_names: Vec<String>,
    /// Absent where the model's last layer is not linear, or the features are all the same.
    pub embedding: Option<Embedding>,
    /// Training images of the smallest radius, and of the largest; empty where images have none of their own.
    /// Pictures: `smallest-0.png` and so on.
    pub smallest: Vec<Extreme>,
    pub largest: Vec<Extreme>,
    pub noise: Noise,
}

/// The features that the last layer sees, in two dimensions.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Embedding {
    /// The class of each image.
    pub labels: Vec<u32>,
    pub clean: Vec<[f64; 2]>,
    /// Of what PGD makes of the same images.
    pub adversarial: Vec<[f64; 2]>,
}

/// A training image with its radius.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Extreme {
    /// Its position in the data set.
    pub index: usize,
    pub label: u32,
    pub eps: f32,
}

/// One image, and what two attacks add to it. Pictures: `image.png`, `dra-noise.png`, `dra.png`, `pgd-noise.png`,
/// `pgd.png`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Noise {
    pub index: usize,
    pub label: u32,
    /// How much what they add is magnified.
    pub magnified: f64,
    /// The part of the image's values that DRA changes, and PGD, 0 to 1.
    pub changed: [f64; 2],
}

impl Analysis {
    /// The analysis in a run's folder, where there is one.
    pub fn read(run: &Path) -> Result<Option<Self>> {
        let path = run.join(FOLDER).join(FILE);
        if !path.is_file() {
            return Ok(None);
        }
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let found: Self = serde_json::from_str(&text).with_context(|| path.display().to_string())?;
        if found
            .embedding
            .as_ref()
            .is_some_and(|e| [e.clean.len(), e.adversarial.len()] != [e.labels.len(); 2])
        {
            bail!("{}: there are not as many labels as points", path.display());
        }
        Ok(Some(found))
    }
}

pub fn run(args: &AnalyseArgs, console: &Console) -> Result<Outcome> {
    let Run { settings, radii, .. } = Run::read(&args.run)?;
    let loaded = Loaded::read(&args.run)?;
    let attack = attack(&settings)?;
    let model = &loaded.model;
    let spec = args.data.as_deref().unwrap_or(&settings.run.data);
    let images = open(spec, args.split.split(), Some(args.images), model, console)?;
    let device = open_device(&args.device, console)?;
    let batch = crate::args::BatchSize::Auto.within(args.device.memory_limit, model, &device)?;
    let mut session = Session::new(device, model, batch.min(images.len()).max(1))?;
    let folder = args.run.join(FOLDER);
    std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;

    let embedding = embedding(&mut session, &images, &attack)?;
    let [smallest, largest] = match radii.is_empty() {
        true => [Vec::new(), Vec::new()],
        false => extremes(&settings, spec, &radii, model, &folder, console)?,
    };
    let noise = noise(&mut session, &images, &attack, &folder)?;
    let found = Analysis {
        schema: 1,
        data: images.name.clone(),
        split: args.split.name().to_owned(),
        norm: attack.ball.norm.to_string(),
        eps: f64::from(attack.ball.eps),
        class_names: images.class_names.clone(),
        embedding,
        smallest,
        largest,
        noise,
    };
    write_atomically(folder.join(FILE), serde_json::to_string(&found)?.as_bytes())?;
    let text = format!(
        "{}: {} of {}; `adamant report {}` draws it",
        folder.display(),
        count(images.len(), "image"),
        found.data,
        args.run.display()
    );
    output::result(&args.json, &found, &(output::wrap(&text, 2) + "\n"))?;
    Ok(Outcome::Done)
}

/// PGD in the ball that the run trained in.
fn attack(settings: &Settings) -> Result<AttackSpec> {
    let Some(own) = settings.recipe.attack.measure() else {
        bail!("the run trained on clean images alone: there is no radius to analyse it at")
    };
    Ok(AttackSpec::parse(&format!("pgd:steps={STEPS}"), Some(own.ball.norm), Some(own.ball.eps))?)
}

/// What `attack` makes of a batch; random numbers are keyed by data set index, as everywhere.
fn attacked(session: &mut Session, batch: &Batch, attack: &dyn Attack) -> Result<Vec<f32>> {
    session.load(&batch.images, &batch.labels, &batch.indices)?;
    attack.perturb(&mut Objective::new(session, batch.len(), 0, Purpose::AttackStart, 0))?;
    Ok(session.read_adversarial(batch.len())?)
}

fn embedding(session: &mut Session, data: &Dataset, attack: &AttackSpec) -> Result<Option<Embedding>> {
    if session.network().head().is_none() {
        return Ok(None);
    }
    let attack = attack.build();
    let (mut clean, mut adversarial) = (Vec::new(), Vec::new());
    let positions: Vec<u32> = (0..data.len() as u32).collect();
    for part in positions.chunks(session.capacity()) {
        let batch = Batch::gather(data, part);
        attacked(session, &batch, &*attack)?;
        clean.extend(session.features(batch.len(), Images::Clean)?);
        adversarial.extend(session.features(batch.len(), Images::Adversarial)?);
    }
    let labels = data.labels().to_vec();
    let Some(view) = View::new(&clean, &labels) else { return Ok(None) };
    let places = (view.place(&clean, labels.len()), view.place(&adversarial, labels.len()));
    let (Some(clean), Some(adversarial)) = places else { return Ok(None) };
    Ok(Some(Embedding { labels, clean, adversarial }))
}

/// The training images of the smallest radius and of the largest, with their pictures.
fn extremes(
    settings: &Settings,
    spec: &str,
    radii: &[f32],
    model: &Model,
    folder: &Path,
    console: &Console,
) -> Result<[Vec<Extreme>; 2]> {
    let run = &settings.run;
    let split = if run.split == SplitName::Test.name() { SplitName::Test } else { SplitName::Train };
    let validate = run.validate.parse().map_err(anyhow::Error::msg)?;
    let train = open_for_training(spec, split.split(), run.limit, validate, model, console)?.train;
    if radii.len() < train.len() || (radii.len() > train.len() && run.extra.is_none()) {
        bail!(
            "{spec} has {} to train on, and the run has the radii of {}: give the data of the run with --data",
            count(train.len(), "image"),
            radii.len()
        );
    }
    let mut order: Vec<usize> = (0..train.len()).collect();
    order.sort_by(|&a, &b| radii[a].total_cmp(&radii[b]).then(a.cmp(&b)));
    let most = EXTREMES.min(train.len() / 2);
    let save = |name: &str, chosen: &mut dyn Iterator<Item = usize>| -> Result<Vec<Extreme>> {
        let mut found = Vec::new();
        for at in chosen.take(most) {
            let image = Batch::gather(&train, &[at as u32]).images;
            let file = folder.join(format!("{name}-{}.png", found.len()));
            write_atomically(&file, &png(&image, train.shape)?)?;
            found.push(Extreme { index: train.position(at), label: train.labels()[at], eps: radii[at] });
        }
        Ok(found)
    };
    Ok([save("smallest", &mut order.iter().copied())?, save("largest", &mut order.iter().rev().copied())?])
}

/// What DRA and PGD add to the first image that the model classifies correctly, or the first.
fn noise(session: &mut Session, data: &Dataset, attack: &AttackSpec, folder: &Path) -> Result<Noise> {
    let positions: Vec<u32> = (0..data.len().min(session.capacity()) as u32).collect();
    let batch = Batch::gather(data, &positions);
    session.load(&batch.images, &batch.labels, &batch.indices)?;
    let logits = session.logits(batch.len(), Images::Clean)?;
    let classes = session.classes();
    let right = |(row, &label): (&[f32], &u32)| row.iter().all(|&z| z <= row[label as usize]);
    let at = logits.chunks_exact(classes).zip(&batch.labels).position(right).unwrap_or(0);
    let one = Batch::gather(data, &[at as u32]);
    // DRA is of linf: its eps bounds the mean change where PGD's bounds each, and is chosen so that it does as much.
    let each = match attack.ball.norm {
        Norm::Linf => attack.ball.eps,
        Norm::L2 => attack.ball.eps / (one.images.len() as f32).sqrt(),
    };
    let eps = each / adamant::DRA_RADIUS;
    let dra = AttackSpec::parse(&format!("dra:steps={STEPS}"), Some(Norm::Linf), Some(eps))?;
    let found = [attacked(session, &one, &*dra.build())?, attacked(session, &one, &*attack.build())?];
    let noises: Vec<Vec<f32>> =
        found.iter().map(|f| f.iter().zip(&one.images).map(|(a, b)| a - b).collect()).collect();
    let largest = noises.iter().flatten().fold(0.0f32, |m, v| m.max(v.abs()));
    let factor = if largest > 0.0 { 0.5 / largest } else { 1.0 };
    write_atomically(folder.join("image.png"), &png(&one.images, data.shape)?)?;
    for ((name, found), noise) in ["dra", "pgd"].into_iter().zip(&found).zip(&noises) {
        let shown: Vec<f32> = noise.iter().map(|v| 0.5 + v * factor).collect();
        write_atomically(folder.join(format!("{name}.png")), &png(found, data.shape)?)?;
        write_atomically(folder.join(format!("{name}-noise.png")), &png(&shown, data.shape)?)?;
    }
    let changed = |noise: &[f32]| noise.iter().filter(|v| **v != 0.0).count() as f64 / noise.len() as f64;
    Ok(Noise {
        index: data.position(at),
        label: one.labels[0],
        magnified: f64::from(factor),
        changed: [changed(&noises[0]), changed(&noises[1])],
    })
}
