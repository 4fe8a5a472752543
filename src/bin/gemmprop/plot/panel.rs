//! A panel as it is drawn: axes, what the series have, and the legend.

use plotters::chart::ChartContext;
use plotters::coord::Shift;
use plotters::coord::cartesian::Cartesian2d;
use plotters::prelude::*;
use plotters::style::text_anchor::HPos;

use super::{
    BELOW, GRID, HEAD, INK, LEFT, LEGEND_LINE, Marker, Panel, Result, Scale, Series, Span, Stroke, Ticked, px, text,
    text_width,
};

type Chart<'a, B> = ChartContext<'a, B, Cartesian2d<Ticked, Ticked>>;

impl Panel {
    pub(super) fn draw<B: DrawingBackend>(
        &self,
        area: &DrawingArea<B, Shift>,
        (x, y): (Span, Span),
        legend_height: Option<i32>,
    ) -> Result
    where
        B::ErrorType: 'static,
    {
        let area = area.margin(0, px(14), px(10), px(14));
        let left = self.left()?;
        let (head, plot) = area.split_vertically(px(HEAD) + legend_height.unwrap_or(0));
        head.draw(&Text::new(self.title.as_str(), (left, px(18)), text(26, HPos::Left)))?;
        // Above the plot and not in it, so that it can hide nothing.
        if legend_height.is_some() {
            self.draw_legend(&head, px(56))?;
        }
        let (width, height) = plot.dim_in_pixel();
        let (width, height) = (width as i32 - left - px(16), height as i32 - px(BELOW) - px(8));
        // Pixels taken from a map's longer side.
        let (mut narrower, mut lower) = (0, 0);
        if self.series.iter().any(|series| !series.cells.is_empty()) {
            // An axis of names goes down.
            let (wide, high) = ((x.1 - x.0).abs(), (y.1 - y.0).abs());
            let unit = (f64::from(width) / wide).min(f64::from(height) / high);
            narrower = width - (unit * wide) as i32;
            lower = height - (unit * high) as i32;
        }
        let x_ticks = self.x.scale.ticks(x, (width - narrower) / px(50));
        let y_ticks = self.y.scale.ticks(y, (height - lower) / px(40));
        let label = text(22, HPos::Left);
        let x_labels = self.x.scale.labels(&x_ticks, x, width - narrower, |words| text_width(words, &label))?;
        let y_labels = self.y.scale.labels(&y_ticks, y, height - lower, |_| Ok(px(16) as u32))?;
        let label_at = |ticks: &[f64], labels: &[String], at: f64| {
            ticks.iter().position(|&tick| tick == at).map_or(String::new(), |i| labels[i].clone())
        };
        let mut chart = ChartBuilder::on(&plot)
            .margin_top(px(8))
            .margin_right(px(16) + narrower)
            .margin_bottom(lower)
            .x_label_area_size(px(BELOW))
            .y_label_area_size(left)
            .build_cartesian_2d(
                Ticked { range: x, ticks: x_ticks.clone() },
                Ticked { range: y, ticks: y_ticks.clone() },
            )?;
        chart
            .configure_mesh()
            .set_all_tick_mark_size(px(7))
            .light_line_style(TRANSPARENT)
            .bold_line_style(GRID.stroke_width(px(1) as u32))
            .axis_style(INK.stroke_width(px(1) as u32))
            .label_style(label.clone())
            .axis_desc_style(text(24, HPos::Left))
            .x_label_formatter(&|&at| label_at(&x_ticks, &x_labels, at))
            .y_label_formatter(&|&at| label_at(&y_ticks, &y_labels, at))
            .x_desc(self.x.label)
            .y_desc(self.y.label)
            .draw()?;
        self.draw_areas(&mut chart)?;
        self.draw_lines(&mut chart)?;
        Ok(())
    }

    /// Draws what other marks may lie on: cells, and bands.
    fn draw_areas<B: DrawingBackend>(&self, chart: &mut Chart<B>) -> Result
    where
        B::ErrorType: 'static,
    {
        let at = |&(x, y): &(f64, f64)| (self.x.scale.position(x), self.y.scale.position(y));
        let has_place = |point: &(f64, f64)| is_place(at(point));
        for series in &self.series {
            for [from, to] in series.cells.iter().filter(|cell| cell.iter().all(has_place)) {
                chart.draw_series([Rectangle::new([at(from), at(to)], series.colour.filled())])?;
            }
        }
        for series in &self.series {
            let lower = series.band.iter().map(|&(x, lower, _)| at(&(x, lower)));
            let upper = series.band.iter().rev().map(|&(x, _, upper)| at(&(x, upper)));
            let edge: Vec<_> = lower.chain(upper).filter(|&place| is_place(place)).collect();
            if !edge.is_empty() {
                chart.draw_series([Polygon::new(edge, series.colour.mix(0.22).filled())])?;
            }
        }
        Ok(())
    }

    /// Draws lines, bars, marks and words.
    fn draw_lines<B: DrawingBackend>(&self, chart: &mut Chart<B>) -> Result
    where
        B::ErrorType: 'static,
    {
        let at = |&(x, y): &(f64, f64)| (self.x.scale.position(x), self.y.scale.position(y));
        let has_place = |point: &(f64, f64)| is_place(at(point));
        for series in &self.series {
            let style = series.colour.stroke_width(px(3) as u32);
            // A line is broken where it has no place.
            for line in series.line.split(|point| !has_place(point)).filter(|line| !line.is_empty()) {
                let line = line.iter().map(at);
                match series.stroke {
                    Stroke::Solid => chart.draw_series(LineSeries::new(line, style))?,
                    Stroke::Dashed => chart.draw_series(DashedLineSeries::new(line, px(12), px(9), style))?,
                };
            }
        }
        for series in &self.series {
            for bar in series.bars.iter().filter(|bar| bar.iter().all(has_place)) {
                chart.draw_series([PathElement::new(bar.iter().map(at).collect::<Vec<_>>(), series.pen())])?;
            }
            for point in series.marks.iter().filter(|point| has_place(point)) {
                for part in series.marker.parts() {
                    chart.draw_series([EmptyElement::at(at(point)) + PathElement::new(part, series.pen())])?;
                }
            }
        }
        for series in &self.series {
            let style = text(22, HPos::Center).color(&series.colour);
            for (point, words) in series.words.iter().filter(|(point, _)| has_place(point)) {
                chart.draw_series([Text::new(words.clone(), at(point), style.clone())])?;
            }
        }
        Ok(())
    }

    /// Pixels left of the plot.
    fn left(&self) -> Result<i32> {
        let Scale::Names(names) = &self.y.scale else { return Ok(px(LEFT)) };
        let mut widest = 0;
        for name in names {
            widest = widest.max(text_width(name, &text(22, HPos::Left))?);
        }
        Ok(widest as i32 + px(if self.y.label.is_empty() { 26 } else { 60 }))
    }

    /// The series that the legend names.
    pub(super) fn legend(&self) -> impl Iterator<Item = &Series> {
        self.series.iter().filter(|series| !series.label.is_empty())
    }

    /// The number of columns that the longest entry leaves room for in this width in pixels.
    fn legend_columns(&self, width: u32) -> Result<usize> {
        let mut longest = 1;
        for series in self.legend() {
            longest = longest.max(text_width(&series.label, &text(21, HPos::Left))?);
        }
        let room = width.saturating_sub(self.left()? as u32 + px(14) as u32);
        Ok((room / (longest + px(64) as u32)).clamp(1, 4) as usize)
    }

    pub(super) fn legend_height(&self, width: u32) -> Result<i32> {
        Ok(px(LEGEND_LINE) * self.legend().count().div_ceil(self.legend_columns(width)?) as i32)
    }

    /// Draws the legend from this height on.
    pub(super) fn draw_legend<B: DrawingBackend>(&self, area: &DrawingArea<B, Shift>, top: i32) -> Result
    where
        B::ErrorType: 'static,
    {
        let (width, left) = (area.dim_in_pixel().0, self.left()?);
        let columns = self.legend_columns(width)?;
        for (i, series) in self.legend().enumerate() {
            let (row, column) = ((i / columns) as i32, (i % columns) as i32);
            let corner = (left + column * (width as i32 - left) / columns as i32, top + px(LEGEND_LINE) * row);
            series.draw_legend(area, corner)?;
        }
        Ok(())
    }

    /// The smallest and largest position on each axis, over all points that have one.
    pub fn ranges(&self) -> (Span, Span) {
        let points = self.series.iter().flat_map(|series| {
            let band = series.band.iter().flat_map(|&(x, lower, upper)| [(x, lower), (x, upper)]);
            let corners = series.cells.iter().chain(&series.bars).flatten().copied();
            series.marks.iter().chain(&series.line).copied().chain(band).chain(corners)
        });
        let (mut x, mut y) = ((f64::INFINITY, f64::NEG_INFINITY), (f64::INFINITY, f64::NEG_INFINITY));
        let places = points.map(|(px, py)| (self.x.scale.position(px), self.y.scale.position(py)));
        for (px, py) in places.filter(|&place| is_place(place)) {
            x = (x.0.min(px), x.1.max(px));
            y = (y.0.min(py), y.1.max(py));
        }
        // Without any points, the range is arbitrary.
        if x.0 > x.1 { ((0.0, 0.0), (0.0, 0.0)) } else { (x, y) }
    }
}

/// NaN, infinities, and on a logarithmic axis what is not positive have no place.
fn is_place((x, y): (f64, f64)) -> bool {
    x.is_finite() && y.is_finite()
}

impl Series {
    fn pen(&self) -> ShapeStyle {
        self.colour.stroke_width(px(5) as u32 / 2)
    }

    fn draw_legend<B: DrawingBackend>(&self, area: &DrawingArea<B, Shift>, (x, y): (i32, i32)) -> Result
    where
        B::ErrorType: 'static,
    {
        if !self.band.is_empty() {
            area.draw(&Rectangle::new([(x, y - px(10)), (x + px(46), y + px(10))], self.colour.mix(0.22).filled()))?;
        }
        if !self.cells.is_empty() && self.marks.is_empty() {
            area.draw(&Rectangle::new([(x, y - px(10)), (x + px(46), y + px(10))], self.colour.filled()))?;
        }
        if !self.line.is_empty() {
            let dashes = match self.stroke {
                Stroke::Solid => vec![(0, 46)],
                Stroke::Dashed => vec![(0, 12), (17, 29), (34, 46)],
            };
            for (from, to) in dashes {
                area.draw(&PathElement::new([(x + px(from), y), (x + px(to), y)], self.pen()))?;
            }
        }
        if !self.bars.is_empty() && self.line.is_empty() {
            area.draw(&PathElement::new([(x + px(4), y), (x + px(42), y)], self.pen()))?;
        }
        if !self.marks.is_empty() {
            for part in self.marker.parts() {
                area.draw(&(EmptyElement::at((x + px(23), y)) + PathElement::new(part, self.pen())))?;
            }
        }
        area.draw(&Text::new(self.label.as_str(), (x + px(56), y), text(21, HPos::Left)))?;
        Ok(())
    }
}

impl Marker {
    /// The outline of the marker around the origin.
    fn parts(self) -> Vec<Vec<(i32, i32)>> {
        let outline = |points: &[(i32, i32)]| points.iter().map(|&(x, y)| (px(x), px(y))).collect();
        match self {
            Self::Diamond => vec![outline(&[(0, -9), (9, 0), (0, 9), (-9, 0), (0, -9)])],
            Self::Circle => {
                let angles = (0..=48).map(|i| f64::from(i) * std::f64::consts::TAU / 48.0);
                let radius = f64::from(px(6));
                vec![angles.map(|a| ((radius * a.cos()).round() as i32, (radius * a.sin()).round() as i32)).collect()]
            }
            Self::Square => vec![outline(&[(-8, -8), (8, -8), (8, 8), (-8, 8), (-8, -8)])],
            Self::Cross => vec![outline(&[(-7, -7), (7, 7)]), outline(&[(-7, 7), (7, -7)])],
            Self::Triangle => vec![outline(&[(-9, 7), (0, -9), (9, 7), (-9, 7)])],
            Self::Plus => vec![outline(&[(-9, 0), (9, 0)]), outline(&[(0, -9), (0, 9)])],
        }
    }
}
