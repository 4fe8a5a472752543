//! The figures of the program and of the benches.

use report::plot;

#[test]
fn numbers_that_are_not_finite_do_not_ruin_a_figure() {
    let (nan, infinity) = (f64::NAN, f64::INFINITY);
    let panel = |scale, points: &[(f64, f64)]| plot::Panel {
        title: String::new(),
        x: plot::Axis { label: "x", scale: plot::Scale::Linear },
        y: plot::Axis { label: "y", scale },
        series: vec![plot::Series { marks: points.to_vec(), line: points.to_vec(), ..plot::Series::default() }],
    };
    for scale in [plot::Scale::Linear, plot::Scale::Log] {
        let good = [(1.0, 2.0), (2.0, 0.5), (6.0, 8.0)];
        let bad = [(0.0, infinity), good[0], (9.0, nan), good[1], good[2], (7.0, -infinity), (nan, 1.0)];
        assert_eq!(panel(scale.clone(), &bad).ranges(), panel(scale.clone(), &good).ranges());
        let ((left, right), (low, high)) = panel(scale, &[(1.0, nan)]).ranges();
        assert!(left <= right && low <= high && [left, right, low, high].iter().all(|end| end.is_finite()));
    }
    assert_eq!(
        panel(plot::Scale::Log, &[(1.0, 0.0), (2.0, 3.0)]).ranges(),
        panel(plot::Scale::Log, &[(2.0, 3.0)]).ranges()
    );
}
