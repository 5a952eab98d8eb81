//! Pooling, padding and slicing.

use adamant::Shape;
use adamant::op::{AvgPool, AvgPoolGrad, MaxPool, MaxPoolGrad, Op, Pad, Slice, Window};

use super::{Case, Input, PAST_ONE_GRID_ROW, normal, shape};
use crate::compare::Tolerance;

/// A square window.
const fn square(kernel: usize, stride: usize, pad: usize) -> Window {
    Window { kernel: [kernel; 2], stride: [stride; 2], pads: [pad; 4], dilation: [1, 1], ceil: false }
}

const fn ceil(mut window: Window) -> Window {
    window.ceil = true;
    window
}

const fn dilated(mut window: Window, dilation: [usize; 2]) -> Window {
    window.dilation = dilation;
    window
}

/// Windows with the input that they slide over and the size of what comes out.
pub fn windows() -> Vec<(&'static str, Window, Shape, [usize; 2])> {
    let uneven = Window { kernel: [3, 2], stride: [1, 2], pads: [1, 0, 2, 1], dilation: [1, 1], ceil: false };
    vec![
        ("3x3, stride 2, padding 1", square(3, 2, 1), shape(2, 9, 7, 5), [5, 4]),
        ("2x2, stride 2", square(2, 2, 0), shape(2, 6, 8, 8), [3, 4]),
        ("2x2, stride 2, odd size", square(2, 2, 0), shape(2, 7, 5, 4), [3, 2]),
        ("3x3, stride 1", square(3, 1, 1), shape(1, 5, 6, 3), [5, 6]),
        ("stride larger than the window", square(2, 3, 0), shape(2, 8, 9, 3), [3, 3]),
        ("3x2 window, uneven pads", uneven, shape(2, 7, 6, 3), [8, 3]),
        ("130 channels", square(3, 2, 1), shape(2, 5, 4, 130), [3, 2]),
        ("ceil", ceil(square(3, 2, 0)), shape(2, 8, 6, 3), [4, 3]),
        ("ceil with padding", ceil(square(3, 2, 1)), shape(2, 8, 6, 3), [5, 4]),
        ("ceil, last window would start in the padding", ceil(square(2, 2, 1)), shape(2, 5, 7, 3), [3, 4]),
        ("ceil, stride 3", ceil(square(2, 3, 0)), shape(2, 9, 6, 3), [3, 2]),
        ("dilation 2", dilated(square(3, 1, 1), [2, 2]), shape(2, 8, 7, 3), [6, 5]),
        ("dilation 1 by 3, stride 2", dilated(square(2, 2, 1), [1, 3]), shape(2, 7, 8, 3), [4, 4]),
        ("whole image", Window::global(7, 5), shape(3, 7, 5, 6), [1, 1]),
        ("one pixel", Window::global(1, 1), shape(3, 1, 1, 6), [1, 1]),
        ("past one grid row", square(3, 1, 1), shape(1, 1050, 1000, 4), [1050, 1000]),
        (
            "past one grid row, one column",
            square(3, 1, 1),
            shape(1, PAST_ONE_GRID_ROW, 1, 1),
            [PAST_ONE_GRID_ROW, 1],
        ),
    ]
}

pub fn pools() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, window, x, [height, width]) in windows() {
        let y = shape(x.batch(), height, width, x.channels());
        let max = |name: &str, x: Input| {
            Case::new(name, Op::MaxPool(MaxPool { window }), [x]).within(Tolerance::Exact)
        };
        let max_grad = |name: &str, x: Input| {
            Case::new(name, Op::MaxPoolGrad(MaxPoolGrad { window }), [x, normal(y)]).within(Tolerance::Close)
        };
        let ties = format!("ties, {name}");
        cases.extend([max(&ties, Input::Ties(x)), max_grad(&ties, Input::Ties(x))]);
        // Other values tell nothing about size that these do not.
        if x.len() < 10_000 {
            cases.extend([max(name, Input::Distinct(x)), max_grad(name, Input::Distinct(x))]);
            cases.push(max(&format!("all negative, {name}"), Input::Uniform(x, [-9.0, -1.0])));
            cases.push(max_grad(&format!("constant, {name}"), Input::Given(x, vec![-3.0])));
        }
        for (note, count_include_pad) in [("padding counts", true), ("padding does not count", false)] {
            let pool = AvgPool { window, count_include_pad };
            let name = format!("{name}, {note}");
            cases.push(Case::new(&name, Op::AvgPool(pool), [normal(x)]));
            let op = Op::AvgPoolGrad(AvgPoolGrad { pool, input: [x.height(), x.width()] });
            cases.push(Case::new(&name, op, [normal(y)]));
        }
    }
    cases
}

const NO_PAD: Pad = Pad { before: [0; 3], after: [0; 3], interior: [0; 3], value: 0.0 };

pub fn pads() -> Vec<Case> {
    let pad =
        |name: &str, pad: Pad, x: Shape| Case::new(name, Op::Pad(pad), [normal(x)]).within(Tolerance::Exact);
    let slice = |name: &str, start: [usize; 3], step: [usize; 3], len: [usize; 3], x: Shape| {
        Case::new(name, Op::Slice(Slice { start, step, len }), [normal(x)]).within(Tolerance::Exact)
    };
    let x = shape(2, 5, 6, 4);
    let everything = Pad { before: [1, 0, 2], after: [0, 3, 1], interior: [1, 2, 1], value: 0.5 };
    // Four pixels of a row share a thread.
    let large = shape(1, PAST_ONE_GRID_ROW, 1, 1);
    vec![
        pad("nothing", NO_PAD, x),
        pad("height and width", Pad { before: [1, 2, 0], after: [3, 0, 0], ..NO_PAD }, x),
        pad("a value", Pad { before: [1; 3], value: -1.5, ..NO_PAD }, x),
        pad("channels", Pad { before: [0, 0, 2], after: [0, 0, 3], ..NO_PAD }, x),
        pad("between neighbours", Pad { interior: [1, 2, 0], ..NO_PAD }, x),
        pad("between channels", Pad { interior: [0, 0, 2], ..NO_PAD }, x),
        pad("everything at once", everything, x),
        pad(
            "one pixel",
            Pad { before: [2; 3], after: [1; 3], interior: [3; 3], ..NO_PAD },
            shape(2, 1, 1, 1),
        ),
        pad("past one grid row", Pad { before: [1, 0, 0], ..NO_PAD }, large),
        pad(
            "a width of five, channels in fours",
            Pad { before: [0, 1, 4], after: [0, 1, 0], interior: [0, 1, 0], ..NO_PAD },
            shape(2, 3, 2, 8),
        ),
        slice("five of a row, channels in fours", [0, 1, 4], [1, 2, 1], [3, 5, 4], shape(2, 3, 11, 8)),
        slice("everything", [0; 3], [1; 3], [5, 6, 4], x),
        slice("from a start", [1, 2, 0], [1; 3], [3, 4, 4], x),
        slice("every second pixel", [0; 3], [2, 2, 1], [3, 3, 4], x),
        slice("every second pixel from the second", [1, 1, 0], [2, 2, 1], [2, 3, 4], x),
        slice("channels", [0, 0, 1], [1, 1, 2], [5, 6, 2], x),
        slice("everything at once", [1, 0, 1], [3, 2, 2], [2, 3, 2], x),
        slice("one value", [4, 5, 3], [1; 3], [1; 3], x),
        slice("past one grid row", [1, 0, 0], [1; 3], [PAST_ONE_GRID_ROW - 1, 1, 1], large),
    ]
}
