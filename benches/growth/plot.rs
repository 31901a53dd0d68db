//! The plots: time and memory of each command over what grows, both axes logarithmic. Plain SVG, on a white ground, so
//! that it reads the same on a dark page.

use super::judge::{MEMORY, Point, Series, time};
use super::subjects::Subject;
use std::fmt::Write;

const WIDTH: f64 = 900.0;
const HEIGHT: f64 = 360.0;
/// A panel's left and right edge, for time and for memory.
const PANELS: [(f64, f64); 2] = [(70.0, 430.0), (520.0, 880.0)];
const TOP: f64 = 76.0;
const BOTTOM: f64 = 310.0;
/// Of the commands, told apart by people who see no red and green, too.
const COLOURS: [&str; 3] = ["#0072b2", "#d55e00", "#009e73"];

/// A range of values over a range of pixels.
struct Axis {
    values: (f64, f64),
    pixels: (f64, f64),
}

impl Axis {
    fn at(&self, value: f64) -> f64 {
        let part = (value / self.values.0).ln() / (self.values.1 / self.values.0).ln();
        self.pixels.0 + part * (self.pixels.1 - self.pixels.0)
    }
}

/// The plot of a subject as SVG.
pub(super) fn svg(subject: Subject, all: &[Series]) -> String {
    let mut out = String::new();
    let _ = writeln!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" \
         height=\"{HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\" fill=\"#222\">\n\
         <rect width=\"100%\" height=\"100%\" rx=\"6\" fill=\"#fff\"/>"
    );
    text(&mut out, (WIDTH / 2.0, 24.0), "middle\" font-size=\"16\" font-weight=\"bold", subject.title());
    for (series, (colour, n)) in all.iter().zip(COLOURS.iter().zip(0..)) {
        let x = 90.0 + 260.0 * f64::from(n);
        line(&mut out, &[(x - 20.0, 46.0), (x - 4.0, 46.0)], colour, "3");
        text(&mut out, (x, 50.0), "start", series.command);
    }
    let of = |value: fn(&Point) -> f64| all.iter().flat_map(|s| &s.points).map(value).collect::<Vec<f64>>();
    let bounds = |values: &[f64]| {
        let least = values.iter().copied().fold(f64::INFINITY, f64::min);
        (least, values.iter().copied().fold(least, f64::max))
    };
    let points = subject.points();
    let sizes = (points[0] as f64, points[points.len() - 1] as f64);

    let times = bounds(&of(|p| p.seconds));
    let decade = |v: f64, round: fn(f64) -> f64| 10f64.powf(round(v.log10()));
    let axis = (decade(times.0, f64::floor), decade(times.1 * 1.0001, f64::ceil));
    let decades = (-4..4).map(|n| 10f64.powi(n)).map(|s| (s, time(s).replace(".0 ", " "))).collect::<Vec<_>>();
    let (x, y) = panel(&mut out, 0, "time", subject, sizes, axis, &decades);
    // Linear growth up to the longest time.
    let longest = all.iter().flat_map(|s| &s.points).max_by(|a, b| a.seconds.total_cmp(&b.seconds));
    if let Some(end) = longest {
        let from = sizes.0.max(end.x as f64 * axis.0 / end.seconds);
        let start = (x.at(from), y.at(end.seconds * from / end.x as f64));
        line(&mut out, &[start, (x.at(end.x as f64), y.at(end.seconds))], "#888", "1.5\" stroke-dasharray=\"6 4");
        text(&mut out, (start.0 + 8.0, start.1.min(BOTTOM - 14.0) + 10.0), "start\" fill=\"#666", "linear");
    }
    for (series, colour) in all.iter().zip(COLOURS) {
        curve(&mut out, series, colour, |p| (x.at(p.x as f64), y.at(p.seconds)));
    }

    let memory = bounds(&of(|p| p.memory));
    let axis = (2e6, (memory.1 * 1.3).max(150e6));
    let ticks = [2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000].map(|mb| (f64::from(mb) * 1e6, format!("{mb} MB")));
    let (x, y) = panel(&mut out, 1, "peak memory", subject, sizes, axis, &ticks);
    let limit = y.at(MEMORY);
    line(&mut out, &[(x.pixels.0, limit), (x.pixels.1, limit)], "#c00", "1.5\" stroke-dasharray=\"6 4");
    text(&mut out, (x.pixels.0 + 6.0, limit - 5.0), "start\" fill=\"#c00", "limit: 64 MiB");
    for (series, colour) in all.iter().zip(COLOURS) {
        curve(&mut out, series, colour, |p| (x.at(p.x as f64), y.at(p.memory)));
    }
    out.push_str("</svg>\n");
    out
}

/// Frame, grid and labels of one panel.
fn panel(
    out: &mut String,
    number: usize,
    title: &str,
    subject: Subject,
    sizes: (f64, f64),
    values: (f64, f64),
    ticks: &[(f64, String)],
) -> (Axis, Axis) {
    let (left, right) = PANELS[number];
    let x = Axis { values: sizes, pixels: (left + 14.0, right - 14.0) };
    let y = Axis { values, pixels: (BOTTOM, TOP) };
    for (value, label) in ticks.iter().filter(|(v, _)| *v >= values.0 * 0.999 && *v <= values.1 * 1.001) {
        line(out, &[(left, y.at(*value)), (right, y.at(*value))], "#ddd", "1");
        text(out, (left - 6.0, y.at(*value) + 4.0), "end", label);
    }
    for value in subject.points() {
        let at = x.at(*value as f64);
        line(out, &[(at, TOP), (at, BOTTOM)], "#eee", "1");
        text(out, (at, BOTTOM + 18.0), "middle", &subject.shown(*value));
    }
    line(out, &[(left, TOP), (left, BOTTOM), (right, BOTTOM)], "#444", "1");
    text(out, ((left + right) / 2.0, HEIGHT - 10.0), "middle\" fill=\"#666", title);
    (Axis { pixels: (x.pixels.0, x.pixels.1), ..x }, y)
}

fn curve(out: &mut String, series: &Series, colour: &str, place: impl Fn(&Point) -> (f64, f64)) {
    let places: Vec<_> = series.points.iter().map(place).collect();
    line(out, &places, colour, "2");
    for (x, y) in places {
        let _ = writeln!(out, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\" fill=\"{colour}\"/>");
    }
}

fn line(out: &mut String, places: &[(f64, f64)], colour: &str, width: &str) {
    let places: Vec<String> = places.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    let places = places.join(" ");
    let _ = writeln!(out, "<polyline points=\"{places}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"{width}\"/>");
}

fn text(out: &mut String, (x, y): (f64, f64), anchor: &str, words: &str) {
    let words = words.replace('&', "&amp;").replace('<', "&lt;");
    let _ = writeln!(out, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{words}</text>");
}
