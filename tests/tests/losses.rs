//! The losses of training against PyTorch, on both executors, and what their papers promise of them.

use adamant::finetune::{
    Adversary, BatchLoss, GuideConfig, GuideDistance, GuideKind, LossConfig, LossKind, Recipe, ReplayConfig,
    ReplayKind, Teacher, WeightPerturbation,
};
use adamant::op::{Copy, Op, Sum};
use adamant::{
    BatchNormMode, Device, Model, ModelGraph, Role, Session, Tensor, Variable, differentiate, import,
};
use adamant_tests::compare::{Tolerance, assert_close};
use adamant_tests::golden::{self, Golden};
use adamant_tests::gpu::gpu;
use adamant_tests::layout::hwio_to_oihw;

const COUNT: usize = 6;

fn tiny_resnet() -> Model {
    import(&golden::folder().join("tiny_resnet.onnx")).expect("the golden network imports")
}

/// The losses of a batch and the gradient of their mean by each parameter that trains.
struct Found {
    losses: Vec<f32>,
    gradients: Vec<(String, Vec<f32>)>,
}

/// The network at the start of its training, with a batch and its adversarial images.
fn load(device: Device, model: &Model, golden: &Golden, adversarial: &str) -> Session {
    let mut session = Session::new(device, model, COUNT).unwrap();
    let labels: Vec<u32> = golden.integers("labels").1.iter().map(|&l| l as u32).collect();
    let indices: Vec<u32> = (0..COUNT as u32).collect();
    session.load(&golden.real("x").1, &labels, &indices).unwrap();
    let variable = session.buffers().adversarial;
    session.device().write(variable, &golden.real(adversarial).1);
    session
}

fn compute(device: Device, config: &LossConfig, golden: &Golden, adversarial: &str) -> Found {
    let session = load(device, &tiny_resnet(), golden, adversarial);
    found_by(session, |m, mode| config.add(m, mode))
}

fn found_by(
    mut session: Session,
    loss: impl FnOnce(&mut ModelGraph, BatchNormMode) -> adamant::Result<BatchLoss>,
) -> Found {
    let parameters = session.network().parameters.clone();
    let trains: Vec<usize> = (0..parameters.len()).filter(|&i| parameters[i].role.trains()).collect();
    let mut buffers: Vec<Variable> = Vec::new();
    for len in trains.iter().map(|&i| parameters[i].shape.len()).chain([COUNT]) {
        buffers.push(session.device().variable(len).unwrap());
    }
    session
        .run("loss", COUNT, |m| {
            let BatchLoss { losses, .. } = loss(m, BatchNormMode::BatchUpdate)?;
            let mean = m.graph.add(Op::Sum(Sum { factor: 1.0 / COUNT as f32 }), &[losses])?;
            let wrt: Vec<_> = trains.iter().map(|&i| m.parameters[i]).collect();
            let mut values = differentiate(&mut m.graph, mean, &wrt)?;
            values.push(losses);
            for (value, buffer) in values.into_iter().zip(&buffers) {
                let target = m.graph.variable(*buffer, m.graph.shape(value));
                m.graph.update(Op::Copy(Copy), &[value], &[target])?;
            }
            Ok(())
        })
        .unwrap();
    let losses = session.device().read(*buffers.last().unwrap()).unwrap();
    let gradients = trains
        .iter()
        .zip(&buffers)
        .map(|(&i, &buffer)| {
            let data = session.device().read(buffer).unwrap();
            let tensor = Tensor::new(parameters[i].shape, data);
            let weight = parameters[i].role == Role::Weight;
            let data = if weight { hwio_to_oihw(&tensor).data } else { tensor.data };
            (parameters[i].name.clone(), data)
        })
        .collect();
    Found { losses, gradients }
}

fn config(kind: LossKind, beta: Option<f32>) -> LossConfig {
    LossConfig { kind, beta }
}

#[test]
fn losses_and_every_gradient() {
    let golden = Golden::open("losses.safetensors");
    let cases = [
        ("mixed", config(LossKind::Mixed, None)),
        ("rst", config(LossKind::Mixed, Some(0.7))),
        // What the papers set is the default.
        ("trades", config(LossKind::Trades, None)),
        ("mart", config(LossKind::Mart, None)),
        ("alp", config(LossKind::Alp, None)),
    ];
    for (name, config) in cases {
        for device in [Device::cpu(), gpu()] {
            let found = compute(device, &config, &golden, "x_adv");
            let key = format!("{name}.losses");
            assert_close(&key, &found.losses, &golden.real(&key).1, Tolerance::Loose);
            for (parameter, gradient) in found.gradients {
                let key = format!("{name}.grad.{parameter}");
                assert_close(&key, &gradient, &golden.real(&key).1, Tolerance::Loose);
            }
        }
    }
}

#[test]
fn the_attack_of_trades_raises_the_divergence() {
    let golden = Golden::open("losses.safetensors");
    let recipe = Recipe::load("trades", &[]).unwrap();
    for device in [Device::cpu(), gpu()] {
        let mut session = load(device, &tiny_resnet(), &golden, "x_adv");
        let adversary = Adversary::new(&recipe.attack, None, &mut session).unwrap();
        adversary.gradient(&mut session, COUNT).unwrap();
        let gradient = session.buffers().gradient;
        let found = session.device().read(gradient).unwrap();
        assert_close("kl_attack.grad", &found, &golden.real("kl_attack.grad").1, Tolerance::Approximate);
        // Where the two predictions are one, there is nothing to follow: the noise of the start matters.
        let clean = session.buffers().adversarial;
        session.device().write(clean, &golden.real("x").1);
        adversary.gradient(&mut session, COUNT).unwrap();
        let largest = session.device().read(gradient).unwrap().iter().fold(0.0, |a: f32, b| a.max(b.abs()));
        assert!(largest < 1e-5, "{largest}");
    }
}

#[test]
fn a_frozen_teacher_guides() {
    let golden = Golden::open("losses.safetensors");
    let adversarial = config(LossKind::Adversarial, None);
    let guide = |kind, distance, weight| GuideConfig { kind, distance, weight };
    for (name, guide) in [
        // What the paper sets is the default.
        ("guide.representation", guide(GuideKind::Representation, None, None)),
        ("guide.features", guide(GuideKind::Features, None, None)),
        ("guide.mse", guide(GuideKind::Representation, Some(GuideDistance::Mse), Some(2.0))),
        ("guide.logit", guide(GuideKind::Logit, Some(GuideDistance::Mse), Some(0.5))),
        ("guide.attention", guide(GuideKind::Attention, None, None)),
    ] {
        for device in [Device::cpu(), gpu()] {
            let mut session = load(device, &tiny_resnet(), &golden, "x_adv");
            let teacher = Teacher::new(&guide, &ReplayConfig::default(), &mut session).unwrap().unwrap();
            teacher.look(&mut session, COUNT).unwrap();
            let found = found_by(session, |m, mode| {
                let loss = adversarial.add(m, mode)?;
                teacher.guide(m, loss)
            });
            let key = format!("{name}.losses");
            assert_close(&key, &found.losses, &golden.real(&key).1, Tolerance::Loose);
            for (parameter, gradient) in found.gradients {
                let key = format!("{name}.grad.{parameter}");
                assert_close(&key, &gradient, &golden.real(&key).1, Tolerance::Loose);
            }
        }
    }
}

/// The teacher stays where it was when the network moves on, and a network that has not moved is at no
/// distance from it.
#[test]
fn the_distance_from_the_teacher_grows_from_zero() {
    let golden = Golden::open("losses.safetensors");
    let mut session = load(Device::cpu(), &tiny_resnet(), &golden, "x_adv");
    let replay = ReplayConfig { kind: ReplayKind::Noisy, ..ReplayConfig::default() };
    let teacher = Teacher::new(&GuideConfig::default(), &replay, &mut session).unwrap().unwrap();
    teacher.look(&mut session, COUNT).unwrap();
    let distances = teacher.distances(&mut session, COUNT).unwrap();
    assert!(distances.iter().all(|a| a.abs() < 1e-6), "{distances:?}");
    let mut weights = session.read_parameters().unwrap();
    for value in &mut weights[0].data {
        *value = -*value;
    }
    session.write_parameters(&weights).unwrap();
    teacher.look(&mut session, COUNT).unwrap();
    let distances = teacher.distances(&mut session, COUNT).unwrap();
    assert!(distances.iter().all(|a| (1e-3..=1.0).contains(a)), "{distances:?}");
}

#[test]
fn weights_move_as_awp_says_and_back() {
    let golden = Golden::open("losses.safetensors");
    let model = tiny_resnet();
    let adversarial = config(LossKind::Adversarial, None);
    for device in [Device::cpu(), gpu()] {
        let mut session = load(device, &model, &golden, "x_adv");
        let perturbation = WeightPerturbation::new(0.01, &mut session).unwrap();
        let mode = BatchNormMode::BatchUpdate;
        perturbation.apply(&mut session, COUNT, 0, mode, |m, mode| adversarial.add(m, mode)).unwrap();
        let mut moved = 0;
        for (i, value) in session.read_parameters().unwrap().into_iter().enumerate() {
            let parameter = &model.network.parameters[i];
            let key = format!("awp.{}", parameter.name);
            if golden.has(&key) {
                let found = hwio_to_oihw(&value).data;
                assert_close(&key, &found, &golden.real(&key).1, Tolerance::Approximate);
                moved += 1;
            } else {
                assert_eq!(value, model.values[i], "{} moved", parameter.name);
            }
        }
        assert_eq!(moved, 7, "convolutions and the linear layer");
        perturbation.restore(&mut session).unwrap();
        for (found, start) in session.read_parameters().unwrap().iter().zip(&model.values) {
            assert_close("restored", &found.data, &start.data, Tolerance::Close);
        }
    }
}

/// A term of weight 0, or of images that are the same, is no term.
#[test]
fn neutral_settings_leave_the_cross_entropy() {
    let golden = Golden::open("losses.safetensors");
    let losses = |kind, beta, images| compute(Device::cpu(), &config(kind, beta), &golden, images).losses;
    let clean = losses(LossKind::Clean, None, "x_adv");
    assert_eq!(losses(LossKind::Trades, Some(0.0), "x_adv"), clean, "TRADES with beta = 0");
    assert_close("TRADES with x' = x", &losses(LossKind::Trades, None, "x"), &clean, Tolerance::Close);
    assert_eq!(losses(LossKind::Mixed, Some(0.0), "x_adv"), clean, "no weight on adversarial images");
    assert_eq!(losses(LossKind::Alp, Some(0.0), "x_adv"), losses(LossKind::Mixed, None, "x_adv"));
    let divergence = losses(LossKind::Trades, Some(1.0), "x_adv");
    assert!(divergence.iter().zip(&clean).all(|(a, b)| a > b), "KL is above 0: {divergence:?}, {clean:?}");
    // At most KL * 1.0000001, at least KL * 1e-7.
    let [boosted, whole] = [0.0, 1.0].map(|beta| losses(LossKind::Mart, Some(beta), "x_adv"));
    for i in 0..COUNT {
        let (weighted, kl) = (whole[i] - boosted[i], divergence[i] - clean[i]);
        assert!(weighted > 0.0 && weighted < kl, "image {i}: {weighted} of {kl}");
    }
}
