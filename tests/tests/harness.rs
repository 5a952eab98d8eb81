//! The comparer must fail when it should: everything else rests on it.

use adamant::Shape;
use adamant_tests::cases::{self, Input};
use adamant_tests::{Failures, Golden, Tolerance, compare, layout};

fn message(found: &[f32], expected: &[f32]) -> String {
    compare(found, expected, Tolerance::Rough).expect_err("they differ")
}

#[test]
fn equal_numbers_agree() {
    for tolerance in Tolerance::ALL {
        compare(&[1.0, -2.5, 0.0], &[1.0, -2.5, 0.0], tolerance).expect("they are the same");
    }
}

#[test]
fn not_a_number_never_agrees() {
    for tolerance in Tolerance::ALL {
        compare(&[1.0, f32::NAN], &[1.0, 2.0], tolerance).expect_err("found NaN");
        compare(&[1.0, 2.0], &[1.0, f32::NAN], tolerance).expect_err("expected NaN");
        compare(&[f32::NAN], &[f32::NAN], tolerance).expect_err("NaN on both sides");
    }
}

#[test]
fn infinity_never_agrees() {
    for infinity in [f32::INFINITY, f32::NEG_INFINITY] {
        for tolerance in Tolerance::ALL {
            compare(&[infinity], &[1.0], tolerance).expect_err("found infinity");
            compare(&[1.0], &[infinity], tolerance).expect_err("expected infinity");
            compare(&[infinity], &[infinity], tolerance).expect_err("infinity on both sides");
        }
    }
}

#[test]
fn swapped_arrays_differ() {
    let (a, b) = ([1.0, 2.0, 3.0], [3.0, 2.0, 1.0]);
    assert!(message(&a, &b).starts_with("2 of 3 values"));
}

#[test]
fn lengths_have_to_match() {
    assert_eq!(message(&[1.0], &[1.0, 2.0]), "found 1 values, expected 2");
    assert_eq!(message(&[1.0, 2.0, 3.0], &[1.0, 2.0]), "found 3 values, expected 2");
    assert_eq!(message(&[], &[1.0]), "found 0 values, expected 1");
}

#[test]
fn nothing_is_not_a_match() {
    assert_eq!(message(&[], &[]), "there is nothing to compare");
}

#[test]
fn one_outlier_among_a_million() {
    let expected = vec![0.25; 1_000_000];
    let mut found = expected.clone();
    found[765_432] = 0.5;
    let text = message(&found, &expected);
    assert!(text.contains("1 of 1000000") && text.contains("at 765432, is 0.5 and should be 0.25"), "{text}");
    assert!(text.contains("2.500e-1"), "{text}");
}

#[test]
fn the_largest_error_need_not_be_the_first() {
    let text = message(&[0.0, 1.5, 9.0], &[0.0, 1.0, 1.0]);
    assert!(text.contains("2 of 3") && text.contains("at 1,") && text.contains("8.000e0, at 2"), "{text}");
}

#[test]
fn negative_zero_is_zero() {
    compare(&[-0.0], &[0.0], Tolerance::Exact).expect("the same number");
}

#[test]
fn exact_is_exact() {
    compare(&[1.0 + f32::EPSILON], &[1.0], Tolerance::Exact).expect_err("one unit in the last place");
}

#[test]
fn tolerances_go_from_strict_to_lenient() {
    for pair in Tolerance::ALL.windows(2) {
        assert!(pair[0] < pair[1], "{pair:?}");
        assert!(pair[0].absolute() < pair[1].absolute(), "{pair:?}");
        assert!(pair[0].relative() < pair[1].relative(), "{pair:?}");
    }
    for error in [0.0, 1e-8, 1e-6, 1e-4, 1e-2, 1.0f32] {
        let passed: Vec<bool> =
            Tolerance::ALL.iter().map(|&t| compare(&[0.5 + error], &[0.5], t).is_ok()).collect();
        assert!(passed.is_sorted(), "an error of {error} passes {passed:?}");
    }
}

#[test]
fn all_failures_are_reported() {
    let mut failures = Failures::new();
    failures.check("good", Ok(()));
    failures.check("first", Err("is wrong".into()));
    failures.check("second", Err("is wrong too".into()));
    let panic = std::panic::catch_unwind(|| failures.report()).expect_err("two checks failed");
    let text = panic.downcast_ref::<String>().expect("a message");
    assert_eq!(text, "2 of 3 checks failed:\nfirst: is wrong\nsecond: is wrong too");
}

#[test]
#[should_panic(expected = "nothing was checked")]
fn no_checks_are_a_failure() {
    Failures::new().report();
}

#[test]
#[should_panic(expected = "regenerate it with `python tests/golden/generate.py`")]
fn a_missing_reference_is_a_failure() {
    Golden::open("there_is_no_such_file.safetensors");
}

#[test]
#[should_panic(expected = "no_such_tensor")]
fn a_missing_tensor_is_a_failure() {
    Golden::open("ops.safetensors").real("no_such_tensor");
}

#[test]
fn layouts_have_inverses() {
    let values: Vec<f32> = (0..120).map(|i| i as f32).collect();
    let image = layout::nchw_to_nhwc([2, 3, 4, 5], &values);
    assert_eq!(image.shape, Shape([2, 4, 5, 3]));
    assert_eq!(image.data[..4], [0.0, 20.0, 40.0, 1.0]);
    assert_eq!(layout::nhwc_to_nchw(&image).data, values);
    let weight = layout::oihw_to_hwio([2, 3, 4, 5], &values);
    assert_eq!(weight.shape, Shape([4, 5, 3, 2]));
    assert_eq!(weight.data[..4], [0.0, 60.0, 20.0, 80.0]);
    assert_eq!(layout::hwio_to_oihw(&weight).data, values);
}

#[test]
fn inputs_are_what_they_say() {
    let case = &cases::elementwise::cases()[0];
    let values = |input: &Input| input.values(&case.stream(), 0);
    let shape = Shape::vector(501);
    let mut distinct = values(&Input::Distinct(shape));
    distinct.sort_by(f32::total_cmp);
    assert!(distinct.windows(2).all(|p| p[1] - p[0] > 1.0 / 501.0), "no ties");
    assert!(distinct.iter().all(|v| v.abs() > 1.0 / 501.0 && v.abs() < 1.1), "nothing near zero");
    let integers = values(&Input::Below(shape, 7));
    assert!(integers.iter().all(|v| v.to_bits() < 7));
    let normal = Input::Normal(shape, 1.0);
    assert_eq!(values(&normal), values(&normal));
    assert_ne!(values(&normal), normal.values(&case.stream(), 1), "two inputs of a case differ");
}

#[test]
fn names_of_cases_are_unique() {
    let mut names: Vec<String> = cases::all().into_iter().map(|c| c.name).collect();
    names.sort();
    let twice: Vec<&String> = names.windows(2).filter(|p| p[0] == p[1]).map(|p| &p[0]).collect();
    assert!(twice.is_empty(), "{twice:?}");
}
