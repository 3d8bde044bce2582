// The chart of a symbol. Its numbers are floats, as a chart's are: the page around it has all digits.
import "./ages.js";
import { refresh } from "./refresh.js";
import { openStream } from "./stream.js";

const RANGES = {
  "15m": { seconds: 900, interval: "1m" },
  "1h": { seconds: 3600, interval: "1m" },
  "1d": { seconds: 86400, interval: "1m" },
  "1w": { seconds: 7 * 86400, interval: "5m" },
  "1mo": { seconds: 31 * 86400, interval: "1h" },
  "1y": { seconds: 366 * 86400, interval: "1d" },
  all: { seconds: 0, interval: "1d" },
};
// Of more prices than these bars are drawn.
const MOST_ROWS = 10000;
const REDRAWN_EACH_MS = 30000;
const REFRESHED_AFTER_MS = 500;

const form = document.getElementById("chart-form");
const box = document.getElementById("chart");
const note = document.getElementById("chart-note");
const symbol = form.dataset.symbol;
const inDark = matchMedia("(prefers-color-scheme: dark)");
let chart, price, average, candles, gapBand;
let underWay = null;
let drawn = "";
let drawnAt = 0;
// The newest row that is drawn; null where bars are.
let edge = null;

// A variable of the page's style, as the colour that it is in this scheme.
function colour(name) {
  box.style.color = `var(--${name})`;
  return getComputedStyle(box).color;
}

// The axis is in the reader's zone, as all times of the page; the library's own is UTC.
const TICKS = [
  { year: "numeric" },
  { month: "short" },
  { day: "numeric", month: "short" },
  { hour: "2-digit", minute: "2-digit" },
  { hour: "2-digit", minute: "2-digit", second: "2-digit" },
];

function tickOf(seconds, kind) {
  // Midnight in UTC may be any hour here.
  const moment = new Date(seconds * 1000);
  const isDay = kind <= 2 && RANGES[new FormData(form).get("range")].interval !== "1d";
  return moment.toLocaleString(undefined, TICKS[isDay ? 3 : kind]);
}

function options() {
  return {
    autoSize: true,
    layout: {
      background: { type: "solid", color: "transparent" },
      textColor: colour("soft"),
      fontFamily: "system-ui, sans-serif",
      // Its logo brings a style of its own, which the page's policy refuses, and tells others the address.
      attributionLogo: false,
    },
    grid: { vertLines: { color: colour("line") }, horzLines: { color: colour("line") } },
    rightPriceScale: { borderColor: colour("line") },
    timeScale: { borderColor: colour("line"), timeVisible: true, tickMarkFormatter: tickOf },
    localization: { timeFormatter: (seconds) => new Date(seconds * 1000).toLocaleString() },
  };
}

function styles() {
  price.applyOptions({ color: colour("link") });
  average.applyOptions({ color: colour("delayed") });
  gapBand.applyOptions({ color: colour("line") });
  candles.applyOptions({
    upColor: colour("up"),
    wickUpColor: colour("up"),
    downColor: colour("down"),
    wickDownColor: colour("down"),
  });
}

function make() {
  const { createChart, LineSeries, CandlestickSeries, HistogramSeries } = window.LightweightCharts;
  chart = createChart(box, options());
  gapBand = chart.addSeries(HistogramSeries, {
    priceScaleId: "gaps",
    lastValueVisible: false,
    priceLineVisible: false,
  });
  chart.priceScale("gaps").applyOptions({ scaleMargins: { top: 0, bottom: 0 }, visible: false });
  price = chart.addSeries(LineSeries, { lineWidth: 2, title: "price" });
  average = chart.addSeries(LineSeries, { lineWidth: 1, title: "average", priceLineVisible: false });
  candles = chart.addSeries(CandlestickSeries, { borderVisible: false });
  styles();
}

const secondsOf = (text) => Math.floor(Date.parse(text) / 1000);

async function read(address, signal) {
  const answer = await fetch(address, { signal, cache: "no-cache" });
  if (!answer.ok) throw new Error(`the service answers ${answer.status}`);
  return answer.json();
}

const query = (values) => new URLSearchParams(Object.entries(values).filter(([, value]) => value));

function since(range) {
  const { seconds } = RANGES[range];
  return seconds ? new Date(Date.now() - seconds * 1000).toISOString() : "";
}

async function readRows(chosen, signal) {
  const values = { symbol, provider: chosen.provider, since: since(chosen.range), limit: MOST_ROWS };
  const page = await read(`/averages?${query(values)}`, signal);
  return page.next ? null : page.results;
}

async function readBars(chosen, signal) {
  const { interval } = RANGES[chosen.range];
  const begin = since(chosen.range) || new Date(0).toISOString();
  const values = { symbol, interval, provider: chosen.provider, since: begin, limit: MOST_ROWS };
  return (await read(`/prices/bars?${query(values)}`, signal)).results;
}

// Rows of the newest one's currency, the oldest first, by the provider's time, or that of receipt where it told
// none: the last one of each second.
function pointsOf(rows) {
  const currency = rows[0]?.currency || null;
  const same = [];
  for (let number = rows.length - 1; number >= 0; number -= 1) {
    const row = rows[number];
    if ((row.currency || null) === currency)
      same.push({ time: secondsOf(row.observed_at ?? row.created_at), row });
  }
  same.sort((one, other) => one.time - other.time);
  const points = same.filter(({ time }, number) => time !== same[number + 1]?.time);
  return { points, left: rows.length - same.length, currency };
}

// Of one currency: others are no line with it.
function ofOneCurrency(rows) {
  const { currency } = rows.at(-1) ?? {};
  const same = rows.filter((row) => (row.currency || null) === (currency || null));
  return { same, left: rows.length - same.length, currency };
}

function gapsWithin(points) {
  const gaps = JSON.parse(document.getElementById("gaps").textContent);
  return gaps.filter((gap) => gap.to > points[0].time && gap.from < points.at(-1).time);
}

// The line is not drawn over what was not polled: a point's colour is that of the way to the next one.
function withGaps(points, gaps) {
  const begins = gaps.map(({ from }) => from).sort((one, other) => one - other);
  let next = 0;
  for (const [number, point] of points.entries()) {
    while (begins[next] <= point.time) next += 1;
    if (begins[next] < points[number + 1]?.time) point.color = "transparent";
  }
  return points;
}

function bandOf(gaps) {
  const seconds = new Set();
  for (const { from, to } of gaps) {
    const step = Math.max(Math.floor((to - from) / 50), 1);
    for (let second = Math.floor(from); second <= to; second += step) seconds.add(second);
  }
  return [...seconds].sort((one, other) => one - other).map((time) => ({ time, value: 1 }));
}

// As many as the newest values have, 2 at least.
function decimalsOf(values) {
  const digits = values.slice(-200).map((value) => String(value).split(".")[1]?.length ?? 0);
  return Math.min(Math.max(2, ...digits), 8);
}

function show(data) {
  for (const [series, points] of [[price, data.price], [average, data.average], [candles, data.candles]]) {
    const precision = decimalsOf((points ?? []).map((point) => point.value ?? point.close));
    series.applyOptions({ priceFormat: { type: "price", precision, minMove: 10 ** -precision } });
    series.setData(points ?? []);
  }
  gapBand.setData(data.gaps ?? []);
}

function showRows(rows) {
  const { points, left, currency } = pointsOf(rows);
  const gaps = points.length ? gapsWithin(points) : [];
  const line = (name) => {
    const told = points.filter(({ row }) => row[name] !== null);
    return withGaps(told.map(({ time, row }) => ({ time, value: row[name] })), gaps);
  };
  show({ price: line("price"), average: line("average"), gaps: bandOf(gaps) });
  const words = [`${points.length.toLocaleString()} prices${currency ? ` in ${currency}` : ""}`];
  if (left) words.push(`${left} in other currencies are not drawn`);
  if (gaps.length) words.push("shaded: not polled, see below");
  return words;
}

function showBars(bars, chosen) {
  const { same, left, currency } = ofOneCurrency(bars);
  const { interval } = RANGES[chosen.range];
  const shape = ({ start, open, high, low, close }) => ({ time: secondsOf(start), open, high, low, close });
  const drawnBars = [...new Map(same.map((bar) => [bar.start, shape(bar)])).values()];
  const isLine = chosen.kind === "line";
  const closes = drawnBars.map(({ time, close }) => ({ time, value: close }));
  show(isLine ? { price: closes } : { candles: drawnBars });
  const words = [`${drawnBars.length} bars of ${interval}${currency ? ` in ${currency}` : ""}`];
  words.push("made of samples of quotes, by the provider's time");
  if (isLine) words.push("a line of closes; averages are drawn where a range has up to 10,000 prices");
  if (left) words.push(`${left} in other currencies are not drawn`);
  return words;
}

async function draw() {
  underWay?.abort();
  const { signal } = (underWay = new AbortController());
  const chosen = Object.fromEntries(new FormData(form));
  try {
    const rows = chosen.kind === "line" ? await readRows(chosen, signal) : null;
    const words = rows ? showRows(rows) : showBars(await readBars(chosen, signal), chosen);
    const choice = JSON.stringify(chosen);
    if (choice !== drawn) chart.timeScale().fitContent();
    drawn = choice;
    drawnAt = Date.now();
    edge = rows ? edgeOf(rows) : null;
    note.textContent = `${words.join("; ")}.`;
  } catch (error) {
    if (error.name !== "AbortError") note.textContent = `The chart is not up to date: ${error.message}.`;
  }
}

const edgeOf = ([newest]) => ({ time: secondsOf(newest?.observed_at ?? newest?.created_at), ...newest });

// At the right edge, as it comes; what is not simply newer is drawn with all the rest.
function append(event) {
  const time = secondsOf(event.observed_at ?? event.created_at);
  const provider = new FormData(form).get("provider");
  const isNewest = edge && time >= edge.time && event.event_id > edge.event_id;
  if (!isNewest || event.currency !== edge.currency || (provider && provider !== event.provider)) return;
  edge = { ...event, time };
  price.update({ time, value: event.price });
  if (event.average !== null) average.update({ time, value: event.average });
  refreshSoon();
}

let soon = null;

function refreshSoon() {
  soon ??= setTimeout(() => {
    soon = null;
    refresh();
  }, REFRESHED_AFTER_MS);
}

form.hidden = false;
make();
form.addEventListener("change", draw);
form.addEventListener("submit", (event) => event.preventDefault());
inDark.addEventListener("change", () => {
  chart.applyOptions(options());
  styles();
});
document.addEventListener("refreshed", () => Date.now() - drawnAt < REDRAWN_EACH_MS || draw());
openStream({ symbols: [symbol], onEvent: (_json, event) => append(event) });
draw();
