// The page: its address says which screen is shown, and how.

import { ask, embedded, follow, Refused } from "./data.js";
import { connection, request } from "./detail.js";
import { count, counted, element } from "./dom.js";
import { explain } from "./explain.js";
import { exportButtons } from "./export.js";
import { connections, requests } from "./lists.js";
import { map } from "./map.js";
import { overview } from "./overview.js";

const SCREENS = {
  overview: { title: "Overview", all: overview },
  requests: { title: "Requests", all: requests, one: request },
  connections: { title: "Connections", all: connections, one: connection },
  map: { title: "Map", all: map },
  explain: { title: "Explain", all: explain },
};
const FIRST = "overview";
const SOON = 300; // milliseconds

const main = document.getElementById("main");
let current = {};
let turn = 0;
let soon = null;

function address() {
  const [path, query] = location.hash.replace(/^#\/?/, "").split("?", 2);
  const [name, number] = path.split("/");
  return { name: name in SCREENS ? name : FIRST, number, state: Object.fromEntries(new URLSearchParams(query ?? "")) };
}

function written(name, number, state) {
  const given = Object.entries(state).filter(([, value]) => value !== undefined && value !== null && value !== "");
  const query = new URLSearchParams(given).toString();
  return `#/${name}${number === undefined ? "" : `/${number}`}${query ? `?${query}` : ""}`;
}

document.getElementById("export").replaceChildren(...exportButtons(async () => {
  if (!current.exported) throw new Error("There is nothing to save here.");
  return current.exported();
}));

const page = {
  origin_ms: 0,
  go: (path) => {
    location.hash = `#/${path}`;
  },
  // Change values in the address; with `anew`, show the screen again.
  amend: (values, anew = false) => {
    const { name, number, state } = address();
    clearTimeout(soon);
    history[anew ? "pushState" : "replaceState"](null, "", written(name, number, { ...state, ...values }));
    if (anew) draw(true);
  },
  // The same a little later: browsers refuse too many changes at once.
  amendSoon: (values) => {
    const drawn = turn;
    clearTimeout(soon);
    soon = setTimeout(() => {
      if (drawn === turn) page.amend(values);
    }, SOON);
  },
  show: (title, nodes, scrolls = false) => {
    document.title = `${title} - tcprism`;
    main.className = scrolls ? "scrolls" : "";
    main.replaceChildren(...nodes.flat().filter(Boolean));
  },
};

async function draw(keep = false) {
  const mine = (turn += 1);
  const { name, number, state } = address();
  document.getElementById("nav").replaceChildren(...Object.entries(SCREENS).map(([key, screen]) =>
    element("a", { href: `#/${key}`, "aria-current": key === name ? "page" : null }, screen.title)));
  const top = main.scrollTop;
  const focused = keep && document.activeElement?.classList.contains("axis");
  current.close?.();
  current = {};
  main.ariaBusy = keep ? null : "true";
  try {
    const screen = SCREENS[name];
    const shown = await (number === undefined || !screen.one ? screen.all(page, state) : screen.one(page, state, number));
    if (mine === turn) current = shown;
    else shown.close?.();
    if (mine === turn) main.dataset.shown = number === undefined ? name : `${name}/${number}`;
    if (keep) main.scrollTop = top;
    else if (number !== undefined) main.focus();
    if (focused) main.querySelector(".axis")?.focus();
  } catch (error) {
    if (mine === turn) fail(error);
  }
  if (mine === turn) main.ariaBusy = null;
}

function fail(error) {
  page.show("Error", [element("p", { class: "error bad", role: "alert" }, error.message)]);
}

async function summary() {
  const answer = await ask("summary");
  page.origin_ms = answer.origin_ms;
  const reading = answer.ended || answer.live ? "" : ", reading …";
  document.getElementById("source").textContent = `${answer.name}${answer.host && !answer.live ? ` from ${answer.host}` : ""}${reading}`;
  health(answer);
  return answer;
}

// The footer: what was seen, what was lost, by which hooks.
function health(answer) {
  const footer = document.getElementById("health");
  const open = footer.querySelector("details")?.open;
  const lost = answer.lost || answer.trouble.length;
  const text = [
    counted(answer.events, "event"), counted(answer.connections, "connection"), counted(answer.requests, "request"),
    answer.ledger.length ? (answer.lost ? `${count(answer.lost)} events lost` : "none lost") : "",
    costs(answer.cost),
  ].filter(Boolean).join(" · ");
  const hooks = Object.entries(answer.hooks).map(([family, hook]) => `${family}: ${hook}`);
  footer.replaceChildren(element("details", { open },
    element("summary", { class: lost ? "bad" : null }, text),
    answer.trouble.map((sentence) => element("p", { class: "bad" }, sentence)),
    answer.forgotten ? element("p", null, `${count(answer.forgotten)} events were forgotten for lack of memory.`) : null,
    element("pre", { tabindex: 0, "aria-label": "Account of all events" }, answer.ledger_table.join("\n")),
    hooks.length ? element("pre", { tabindex: 0, "aria-label": "Hooks" }, hooks.join("\n")) : null));
}

function costs(cost) {
  if (cost?.cpu_share === null || cost?.cpu_share === undefined) return "";
  const percent = (share) => `${share >= 0.1 ? Math.round(100 * share) : (100 * share).toFixed(1)} %`;
  return `costs ${percent(cost.cpu_share)} of a CPU${cost.bpf_share === null ? "" : `, its hooks ${percent(cost.bpf_share)}`}`;
}

async function changed() {
  try {
    const answer = await summary();
    if (!answer.ended || !page.ended) current.changed?.();
    page.ended = answer.ended;
  } catch (error) {
    if (error instanceof Refused) fail(error);
  }
}

window.addEventListener("popstate", () => draw());
window.addEventListener("keydown", (event) => {
  if (event.key === "/" && !/INPUT|TEXTAREA/.test(document.activeElement?.tagName ?? "")) {
    current.focusFilter?.();
    event.preventDefault();
  } else if (event.key === "Escape" && document.activeElement?.tagName === "INPUT") document.activeElement.blur();
});

try {
  page.ended = (await summary()).ended;
  await draw();
  if (!embedded) follow(changed, (gone) => {
    document.getElementById("source").textContent = gone ? "tcprism has ended" : "no connection to tcprism …";
    if (gone) changed();
  });
} catch (error) {
  fail(error);
}
