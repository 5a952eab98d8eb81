//! Features in two dimensions, by the method of Jeddi, Shafiee and Wong ("A simple fine-tuning is all you need",
//! 2020, Figure 3): linear discriminant analysis to one dimension fewer than there are classes, then principal
//! component analysis to two.
//!
//! A principal component analysis to at most 64 dimensions comes first, and the scatter within classes is shrunk
//! by a tenth towards a ball: with fewer images than features, discriminant analysis alone would put each class
//! into a point.

use nalgebra::{DMatrix, DVector, RowDVector};

/// Dimensions that discriminant analysis sees.
const DIMENSIONS: usize = 64;
/// The part of the scatter within classes that a ball of the same mean size takes.
const SHRINKAGE: f64 = 0.1;

/// `(x - mean) axes` for each row x.
#[derive(Clone, Debug)]
struct Projection {
    mean: RowDVector<f64>,
    /// Features x dimensions.
    axes: DMatrix<f64>,
}

impl Projection {
    fn apply(&self, rows: &DMatrix<f64>) -> DMatrix<f64> {
        centred(rows, &self.mean) * &self.axes
    }
}

fn centred(rows: &DMatrix<f64>, mean: &RowDVector<f64>) -> DMatrix<f64> {
    let mut rows = rows.clone();
    rows.row_iter_mut().for_each(|mut row| row -= mean);
    rows
}

/// Unit vectors of the largest eigenvalues of a symmetric matrix, the largest first, each with its largest
/// element above zero. Directions in which there is nothing are left out.
fn largest(matrix: DMatrix<f64>, count: usize) -> (Vec<f64>, DMatrix<f64>) {
    let size = matrix.nrows();
    if size == 0 {
        return (Vec::new(), matrix);
    }
    let eigen = matrix.symmetric_eigen();
    let mut order: Vec<usize> = (0..size).collect();
    order.sort_by(|&a, &b| eigen.eigenvalues[b].total_cmp(&eigen.eigenvalues[a]));
    let top = order.first().map_or(0.0, |&i| eigen.eigenvalues[i]);
    order.retain(|&i| eigen.eigenvalues[i] > top * 1e-10);
    order.truncate(count);
    let values = order.iter().map(|&i| eigen.eigenvalues[i]).collect();
    let columns: Vec<DVector<f64>> = order.iter().map(|&i| eigen.eigenvectors.column(i).into()).collect();
    match columns.is_empty() {
        true => (values, DMatrix::zeros(size, 0)),
        false => (values, upright(DMatrix::from_columns(&columns))),
    }
}

/// Columns whose largest element is above zero: an axis has no sign of its own.
fn upright(mut axes: DMatrix<f64>) -> DMatrix<f64> {
    for mut column in axes.column_iter_mut() {
        if column[column.iamax()] < 0.0 {
            column.neg_mut();
        }
    }
    axes
}

/// The directions of the largest variance, by whichever of covariance and Gram matrix is smaller.
fn pca(rows: &DMatrix<f64>, count: usize) -> Projection {
    let mean = rows.row_mean();
    let rows = centred(rows, &mean);
    let axes = if rows.ncols() <= rows.nrows() {
        largest(rows.transpose() * &rows, count).1
    } else {
        let (values, vectors) = largest(&rows * rows.transpose(), count);
        let mut axes = rows.transpose() * vectors;
        axes.column_iter_mut().zip(values).for_each(|(mut axis, value)| axis /= value.sqrt());
        upright(axes)
    };
    Projection { mean, axes }
}

/// The directions in which classes differ most by what they differ within: the largest generalised eigenvectors of
/// the scatter between classes and the shrunk one within them. `None` where nothing differs within them.
fn lda(rows: &DMatrix<f64>, labels: &[u32], count: usize) -> Option<Projection> {
    let (images, size) = rows.shape();
    let mean = rows.row_mean();
    let mut within = DMatrix::zeros(size, size);
    let mut between = DMatrix::zeros(size, size);
    let mut classes = labels.to_vec();
    classes.sort_unstable();
    classes.dedup();
    for class in classes {
        let of_class: Vec<usize> = (0..images).filter(|&i| labels[i] == class).collect();
        let own = rows.select_rows(&of_class);
        let centre = own.row_mean();
        let own = centred(&own, &centre);
        within += own.transpose() * &own / images as f64;
        let away = &centre - &mean;
        between += away.transpose() * away * (of_class.len() as f64 / images as f64);
    }
    let ball = within.trace() / size as f64;
    let within = within * (1.0 - SHRINKAGE) + DMatrix::identity(size, size) * (SHRINKAGE * ball);
    let lower = within.cholesky()?.l();
    let half = lower.solve_lower_triangular(&between)?;
    let whitened = lower.solve_lower_triangular(&half.transpose())?;
    // Rounding leaves it a little unsymmetric.
    let whitened = (&whitened + whitened.transpose()) * 0.5;
    let axes = lower.transpose().solve_upper_triangular(&largest(whitened, count).1)?;
    Some(Projection { mean, axes: upright(axes) })
}

/// Two numbers for each image: where features are, seen from where they differ most by class.
pub struct View {
    steps: Vec<Projection>,
}

impl View {
    /// `features` are images x features, row-major. `None` where they are too few, or hold what is no number.
    pub fn new(features: &[f32], labels: &[u32]) -> Option<Self> {
        let rows = matrix(features, labels.len())?;
        let classes = labels.iter().collect::<std::collections::BTreeSet<_>>().len();
        let first = pca(&rows, DIMENSIONS.min(labels.len() - 1));
        let reduced = first.apply(&rows);
        if reduced.ncols() == 0 {
            return None;
        }
        let second = lda(&reduced, labels, classes.saturating_sub(1).max(1))?;
        if second.axes.ncols() == 0 {
            return None;
        }
        let third = pca(&second.apply(&reduced), 2);
        Some(Self { steps: vec![first, second, third] })
    }

    /// Where these features are.
    pub fn place(&self, features: &[f32], images: usize) -> Option<Vec<[f64; 2]>> {
        let mut rows = matrix(features, images)?;
        for step in &self.steps {
            rows = step.apply(&rows);
        }
        // Two classes have one direction between them.
        let at = |i: usize, k: usize| if k < rows.ncols() { rows[(i, k)] } else { 0.0 };
        Some((0..images).map(|i| [at(i, 0), at(i, 1)]).collect())
    }
}

fn matrix(features: &[f32], images: usize) -> Option<DMatrix<f64>> {
    let whole = images > 1 && !features.is_empty() && features.len().is_multiple_of(images);
    let finite = whole && features.iter().all(|x| x.is_finite());
    let rows = features.iter().map(|&x| f64::from(x));
    finite.then(|| DMatrix::from_row_iterator(images, features.len() / images, rows))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the script beside this file, which has the values below.
    fn features(images: usize, size: usize) -> Vec<f32> {
        let value = |i: usize, k: usize| {
            ((7 * i * i + 3 * i + 11 * k * k + 5 * i * k) % 17) as f32 / 4.0
                + ((i % 3) * (k % 4)) as f32 / 2.0
        };
        (0..images).flat_map(|i| (0..size).map(move |k| value(i, k))).collect()
    }

    fn near(found: [f64; 2], expected: [f64; 2]) -> bool {
        found.iter().zip(expected).all(|(f, e)| (f - e).abs() < 1e-8)
    }

    /// More images than features, and fewer.
    #[test]
    fn projections_are_those_of_numpy() {
        let principal = [
            [
                [0.38256803536723305, -1.8496062031789549],
                [0.04554852393669731, 0.8694479641206252],
                [1.693965026054035, 2.415148339454364],
            ],
            [
                [-2.4074437896555314, -1.8529225793821706],
                [-1.0855798040125644, -0.9226514285040834],
                [4.465593042059598, 4.065230736843827],
            ],
        ];
        let views = [
            [
                [1.1287219342713202, 1.3185295538104018],
                [0.09631793308008056, 0.0429290897806374],
                [-2.1540021178243234, -0.157222947468897],
            ],
            [
                [-7.856012522097091, 1.9284011698519508],
                [-2.0878732468493237, -3.171818232319685],
                [10.11010898796321, 1.2467984579194913],
            ],
        ];
        for (n, (images, size)) in [(12, 5), (9, 14)].into_iter().enumerate() {
            let features = features(images, size);
            let labels: Vec<u32> = (0..images as u32).map(|i| i % 3).collect();
            let rows = matrix(&features, images).unwrap();
            let found = pca(&rows, 2).apply(&rows);
            let view = View::new(&features, &labels).unwrap().place(&features, images).unwrap();
            for (k, at) in [0, 1, images - 1].into_iter().enumerate() {
                let first = [found[(at, 0)], found[(at, 1)]];
                assert!(near(first, principal[n][k]), "{first:?} is not {:?}", principal[n][k]);
                assert!(near(view[at], views[n][k]), "{:?} is not {:?}", view[at], views[n][k]);
            }
        }
    }

    #[test]
    fn what_cannot_be_shown_is_not() {
        assert!(View::new(&[1.0, 2.0], &[0]).is_none(), "one image");
        assert!(View::new(&[1.0; 12], &[0, 1, 0, 1]).is_none(), "features that are all the same");
        assert!(View::new(&[1.0, 2.0, 1.0, 2.0], &[0, 0, 1, 1]).is_none(), "classes that are the same");
        assert!(View::new(&[1.0, 2.0, 4.0], &[0, 0, 0]).is_none(), "one class");
        assert!(View::new(&[f32::NAN, 2.0, 3.0, 4.0], &[0, 1]).is_none());
        let two = View::new(&features(8, 4), &[0, 1, 0, 1, 0, 1, 0, 1]).unwrap();
        assert!(two.place(&features(8, 4), 8).unwrap().iter().all(|p| p[0].is_finite() && p[1] == 0.0));
        assert!(two.place(&[f32::INFINITY; 4], 1).is_none());
    }
}
