//! `adamant compare`: several methods from the same start, on the same images, with the same seeds.

mod measured;
mod table;

use adamant::Error;
use adamant::finetune::{EpochMetrics, On, RunDirectory};
use anyhow::Result;

pub use self::measured::Measured;
use self::measured::Measurer;
use self::table::Row;
pub use self::table::{COLUMNS, Comparison, Trained, cells};
use crate::args::{CompareArgs, FinetuneArgs, RunArgs, SplitName};
use crate::model::Loaded;
use crate::output;
use crate::progress::Console;
use crate::settings;
use crate::{Outcome, data, finetune};

pub fn run(args: &CompareArgs, console: &Console) -> Result<Outcome> {
    // What was typed wrong should not cost hours.
    output::check(&args.run.json)?;
    for name in &args.recipes {
        settings::check(name, &args.run)?;
    }
    let start = Loaded::open(&args.model, &args.run.preprocessing, console)?;
    let images =
        data::open(&args.run.data, SplitName::Test.split(), Some(args.images), &start.model, console)?;
    let on = On::of(&images.name, &start.model.network);
    let mut radius = None;
    let mut recipes = Vec::with_capacity(args.recipes.len());
    for name in &args.recipes {
        let recipe = settings::recipe(name, &on, &args.run)?;
        radius = radius.or(Some(recipe.attack.radius()).filter(|&eps| eps > 0.0));
        // What is set for all of them need not be of use to each.
        let mut run = args.run.clone();
        while let Some((place, why)) = settings::unread(&recipe, &run.settings) {
            console.note(&why);
            run.settings.remove(place);
        }
        recipes.push((name, run));
    }
    let eps = args.measure_eps.or(radius).unwrap_or(8.0 / 255.0);
    let (mut measurer, before) = Measurer::new(args, eps, &start, &images, console)?;
    let mut rows = vec![Row::before(before)];
    let seeds = args.run.seed.unwrap_or(0)..;
    for (name, run) in &recipes {
        let trainings = seeds
            .clone()
            .take(args.seeds)
            .map(|seed| train(args, name, run.clone(), seed, &mut measurer, console));
        rows.push(Row::of(name, trainings.collect::<Result<_>>()?));
    }
    let found = Comparison {
        schema: 1,
        model: start.name,
        data: args.run.data.clone(),
        images: images.len() as u64,
        eps,
        rows,
        command: console.command().to_vec(),
    };
    output::result(&args.run.json, &found, &found.text())?;
    Ok(Outcome::Done)
}

/// Trains by the recipe of this name, or goes on with what is in its folder, and measures what comes of it.
fn train(
    args: &CompareArgs,
    name: &str,
    mut run: RunArgs,
    seed: u64,
    measurer: &mut Measurer,
    console: &Console,
) -> Result<Trained> {
    let mut folder = name.replace(['/', '.'], "-");
    let mut title = name.to_owned();
    if seed != args.run.seed.unwrap_or(0) {
        folder += &format!("-seed-{seed}");
    }
    if args.seeds > 1 {
        title += &format!(", seed {seed}");
    }
    run.out = args.run.out.join(folder);
    run.seed = Some(seed);
    run.json.json = None;
    run.resume = RunDirectory::open(&run.out).is_ok_and(|d| d.checkpoint().exists());
    console.line(&format!("\n{title}"));
    let finetune = FinetuneArgs { model: args.model.clone(), recipe: Some(name.to_owned()), run };
    let trained = finetune::train(&finetune, console);
    if let Some(why) = divergence(&trained) {
        console.warn(&format!("{title}: {why}"));
        return Ok(Trained { seed, diverged: Some(why), ..Trained::default() });
    }
    trained?;
    let metrics = RunDirectory::open(&finetune.run.out)?.read_metrics()?;
    let epochs = metrics.lines().map(serde_json::from_str).collect::<Result<Vec<EpochMetrics>, _>>()?;
    let measured = measurer.measure(&title, &Loaded::read(&finetune.run.out)?)?;
    Ok(Trained {
        seed,
        measured: Some(measured),
        diverged: None,
        seconds: epochs.iter().map(|e| e.seconds).sum(),
        epochs: epochs.len(),
    })
}

/// What a run says whose loss left the range of f32: a result like others, where methods are compared.
fn divergence(trained: &Result<()>) -> Option<String> {
    match trained.as_ref().err()?.downcast_ref()? {
        Error::NonFinite(why) => Some(why.clone()),
        _ => None,
    }
}
