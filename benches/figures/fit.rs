//! Least squares of a straight line, for the slopes of the log–log plots.

/// y = intercept + slope x
#[derive(Debug, Clone, Copy)]
pub(crate) struct Line {
    pub(crate) slope: f64,
    pub(crate) intercept: f64,
    /// Standard error of the slope.
    pub(crate) error: f64,
}

impl Line {
    /// The line through log₁₀ of the points; needs three.
    pub(crate) fn through_logarithms(points: &[(f64, f64)]) -> Self {
        assert!(points.len() > 2, "a line and its error need three points, not {}", points.len());
        let points: Vec<(f64, f64)> = points.iter().map(|(x, y)| (x.log10(), y.log10())).collect();
        let n = points.len() as f64;
        let mean_x = points.iter().map(|p| p.0).sum::<f64>() / n;
        let mean_y = points.iter().map(|p| p.1).sum::<f64>() / n;
        let s_xx: f64 = points.iter().map(|p| (p.0 - mean_x).powi(2)).sum();
        let s_xy: f64 = points.iter().map(|p| (p.0 - mean_x) * (p.1 - mean_y)).sum();
        let slope = s_xy / s_xx;
        let intercept = mean_y - slope * mean_x;
        let residuals: f64 = points.iter().map(|p| (p.1 - intercept - slope * p.0).powi(2)).sum();
        Self { slope, intercept, error: (residuals / (n - 2.0) / s_xx).sqrt() }
    }

    /// The fitted value at x (both not logarithms).
    pub(crate) fn at(&self, x: f64) -> f64 {
        10f64.powf(self.intercept + self.slope * x.log10())
    }
}

impl std::fmt::Display for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.2} ± {:.2}", self.slope, self.error)
    }
}
