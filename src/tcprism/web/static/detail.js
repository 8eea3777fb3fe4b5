// The screens of one request and of one connection: facts, the time axis, and its events as a list.

import { Axis, axisLegend, splitLegend } from "./axis.js";
import { ask } from "./data.js";
import { clock, count, duration, element, size, splitBar } from "./dom.js";
import { proofs } from "./explain.js";
import { Grid } from "./grid.js";
import { causes, ending, trip, who } from "./lists.js";

const fact = (name, ...value) => [element("dt", null, name), element("dd", null, ...value)];
const facts = (...all) => element("dl", { class: "facts" }, all.filter(Boolean).map((pair) => element("div", null, pair)));

export async function request(page, state, n) {
  const answer = await ask("request", { n, since: state.since, until: state.until });
  const one = answer.request;
  const again = one.retransmissions
    ? fact("sent again", element("span", { class: "tag" }, `${one.retransmissions} (${one.causes}), waited ${duration(one.wait)}`))
    : null;
  const head = [
    element("h1", null, one.what),
    element("p", { class: "quiet" }, `${one.client} → ${one.server === "-" ? answer.connection?.ends[1] ?? "" : one.server}, ${clock(one.start, page.origin_ms, 6)}`),
    facts(
      fact("took", duration(one.took)),
      fact("status", one.failed ? element("span", { class: "tag" }, `${one.status ?? ""} failed`) : one.status ?? one.state),
      one.waiting_for && fact("waits for", one.waiting_for),
      fact("bytes there, back", `${size(one.sent)}, ${size(one.received)}`),
      again,
      one.connection !== null && fact("connection", element("a", { href: `#/connections/${one.connection}` }, answer.connection.ends.join(" → "))),
    ),
    element("div", { class: "wide" }, splitBar(one)), splitLegend(one),
  ];
  return show(page, state, head, answer, one, one.what);
}

export async function connection(page, state, n) {
  const answer = await ask("connection", { n, since: state.since, until: state.until });
  const one = answer.connection;
  const title = `${who(one, 0)} → ${who(one, 1)}`;
  const head = [
    element("h1", null, title),
    one.client_known ? null : element("p", { class: "quiet" }, "Which end asked for the connection was not seen."),
    facts(
      fact("began", clock(one.first, page.origin_ms, 6)),
      fact("seen for", duration(one.last - one.first)),
      fact("bytes there, back", `${size(Math.max(one.written[0], one.read[1]))}, ${size(Math.max(one.written[1], one.read[0]))}`),
      fact("round trip", trip(one)),
      one.retransmissions ? fact("sent again", element("span", { class: "tag" }, causes(one))) : null,
      one.drops ? fact("packets dropped here", element("span", { class: "tag" }, count(one.drops))) : null,
      one.requests ? fact("requests", element("a", { href: `#/requests?filter=connection:${one.n}` }, count(one.requests))) : null,
      fact("end", ending(one)),
    ),
  ];
  return show(page, state, head, answer, null, title);
}

function show(page, state, head, answer, one, title) {
  if (!answer.connection) {
    page.show(title, [...head, element("p", { class: "none" }, "Nothing more is known of its connection.")], true);
    return { exported: async () => ({ name: "request", rows: [answer.request], data: answer }) };
  }
  const said = element("div", { class: "said", "aria-live": "polite" }, element("p", { class: "quiet" }, "Point at a mark, or use the arrow keys on the axis."));
  const zoom = (since, until) => page.amend({ since, until, mark: null }, true);
  const tell = (mark) => {
    said.replaceChildren(element("p", null, axis.say(mark)), mark.payload ? element("pre", null, mark.payload) : "");
  };
  const axis = new Axis({
    answer, request: one, origin_ms: page.origin_ms, zoom, openRequest: (number) => page.go(`requests/${number}`),
    chosen: (mark, index) => {
      tell(mark);
      page.amendSoon({ mark: index });
      grid.active = index;
      grid.activate(index);
    },
  });
  const { marks } = answer;
  const zero = one ? one.start : answer.connection.first;
  const grid = new Grid({
    label: "events",
    columns: [
      { title: "after", width: "84px", narrow: "72px", right: true, cell: (mark) => duration(mark.t - zero) },
      { title: "end", width: "60px", narrow: "52px", cell: (mark) => (mark.side ? "server" : "client") },
      { title: "event", width: "84px", narrow: "76px", cell: (mark) => (["retransmit", "drop", "reset"].includes(mark.kind) ? element("span", { class: "tag" }, mark.kind) : mark.kind) },
      { title: "what it means", width: "minmax(120px, 1fr)", narrow: "minmax(80px, 1fr)", cell: (mark) => mark.text },
    ],
    rows: async (first, rows) => ({ found: marks.length, rows: marks.slice(first, first + rows) }),
    open: (mark) => axis.choose(marks.indexOf(mark)),
  });
  const missing = [
    answer.left_out ? `${count(answer.left_out)} more events are in this stretch of time: zoom in to see all.` : "",
    answer.forgotten ? `${count(answer.forgotten)} events of all connections were forgotten for lack of memory.` : "",
  ].filter(Boolean);
  const proven = element("div", { class: "proven" });
  ask("explain", { n: answer.connection.n }).then((found) => {
    proven.replaceChildren(element("h2", null, "What limits it"), ...(found.connections.length
      ? found.connections.map((end) => element("div", null, element("p", { class: "quiet" }, end.heading), proofs(end)))
      : [proofs(null)]));
  }).catch(() => {});
  page.show(title, [
    ...head,
    element("div", { class: "tools" },
      element("h2", null, one ? "While it lasted" : "Over time"),
      element("button", { type: "button", onclick: () => axis.scaleBy(0.5), "aria-label": "Zoom in" }, "+"),
      element("button", { type: "button", onclick: () => axis.scaleBy(2), "aria-label": "Zoom out" }, "−"),
      element("button", { type: "button", onclick: () => zoom(null, null) }, "All"),
      element("span", { class: "quiet" }, "drag to zoom in")),
    axis.node, axisLegend(), said,
    missing.map((text) => element("p", { class: "quiet" }, text)),
    proven,
    element("h2", null, `${count(marks.length)} events`),
    element("div", { class: "events" }, grid.node),
  ], true);
  grid.refresh();
  if (marks[state.mark]) axis.choose(Number(state.mark));
  return {
    exported: async () => ({ name: one ? `request-${one.n}` : `connection-${answer.connection.n}`, rows: marks, data: answer }),
    close: () => {
      axis.close();
      grid.close();
    },
  };
}
