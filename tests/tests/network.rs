//! A whole network against PyTorch, on both executors: logits, loss, every gradient, ten training
//! steps, and the iterates of the attacks.

use adamant::finetune::{Optimizer, OptimizerConfig, OptimizerKind};
use adamant::op::{Copy, CrossEntropy, Norm, Op, Sum};
use adamant::{
    Attack, Ball, BatchNormMode, Device, Fgsm, Images, Model, Objective, Purpose, Role, Session, Shape,
    Tensor, Variable, differentiate, import,
};
use adamant_tests::compare::{Tolerance, assert_close};
use adamant_tests::golden::{self, Golden};
use adamant_tests::gpu::gpu;
use adamant_tests::layout::{hwio_to_oihw, oihw_to_hwio};

fn tiny_resnet() -> Model {
    import(&golden::folder().join("tiny_resnet.onnx")).expect("the golden network imports")
}

fn on_both(test: impl Fn(Device)) {
    test(Device::cpu());
    test(gpu());
}

fn load(session: &mut Session, golden: &Golden, images: &str, labels: &str) -> usize {
    let (dims, x) = golden.real(images);
    let labels: Vec<u32> = golden.integers(labels).1.iter().map(|&l| l as u32).collect();
    let indices: Vec<u32> = (0..dims[0] as u32).collect();
    session.load(&x, &labels, &indices).expect("the golden batch fits");
    dims[0]
}

/// A parameter's values as PyTorch lays them out.
fn as_torch(shape: Shape, data: Vec<f32>, role: Role) -> Vec<f32> {
    let tensor = Tensor::new(shape, data);
    if role == Role::Weight { hwio_to_oihw(&tensor).data } else { tensor.data }
}

/// A value of PyTorch's as a parameter of ours.
fn from_torch((dims, data): (Vec<usize>, Vec<f32>), shape: Shape, role: Role) -> Tensor {
    match (role, dims.as_slice()) {
        (Role::Weight, &[o, i]) => oihw_to_hwio([o, i, 1, 1], &data),
        (Role::Weight, &[o, i, h, w]) => oihw_to_hwio([o, i, h, w], &data),
        _ => Tensor::new(shape, data),
    }
}

#[test]
fn the_comparison_knows_the_layout() {
    let golden = Golden::open("tiny_resnet.safetensors");
    let model = tiny_resnet();
    for (parameter, value) in model.network.parameters.iter().zip(&model.values) {
        let name = format!("eval.grad.{}", parameter.name);
        if golden.has(&name) {
            let round_trip = from_torch(golden.real(&name), parameter.shape, parameter.role);
            assert_eq!(round_trip.shape, value.shape, "{}", parameter.name);
        }
    }
}

#[test]
fn logits_loss_and_every_gradient() {
    let golden = Golden::open("tiny_resnet.safetensors");
    let model = tiny_resnet();
    for (name, mode) in [("eval", BatchNormMode::Running), ("train", BatchNormMode::BatchUpdate)] {
        on_both(|device| {
            let mut session = Session::new(device, &model, 6).unwrap();
            let count = load(&mut session, &golden, "x", "labels");
            let parameters = model.network.parameters.clone();
            let trains: Vec<usize> = (0..parameters.len()).filter(|&i| parameters[i].role.trains()).collect();
            let lens: Vec<usize> = trains.iter().map(|&i| parameters[i].shape.len()).collect();
            let mut buffers: Vec<Variable> = Vec::new();
            for len in lens.into_iter().chain([count * 5, 1, model.network.image_shape(count).len()]) {
                buffers.push(session.device().variable(len).unwrap());
            }
            session
                .run("golden", count, |m| {
                    let logits = m.logits(Images::Clean, mode)?;
                    let losses = m.graph.add(Op::CrossEntropy(CrossEntropy), &[logits, m.labels])?;
                    let loss = m.graph.add(Op::Sum(Sum { factor: 1.0 / count as f32 }), &[losses])?;
                    let mut wrt: Vec<_> = trains.iter().map(|&i| m.parameters[i]).collect();
                    wrt.push(m.images);
                    let mut values = differentiate(&mut m.graph, loss, &wrt)?;
                    let image_gradient = values.pop().expect("one for each");
                    values.extend([logits, loss, image_gradient]);
                    for (value, buffer) in values.into_iter().zip(&buffers) {
                        let target = m.graph.variable(*buffer, m.graph.shape(value));
                        m.graph.update(Op::Copy(Copy), &[value], &[target])?;
                    }
                    Ok(())
                })
                .unwrap();
            let tolerance = Tolerance::Approximate;
            for (&i, &buffer) in trains.iter().zip(&buffers) {
                let found = session.device().read(buffer).unwrap();
                let found = as_torch(parameters[i].shape, found, parameters[i].role);
                let key = format!("{name}.grad.{}", parameters[i].name);
                assert_close(&key, &found, &golden.real(&key).1, tolerance);
            }
            for (key, &buffer) in ["logits", "loss", "grad_input"].iter().zip(&buffers[trains.len()..]) {
                let key = format!("{name}.{key}");
                let found = session.device().read(buffer).unwrap();
                assert_close(&key, &found, &golden.real(&key).1, tolerance);
            }
            let after = session.read_parameters().unwrap();
            for (parameter, value) in parameters.iter().zip(&after) {
                let key = format!("{name}.running.{}", parameter.name);
                if matches!(parameter.role, Role::RunningMean | Role::RunningVariance) && name == "train" {
                    assert_close(&key, &value.data, &golden.real(&key).1, tolerance);
                }
            }
        });
    }
}

#[test]
fn ten_training_steps() {
    let golden = Golden::open("training.safetensors");
    let model = tiny_resnet();
    let sgd = OptimizerConfig { weight_decay: 5e-4, ..OptimizerConfig::default() };
    let adam = OptimizerConfig { kind: OptimizerKind::Adam, ..OptimizerConfig::default() };
    let runs = [
        ("sgd", 0.05, sgd.clone()),
        ("sgd_nesterov", 0.05, OptimizerConfig { nesterov: true, ..sgd.clone() }),
        ("sgd_clip", 0.05, OptimizerConfig { clip: Some(2.45), ..sgd }),
        ("adam", 1e-3, adam.clone()),
        ("adam_wd", 1e-3, OptimizerConfig { weight_decay: 1e-2, ..adam }),
    ];
    for (name, rate, config) in runs {
        on_both(|device| {
            let mut session = Session::new(device, &model, 6).unwrap();
            let optimizer = Optimizer::new(&config, &mut session).unwrap();
            let total = session.device().variable(1).unwrap();
            let mut losses = Vec::new();
            for step in 0..10 {
                let count =
                    load(&mut session, &golden, &format!("batch.{step}.x"), &format!("batch.{step}.labels"));
                optimizer.set_rate(&mut session, rate, step + 1);
                session
                    .run("train", count, |m| {
                        let logits = m.logits(Images::Clean, BatchNormMode::BatchUpdate)?;
                        let each = m.graph.add(Op::CrossEntropy(CrossEntropy), &[logits, m.labels])?;
                        let loss = m.graph.add(Op::Sum(Sum { factor: 1.0 / count as f32 }), &[each])?;
                        let trainable = optimizer.trainable(m);
                        let gradients = differentiate(&mut m.graph, loss, &trainable)?;
                        optimizer.update(m, &gradients)?;
                        let target = m.graph.variable(total, Shape::SCALAR);
                        m.graph.update(Op::Copy(Copy), &[loss], &[target])
                    })
                    .unwrap();
                losses.push(session.device().read(total).unwrap()[0]);
            }
            let key = format!("{name}.loss");
            assert_close(&key, &losses, &golden.real(&key).1, Tolerance::Approximate);
            let last = session.read_parameters().unwrap();
            for (parameter, value) in model.network.parameters.iter().zip(last) {
                let key = format!("{name}.final.{}", parameter.name);
                if golden.has(&key) {
                    let found = as_torch(value.shape, value.data, parameter.role);
                    // Ten steps of Adam divide small gradients by their own size.
                    assert_close(&key, &found, &golden.real(&key).1, Tolerance::Loose);
                }
            }
        });
    }
}

#[test]
fn projected_gradient_descent_follows_pytorch() {
    let golden = Golden::open("attacks.safetensors");
    let model = tiny_resnet();
    for (name, ball, step) in [
        ("pgd_linf", Ball { norm: Norm::Linf, eps: 8.0 / 255.0 }, 2.0 / 255.0),
        ("pgd_l2", Ball { norm: Norm::L2, eps: 0.5 }, 0.1),
    ] {
        on_both(|device| {
            let mut session = Session::new(device, &model, 6).unwrap();
            let count = load(&mut session, &golden, "x", "labels");
            let adversarial = session.buffers().adversarial;
            session.device().write(adversarial, &golden.real(&format!("{name}.step.0")).1);
            for iteration in 0..5 {
                let mut objective = Objective::new(&mut session, count, 0, Purpose::AttackStart, 0);
                objective.set_ball(&ball, step);
                objective.gradient().unwrap();
                objective.step(ball.norm).unwrap();
                let gradient = session.buffers().gradient;
                let key = format!("{name}.grad.{iteration}");
                assert_close(
                    &key,
                    &session.device().read(gradient).unwrap(),
                    &golden.real(&key).1,
                    Tolerance::Approximate,
                );
                let key = format!("{name}.step.{}", iteration + 1);
                assert_close(
                    &key,
                    &session.read_adversarial(count).unwrap(),
                    &golden.real(&key).1,
                    Tolerance::Approximate,
                );
            }
        });
    }
}

#[test]
fn the_fast_gradient_sign_method_is_pytorchs() {
    let golden = Golden::open("attacks.safetensors");
    let model = tiny_resnet();
    on_both(|device| {
        let mut session = Session::new(device, &model, 6).unwrap();
        let count = load(&mut session, &golden, "x", "labels");
        let attack = Fgsm { ball: Ball { norm: Norm::Linf, eps: 8.0 / 255.0 } };
        attack.perturb(&mut Objective::new(&mut session, count, 0, Purpose::AttackStart, 0)).unwrap();
        assert_close(
            "fgsm.x",
            &session.read_adversarial(count).unwrap(),
            &golden.real("fgsm.x").1,
            Tolerance::Close,
        );
    });
}

/// What depends on the weights alone is computed once and kept; it has to be computed again whenever
/// the weights have changed, from the host or by training.
#[test]
fn changed_weights_are_seen() {
    let golden = Golden::open("tiny_resnet.safetensors");
    on_both(|device| {
        let model = tiny_resnet();
        let mut session = Session::new(device, &model, 8).expect("it fits");
        let count = load(&mut session, &golden, "x", "labels");
        let logits = |session: &mut Session| session.logits(count, Images::Clean).expect("it runs");
        let before = logits(&mut session);
        assert_eq!(before, logits(&mut session), "the same again");

        // Every weight twice as large, from the host; then back.
        let doubled: Vec<Tensor> = model
            .values
            .iter()
            .map(|t| Tensor::new(t.shape, t.data.iter().map(|x| 2.0 * x).collect()))
            .collect();
        session.write_parameters(&doubled).expect("they fit");
        let twice = logits(&mut session);
        assert_ne!(before, twice, "new weights from the host");
        session.write_parameters(&model.values).expect("they fit");
        assert_eq!(before, logits(&mut session), "the old weights again");

        // One training step; a session that starts from the result must agree.
        let config = OptimizerConfig { kind: OptimizerKind::Sgd, ..OptimizerConfig::default() };
        let optimizer = Optimizer::new(&config, &mut session).expect("it fits");
        optimizer.set_rate(&mut session, 0.1, 1);
        session
            .run("train", count, |m| {
                let logits = m.logits(Images::Clean, BatchNormMode::BatchUpdate)?;
                let losses = m.graph.add(Op::CrossEntropy(CrossEntropy), &[logits, m.labels])?;
                let mean = m.graph.add(Op::Sum(Sum { factor: 1.0 / count as f32 }), &[losses])?;
                let trainable = optimizer.trainable(m);
                let gradients = differentiate(&mut m.graph, mean, &trainable)?;
                optimizer.update(m, &gradients)
            })
            .expect("it trains");
        let trained = logits(&mut session);
        assert_ne!(before, trained, "new weights from training");
        let fresh = Model { values: session.read_parameters().expect("they are read"), ..model };
        let mut session = Session::new(Device::cpu(), &fresh, 8).expect("it fits");
        load(&mut session, &golden, "x", "labels");
        assert_close("logits after a step", &trained, &logits(&mut session), Tolerance::Approximate);
    });
}
