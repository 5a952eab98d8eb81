//! The losses of training against PyTorch, on both executors, and what their papers promise of them.

use adamant::finetune::{Adversary, BatchLoss, LossConfig, LossKind, Recipe};
use adamant::op::{Copy, Op, Sum};
use adamant::{BatchNormMode, Device, Model, Role, Session, Tensor, Variable, differentiate, import};
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
    let model = tiny_resnet();
    let mut session = load(device, &model, golden, adversarial);
    let parameters = model.network.parameters.clone();
    let trains: Vec<usize> = (0..parameters.len()).filter(|&i| parameters[i].role.trains()).collect();
    let mut buffers: Vec<Variable> = Vec::new();
    for len in trains.iter().map(|&i| parameters[i].shape.len()).chain([COUNT]) {
        buffers.push(session.device().variable(len).unwrap());
    }
    session
        .run("loss", COUNT, |m| {
            let BatchLoss { losses, .. } = config.add(m, BatchNormMode::BatchUpdate)?;
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
        let adversary = Adversary::new(&recipe.attack, &mut session).unwrap();
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
