use tract_onnx::pb::AttributeProto;
use tract_onnx::pb::attribute_proto::AttributeType;

use super::super::proto::Fault;
use super::*;

fn node(op_type: &str, attribute: Vec<AttributeProto>) -> NodeProto {
    let output = vec!["y".to_owned()];
    NodeProto { op_type: op_type.into(), output, attribute, ..NodeProto::default() }
}

fn int(name: &str, i: i64) -> AttributeProto {
    AttributeProto { name: name.into(), r#type: AttributeType::Int as i32, i, ..AttributeProto::default() }
}

fn ints(name: &str, ints: &[i64]) -> AttributeProto {
    let ints = ints.to_vec();
    AttributeProto {
        name: name.into(),
        r#type: AttributeType::Ints as i32,
        ints,
        ..AttributeProto::default()
    }
}

fn constant<'a>(dims: &[usize], values: &[i64]) -> Constant<'a> {
    let data = Data::Int(values.iter().copied().map(Some).collect());
    Constant { name: "x", dims: dims.to_vec(), data, tensor: None }
}

fn vector<'a>(values: &[i64]) -> Constant<'a> {
    constant(&[values.len()], values)
}

/// Dimensions and values of the node's output.
fn run(node: &NodeProto, inputs: &[Constant<'_>]) -> Step<(Vec<usize>, Vec<Option<i64>>)> {
    let inputs: Vec<_> = inputs.iter().cloned().map(Some).collect();
    let inputs: Vec<_> = inputs.iter().map(Option::as_ref).collect();
    let found = evaluate(node, &inputs, &mut Budget::of(0))?;
    Ok((found.dims.clone(), found.ints()?.to_vec()))
}

fn values(node: &NodeProto, inputs: &[Constant<'_>]) -> Vec<i64> {
    run(node, inputs).unwrap().1.into_iter().map(Option::unwrap).collect()
}

fn is_damaged(node: &NodeProto, inputs: &[Constant<'_>]) -> bool {
    matches!(run(node, inputs), Err(Fault::Damaged(_)))
}

#[test]
fn slices_follow_the_rules_of_onnx() {
    let x = vector(&[0, 1, 2, 3, 4]);
    let slice = |start: i64, end: i64, step: i64| {
        let inputs = [x.clone(), vector(&[start]), vector(&[end]), vector(&[0]), vector(&[step])];
        values(&node("Slice", vec![]), &inputs)
    };
    assert_eq!(slice(1, 4, 1), [1, 2, 3]);
    assert_eq!(slice(0, i64::MAX, 2), [0, 2, 4]);
    assert_eq!(slice(-3, -1, 1), [2, 3]);
    assert_eq!(slice(-1, i64::MIN + 1, -1), [4, 3, 2, 1, 0]);
    assert_eq!(slice(i64::MAX, i64::MIN, -2), [4, 2, 0]);
    assert_eq!(slice(3, 3, 1), [0i64; 0]);
    assert_eq!(slice(4, 1, 1), [0i64; 0]);
    assert_eq!(slice(2, 5, i64::MAX), [2]);
    let grid = constant(&[2, 3], &[0, 1, 2, 3, 4, 5]);
    let attributes = vec![ints("starts", &[1]), ints("ends", &[3]), ints("axes", &[-1])];
    assert_eq!(values(&node("Slice", attributes), &[grid]), [1, 2, 4, 5]);
    let zero_step = [x.clone(), vector(&[0]), vector(&[1]), vector(&[0]), vector(&[0])];
    assert!(is_damaged(&node("Slice", vec![]), &zero_step));
    let past = [x, vector(&[0]), vector(&[1]), vector(&[1])];
    assert!(is_damaged(&node("Slice", vec![]), &past));
}

/// The sub-graph that PyTorch writes for the padding of an option-A shortcut: pairs from the last
/// axis to the first become all the befores, then all the afters.
#[test]
fn the_padding_of_a_shortcut_is_computed() {
    let given = vector(&[0, 0, 0, 0, 4, 4]);
    let zeros = vector(&[0, 0]);
    let concat = node("Concat", vec![int("axis", 0)]);
    let joined = evaluate(&concat, &[Some(&given), Some(&zeros)], &mut Budget::of(0));
    let joined = joined.unwrap();
    let pairs = values(&node("Reshape", vec![]), &[joined, vector(&[-1, 2])]);
    let reversed =
        [constant(&[4, 2], &pairs), vector(&[-1]), vector(&[i64::MIN + 1]), vector(&[0]), vector(&[-1])];
    let reversed = values(&node("Slice", vec![]), &reversed);
    let turned = values(&node("Transpose", vec![ints("perm", &[1, 0])]), &[constant(&[4, 2], &reversed)]);
    assert_eq!(turned, [0, 4, 0, 0, 0, 4, 0, 0]);
}

#[test]
fn an_unknown_batch_stays_unknown() {
    let shape = Constant::from_ints("shape", vec![None, Some(8), Some(4), Some(4)]);
    let first = run(&node("Gather", vec![int("axis", 0)]), &[shape.clone(), constant(&[], &[0])]).unwrap();
    assert_eq!(first, (vec![], vec![None]));
    let product = run(&node("Mul", vec![]), &[shape, vector(&[2])]).unwrap();
    assert_eq!(product.1, [None, Some(16), Some(8), Some(8)]);
    let unknown = Constant::from_ints("n", vec![None]);
    assert!(matches!(run(&node("ConstantOfShape", vec![]), &[unknown]), Err(Fault::Unsupported(_))));
}

#[test]
fn arithmetic_broadcasts_and_never_overflows() {
    let column = constant(&[2, 1], &[10, 20]);
    let row = vector(&[1, 2, 3]);
    let sum = run(&node("Add", vec![]), &[column, row.clone()]).unwrap();
    assert_eq!(sum.0, [2, 3]);
    assert_eq!(sum.1.into_iter().flatten().collect::<Vec<_>>(), [11, 12, 13, 21, 22, 23]);
    assert_eq!(values(&node("Div", vec![]), &[vector(&[7, -7]), vector(&[2])]), [3, -3]);
    assert!(is_damaged(&node("Div", vec![]), &[row.clone(), vector(&[0])]));
    assert!(is_damaged(&node("Mul", vec![]), &[vector(&[i64::MAX]), vector(&[2])]));
    assert!(is_damaged(&node("Add", vec![]), &[row, vector(&[1, 2])]));
}

#[test]
fn shapes_are_rearranged() {
    let x = constant(&[2, 3], &[0, 1, 2, 3, 4, 5]);
    let dims = |op: &str, attributes: Vec<AttributeProto>, inputs: &[Constant<'_>]| {
        run(&node(op, attributes), inputs).unwrap().0
    };
    assert_eq!(dims("Reshape", vec![], &[x.clone(), vector(&[0, -1, 1])]), [2, 3, 1]);
    assert_eq!(dims("Flatten", vec![int("axis", 0)], std::slice::from_ref(&x)), [1, 6]);
    assert_eq!(dims("Unsqueeze", vec![], &[x.clone(), vector(&[0, -1])]), [1, 2, 3, 1]);
    let y = constant(&[1, 2, 1], &[7, 8]);
    assert_eq!(dims("Squeeze", vec![], std::slice::from_ref(&y)), [2]);
    assert_eq!(dims("Squeeze", vec![ints("axes", &[-1])], &[y]), [1, 2]);
    assert_eq!(dims("Expand", vec![], &[vector(&[1]), vector(&[2, 3])]), [2, 3]);
    assert_eq!(values(&node("Shape", vec![int("start", -1)]), std::slice::from_ref(&x)), [3]);
    assert_eq!(values(&node("Transpose", vec![]), std::slice::from_ref(&x)), [0, 3, 1, 4, 2, 5]);
    assert!(is_damaged(&node("Reshape", vec![]), &[x.clone(), vector(&[4, -1])]));
    assert!(is_damaged(&node("Transpose", vec![ints("perm", &[0, 0])]), &[x]));
}

#[test]
fn ranges_and_concatenations() {
    let range = |a: i64, b: i64, step: i64| [a, b, step].map(|v| constant(&[], &[v]));
    assert_eq!(values(&node("Range", vec![]), &range(2, 9, 3)), [2, 5, 8]);
    assert_eq!(values(&node("Range", vec![]), &range(3, 0, -1)), [3, 2, 1]);
    assert_eq!(values(&node("Range", vec![]), &range(0, -5, 1)), [0i64; 0]);
    let (a, b) = (constant(&[2, 1], &[1, 2]), constant(&[2, 2], &[3, 4, 5, 6]));
    let joined = run(&node("Concat", vec![int("axis", 1)]), &[a.clone(), b]).unwrap();
    assert_eq!(joined.0, [2, 3]);
    assert_eq!(joined.1.into_iter().flatten().collect::<Vec<_>>(), [1, 3, 4, 2, 5, 6]);
    assert!(is_damaged(&node("Concat", vec![int("axis", 1)]), &[a, vector(&[1])]));
}

#[test]
fn nothing_huge_is_allocated() {
    assert!(is_damaged(&node("ConstantOfShape", vec![]), &[vector(&[1 << 40])]));
    assert!(is_damaged(&node("ConstantOfShape", vec![]), &[vector(&[1 << 33, 1 << 33])]));
    let all = [0, i64::MAX, 1].map(|v| constant(&[], &[v]));
    assert!(is_damaged(&node("Range", vec![]), &all));
    assert!(is_damaged(&node("Expand", vec![]), &[vector(&[1]), vector(&[1 << 40])]));
}
