//! Plots: lines over the number of machines, both axes logarithmic, as SVG.

use std::fmt::Write as _;

use crate::figures::digits;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 440.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 230.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 50.0;

/// Colours that colour-blind people can distinguish.
const COLOURS: [&str; 8] = [
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999999",
];

/// A line: its name, whether it is a floor, and its points.
pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) is_floor: bool,
    pub(crate) points: Vec<(f64, f64)>,
}

/// Draws the lines that have points above zero. `None` if there are none.
pub(crate) fn draw(title: &str, vertical: &str, lines: &[Line]) -> Option<String> {
    let lines: Vec<(&Line, Vec<(f64, f64)>)> = lines
        .iter()
        .map(|line| {
            let above = line.points.iter().filter(|(x, y)| *x > 0.0 && *y > 0.0);
            (line, above.copied().collect::<Vec<_>>())
        })
        .filter(|(_, points)| !points.is_empty())
        .collect();
    let all = || lines.iter().flat_map(|(_, points)| points);
    let range = |of: fn(&(f64, f64)) -> f64| {
        let low = all().map(of).fold(f64::INFINITY, f64::min);
        let high = all().map(of).fold(0.0, f64::max);
        (high > 0.0).then(|| {
            (
                10f64.powf(low.log10().floor()),
                10f64.powf(high.log10().ceil()),
            )
        })
    };
    let (x_range, y_range) = (range(|it| it.0)?, range(|it| it.1)?);
    let place = |value: f64, (low, high): (f64, f64), from: f64, to: f64| {
        let span = (high.log10() - low.log10()).max(1.0);
        from + (value.log10() - low.log10()) / span * (to - from)
    };
    let x = |value| place(value, x_range, LEFT, WIDTH - RIGHT);
    let y = |value| place(value, y_range, HEIGHT - BOTTOM, TOP);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#ffffff\"/>\n\
         <text x=\"{LEFT}\" y=\"22\" font-size=\"15\">{title}</text>\n"
    );
    let decades = |(low, high): (f64, f64)| {
        let first = low.log10().round() as i32;
        let last = (high.log10().round() as i32).max(first + 1);
        (first..=last).map(|power| 10f64.powi(power))
    };
    for tick in decades(x_range) {
        let at = x(tick);
        let _ = writeln!(
            svg,
            "<line x1=\"{at:.1}\" y1=\"{TOP}\" x2=\"{at:.1}\" y2=\"{:.1}\" stroke=\"#dddddd\"/><text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{tick}</text>",
            HEIGHT - BOTTOM,
            HEIGHT - BOTTOM + 18.0,
        );
    }
    for tick in decades(y_range) {
        let at = y(tick);
        let _ = writeln!(
            svg,
            "<line x1=\"{LEFT}\" y1=\"{at:.1}\" x2=\"{:.1}\" y2=\"{at:.1}\" stroke=\"#dddddd\"/><text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{tick}</text>",
            WIDTH - RIGHT,
            LEFT - 6.0,
            at + 4.0,
        );
    }
    let _ = writeln!(
        svg,
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">machines</text>\
         <text transform=\"translate(16 {:.1}) rotate(-90)\" text-anchor=\"middle\">{vertical}</text>",
        (LEFT + WIDTH - RIGHT) / 2.0,
        HEIGHT - 10.0,
        HEIGHT / 2.0,
    );
    for (number, (line, points)) in lines.iter().enumerate() {
        let colour = COLOURS[number % COLOURS.len()];
        let dashes = if line.is_floor {
            " stroke-dasharray=\"6 4\""
        } else {
            ""
        };
        let path: Vec<String> = points
            .iter()
            .map(|(at, value)| format!("{:.1},{:.1}", x(*at), y(*value)))
            .collect();
        let _ = writeln!(
            svg,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"{dashes}/>",
            path.join(" ")
        );
        for (at, value) in points {
            let _ = writeln!(
                svg,
                "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\" fill=\"{colour}\"><title>{}: {} at {at}</title></circle>",
                x(*at),
                y(*value),
                line.name,
                digits(*value),
            );
        }
        let legend = TOP + 14.0 + 20.0 * number as f64;
        let _ = writeln!(
            svg,
            "<line x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\" stroke=\"{colour}\" stroke-width=\"2\"{dashes}/><text x=\"{:.1}\" y=\"{legend:.1}\">{}</text>",
            WIDTH - RIGHT + 12.0,
            legend - 4.0,
            WIDTH - RIGHT + 36.0,
            legend - 4.0,
            WIDTH - RIGHT + 42.0,
            line.name,
        );
    }
    Some(svg + "</svg>\n")
}
