//! The pattern that Square adds in the l2 ball: two pyramids, one up and one down.

/// A pattern of `side` x `side` and length 1, row-major.
pub(super) fn pattern(side: usize) -> Vec<f32> {
    let upper = side / 2;
    let mut values = pyramid(upper, side);
    values.extend(pyramid(side - upper, side).iter().map(|v| -v));
    scale(&mut values);
    values.into_iter().map(|v| v as f32).collect()
}

/// Rectangles around the middle, each larger and lower than the one before, of length 1 together.
fn pyramid(height: usize, width: usize) -> Vec<f64> {
    let mut values = vec![0.0; height * width];
    let (middle_row, middle_column) = (height / 2, width / 2);
    for layer in 0..=middle_row.max(middle_column) {
        let rows = middle_row.saturating_sub(layer)..(middle_row + layer + 1).min(height);
        for row in rows {
            let columns = middle_column.saturating_sub(layer)..(middle_column + layer + 1).min(width);
            for column in columns {
                values[row * width + column] += 1.0 / ((layer + 1) as f64).powi(2);
            }
        }
    }
    scale(&mut values);
    values
}

/// Scales to length 1; nothing stays nothing.
fn scale(values: &mut [f64]) {
    let length = values.iter().map(|v| v * v).sum::<f64>().sqrt();
    if length > 0.0 {
        values.iter_mut().for_each(|v| *v /= length);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_have_length_one_and_two_signs() {
        for side in [1, 2, 3, 7, 29] {
            let values = pattern(side);
            let squares: f32 = values.iter().map(|v| v * v).sum();
            assert!((squares - 1.0).abs() < 1e-5, "{side}: {squares}");
            let split = side / 2 * side;
            assert!(values[..split].iter().all(|&v| v > 0.0) && values[split..].iter().all(|&v| v < 0.0));
        }
    }
}
