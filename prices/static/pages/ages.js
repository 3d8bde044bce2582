// Ages go on while a page is looked at: each element with data-since, the moment that its age counts from, by the
// service's clock, which #as-of tells.
const UNITS = [
  ["d", 86400],
  ["h", 3600],
  ["min", 60],
  ["s", 1],
];
let aheadMs = 0;

function words(seconds) {
  const parts = [];
  for (const [name, length] of UNITS) {
    const count = Math.floor(seconds / length);
    seconds -= count * length;
    if (count) parts.push(`${count} ${name}`);
  }
  return parts.slice(0, 2).join(" ") || "0 s";
}

export function sinceOf(ageSeconds) {
  return new Date(Date.now() + aheadMs - ageSeconds * 1000).toISOString();
}

export function tick(elements = document.querySelectorAll("[data-since]")) {
  for (const each of elements) {
    const seconds = (Date.now() + aheadMs - Date.parse(each.dataset.since)) / 1000;
    const text = words(Math.max(Math.floor(seconds), 0));
    if (each.textContent !== text) each.textContent = text;
  }
}

function setClock() {
  aheadMs = Date.parse(document.querySelector("#as-of time").dateTime) - Date.now();
  tick();
}

document.addEventListener("refreshed", setClock);
setInterval(() => document.hidden || tick(), 1000);
setClock();
