//! The memory that is predicted is the memory that is taken.

use adamant::finetune::{Optimizer, OptimizerConfig, OptimizerKind};
use adamant::op::{CrossEntropy, Op, Sum};
use adamant::{
    Architecture, AttackSpec, BatchNormMode, Device, Footprint, Images, Objective, Purpose, Session,
    differentiate,
};
use adamant_tests::gpu::gpu;

/// A prediction may be off by this part of what is taken.
const PART: f64 = 0.05;

fn assert_near(what: &str, predicted: u64, taken: u64) {
    let part = (predicted as f64 / taken as f64 - 1.0).abs();
    assert!(part <= PART, "{what}: {predicted} bytes predicted, {taken} taken");
}

fn check(device: Device, arch: &str, input: [usize; 3], batch: usize) {
    let model = Architecture::build(arch, input, 10, 0).expect("it is known");
    let adam = OptimizerConfig { kind: OptimizerKind::Adam, ..OptimizerConfig::default() };
    let predicted = Footprint::predict(&model, batch, &adam, &device).expect("it fits");

    let mut session = Session::new(device, &model, batch).expect("it fits");
    let name = format!("{arch}, batch {batch}, {}", session.device_name());
    let images = vec![0.5; batch * input.iter().product::<usize>()];
    let (labels, indices) = (vec![1; batch], (0..batch as u32).collect::<Vec<_>>());
    session.load(&images, &labels, &indices).expect("it fits");
    let attack = AttackSpec::parse("pgd:eps=8/255,steps=2", None, None).expect("it is known").build();
    attack
        .perturb(&mut Objective::new(&mut session, batch, 0, Purpose::TrainingAttackStart, 0))
        .expect("it runs");
    let taken = session.device().allocated_bytes();
    assert_near(&format!("{name}, attack"), predicted.attack, taken);

    let optimizer = Optimizer::new(&adam, &mut session).expect("it fits");
    session
        .run("train", batch, |m| {
            let logits = m.logits(Images::Adversarial, BatchNormMode::BatchUpdate)?;
            let losses = m.graph.add(Op::CrossEntropy(CrossEntropy), &[logits, m.labels])?;
            let mean = m.graph.add(Op::Sum(Sum { factor: 1.0 / batch as f32 }), &[losses])?;
            let trainable = optimizer.trainable(m);
            let gradients = differentiate(&mut m.graph, mean, &trainable)?;
            optimizer.update(m, &gradients)
        })
        .expect("it trains");
    let taken = session.device().allocated_bytes();
    assert_near(&format!("{name}, training"), predicted.training, taken);
}

#[test]
fn on_the_cpu() {
    check(Device::cpu(), "resnet20", [3, 32, 32], 16);
    check(Device::cpu(), "preact-resnet18", [3, 16, 16], 3);
    check(Device::cpu(), "resnet18", [3, 32, 32], 1);
}

#[test]
fn on_the_gpu() {
    check(gpu(), "resnet20", [3, 32, 32], 16);
    check(gpu(), "resnet18", [3, 33, 40], 3);
}
