//! The last word on every adversarial image: is it one that the attack may return?

use crate::attacks::Ball;
use crate::error::{Error, Result};
use crate::ops::Norm;

/// Refuses adversarial images outside their ball, outside [0, 1], or not finite.
pub(super) fn audit(name: &str, ball: &Ball, clean: &[f32], found: &[f32], count: usize) -> Result<()> {
    let fault =
        |what: String| Error::NonFinite(format!("audit of {name}: {what}; this is a fault of the attack"));
    let len = clean.len() / count;
    for (n, (x, y)) in clean.chunks_exact(len).zip(found.chunks_exact(len)).enumerate() {
        if let Some(value) = y.iter().find(|v| !(0.0..=1.0).contains(*v)) {
            return Err(fault(format!("image {n} of the batch holds {value}")));
        }
        let norm = distance(x, y, ball.norm);
        // Rounding of x + eps in f32 for pixels near 1.
        let inside = norm <= f64::from(ball.eps) * (1.0 + 1e-5) + 1e-7;
        if !inside {
            return Err(fault(format!(
                "image {n} of the batch moved by {norm}, the ball's radius is {}",
                ball.eps
            )));
        }
    }
    Ok(())
}

/// How far apart two images are.
pub(super) fn distance(x: &[f32], y: &[f32], norm: Norm) -> f64 {
    let differences = x.iter().zip(y).map(|(x, y)| f64::from((x - y).abs()));
    match norm {
        // Not a number stays one, and is not inside any ball.
        Norm::Linf => differences.fold(0.0, |a, b| if b > a || b.is_nan() { b } else { a }),
        Norm::L2 => differences.map(|d| d * d).sum::<f64>().sqrt(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn audit_finds_what_leaves_the_ball() {
        let ball = Ball { norm: Norm::Linf, eps: 0.1 };
        let clean = [0.5, 0.5, 0.0, 1.0];
        assert!(audit("a", &ball, &clean, &[0.6, 0.4, 0.1, 0.9], 2).is_ok());
        assert!(audit("a", &ball, &clean, &[0.61, 0.4, 0.1, 0.9], 2).is_err());
        assert!(audit("a", &ball, &clean, &[0.6, 0.4, -0.01, 0.9], 2).is_err());
        assert!(audit("a", &ball, &clean, &[0.6, 0.4, 0.1, f32::NAN], 2).is_err());
        let ball = Ball { norm: Norm::L2, eps: 0.1 };
        assert!(audit("a", &ball, &clean, &[0.58, 0.56, 0.0, 1.0], 2).is_ok());
        assert!(audit("a", &ball, &clean, &[0.58, 0.58, 0.0, 1.0], 2).is_err());
    }
}
