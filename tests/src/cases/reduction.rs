//! Sums.

use adamant::Shape;
use adamant::op::{ChannelSum, ImageSpread, ImageSum, Op, Sum};

use super::{Case, Input, PAST_ONE_GRID_ROW, normal, shape};
use crate::compare::Tolerance;

pub fn cases() -> Vec<Case> {
    let channel_sum = |name: &str, x: Shape| {
        let pixels = x.len() / x.channels();
        Case::new(name, Op::ChannelSum(ChannelSum), [Input::Normal(x, 1.0 / (pixels as f32).sqrt())])
    };
    let sum = |name: &str, x: Shape, factor: f32| {
        Case::new(name, Op::Sum(Sum { factor }), [Input::Normal(x, 1.0 / (x.len() as f32).sqrt())])
    };
    let image_sum = |name: &str, x: Shape, factor: f32| {
        let op = Op::ImageSum(ImageSum { factor });
        Case::new(name, op, [Input::Normal(x, 1.0 / (x.per_batch() as f32).sqrt())])
    };
    let image_spread = |name: &str, shape: Shape| {
        let op = Op::ImageSpread(ImageSpread { factor: -1.3, shape });
        Case::new(name, op, [normal(Shape::per_image(shape.batch()))]).within(Tolerance::Close)
    };
    vec![
        image_sum("one value an image", Shape::per_image(7), 1.0),
        image_sum("one image", shape(1, 3, 5, 7), -2.0),
        image_sum("ten values", shape(128, 1, 1, 10), 1.0),
        image_sum("a part that is not full", shape(5, 8, 8, 3), 0.7),
        image_sum("many values", shape(3, 65, 64, 16), 1.0),
        image_sum("past one grid row", shape(PAST_ONE_GRID_ROW, 1, 1, 2), 1.0),
        image_spread("one value an image", Shape::per_image(7)),
        image_spread("ten values", shape(128, 1, 1, 10)),
        image_spread("a feature map", shape(5, 3, 4, 7)),
        image_spread("past one grid row", shape(65, 65_535, 1, 1)),
        channel_sum("one pixel", shape(1, 1, 1, 5)),
        channel_sum("one pixel an image", shape(17, 1, 1, 10)),
        channel_sum("few pixels", shape(2, 3, 3, 7)),
        channel_sum("fifteen pixels", shape(1, 3, 5, 4)),
        channel_sum("seventeen pixels", shape(1, 1, 17, 4)),
        channel_sum("many pixels, one channel", shape(3, 201, 199, 1)),
        channel_sum("many pixels, few channels", shape(4, 64, 64, 3)),
        channel_sum("many channels", shape(2, 8, 8, 513)),
        channel_sum("more channels than parts", shape(3, 2, 2, 17_000)),
        channel_sum("past one grid row", shape(1, 1, 2, 4_195_000)),
        sum("one value", Shape::SCALAR, 1.0),
        sum("a batch of losses", Shape::per_image(128), 1.0 / 128.0),
        sum("a negative factor", shape(2, 3, 5, 7), -2.5),
        sum("a million values", shape(4, 250, 250, 4), 0.7),
    ]
}
