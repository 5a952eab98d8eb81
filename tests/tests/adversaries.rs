//! The adversaries of training against PyTorch, from the same random numbers, on both executors; and what
//! their papers promise of them.

use adamant::finetune::{Adversary, Recipe};
use adamant::op::{Copy, Op, Scale};
use adamant::{Attack, AttackSpec, Device, Objective, Purpose, Session, Tensor, import};
use adamant_tests::compare::{Tolerance, assert_close};
use adamant_tests::golden::{self, Golden};
use adamant_tests::gpu::gpu;

const COUNT: usize = 6;
/// Values in an image.
const LEN: usize = 3 * 9 * 11;

/// The golden network with its batch, labelled as named.
fn load(device: Device, golden: &Golden, labels: &str) -> Session {
    let model = import(&golden::folder().join("tiny_resnet.onnx")).expect("the golden network imports");
    let mut session = Session::new(device, &model, COUNT).unwrap();
    let labels: Vec<u32> = golden.integers(labels).1.iter().map(|&l| l as u32).collect();
    let indices: Vec<u32> = (0..COUNT as u32).collect();
    session.load(&golden.real("x").1, &labels, &indices).unwrap();
    session
}

/// The same in doubt: with a last bias that makes all classes likely.
fn doubtful(device: Device, golden: &Golden) -> Session {
    let mut session = load(device, golden, "right");
    let place = session.network().parameters.iter().position(|p| p.name == "fc.bias").unwrap();
    let mut values: Vec<Tensor> = session.read_parameters().unwrap();
    values[place].data = golden.real("doubtful.bias").1;
    session.write_parameters(&values).unwrap();
    session
}

fn run(session: &mut Session, attack: &dyn Attack) -> Vec<f32> {
    let mut objective = Objective::new(session, COUNT, 0, Purpose::AttackStart, 0);
    attack.perturb(&mut objective).unwrap();
    session.read_adversarial(COUNT).unwrap()
}

fn dra(settings: &str) -> Box<dyn Attack> {
    AttackSpec::parse(&format!("dra:{settings}"), None, None).unwrap().build()
}

fn recipe(name: &str, settings: &[&str]) -> Recipe {
    let settings: Vec<String> = settings.iter().map(|s| (*s).to_owned()).collect();
    Recipe::load(name, &settings).unwrap()
}

#[test]
fn dra_follows_pytorch() {
    let golden = Golden::open("adversaries.safetensors");
    for device in [Device::cpu(), gpu()] {
        let mut session = load(device, &golden, "labels");
        for steps in [1, 5] {
            let key = format!("dra.{steps}");
            let found = run(&mut session, &*dra(&format!("eps=8/255,steps={steps}")));
            assert_close(&key, &found, &golden.real(&key).1, Tolerance::Approximate);
        }
    }
}

/// Images with room on both sides, so that no clipping hides a change.
fn grey(session: &mut Session, golden: &Golden) -> Vec<f32> {
    let grey: Vec<f32> = golden.real("x").1.iter().map(|x| 0.25 + 0.5 * x).collect();
    let labels = [0; COUNT];
    session.load(&grey, &labels, &[0, 1, 2, 3, 4, 5]).unwrap();
    grey
}

#[test]
fn dra_changes_exactly_its_part() {
    let golden = Golden::open("adversaries.safetensors");
    let mut session = load(Device::cpu(), &golden, "labels");
    let clean = grey(&mut session, &golden);
    let whole = run(&mut session, &*dra("eps=2/255,part=1"));
    for (part, share) in [("0", 0.0), ("1/6", 1.0 / 6.0), ("1/3", 1.0 / 3.0), ("0.5", 0.5), ("1", 1.0)] {
        let keep = (share * LEN as f64).round() as usize;
        let found = run(&mut session, &*dra(&format!("eps=2/255,part={part}")));
        for n in 0..COUNT {
            let image = n * LEN..(n + 1) * LEN;
            let changed = image.clone().filter(|&i| found[i] != clean[i]);
            assert_eq!(changed.clone().count(), keep, "part {part}, image {n}");
            // The rest is the clean image to the bit; what changed is what would have without a mask.
            assert!(changed.clone().all(|i| found[i] == whole[i]), "part {part}, image {n}");
        }
    }
}

#[test]
fn dra_moves_by_eps_on_average() {
    let golden = Golden::open("adversaries.safetensors");
    let mut session = load(Device::cpu(), &golden, "labels");
    let clean = grey(&mut session, &golden);
    let eps = 2.0 / 255.0;
    for steps in [1, 2, 7] {
        let found = run(&mut session, &*dra(&format!("eps=2/255,part=1,steps={steps}")));
        for n in 0..COUNT {
            let moved = (n * LEN..(n + 1) * LEN).map(|i| f64::from((found[i] - clean[i]).abs()));
            let mean = moved.sum::<f64>() / LEN as f64;
            assert!(mean <= eps * (1.0 + 1e-4), "{steps} steps, image {n}: {mean}");
            // One step cannot cancel out.
            assert!(steps > 1 || mean >= eps * (1.0 - 1e-4), "image {n}: {mean}");
        }
    }
}

/// Only the direction of the gradient counts, and an image without a gradient stays.
#[test]
fn the_scale_of_the_loss_does_not_matter() {
    let golden = Golden::open("adversaries.safetensors");
    for (device, attack) in [
        (Device::cpu(), "dra:eps=8/255"),
        (gpu(), "dra:eps=8/255"),
        (Device::cpu(), "pgd:norm=l2,eps=0.4,steps=3,start=clean"),
        (gpu(), "pgd:norm=l2,eps=0.4,steps=3,start=clean"),
    ] {
        let mut session = load(device, &golden, "labels");
        let adversary = Adversary::new(&recipe("madry", &[]).attack, None, &mut session).unwrap();
        let mut scaled = |factor: f32, name: &'static str| {
            let gradient = |session: &mut Session, count: usize| {
                adversary.gradient(session, count)?;
                session.run(name, count, |m| {
                    let gradient = m.graph.variable(m.buffers.gradient, m.graph.shape(m.images));
                    let scaled = m.graph.add(Op::Scale(Scale { factor }), &[gradient])?;
                    m.graph.update(Op::Copy(Copy), &[scaled], &[gradient])
                })
            };
            let mut objective =
                Objective::new(&mut session, COUNT, 0, Purpose::AttackStart, 0).with_gradient(&gradient);
            AttackSpec::parse(attack, None, None).unwrap().build().perturb(&mut objective).unwrap();
            session.read_adversarial(COUNT).unwrap()
        };
        let plain = scaled(1.0, "times 1");
        assert_close(attack, &scaled(1024.0, "times 1024"), &plain, Tolerance::Approximate);
        // As small as the gradients of a network that is sure of itself.
        assert_close(attack, &scaled(2f32.powi(-45), "times 2^-45"), &plain, Tolerance::Approximate);
        assert_eq!(scaled(0.0, "times 0"), golden.real("x").1, "{attack}");
        assert_ne!(plain, golden.real("x").1, "{attack}");
    }
}

#[test]
fn friendly_images_follow_pytorch() {
    let golden = Golden::open("adversaries.safetensors");
    let common = ["attack.eps=4/255", "attack.step=0.5/255", "attack.tau_stages=[]"];
    for (name, preset, settings) in [
        ("ce.0", "fat", ["attack.tau=[0]", "attack.noise=0"]),
        ("ce.1", "fat", ["attack.tau=[1]", "attack.noise=0.001"]),
        ("kl.2", "fat-trades", ["attack.tau=[2]", "attack.start=random"]),
    ] {
        let attack = recipe(preset, &[&common[..], &settings].concat()).attack;
        let friendly = attack.build(attack.eps.0, 0, 1).unwrap();
        for device in [Device::cpu(), gpu()] {
            let mut session = doubtful(device, &golden);
            let adversary = Adversary::new(&attack, None, &mut session).unwrap();
            adversary.remember(&mut session, COUNT).unwrap();
            let gradient = |session: &mut Session, count| adversary.follow(session, count);
            let mut objective =
                Objective::new(&mut session, COUNT, 0, Purpose::AttackStart, 0).with_gradient(&gradient);
            friendly.perturb(&mut objective).unwrap();
            let found = session.read_adversarial(COUNT).unwrap();
            let key = format!("friendly.{name}");
            all_but_a_few(&key, &found, &golden.real(&key).1);
        }
    }
}

/// Where two predictions are nearly one, rounding decides some signs of the gradient of their divergence: of
/// the 1782 values, three may have gone one step the other way.
fn all_but_a_few(name: &str, found: &[f32], expected: &[f32]) {
    let step = 0.5 / 255.0;
    let apart: Vec<f32> = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).collect();
    assert_eq!(found.len(), COUNT * LEN);
    assert!(apart.iter().all(|d| *d <= 2.0 * step + 1e-5), "{name}: further apart than one step each way");
    let outliers = apart.iter().filter(|d| **d > 1e-5).count();
    assert!(outliers <= 3, "{name}: {outliers} values differ");
}

#[test]
fn n_fgsm_follows_pytorch() {
    let golden = Golden::open("adversaries.safetensors");
    let attack = recipe("fast", &["attack.kind=n-fgsm", "attack.eps=4/255", "attack.step=4/255"]).attack;
    for device in [Device::cpu(), gpu()] {
        let mut session = doubtful(device, &golden);
        let found = run(&mut session, &*attack.build(attack.eps.0, 0, 1).unwrap());
        assert_close("n_fgsm", &found, &golden.real("n_fgsm").1, Tolerance::Approximate);
    }
}
