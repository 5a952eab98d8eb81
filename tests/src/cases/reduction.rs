//! Sums.

use adamant::Shape;
use adamant::op::{ChannelSum, Op, Sum};

use super::{Case, Input, shape};

pub fn cases() -> Vec<Case> {
    let channel_sum = |name: &str, x: Shape| {
        let pixels = x.len() / x.channels();
        Case::new(name, Op::ChannelSum(ChannelSum), [Input::Normal(x, 1.0 / (pixels as f32).sqrt())])
    };
    let sum = |name: &str, x: Shape, factor: f32| {
        Case::new(name, Op::Sum(Sum { factor }), [Input::Normal(x, 1.0 / (x.len() as f32).sqrt())])
    };
    vec![
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
