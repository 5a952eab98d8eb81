//! Single operations against PyTorch, on both executors.

use std::collections::BTreeSet;

use adamant::op::{
    AvgPool, AvgPoolGrad, BatchNorm, BatchNormGrad, BatchNormParameterGrad, BatchNormTrain,
    BatchNormTrainGrad, ChannelSum, Conv2d, Conv2dGradInput, Conv2dGradWeight, CrossEntropy,
    CrossEntropyGrad, MaxPool, MaxPoolGrad, Op, Relu, ReluGrad, RunningStatistics, Window,
};
use adamant::{Device, Shape, Tensor};
use adamant_tests::layout::{nchw_to_nhwc, oihw_to_hwio};
use adamant_tests::run::run;
use adamant_tests::{Case, Failures, Golden, Input, Tolerance, compare, golden, gpu};
use serde_json::Value;

#[test]
fn cpu() {
    check(&mut Device::cpu());
}

#[test]
fn gpu_adapter() {
    check(&mut gpu());
}

/// A case of `ops.json` with its tensors.
struct Reference<'a> {
    golden: &'a Golden,
    attributes: &'a Value,
    name: &'a str,
}

/// One operation of ours with the values that PyTorch computed, by their names.
struct Check {
    case: Case,
    expected: Vec<(&'static str, Tensor)>,
}

fn check(device: &mut Device) {
    let golden = Golden::open("ops.safetensors");
    let path = golden::folder().join("ops.json");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let list: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let mut failures = Failures::new();
    for attributes in list.as_array().expect("a list of cases") {
        let name = attributes["name"].as_str().expect("a case has a name");
        let reference = Reference { golden: &golden, attributes, name };
        let checks = reference.checks();
        // Nothing that the file holds may go unchecked.
        let compared: BTreeSet<&str> =
            checks.iter().flat_map(|c| c.expected.iter().map(|(n, _)| *n)).collect();
        for output in ["y", "dx", "dw", "db", "new_mean", "new_var"] {
            let there = golden.has(&format!("{name}.{output}"));
            let result =
                if there == compared.contains(output) { Ok(()) } else { Err("is not compared".to_owned()) };
            failures.check(&format!("{name}.{output}"), result);
        }
        for Check { case, expected } in checks {
            let found = run(&case, device);
            for (i, (output, expected)) in expected.iter().enumerate() {
                let result = match &found {
                    Ok(found) if found[i].shape != expected.shape => {
                        Err(format!("found {:?}, expected {:?}", found[i].shape, expected.shape))
                    }
                    Ok(found) => compare(&found[i].data, &expected.data, Tolerance::Approximate),
                    Err(message) => Err(message.clone()),
                };
                failures.check(&format!("{name}.{output}"), result);
            }
        }
    }
    failures.report();
}

impl Reference<'_> {
    fn checks(&self) -> Vec<Check> {
        match self.attributes["kind"].as_str().expect("a case has a kind") {
            "conv" | "gemm" => self.convolution(),
            "maxpool" => self.max_pool(),
            "avgpool" => self.average_pool(self.window(), self.flag("count_include_pad")),
            "global_avgpool" => {
                let [_, height, width, _] = self.tensor("x").shape.0;
                self.average_pool(Window::global(height, width), true)
            }
            "batch_norm" if self.flag("training") => self.batch_norm_train(),
            "batch_norm" => self.batch_norm(),
            "cross_entropy" => self.cross_entropy(),
            "relu" => self.relu(),
            kind => panic!("{}: no test knows the kind '{kind}'", self.name),
        }
    }

    fn flag(&self, key: &str) -> bool {
        self.attributes[key].as_bool().unwrap_or_else(|| panic!("{}: '{key}' is a boolean", self.name))
    }

    fn number(&self, key: &str) -> f32 {
        self.attributes[key].as_f64().unwrap_or_else(|| panic!("{}: '{key}' is a number", self.name)) as f32
    }

    fn sizes<const N: usize>(&self, key: &str) -> [usize; N] {
        let values =
            self.attributes[key].as_array().unwrap_or_else(|| panic!("{}: '{key}' is a list", self.name));
        std::array::from_fn(|i| values[i].as_u64().expect("a whole number") as usize)
    }

    fn window(&self) -> Window {
        Window {
            kernel: self.sizes("kernel"),
            stride: self.sizes("stride"),
            pads: self.sizes("pads"),
            dilation: self.sizes("dilation"),
            ceil: self.flag("ceil"),
        }
    }

    /// A tensor in the graph's layout: vectors are per channel, matrices are activations.
    fn tensor(&self, name: &str) -> Tensor {
        let (dims, data) = self.golden.real(&format!("{}.{name}", self.name));
        match *dims {
            [n, c, h, w] => nchw_to_nhwc([n, c, h, w], &data),
            [n, c] => Tensor::new(Shape([n, 1, 1, c]), data),
            [c] => Tensor::new(Shape::vector(c), data),
            _ => panic!("{}.{name} has dimensions {dims:?}", self.name),
        }
    }

    /// A convolution's or linear layer's weight, or its gradient.
    fn weight(&self, name: &str) -> Tensor {
        let (dims, data) = self.golden.real(&format!("{}.{name}", self.name));
        match *dims {
            [o, i, h, w] => oihw_to_hwio([o, i, h, w], &data),
            [o, i] => oihw_to_hwio([o, i, 1, 1], &data),
            _ => panic!("{}.{name} has dimensions {dims:?}", self.name),
        }
    }

    fn check(&self, op: Op, inputs: &[&Tensor], expected: Vec<(&'static str, Tensor)>) -> Check {
        let inputs: Vec<Input> = inputs.iter().map(|t| given(t)).collect();
        Check { case: Case::new(self.name, op, inputs), expected }
    }

    fn convolution(&self) -> Vec<Check> {
        let conv = match self.attributes["kind"].as_str() {
            Some("gemm") => Conv2d::LINEAR,
            _ => Conv2d {
                stride: self.sizes("stride"),
                pads: self.sizes("pads"),
                dilation: self.sizes("dilation"),
                groups: self.attributes["groups"].as_u64().expect("a whole number") as usize,
            },
        };
        let (x, w, dy) = (self.tensor("x"), self.weight("w"), self.tensor("dy"));
        let [_, height, width, channels] = x.shape.0;
        let grad_input = Op::Conv2dGradInput(Conv2dGradInput { conv, input: [height, width, channels] });
        let grad_weight = Op::Conv2dGradWeight(Conv2dGradWeight { conv, weight: w.shape });
        let mut checks = vec![
            self.check(grad_input, &[&dy, &w], vec![("dx", self.tensor("dx"))]),
            self.check(grad_weight, &[&x, &dy], vec![("dw", self.weight("dw"))]),
        ];
        let (op, y) = (Op::Conv2d(conv), vec![("y", self.tensor("y"))]);
        if self.flag("bias") {
            checks.push(self.check(op, &[&x, &w, &self.tensor("b")], y));
            checks.push(self.check(Op::ChannelSum(ChannelSum), &[&dy], vec![("db", self.tensor("db"))]));
        } else {
            checks.push(self.check(op, &[&x, &w], y));
        }
        checks
    }

    fn max_pool(&self) -> Vec<Check> {
        let (window, x, dy) = (self.window(), self.tensor("x"), self.tensor("dy"));
        vec![
            self.check(Op::MaxPool(MaxPool { window }), &[&x], vec![("y", self.tensor("y"))]),
            self.check(Op::MaxPoolGrad(MaxPoolGrad { window }), &[&x, &dy], vec![("dx", self.tensor("dx"))]),
        ]
    }

    fn average_pool(&self, window: Window, count_include_pad: bool) -> Vec<Check> {
        let (x, dy) = (self.tensor("x"), self.tensor("dy"));
        let pool = AvgPool { window, count_include_pad };
        let grad = AvgPoolGrad { pool, input: [x.shape.height(), x.shape.width()] };
        vec![
            self.check(Op::AvgPool(pool), &[&x], vec![("y", self.tensor("y"))]),
            self.check(Op::AvgPoolGrad(grad), &[&dy], vec![("dx", self.tensor("dx"))]),
        ]
    }

    fn batch_norm(&self) -> Vec<Check> {
        let (x, dy, scale, shift) = (self.tensor("x"), self.tensor("dy"), self.tensor("w"), self.tensor("b"));
        let (mean, variance) = (self.tensor("mean"), self.tensor("var"));
        let (epsilon, momentum) = (self.number("eps"), self.number("momentum"));
        let forward = Op::BatchNorm(BatchNorm { epsilon, momentum });
        let sums = Op::BatchNormParameterGrad(BatchNormParameterGrad { epsilon });
        vec![
            self.check(forward, &[&x, &scale, &shift, &mean, &variance], vec![("y", self.tensor("y"))]),
            self.check(
                Op::BatchNormGrad(BatchNormGrad { epsilon }),
                &[&dy, &scale, &variance],
                vec![("dx", self.tensor("dx"))],
            ),
            self.check(
                sums,
                &[&x, &dy, &mean, &variance],
                vec![("dw", self.tensor("dw")), ("db", self.tensor("db"))],
            ),
        ]
    }

    fn batch_norm_train(&self) -> Vec<Check> {
        let (x, dy, scale, shift) = (self.tensor("x"), self.tensor("dy"), self.tensor("w"), self.tensor("b"));
        let (epsilon, momentum) = (self.number("eps"), self.number("momentum"));
        let forward = self.check(
            Op::BatchNormTrain(BatchNormTrain { epsilon }),
            &[&x, &scale, &shift],
            vec![("y", self.tensor("y"))],
        );
        // The statistics in between are nowhere in the file; those of the CPU serve the next steps.
        let outputs = run(&forward.case, &mut Device::cpu()).expect("it runs");
        let (mean, variance) = (&outputs[1], &outputs[2]);
        let backward = self.check(
            Op::BatchNormTrainGrad(BatchNormTrainGrad { epsilon }),
            &[&x, &dy, &scale, mean, variance],
            vec![("dx", self.tensor("dx")), ("dw", self.tensor("dw")), ("db", self.tensor("db"))],
        );
        let count = (x.shape.len() / x.shape.channels()) as u32;
        let mut update = self.check(
            Op::RunningStatistics(RunningStatistics { momentum, count }),
            &[mean, variance],
            vec![("new_mean", self.tensor("new_mean")), ("new_var", self.tensor("new_var"))],
        );
        update.case = update.case.updating([given(&self.tensor("mean")), given(&self.tensor("var"))]);
        vec![forward, backward, update]
    }

    fn cross_entropy(&self) -> Vec<Check> {
        let logits = self.tensor("x");
        let (_, labels) = self.golden.integers(&format!("{}.labels", self.name));
        let per_image = Shape::per_image(labels.len());
        let labels = Input::Integers(per_image, labels.iter().map(|&l| l as u32).collect());
        // One value an image, which the file holds as a vector.
        let y = Tensor::new(per_image, self.tensor("y").data);
        let dloss = Input::Given(per_image, self.tensor("dy").data);
        let gradient = Op::CrossEntropyGrad(CrossEntropyGrad);
        vec![
            Check {
                case: Case::new(self.name, Op::CrossEntropy(CrossEntropy), [given(&logits), labels.clone()]),
                expected: vec![("y", y)],
            },
            Check {
                case: Case::new(self.name, gradient, [given(&logits), labels, dloss]),
                expected: vec![("dx", self.tensor("dx"))],
            },
        ]
    }

    fn relu(&self) -> Vec<Check> {
        let (x, y, dy) = (self.tensor("x"), self.tensor("y"), self.tensor("dy"));
        let grad = Op::ReluGrad(ReluGrad { max: f32::INFINITY });
        vec![
            self.check(Op::Relu(Relu::PLAIN), &[&x], vec![("y", y.clone())]),
            self.check(grad, &[&y, &dy], vec![("dx", self.tensor("dx"))]),
        ]
    }
}

fn given(tensor: &Tensor) -> Input {
    Input::Given(tensor.shape, tensor.data.clone())
}
