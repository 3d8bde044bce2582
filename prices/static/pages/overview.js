// Keeps the overview as it is now: prices as they come by the stream, and the whole page each few seconds.
import { sinceOf, tick } from "./ages.js";
import { refresh } from "./refresh.js";
import { numberText, openStream } from "./stream.js";

const FIND_AFTER_MS = 200;
// What a row cannot tell by itself is asked for, but not for each event.
const ASK_AFTER_MS = 1000;
// The browser lays the table out once for all that came meanwhile.
const SHOWN_EACH_MS = 250;
const MARKED_FOR_MS = 1000;

const search = document.getElementById("q");
const live = document.getElementById("live");
const latest = new Map();
let before = prices();

const rows = () => [...live.querySelectorAll("tr[data-symbol]")];

function prices() {
  const cells = document.querySelectorAll("tr[data-symbol] .price");
  return new Map([...cells].map((cell) => [cell.closest("tr").dataset.symbol, numberOf(cell)]));
}

function numberOf(cell) {
  return parseFloat(cell.firstChild.textContent.replaceAll(",", ""));
}

// Without an animation, which would paint each row in each frame.
const marked = new Map();

function mark(row, former) {
  const cell = row.querySelector(".price");
  const now = numberOf(cell);
  if (former === undefined || Number.isNaN(former) || former === now) return;
  cell.classList.toggle("moved-up", now > former);
  cell.classList.toggle("moved-down", now < former);
  marked.set(row.dataset.symbol, { cell, until: Date.now() + MARKED_FOR_MS });
}

function unmark() {
  for (const [symbol, { cell, until }] of marked) {
    if (Date.now() < until) continue;
    cell.classList.remove("moved-up", "moved-down");
    marked.delete(symbol);
  }
}

// 12345.6700 as 12,345.6700
function grouped(text) {
  const [whole, decimals] = text.split(".");
  return whole.replace(/\B(?=(\d{3})+$)/g, ",") + (decimals === undefined ? "" : `.${decimals}`);
}

// A row is of one provider: which of several is the last price, the service says.
function isOfRow(row, event) {
  return row.dataset.provider === event.provider && row.dataset.event <= event.event_id;
}

function show(row, { json, event }) {
  const former = numberOf(row.querySelector(".price"));
  row.dataset.event = event.event_id;
  row.querySelector(".price").firstChild.textContent = `${grouped(numberText(json, "price"))} `;
  const average = numberText(json, "average");
  row.querySelector(".average").textContent = average === null ? "\u2013" : grouped(average);
  const state = row.querySelector(".state");
  state.className = `state ${event.freshness}`;
  state.textContent = event.freshness;
  state.title = event.freshness_rule;
  state.dataset.told = Date.now();
  if (event.age_seconds !== null) {
    const since = row.querySelector(".since");
    since.dataset.since = sinceOf(event.age_seconds);
    tick([since]);
  }
  mark(row, former);
}

let asking = null;

function ask() {
  asking ??= setTimeout(() => {
    asking = null;
    refresh();
  }, ASK_AFTER_MS);
}

let bySymbol = new Map(rows().map((row) => [row.dataset.symbol, row]));
const waiting = new Map();

function onEvent(json, event) {
  const row = bySymbol.get(event.symbol);
  if (!row) return;
  if (!isOfRow(row, event)) {
    // The first price, another provider, a correction: the row as a whole may be another one.
    if (!(event.event_id < row.dataset.event)) ask();
    return;
  }
  latest.set(event.symbol, { json, event });
  waiting.set(event.symbol, { json, event });
}

function showWaiting() {
  for (const [symbol, came] of waiting) {
    const row = bySymbol.get(symbol);
    if (row && isOfRow(row, came.event)) show(row, came);
  }
  waiting.clear();
  unmark();
}

setInterval(showWaiting, SHOWN_EACH_MS);

const follow = openStream({ symbols: rows().map((row) => row.dataset.symbol), onEvent });

document.addEventListener("refreshed", () => {
  bySymbol = new Map(rows().map((row) => [row.dataset.symbol, row]));
  marked.clear();
  for (const row of rows()) {
    // What came while the page was under way is newer than the page.
    const came = latest.get(row.dataset.symbol);
    if (came && row.dataset.event < came.event.event_id && isOfRow(row, came.event)) show(row, came);
    else mark(row, before.get(row.dataset.symbol));
  }
  before = prices();
  follow(rows().map((row) => row.dataset.symbol));
});

function find() {
  const address = new URL(location.href);
  address.search = search.value ? `?q=${encodeURIComponent(search.value)}` : "";
  history.replaceState(null, "", address);
  refresh();
}

let typing;
search.addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(find, FIND_AFTER_MS);
});
search.form.addEventListener("submit", (event) => {
  event.preventDefault();
  find();
});
