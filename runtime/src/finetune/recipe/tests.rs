use super::*;

#[test]
fn presets_run_as_they_print() {
    for preset in PRESETS {
        let recipe = Recipe::load(preset.name, &[]).unwrap();
        assert_eq!(recipe.name, preset.name);
        assert_eq!(Recipe::parse(&recipe.to_toml(), "printed", &[]).unwrap(), recipe);
    }
}

#[test]
fn fine_tuning_starts_slowly_and_decays_fast() {
    let aft = Recipe::load("aft", &[]).unwrap();
    let rates: Vec<f64> =
        (0..=100).map(|t| aft.schedule.rate(f64::from(t) / 10.0, f64::from(aft.epochs))).collect();
    assert_eq!(rates[0], aft.schedule.peak / 25.0);
    assert_eq!(rates[30], aft.schedule.peak);
    assert!(rates[..=30].is_sorted() && rates[30..].windows(2).all(|w| w[0] > w[1]));
    assert!((rates[100] * 128.0 / rates[30] - 1.0).abs() < 1e-12);
    // The authors' rates of fast and free are highest in the middle.
    for name in ["fast", "free"] {
        let recipe = Recipe::load(name, &[]).unwrap();
        assert_eq!(2.0 * recipe.schedule.warmup_epochs, f64::from(recipe.epochs), "{name}");
    }
}

#[test]
fn what_goes_with_another_choice_is_left_out() {
    let load = |name: &str, settings: &[&str]| {
        let settings: Vec<String> = settings.iter().map(|s| (*s).to_owned()).collect();
        Recipe::load(name, &settings).unwrap_or_else(|e| panic!("{name} {settings:?}: {e}"))
    };
    for (name, choice) in [
        ("arrest", "guide.kind=none"),
        ("arrest", "replay.kind=none"),
        ("arrest", "replay.kind=clean"),
        ("arrest", "schedule.kind=cosine"),
        ("adamant", "guide.kind=none"),
        ("adamant", "epsilon.policy=fixed"),
        ("iaat", "epsilon.policy=fixed"),
        ("daat", "epsilon.policy=iaat"),
        ("dra", "epsilon.policy=fixed"),
        ("fat", "attack.kind=pgd"),
        ("fat", "attack.kind=free"),
        ("madry", "attack.kind=dra"),
        ("trades", "loss.kind=adversarial"),
    ] {
        load(name, &[choice]);
    }
    // In whatever order, and only where the choice is another one.
    let fat = load("fat", &["attack.noise=0.5", "attack.kind=friendly"]);
    assert_eq!((fat.attack.noise, fat.attack.tau.is_some()), (Some(0.5), true));
    let daat = load("daat", &["epsilon.policy=daat-linear"]);
    assert_eq!(daat.epsilon.rho, load("daat", &[]).epsilon.rho);
    let mart = load("trades", &["loss.beta=3", "loss.kind=mart"]);
    assert_eq!(mart.loss.beta, Some(3.0));
    assert_eq!(load("trades", &["loss.kind=mart"]).loss.beta, None);
}

#[test]
fn settings_that_change_nothing_are_known() {
    for (name, setting) in [
        ("fast", "attack.steps=2"),
        ("adamant-edge", "attack.steps=2"),
        ("fast", "attack.start=normal"),
        ("atta", "attack.start=random"),
        ("mma", "attack.step=1/255"),
        ("standard", "attack.eps=1/255"),
        ("madry", "schedule.warmup_epochs=1"),
        ("madry", "schedule.start=1e-4"),
        ("aft", "schedule.milestones=[1.0]"),
        ("adamant", "schedule.decay=0.5"),
        ("arrest", "schedule.decay=0.5"),
        ("madry", "optimizer.beta1=0.8"),
        ("aft", "optimizer.momentum=0.8"),
    ] {
        let key = setting.split('=').next().unwrap();
        let recipe = Recipe::load(name, &[setting.to_owned()]).unwrap();
        assert!(recipe.why_unread(key).is_some(), "{name} {setting}");
    }
    let two = ["attack.kind=pgd", "attack.steps=2"].map(String::from);
    let two = Recipe::load("adamant-edge", &two).unwrap();
    assert_eq!((two.why_unread("attack.steps"), two.why_unread("attack.kind")), (None, None));
}

#[test]
fn phases_that_are_off_stay_off() {
    let settings = ["epsilon.warmup_epochs=0".to_owned()];
    let iaat = Recipe::load("iaat", &settings).unwrap();
    assert_eq!(iaat.stretched(40).epsilon.warmup_epochs, Some(0));
    assert_eq!(Recipe::load("iaat", &[]).unwrap().stretched(2).epsilon.warmup_epochs, Some(1));
}

#[test]
fn a_search_for_radii_runs_on_all_data() {
    for on in On::DATA {
        for rule in ["paper", "code", "line-search"] {
            Recipe::load_on("iaat", &[on], &[format!("epsilon.rule={rule}")]).unwrap();
        }
    }
}

#[test]
fn arrest_has_the_rates_of_its_paper() {
    let schedule = Recipe::load("arrest", &[]).unwrap().schedule;
    let rates: Vec<f64> = (0..20).map(|e| schedule.rate(f64::from(e), 20.0)).collect();
    let expected = [(10, 0.025), (2, 0.02), (2, 0.01), (2, 0.005), (2, 0.0025), (2, 0.00125)];
    let expected: Vec<f64> = expected.iter().flat_map(|&(n, rate)| vec![rate; n]).collect();
    assert_eq!(rates, expected);
}

#[test]
fn settings_override() {
    let settings =
        ["attack.eps=2/255", "attack.steps=7", "epochs=3", "schedule.peak=1e-3", "optimizer.kind=sgd"];
    let recipe = Recipe::load("aft", &settings.map(String::from)).unwrap();
    let attack = recipe.attack.spec().unwrap();
    assert_eq!(attack.ball.eps, (2.0f64 / 255.0) as f32);
    assert_eq!(attack.step, attack.ball.eps / 4.0);
    assert_eq!((attack.steps, recipe.epochs, recipe.schedule.peak), (7, 3, 1e-3));
}

#[test]
fn attacks_raise_a_guide_only_where_they_raise_the_cross_entropy() {
    let refusal = |name: &str, settings: &[&str]| {
        let settings: Vec<String> = settings.iter().map(|s| (*s).to_owned()).collect();
        Recipe::load(name, &settings).err().map_or_else(String::new, |e| e.to_string())
    };
    assert_eq!(refusal("adamant", &["attack.guide=0.5"]), "");
    assert!(refusal("adamant", &["attack.guide=-0.5"]).contains("not negative"));
    assert!(refusal("adamant", &["attack.guide=nan"]).contains("finite"));
    for settings in [["attack.objective=kl"], ["attack.kind=pgd-random-target"], ["attack.kind=none"]] {
        let settings = [&settings[..], &["attack.guide=1"]].concat();
        assert!(refusal("adamant", &settings).contains("attack.guide is raised beside"), "{settings:?}");
    }
    let each = refusal("iaat", &["guide.kind=features", "attack.guide=1"]);
    assert!(each.contains("attack.guide and a radius for each image"), "{each}");
}

#[test]
fn mistakes_are_named() {
    let message = |s: &str| Recipe::load("aft", &[s.to_owned()]).unwrap_err().to_string();
    assert!(
        message("attack.stepz=3").contains("did you mean 'attack.step'")
            || message("attack.stepz=3").contains("'attack.steps'")
    );
    assert!(message("attack=3").contains("'attack' is a table: set a key in it, such as attack.kind"));
    assert!(message("attack.eps=8").contains("8/255"));
    assert!(message("attack.guide=1").contains("set guide.kind"));
    assert!(message("attack.kind=none").contains("needs an attack"));
    assert!(message("schedule.kind=slow").contains("slow-start-fast-decay"));
    assert!(message("epochs=0").contains("epochs"));
    assert!(message("epochs=-1").contains("recipe aft"));
    assert!(message("nonsense").contains("KEY=VALUE"));
    assert!(message("loss.beta=1").contains("second term"));
    assert!(message("loss.kind=tradse").contains("trades"));
    assert!(message("guide.kind=feature").contains("guide.kind: unknown variant"));
    assert!(message("guide.kind=feature").ends_with("did you mean 'features'?"));
    assert!(message("guide.weight=x").contains("guide.weight: invalid type"));
    assert!(message("attack.objective=dlr").contains("kl"));
    assert!(message("guide.weight=1").contains("guide.kind"));
    assert!(message("replay.angle=30").contains("replay.kind = noisy"));
    assert!(message("schedule.rates=[0.1]").contains("piecewise"));
    assert!(message("weights.ema=1").contains("[0, 1)"));
    assert!(message("weights.awp=-0.01").contains("weights.awp"));
    assert!(message("weights.awp_warmup_epochs=5").contains("delays weights.awp"));
    assert!(message("epsilon.rho=[0.1]").contains("daat"));
    assert!(message("optimizer.clip=0").contains("optimizer.clip"));
    assert!(message("epsilon.start=0.5").contains("epsilon.policy = hinge"));
    assert!(message("epsilon.last=1/255").contains("epsilon.policy = linear"));
    assert!(message("attack.part=1/3").contains("attack.kind = dra"));
    assert!(message("attack.tau=[1]").contains("attack.kind = friendly"));
    assert!(message("selection.guard=2").contains("between 0 and 1"));
    assert!(message("layers=last").contains("bias-norm or last:N"));
    assert!(message("epsilon.polcy=hinge").contains("did you mean 'epsilon.policy'"));
    let unknown = Recipe::load("atf", &[]).unwrap_err().to_string();
    assert!(unknown.contains("did you mean 'aft'"), "{unknown}");
}

#[test]
fn contradictory_attacks_are_refused() {
    let message = |recipe: &str, settings: &[&str]| {
        let settings: Vec<String> = settings.iter().map(|s| (*s).to_owned()).collect();
        Recipe::load(recipe, &settings).unwrap_err().to_string()
    };
    assert!(message("dra", &["attack.norm=l2"]).contains("linf"));
    assert!(message("dra", &["attack.step=1/255"]).contains("eps / steps"));
    assert!(message("dra", &["attack.part=1.5"]).contains("[0, 1]"));
    assert!(message("dra", &["attack.objective=kl"]).contains("no gradient at the clean image"));
    assert!(message("dra-madry", &["epsilon.policy=iaat"]).contains("attack.kind = pgd"));
    assert!(message("dra", &["loss.kind=trades"]).contains("replay.kind = clean"));
    assert!(message("free", &["attack.norm=l2"]).contains("linf"));
    assert!(message("free", &["attack.step=1/255"]).contains("eps long"));
    assert!(message("free", &["loss.kind=trades"]).contains("loss.kind = adversarial"));
    assert!(message("free", &["weights.awp=0.01"]).contains("weights.awp"));
    assert!(message("yopo", &["loss.kind=trades"]).contains("loss.kind = adversarial"));
    assert!(message("yopo", &["attack.objective=kl"]).contains("attack.objective"));
    assert!(message("yopo", &["attack.inner_steps=0"]).contains("at least 1"));
    assert!(message("free", &["attack.inner_steps=1"]).contains("attack.kind = yopo"));
    assert!(message("atta", &["attack.reset_epochs=0"]).contains("at least 1"));
    assert!(message("atta", &["replay.kind=noisy"]).contains("replay"));
    assert!(message("madry", &["attack.reset_epochs=5"]).contains("attack.kind = atta"));
    assert!(message("mixup-at", &["weights.awp=0.01"]).contains("weights.awp"));
    assert!(message("mixup-at", &["epsilon.policy=iaat"]).contains("mixtures"));
    assert!(message("interpolated-at", &["guide.kind=logit"]).contains("whole images"));
    assert!(message("mma", &["epsilon.policy=fixed"]).contains("set both"));
    assert!(message("madry", &["epsilon.policy=mma"]).contains("set both"));
    assert!(message("mma", &["loss.beta=1"]).contains("second term"));
    assert!(message("madry", &["weights.swa=2"]).contains("between 0 and 1"));
    assert!(message("madry", &["weights.swa=0.5", "weights.ema=0.9"]).contains("choose one"));
    assert!(message("iaat", &["epsilon.largest=16/255"]).contains("line-search"));
    assert!(message("awp", &["layers=last:1"]).contains("layers = all"));
    assert!(message("lbgat", &["layers=bias-norm"]).contains("layers = all"));
    for recipe in ["aft", "arrest", "standard", "lbgat", "mma", "mixup-at", "free"] {
        assert!(message(recipe, &["batchnorm.mode=split"]).contains("replay.kind = clean"), "{recipe}");
    }
    assert!(message("fat", &["attack.tau=[0, 1]"]).contains("one tau more"));
    assert!(message("fat", &["attack.noise=-1"]).contains("attack.noise"));
    assert!(message("fat-trades", &["attack.start=clean"]).contains("no gradient at the clean image"));
}

#[test]
fn contradictory_radii_are_refused() {
    let message = |recipe: &str, settings: &[&str]| {
        let settings: Vec<String> = settings.iter().map(|s| (*s).to_owned()).collect();
        Recipe::load(recipe, &settings).unwrap_err().to_string()
    };
    let hinge = "epsilon.policy=hinge";
    assert!(message("standard", &[hinge]).contains("attack.kind is none"));
    assert!(message("aft", &[hinge, "epsilon.end=1.5"]).contains("epsilon.end"));
    assert!(message("aft", &[hinge, "epsilon.start=nan"]).contains("epsilon.start"));
    assert!(message("aft", &[hinge, "epsilon.start=0.9"]).contains("epsilon.end = 0.75"));
    let noisy = "replay.kind=noisy";
    assert!(message("aft", &[noisy, "attack.start=clean"]).contains("attack.start = random"));
    assert!(message("aft", &[noisy, "epsilon.policy=iaat"]).contains("epsilon.policy = fixed"));
    assert!(message("aft", &[noisy, "replay.angle=100"]).contains("between 0 and 90"));
    let daat = "epsilon.policy=daat";
    assert!(message("aft", &[daat, "epsilon.rho=[0.1, 0.2]"]).contains("one positive rho more"));
    assert!(message("aft", &[daat, "epsilon.gamma=1/255"]).contains("epsilon.policy = iaat"));
    assert!(message("aft", &[daat, "epsilon.tau=0"]).contains("epsilon.tau"));
    assert!(message("aft", &[daat, "attack.kind=fgsm"]).contains("attack.kind = pgd"));
    let linear = "epsilon.policy=linear";
    assert!(message("aft", &[linear, "epsilon.last=9/255"]).contains("hinge"));
    assert!(message("aft", &[linear, "epsilon.start=0"]).contains("hinge"));
}

#[test]
fn another_number_of_epochs_moves_phases_and_no_setting() {
    let load = |name: &str| Recipe::load(name, &[]).unwrap();
    let short = load("arrest").stretched(10);
    assert_eq!((short.epochs, short.replay.until_epoch), (10, Some(5)));
    assert_eq!(short.schedule.milestones, [5.0, 6.0, 7.0, 8.0, 9.0]);
    let iaat = load("iaat").stretched(8);
    assert_eq!((iaat.epsilon.warmup_epochs, iaat.schedule.milestones), (Some(2), vec![4.0, 6.0]));
    for preset in PRESETS {
        let recipe = load(preset.name);
        assert_eq!(recipe.clone().stretched(recipe.epochs), recipe, "{}", preset.name);
        let changed = recipe.stretched(1).at_radius(0.01).to_toml();
        Recipe::parse(&changed, preset.name, &[]).unwrap();
    }
}

#[test]
fn another_radius_moves_what_is_measured_in_pixels() {
    let load = |name: &str| Recipe::load(name, &[]).unwrap();
    let near =
        |x: Option<super::super::attack::Fraction>, y: f32| x.is_some_and(|x| (x.0 * 255.0 - y).abs() < 1e-4);
    let madry = load("madry").at_radius(4.0 / 255.0).attack;
    assert!(near(Some(madry.eps), 4.0) && near(madry.step, 1.0) && madry.steps == 10);
    let iaat = load("iaat").at_radius(4.0 / 255.0).epsilon;
    assert!(near(iaat.gamma, 0.95));
    let dra = load("dra").at_radius(8.0 / 255.0);
    assert!(near(Some(dra.attack.eps), 4.0) && near(dra.epsilon.last, 1.0));
    assert!((dra.attack.radius() * 255.0 - 8.0).abs() < 1e-4);
    assert_eq!(load("aft").at_radius(0.1).attack.step, None);
    assert_eq!(load("standard").at_radius(0.1), load("standard"));
}

/// What was written before there was an `[epsilon]` still runs, and means the same.
#[test]
fn the_radius_is_fixed_unless_it_is_said() {
    let recipe = Recipe::load("aft", &[]).unwrap();
    let printed = recipe.to_toml();
    let older = printed.replace("[epsilon]\npolicy = \"fixed\"\n", "");
    assert_ne!(older, printed);
    assert_eq!(Recipe::parse(&older, "older", &[]).unwrap(), recipe);
    let spec = recipe.attack.spec_at(recipe.attack.eps.0 / 2.0).unwrap();
    assert_eq!(spec.step, recipe.attack.spec().unwrap().step / 2.0);
    let settings = ["attack.step=1/255".to_owned(), "attack.eps=4/255".to_owned()];
    let attack = Recipe::load("aft", &settings).unwrap().attack;
    assert_eq!(attack.spec_at(2.0 / 255.0).unwrap().step, 0.5 / 255.0);
    assert_eq!(attack.spec().unwrap().step, 1.0 / 255.0);
}
