//! Checked access to the protobuf messages: attributes, dimensions and tensor values.
//!
//! A file is never trusted: no number of it sizes an allocation before it was compared with the
//! bytes that are really there.

use half::f16;
use tract_onnx::pb::attribute_proto::AttributeType;
use tract_onnx::pb::tensor_proto::{DataLocation, DataType};
use tract_onnx::pb::{AttributeProto, NodeProto, TensorProto};

/// Why a node cannot become a layer.
#[derive(Debug)]
pub(super) enum Fault {
    /// Sound ONNX that Adamant does not have.
    Unsupported(String),
    /// The file contradicts itself.
    Damaged(String),
    /// An input comes from a node that was already reported.
    Unknown,
}

/// The outcome of reading a part of one node.
pub(super) type Step<T> = Result<T, Fault>;

pub(super) fn unsupported<T>(message: impl Into<String>) -> Step<T> {
    Err(Fault::Unsupported(message.into()))
}

pub(super) fn damaged<T>(message: impl Into<String>) -> Step<T> {
    Err(Fault::Damaged(message.into()))
}

/// Kernel sizes, strides, pads and the like are far below this; larger ones would overflow later.
const MAX_EXTENT: i64 = 1 << 20;

/// A size or an amount of padding as `usize`, within sane bounds.
pub(super) fn extent(value: i64, what: &str) -> Step<usize> {
    match value {
        0..=MAX_EXTENT => Ok(value as usize),
        _ => damaged(format!("{what} is {value}")),
    }
}

/// The node's name, or the name of its first output where an exporter gave it none.
pub(crate) fn node_name(node: &NodeProto) -> &str {
    match node.output.first() {
        Some(output) if node.name.is_empty() => output,
        _ => &node.name,
    }
}

/// The attributes of one node.
#[derive(Clone, Copy)]
pub(super) struct Attributes<'a>(pub &'a NodeProto);

impl<'a> Attributes<'a> {
    fn find(self, name: &str, kind: AttributeType) -> Step<Option<&'a AttributeProto>> {
        let Some(found) = self.0.attribute.iter().find(|a| a.name == name) else {
            return Ok(None);
        };
        // Files of the first IR versions leave the type out.
        if found.r#type != kind as i32 && found.r#type != AttributeType::Undefined as i32 {
            return damaged(format!("attribute '{name}' is not of type {}", kind.as_str_name()));
        }
        Ok(Some(found))
    }

    pub(super) fn int(self, name: &str) -> Step<Option<i64>> {
        Ok(self.find(name, AttributeType::Int)?.map(|a| a.i))
    }

    pub(super) fn int_or(self, name: &str, default: i64) -> Step<i64> {
        Ok(self.int(name)?.unwrap_or(default))
    }

    pub(super) fn float(self, name: &str) -> Step<Option<f32>> {
        Ok(self.find(name, AttributeType::Float)?.map(|a| a.f))
    }

    pub(super) fn ints(self, name: &str) -> Step<Option<&'a [i64]>> {
        Ok(self.find(name, AttributeType::Ints)?.map(|a| a.ints.as_slice()))
    }

    pub(super) fn floats(self, name: &str) -> Step<Option<&'a [f32]>> {
        Ok(self.find(name, AttributeType::Floats)?.map(|a| a.floats.as_slice()))
    }

    pub(super) fn text_or(self, name: &str, default: &'a str) -> Step<&'a str> {
        match self.find(name, AttributeType::String)? {
            None => Ok(default),
            Some(a) => str::from_utf8(&a.s).or_else(|_| damaged(format!("attribute '{name}' is not UTF-8"))),
        }
    }

    pub(super) fn tensor(self, name: &str) -> Step<Option<&'a TensorProto>> {
        match self.find(name, AttributeType::Tensor)? {
            None => Ok(None),
            Some(AttributeProto { t: Some(tensor), .. }) => Ok(Some(tensor)),
            Some(_) => damaged(format!("attribute '{name}' holds no tensor")),
        }
    }

    /// A pair of positive sizes along height and width.
    pub(super) fn pair(self, name: &str) -> Step<Option<[usize; 2]>> {
        match self.ints(name)? {
            None => Ok(None),
            Some(&[h, w]) if h > 0 && w > 0 => Ok(Some([extent(h, name)?, extent(w, name)?])),
            Some(other) => damaged(format!("{name} is {other:?}, not two positive sizes")),
        }
    }
}

/// The name of an element type, as the ONNX specification writes it.
pub(super) fn type_name(data_type: i32) -> String {
    DataType::try_from(data_type)
        .map_or_else(|_| format!("of unknown type {data_type}"), |t| t.as_str_name().to_owned())
}

pub(super) fn is_float(tensor: &TensorProto) -> bool {
    tensor.data_type == DataType::Float as i32
}

/// Whether a tensor holds halves or eight bits.
pub(super) fn is_compact(tensor: &TensorProto) -> bool {
    let found = DataType::try_from(tensor.data_type);
    matches!(found, Ok(DataType::Float16 | DataType::Int8 | DataType::Uint8))
}

/// The numbers of a tensor of halves or eight bits.
pub(super) fn compact(tensor: &TensorProto) -> Step<Vec<f32>> {
    let count: usize = dims(tensor)?.iter().product();
    let listed = |number: fn(i32) -> f32| tensor.int32_data.iter().map(|&v| number(v)).collect();
    let raw = !tensor.raw_data.is_empty();
    let values: Vec<f32> = match DataType::try_from(tensor.data_type) {
        Ok(DataType::Float16) if raw => {
            raw_elements(tensor, count)?.into_iter().map(|b| f16::from_le_bytes(b).to_f32()).collect()
        }
        Ok(DataType::Float16) => listed(|v| f16::from_bits(v as u16).to_f32()),
        Ok(DataType::Int8) if raw => {
            raw_elements::<1>(tensor, count)?.into_iter().map(|[b]| f32::from(b as i8)).collect()
        }
        Ok(DataType::Uint8) if raw => {
            raw_elements::<1>(tensor, count)?.into_iter().map(|[b]| f32::from(b)).collect()
        }
        Ok(DataType::Int8) => listed(|v| f32::from(v as i8)),
        Ok(DataType::Uint8) => listed(|v| f32::from(v as u8)),
        _ => return unsupported(type_name(tensor.data_type)),
    };
    if values.len() != count {
        return length_fault(tensor, count, values.len(), "values");
    }
    Ok(values)
}

/// Number of elements, or `None` when it overflows.
pub(super) fn element_count(dims: &[usize]) -> Option<usize> {
    dims.iter().try_fold(1usize, |a, &d| a.checked_mul(d)).filter(|&n| n <= isize::MAX as usize / 16)
}

/// The dimensions of a tensor, once their product is known to fit.
pub(super) fn dims(tensor: &TensorProto) -> Step<Vec<usize>> {
    let found: Result<Vec<usize>, _> = tensor.dims.iter().map(|&d| usize::try_from(d)).collect();
    match found {
        Ok(dims) if element_count(&dims).is_some() => Ok(dims),
        _ => damaged(format!("tensor '{}' has the dimensions {:?}", tensor.name, tensor.dims)),
    }
}

pub(super) fn is_external(tensor: &TensorProto) -> bool {
    tensor.data_location == Some(DataLocation::External as i32)
}

/// Whether the values were taken out, as in the skeleton that an export fills in.
pub(super) fn is_stripped(tensor: &TensorProto) -> bool {
    tensor.raw_data.is_empty() && tensor.float_data.is_empty()
}

fn length_fault<T>(tensor: &TensorProto, expected: usize, found: usize, unit: &str) -> Step<T> {
    damaged(format!(
        "tensor '{}' of dimensions {:?} needs {expected} {unit}, the file holds {found}",
        tensor.name, tensor.dims
    ))
}

/// Splits raw data into elements of `N` bytes, `count` of them.
fn raw_elements<const N: usize>(tensor: &TensorProto, count: usize) -> Step<Vec<[u8; N]>> {
    if tensor.raw_data.len() != count * N {
        return length_fault(tensor, count * N, tensor.raw_data.len(), "bytes");
    }
    let (elements, _) = tensor.raw_data.as_chunks::<N>();
    Ok(elements.to_vec())
}

/// Checks that an f32 tensor holds as many values as its dimensions say.
pub(super) fn check_floats(tensor: &TensorProto, dims: &[usize]) -> Step<()> {
    let count: usize = dims.iter().product();
    match (tensor.raw_data.len(), tensor.float_data.len()) {
        (0, n) if n == count => Ok(()),
        (0, n) => length_fault(tensor, count, n, "values"),
        (n, _) if n == count * 4 => Ok(()),
        (n, _) => length_fault(tensor, count * 4, n, "bytes"),
    }
}

/// The values of an f32 tensor.
pub(super) fn floats(tensor: &TensorProto) -> Step<Vec<f32>> {
    let dims = dims(tensor)?;
    check_floats(tensor, &dims)?;
    if tensor.raw_data.is_empty() {
        return Ok(tensor.float_data.clone());
    }
    let bytes = raw_elements(tensor, dims.iter().product())?;
    Ok(bytes.into_iter().map(f32::from_le_bytes).collect())
}

/// The values of an integer or boolean tensor, or `None` when it is of another type.
pub(super) fn ints(tensor: &TensorProto) -> Step<Option<Vec<i64>>> {
    let count: usize = dims(tensor)?.iter().product();
    let raw = !tensor.raw_data.is_empty();
    let values: Vec<i64> = match DataType::try_from(tensor.data_type) {
        Ok(DataType::Int64) if raw => {
            raw_elements(tensor, count)?.into_iter().map(i64::from_le_bytes).collect()
        }
        Ok(DataType::Int32) if raw => {
            raw_elements(tensor, count)?.into_iter().map(|b| i64::from(i32::from_le_bytes(b))).collect()
        }
        Ok(DataType::Bool) if raw => {
            raw_elements::<1>(tensor, count)?.into_iter().map(|[b]| i64::from(b != 0)).collect()
        }
        Ok(DataType::Int64) => tensor.int64_data.clone(),
        Ok(DataType::Int32 | DataType::Bool) => tensor.int32_data.iter().map(|&v| i64::from(v)).collect(),
        _ => return Ok(None),
    };
    if values.len() != count {
        return length_fault(tensor, count, values.len(), "values");
    }
    Ok(Some(values))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(dims: &[i64], data_type: DataType) -> TensorProto {
        TensorProto { dims: dims.to_vec(), data_type: data_type as i32, ..TensorProto::default() }
    }

    #[test]
    fn floats_are_read_from_both_places() {
        let mut raw = tensor(&[2], DataType::Float);
        raw.raw_data = [1.5f32, -2.0].iter().flat_map(|v| v.to_le_bytes()).collect();
        assert_eq!(floats(&raw).unwrap(), [1.5, -2.0]);
        let mut listed = tensor(&[2], DataType::Float);
        listed.float_data = vec![1.5, -2.0];
        assert_eq!(floats(&listed).unwrap(), [1.5, -2.0]);
    }

    #[test]
    fn dimensions_are_compared_with_the_bytes_present() {
        for dims in [&[3][..], &[i64::MAX, i64::MAX], &[-1], &[1 << 40]] {
            let mut t = tensor(dims, DataType::Float);
            t.raw_data = vec![0; 8];
            assert!(matches!(floats(&t), Err(Fault::Damaged(_))), "{dims:?}");
            t.data_type = DataType::Int64 as i32;
            assert!(matches!(ints(&t), Err(Fault::Damaged(_))), "{dims:?}");
        }
    }

    #[test]
    fn integers_of_every_width_are_read() {
        let mut t = tensor(&[2], DataType::Int32);
        t.raw_data = [7i32, -1].iter().flat_map(|v| v.to_le_bytes()).collect();
        assert_eq!(ints(&t).unwrap(), Some(vec![7, -1]));
        let mut t = tensor(&[], DataType::Int64);
        t.int64_data = vec![i64::MAX];
        assert_eq!(ints(&t).unwrap(), Some(vec![i64::MAX]));
        assert_eq!(ints(&tensor(&[0], DataType::Double)).unwrap(), None);
    }
}
