use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::tensor_shape_proto::dimension;
use tract_onnx::pb::{GraphProto, NodeProto, type_proto};

use super::*;
use crate::export::to_onnx;
use crate::network::{Layer, Role, Source};
use crate::ops::{AvgPool, BatchNorm, Conv2d, Op, Relu, Window};
use crate::shape::Shape;

const GOLDEN: &[u8] = include_bytes!("../../../tests/golden/tiny_resnet.onnx");

fn path() -> &'static Path {
    Path::new("model.onnx")
}

/// Convolution, BatchNorm, ReLU, BatchNorm, global average, linear.
fn tiny() -> Model {
    let mut parameters = Vec::new();
    let mut values = Vec::new();
    let mut parameter = |name: &str, shape: Shape, role: Role| {
        parameters.push(Parameter { name: name.into(), shape, role });
        let data = (0..shape.len()).map(|i| ((i * 7 + parameters.len()) % 11) as f32 / 8.0 + 0.125).collect();
        values.push(Tensor::new(shape, data));
        Source::Parameter(parameters.len() - 1)
    };
    let mut norm = |name: &str, input: usize| {
        let roles = [
            ("weight", Role::Scale),
            ("bias", Role::Shift),
            ("mean", Role::RunningMean),
            ("var", Role::RunningVariance),
        ];
        let mut inputs = vec![Source::Layer(input)];
        inputs.extend(roles.map(|(kind, role)| parameter(&format!("{name}.{kind}"), Shape::vector(4), role)));
        Layer { name: name.into(), op: Op::BatchNorm(BatchNorm { epsilon: 1e-5, momentum: 0.1 }), inputs }
    };
    let (norm1, norm2) = (norm("norm1", 0), norm("norm2", 2));
    let weight = parameter("conv.weight", Shape([3, 3, 3, 4]), Role::Weight);
    let conv = Conv2d { stride: [2, 2], pads: [1, 1, 1, 1], ..Conv2d::LINEAR };
    let pool = AvgPool { window: Window::global(4, 3), count_include_pad: false };
    let linear = vec![
        Source::Layer(4),
        parameter("fc.weight", Shape([1, 1, 4, 5]), Role::Weight),
        parameter("fc.bias", Shape::vector(5), Role::Bias),
    ];
    let layer = |name: &str, op: Op, inputs: Vec<Source>| Layer { name: name.into(), op, inputs };
    let layers = vec![
        layer("conv", Op::Conv2d(conv), vec![Source::Image, weight]),
        norm1,
        layer("relu", Op::Relu(Relu::PLAIN), vec![Source::Layer(1)]),
        norm2,
        layer("pool", Op::AvgPool(pool), vec![Source::Layer(3)]),
        layer("fc", Op::Conv2d(Conv2d::LINEAR), linear),
    ];
    let network = Network { input: [3, 8, 6], parameters, layers, output: Source::Layer(5) };
    let preprocessing = Preprocessing::none(3);
    Model { network, values, preprocessing, labels: vec![], onnx_skeleton: vec![] }
}

fn proto() -> ModelProto {
    decode(&to_onnx(&tiny()).unwrap(), path()).unwrap()
}

fn graph(model: &mut ModelProto) -> &mut GraphProto {
    model.graph.as_mut().unwrap()
}

fn node<'a>(model: &'a mut ModelProto, name: &str) -> &'a mut NodeProto {
    graph(model).node.iter_mut().find(|n| n.name == name).unwrap()
}

fn read(model: &ModelProto) -> Result<Model> {
    import_bytes(&model.encode_to_vec(), path())
}

fn message(model: &ModelProto) -> String {
    read(model).unwrap_err().to_string()
}

/// The value of a parameter by its name.
fn value<'a>(model: &'a Model, name: &str) -> &'a Tensor {
    let index = model.network.parameters.iter().position(|p| p.name == name);
    &model.values[index.unwrap_or_else(|| panic!("no parameter {name}"))]
}

/// Images whose values have no pattern.
fn images(count: usize) -> Vec<f32> {
    (0..count).map(|i| (i * 7919 % 1009) as f32 / 1009.0).collect()
}

#[test]
fn a_network_written_as_onnx_reads_back_the_same() {
    let model = tiny();
    let found = read(&proto()).unwrap();
    assert_eq!(found.network.layers.len(), model.network.layers.len());
    for (parameter, tensor) in model.network.parameters.iter().zip(&model.values) {
        assert_eq!(value(&found, &parameter.name), tensor, "{}", parameter.name);
    }
    let ops = |m: &Model| m.network.layers.iter().map(|l| l.op.clone()).collect::<Vec<_>>();
    assert_eq!(ops(&found), ops(&model));
}

#[test]
fn an_unchanged_model_is_exported_byte_for_byte() {
    let model = import_bytes(GOLDEN, path()).unwrap();
    let original = decode(GOLDEN, path()).unwrap().encode_to_vec();
    assert_eq!(to_onnx(&model).unwrap(), original);
    assert!(model.onnx_skeleton.len() < original.len() / 2, "the skeleton still holds the weights");
}

#[test]
fn changed_parameters_are_written_back() {
    let mut model = import_bytes(GOLDEN, path()).unwrap();
    for (parameter, tensor) in model.network.parameters.iter().zip(&mut model.values) {
        if parameter.role != Role::Constant {
            tensor.data.iter_mut().enumerate().for_each(|(i, v)| *v += 0.001 * i as f32);
        }
    }
    let again = import_bytes(&to_onnx(&model).unwrap(), path()).unwrap();
    assert_eq!(again.values, model.values);
    assert_eq!(again.onnx_skeleton, model.onnx_skeleton);
}

#[test]
fn a_generated_file_computes_the_same_logits() {
    let mut model = import_bytes(GOLDEN, path()).unwrap();
    let [c, h, w] = model.network.input;
    let images = images(2 * c * h * w);
    let expected = reference_logits_bytes(GOLDEN, path(), &images, 2).unwrap();
    model.onnx_skeleton.clear();
    let found = reference_logits_bytes(&to_onnx(&model).unwrap(), path(), &images, 2).unwrap();
    assert_eq!(found.len(), 2 * model.network.classes().unwrap());
    for (a, b) in found.iter().zip(&expected) {
        assert!((a - b).abs() < 1e-4, "{found:?} {expected:?}");
    }
}

#[test]
fn the_reference_takes_any_number_of_images_from_a_fixed_batch() {
    let mut fixed = proto();
    let dynamic = fixed.encode_to_vec();
    let Some(type_proto::Value::TensorType(tensor)) =
        graph(&mut fixed).input[0].r#type.as_mut().unwrap().value.as_mut()
    else {
        panic!("the input is a tensor")
    };
    tensor.shape.as_mut().unwrap().dim[0].value = Some(dimension::Value::DimValue(2));
    let images = images(3 * 3 * 8 * 6);
    let a = reference_logits_bytes(&fixed.encode_to_vec(), path(), &images, 3).unwrap();
    let b = reference_logits_bytes(&dynamic, path(), &images, 3).unwrap();
    assert_eq!(a.len(), 15);
    assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-5), "{a:?} {b:?}");
    assert!(reference_logits_bytes(&dynamic, path(), &images[1..], 3).is_err());
}

/// Makes the second BatchNorm read the first one's tensors, through Identity nodes.
fn shared_by_identity() -> ModelProto {
    let mut model = proto();
    for (input, kind) in ["weight", "bias", "mean", "var"].into_iter().enumerate() {
        let copy = format!("norm2.{kind}.copy");
        node(&mut model, "norm2").input[input + 1].clone_from(&copy);
        let identity = NodeProto {
            op_type: "Identity".into(),
            input: vec![format!("norm1.{kind}")],
            output: vec![copy],
            ..NodeProto::default()
        };
        graph(&mut model).node.insert(0, identity);
    }
    model
}

#[test]
fn parameters_that_an_exporter_merged_train_apart() {
    let original = shared_by_identity();
    let mut model = read(&original).unwrap();
    assert_eq!(model.network.parameters.len(), 11);
    assert_eq!(to_onnx(&model).unwrap(), original.encode_to_vec(), "unchanged, it stays one tensor");
    let index = model.network.parameters.iter().rposition(|p| p.role == Role::RunningMean).unwrap();
    model.values[index].data[0] = 9.0;
    let exported = decode(&to_onnx(&model).unwrap(), path()).unwrap();
    let initializers = |m: &ModelProto| m.graph.as_ref().unwrap().initializer.len();
    assert_eq!(initializers(&exported), initializers(&original) + 1);
    let again = read(&exported).unwrap();
    assert_eq!(again.values, model.values);
}

#[test]
fn a_tensor_used_twice_is_one_parameter_but_running_statistics_are_not() {
    let mut model = proto();
    for (input, kind) in ["weight", "bias", "mean", "var"].into_iter().enumerate() {
        node(&mut model, "norm2").input[input + 1] = format!("norm1.{kind}");
    }
    let roles: Vec<Role> = read(&model).unwrap().network.parameters.iter().map(|p| p.role).collect();
    let count = |role| roles.iter().filter(|&&r| r == role).count();
    assert_eq!([Role::Scale, Role::Shift, Role::RunningMean, Role::RunningVariance].map(count), [1, 1, 2, 2]);
}

#[test]
fn every_unsupported_node_is_named() {
    let mut model = proto();
    node(&mut model, "relu").op_type = "Selu".into();
    node(&mut model, "pool").op_type = "LpPool".into();
    let output = NodeProto {
        op_type: "Softmax".into(),
        name: "probabilities".into(),
        input: vec!["logits".into()],
        output: vec!["output".into()],
        ..NodeProto::default()
    };
    graph(&mut model).node.push(output);
    "output".clone_into(&mut graph(&mut model).output[0].name);
    let Err(Error::Unsupported { nodes, .. }) = read(&model) else { panic!("it was read") };
    assert_eq!(nodes.len(), 3, "{nodes:?}");
    assert!(nodes[0].starts_with("Selu 'relu'") && nodes[1].starts_with("LpPool 'pool'"), "{nodes:?}");
    assert!(nodes[2].contains("Softmax 'probabilities' (remove it"), "{nodes:?}");
}

#[test]
fn training_mode_is_read_as_inference() {
    let mut model = proto();
    for name in ["norm1", "norm2"] {
        let norm = node(&mut model, name);
        norm.output.extend([format!("{name}.new_mean"), format!("{name}.new_var")]);
    }
    let bytes = model.encode_to_vec();
    let (_, notes) = finish(load(&bytes, path(), None).unwrap(), path()).unwrap();
    assert_eq!(notes.batch_norm, BatchNormState::Found { layers: 2, training_mode: 2 });
    // tract insists on one output; the reference run must still work.
    reference_logits_bytes(&bytes, path(), &images(3 * 8 * 6), 1).unwrap();
}

#[test]
fn damaged_files_are_refused_with_the_place() {
    let mut cyclic = proto();
    "norm2".clone_into(&mut node(&mut cyclic, "norm1").input[0]);
    assert!(message(&cyclic).contains("'norm1'"), "{}", message(&cyclic));

    let mut short = proto();
    graph(&mut short).initializer[0].raw_data.pop();
    let name = graph(&mut short).initializer[0].name.clone();
    assert!(message(&short).contains(&name), "{}", message(&short));

    let mut infinite = proto();
    let tensor = graph(&mut infinite).initializer.iter_mut().find(|t| t.name == "fc.bias").unwrap();
    tensor.raw_data = bytes_of(&[f32::NAN; 5]);
    assert!(message(&infinite).contains("'fc.bias'"), "{}", message(&infinite));

    let mut half = proto();
    let tensor = graph(&mut half).initializer.iter_mut().find(|t| t.name == "conv.weight").unwrap();
    tensor.data_type = DataType::Float16 as i32;
    assert!(message(&half).contains("FLOAT16"), "{}", message(&half));

    assert!(import_bytes(&GOLDEN[..GOLDEN.len() / 2], path()).is_err());
    assert!(import_bytes(b"", path()).is_err());
}

#[test]
fn a_dynamic_image_size_is_refused_with_the_remedy() {
    let mut model = proto();
    let Some(type_proto::Value::TensorType(tensor)) =
        graph(&mut model).input[0].r#type.as_mut().unwrap().value.as_mut()
    else {
        panic!("the input is a tensor")
    };
    tensor.shape.as_mut().unwrap().dim[3].value = None;
    let message = message(&model);
    assert!(message.contains("'input'") && message.contains("fixed image size"), "{message}");
}
