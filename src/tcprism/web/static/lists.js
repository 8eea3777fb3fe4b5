// The screens with a table: requests and connections.

import { Completion } from "./complete.js";
import { ask } from "./data.js";
import { clock, count, duration, element, PARTS, partName, size, splitBar } from "./dom.js";
import { Grid } from "./grid.js";
import { choiceText, Heatmap, isChosen, NOTHING } from "./heatmap.js";

const EXPORT_MAX = 10_000; // rows
const TYPING = 250; // milliseconds

const hint = (request) =>
  request && PARTS.filter((part) => request.split[part]).map((part) => `${partName(part, request)} ${duration(request.split[part])}`).join(", ");

const requestColumns = (page) => [
  { title: "time", width: "96px", narrow: "84px", sort: "start", cell: (row) => clock(row.start, page.origin_ms) },
  { title: "took", width: "72px", narrow: "64px", right: true, sort: "took", cell: (row) => duration(row.took) },
  { title: "request", width: "minmax(120px, 3fr)", narrow: "minmax(60px, 1fr)", sort: "what", cell: (row) => row.what },
  { title: "status", width: "84px", narrow: "64px", cell: (row) => status(row) },
  { title: "where the time went", width: "minmax(80px, 1.2fr)", cell: splitBar, hint },
  { title: "sent again", width: "90px", right: true, sort: "retransmissions", cell: (row) => (row.retransmissions ? element("span", { class: "tag" }, `${row.retransmissions} ${row.causes ?? ""}`) : "") },
  { title: "there", width: "68px", right: true, sort: "sent", cell: (row) => size(row.sent) },
  { title: "back", width: "68px", right: true, sort: "received", cell: (row) => size(row.received) },
  { title: "client", width: "minmax(80px, 1fr)", cell: (row) => row.client },
  { title: "server", width: "minmax(80px, 1fr)", cell: (row) => row.server },
];

function status(row) {
  const text = row.status ?? (row.state === "complete" ? "" : row.state);
  return row.failed ? element("span", { class: "tag" }, `${text} failed`) : text;
}

const both = (pair, write) => (pair.some(Boolean) ? pair.map(write).join(" → ") : "");

const connectionColumns = (page) => [
  { title: "began", width: "96px", narrow: "84px", sort: "first", cell: (row) => clock(row.first, page.origin_ms) },
  { title: "lasted", width: "72px", right: true, sort: "duration", cell: (row) => duration(row.last - row.first) },
  { title: "client", width: "minmax(120px, 2fr)", narrow: "minmax(60px, 1fr)", cell: (row) => who(row, 0) },
  { title: "server", width: "minmax(120px, 2fr)", narrow: "minmax(60px, 1fr)", cell: (row) => who(row, 1) },
  { title: "there", width: "72px", right: true, sort: "written", cell: (row) => size(Math.max(row.written[0], row.read[1])) },
  { title: "back", width: "72px", right: true, narrow: "60px", sort: "read", cell: (row) => size(Math.max(row.written[1], row.read[0])) },
  { title: "round trip", width: "84px", right: true, cell: (row) => trip(row) },
  { title: "sent again", width: "minmax(84px, .8fr)", right: true, sort: "retransmissions", cell: (row) => (row.retransmissions ? element("span", { class: "tag" }, causes(row)) : "") },
  { title: "requests", width: "72px", right: true, sort: "requests", cell: (row) => (row.requests ? count(row.requests) : "") },
  { title: "end", width: "minmax(84px, .8fr)", cell: ending },
];

export const who = (row, side) => (row.owners[side] === "-" ? row.ends[side] : `${row.owners[side]} ${row.ends[side]}`);

export function trip(row) {
  const known = row.srtt_us.filter((value) => value !== null);
  return known.length ? duration(Math.min(...known) * 1000) : "–";
}

export const causes = (row) => Object.entries(row.causes).filter(([, n]) => n).map(([cause, n]) => `${count(n)} ${cause}`).join(", ");

export function ending(row) {
  if (row.failed) return element("span", { class: "tag" }, `failed ${row.errors.find(Boolean) ?? ""}`);
  if (!row.closed) return "open";
  const text = [...new Set(row.endings.filter(Boolean))].join(", ") || "closed";
  return /reset|timeout|error|aborted/.test(text) ? element("span", { class: "tag" }, text) : text;
}

const HELP = {
  requests: "words, or: failed, slow, repeated, took>10ms, received>1MB, -word, where status = '503'",
  connections: "words, or: failed, open, repeated, -word",
};

// A screen with a filter and a table; `state` are the values in the address.
function list(page, name, state, columns) {
  const said = element("p", { class: "quiet", role: "status" });
  const wrong = element("p", { class: "bad wrong", "aria-live": "polite" });
  let timer = null;
  const typed = () => {
    clearTimeout(timer);
    timer = setTimeout(() => {
      page.amend({ filter: input.value });
      anew();
    }, TYPING);
  };
  const input = element("input", {
    type: "text", value: state.filter ?? "", placeholder: HELP[name], spellcheck: "false", autocomplete: "off",
    "aria-label": `Filter ${name}: ${HELP[name]}`, oninput: typed,
  });
  const completion = new Completion({ input, vocabulary: () => ask("vocabulary", { of: name }), changed: typed });
  let choice = Object.fromEntries(Object.keys(NOTHING).map((key) => [key, state[key] ? Number(state[key]) : null]));
  const choose = (chosen) => {
    choice = chosen;
    page.amend(chosen);
    showChoice();
    anew();
  };
  const chip = element("button", { type: "button", class: "chip", hidden: true, onclick: () => heat?.choose(NOTHING) });
  const showChoice = () => {
    chip.hidden = !isChosen(choice);
    chip.textContent = `${choiceText(choice, page.origin_ms)} ✕`;
    chip.setAttribute("aria-label", `Only ${choiceText(choice, page.origin_ms)}: show all`);
  };
  const heat = name === "requests" ? new Heatmap({ choice, origin_ms: page.origin_ms, chosen: choose }) : null;
  let asked = 0;
  const refresh = () => {
    const mine = (asked += 1);
    grid.refresh();
    if (heat) ask("heatmap", { filter: input.value }).then((answer) => mine === asked && heat.show(answer)).catch(() => {});
  };
  const anew = () => {
    grid.active = 0;
    grid.body.scrollTop = 0;
    refresh();
  };
  const query = (first, rows, sort) => ({ filter: input.value, ...choice, first, count: rows, sort });
  const grid = new Grid({
    label: name, columns, sort: state.sort ?? (name === "requests" ? "-start" : "-first"),
    rows: (first, rows, sort) => ask(name, query(first, rows, sort)),
    answered: (answer) => {
      wrong.textContent = "";
      said.textContent = answer.found === answer.total ? count(answer.total) : `${count(answer.found)} of ${count(answer.total)}`;
    },
    refused: (error) => {
      wrong.textContent = error.message;
    },
    open: (row) => page.go(`${name}/${row.n}`),
    sorted: (sort) => page.amend({ sort, row: null }),
    active: Number(state.row ?? 0),
    marked: () => page.amendSoon({ row: grid.active || null }),
  });
  const all = async () => {
    const rows = [];
    while (rows.length < EXPORT_MAX) {
      const answer = await ask(name, query(rows.length, 500, grid.sort));
      rows.push(...answer.rows);
      if (rows.length >= answer.found || !answer.rows.length) break;
    }
    return rows;
  };
  const node = [
    element("h1", { class: "unseen" }, name === "requests" ? "Requests" : "Connections"),
    element("div", { class: "tools" }, completion.node, chip, said),
    wrong,
    heat && [heat.node, heat.said],
    grid.node,
  ];
  page.show(`${name}`, node.flat());
  showChoice();
  refresh();
  if (!state.keep) grid.node.focus({ preventScroll: true });
  return {
    changed: refresh,
    close: () => {
      grid.close();
      heat?.close();
    },
    focusFilter: () => input.focus(),
    exported: async () => ({ name, rows: await all() }),
  };
}

export const requests = (page, state) => list(page, "requests", state, requestColumns(page));
export const connections = (page, state) => list(page, "connections", state, connectionColumns(page));
