// GET /prices/stream for a page: what comes is handed on; it is closed while the page is not seen, since a
// browser has six connections to a host, and goes on from where it was.
const EVENTS = ["price", "correction"];

// The number of this name in the JSON of an event, with its own digits: a float has other ones.
export function numberText(json, name) {
  return json.match(new RegExp(`"${name}":(-?[0-9.]+)`))?.[1] ?? null;
}

// Hands each event of the symbols to onEvent, as its JSON and what that says. Returns a function that asks for
// other symbols. A browser comes back by itself while the server can be reached.
export function openStream({ symbols, onEvent }) {
  const address = document.body.dataset.stream;
  let wanted = symbols;
  let source = null;
  let lastId = "";

  function open() {
    source?.close();
    source = null;
    if (document.hidden || !wanted.length) return;
    const query = new URLSearchParams({ symbols: wanted.join(","), from: "now" });
    if (lastId) query.set("since", lastId);
    source = new EventSource(`${address}?${query}`, { withCredentials: true });
    for (const name of EVENTS)
      source.addEventListener(name, (event) => {
        lastId = event.lastEventId || lastId;
        onEvent(event.data, JSON.parse(event.data));
      });
    source.addEventListener("error", () => {
      // Where it was refused for good the browser does not come back.
      if (source?.readyState === EventSource.CLOSED) setTimeout(open, 5000);
    });
  }

  document.addEventListener("visibilitychange", open);
  open();
  return (others) => {
    if (others.join() === wanted.join()) return;
    wanted = others;
    // Of other symbols nothing has come yet.
    lastId = "";
    open();
  };
}
