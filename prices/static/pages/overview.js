// Keeps the overview as it is now: the same page is asked for again, and what changed takes its place.
"use strict";

const EVERY_MS = 2000;
const FIND_AFTER_MS = 200;
const LOST_AFTER_MS = 6000;

const live = document.getElementById("live");
const connection = document.getElementById("connection");
const search = document.getElementById("q");
let lastUpdate = Date.now();
let underWay = null;

function pricesOf(root) {
  const cells = root.querySelectorAll("tr[data-symbol] .price");
  return new Map([...cells].map((cell) => [cell.closest("tr").dataset.symbol, cell]));
}

function numberOf(cell) {
  return parseFloat(cell.firstChild.textContent.replaceAll(",", ""));
}

function markMoved(before) {
  for (const [symbol, cell] of pricesOf(live)) {
    const former = before.get(symbol);
    if (former === undefined || former === numberOf(cell)) continue;
    cell.classList.add(numberOf(cell) > former ? "moved-up" : "moved-down");
  }
}

function localTimes() {
  for (const each of live.querySelectorAll("time")) {
    each.title = each.textContent;
    each.textContent = new Date(each.dateTime).toLocaleTimeString();
  }
}

async function update() {
  underWay?.abort();
  const call = (underWay = new AbortController());
  try {
    const answer = await fetch(location.href, { signal: call.signal, cache: "no-store" });
    if (answer.redirected) location.assign(answer.url);
    if (!answer.ok) throw new Error(answer.status);
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const before = new Map([...pricesOf(live)].map(([symbol, cell]) => [symbol, numberOf(cell)]));
    live.replaceChildren(...page.getElementById("live").childNodes);
    markMoved(before);
    localTimes();
    lastUpdate = Date.now();
  } catch (error) {
    if (error.name === "AbortError") return;
  }
  tellConnection();
}

function tellConnection() {
  const ago = Date.now() - lastUpdate;
  connection.hidden = ago < LOST_AFTER_MS;
  const text = `No connection: last update ${Math.round(ago / 1000)} s ago.`;
  if (!connection.hidden && connection.textContent !== text) connection.textContent = text;
}

function find() {
  const address = new URL(location.href);
  address.search = search.value ? `?q=${encodeURIComponent(search.value)}` : "";
  history.replaceState(null, "", address);
  update();
}

let waiting;
search.addEventListener("input", () => {
  clearTimeout(waiting);
  waiting = setTimeout(find, FIND_AFTER_MS);
});
search.form.addEventListener("submit", (event) => {
  event.preventDefault();
  find();
});
document.addEventListener("visibilitychange", () => document.hidden || update());
setInterval(() => document.hidden || update(), EVERY_MS);
localTimes();
