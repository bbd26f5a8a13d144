/** A line plot as SVG, in a few lines of our own: light background, so that it reads on a dark page too. The y axis begins at 0, the x axis is logarithmic. */

const size = { width: 560, height: 340 };
const frame = { left: 72, right: 28, top: 56, bottom: 52 };
/** Told apart by people who don't see all colours, too (Okabe and Ito's palette). */
const colours = ["#0072b2", "#d55e00", "#009e73"];
const shapes = [(x, y) => `<circle cx="${x}" cy="${y}" r="4"/>`, (x, y) => `<rect x="${x - 3.5}" y="${y - 3.5}" width="7" height="7"/>`, (x, y) => `<path d="M${x} ${y - 5}l5 9h-10z"/>`];

/** `series` are `{ name, points: [x, y][] }` of the same x; `x` and `y` are labels with their units. */
export function plot({ title, x, y, series }) {
  const xs = series[0].points.map(([value]) => value);
  const top = niceTop(Math.max(...series.flatMap(({ points }) => points.map(([, value]) => value))));
  const [low, high] = [Math.log(xs[0]), Math.log(xs.at(-1))];
  const atX = (value) => round(frame.left + 12 + ((Math.log(value) - low) / (high - low)) * (size.width - frame.left - frame.right - 24));
  const atY = (value) => round(size.height - frame.bottom - (value / top.end) * (size.height - frame.top - frame.bottom));
  const right = size.width - frame.right;
  const bottom = size.height - frame.bottom;
  const out = [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${size.width} ${size.height}" width="${size.width}" height="${size.height}" font-family="system-ui, 'DejaVu Sans', sans-serif" font-size="12" fill="#222">`,
    `<title>${escape(title)}</title>`,
    `<rect width="${size.width}" height="${size.height}" rx="6" fill="#fff"/>`,
    `<text x="${frame.left}" y="22" font-size="14" font-weight="600">${escape(title)}</text>`,
  ];
  for (let value = 0; value <= top.end + top.step / 2; value += top.step) {
    out.push(`<path d="M${frame.left} ${atY(value)}H${right}" stroke="${value === 0 ? "#666" : "#ddd"}"/>`, `<text x="${frame.left - 8}" y="${atY(value) + 4}" text-anchor="end">${number(value)}</text>`);
  }
  for (const value of xs) out.push(`<path d="M${atX(value)} ${bottom}v5" stroke="#666"/>`, `<text x="${atX(value)}" y="${bottom + 19}" text-anchor="middle">${number(value)}</text>`);
  out.push(`<text x="${(frame.left + right) / 2}" y="${size.height - 12}" text-anchor="middle">${escape(x)}</text>`);
  out.push(`<text transform="translate(16 ${(frame.top + bottom) / 2}) rotate(-90)" text-anchor="middle">${escape(y)}</text>`);
  let legend = frame.left;
  for (const [index, { name, points }] of series.entries()) {
    const colour = colours[index];
    out.push(`<polyline points="${points.map(([a, b]) => `${atX(a)},${atY(b)}`).join(" ")}" fill="none" stroke="${colour}" stroke-width="2"/>`);
    out.push(`<g fill="${colour}">${points.map(([a, b]) => shapes[index](atX(a), atY(b))).join("")}${series.length > 1 ? shapes[index](legend + 5, 40) : ""}</g>`);
    if (series.length > 1) out.push(`<text x="${legend + 15}" y="44">${escape(name)}</text>`);
    legend += 34 + name.length * 6.6;
  }
  return `${[...out, "</svg>"].join("\n")}\n`;
}

/** The axis' end and step: 4 to 8 steps of 1, 2 or 5 times a power of ten. */
function niceTop(most) {
  const power = 10 ** Math.floor(Math.log10(most / 4));
  const step = power * [1, 2, 5, 10].find((factor) => most / (factor * power) <= 8);
  return { end: Math.ceil(most / step) * step, step };
}

const round = (value) => Math.round(value * 10) / 10;
const number = (value) => String(Number(value.toPrecision(6))).replace(/(\d)(?=(\d{3})+$)/g, "$1,");
const escape = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;");
