// Keeps the parts of a page as they are now that have data-live and an id: the page is asked for again while it
// is seen. What is open stays open, and the keyboard where it was. Times are shown in the reader's own zone.
const EVERY_MS = 5000;
const LOST_AFTER_MS = 2.5 * EVERY_MS;
const connection = document.getElementById("connection");
const parts = () => [...document.querySelectorAll("[data-live]")];
const shown = new Map(parts().map((part) => [part.id, part.innerHTML]));
let lastUpdate = Date.now();
let underWay = null;
let fault = "No connection";

function localTimes(root) {
  const today = new Date().toDateString();
  for (const each of root.querySelectorAll("time")) {
    const moment = new Date(each.dateTime);
    each.title = each.textContent;
    each.textContent =
      moment.toDateString() === today ? moment.toLocaleTimeString() : moment.toLocaleString();
  }
}

function replace(part, next) {
  if (next.innerHTML === shown.get(part.id)) return;
  shown.set(part.id, next.innerHTML);
  const open = [...part.querySelectorAll("details[id][open]")].map((each) => each.id);
  const focused = document.activeElement.closest("[id]")?.id;
  part.replaceChildren(...next.childNodes);
  for (const id of open) document.getElementById(id)?.setAttribute("open", "");
  if (focused && !document.getElementById(focused)?.contains(document.activeElement))
    document.getElementById(focused)?.querySelector("summary, a")?.focus({ preventScroll: true });
  localTimes(part);
}

// Asks for the page now.
export async function refresh() {
  underWay?.abort();
  const call = (underWay = new AbortController());
  try {
    const answer = await fetch(location.href, { signal: call.signal, cache: "no-store" });
    if (answer.redirected) location.assign(answer.url);
    fault = answer.ok ? "No connection" : `The service answers ${answer.status}`;
    if (!answer.ok) throw new Error(fault);
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    for (const part of parts()) {
      const next = page.getElementById(part.id);
      if (next) replace(part, next);
    }
    lastUpdate = Date.now();
    document.dispatchEvent(new Event("refreshed"));
  } catch (error) {
    if (error.name === "AbortError") return;
    if (error instanceof TypeError) fault = "No connection";
  }
  tellConnection();
}

function tellConnection() {
  const ago = Date.now() - lastUpdate;
  connection.hidden = ago < LOST_AFTER_MS;
  if (connection.hidden) return;
  const cause = isMarked() ? "Held while text is marked" : fault;
  const text = `${cause}: last update ${Math.round(ago / 1000)} s ago.`;
  if (connection.textContent !== text) connection.textContent = text;
  forgetStates();
}

// How fresh a price is holds for as long as somebody has just said so: data-told is when, if not the page.
function forgetStates() {
  for (const state of document.querySelectorAll("[data-live] .age .state:not(.unknown)")) {
    const told = new Date(Math.max(lastUpdate, Number(state.dataset.told ?? 0)));
    if (Date.now() - told < LOST_AFTER_MS) continue;
    state.title = `It was ${state.textContent} at ${told.toLocaleTimeString()}.`;
    state.textContent = "not known";
    state.className = "state unknown";
    shown.delete(state.closest("[data-live]").id);
  }
}

// Who marks a text wants to copy it.
function isMarked() {
  const selection = getSelection();
  return !selection.isCollapsed && parts().some((part) => part.contains(selection.anchorNode));
}

document.addEventListener("visibilitychange", () => {
  if (document.hidden) return;
  forgetStates();
  refresh();
});
setInterval(() => document.hidden || tellConnection(), 1000);
setInterval(() => document.hidden || isMarked() || refresh(), EVERY_MS);
parts().forEach(localTimes);
