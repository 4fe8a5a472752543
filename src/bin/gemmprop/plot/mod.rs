//! Figures as data, and one function that draws any of them, as SVG and as PNG.

mod panel;
mod scale;

use std::error::Error;
use std::ops::Range;
use std::path::Path;

use plotters::coord::Shift;
use plotters::coord::ranged1d::{DefaultFormatting, KeyPointHint, Ranged};
use plotters::prelude::*;
use plotters::style::FontTransform;
pub use plotters::style::RGBColor;
use plotters::style::text_anchor::{HPos, Pos, VPos};

type Result<T = ()> = std::result::Result<T, Box<dyn Error>>;

/// Pixels of a figure's width: where a page shows it at two thirds of that, its smallest text still
/// has twelve pixels.
const WIDTH: u32 = 1280;

/// Pixels of the height of a figure's title, of a panel's title, and of a panel's plot with the
/// labels below it.
const TITLE: i32 = 58;
const HEAD: i32 = 46;
const PLOT: i32 = 530;

/// A figure is drawn this many times larger, and the PNG averaged down, which makes the bitmap's
/// edges smooth.
const SCALE: u32 = 2;

/// Pixels of the figure as those of the drawing.
const fn px(pixels: i32) -> i32 {
    pixels * SCALE as i32
}

/// The embedded font's name; a browser that shows the SVG takes the first of these that it has.
const FONT: &str = "DejaVu Sans, Verdana, sans-serif";

/// Makes the embedded font known: a machine may have none.
fn register_font() {
    if plotters::style::register_font(FONT, FontStyle::Normal, dejavu::sans::regular()).is_err() {
        unreachable!("the embedded font is a font");
    }
}

const INK: RGBColor = RGBColor(0x22, 0x22, 0x22);
const FAINT: RGBColor = RGBColor(0x50, 0x50, 0x50);
const GRID: RGBColor = RGBColor(0xe2, 0xe2, 0xe2);

/// Okabe and Ito's colours, which colour-blind readers can tell apart.
pub mod colour {
    use super::RGBColor;
    pub const VERMILION: RGBColor = RGBColor(0xd5, 0x5e, 0x00);
    pub const BLUE: RGBColor = RGBColor(0x00, 0x72, 0xb2);
    pub const GREEN: RGBColor = RGBColor(0x00, 0x9e, 0x73);
    pub const PURPLE: RGBColor = RGBColor(0xcc, 0x79, 0xa7);
    pub const ORANGE: RGBColor = RGBColor(0xe6, 0x9f, 0x00);
    pub const SKY: RGBColor = RGBColor(0x56, 0xb4, 0xe9);
    pub const GREY: RGBColor = RGBColor(0x88, 0x88, 0x88);
}

/// A figure: panels in rows over one caption.
///
/// Equal axes share a range: panels whose axes have one label and one scale span one
/// range there, so that they can be compared. If all panels have one legend, it is drawn once,
/// above them.
#[derive(Debug)]
pub struct Figure {
    /// The name of the files.
    pub name: &'static str,
    pub title: String,
    pub panels: Vec<Panel>,
    pub caption: String,
}

/// A panel; one with cells is a map, in which a unit is as long on both axes.
#[derive(Debug)]
pub struct Panel {
    pub title: String,
    pub x: Axis,
    pub y: Axis,
    pub series: Vec<Series>,
}

#[derive(Debug)]
pub struct Axis {
    pub label: &'static str,
    pub scale: Scale,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scale {
    Linear,
    /// A linear axis of counts, with ticks at whole numbers.
    Whole,
    Log,
    /// Categories instead of numbers, at 0, 1, …; on a vertical axis the first is at the top.
    Names(Vec<String>),
}

/// Marks, a line, bars, a band, cells and words, each where it has points; one entry of the legend,
/// if it has a label.
#[derive(Debug, Clone, Default)]
pub struct Series {
    pub label: String,
    pub colour: RGBColor,
    pub marker: Marker,
    pub marks: Vec<(f64, f64)>,
    pub stroke: Stroke,
    pub line: Vec<(f64, f64)>,
    /// x, lower and upper edge.
    pub band: Vec<(f64, f64, f64)>,
    /// Intervals, from one end to the other.
    pub bars: Vec<[(f64, f64); 2]>,
    /// Filled rectangles, by two opposite corners: one level of a map.
    pub cells: Vec<[(f64, f64); 2]>,
    /// Words in the middle of points, such as the counts of a map.
    pub words: Vec<((f64, f64), String)>,
}

/// Shapes that stay distinct where points coincide.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Marker {
    #[default]
    Diamond,
    Circle,
    Square,
    Cross,
    Triangle,
    Plus,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Stroke {
    #[default]
    Solid,
    Dashed,
}

/// A coordinate with ticks of our own. (plotters has a decorator for that, which does not accept
/// `f64`.)
struct Ticked {
    range: (f64, f64),
    ticks: Vec<f64>,
}

impl Ranged for Ticked {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, &value: &f64, (from, to): (i32, i32)) -> i32 {
        let share = (value - self.range.0) / (self.range.1 - self.range.0);
        from + (share * f64::from(to - from)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        if hint.weight().allow_light_points() { Vec::new() } else { self.ticks.clone() }
    }

    fn range(&self) -> Range<f64> {
        self.range.0..self.range.1
    }
}

/// The range of an axis, as positions on it.
type Span = (f64, f64);

impl Figure {
    /// Writes `name`.svg and `name`.png.
    pub fn save(&self, directory: &Path) -> Result {
        let path = |extension: &str| directory.join(self.name).with_extension(extension);
        std::fs::write(path("svg"), self.svg()?)?;
        std::fs::write(path("png"), self.png()?)?;
        Ok(())
    }

    pub fn svg(&self) -> Result<String> {
        register_font();
        let size = self.size()?;
        let drawn = (size.0 * SCALE, size.1 * SCALE);
        let mut svg = String::new();
        self.draw(&SVGBackend::with_string(&mut svg, drawn).into_drawing_area())?;
        // The size in which it is shown; the view box stays that of the drawing.
        let shown = format!(r#"role="img" {}"#, size_attributes(size));
        let svg = svg.replacen(&size_attributes(drawn), &shown, 1);
        let words = format!("<title>{}</title>\n<desc>{}</desc>\n", escaped(&self.title), escaped(&self.description()));
        let inside = svg.find("<svg").and_then(|start| Some(start + svg[start..].find('>')? + 1)).ok_or("no <svg>")?;
        Ok(format!("{}\n{words}{}", &svg[..inside], svg[inside..].trim_start()))
    }

    /// What the figure shows, for those who do not see it.
    fn description(&self) -> String {
        let panel = |panel: &Panel| {
            let labels: Vec<&str> = panel.legend().map(|series| series.label.as_str()).collect();
            let axes = match (panel.y.label, panel.x.label) {
                ("", x) => x.to_owned(),
                (y, x) => format!("{y} against {x}"),
            };
            let labels = if labels.is_empty() { String::new() } else { format!(" ({})", labels.join("; ")) };
            format!("{}: {axes}{labels}. ", panel.title)
        };
        self.panels.iter().map(panel).chain([self.caption.clone()]).collect()
    }

    /// The bytes of a PNG file.
    pub fn png(&self) -> Result<Vec<u8>> {
        register_font();
        let (width, height) = self.size()?;
        let drawn = (width * SCALE, height * SCALE);
        let mut pixels = vec![0; (3 * drawn.0 * drawn.1) as usize];
        self.draw(&BitMapBackend::with_buffer(&mut pixels, drawn).into_drawing_area())?;
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, width, height);
        encoder.set_color(png::ColorType::Rgb);
        encoder.write_header()?.write_image_data(&averaged(&pixels, width as usize, height as usize))?;
        Ok(bytes)
    }

    fn size(&self) -> Result<(u32, u32)> {
        let Legends { shared, of_row } = self.legends()?;
        let panels: i32 = of_row.iter().map(|legend| HEAD + PLOT + legend / SCALE as i32).sum();
        let caption = CAPTION_LINE * (self.caption_lines()?.len() as i32 + 1);
        Ok((WIDTH, (TITLE + shared / SCALE as i32 + panels + caption) as u32))
    }

    fn legends(&self) -> Result<Legends> {
        let labels = |panel: &Panel| panel.legend().map(|series| series.label.clone()).collect::<Vec<_>>();
        let columns = self.columns();
        let rows = self.panels.chunks(columns);
        if self.panels.len() > 1 && self.panels[1..].iter().all(|panel| labels(panel) == labels(&self.panels[0])) {
            let shared = self.panels[0].legend_height(WIDTH * SCALE)? + px(12);
            return Ok(Legends { shared, of_row: vec![0; rows.len()] });
        }
        let mut of_row = Vec::new();
        for row in rows {
            let heights = row.iter().map(|panel| panel.legend_height(WIDTH * SCALE / columns as u32));
            of_row.push(heights.collect::<Result<Vec<i32>>>()?.into_iter().max().unwrap_or(0));
        }
        Ok(Legends { shared: 0, of_row })
    }

    /// Panels in a row.
    fn columns(&self) -> usize {
        match self.panels.len() {
            few @ 0..=3 => few.max(1),
            4 => 2,
            _ => 3,
        }
    }

    fn caption_lines(&self) -> Result<Vec<String>> {
        wrapped(&self.caption, &text(19, HPos::Left), px(WIDTH as i32 - 60) as u32)
    }

    fn draw<B: DrawingBackend>(&self, root: &DrawingArea<B, Shift>) -> Result
    where
        B::ErrorType: 'static,
    {
        root.fill(&WHITE)?;
        let (width, height) = root.dim_in_pixel();
        let (title, rest) = root.split_vertically(px(TITLE));
        title.draw(&Text::new(self.title.as_str(), (width as i32 / 2, px(36)), text(32, HPos::Center)))?;
        let lines = self.caption_lines()?;
        let caption_height = px(CAPTION_LINE) * (lines.len() as i32 + 1);
        let (mut panels, caption) = rest.split_vertically(height as i32 - px(TITLE) - caption_height);
        for (i, line) in lines.iter().enumerate() {
            let at = (px(30), px(20) + px(CAPTION_LINE) * i as i32);
            caption.draw(&Text::new(line.as_str(), at, text(19, HPos::Left).color(&FAINT)))?;
        }
        let Legends { shared, of_row } = self.legends()?;
        if shared > 0 {
            let legend;
            (legend, panels) = panels.split_vertically(shared);
            self.panels[0].draw_legend(&legend, px(14))?;
        }
        let (columns, spans) = (self.columns(), self.spans());
        let rows = self.panels.chunks(columns).zip(spans.chunks(columns));
        for ((row, spans), legend) in rows.zip(of_row) {
            let area;
            (area, panels) = panels.split_vertically(px(HEAD + PLOT) + legend);
            for ((panel, &spans), area) in row.iter().zip(spans).zip(area.split_evenly((1, columns))) {
                panel.draw(&area, spans, (shared == 0).then_some(legend))?;
            }
        }
        root.present()?;
        Ok(())
    }

    /// What the axes of each panel span.
    fn spans(&self) -> Vec<(Span, Span)> {
        let mut spans: Vec<(Span, Span)> = self.panels.iter().map(Panel::ranges).collect();
        let widest =
            |mine: &Axis, axis: fn(&Panel) -> &Axis, span: fn(&(Span, Span)) -> Span, spans: &[(Span, Span)]| {
                let same = self
                    .panels
                    .iter()
                    .zip(spans)
                    .filter(|(panel, _)| (axis(panel).label, &axis(panel).scale) == (mine.label, &mine.scale));
                same.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), (_, both)| {
                    (low.min(span(both).0), high.max(span(both).1))
                })
            };
        let own = spans.clone();
        for (panel, (x, y)) in self.panels.iter().zip(&mut spans) {
            *x = panel.x.scale.with_air(widest(&panel.x, |panel| &panel.x, |both| both.0, &own));
            *y = panel.y.scale.with_air(widest(&panel.y, |panel| &panel.y, |both| both.1, &own));
            if matches!(panel.y.scale, Scale::Names(_)) {
                *y = (y.1, y.0);
            }
        }
        spans
    }
}

/// Pixels of the drawing that legends take: one for all panels, or one for each row of panels.
struct Legends {
    shared: i32,
    of_row: Vec<i32>,
}

/// Pixels of a line of the caption, and of one of a legend.
const CAPTION_LINE: i32 = 27;
const LEGEND_LINE: i32 = 34;

/// Pixels left of a plot, for the labels of its axis where they are numbers; and below it.
const LEFT: i32 = 104;
const BELOW: i32 = 76;

fn size_attributes((width, height): (u32, u32)) -> String {
    format!(r#"width="{width}" height="{height}""#)
}

/// The pixels of the drawing, averaged over squares of `SCALE` each; both images are rows of red,
/// green and blue.
fn averaged(drawing: &[u8], width: usize, height: usize) -> Vec<u8> {
    let scale = SCALE as usize;
    let mut image = Vec::with_capacity(3 * width * height);
    for (y, x) in (0..height).flat_map(|y| (0..width).map(move |x| (y, x))) {
        for channel in 0..3 {
            let square = (0..scale * scale).map(|i| (scale * y + i / scale, scale * x + i % scale));
            let sum: usize = square.map(|(y, x)| usize::from(drawing[3 * (y * scale * width + x) + channel])).sum();
            image.push(((sum + scale * scale / 2) / (scale * scale)) as u8);
        }
    }
    image
}

fn escaped(words: &str) -> String {
    words.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

fn text(size: i32, h_pos: HPos) -> TextStyle<'static> {
    TextStyle::from((FONT, px(size)).into_font().transform(FontTransform::None))
        .color(&INK)
        .pos(Pos::new(h_pos, VPos::Center))
}

fn text_width(words: &str, style: &TextStyle) -> Result<u32> {
    Ok(style.font.box_size(words)?.0)
}

/// The text in lines that fit into this width in pixels.
fn wrapped(words: &str, style: &TextStyle, width: u32) -> Result<Vec<String>> {
    let mut lines = vec![String::new()];
    for word in words.split_whitespace() {
        let line = lines.last_mut().expect("starts with one");
        let longer = if line.is_empty() { word.to_owned() } else { format!("{line} {word}") };
        if text_width(&longer, style)? <= width {
            *line = longer;
        } else {
            lines.push(word.to_owned());
        }
    }
    Ok(lines)
}
