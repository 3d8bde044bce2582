// Shows while typing what the budget would give the job: the page is asked for, and nothing is made.
"use strict";

const AFTER_MS = 300;
const form = document.getElementById("new-job");
const plan = document.getElementById("plan");
let waiting;
let underWay = null;

async function ask() {
  underWay?.abort();
  const call = (underWay = new AbortController());
  const values = new URLSearchParams(new FormData(form));
  values.delete("csrfmiddlewaretoken");
  values.delete("once");
  try {
    const answer = await fetch(`${form.action}?${values}`, { signal: call.signal, cache: "no-store" });
    if (!answer.ok || answer.redirected) throw new Error(answer.status);
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const faults = [...page.querySelectorAll("#new-job .error")];
    plan.replaceChildren(...(faults.length ? faults : page.getElementById("plan").childNodes));
    for (const each of faults) each.removeAttribute("id");
  } catch (error) {
    if (error.name !== "AbortError") plan.textContent = "What the budget gives is not known just now.";
  }
}

form.addEventListener("input", () => {
  clearTimeout(waiting);
  waiting = setTimeout(ask, AFTER_MS);
});
