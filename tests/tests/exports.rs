//! What goes out in other formats is what went in: ONNX of every precision, and safetensors.

use adamant::package::{Package, Precision, Provenance};
use adamant::{
    Architecture, Model, Purpose, Role, Stream, Tensor, import_bytes, to_onnx, to_onnx_as, to_safetensors,
};
use safetensors::{Dtype, SafeTensors};

const PRECISIONS: [Precision; 3] = [Precision::F32, Precision::F16, Precision::Int8];

/// Models of every layer that an export writes: trained statistics are any positive numbers.
fn models() -> Vec<(&'static str, Model)> {
    let mut found = Vec::new();
    for (name, input) in [("resnet8", [3, 8, 9]), ("preact-resnet18", [3, 8, 8]), ("mnist-cnn", [1, 28, 28])]
    {
        let mut model = Architecture::build(name, input, 4, 2).expect("it is known");
        let stream = Stream::new(2, Purpose::Probe, 0, 0);
        for (row, (value, parameter)) in model.values.iter_mut().zip(&model.network.parameters).enumerate() {
            if parameter.role == Role::RunningVariance || parameter.role == Role::Scale {
                let number = |i| 0.5 + stream.uniform(row as u32, i as u32);
                value.data = (0..value.data.len()).map(number).collect();
            }
        }
        found.push((name, model.folded()));
        found.push((name, model));
    }
    found
}

/// The model as a package of this precision gives it back.
fn packed(model: &Model, precision: Precision) -> Model {
    let package = Package { precision, ..Package::new(model.clone(), Provenance::default()) };
    let bytes = package.to_bytes("x").expect("it is sound");
    Package::from_bytes(&bytes, "x").expect("it is sound").model
}

fn bits(values: &[Tensor]) -> Vec<(adamant::Shape, Vec<u32>)> {
    values.iter().map(|t| (t.shape, t.data.iter().map(|v| v.to_bits()).collect())).collect()
}

/// Parameters in the order of their names: an import finds them in the order of the nodes.
fn by_name(model: &Model) -> Vec<(String, adamant::Shape, Vec<u32>)> {
    let bits = bits(&model.values);
    let names = model.network.parameters.iter().map(|p| p.name.clone());
    let mut found: Vec<_> = names.zip(bits).map(|(n, (s, b))| (n, s, b)).collect();
    found.sort_by(|a, b| a.0.cmp(&b.0));
    found
}

#[test]
fn an_import_gives_back_the_packages_weights_to_the_bit() {
    for (name, model) in models() {
        for precision in PRECISIONS {
            let packed = packed(&model, precision);
            let file = to_onnx_as(&packed, precision).expect("it has an ONNX form");
            let mut read = import_bytes(&file, name.as_ref()).expect("it is ONNX");
            // What a node computes gets a number behind its name.
            for parameter in &mut read.network.parameters {
                if precision != Precision::F32 && parameter.role == Role::Weight {
                    parameter.name = parameter.name.trim_end_matches("_2").to_owned();
                }
            }
            assert_eq!(by_name(&read), by_name(&packed), "{name}, {precision:?}");
            // And once more: the same numbers are stored as the same bytes.
            assert_eq!(to_onnx_as(&packed, precision).expect("it has an ONNX form"), file);
            let whole = to_onnx(&model).expect("it has an ONNX form").len();
            let most = [1.0, 0.62, 0.45][PRECISIONS.iter().position(|p| *p == precision).expect("one")];
            assert!(file.len() as f64 <= most * whole as f64, "{name}: {} of {whole}", file.len());
        }
    }
}

#[test]
fn safetensors_hold_the_state_dict() {
    for (name, model) in models() {
        for precision in PRECISIONS {
            let packed = packed(&model, precision);
            let bytes = to_safetensors(&packed, precision).expect("it has a form");
            let found = SafeTensors::deserialize(&bytes).expect("it is safetensors");
            assert_eq!(found.len(), packed.values.len(), "{name}");
            for (parameter, value) in packed.network.parameters.iter().zip(&packed.values) {
                let tensor = found.tensor(&parameter.name).expect(&parameter.name);
                let half = precision == Precision::F16 && parameter.role == Role::Weight;
                assert_eq!(tensor.dtype(), if half { Dtype::F16 } else { Dtype::F32 });
                // Output channels come first there, last here.
                let [h, w, i, o] = value.shape.0;
                let dims: Vec<usize> = match tensor.shape().len() {
                    4 => vec![o, i, h, w],
                    2 => vec![o, i],
                    _ => vec![o],
                };
                assert_eq!(tensor.shape(), dims, "{}", parameter.name);
                if half {
                    continue;
                }
                let (numbers, _) = tensor.data().as_chunks::<4>();
                for (at, number) in numbers.iter().enumerate() {
                    let (o_, i_) = (at / (i * h * w), at / (h * w) % i);
                    let (h_, w_) = (at / w % h, at % w);
                    let here = value.data[((h_ * w + w_) * i + i_) * o + o_];
                    assert_eq!(f32::from_le_bytes(*number).to_bits(), here.to_bits(), "{}", parameter.name);
                }
            }
        }
    }
}
