/**
 * One sequential colour map: similarity to colour, for canvases and their legend.
 *
 * Lightness falls in even steps from pale yellow to deep violet, so that the order is seen without telling
 * hues apart, and in grey; weak places are left transparent, so that the page stays readable. Defined in OKLCH
 * (Björn Ottosson, "A perceptual color space for image processing", 2020) and made once.
 */

const STEPS = 256;
const TABLE = Array.from({ length: STEPS }, (_, step) => colourAt(step / (STEPS - 1)));

/** Red, green, blue and alpha, 0..255, of a share from 0 to 1. */
export function heatColour(share) {
  return TABLE[Math.round(Math.min(1, Math.max(0, share)) * (STEPS - 1))];
}

function colourAt(share) {
  const lightness = 0.95 - 0.6 * share;
  const chroma = 0.09 + 0.11 * Math.sin(Math.PI * Math.min(1, 0.15 + 0.7 * share));
  const hue = 95 - 155 * share;
  return [...srgb(lightness, chroma, hue), Math.round(255 * 0.78 * share ** 1.5)];
}

function srgb(lightness, chroma, hue) {
  const angle = (hue * Math.PI) / 180;
  const [a, b] = [chroma * Math.cos(angle), chroma * Math.sin(angle)];
  const l = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3;
  const m = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3;
  const s = (lightness - 0.0894841775 * a - 1.291485548 * b) ** 3;
  return [
    4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s,
    -1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s,
    -0.0041960863 * l - 0.7034186147 * m + 1.707614701 * s,
  ].map(encodedChannel);
}

function encodedChannel(linear) {
  const value = linear <= 0.0031308 ? 12.92 * linear : 1.055 * linear ** (1 / 2.4) - 0.055;
  return Math.round(255 * Math.min(1, Math.max(0, value)));
}

/** Paint shares, `rows * columns` of them, one pixel each; what is beyond 0 and 1 is painted as these. */
export function paint(canvas, shares, rows, columns) {
  canvas.width = columns;
  canvas.height = rows;
  const pixels = new ImageData(columns, rows);
  shares.forEach((share, at) => pixels.data.set(heatColour(share), 4 * at));
  canvas.getContext("2d").putImageData(pixels, 0, 0);
}

/** Paint the map itself, from weak to strong. */
export function paintLegend(canvas) {
  paint(canvas, Float32Array.from({ length: STEPS }, (_, at) => at / (STEPS - 1)), 1, STEPS);
}
