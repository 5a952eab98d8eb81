//! `adamant finetune`: adversarial training of a pretrained model.

use adamant::finetune::{EpsilonPolicy, On, RunDirectory};
use adamant::package::{Package, Provenance};
use adamant::{Dataset, show_fraction};
use anyhow::{Result, bail};

use crate::Outcome;
use crate::args::{FinetuneArgs, RunArgs, SplitName};
use crate::data::{Images, open_for_training};
use crate::extra::{self, Labels};
use crate::measure::open_device;
use crate::model::Loaded;
use crate::output::{self, count};
use crate::progress::Console;
use crate::settings::{self, RunSettings, Settings};
use crate::training::{Run, Summary};

/// The recipe of a user who names none.
const DEFAULT_RECIPE: &str = "adamant";

pub fn run(args: &FinetuneArgs, console: &Console) -> Result<Outcome> {
    finish(start_or_resume(args, console)?, &args.run, console)
}

/// Trains to the end, or goes on to it, and prints no result.
pub fn train(args: &FinetuneArgs, console: &Console) -> Result<()> {
    if let Some(run) = start_or_resume(args, console)? {
        run.finish(console)?;
    }
    Ok(())
}

fn start_or_resume(args: &FinetuneArgs, console: &Console) -> Result<Option<Run>> {
    output::check(&args.run.json)?;
    match args.run.resume {
        true => resume(args, console),
        false => start(args, console).map(Some),
    }
}

/// Trains, unless there is nothing left to train, and prints what came of it.
pub fn finish(run: Option<Run>, args: &RunArgs, console: &Console) -> Result<Outcome> {
    let summary = match run {
        Some(run) => run.finish(console)?,
        None => Summary::read(&args.out)?,
    };
    output::result(&args.json, &summary, &summary.text())?;
    Ok(Outcome::Done)
}

fn start(args: &FinetuneArgs, console: &Console) -> Result<Run> {
    let recipe = args.recipe.as_deref().unwrap_or(DEFAULT_RECIPE);
    settings::check(recipe, &args.run)?;
    RunDirectory::free(&args.run.out)?;
    let loaded = Loaded::open(&args.model, &args.run.preprocessing, console)?;
    if let Some(notes) = &loaded.notes {
        console.detail(&format!("{}: {}", loaded.name, notes.batch_norm));
    }
    begin("finetune", loaded, recipe, &args.run, console)
}

/// Opens data, device and folder of a new run that trains `loaded` by the recipe of this name.
pub fn begin(command: &str, loaded: Loaded, recipe: &str, args: &RunArgs, console: &Console) -> Result<Run> {
    let split = args.split.unwrap_or(SplitName::Train);
    let validate = args.validate.unwrap_or_default();
    let Loaded { mut model, name, blake3, provenance, .. } = loaded;
    let mut images = open_for_training(&args.data, split.split(), args.limit, validate, &model, console)?;
    let on = On::of(&images.train.name, &model.network);
    if let Some(particulars) = settings::particulars(recipe, &on)? {
        console.note(&particulars);
    }
    let recipe = settings::recipe(recipe, &on, args)?;
    if let Some((_, why)) = settings::unread(&recipe, &args.settings) {
        bail!(why);
    }
    if recipe.attack.falls_short() && recipe.epsilon.policy != EpsilonPolicy::Mma {
        console.warn(&format!(
            "attack.steps = {} do not lead to the rim of the ball, attack.eps = {}: set attack.step, or more of them",
            recipe.attack.steps,
            show_fraction(f64::from(recipe.attack.eps.0))
        ));
    }
    let mut data = describe(&images.train, split.name());
    let device = open_device(&args.device, console)?;
    let directory = RunDirectory::free(&args.out)?;
    let mut pseudo_labels = None;
    if let Some(spec) = &args.extra {
        let source = if args.pseudo_labels { Labels::of_model(&model, &args.device) } else { Labels::Own };
        pseudo_labels = extra::add(&mut images, spec, source, &directory, &model, console)?;
        data += &format!(", and {spec}{}", if args.pseudo_labels { " with pseudo-labels" } else { "" });
    }
    let settings = Settings {
        run: RunSettings {
            command: command.to_owned(),
            model: name,
            model_blake3: blake3,
            data: args.data.clone(),
            on,
            split: split.name().to_owned(),
            limit: args.limit,
            validate: validate.to_string(),
            extra: args.extra.as_ref().map(ToString::to_string),
            pseudo_labels,
            seed: args.seed.unwrap_or(0),
            mean: model.preprocessing.mean.clone(),
            std: model.preprocessing.std.clone(),
            device: device.name(),
            adamant_version: env!("CARGO_PKG_VERSION").to_owned(),
        },
        recipe,
    };
    if model.labels.is_empty() {
        model.labels.clone_from(&images.train.class_names);
    }
    let provenance = Provenance { recipe: settings.recipe.to_toml(), data, ..provenance };
    announce(&settings, &images, console);
    Ok(Run { directory, settings, model, provenance, images, device, resumed: None })
}

/// Continues the run in `--out`; `None` when it is already finished.
fn resume(args: &FinetuneArgs, console: &Console) -> Result<Option<Run>> {
    let loaded = Loaded::read(&args.model)?;
    resume_from(args.recipe.as_deref(), &args.run, &loaded.name, &loaded.blake3, console)
}

/// As [`resume`], for a run of the model with this name and hash.
pub fn resume_from(
    recipe: Option<&str>,
    args: &RunArgs,
    model_name: &str,
    model_blake3: &str,
    console: &Console,
) -> Result<Option<Run>> {
    let directory = RunDirectory::open(&args.out)?;
    let Package { model, provenance, training, .. } = Package::read(directory.checkpoint())?;
    let Some(state) = training else {
        bail!("{}: a package without training state cannot be resumed", directory.checkpoint().display())
    };
    let settings = Settings::parse(&state.settings)?;
    settings.check_resumed(recipe, args, model_name, model_blake3)?;
    if state.epochs_done >= settings.recipe.epochs {
        console.line(&format!(
            "the run in {} is finished: {}",
            args.out.display(),
            count(state.epochs_done as usize, "epoch")
        ));
        return Ok(None);
    }
    let run = &settings.run;
    let split = if run.split == SplitName::Test.name() { SplitName::Test } else { SplitName::Train };
    let validate = run.validate.parse().map_err(anyhow::Error::msg)?;
    let mut images = open_for_training(&run.data, split.split(), run.limit, validate, &model, console)?;
    if let Some(spec) = &run.extra {
        let spec = spec.parse().map_err(anyhow::Error::msg)?;
        let source = run.pseudo_labels.as_deref().map_or(Labels::Own, Labels::Kept);
        extra::add(&mut images, &spec, source, &directory, &model, console)?;
    }
    let device = open_device(&args.device, console)?;
    announce(&settings, &images, console);
    Ok(Some(Run { directory, settings, model, provenance, images, device, resumed: Some(state) }))
}

fn announce(settings: &Settings, images: &Images, console: &Console) {
    let validation = match &images.validation {
        Some(data) => format!(", validated on {}", count(data.len(), "image")),
        None => String::new(),
    };
    let own = images.extra.map_or(images.train.len(), |share| share.first);
    let extra = match images.train.len() - own {
        0 => String::new(),
        more => format!(" and {}", count(more, "extra one")),
    };
    console.line(&format!(
        "{}: {}, {}{extra}{validation}",
        settings.recipe.name,
        count(settings.recipe.epochs as usize, "epoch"),
        count(own, "image"),
    ));
}

/// `cifar10 train, images 0 to 255`.
fn describe(data: &Dataset, split: &str) -> String {
    let (first, last) = (data.position(0), data.position(data.len() - 1));
    match last - first + 1 == data.len() {
        true => format!("{} {split}, images {first} to {last}", data.name),
        false => format!("{} {split}, {} of images {first} to {last}", data.name, data.len()),
    }
}
