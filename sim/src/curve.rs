//! Draws the completion curve: which share of the nodes had finished when, as SVG.

use std::fmt::Write as _;

use crate::outcome::Outcome;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 400.0;
const MARGIN: f64 = 50.0;

/// The curve of `outcome` under the line `title`, with the bound (one blob's time on a node's link) marked.
pub fn svg(title: &str, outcome: &Outcome) -> String {
    let longest = (outcome.tmax * 1.05).max(1.2);
    let x = |time: f64| MARGIN + (WIDTH - 2.0 * MARGIN) * time / longest;
    let y = |share: f64| HEIGHT - MARGIN - (HEIGHT - 2.0 * MARGIN) * share;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n"
    );
    let mut line = |from: (f64, f64), to: (f64, f64), color: &str| {
        // Writing to a string cannot fail.
        let _ = writeln!(
            out,
            "<line x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\" stroke=\"{color}\"/>",
            x(from.0),
            y(from.1),
            x(to.0),
            y(to.1)
        );
    };
    line((0.0, 0.0), (longest, 0.0), "black");
    line((0.0, 0.0), (0.0, 1.0), "black");
    line((1.0, 0.0), (1.0, 1.0), "silver");
    for share in [0.5, 0.99] {
        line((0.0, share), (longest, share), "gainsboro");
    }
    let mut text = |at: (f64, f64), anchor: &str, words: &str| {
        let _ = writeln!(
            out,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{}</text>",
            at.0,
            at.1,
            escape(words)
        );
    };
    text((WIDTH / 2.0, MARGIN / 2.0), "middle", title);
    text((WIDTH / 2.0, HEIGHT - 10.0), "middle", "time, in units of one pull on a free link");
    text((x(1.0), y(0.0) + 16.0), "middle", "1.0");
    for (share, words) in [(0.5, "50 %"), (0.99, "99 %")] {
        text((MARGIN - 6.0, y(share) + 4.0), "end", words);
    }
    for (time, share, words) in [(outcome.t50, 0.5, "T50"), (outcome.t99, 0.99, "T99")] {
        text((x(time) + 6.0, y(share) + 14.0), "start", &format!("{words} {time:.3}"));
    }
    let points: Vec<String> =
        outcome.curve.iter().map(|(time, share)| format!("{:.1},{:.1}", x(*time), y(*share))).collect();
    let _ = writeln!(
        out,
        "<polyline points=\"{}\" fill=\"none\" stroke=\"#c2410c\" stroke-width=\"2\"/>\n</svg>",
        points.join(" ")
    );
    out
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
